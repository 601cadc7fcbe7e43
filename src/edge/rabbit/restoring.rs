//! A work queue that is deleted while it is consumed: what is known to be lost is said, and the queue is declared again.
//!
//! What was in hand is not in the queue, so it is finished and answered as if nothing had happened.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use lapin::Connection;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::domain::mail::Source;
use crate::domain::topology::{Topology, source_queue};
use crate::worker::event::{Event, Observer};

use super::connecting::RECONNECT;
use super::declare::{DECLARE_TIMEOUT, declare};
use super::doubt::{Doubt, silent};
use super::turned;

/// How many messages waited in each queue when it was looked at last.
#[derive(Default)]
pub(super) struct Waiting(Mutex<HashMap<String, u32>>);

impl Waiting {
    /// Remembers a look.
    pub fn seen(&self, queue: String, messages: u32) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(queue, messages);
    }

    fn in_queue(&self, queue: &str) -> u32 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(queue).copied().unwrap_or(0)
    }
}

/// Declares again what was deleted.
pub(super) struct Restoring {
    pub connection: Arc<Connection>,
    /// What all connections need.
    pub shared: Topology,
    /// Whether queues are only looked for and not declared.
    pub passive: bool,
    pub observer: Arc<dyn Observer>,
    pub waiting: Waiting,
}

impl Restoring {
    /// Says what is lost, and returns when the queue is there again, or told to halt.
    ///
    /// # Errors
    /// When the connection is no good.
    pub async fn restore(
        &self,
        source: &Source,
        in_hand: usize,
        halt: &mut watch::Receiver<bool>,
    ) -> Result<(), Doubt> {
        let queue = source_queue(source);
        let waiting = self.waiting.in_queue(&queue);
        self.observer.note(&Event::QueueDeleted { queue: &queue, in_hand, waiting });
        self.waiting.seen(queue, 0);
        let mut failures = 0;
        while let Err(why) = self.declare(source).await? {
            if let Source::Work { connection, .. } = source {
                self.observer.note(&Event::Unserved { connection, why: &why });
            }
            failures += 1;
            tokio::select! {
                () = sleep(RECONNECT.wait(failures, fastrand::f64())) => {}
                () = turned(halt) => break,
            }
        }
        Ok(())
    }

    /// Declares the queue with everything around it. Why it cannot, is what comes back.
    async fn declare(&self, source: &Source) -> Result<Result<(), String>, Doubt> {
        let topology = match source {
            Source::Work { connection, .. } => Topology::of_connection(connection),
            // Nobody needs the queues of a removed connection again.
            Source::Removed { .. } => return Err(Doubt::Lost("a queue of a removed connection was deleted")),
            Source::Unrouted | Source::Undelivered => self.shared.clone(),
        };
        let channel = self.connection.create_channel().await.map_err(Doubt::unreachable)?;
        let declared = timeout(DECLARE_TIMEOUT, declare(&channel, &topology, self.passive));
        let declared = declared.await.map_err(|_| silent())?;
        match declared {
            Err(undeclared) if self.connection.status().connected() => Ok(Err(undeclared.to_string())),
            Err(undeclared) => Err(Doubt::Undeclared(undeclared)),
            Ok(()) => Ok(Ok(())),
        }
    }
}
