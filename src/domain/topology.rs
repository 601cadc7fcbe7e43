//! Exchanges, queues and bindings: names and arguments, as data.
//!
//! RabbitMQ cannot change a queue's arguments, so every queue is declared with its final ones from the
//! first version on. The adapter of RabbitMQ declares this topology; nothing else names a queue.

use std::time::Duration;

use super::ids::{ConnectionName, Lane};
use super::message::Source;

/// The topic exchange for invocations, with keys `<connection>.<lane>` or `<connection>`.
pub const INVOCATIONS: &str = "okta.invocations";
/// The alternate exchange and the queue for unroutable invocations.
pub const UNROUTED: &str = "okta.unrouted";
/// The dead-letter exchange and the queue for invocations that expired or exceeded the delivery limit.
pub const UNDELIVERED: &str = "okta.undelivered";
/// The queue of parked messages; no worker consumes it.
pub const DEAD: &str = "okta.dead";
/// The topic exchange for results without a `reply_to`, with keys `<connection>.<subtool>.<status>`.
pub const RESULTS: &str = "okta.results";
/// The alternate exchange and the queue for results that no queue is bound for.
pub const UNCLAIMED: &str = "okta.results.unclaimed";
/// The fan-out exchange for rate-limit window states shared between workers.
pub const SIGNALS: &str = "okta.signals";
/// The prefix of every reply queue of our own commands.
pub const REPLIES: &str = "okta.replies.";
/// The pseudo-queue from which a caller consumes direct replies.
pub const DIRECT: &str = "amq.rabbitmq.reply-to";
/// The prefix of direct reply-to names.
pub const DIRECT_REPLY: &str = "amq.rabbitmq.reply-to.";

/// Deliveries after which the broker dead-letters a message. RabbitMQ 3.10 has no limit unless it is set
/// and 4.x has 20; every crash or lost connection counts as one delivery, so a healthy message must survive
/// one or two rolling restarts while it is queued.
pub const DELIVERY_LIMIT: i64 = 10;

/// Delivery limit of the queues whose messages only wait for an answer. An answer costs one publish, so no
/// healthy message is delivered there so often.
pub const LAST_STOP_DELIVERY_LIMIT: i64 = 20;

/// The default exchange, which routes to every queue by name.
const DEFAULT_EXCHANGE: &str = "";

/// Time to live of an unclaimed result, in milliseconds: 7 days.
pub const UNCLAIMED_TTL_MS: i64 = 7 * 24 * 60 * 60 * 1000;

/// The most unclaimed results kept; the oldest are dropped.
pub const UNCLAIMED_MAX: i64 = 100_000;

/// Default maximum of parked messages; beyond it the broker drops the oldest and reports that only in its own
/// counter for all queues (`rabbitmq_global_messages_dead_lettered_maxlen_total`).
pub const DEAD_MAX: u32 = 100_000;

/// The delay tiers, shortest first: a delayed message goes to the longest tier within its wait.
/// Each tier has one uniform TTL, because RabbitMQ expires messages only at the head of a queue: 300 ms behind
/// 3 s took 3 s.
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

/// Expiry of an unused reply queue of our own, in milliseconds: 7 days.
const REPLIES_EXPIRE_MS: i64 = 7 * 24 * 60 * 60 * 1000;

/// RabbitMQ 4 drops a message after 20 deliveries, and each death of its reader counts as one for a result.
const REPLIES_DELIVERY_LIMIT: i64 = 1_000_000;

/// Returns the durable queue for the results of one job, which declares it. A quorum queue: while the node of
/// a classic queue is down, the worker finds no queue and the results go elsewhere.
pub fn reply_queue(name: &str) -> QueueDefinition {
    QueueDefinition {
        name: name.to_owned(),
        arguments: vec![
            ("x-queue-type", QueueArgument::Text("quorum")),
            ("x-expires", QueueArgument::Number(REPLIES_EXPIRE_MS)),
            ("x-delivery-limit", QueueArgument::Number(REPLIES_DELIVERY_LIMIT)),
        ],
        bindings: Vec::new(),
    }
}

/// Returns the name of the queue of a connection's lane.
pub fn work_queue(connection: &ConnectionName, lane: Lane) -> String {
    format!("{INVOCATIONS}.{connection}.{lane}")
}

/// Returns the name of the queue whose consumer count is the number of workers that serve a connection.
pub fn presence_queue(connection: &ConnectionName) -> String {
    format!("okta.presence.{connection}")
}

/// Returns the routing key of a connection's lane.
pub fn work_key(connection: &ConnectionName, lane: Lane) -> String {
    format!("{connection}.{lane}")
}

/// Returns the name of the queue that a source stands for.
pub fn source_queue(source: &Source) -> String {
    match source {
        Source::Work { connection, lane } | Source::Removed { connection, lane } => {
            work_queue(connection, *lane)
        }
        Source::Unrouted => UNROUTED.to_owned(),
        Source::Undelivered => UNDELIVERED.to_owned(),
    }
}

/// Returns true if the worker owns a queue of this name, so that dead-lettering from it is our own doing.
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

/// The routing rule of an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExchangeKind {
    /// Routes by patterns over the routing key.
    Topic,
    /// Routes to every bound queue.
    Fanout,
}

