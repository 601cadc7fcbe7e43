//! Delayed retry: a copy of a message waits in a delay queue and comes back into its lane, or goes back to
//! its queue at once.
//!
//! This file does not know the reason for a delay. Invariant: a copy of a copy equals a copy of the original, and the
//! broker has confirmed a copy before the worker acknowledges the delivery that it replaces.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::domain::message::{
    Address, HeaderValue, Headers, Properties, Publish, Published, RESENT, Receipt, WANTS_PROGRESS,
};
use crate::domain::topology::{DELAY_TIERS, INVOCATIONS, work_key};
use crate::policy::origin::X_DEATH;

use super::admission::Invocation;
use super::context::MessageContext;
use super::failpoint::{Point, reached};
use super::history::History;
use super::lanes::ORDER;
use super::okta_time::Moment;
use super::order::ExpectedReturn;
use super::ports::Outbox;
use super::rules::Rules;

/// The prefix of the worker's own headers.
const OWN_PREFIX: &str = "okta-";

/// The headers with that prefix that a producer may set.
const PRODUCER_HEADERS: [&str; 2] = [RESENT, WANTS_PROGRESS];

/// The headers that RabbitMQ writes into a message, or that take effect when a message is published: delivery counts,
/// the origin of a dead letter, and further routing keys.
const BROKER_HEADERS: [&str; 5] = [X_DEATH, "x-delivery-count", "x-acquired-count", "CC", "BCC"];

/// The prefixes of RabbitMQ's other headers of that kind.
const BROKER_HEADER_PREFIXES: [&str; 2] = ["x-first-death-", "x-last-death-"];

/// The largest size of a copy's headers, in bytes. Properties and headers are sent in one frame, and RabbitMQ closes
/// the connection on a frame that is too large; the limit may be as low as 8 KiB. The original was below that limit,
/// but a copy has more headers.
const HEADERS_BYTES_MAX: usize = 4 * 1024;

/// A message that is to be delayed.
pub(super) struct Delay<'a> {
    pub invocation: &'a Invocation<'a>,
    pub body: &'a Bytes,
    pub receipt: &'a dyn Receipt,
    pub rules: &'a Rules,
    pub outbox: &'a dyn Outbox,
    /// The value of [`ORDER`], if the message has a place in the order of its subject.
    pub order: Option<HeaderValue>,
}

/// The state that a copy carries, of all deliveries together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Carried {
    /// Attempts spent.
    pub attempts: u32,
    /// The time spent waiting for the budget.
    pub waited: Duration,
    /// True if this delivery may have changed something: the worker that takes the copy must reconcile first.
    pub in_doubt: bool,
}

impl Carried {
    /// Returns the state that earlier deliveries left, for a delivery that did nothing.
    pub fn of(history: &History) -> Self {
        Self { attempts: history.attempts, waited: history.waited, in_doubt: false }
    }
}

/// The result of a delay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Delayed {
    /// A copy comes back after this time; the delivery may be acknowledged.
    Scheduled(Duration),
    /// There is no copy: the message must wait in hand.
    Impossible,
    /// It is unknown whether the broker has the copy, and the broker delivers the message again.
    Stale,
}

