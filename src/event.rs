//! What happened, as one closed list. Metrics, logs and the tape of a test are observers of it.

use std::time::Duration;

use crate::domain::bucket::{Bucket, RateHeaders};
use crate::domain::ids::{ConnectionName, Lane};
use crate::domain::result::{Effect, ErrorCode, Status};
pub use crate::policy::classify::{FailureKind, LimitKind};

pub use crate::policy::pause::PauseReason;

/// Why a message was parked in `okta.dead`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ParkReason {
    /// It cannot be read and names nobody to tell.
    Unreadable,
    /// It brought workers down until the broker gave up on it.
    CrashLoop,
    /// A bug of ours.
    Internal,
    /// A policy on the broker dropped it.
    Dropped,
}

impl ParkReason {
    /// Every reason.
    pub const ALL: [Self; 4] = [Self::Unreadable, Self::CrashLoop, Self::Internal, Self::Dropped];

    /// The reason as it stands in the header `okta-reason` and in labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unreadable => "unreadable",
            Self::CrashLoop => "crash_loop",
            Self::Internal => "internal",
            Self::Dropped => "dropped",
        }
    }
}

/// How one invocation ended, for whoever counts or logs.
#[derive(Debug, Clone, PartialEq)]
pub struct Ending<'a> {
    /// The invocation's id, as the producer named it or we did.
    pub id: &'a str,
    /// The connection, when it is one of ours.
    pub connection: Option<&'a ConnectionName>,
    /// The lane, when the message came through one.
    pub lane: Option<Lane>,
    /// The subtool, when it is one of the 28.
    pub subtool: Option<&'static str>,
    /// Who asked: the verified broker user.
    pub caller: Option<&'a str>,
    /// The caller's free text for the audit trail, secrets masked.
    pub reason: Option<&'a str>,
    /// The W3C trace the invocation belongs to.
    pub traceparent: Option<&'a str>,
    /// How it ended.
    pub status: Status,
    /// What it changed.
    pub effect: Effect,
    /// Why it failed.
    pub error: Option<ErrorCode>,
    /// Where in the message the fault is.
    pub path: Option<&'a str>,
    /// Okta's error code.
    pub okta_error_code: Option<&'a str>,
    /// Okta's ids of the requests, in order.
    pub okta_request_ids: &'a [String],
    /// Attempts, failed ones included.
    pub attempts: u32,
    /// Requests sent to Okta.
    pub okta_calls: u32,
    /// Time spent waiting for the budget, in the worker or put aside.
    pub waited: Duration,
    /// From the first receipt to settlement.
    pub took: Duration,
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Event<'a> {
    /// A message was taken from a lane and is being worked on.
    Received {
        /// Whose lane.
        connection: &'a ConnectionName,
        /// Which lane.
        lane: Lane,
        /// Whether the broker delivered it before.
        redelivered: bool,
    },
    /// A message of a lane is no longer being worked on, however it ended.
    Left {
        /// Whose lane.
        connection: &'a ConnectionName,
        /// Which lane.
        lane: Lane,
    },
    /// A request waited for the budget (also for no time at all).
    Waited {
        /// Whose budget.
        connection: &'a ConnectionName,
        /// Which bucket.
        bucket: Bucket,
        /// For which lane.
        lane: Lane,
        /// How long.
        waited: Duration,
        /// How long its message had waited before it was delivered this time.
        before: Duration,
    },
    /// A request was sent and answered, or not.
    Requested {
        /// To whose org.
        connection: &'a ConnectionName,
        /// Counted in which bucket.
        bucket: Bucket,
        /// The HTTP method.
        method: &'a http::Method,
        /// The HTTP status; `None` when there was no answer.
        http_status: Option<u16>,
        /// From sending to the whole answer.
        took: Duration,
        /// What the answer said about the bucket's window.
        rate: Option<RateHeaders>,
    },
    /// Okta answered 429.
    RateLimited {
        /// Whose org.
        connection: &'a ConnectionName,
        /// Which bucket.
        bucket: Bucket,
        /// Which limit.
        kind: LimitKind,
    },
    /// A bucket has nothing left for us; nobody is sent there until its window ends.
    BucketExhausted {
        /// Whose org.
        connection: &'a ConnectionName,
        /// Which bucket.
        bucket: Bucket,
        /// For how long.
        wait: Duration,
    },
    /// A bucket that was exhausted has something left again.
    BucketRecovered {
        /// Whose org.
        connection: &'a ConnectionName,
        /// Which bucket.
        bucket: Bucket,
    },
    /// Okta announced less than before.
    LimitLowered {
        /// Whose org.
        connection: &'a ConnectionName,
        /// Which bucket.
        bucket: Bucket,
        /// Requests per window before.
        from: u32,
        /// Requests per window now.
        to: u32,
    },
    /// A failed request will be sent again.
    Retried {
        /// Whose org.
        connection: &'a ConnectionName,
        /// Why.
        reason: FailureKind,
        /// The attempt that failed.
        attempt: u32,
        /// The wait before the next.
        wait: Duration,
    },
    /// A message waits for its bucket in a delay tier and comes again: a copy of it is in the broker.
    PutAside {
        /// Whose budget.
        connection: &'a ConnectionName,
        /// From which lane and back.
        lane: Lane,
        /// Which bucket.
        bucket: Bucket,
        /// For how long.
        wait: Duration,
    },
    /// A message lies in a delay tier because an earlier one of its subject does, or because enough of them wait.
    Behind {
        /// Whose lane.
        connection: &'a ConnectionName,
        /// From which lane and back.
        lane: Lane,
        /// The invocation's id.
        id: &'a str,
        /// For how long.
        wait: Duration,
    },
    /// The broker has counted the messages in the queue of a lane.
    Backlog {
        /// Whose lane.
        connection: &'a ConnectionName,
        /// Which lane.
        lane: Lane,
        /// Messages in the queue.
        ready: u64,
        /// Messages that this worker has delayed and that are not back.
        delayed: usize,
        /// How old the oldest known message is.
        oldest: Option<Duration>,
    },
    /// A message went back to its queue: the worker stops, its connection is paused, or another
    /// suspect runs.
    HandedBack {
        /// Whose lane.
        connection: &'a ConnectionName,
        /// Which lane.
        lane: Lane,
        /// The invocation's id.
        id: &'a str,
    },
    /// A message was dropped before anything was sent, because its caller wants it no more.
    Cancelled {
        /// Whose lane.
        connection: &'a ConnectionName,
        /// Which lane.
        lane: Lane,
        /// The invocation's id.
        id: &'a str,
    },
    /// A message that was delivered so often that it may bring workers down runs alone in its lane.
    Suspected {
        /// Whose lane.
        connection: &'a ConnectionName,
        /// Which lane.
        lane: Lane,
        /// The invocation's id.
        id: &'a str,
        /// How often it was delivered before.
        redeliveries: u32,
    },
    /// All of a connection fails: its bulk lane is left alone until a probe gets through.
    Paused {
        /// The connection.
        connection: &'a ConnectionName,
        /// Why.
        reason: PauseReason,
    },
    /// A paused connection works again.
    Resumed {
        /// The connection.
        connection: &'a ConnectionName,
        /// Why it was paused.
        reason: PauseReason,
    },
    /// An invocation was answered and its answer is in the broker.
    Answered(Ending<'a>),
    /// An invocation was answered with the result of the same one before, and nothing was run.
    Deduplicated {
        /// The connection.
        connection: &'a ConnectionName,
        /// The lane.
        lane: Lane,
        /// The invocation's id.
        id: &'a str,
        /// The subtool, when it is one of the 28.
        subtool: Option<&'static str>,
        /// Who asked: the verified broker user.
        caller: Option<&'a str>,
        /// How the invocation had ended.
        status: Status,
    },
    /// A result could not be delivered to its `reply_to` and went to `okta.results`.
    Undeliverable {
        /// The invocation's id.
        id: &'a str,
        /// The connection, when it is one of ours.
        connection: Option<&'a ConnectionName>,
    },
    /// A message was parked.
    Parked {
        /// The invocation's id.
        id: &'a str,
        /// The connection, when it is one of ours.
        connection: Option<&'a ConnectionName>,
        /// Why.
        reason: ParkReason,
    },
    /// A message was not parked, because its caller has parked too much: it is gone.
    NotParked {
        /// The invocation's id.
        id: &'a str,
        /// The connection, when it is one of ours.
        connection: Option<&'a ConnectionName>,
        /// Who asked: the verified broker user.
        caller: Option<&'a str>,
        /// Why it was to be parked.
        reason: ParkReason,
    },
    /// A delivery was dropped because the connection it came by is gone; the broker delivers it again.
    Stale {
        /// The invocation's id.
        id: &'a str,
    },
    /// The broker was reached and everything is declared and consumed, or it was lost.
    Broker {
        /// Whether it is reached.
        connected: bool,
        /// What happened, without any credential.
        why: &'a str,
    },
    /// The broker has stopped reading what is published, or reads again.
    Blocked {
        /// Whether it has stopped.
        blocked: bool,
        /// What the broker says, or why it is over.
        why: &'a str,
    },
    /// A connection is not served, because the broker has not what it needs. The others are.
    Unserved {
        /// The connection.
        connection: &'a ConnectionName,
        /// What is missing or otherwise.
        why: &'a str,
    },
    /// A policy on the broker, or several, can lose or refuse messages.
    Policy {
        /// The queue, or what it is called like.
        queue: &'a str,
        /// What it does there, and by which policy.
        what: &'a str,
    },
    /// A queue of ours was deleted while it was consumed, and with it whatever waited there.
    QueueDeleted {
        /// Its name.
        queue: &'a str,
        /// Messages in hand, which are finished and answered.
        in_hand: usize,
        /// Messages that waited there when they were last counted: they are lost.
        waiting: u32,
    },
    /// The queue in which the workers of a connection are counted cannot be used; they go by what they tell each
    /// other.
    Uncounted {
        /// The connection.
        connection: &'a ConnectionName,
        /// What the broker said.
        why: &'a str,
    },
    /// No worker serves a removed connection any more: what waits in its queues, and what still comes, is answered
    /// `unknown_connection`.
    Removed {
        /// The connection.
        connection: &'a ConnectionName,
    },
    /// The broker does not let the worker hear other workers, or tell them; it goes on without.
    SignalsRefused {
        /// What the broker said, or what it wants.
        why: &'a str,
    },
}

/// Somebody who is told.
pub trait Observer: Send + Sync {
    /// Takes note. Called on the path of every message: no IO that can block, no lock held for long.
    fn note(&self, event: &Event<'_>);
}

/// Tells each of several observers, in order.
pub struct Observers(pub Vec<std::sync::Arc<dyn Observer>>);

impl Observer for Observers {
    fn note(&self, event: &Event<'_>) {
        for observer in &self.0 {
            observer.note(event);
        }
    }
}
