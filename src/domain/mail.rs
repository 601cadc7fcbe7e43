//! Messages as the broker hands them over and takes them, free of any client library.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;

use super::ids::{ConnectionName, Lane};

/// The queue a message came from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Source {
    /// A lane of a connection.
    Work {
        /// Whose lane.
        connection: ConnectionName,
        /// Which lane.
        lane: Lane,
    },
    /// A lane of a connection that was removed, and that no worker serves any more.
    Removed {
        /// Whose lane.
        connection: ConnectionName,
        /// Which lane.
        lane: Lane,
    },
    /// What no queue was bound for.
    Unrouted,
    /// What the broker gave up: expired, or past the delivery limit.
    Undelivered,
}

/// A header's value, as far as AMQP 0.9.1 producers use it.
#[derive(Debug, Clone, PartialEq)]
pub enum HeaderValue {
    /// A string.
    Text(String),
    /// A number without fraction, of 64 bits or a timestamp.
    Int(i64),
    /// A number without fraction, of fewer bits: RabbitMQ itself writes none.
    Small(i64),
    /// A number with fraction.
    Float(f64),
    /// A truth value.
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
    /// The text of a string.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The number, when it is one without fraction.
    pub fn as_int(&self) -> Option<i64> {
        match self {
            Self::Int(value) | Self::Small(value) => Some(*value),
            _ => None,
        }
    }

    /// Whether the value says yes: `true` as a truth value or as text.
    pub fn is_true(&self) -> bool {
        match self {
            Self::Bool(value) => *value,
            Self::Text(text) => text.eq_ignore_ascii_case("true"),
            _ => false,
        }
    }
}

/// The header by which a producer says that it may have sent the message before.
pub const RESENT: &str = "okta-resent";
/// The header by which a caller asks to hear of waits.
pub const WANTS_PROGRESS: &str = "okta-progress";
/// The AMQP `type` of a result.
pub const RESULT: &str = "okta.result";
/// The AMQP `type` of what tells of a wait.
pub const PROGRESS: &str = "okta.progress";
/// The AMQP `type` of what cancels an invocation, and of what workers tell each other of it.
pub const CANCEL: &str = "okta.cancel";

/// The headers of a message, by name.
pub type Headers = BTreeMap<String, HeaderValue>;

/// The properties of a message. What is absent is `None`; an empty text counts as absent.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Properties {
    /// The producer's id of the message.
    pub message_id: Option<String>,
    /// What the producer wants echoed.
    pub correlation_id: Option<String>,
    /// The queue to answer to.
    pub reply_to: Option<String>,
    /// The broker user that published; RabbitMQ verifies it when it is set.
    pub user_id: Option<String>,
    /// The kind of message.
    pub kind: Option<String>,
    /// The media type of the body.
    pub content_type: Option<String>,
    /// The encoding of the body.
    pub content_encoding: Option<String>,
    /// When it was first sent, in seconds since 1970.
    pub timestamp: Option<u64>,
    /// After how many milliseconds the broker drops it.
    pub expiration: Option<String>,
    /// Everything else.
    pub headers: Headers,
}

/// One message out of a queue, not yet settled.
pub struct Delivery {
    /// The body, untouched.
    pub body: Bytes,
    /// The properties.
    pub properties: Properties,
    /// The exchange it was published to; empty for the default exchange.
    pub exchange: String,
    /// The key it was published with.
    pub routing_key: String,
    /// The queue it came from.
    pub source: Source,
    /// Whether the broker delivered it before, as far as it knows.
    pub redelivered: bool,
    /// Settles it.
    pub receipt: Box<dyn Receipt>,
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "delivery of {} bytes from {:?}", self.body.len(), self.source)
    }
}

/// The one way to settle a delivery. Dropped unused, the broker delivers the message again.
#[async_trait::async_trait]
pub trait Receipt: Send + Sync {
    /// Whether an acknowledgement would still reach the broker: false once the connection that
    /// delivered the message is gone, and then the message is or will be with somebody else.
    fn is_live(&self) -> bool;

    /// Waits until an acknowledgement would no longer reach the broker; for ever where that cannot happen.
    async fn gone(&self) {
        std::future::pending().await
    }

    /// Acknowledges; false when it could not, and the message will come again.
    async fn ack(self: Box<Self>) -> bool;
}

/// Where a message goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A queue, by the default exchange; nobody there is noticed.
    Queue(String),
    /// A direct reply-to name: never `mandatory`, because RabbitMQ 3.10 and 4.0 return such a message
    /// although they delivered it (measured).
    DirectReply(String),
    /// An exchange of ours, with a routing key.
    Exchange(&'static str, String),
}

/// One message to publish, persistent.
#[derive(Clone, PartialEq)]
pub struct Post {
    /// Where to.
    pub to: Address,
    /// The properties.
    pub properties: Properties,
    /// The body.
    pub body: Bytes,
}

/// Shows no body and no property: results hold one-time secrets.
impl fmt::Debug for Post {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "message of {} bytes to {:?}", self.body.len(), self.to)
    }
}

/// What became of a message that was published and confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Posted {
    /// The broker has it (for direct reply-to: took it, the caller may have left).
    Confirmed,
    /// No queue is there for it.
    Unroutable,
    /// The queue would not take it, however often it was asked (full, with `reject-publish`).
    Refused,
    /// The broker is not set up to take messages so large.
    TooLarge,
}

/// The broker cannot be reached any more and this process is leaving; nothing is known of the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("failed to publish: the worker is stopping and the broker does not answer")]
pub struct Unposted;
