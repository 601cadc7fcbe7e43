//! Suspects of a crash loop: a message that was redelivered often runs while no other suspect does.

use std::time::Duration;

use tokio::sync::SemaphorePermit;

use crate::event::Event;

use super::admission::Invocation;
use super::context::MessageContext;
use super::delay::{Carried, Delay, Delayed};
use super::lanes::InLane;
use super::outcome::Disposition;
use super::state::Worker;
use super::turn::leaves;

/// The delays, one chosen at random, of a message that must run alone because it may cause a crash loop. Messages with
/// the same delay would come back together, and one that crashes the worker would have the others redelivered each
/// time.
const SUSPECT_DELAYS: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(15)];

impl Worker {
    /// Waits until no other suspect of a crash loop runs, if this message is one. It waits in a delay queue, because
    /// each message in hand is redelivered once more when a worker dies.
    pub(super) async fn alone<'a>(
        &self,
        invocation: &'a Invocation<'_>,
        delay: &Delay<'_>,
        in_lane: Option<&InLane>,
    ) -> Result<Option<SemaphorePermit<'a>>, Disposition> {
        let Invocation { connection, lane, message: MessageContext { history, id, .. }, .. } = invocation;
        if !history.is_suspect() {
            return Ok(None);
        }
        let slots = &connection.crash_loop_slots[*lane as usize];
        // A message from a delay queue was not in hand while others ran, so it need not wait again.
        let alone = match slots.try_acquire().ok().filter(|_| history.is_settled) {
            Some(alone) => alone,
            None => match delay.put(SUSPECT_DELAYS[fastrand::usize(..2)], None, Carried::of(history)).await {
                Delayed::Scheduled(time) => {
                    leaves(invocation, in_lane, time);
                    self.observer.note(&Event::HandedBack { connection: &connection.name, lane: *lane, id });
                    return Err(Disposition::Republished);
                }
                Delayed::Impossible => tokio::select! {
                    alone = slots.acquire() => alone.expect("the semaphore is never closed"),
                    () = delay.receipt.gone() => return Err(Disposition::Stale),
                },
                Delayed::Stale => return Err(Disposition::Stale),
            },
        };
        let redeliveries = history.redeliveries;
        self.observer.note(&Event::Suspected { connection: &connection.name, lane: *lane, id, redeliveries });
        Ok(Some(alone))
    }
}
