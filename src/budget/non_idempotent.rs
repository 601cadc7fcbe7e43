//! Slots for non-idempotent requests, which send e-mail or create one-time secrets.
//!
//! If a worker dies with such a request in flight, its outcome is unknown, and it must not be retried blindly; so few
//! of them are in flight at once. Each lane has its own slots: no head-of-line blocking of interactive requests by
//! bulk ones.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};

use super::permit::{Ask, NotNow, WhenBusy};
use crate::domain::ids::Lane;

use super::bucket_gate::BucketGate;
use super::callers::{WaitingGuard, fail_if_too_late};
use super::connection_queue::ConnectionQueue;

/// The most such requests of a lane in flight.
const NON_IDEMPOTENT_MAX: usize = 2;

/// The delay of a message that finds too many requests waiting.
const BUSY_DELAY: Duration = Duration::from_secs(5);

/// The slots of one lane.
pub(super) struct NonIdempotentSlots {
    slots: Semaphore,
    waiting: AtomicUsize,
}

impl Default for NonIdempotentSlots {
    fn default() -> Self {
        Self { slots: Semaphore::new(NON_IDEMPOTENT_MAX), waiting: AtomicUsize::new(0) }
    }
}

impl NonIdempotentSlots {
    /// Waits for a slot, unless that is too late or too many wait.
    pub async fn enter(
        &self,
        ask: &Ask<'_>,
        gate: &BucketGate,
        queue: &ConnectionQueue,
    ) -> Result<SemaphorePermit<'_>, NotNow> {
        let _waiting = WaitingGuard::new(&self.waiting);
        if ask.when_busy == WhenBusy::Delay && self.waiting.load(Ordering::Relaxed) > queue.waiting_max {
            return Err(NotNow::Delay(BUSY_DELAY));
        }
        let _counted = (ask.lane == Lane::Bulk).then(|| WaitingGuard::new(&queue.bulk_waiting));
        let slot = self.slots.acquire();
        tokio::pin!(slot);
        loop {
            let exhausted = gate.exhausted.notified();
            fail_if_too_late(Some(queue.not_before(gate)), ask.not_after)?;
            tokio::select! {
                biased;
                slot = &mut slot => return Ok(slot.expect("the semaphore is never closed")),
                () = exhausted => {}
            }
        }
    }

    /// Releases a slot.
    pub fn leave(&self) {
        self.slots.add_permits(1);
    }
}
