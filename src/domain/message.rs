//! AMQP messages as received from and published to the broker, independent of any client library.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;

use super::ids::{ConnectionName, Lane};

/// The queue a message came from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Source {
    /// A lane of a connection.
    Work {
        /// The connection that owns the lane.
        connection: ConnectionName,
        /// The lane.
        lane: Lane,
    },
    /// A lane of a removed connection, which no worker serves any more.
    Removed {
        /// The connection that owned the lane.
        connection: ConnectionName,
        /// The lane.
        lane: Lane,
    },
    /// Unroutable messages, for which no queue was bound.
    Unrouted,
    /// Messages that the broker dead-lettered: expired, or past the delivery limit.
    Undelivered,
}

/// A header value, limited to the types that AMQP 0.9.1 producers use.
#[derive(Debug, Clone, PartialEq)]
pub enum HeaderValue {
    /// A string.
    Text(String),
    /// A 64-bit integer or a timestamp.
    Int(i64),
    /// An integer of fewer than 64 bits: RabbitMQ itself writes none.
    Small(i64),
    /// A floating-point number.
    Float(f64),
    /// A Boolean.
    Bool(bool),
    /// Bytes that are not UTF-8.
    Bytes(Vec<u8>),
    /// An array.
    List(Vec<HeaderValue>),
    /// A table.
    Table(Headers),
    /// No value.
    Void,
}

impl HeaderValue {
    /// Returns the text if the value is a string.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Returns the number if the value is an integer.
    pub fn as_int(&self) -> Option<i64> {
        match self {
            Self::Int(value) | Self::Small(value) => Some(*value),
            _ => None,
        }
    }

    /// Returns true for the Boolean `true` and for the text `true`.
    pub fn is_true(&self) -> bool {
        match self {
            Self::Bool(value) => *value,
            Self::Text(text) => text.eq_ignore_ascii_case("true"),
            _ => false,
        }
    }
}

/// The header with which a producer says that it may have sent the message before.
pub const RESENT: &str = "okta-resent";
/// The header with which a caller asks for progress messages while its invocation waits.
pub const WANTS_PROGRESS: &str = "okta-progress";
/// The AMQP `type` of a result.
pub const RESULT: &str = "okta.result";
/// The AMQP `type` of a progress message.
pub const PROGRESS: &str = "okta.progress";
/// The AMQP `type` of a cancellation, both from callers and between workers.
pub const CANCEL: &str = "okta.cancel";

/// The headers of a message, by name.
pub type Headers = BTreeMap<String, HeaderValue>;

/// The properties of a message. An absent property is `None`; an empty text counts as absent.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Properties {
    /// The producer's id of the message.
    pub message_id: Option<String>,
    /// The id that the result repeats for the producer.
    pub correlation_id: Option<String>,
    /// The queue for the result.
    pub reply_to: Option<String>,
    /// The broker user that published; RabbitMQ verifies it when it is set.
    pub user_id: Option<String>,
    /// The AMQP `type`.
    pub kind: Option<String>,
    /// The media type of the body.
    pub content_type: Option<String>,
    /// The encoding of the body.
    pub content_encoding: Option<String>,
    /// The time of the first sending, in seconds since 1970.
    pub timestamp: Option<u64>,
    /// The time to live at the broker, in milliseconds.
    pub expiration: Option<String>,
    /// The headers.
    pub headers: Headers,
}

/// One message from a queue, not yet settled.
pub struct Delivery {
    /// The body, unchanged.
    pub body: Bytes,
    /// The properties.
    pub properties: Properties,
    /// The exchange that it was published to; empty for the default exchange.
    pub exchange: String,
    /// The routing key that it was published with.
    pub routing_key: String,
    /// The queue that it came from.
    pub source: Source,
    /// True if the broker has delivered it before, as far as the broker knows.
    pub redelivered: bool,
    /// The handle that settles it.
    pub receipt: Box<dyn Receipt>,
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "delivery of {} bytes from {:?}", self.body.len(), self.source)
    }
}

/// The only way to settle a delivery. If it is dropped unused, the broker redelivers the message.
#[async_trait::async_trait]
pub trait Receipt: Send + Sync {
    /// Returns true while an acknowledgement can reach the broker. Once the connection that delivered the
    /// message is gone it cannot, and the broker redelivers the message.
    fn is_live(&self) -> bool;

    /// Waits until an acknowledgement can no longer reach the broker; waits forever if that cannot happen.
    async fn gone(&self) {
        std::future::pending().await
    }

    /// Acknowledges the message; returns false if that failed, and the broker will redeliver it.
    async fn ack(self: Box<Self>) -> bool;
}

/// The destination of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A queue, through the default exchange; the broker does not report whether anybody consumes it.
    Queue(String),
    /// A direct reply-to name: never `mandatory`, because RabbitMQ 3.10 and 4.0 return such a message
    /// although they delivered it (measured).
    DirectReply(String),
    /// One of the worker's exchanges, with a routing key.
    Exchange(&'static str, String),
}

/// One message to publish, always persistent.
#[derive(Clone, PartialEq)]
pub struct Publish {
    /// The destination.
    pub to: Address,
    /// The properties.
    pub properties: Properties,
    /// The body.
    pub body: Bytes,
}

/// Shows no body and no property: results hold one-time secrets.
impl fmt::Debug for Publish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "message of {} bytes to {:?}", self.body.len(), self.to)
    }
}

/// The fate of a published message that the broker has confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Published {
    /// The broker accepted it (for direct reply-to: the broker took it, but the caller may have left).
    Confirmed,
    /// There is no queue for it.
    Unroutable,
    /// The queue refused it on every attempt (full, with `reject-publish`).
    Refused,
    /// The message is larger than the broker accepts.
    TooLarge,
}

/// The broker is unreachable and this process is stopping; the fate of the message is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("failed to publish: the worker is stopping and the broker does not answer")]
pub struct Unpublished;