impl ExchangeKind {
    /// Returns the AMQP name of the kind.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Topic => "topic",
            Self::Fanout => "fanout",
        }
    }
}

/// A durable exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExchangeDefinition {
    /// The name.
    pub name: String,
    /// The routing rule.
    pub kind: ExchangeKind,
    /// The alternate exchange, which receives unroutable messages.
    pub alternate: Option<&'static str>,
}

/// The value of a queue argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueueArgument {
    /// A string.
    Text(&'static str),
    /// A number.
    Number(i64),
}

/// A durable queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueDefinition {
    /// The name.
    pub name: String,
    /// The arguments, `x-queue-type` first.
    pub arguments: Vec<(&'static str, QueueArgument)>,
    /// The exchanges and keys of its bindings.
    pub bindings: Vec<(String, String)>,
}

/// The exchanges and queues that a worker declares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    /// The exchanges, in the order of declaration.
    pub exchanges: Vec<ExchangeDefinition>,
    /// The queues, in the order of declaration: targets of dead-lettering first.
    pub queues: Vec<QueueDefinition>,
}

fn exchange(name: &str, kind: ExchangeKind, alternate: Option<&'static str>) -> ExchangeDefinition {
    ExchangeDefinition { name: name.to_owned(), kind, alternate }
}

/// Returns a quorum queue whose dead letters are kept until their target has confirmed them: at-least-once
/// needs `reject-publish`, or RabbitMQ silently falls back to at-most-once.
fn safe(name: String, dead_letter_exchange: &'static str) -> QueueDefinition {
    QueueDefinition {
        name,
        arguments: vec![
            ("x-queue-type", QueueArgument::Text("quorum")),
            ("x-dead-letter-exchange", QueueArgument::Text(dead_letter_exchange)),
            ("x-dead-letter-strategy", QueueArgument::Text("at-least-once")),
            ("x-overflow", QueueArgument::Text("reject-publish")),
        ],
        bindings: Vec::new(),
    }
}

/// Returns a quorum queue that drops its oldest messages.
fn bounded(name: &str, ttl_ms: i64, length_max: i64, bindings: Vec<(String, String)>) -> QueueDefinition {
    QueueDefinition {
        name: name.to_owned(),
        arguments: vec![
            ("x-queue-type", QueueArgument::Text("quorum")),
            ("x-message-ttl", QueueArgument::Number(ttl_ms)),
            ("x-max-length", QueueArgument::Number(length_max)),
            ("x-overflow", QueueArgument::Text("drop-head")),
        ],
        bindings,
    }
}

impl Topology {
    /// Returns the topology of a virtual host with these connections. Parked messages are kept for `dead_ttl`, at
    /// most `dead_max` of them.
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

    /// Returns the exchange over which workers share signals. It is optional: workers run without it.
    pub fn signals() -> Self {
        Self { exchanges: vec![exchange(SIGNALS, ExchangeKind::Fanout, None)], queues: Vec::new() }
    }

    /// Returns the queue that counts the workers of a connection. It is optional: a classic queue lives on one node
    /// and is missing while that node is down.
    pub fn presence(connection: &ConnectionName) -> Self {
        let presence = QueueDefinition {
            name: presence_queue(connection),
            arguments: vec![("x-queue-type", QueueArgument::Text("classic"))],
            bindings: Vec::new(),
        };
        Self { exchanges: Vec::new(), queues: vec![presence] }
    }

    /// Returns the part that all connections of a virtual host share.
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
            tier.arguments.push(("x-message-ttl", QueueArgument::Number(wait_ms)));
            tier.bindings = bound(name);
            queues.push(tier);
        }
        Self { exchanges, queues }
    }

    /// Returns the queues of one connection, without the shared part.
    pub fn of_connection(connection: &ConnectionName) -> Self {
        let lane = |lane: Lane| {
            let mut queue = safe(work_queue(connection, lane), UNDELIVERED);
            queue.arguments.push(("x-delivery-limit", QueueArgument::Number(DELIVERY_LIMIT)));
            queue.bindings.push((INVOCATIONS.to_owned(), work_key(connection, lane)));
            if lane == Lane::Interactive {
                queue.bindings.push((INVOCATIONS.to_owned(), connection.to_string()));
            }
            queue
        };
        Self { exchanges: Vec::new(), queues: Lane::ALL.into_iter().map(lane).collect() }
    }
}

/// Returns a queue for messages that only wait for an answer: a quorum queue that drops nothing. A message that
/// crashes workers even here, because the client library cannot read its properties, is parked by the broker.
fn last_stop(name: &str, bindings: Vec<(String, String)>) -> QueueDefinition {
    let mut queue = safe(name.to_owned(), DEFAULT_EXCHANGE);
    queue.arguments.push(("x-dead-letter-routing-key", QueueArgument::Text(DEAD)));
    queue.arguments.push(("x-delivery-limit", QueueArgument::Number(LAST_STOP_DELIVERY_LIMIT)));
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
        for argument in
            [("x-message-ttl", QueueArgument::Number(60_000)), ("x-max-length", QueueArgument::Number(7))]
        {
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
