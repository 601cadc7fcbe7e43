//! Room for requests that mail or mint something.
//!
//! What was on its way when a worker died nobody can be sure of, and such a request cannot be sent again on
//! suspicion; so few of them are on their way at once. Each lane has room of its own: nobody who waits for an
//! answer waits behind those whom nobody waits for.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};

use super::permit::{Ask, NotNow, Patience};
use crate::domain::ids::Lane;

use super::bucket_gate::Line;
use super::callers::{Standing, check_hope};
use super::gate::Gate;

/// So many of a lane are on their way at once.
const EMITTING_MAX: usize = 2;

/// After how long a message comes again that found too many waiting.
const COME_AGAIN: Duration = Duration::from_secs(5);

/// The room in one lane.
pub(super) struct Emitting {
    room: Semaphore,
    waiting: AtomicUsize,
}

impl Default for Emitting {
    fn default() -> Self {
        Self { room: Semaphore::new(EMITTING_MAX), waiting: AtomicUsize::new(0) }
    }
}

impl Emitting {
    /// Waits for room, unless that is in vain or many do.
    pub async fn enter(
        &self,
        ask: &Ask<'_>,
        line: &Line,
        gate: &Gate,
    ) -> Result<SemaphorePermit<'_>, NotNow> {
        let _standing = Standing::new(&self.waiting);
        if ask.patience == Patience::ComeAgain && self.waiting.load(Ordering::Relaxed) > gate.line_max() {
            return Err(NotNow::ComeAgain(COME_AGAIN));
        }
        let _counted = (ask.lane == Lane::Bulk).then(|| Standing::new(&gate.bulk_waiting));
        let room = self.room.acquire();
        tokio::pin!(room);
        loop {
            let exhausted = line.exhausted.notified();
            check_hope(Some(gate.not_before(line)), ask.not_after)?;
            tokio::select! {
                biased;
                room = &mut room => return Ok(room.expect("the room is never closed")),
                () = exhausted => {}
            }
        }
    }

    /// One of them is over.
    pub fn leave(&self) {
        self.room.add_permits(1);
    }
}
