//! Deduplication: a repeated invocation is answered with the result of the first, and not executed.
//!
//! A redelivery after a lost acknowledgement, or a message that a producer has published twice, waits for the first
//! one and gets its result. Deduplication is best effort: without it a write still converges; with it the caller gets
//! the same answer twice. Invariants: the same invocation runs once at a time, and no result is used
//! later than ten minutes (the deduplication window) after its invocation has ended.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::domain::result::{Effect, Outcome};

use super::admission::Invocation;
use super::outcome::Conclusion;
use super::shares::Shares;

/// The deduplication window (the contract): a broker redelivers within moments after it notices that a
/// connection is lost.
const DEDUP_WINDOW: Duration = Duration::from_secs(10 * 60);

/// The most bytes that are kept, for all callers together.
const BYTES_MAX: usize = 32 * 1024 * 1024;

/// The least bytes that one invocation counts for. So at most 32,768 are kept: all those of ten minutes, up to a rate
/// that few orgs allow.
const ENTRY_BYTES: usize = 1024;

/// The largest result that is kept, in bytes; results of writes have one or two thousand.
const RESULT_BYTES_MAX: usize = 64 * 1024;

/// A digest of an invocation: connection, lane, caller, id and body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key([u8; 32]);

/// The owner of a share of the kept results: one caller on one connection.
type DedupOwner = (String, Option<String>);

/// The deduplication key of an invocation, with its owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DedupKey {
    key: Key,
    owner: DedupOwner,
}

impl DedupKey {
    /// Returns the key of a write; `None` for a read, which runs again, and for an id that the worker has generated.
    pub fn of(invocation: &Invocation<'_>, body: &[u8]) -> Option<Self> {
        let history = &invocation.message.history;
        if invocation.is_read() || history.id_generated {
            return None;
        }
        let mut digest = Sha256::new();
        let connection = invocation.connection.name.as_str();
        let caller = history.caller.as_deref().unwrap_or_default();
        for part in [connection, invocation.lane.as_str(), caller, &invocation.message.id].map(str::as_bytes)
        {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        }
        digest.update(body);
        let key = Key(digest.finalize().into());
        Some(Self { key, owner: (connection.to_owned(), history.caller.clone()) })
    }
}

/// The running invocations, and those that ended within the deduplication window.
pub(super) struct Dedup(Mutex<DedupState>);

struct DedupState {
    /// Running invocations; the end of a sender wakes those that wait for it.
    running: HashMap<Key, watch::Sender<()>>,
    ended: Shares<DedupOwner, Key, Conclusion>,
}

impl Default for Dedup {
    fn default() -> Self {
        Self(Mutex::new(DedupState { running: HashMap::new(), ended: Shares::new(DEDUP_WINDOW, BYTES_MAX) }))
    }
}

/// A running invocation.
pub(super) struct RunningGuard<'a> {
    dedup: &'a Dedup,
    invocation: DedupKey,
}

impl Dedup {
    /// Waits until no other task of this worker runs the same invocation, and returns its conclusion, if any. A failure
    /// that changed nothing, or is retryable, counts only for redeliveries of the same message: a producer that
    /// publishes it again wants a retry.
    pub async fn begin(
        &self,
        invocation: DedupKey,
        is_same_message: bool,
    ) -> Result<RunningGuard<'_>, Conclusion> {
        loop {
            let mut first = {
                let mut state = self.state();
                let now = Instant::now();
                state.ended.forget_old(now);
                match state.ended.get(&invocation.key, now) {
                    Some(ended) if is_same_message || ended.is_final() => return Err(ended.clone()),
                    Some(_) | None => {}
                }
                match state.running.get(&invocation.key) {
                    Some(running) => running.subscribe(),
                    None => {
                        state.running.insert(invocation.key, watch::Sender::new(()));
                        return Ok(RunningGuard { dedup: self, invocation });
                    }
                }
            };
            // No value is ever sent: the wait ends with the sender.
            let _ = first.changed().await;
        }
    }

    fn state(&self) -> MutexGuard<'_, DedupState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RunningGuard<'_> {
    /// Keeps the conclusion of the invocation.
    pub fn ended(self, conclusion: &Conclusion) {
        let bytes = conclusion.bytes();
        if conclusion.park.is_none() && bytes <= RESULT_BYTES_MAX {
            let DedupKey { key, owner } = self.invocation.clone();
            let weight = bytes.max(ENTRY_BYTES);
            let ended = conclusion.clone();
            self.dedup.state().ended.insert(owner, key, ended, weight, Instant::now());
        }
    }
}

