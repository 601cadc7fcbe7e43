//! Deduplication: the same invocation again is answered with the result of the first, and not run.
//!
//! A redelivery after a lost acknowledgement, or a message a producer has published twice, waits for the
//! one that runs and gets its result. The memory is a courtesy: without it a write converges, with it the
//! same answer comes twice. Invariants: of the same invocation one runs at a time, and no result is given
//! again later than ten minutes after the invocation that made it has ended.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::domain::result::{Effect, Outcome};

use super::Conclusion;
use super::admission::Job;
use super::shares::Shares;

/// How long a result is kept (the contract): a broker delivers again within moments of noticing that a
/// connection is gone.
const KEPT: Duration = Duration::from_secs(10 * 60);

/// The most that is kept, in bytes, of all callers together.
const BYTES_MAX: usize = 32 * 1024 * 1024;

/// The least that an invocation counts for, in bytes. So at most 32,768 are kept, ten minutes at a rate that few
/// orgs allow.
const ENTRY_BYTES: usize = 1024;

/// The largest result that is kept, in bytes; those of writes have one or two thousand.
const RESULT_BYTES_MAX: usize = 64 * 1024;

/// An invocation: connection, lane, caller, id and body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key([u8; 32]);

/// Whose results share their room in the memory: those of one caller on one connection.
type Owner = (String, Option<String>);

/// An invocation as the memory knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Invocation {
    key: Key,
    owner: Owner,
}

impl Invocation {
    /// That of a write; reads run again, and an id that the worker made says nothing.
    pub fn of(job: &Job<'_>, body: &[u8]) -> Option<Self> {
        let docket = &job.letter.docket;
        if job.is_read() || docket.id_generated {
            return None;
        }
        let mut digest = Sha256::new();
        let connection = job.connection.name.as_str();
        let caller = docket.caller.as_deref().unwrap_or_default();
        for part in [connection, job.lane.as_str(), caller, &job.letter.id].map(str::as_bytes) {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        }
        digest.update(body);
        let key = Key(digest.finalize().into());
        Some(Self { key, owner: (connection.to_owned(), docket.caller.clone()) })
    }
}

/// The invocations that run, and those that ended lately.
pub(super) struct Memory(Mutex<State>);

struct State {
    /// Whoever waits for one hears that its sender is gone.
    running: HashMap<Key, watch::Sender<()>>,
    ended: Shares<Owner, Key, Conclusion>,
}

impl Default for Memory {
    fn default() -> Self {
        Self(Mutex::new(State { running: HashMap::new(), ended: Shares::new(KEPT, BYTES_MAX) }))
    }
}

/// One invocation, for as long as it runs.
pub(super) struct Running<'a> {
    memory: &'a Memory,
    invocation: Invocation,
}

impl Memory {
    /// Waits until the same invocation runs nowhere else in this worker, and says how it ended. What failed
    /// and changed nothing, or may be tried again, is known of the same message only: a producer that sends it
    /// again wants it tried.
    pub async fn begin(
        &self,
        invocation: Invocation,
        is_same_message: bool,
    ) -> Result<Running<'_>, Conclusion> {
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
                        return Ok(Running { memory: self, invocation });
                    }
                }
            };
            // Nothing is ever sent: it ends with its sender.
            let _ = first.changed().await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Running<'_> {
    /// It has ended like this.
    pub fn ended(self, conclusion: &Conclusion) {
        let bytes = conclusion.bytes();
        if conclusion.park.is_none() && bytes <= RESULT_BYTES_MAX {
            let Invocation { key, owner } = self.invocation.clone();
            let weight = bytes.max(ENTRY_BYTES);
            let ended = conclusion.clone();
            self.memory.state().ended.insert(owner, key, ended, weight, Instant::now());
        }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.memory.state().running.remove(&self.invocation.key);
    }
}

impl Conclusion {
    /// Whether it changed something, or may have and is not to be tried again.
    fn is_final(&self) -> bool {
        match &self.outcome {
            Outcome::Succeeded { effect, .. } => *effect != Effect::None,
            Outcome::Failed { effect, failure } => *effect != Effect::None && !failure.retryable,
            Outcome::Planned(_) => false,
        }
    }

    /// About how much memory it takes.
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
    use crate::worker::execution::Cost;

    fn invocation(caller: &str, number: u32) -> Invocation {
        let key = Key(Sha256::digest(format!("{caller} {number}")).into());
        Invocation { key, owner: ("prod".to_owned(), Some(caller.to_owned())) }
    }

    fn applied(bytes: usize) -> Conclusion {
        let result = json::to_raw(&"x".repeat(bytes));
        Conclusion::new(Outcome::Succeeded { effect: Effect::Applied, result }, Cost::default(), None)
    }

    async fn is_known(memory: &Memory, invocation: Invocation) -> bool {
        memory.begin(invocation, false).await.is_err()
    }

    #[tokio::test(start_paused = true)]
    async fn what_one_caller_does_never_pushes_out_what_another_has_done() {
        let memory = Memory::default();
        for (caller, count, bytes) in [("quiet", 1, 10), ("busy", 40_000, 10), ("large", 2_000, 60_000)] {
            for number in 0..count {
                let running = memory.begin(invocation(caller, number), false).await;
                running.unwrap_or_else(|_| panic!("it is new")).ended(&applied(bytes));
            }
        }
        assert!(is_known(&memory, invocation("quiet", 0)).await);
        assert!(is_known(&memory, invocation("busy", 39_999)).await);
        assert!(!is_known(&memory, invocation("busy", 0)).await, "it is bounded");
    }

    #[tokio::test(start_paused = true)]
    async fn ten_minutes_count_from_the_end_in_whatever_order_they_came() {
        let memory = Memory::default();
        let slow = memory.begin(invocation("a", 0), false).await.ok().unwrap();
        for number in 1..20 {
            memory.begin(invocation("a", number), false).await.ok().unwrap().ended(&applied(1));
        }
        tokio::time::advance(Duration::from_secs(900)).await;
        slow.ended(&applied(1));
        for number in [1, 10, 19] {
            assert!(!is_known(&memory, invocation("a", number)).await, "{number} after a quarter of an hour");
        }
        tokio::time::advance(KEPT - Duration::from_secs(1)).await;
        assert!(is_known(&memory, invocation("a", 0)).await, "and asking for it makes it no younger");
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(!is_known(&memory, invocation("a", 0)).await);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_one_that_came_to_no_end_runs_it() {
        let memory = Memory::default();
        let first = memory.begin(invocation("a", 0), false).await.ok().unwrap();
        let (second, ()) = tokio::join!(memory.begin(invocation("a", 0), false), async { drop(first) });
        assert!(second.is_ok());
    }
}
