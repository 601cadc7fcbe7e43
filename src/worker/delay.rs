//! Putting a message aside: a copy of it waits in a delay tier and comes back into its lane, or goes back to
//! its queue at once.
//!
//! Why it must wait is not known here. Invariant: a copy of a copy looks like a copy of the original, and
//! it is confirmed before anybody may acknowledge the delivery that it stands for.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::domain::message::{
    Address, HeaderValue, Headers, Post, Posted, Properties, RESENT, Receipt, WANTS_PROGRESS,
};
use crate::domain::topology::{DELAY_TIERS, INVOCATIONS, work_key};
use crate::policy::origin::X_DEATH;

use super::admission::Job;
use super::context::Letter;
use super::failpoint::{Point, reached};
use super::history::Docket;
use super::lanes::ORDER;
use super::okta_time::Moment;
use super::order::ExpectedReturn;
use super::ports::Postbox;
use super::rules::Rules;

/// What headers of the worker's own begin with.
const OURS: &str = "okta-";

/// The headers of that kind that a producer may set.
const PRODUCERS_OWN: [&str; 2] = [RESENT, WANTS_PROGRESS];

/// What RabbitMQ writes into a message or acts upon when one is published: how often it was delivered,
/// from where it was dead-lettered, and further routing keys.
const BROKERS_OWN: [&str; 5] = [X_DEATH, "x-delivery-count", "x-acquired-count", "CC", "BCC"];

/// What its other headers of that kind begin with.
const BROKERS_OWN_BEGIN: [&str; 2] = ["x-first-death-", "x-last-death-"];

/// The largest headers of a copy, in bytes. Properties and headers travel in one frame, and RabbitMQ cuts
/// the connection on one that is too large; frames may be as small as 8 KiB. A message was below it when
/// it came, but a copy has more to say.
const HEADERS_BYTES_MAX: usize = 4 * 1024;

/// A message that is to be put aside.
pub(super) struct Aside<'a> {
    pub job: &'a Job<'a>,
    pub body: &'a Bytes,
    pub receipt: &'a dyn Receipt,
    pub rules: &'a Rules,
    pub postbox: &'a dyn Postbox,
    /// The value of [`ORDER`], when the message has a place in the order of its subject.
    pub order: Option<HeaderValue>,
}

/// What a message has behind it by now, by all deliveries together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SoFar {
    /// Attempts that were spent on it.
    pub attempts: u32,
    /// How long it has waited for the budget.
    pub waited: Duration,
    /// Whether this delivery may have changed something: whoever takes the copy must look first.
    pub in_doubt: bool,
}

impl SoFar {
    /// What earlier deliveries have left: this one did nothing.
    pub fn of(docket: &Docket) -> Self {
        Self { attempts: docket.attempts, waited: docket.waited, in_doubt: false }
    }
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Put {
    /// A copy comes back after this time; the delivery may be acknowledged.
    ComesBack(Duration),
    /// There is no copy: the message must wait here.
    Stays,
    /// Nothing is known of a copy, and somebody else will have the message.
    Stale,
}

impl Aside<'_> {
    /// Puts the message aside for about so long, and so that it comes back after another one, if any.
    pub async fn put(&self, wait: Duration, behind: Option<ExpectedReturn>, so_far: SoFar) -> Put {
        let left = self.job.deadline.map(|deadline| deadline.ours.duration_since(self.rules.clock.now()));
        let left = left.map(|left| Duration::try_from(left).unwrap_or_default());
        let now = Instant::now();
        let is_behind = |time| behind.is_none_or(|behind| behind.is_before(now, time));
        let Some((tier, time)) = tier(wait, left, is_behind) else { return Put::Stays };
        self.publish(tier, so_far, time).await
    }

    /// Hands the message back to the end of its queue.
    pub async fn hand_back(&self, so_far: SoFar) -> Put {
        self.publish(INVOCATIONS, so_far, Duration::ZERO).await
    }

    async fn publish(&self, exchange: &'static str, so_far: SoFar, time: Duration) -> Put {
        let Self { job, rules, .. } = self;
        let Some(own_user) = &rules.own_user else { return Put::Stays };
        let ahead = job.connection.ahead(&rules.clock);
        let now = Moment::now(&rules.clock, ahead);
        let SoFar { attempts, waited, in_doubt } = so_far;
        let mut docket = job.letter.docket.clone();
        (docket.attempts, docket.waited) = (attempts, waited);
        docket.redeliveries = docket.redeliveries.max(in_doubt.into());
        let mut properties = copy(job.letter, docket.headers(&now), own_user);
        properties.headers.extend(self.order.clone().map(|order| (ORDER.to_owned(), order)));
        if table_bytes(&properties.headers) > HEADERS_BYTES_MAX {
            return Put::Stays;
        }
        if !self.receipt.is_live() {
            return Put::Stale;
        }
        let to = Address::Exchange(exchange, work_key(&job.connection.name, job.lane));
        reached(Point::Copying, Some(&job.letter.id)).await;
        let posted = self.postbox.post(&Post { to, properties, body: self.body.clone() }).await;
        reached(Point::Copied, Some(&job.letter.id)).await;
        match posted {
            Ok(Posted::Confirmed) => Put::ComesBack(time),
            Ok(Posted::Unroutable | Posted::Refused | Posted::TooLarge) => Put::Stays,
            Err(_) => Put::Stale,
        }
    }
}

