//! Telling a caller who asked for it that its invocation waits.
//!
//! A courtesy: whatever becomes of such a message, the invocation goes on. Invariant: the caller hears of it
//! at most once a second, and one message is on its way at a time.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use crate::domain::bucket::Bucket;
use crate::domain::json;
use crate::domain::message::{Address, PROGRESS, Post, Properties, WANTS_PROGRESS};

use super::context::Letter;
use super::ports::Postbox;

/// How long an invocation waits before its caller hears of it: shorter waits are none to a caller.
const FIRST_AFTER: Duration = Duration::from_millis(500);

/// How often a caller hears of it (the contract: at most once a second).
const EVERY: Duration = Duration::from_secs(1);

/// What an invocation waits for.
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
struct Told<'a> {
    id: &'a str,
    connection: &'a str,
    subtool: &'static str,
    waiting_for: WaitingFor,
    bucket: Option<&'static str>,
    waited_ms: u64,
}

/// Who is told, and what of.
pub(super) struct Progress<'a> {
    /// `None`: nobody asked for it.
    listener: Option<(&'a Arc<dyn Postbox>, &'a Address)>,
    letter: &'a Letter,
    connection: &'a str,
    subtool: &'static str,
    since: Instant,
    /// When the caller heard of it last, and the message that says so.
    told: Mutex<Option<(Instant, JoinHandle<bool>)>>,
}

impl<'a> Progress<'a> {
    /// That of one invocation.
    pub fn new(
        postbox: &'a Arc<dyn Postbox>,
        letter: &'a Letter,
        connection: &'a str,
        subtool: &'static str,
    ) -> Self {
        let is_wanted = letter.properties.headers.get(WANTS_PROGRESS).is_some_and(|value| value.is_true());
        let to = letter.reply_to.as_ref().filter(|_| is_wanted);
        let (since, told) = (Instant::now(), Mutex::default());
        Self { listener: to.map(|to| (postbox, to)), letter, connection, subtool, since, told }
    }

    /// Waits for something, and tells of it while that takes long.
    pub async fn during<T>(
        &self,
        waiting_for: WaitingFor,
        bucket: Option<Bucket>,
        awaited: impl Future<Output = T>,
    ) -> T {
        let Some((postbox, to)) = self.listener else { return awaited.await };
        tokio::pin!(awaited);
        let begun = Instant::now();
        loop {
            let last = self.told.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|(at, _)| *at);
            let next = last.map_or(begun + FIRST_AFTER, |last| (last + EVERY).max(begun + FIRST_AFTER));
            tokio::select! {
                biased;
                done = &mut awaited => return done,
                () = sleep_until(next) => {}
            }
            let post = self.post(to.clone(), waiting_for, bucket);
            let postbox = Arc::clone(postbox);
            let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            let message = match told.take() {
                // The broker takes nothing now: the one on its way is enough.
                Some((_, message)) if !message.is_finished() => message,
                Some(_) | None => tokio::spawn(async move { postbox.post(&post).await.is_ok() }),
            };
            *told = Some((Instant::now(), message));
        }
    }

    fn post(&self, to: Address, waiting_for: WaitingFor, bucket: Option<Bucket>) -> Post {
        let letter = self.letter;
        let waited = letter.docket.waited + self.since.elapsed();
        let body = json::to_vec(&Told {
            id: &letter.id,
            connection: self.connection,
            subtool: self.subtool,
            waiting_for,
            bucket: bucket.map(Bucket::as_str),
            waited_ms: u64::try_from(waited.as_millis()).unwrap_or(u64::MAX),
        });
        let properties = Properties {
            correlation_id: letter.correlation_id(),
            kind: Some(PROGRESS.to_owned()),
            content_type: Some("application/json".to_owned()),
            headers: letter.answer_headers(),
            ..Properties::default()
        };
        Post { to, properties, body: body.into() }
    }
}

/// What is told and not yet on its way when the invocation ends is not told.
impl Drop for Progress<'_> {
    fn drop(&mut self) {
        let told = self.told.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, message)) = told {
            message.abort();
        }
    }
}
