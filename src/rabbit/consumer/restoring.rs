//! Recovery from the deletion of a work queue while it is consumed: reports the known loss, and declares it again.
//!
//! Messages in hand are not in the queue, so they are finished and answered as usual.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use lapin::Connection;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::domain::message::Source;
use crate::domain::topology::{Topology, source_queue};
use crate::event::{Event, Observer};

use crate::rabbit::client::connect::RECONNECT;
use crate::rabbit::client::declare::{DECLARE_TIMEOUT, declare};
use crate::rabbit::client::error::{SessionEnd, silent};

/// The number of messages in each queue at the last count.
#[derive(Default)]
pub(in crate::rabbit) struct QueueCounts(Mutex<HashMap<String, u32>>);

impl QueueCounts {
    /// Records a count.
    pub fn seen(&self, queue: String, messages: u32) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(queue, messages);
    }

    fn in_queue(&self, queue: &str) -> u32 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(queue).copied().unwrap_or(0)
    }
}

/// The resources for declaring deleted queues again.
pub(in crate::rabbit) struct Restoring {
    pub connection: Arc<Connection>,
    /// The topology that all connections share.
    pub shared: Topology,
    /// True if queues are only checked and not declared.
    pub passive: bool,
    pub observer: Arc<dyn Observer>,
    pub waiting: QueueCounts,
}

impl Restoring {
    /// Reports the loss, and returns when the queue exists again, or when told to halt.
    ///
    /// # Errors
    /// If the connection fails.
    pub async fn restore(
        &self,
        source: &Source,
        in_hand: usize,
        halt: &CancellationToken,
    ) -> Result<(), SessionEnd> {
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
                () = halt.cancelled() => break,
            }
        }
        Ok(())
    }

    /// Declares the queue with its exchanges and bindings. The inner error is the reason for a failure on a live
    /// connection.
    async fn declare(&self, source: &Source) -> Result<Result<(), String>, SessionEnd> {
        let topology = match source {
            Source::Work { connection, .. } => Topology::of_connection(connection),
            // Nothing needs the queues of a removed connection again.
            Source::Removed { .. } => {
                return Err(SessionEnd::Lost("a queue of a removed connection was deleted"));
            }
            Source::Unrouted | Source::Undelivered => self.shared.clone(),
        };
        let channel = self.connection.create_channel().await.map_err(SessionEnd::unreachable)?;
        let declared = timeout(DECLARE_TIMEOUT, declare(&channel, &topology, self.passive));
        let declared = declared.await.map_err(|_| silent())?;
        match declared {
            Err(undeclared) if self.connection.status().connected() => Ok(Err(undeclared.to_string())),
            Err(undeclared) => Err(SessionEnd::Undeclared(undeclared)),
            Ok(()) => Ok(Ok(())),
        }
    }
}