/// The longest tier that is not longer than the wait, or else the shortest; of those that are back before the deadline
/// that is so far ahead, and behind whatever must come before.
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

/// The properties of a copy: the producer's, what else is known of the invocation, and nothing that only
/// this delivery had. Without an expiration, since that travels in the docket.
fn copy(letter: &Letter, docket: Headers, own_user: &str) -> Properties {
    let came = &letter.properties;
    let kept = came.headers.iter().filter(|(name, _)| is_kept(name));
    let kept = kept.map(|(name, value)| (name.clone(), value.clone()));
    Properties {
        message_id: Some(letter.id.clone()),
        user_id: Some(own_user.to_owned()),
        expiration: None,
        headers: kept.chain(docket).collect(),
        ..came.clone()
    }
}

/// Whether a header is the producer's business.
pub(crate) fn is_kept(name: &str) -> bool {
    if name.starts_with(OURS) {
        return PRODUCERS_OWN.contains(&name);
    }
    !is_brokers_own(name)
}

/// Whether RabbitMQ writes or reads a header of this name.
pub(crate) fn is_brokers_own(name: &str) -> bool {
    BROKERS_OWN.contains(&name) || BROKERS_OWN_BEGIN.iter().any(|begin| name.starts_with(begin))
}

/// About how long a table of headers is on the wire, and never shorter than it is.
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
    use crate::domain::message::{Source, Unposted};
    use crate::domain::secret::Secrets;
    use crate::policy::authorization::{AllowList, Callers};
    use crate::policy::backoff::RetryRules;
    use crate::policy::reply_to::ReplyPolicy;
    use crate::tools::catalogue;
    use crate::worker::Connection;
    use crate::worker::clock::Clock;
    use crate::worker::ports::Okta;

    /// A broker that has one answer, and a delivery that may be stale.
    struct World {
        answer: Result<Posted, Unposted>,
        is_live: bool,
        posted: Mutex<Vec<Post>>,
    }

    #[async_trait]
    impl Postbox for World {
        async fn post(&self, post: &Post) -> Result<Posted, Unposted> {
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

    /// An org that nobody asks.
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

    /// Puts a bulk message aside for a minute; what became of it, and how often it was published.
    async fn put(own_user: Option<&str>, answer: Result<Posted, Unposted>, is_live: bool) -> (Put, usize) {
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
            stopping: tokio::sync::watch::channel(false).1,
        };
        let source = Source::Work { connection: prod.clone(), lane: Lane::Bulk };
        let address = (source, "okta.invocations".to_owned(), "prod.bulk".to_owned());
        let who = (&rules.reply_to, own_user);
        let letter = Letter::new(address, Properties::default(), false, Moment::now(&rules.clock, None), who);
        let connection = Connection::new(prod, Arc::new(Unasked), Arc::new(Unasked), AllowList::all());
        let envelope = Envelope::decode(br#"{"subtool":"list_groups"}"#).unwrap();
        let entry = catalogue::find("list_groups").unwrap();
        let job = Job {
            letter: &letter,
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
        let (receipt, postbox) = (&world, &world);
        let aside = Aside { job: &job, body: &body, receipt, rules: &rules, postbox, order: None };
        let put = aside.put(Duration::from_secs(60), None, SoFar::of(&letter.docket)).await;
        let posted = world.posted.lock().unwrap().len();
        (put, posted)
    }

    #[tokio::test]
    async fn only_a_copy_that_is_confirmed_lets_the_message_go() {
        let minute = Put::ComesBack(Duration::from_secs(60));
        let (own, confirmed) = (Some("worker"), Ok(Posted::Confirmed));
        let rows = [
            (own, confirmed, true, (minute, 1)),
            (own, Ok(Posted::Unroutable), true, (Put::Stays, 1)),
            (own, Ok(Posted::Refused), true, (Put::Stays, 1)),
            (own, Err(Unposted), true, (Put::Stale, 1)),
            (own, confirmed, false, (Put::Stale, 0)),
            (None, confirmed, true, (Put::Stays, 0)),
        ];
        for (own_user, answer, is_live, expected) in rows {
            assert_eq!(put(own_user, answer, is_live).await, expected, "{own_user:?} {answer:?} {is_live}");
        }
    }

    #[test]
    fn the_tier_is_the_longest_within_the_wait_that_is_back_before_the_deadline() {
        let rows = [
            // the wait, what is left, the tier; in milliseconds
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
            // the wait and what is left in seconds, the shortest tier that is behind, the tier
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
        // The length, then each name with its own, then a letter for the type, then the value.
        let (text, list, raw) =
            (5 + 1 + 4 + 4, 5 + 1 + 4 + (1 + 8) + (1 + 1) + (1 + 4 + 2 + 1), 4 + 1 + 4 + 10);
        assert_eq!(table_bytes(&headers), 4 + text + list + raw);
    }
}
