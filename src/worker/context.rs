//! What a delivery says outside its body: who asked, under which id, and where the answer goes.

use jiff::Timestamp;
use uuid::Uuid;

use crate::domain::ids::{ConnectionName, Lane, excerpt};
use crate::domain::message::{Address, Headers, Properties, Source};
use crate::domain::result::{ErrorCode, Failure};
use crate::domain::topology::DIRECT_REPLY;
use crate::policy::origin;
use crate::policy::reply_to::ReplyPolicy;

use super::history::Docket;
use super::okta_time::Moment;

/// The header that carries the W3C trace.
pub(super) const TRACEPARENT: &str = "traceparent";

/// A delivery without body and receipt, its properties understood.
#[derive(Debug)]
pub(super) struct Letter {
    /// The invocation's id.
    pub id: String,
    /// What else is known of it.
    pub docket: Docket,
    /// Where the answer goes; `None`: to `okta.results`.
    pub reply_to: Option<Address>,
    /// Where it came from.
    pub source: Source,
    /// Whether the broker delivered it before.
    pub redelivered: bool,
    /// When it was received, by the machine's clock.
    pub received: Timestamp,
    /// The exchange it was published to.
    pub exchange: String,
    /// The key it was published with.
    pub routing_key: String,
    /// Its properties as they came.
    pub properties: Properties,
}

impl Letter {
    /// Reads the properties. `own_user` is the worker's own broker user.
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
            docket: Docket::read(&properties, redelivered, own_user, &received),
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

    /// What the key says: a connection's name, and a lane if it names one.
    pub fn addressee(&self) -> (&str, Option<&str>) {
        match self.routing_key.split_once('.') {
            Some((connection, lane)) => (connection, Some(lane)),
            None => (&self.routing_key, None),
        }
    }

    /// The lane the message belongs to, and whose.
    pub fn lane(&self) -> Option<(&ConnectionName, Lane)> {
        match &self.source {
            Source::Work { connection, lane } => Some((connection, *lane)),
            Source::Removed { .. } | Source::Unrouted | Source::Undelivered => None,
        }
    }

    /// The W3C trace, when it is a sane text.
    pub fn traceparent(&self) -> Option<&str> {
        /// A version 00 trace has 55 characters; later versions may append to it.
        const TRACE_CHARS_MAX: usize = 256;
        let text = self.properties.headers.get(TRACEPARENT)?.as_text()?;
        (text.len() <= TRACE_CHARS_MAX && text.bytes().all(|byte| byte.is_ascii_graphic())).then_some(text)
    }

    /// Whether it may have come the way it came.
    ///
    /// # Errors
    /// `not_permitted`, where it may not.
    pub fn came_by_a_good_way(&self) -> Result<(), Failure> {
        origin::check(&self.source, &self.exchange, &self.routing_key, &self.properties.headers)
    }

    /// Whether `reply_to` names a place where results must not go.
    pub fn answers_where_it_must_not(&self) -> Option<Failure> {
        let name = self.properties.reply_to.as_ref().filter(|_| self.reply_to.is_none())?;
        let message = format!("results may not go to the queue `{}`", excerpt(name));
        Some(Failure::new(ErrorCode::NotPermitted, message).at(Some("properties.reply_to")))
    }

    /// What properties and headers ask for that cannot be done.
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

    /// By what the caller knows its answers.
    pub fn correlation_id(&self) -> Option<String> {
        self.properties.correlation_id.clone().or_else(|| Some(self.id.clone()))
    }

    /// The trace as headers of an answer.
    pub fn answer_headers(&self) -> Headers {
        let trace = self
            .traceparent()
            .map(|text| (TRACEPARENT.to_owned(), crate::domain::message::HeaderValue::Text(text.to_owned())));
        trace.into_iter().collect()
    }
}
