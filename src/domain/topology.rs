//! Exchanges, queues and bindings: names and arguments, as data.
//!
//! A queue's arguments can never be changed, so every queue is declared with its final ones from the
//! first version on. The edge declares what stands here; nothing else names a queue.

use std::time::Duration;

use super::ids::{ConnectionName, Lane};
use super::mail::Source;

/// Where invocations are published: a topic exchange with keys `<connection>.<lane>` or `<connection>`.
pub const INVOCATIONS: &str = "okta.invocations";
/// What no queue is bound for (alternate exchange and queue).
pub const UNROUTED: &str = "okta.unrouted";
/// What the broker gave up: expired, or past the delivery limit (dead-letter exchange and queue).
pub const UNDELIVERED: &str = "okta.undelivered";
/// Parked messages; no worker consumes it.
pub const DEAD: &str = "okta.dead";
/// Results without a `reply_to`: a topic exchange with keys `<connection>.<subtool>.<status>`.
pub const RESULTS: &str = "okta.results";
/// Results nobody is bound for (alternate exchange and queue).
pub const UNCLAIMED: &str = "okta.results.unclaimed";
/// Window states told between workers: a fan-out exchange.
pub const SIGNALS: &str = "okta.signals";
/// What every reply queue of our own commands begins with.
pub const REPLIES: &str = "okta.replies.";
/// The name by which a caller consumes direct replies.
pub const DIRECT: &str = "amq.rabbitmq.reply-to";
/// What direct reply-to names begin with.
pub const DIRECT_REPLY: &str = "amq.rabbitmq.reply-to.";

/// Deliveries after which the broker gives a message up. RabbitMQ 3.10 has no limit unless it is set
/// and 4.x has 20; every crash or cut connection counts one, so a healthy message must survive a
/// rolling restart or two within its time in the queue.
pub const DELIVERY_LIMIT: i64 = 10;

/// The same for the queues whose messages only wait for an answer. An answer costs one publish, so nothing
/// healthy is delivered there that often.
pub const LAST_STOP_DELIVERY_LIMIT: i64 = 20;

/// The exchange that reaches every queue by its name.
const DEFAULT_EXCHANGE: &str = "";

/// How long an unclaimed result is kept, in milliseconds: 7 days.
pub const UNCLAIMED_TTL_MS: i64 = 7 * 24 * 60 * 60 * 1000;

/// The most unclaimed results kept; the oldest are dropped.
pub const UNCLAIMED_MAX: i64 = 100_000;

/// The most parked messages kept where nobody says how many; beyond it the broker drops the oldest and tells nobody
/// but its own counter of all queues (`rabbitmq_global_messages_dead_lettered_maxlen_total`).
pub const DEAD_MAX: u32 = 100_000;

/// The delay tiers, the shortest first: a message that must wait goes to the longest one within its time.
/// Tiers have one uniform time each, because RabbitMQ looks only at the head of a queue: 300 ms behind 3 s
/// took 3 s.
pub const DELAY_TIERS: [(&str, Duration); 8] = [
    ("okta.delay.1s", Duration::from_secs(1)),
    ("okta.delay.5s", Duration::from_secs(5)),
    ("okta.delay.15s", Duration::from_secs(15)),
    ("okta.delay.1m", Duration::from_secs(60)),
    ("okta.delay.2m", Duration::from_secs(120)),
    ("okta.delay.5m", Duration::from_secs(300)),
    ("okta.delay.15m", Duration::from_secs(900)),
    ("okta.delay.1h", Duration::from_secs(3600)),
];

/// How long a reply queue of ours is kept that nobody reads, in milliseconds: 7 days.
const REPLIES_EXPIRE_MS: i64 = 7 * 24 * 60 * 60 * 1000;

/// RabbitMQ 4 drops what was delivered more than 20 times, and a result counts one whenever its reader dies.
const REPLIES_DELIVERY_LIMIT: i64 = 1_000_000;

/// A durable queue for the results of one job, which declares it. A quorum queue: where the node of a classic
/// one is down the worker finds no queue, and the results go elsewhere.
pub fn reply_queue(name: &str) -> Queue {
    Queue {
        name: name.to_owned(),
        arguments: vec![
            ("x-queue-type", Argument::Text("quorum")),
            ("x-expires", Argument::Number(REPLIES_EXPIRE_MS)),
            ("x-delivery-limit", Argument::Number(REPLIES_DELIVERY_LIMIT)),
        ],
        bindings: Vec::new(),
    }
}

/// The queue of a connection's lane.
pub fn work_queue(connection: &ConnectionName, lane: Lane) -> String {
    format!("{INVOCATIONS}.{connection}.{lane}")
}

