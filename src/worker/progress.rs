//! Progress messages: they inform a caller that has asked for them that its invocation waits.
//!
//! They are best effort: the invocation continues if such a message is lost. Invariant: the caller gets at most one
//! a second, and only one message is being published at a time.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use crate::domain::bucket::Bucket;
use crate::domain::json;
use crate::domain::message::{Address, PROGRESS, Properties, Publish, WANTS_PROGRESS};

use super::context::MessageContext;
use super::ports::Outbox;

/// The wait before the first progress message: shorter waits do not matter to a caller.
const FIRST_AFTER: Duration = Duration::from_millis(500);

/// The shortest time between two progress messages (the contract: at most one a second).
const EVERY: Duration = Duration::from_secs(1);

/// The reason that an invocation waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum WaitingFor {
    /// Room in the budget.
    RateLimit,
    /// The next attempt after a failure.
    Retry,
    /// Earlier invocations of its subject.
    Order,
}

/// The body of a progress message.
#[derive(Serialize)]
struct ProgressBody<'a> {
    id: &'a str,
    connection: &'a str,
    subtool: &'static str,
    waiting_for: WaitingFor,
    bucket: Option<&'static str>,
    waited_ms: u64,
}

/// The progress messages of one invocation.
pub(super) struct Progress<'a> {
    /// The address of the caller; `None` if the caller did not ask for progress messages.
    recipient: Option<(&'a Arc<dyn Outbox>, &'a Address)>,
    message: &'a MessageContext,
    connection: &'a str,
    subtool: &'static str,
    since: Instant,
    /// The time of the last progress message, and the task that publishes it.
    latest: Mutex<Option<(Instant, JoinHandle<bool>)>>,
}

impl<'a> Progress<'a> {
    /// Creates the progress messages of one invocation.
    pub fn new(
        outbox: &'a Arc<dyn Outbox>,
        message: &'a MessageContext,
        connection: &'a str,
        subtool: &'static str,
    ) -> Self {
        let is_wanted = message.properties.headers.get(WANTS_PROGRESS).is_some_and(|value| value.is_true());
        let to = message.reply_to.as_ref().filter(|_| is_wanted);
        let (since, latest) = (Instant::now(), Mutex::default());
        Self { recipient: to.map(|to| (outbox, to)), message, connection, subtool, since, latest }
    }

    /// Awaits a future, and sends progress messages while that takes long.
    pub async fn during<T>(
        &self,
        waiting_for: WaitingFor,
        bucket: Option<Bucket>,
        awaited: impl Future<Output = T>,
    ) -> T {
        let Some((outbox, to)) = self.recipient else { return awaited.await };
        tokio::pin!(awaited);
        let begun = Instant::now();
        loop {
            let last = self.latest.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|(at, _)| *at);
            let next = last.map_or(begun + FIRST_AFTER, |last| (last + EVERY).max(begun + FIRST_AFTER));
            tokio::select! {
                biased;
                done = &mut awaited => return done,
                () = sleep_until(next) => {}
            }
            let post = self.post(to.clone(), waiting_for, bucket);
            let outbox = Arc::clone(outbox);
            let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
            let task = match latest.take() {
                // The broker does not accept messages now: the one being published is enough.
                Some((_, task)) if !task.is_finished() => task,
                Some(_) | None => tokio::spawn(async move { outbox.post(&post).await.is_ok() }),
            };
            *latest = Some((Instant::now(), task));
        }
    }

    fn post(&self, to: Address, waiting_for: WaitingFor, bucket: Option<Bucket>) -> Publish {
        let message = self.message;
        let waited = message.history.waited + self.since.elapsed();
        let body = json::to_vec(&ProgressBody {
            id: &message.id,
            connection: self.connection,
            subtool: self.subtool,
            waiting_for,
            bucket: bucket.map(Bucket::as_str),
            waited_ms: u64::try_from(waited.as_millis()).unwrap_or(u64::MAX),
        });
        let properties = Properties {
            correlation_id: message.correlation_id(),
            kind: Some(PROGRESS.to_owned()),
            content_type: Some("application/json".to_owned()),
            headers: message.answer_headers(),
            ..Properties::default()
        };
        Publish { to, properties, body: body.into() }
    }
}

/// Aborts a progress message that is not yet published when the invocation ends.
impl Drop for Progress<'_> {
    fn drop(&mut self) {
        let latest = self.latest.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, task)) = latest {
            task.abort();
        }
    }
}
