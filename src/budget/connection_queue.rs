//! The queue of a connection: its own ceiling, and the requests that wait at any of its bucket gates.

use std::sync::atomic::AtomicUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use super::bucket_gate::BucketGate;
use super::ceiling::PerMinute;

/// The bounds of the requests that wait for one connection.
pub(super) struct ConnectionQueue {
    own: Option<Mutex<PerMinute>>,
    /// The bulk requests that wait at any bucket gate.
    pub bulk_waiting: AtomicUsize,
    /// The most requests that wait at one bucket gate before further messages are delayed.
    pub waiting_max: usize,
}

impl ConnectionQueue {
    /// Creates an empty queue for this prefetch per lane, and for this ceiling in requests per minute of all workers
    /// together.
    pub fn new(prefetch: usize, max_per_minute: Option<u32>) -> Self {
        Self {
            own: max_per_minute.map(|most| Mutex::new(PerMinute::new(most))),
            bulk_waiting: AtomicUsize::new(0),
            waiting_max: (prefetch / 2).max(1),
        }
    }

    /// Returns the connection's own ceiling, if it has one.
    pub fn own(&self) -> Option<MutexGuard<'_, PerMinute>> {
        self.own.as_ref().map(|own| own.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns the first moment at which both bucket and ceiling have room, as far as is known.
    pub fn not_before(&self, gate: &BucketGate) -> Instant {
        let own = self.own();
        own.and_then(|own| own.full_until()).map_or(gate.not_before(), |full| full.max(gate.not_before()))
    }
}
