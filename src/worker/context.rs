//! The context of a delivery, outside its body: the caller, the id, and the address of the answer.

use jiff::Timestamp;
use uuid::Uuid;

use crate::domain::ids::{ConnectionName, Lane, excerpt};
use crate::domain::message::{Address, Headers, Properties, Source};
use crate::domain::result::{ErrorCode, Failure};
use crate::domain::topology::DIRECT_REPLY;
use crate::policy::origin;
use crate::policy::reply_to::ReplyPolicy;

use super::history::History;
use super::okta_time::Moment;

/// The header with the W3C trace.
pub(super) const TRACEPARENT: &str = "traceparent";

/// A delivery without body and receipt, its properties parsed.
#[derive(Debug)]
pub(super) struct MessageContext {
    /// The invocation's id.
    pub id: String,
    /// The history of the invocation.
    pub history: History,
    /// The address of the answer; `None` stands for `okta.results`.
    pub reply_to: Option<Address>,
    /// The source of the message.
    pub source: Source,
    /// True if the broker delivered the message before.
    pub redelivered: bool,
    /// The time of receipt, by the machine's clock.
    pub received: Timestamp,
    /// The exchange that the message was published to.
    pub exchange: String,
    /// The routing key that the message was published with.
    pub routing_key: String,
    /// The properties as received.
    pub properties: Properties,
}

impl MessageContext {
    /// Parses the properties. `own_user` is the worker's own broker user.
    pub fn new(
        (source, exchange, routing_key): (Source, String, String),
        properties: Properties,
        redelivered: bool,
        received: Moment,
        (reply_policy, own_user): (&ReplyPolicy, Option<&str>),
    ) -> Self {
        let id = properties.message_id.clone();
        let reply_to = properties.reply_to.as_ref().filter(|name| reply_policy.allows(name)).map(|name| {
            if name.starts_with(DIRECT_REPLY) {
                Address::DirectReply(name.clone())
            } else {
                Address::Queue(name.clone())
            }
        });
        Self {
            history: History::read(&properties, redelivered, own_user, &received),
            id: id.unwrap_or_else(|| Uuid::new_v4().to_string()),
            reply_to,
            source,
            redelivered,
            received: received.at,
            exchange,
            routing_key,
            properties,
        }
    }

    /// Returns the connection's name in the routing key, and the lane's if the key has one.
    pub fn addressee(&self) -> (&str, Option<&str>) {
        match self.routing_key.split_once('.') {
            Some((connection, lane)) => (connection, Some(lane)),
            None => (&self.routing_key, None),
        }
    }

    /// Returns the lane that the message came by, and its connection.
    pub fn lane(&self) -> Option<(&ConnectionName, Lane)> {
        match &self.source {
            Source::Work { connection, lane } => Some((connection, *lane)),
            Source::Removed { .. } | Source::Unrouted | Source::Undelivered => None,
        }
    }

    /// Returns the W3C trace, if it is plain text of bounded length.
    pub fn traceparent(&self) -> Option<&str> {
        /// The longest trace: version 00 has 55 characters; later versions may append to it.
        const TRACE_CHARS_MAX: usize = 256;
        let text = self.properties.headers.get(TRACEPARENT)?.as_text()?;
        (text.len() <= TRACE_CHARS_MAX && text.bytes().all(|byte| byte.is_ascii_graphic())).then_some(text)
    }

    /// Checks that the message came by one of the worker's own routes.
    ///
    /// # Errors
    /// `not_permitted` otherwise.
    pub fn check_origin(&self) -> Result<(), Failure> {
        origin::check(&self.source, &self.exchange, &self.routing_key, &self.properties.headers)
    }

    /// Returns the failure of a `reply_to` that names a queue where results must not go.
    pub fn check_reply_to(&self) -> Option<Failure> {
        let name = self.properties.reply_to.as_ref().filter(|_| self.reply_to.is_none())?;
        let message = format!("results may not go to the queue `{}`", excerpt(name));
        Some(Failure::new(ErrorCode::NotPermitted, message).at(Some("properties.reply_to")))
    }

    /// Returns the failure of properties that ask for something impossible.
    pub fn fault(&self) -> Option<Failure> {
        let invalid = |message: String, path: &str| {
            Some(Failure::new(ErrorCode::InvalidMessage, message).at(Some(path)))
        };
        if let Some(encoding) = &self.properties.content_encoding
            && !encoding.eq_ignore_ascii_case("utf-8")
        {
            let message =
                format!("the content encoding `{}` is neither absent nor `utf-8`", excerpt(encoding));
            return invalid(message, "properties.content_encoding");
        }
        None
    }

    /// Returns the id by which the caller recognizes its answers.
    pub fn correlation_id(&self) -> Option<String> {
        self.properties.correlation_id.clone().or_else(|| Some(self.id.clone()))
    }

    /// Returns the trace as headers of an answer.
    pub fn answer_headers(&self) -> Headers {
        let trace = self
            .traceparent()
            .map(|text| (TRACEPARENT.to_owned(), crate::domain::message::HeaderValue::Text(text.to_owned())));
        trace.into_iter().collect()
    }
}