/// The queue whose consumer count is the number of workers that serve a connection.
pub fn presence_queue(connection: &ConnectionName) -> String {
    format!("okta.presence.{connection}")
}

/// The routing key of a connection's lane.
pub fn work_key(connection: &ConnectionName, lane: Lane) -> String {
    format!("{connection}.{lane}")
}

/// The name of the queue behind a source.
pub fn source_queue(source: &Source) -> String {
    match source {
        Source::Work { connection, lane } | Source::Removed { connection, lane } => {
            work_queue(connection, *lane)
        }
        Source::Unrouted => UNROUTED.to_owned(),
        Source::Undelivered => UNDELIVERED.to_owned(),
    }
}

/// Whether a queue of this name belongs to the worker, so that dead-lettering from it is our own doing.
pub fn is_own_queue(name: &str) -> bool {
    let delayed = DELAY_TIERS.iter().any(|(tier, _)| *tier == name);
    delayed
        || matches!(name, UNROUTED | UNDELIVERED | DEAD)
        || name.strip_prefix(INVOCATIONS).is_some_and(|rest| {
            let Some((connection, lane)) = rest.strip_prefix('.').and_then(|rest| rest.split_once('.'))
            else {
                return false;
            };
            ConnectionName::parse(connection).is_ok() && Lane::parse(lane).is_some()
        })
}

/// How an exchange routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExchangeKind {
    /// By patterns over the key.
    Topic,
    /// To every bound queue.
    Fanout,
}

impl ExchangeKind {
    /// The kind as AMQP names it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Topic => "topic",
            Self::Fanout => "fanout",
        }
    }
}

/// A durable exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange {
    /// Its name.
    pub name: String,
    /// How it routes.
    pub kind: ExchangeKind,
    /// Where it sends what no queue is bound for.
    pub alternate: Option<&'static str>,
}

/// The value of a queue argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Argument {
    /// A string.
    Text(&'static str),
    /// A number.
    Number(i64),
}

/// A durable queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue {
    /// Its name.
    pub name: String,
    /// Its arguments, `x-queue-type` first.
    pub arguments: Vec<(&'static str, Argument)>,
    /// The exchange and keys it is bound with.
    pub bindings: Vec<(String, String)>,
}

/// Everything a worker declares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    /// The exchanges, in the order of declaration.
    pub exchanges: Vec<Exchange>,
    /// The queues, in the order of declaration: targets of dead-lettering first.
    pub queues: Vec<Queue>,
}

fn exchange(name: &str, kind: ExchangeKind, alternate: Option<&'static str>) -> Exchange {
    Exchange { name: name.to_owned(), kind, alternate }
}

/// A quorum queue whose dead letters are kept until their target has confirmed them: at-least-once
/// needs `reject-publish`, or RabbitMQ silently falls back to at-most-once.
fn safe(name: String, dead_letter_exchange: &'static str) -> Queue {
    Queue {
        name,
        arguments: vec![
            ("x-queue-type", Argument::Text("quorum")),
            ("x-dead-letter-exchange", Argument::Text(dead_letter_exchange)),
            ("x-dead-letter-strategy", Argument::Text("at-least-once")),
            ("x-overflow", Argument::Text("reject-publish")),
        ],
        bindings: Vec::new(),
    }
}

/// A quorum queue that drops its oldest messages.
fn bounded(name: &str, ttl_ms: i64, length_max: i64, bindings: Vec<(String, String)>) -> Queue {
    Queue {
        name: name.to_owned(),
        arguments: vec![
            ("x-queue-type", Argument::Text("quorum")),
            ("x-message-ttl", Argument::Number(ttl_ms)),
            ("x-max-length", Argument::Number(length_max)),
            ("x-overflow", Argument::Text("drop-head")),
        ],
        bindings,
    }
}