impl Delay<'_> {
    /// Delays the message for about this time, and so that it comes back after another message, if one is given.
    pub async fn put(&self, wait: Duration, behind: Option<ExpectedReturn>, so_far: Carried) -> Delayed {
        let left =
            self.invocation.deadline.map(|deadline| deadline.ours.duration_since(self.rules.clock.now()));
        let left = left.map(|left| Duration::try_from(left).unwrap_or_default());
        let now = Instant::now();
        let is_behind = |time| behind.is_none_or(|behind| behind.is_before(now, time));
        let Some((tier, time)) = tier(wait, left, is_behind) else { return Delayed::Impossible };
        self.publish(tier, so_far, time).await
    }

    /// Hands the message back to the end of its queue.
    pub async fn hand_back(&self, so_far: Carried) -> Delayed {
        self.publish(INVOCATIONS, so_far, Duration::ZERO).await
    }

    async fn publish(&self, exchange: &'static str, so_far: Carried, time: Duration) -> Delayed {
        let Self { invocation, rules, .. } = self;
        let Some(own_user) = &rules.own_user else { return Delayed::Impossible };
        let ahead = invocation.connection.ahead(&rules.clock);
        let now = Moment::now(&rules.clock, ahead);
        let Carried { attempts, waited, in_doubt } = so_far;
        let mut history = invocation.message.history.clone();
        (history.attempts, history.waited) = (attempts, waited);
        history.redeliveries = history.redeliveries.max(in_doubt.into());
        let mut properties = copy(invocation.message, history.headers(&now), own_user);
        properties.headers.extend(self.order.clone().map(|order| (ORDER.to_owned(), order)));
        if table_bytes(&properties.headers) > HEADERS_BYTES_MAX {
            return Delayed::Impossible;
        }
        if !self.receipt.is_live() {
            return Delayed::Stale;
        }
        let to = Address::Exchange(exchange, work_key(&invocation.connection.name, invocation.lane));
        reached(Point::Copying, Some(&invocation.message.id)).await;
        let posted = self.outbox.post(&Publish { to, properties, body: self.body.clone() }).await;
        reached(Point::Copied, Some(&invocation.message.id)).await;
        match posted {
            Ok(Published::Confirmed) => Delayed::Scheduled(time),
            Ok(Published::Unroutable | Published::Refused | Published::TooLarge) => Delayed::Impossible,
            Err(_) => Delayed::Stale,
        }
    }
}

/// Returns the longest delay queue that is not longer than the wait, or else the shortest, among those that return the
/// message before its deadline (`left` from now) and after the message that must come back first.
fn tier(
    wait: Duration,
    left: Option<Duration>,
    is_behind: impl Fn(Duration) -> bool,
) -> Option<(&'static str, Duration)> {
    let fits = |time: Duration| left.is_none_or(|left| time < left) && is_behind(time);
    let mut fitting = DELAY_TIERS.into_iter().filter(|(_, time)| fits(*time));
    let within = DELAY_TIERS.into_iter().rfind(|(_, time)| *time <= wait && fits(*time));
    within.or_else(|| fitting.next())
}

/// Returns the properties of a copy: the producer's properties and the history, without the headers of this delivery
/// alone. The copy has no expiration, because the history carries it.
fn copy(message: &MessageContext, history: Headers, own_user: &str) -> Properties {
    let original = &message.properties;
    let kept = original.headers.iter().filter(|(name, _)| is_kept(name));
    let kept = kept.map(|(name, value)| (name.clone(), value.clone()));
    Properties {
        message_id: Some(message.id.clone()),
        user_id: Some(own_user.to_owned()),
        expiration: None,
        headers: kept.chain(history).collect(),
        ..original.clone()
    }
}

/// Returns true if a header is the producer's own.
pub(crate) fn is_kept(name: &str) -> bool {
    if name.starts_with(OWN_PREFIX) {
        return PRODUCER_HEADERS.contains(&name);
    }
    !is_brokers_own(name)
}