impl Drop for RunningGuard<'_> {
    fn drop(&mut self) {
        self.dedup.state().running.remove(&self.invocation.key);
    }
}

impl Conclusion {
    /// Returns true if the invocation has changed something, or may have and must not be retried.
    fn is_final(&self) -> bool {
        match &self.outcome {
            Outcome::Succeeded { effect, .. } => *effect != Effect::None,
            Outcome::Failed { effect, failure } => *effect != Effect::None && !failure.retryable,
            Outcome::Planned(_) => false,
        }
    }

    /// Returns the approximate size of the conclusion, in bytes.
    fn bytes(&self) -> usize {
        let ids: usize = self.cost.okta_request_ids.iter().map(String::len).sum();
        ids + match &self.outcome {
            Outcome::Succeeded { result, .. } | Outcome::Planned(result) => result.get().len(),
            Outcome::Failed { failure, .. } => {
                let okta = failure.okta.as_ref();
                let summary = okta.and_then(|error| error.summary.as_ref()).map_or(0, String::len);
                let causes: usize = okta.map_or(0, |error| error.causes.iter().map(String::len).sum());
                failure.message.len() + failure.path.as_ref().map_or(0, String::len) + summary + causes
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::json;
    use crate::worker::cost::DeliveryCost;

    fn invocation(caller: &str, number: u32) -> DedupKey {
        let key = Key(Sha256::digest(format!("{caller} {number}")).into());
        DedupKey { key, owner: ("prod".to_owned(), Some(caller.to_owned())) }
    }

    fn applied(bytes: usize) -> Conclusion {
        let result = json::to_raw(&"x".repeat(bytes));
        Conclusion::new(Outcome::Succeeded { effect: Effect::Applied, result }, DeliveryCost::default(), None)
    }

    async fn is_known(dedup: &Dedup, invocation: DedupKey) -> bool {
        dedup.begin(invocation, false).await.is_err()
    }

    #[tokio::test(start_paused = true)]
    async fn what_one_caller_does_never_pushes_out_what_another_has_done() {
        let dedup = Dedup::default();
        for (caller, count, bytes) in [("quiet", 1, 10), ("busy", 40_000, 10), ("large", 2_000, 60_000)] {
            for number in 0..count {
                let running = dedup.begin(invocation(caller, number), false).await;
                running.unwrap_or_else(|_| panic!("it is new")).ended(&applied(bytes));
            }
        }
        assert!(is_known(&dedup, invocation("quiet", 0)).await);
        assert!(is_known(&dedup, invocation("busy", 39_999)).await);
        assert!(!is_known(&dedup, invocation("busy", 0)).await, "it is bounded");
    }

    #[tokio::test(start_paused = true)]
    async fn ten_minutes_count_from_the_end_in_whatever_order_they_came() {
        let dedup = Dedup::default();
        let slow = dedup.begin(invocation("a", 0), false).await.ok().unwrap();
        for number in 1..20 {
            dedup.begin(invocation("a", number), false).await.ok().unwrap().ended(&applied(1));
        }
        tokio::time::advance(Duration::from_secs(900)).await;
        slow.ended(&applied(1));
        for number in [1, 10, 19] {
            assert!(!is_known(&dedup, invocation("a", number)).await, "{number} after a quarter of an hour");
        }
        tokio::time::advance(DEDUP_WINDOW - Duration::from_secs(1)).await;
        assert!(is_known(&dedup, invocation("a", 0)).await, "and asking for it makes it no younger");
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(!is_known(&dedup, invocation("a", 0)).await);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_one_that_came_to_no_end_runs_it() {
        let dedup = Dedup::default();
        let first = dedup.begin(invocation("a", 0), false).await.ok().unwrap();
        let (second, ()) = tokio::join!(dedup.begin(invocation("a", 0), false), async { drop(first) });
        assert!(second.is_ok());
    }
}