impl Topology {
    /// What a virtual host with these connections has. `dead_ttl` is how long parked messages stay, and `dead_max` how
    /// many.
    pub fn of<'a>(
        connections: impl Iterator<Item = &'a ConnectionName>,
        dead_ttl: Duration,
        dead_max: u32,
    ) -> Self {
        let Self { mut exchanges, mut queues } = Self::shared(dead_ttl, dead_max);
        exchanges.extend(Self::signals().exchanges);
        for connection in connections {
            queues.extend(Self::of_connection(connection).queues);
            queues.extend(Self::presence(connection).queues);
        }
        Self { exchanges, queues }
    }

    /// What workers tell each other by. It is only an aid: they work without it.
    pub fn signals() -> Self {
        Self { exchanges: vec![exchange(SIGNALS, ExchangeKind::Fanout, None)], queues: Vec::new() }
    }

    /// Where the workers of a connection are counted. It is only an aid: a classic queue is on one node, and while that
    /// is away there is none.
    pub fn presence(connection: &ConnectionName) -> Self {
        let presence = Queue {
            name: presence_queue(connection),
            arguments: vec![("x-queue-type", Argument::Text("classic"))],
            bindings: Vec::new(),
        };
        Self { exchanges: Vec::new(), queues: vec![presence] }
    }

    /// What all connections of a virtual host need.
    pub fn shared(dead_ttl: Duration, dead_max: u32) -> Self {
        let bound = |exchange: &str| vec![(exchange.to_owned(), String::new())];
        let mut exchanges = vec![
            exchange(UNROUTED, ExchangeKind::Fanout, None),
            exchange(UNDELIVERED, ExchangeKind::Fanout, None),
            exchange(UNCLAIMED, ExchangeKind::Fanout, None),
            exchange(INVOCATIONS, ExchangeKind::Topic, Some(UNROUTED)),
            exchange(RESULTS, ExchangeKind::Topic, Some(UNCLAIMED)),
        ];
        let dead_ttl_ms = i64::try_from(dead_ttl.as_millis()).unwrap_or(i64::MAX);
        let mut queues = vec![
            bounded(DEAD, dead_ttl_ms, dead_max.into(), Vec::new()),
            bounded(UNCLAIMED, UNCLAIMED_TTL_MS, UNCLAIMED_MAX, bound(UNCLAIMED)),
            last_stop(UNROUTED, bound(UNROUTED)),
            last_stop(UNDELIVERED, bound(UNDELIVERED)),
        ];
        for (name, wait) in DELAY_TIERS {
            exchanges.push(exchange(name, ExchangeKind::Fanout, None));
            let mut tier = safe(name.to_owned(), INVOCATIONS);
            let wait_ms = i64::try_from(wait.as_millis()).expect("a tier waits an hour at most");
            tier.arguments.push(("x-message-ttl", Argument::Number(wait_ms)));
            tier.bindings = bound(name);
            queues.push(tier);
        }
        Self { exchanges, queues }
    }

    /// What one connection needs for itself, beside what all share.
    pub fn of_connection(connection: &ConnectionName) -> Self {
        let lane = |lane: Lane| {
            let mut queue = safe(work_queue(connection, lane), UNDELIVERED);
            queue.arguments.push(("x-delivery-limit", Argument::Number(DELIVERY_LIMIT)));
            queue.bindings.push((INVOCATIONS.to_owned(), work_key(connection, lane)));
            if lane == Lane::Interactive {
                queue.bindings.push((INVOCATIONS.to_owned(), connection.to_string()));
            }
            queue
        };
        Self { exchanges: Vec::new(), queues: Lane::ALL.into_iter().map(lane).collect() }
    }
}

/// The last stop before an answer: a quorum queue that keeps everything. A message that brings workers
/// down even here, because the client library cannot read its properties, is parked by the broker itself.
fn last_stop(name: &str, bindings: Vec<(String, String)>) -> Queue {
    let mut queue = safe(name.to_owned(), DEFAULT_EXCHANGE);
    queue.arguments.push(("x-dead-letter-routing-key", Argument::Text(DEAD)));
    queue.arguments.push(("x-delivery-limit", Argument::Number(LAST_STOP_DELIVERY_LIMIT)));
    queue.bindings = bindings;
    queue
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_queues_are_known_by_name() {
        for own in ["okta.invocations.prod.bulk", "okta.delay.15m", "okta.undelivered"] {
            assert!(is_own_queue(own), "{own}");
        }
        for foreign in ["okta.invocations", "okta.invocations.prod.vip", "okta.delay.9m", "mine", ""] {
            assert!(!is_own_queue(foreign), "{foreign}");
        }
    }

    #[test]
    fn parked_messages_are_kept_as_long_and_as_many_as_was_said() {
        let Topology { queues, .. } = Topology::shared(Duration::from_secs(60), 7);
        let dead = queues.iter().find(|queue| queue.name == DEAD).unwrap();
        for argument in [("x-message-ttl", Argument::Number(60_000)), ("x-max-length", Argument::Number(7))] {
            assert!(dead.arguments.contains(&argument), "{:?}", dead.arguments);
        }
    }

    #[test]
    fn every_queue_has_one_type_and_dead_letters_at_least_once() {
        let prod = ConnectionName::parse("prod").unwrap();
        let topology = Topology::of([&prod].into_iter(), Duration::from_secs(60), DEAD_MAX);
        for queue in &topology.queues {
            assert_eq!(queue.arguments[0].0, "x-queue-type", "{}", queue.name);
            let has = |name| queue.arguments.iter().any(|(known, _)| *known == name);
            assert_eq!(has("x-dead-letter-exchange"), has("x-dead-letter-strategy"), "{}", queue.name);
        }
    }
}