/// Returns true if RabbitMQ writes or reads a header of this name.
pub(crate) fn is_brokers_own(name: &str) -> bool {
    BROKER_HEADERS.contains(&name) || BROKER_HEADER_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Returns an upper bound of the length of a table of headers on the wire.
fn table_bytes(headers: &Headers) -> usize {
    headers.iter().map(|(name, value)| 1 + name.len() + value_bytes(value)).sum::<usize>() + 4
}

fn value_bytes(value: &HeaderValue) -> usize {
    1 + match value {
        HeaderValue::Text(text) => 4 + text.len(),
        HeaderValue::Bytes(bytes) => 4 + bytes.len(),
        HeaderValue::Int(_) | HeaderValue::Small(_) | HeaderValue::Float(_) => 8,
        HeaderValue::Bool(_) => 1,
        HeaderValue::List(items) => 4 + items.iter().map(value_bytes).sum::<usize>(),
        HeaderValue::Table(table) => table_bytes(table),
        HeaderValue::Void => 0,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::{Arc, Mutex};

    use async_trait::async_trait;

    use super::*;
    use crate::budget::permit::{Ask, Budget, NotNow, Permit};
    use crate::domain::http::{NoAnswer, Request, Response};
    use crate::domain::ids::{ConnectionName, Lane};
    use crate::domain::invocation::Envelope;
    use crate::domain::message::{Source, Unpublished};
    use crate::domain::secret::Secrets;
    use crate::policy::authorization::{AllowList, Callers};
    use crate::policy::backoff::RetryRules;
    use crate::policy::reply_to::ReplyPolicy;
    use crate::tools::catalogue;
    use crate::worker::Connection;
    use crate::worker::clock::Clock;
    use crate::worker::ports::Okta;

    /// A broker with one answer, and a delivery that may be stale.
    struct World {
        answer: Result<Published, Unpublished>,
        is_live: bool,
        posted: Mutex<Vec<Publish>>,
    }

    #[async_trait]
    impl Outbox for World {
        async fn post(&self, post: &Publish) -> Result<Published, Unpublished> {
            self.posted.lock().unwrap().push(post.clone());
            self.answer
        }
    }

    #[async_trait]
    impl Receipt for World {
        fn is_live(&self) -> bool {
            self.is_live
        }
        async fn ack(self: Box<Self>) -> bool {
            panic!("who puts a message aside does not acknowledge it")
        }
    }

    /// An org that gets no request.
    struct Unasked;

    #[async_trait]
    impl Okta for Unasked {
        async fn send(&self, _: &Request) -> Result<Response, NoAnswer> {
            panic!("nothing is sent")
        }
    }

    #[async_trait]
    impl Budget for Unasked {
        async fn admit(&self, _: Ask<'_>) -> Result<Permit, NotNow> {
            panic!("nobody asks")
        }
    }

    /// Delays a bulk message for a minute; returns the result, and the number of publications.
    async fn put(
        own_user: Option<&str>,
        answer: Result<Published, Unpublished>,
        is_live: bool,
    ) -> (Delayed, usize) {
        let prod = ConnectionName::parse("prod").unwrap();
        let rules = Rules {
            connections: HashMap::new(),
            callers: Callers::default(),
            reply_to: ReplyPolicy::default(),
            own_user: own_user.map(str::to_owned),
            interactive_deadline: Duration::from_secs(600),
            list_time_max: Duration::from_secs(600),
            retry: RetryRules::default(),
            clock: Clock::Machine,
            stopping: Default::default(),
        };
        let source = Source::Work { connection: prod.clone(), lane: Lane::Bulk };
        let address = (source, "okta.invocations".to_owned(), "prod.bulk".to_owned());
        let who = (&rules.reply_to, own_user);
        let message =
            MessageContext::new(address, Properties::default(), false, Moment::now(&rules.clock, None), who);
        let connection = Connection::new(prod, Arc::new(Unasked), Arc::new(Unasked), AllowList::all());
        let envelope = Envelope::decode(br#"{"subtool":"list_groups"}"#).unwrap();
        let entry = catalogue::find("list_groups").unwrap();
        let invocation = Invocation {
            message: &message,
            connection: Arc::new(connection),
            lane: Lane::Bulk,
            tool: entry.read(&envelope.arguments).ok().unwrap(),
            subtool: "list_groups",
            scope: "okta.groups.read",
            envelope,
            deadline: None,
            secrets: Secrets::default(),
        };
        let world = World { answer, is_live, posted: Mutex::default() };
        let body = Bytes::from_static(b"{}");
        let (receipt, outbox) = (&world, &world);
        let delay =
            Delay { invocation: &invocation, body: &body, receipt, rules: &rules, outbox, order: None };
        let put = delay.put(Duration::from_secs(60), None, Carried::of(&message.history)).await;
        let posted = world.posted.lock().unwrap().len();
        (put, posted)
    }

    #[tokio::test]
    async fn only_a_copy_that_is_confirmed_lets_the_message_go() {
        let minute = Delayed::Scheduled(Duration::from_secs(60));
        let (own, confirmed) = (Some("worker"), Ok(Published::Confirmed));
        let rows = [
            (own, confirmed, true, (minute, 1)),
            (own, Ok(Published::Unroutable), true, (Delayed::Impossible, 1)),
            (own, Ok(Published::Refused), true, (Delayed::Impossible, 1)),
            (own, Err(Unpublished), true, (Delayed::Stale, 1)),
            (own, confirmed, false, (Delayed::Stale, 0)),
            (None, confirmed, true, (Delayed::Impossible, 0)),
        ];
        for (own_user, answer, is_live, expected) in rows {
            assert_eq!(put(own_user, answer, is_live).await, expected, "{own_user:?} {answer:?} {is_live}");
        }
    }

    #[test]
    fn the_tier_is_the_longest_within_the_wait_that_is_back_before_the_deadline() {
        let rows = [
            // the wait, the time left, the delay; in milliseconds
            (0, None, Some(1000)),
            (1000, None, Some(1000)),
            (4999, None, Some(1000)),
            (5000, None, Some(5000)),
            (59_000, None, Some(15_000)),
            (60_000, None, Some(60_000)),
            (100_000_000, None, Some(3_600_000)),
            (60_000, Some(60_001), Some(60_000)),
            (60_000, Some(60_000), Some(15_000)),
            (60_000, Some(1001), Some(1000)),
            (60_000, Some(1000), None),
            (0, Some(0), None),
        ];
        for (wait, left, expected) in rows {
            let found = tier(Duration::from_millis(wait), left.map(Duration::from_millis), |_| true);
            let time = found.map(|(_, time)| time);
            assert_eq!(time, expected.map(Duration::from_millis), "{wait} {left:?}");
        }
    }

    #[test]
    fn whatever_the_wait_the_tier_is_one_behind_the_message_that_must_come_before() {
        let rows = [
            // the wait and the time left, the shortest delay that comes back later, the delay; in seconds
            (1, None, 1, Some(1)),
            (1, None, 15, Some(15)),
            (70, None, 15, Some(60)),
            (1, Some(70), 60, Some(60)),
            (1, Some(60), 60, None),
            (1, None, 4000, None),
        ];
        for (wait, left, behind, expected) in rows {
            let is_behind = |time: Duration| time.as_secs() >= behind;
            let found = tier(Duration::from_secs(wait), left.map(Duration::from_secs), is_behind);
            assert_eq!(found.map(|(_, time)| time.as_secs()), expected, "{wait} {left:?} {behind}");
        }
    }

    #[test]
    fn only_the_producers_headers_are_kept() {
        for kept in ["traceparent", "x-ours", "okta-resent", "okta-progress", "cc"] {
            assert!(is_kept(kept), "{kept}");
        }
        for dropped in [
            "okta-caller",
            "okta-attempts",
            "okta-",
            "x-death",
            "x-first-death-queue",
            "x-last-death-reason",
            "x-delivery-count",
            "CC",
            "BCC",
        ] {
            assert!(!is_kept(dropped), "{dropped}");
        }
    }

    #[test]
    fn the_size_of_headers_is_that_on_the_wire() {
        let text = |text: &str| HeaderValue::Text(text.to_owned());
        let inner = HeaderValue::Table([("a".to_owned(), HeaderValue::Void)].into());
        let headers: Headers = [
            ("text".to_owned(), text("four")),
            ("list".to_owned(), HeaderValue::List(vec![HeaderValue::Int(1), HeaderValue::Bool(true), inner])),
            ("raw".to_owned(), HeaderValue::Bytes(vec![0xff; 10])),
        ]
        .into();
        // The length, then each name with its own, then a byte for the type, then the value.
        let (text, list, raw) =
            (5 + 1 + 4 + 4, 5 + 1 + 4 + (1 + 8) + (1 + 1) + (1 + 4 + 2 + 1), 4 + 1 + 4 + 10);
        assert_eq!(table_bytes(&headers), 4 + text + list + raw);
    }
}
