//! What this worker has done lately: the same invocation again is answered, not run.
//!
//! A redelivery after a lost acknowledgement, or a message a producer has published twice, waits for the
//! one that runs and gets its result. The memory is a courtesy: without it a write converges, with it the
//! same answer comes twice. Invariant: of the same invocation one runs at a time.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex as Guarded, PoisonError};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::Instant;

use crate::domain::answer::{Effect, Outcome};

use super::Conclusion;
use super::admission::Job;

/// How long a result is kept: a broker delivers again within moments of noticing that a connection is gone.
const KEPT: Duration = Duration::from_secs(10 * 60);

/// The most invocations remembered: three minutes at the rate of a large org's budget.
const KEPT_MAX: usize = 4096;

/// The largest result that is kept, in bytes; those of writes have one or two thousand.
const RESULT_BYTES_MAX: usize = 8 * 1024;

/// An invocation: connection, lane, caller, id and body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key([u8; 32]);

impl Key {
    /// The key of a write; reads run again, and an id that the worker made says nothing.
    pub fn of(job: &Job<'_>, body: &[u8]) -> Option<Self> {
        let docket = &job.letter.docket;
        if job.is_read() || docket.id_generated {
            return None;
        }
        let mut digest = Sha256::new();
        let caller = docket.caller.as_deref().unwrap_or_default();
        let lane = job.lane.as_str();
        for part in [job.connection.name.as_str(), lane, caller, &job.letter.id].map(str::as_bytes) {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        }
        digest.update(body);
        Some(Self(digest.finalize().into()))
    }
}

/// How one ended, once it has.
type Place = Arc<Mutex<Option<Conclusion>>>;

/// What this worker has done lately.
#[derive(Default)]
pub(super) struct Memory(Guarded<Kept>);

#[derive(Default)]
struct Kept {
    places: HashMap<Key, Place>,
    /// In the order they came.
    order: VecDeque<(Key, Instant)>,
}

/// One invocation, for as long as it runs.
pub(super) struct Running(OwnedMutexGuard<Option<Conclusion>>);

impl Memory {
    /// Waits until the same invocation runs nowhere else in this worker, and says how it ended. What failed
    /// and changed nothing, or may be tried again, is known of the same message only: a producer that sends it
    /// again wants it tried.
    pub async fn begin(&self, key: Key, is_same_message: bool) -> Result<Running, Conclusion> {
        let running = Running(self.place(key).lock_owned().await);
        match &*running.0 {
            Some(ended) if is_same_message || ended.is_final() => Err(ended.clone()),
            Some(_) | None => Ok(running),
        }
    }

    fn place(&self, key: Key) -> Place {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Kept { places, order } = &mut *kept;
        // Each that comes may make two go; whoever runs or waits keeps its place.
        for _ in 0..2 {
            let Some((old, at)) = order.front().copied() else { break };
            if at.elapsed() <= KEPT && order.len() <= KEPT_MAX {
                break;
            }
            order.pop_front();
            match places.get(&old) {
                Some(place) if Arc::strong_count(place) > 1 => order.push_back((old, at)),
                Some(_) | None => drop(places.remove(&old)),
            }
        }
        let place = places.entry(key).or_insert_with(|| {
            order.push_back((key, Instant::now()));
            Place::default()
        });
        Arc::clone(place)
    }
}

impl Running {
    /// It has ended like this.
    pub fn ended(mut self, conclusion: &Conclusion) {
        let is_small = match &conclusion.outcome {
            Outcome::Succeeded { result, .. } => result.get().len() <= RESULT_BYTES_MAX,
            Outcome::Planned(_) | Outcome::Failed { .. } => true,
        };
        *self.0 = (is_small && conclusion.park.is_none()).then(|| conclusion.clone());
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
}
