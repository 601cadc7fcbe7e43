//! The incoming side of a worker: deliveries, counts of the broker, cancellations of other workers.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::watch;

use crate::domain::ids::{ConnectionName, Lane};
use crate::domain::message::{Delivery, Source};
use crate::event::Event;

use super::lanes::LaneBacklog;
use super::ports::{Inbox, Ready};
use super::state::Worker;

impl Inbox for Worker {
    fn take(self: Arc<Self>, delivery: Delivery) -> BoxFuture<'static, ()> {
        match catch_unwind(AssertUnwindSafe(|| self.open(delivery))) {
            Ok(opened) => Box::pin(async move { self.settle(opened).await }),
            Err(_) => Box::pin(async {}), // a bug of the worker; the dropped receipt has requeued the delivery
        }
    }

    fn hold_at_most(&self, most: Duration) {
        self.lanes.hold_at_most(most);
    }

    fn counted(&self, connection: &ConnectionName, ready: Ready) {
        let now = self.rules.load().clock.now();
        for lane in Lane::ALL {
            let ready = ready.of(lane);
            let LaneBacklog { delayed, oldest } = self.lanes.of(connection, lane).waiting(ready, now);
            let oldest = oldest.map(|sent| Duration::try_from(now.duration_since(sent)).unwrap_or_default());
            self.observer.note(&Event::Backlog { connection, lane, ready, delayed, oldest });
        }
    }

    fn hear(&self, body: &[u8]) {
        self.cancelled.hear(body, &self.rules.load().callers);
    }

    /// Returns the breaker's signal for a bulk lane: while the connection is paused, bulk messages stay in their queue.
    fn wants(&self, source: &Source) -> watch::Receiver<bool> {
        let rules = self.rules.load();
        match source {
            Source::Work { connection, lane: Lane::Bulk } => match rules.connections.get(connection) {
                Some(connection) => connection.breaker.wants_bulk(),
                None => watch::channel(true).1,
            },
            Source::Work { .. } | Source::Removed { .. } | Source::Unrouted | Source::Undelivered => {
                watch::channel(true).1
            }
        }
    }
}
