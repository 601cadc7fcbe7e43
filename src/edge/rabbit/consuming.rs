//! One queue being consumed: each delivery becomes a task, as long as there is room in memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt as _;
use lapin::options::{BasicAckOptions, BasicCancelOptions};
use lapin::{Channel, Consumer};
use tokio::sync::{Notify, Semaphore, watch};

use crate::domain::mail::{Delivery, Receipt, Source};
use crate::worker::ports::Inbox;

use super::convert::properties_in;
use super::turned;

/// Messages are counted against the memory limit in pieces of this size, a small one as one piece.
pub(super) const HELD_PIECE_BYTES: usize = 1024;

/// Messages being worked on.
#[derive(Default)]
pub(super) struct InFlight {
    count: AtomicUsize,
    changed: Notify,
}

impl InFlight {
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// Waits until nothing is being worked on.
    pub async fn finished(&self) {
        loop {
            let changed = self.changed.notified();
            if self.count() == 0 {
                return;
            }
            changed.await;
        }
    }
}

/// One queue being consumed.
pub(super) struct Consuming {
    pub source: Source,
    pub channel: Channel,
    pub inbox: Arc<dyn Inbox>,
    pub held: Arc<Semaphore>,
    pub in_flight: Arc<InFlight>,
    pub halt: watch::Receiver<bool>,
}

impl Consuming {
    /// Hands each delivery to a task of its own, as long as there is room in memory.
    pub async fn run(mut self, mut consumer: Consumer) {
        let generation = Arc::new(AtomicBool::new(true));
        loop {
            let next = tokio::select! {
                next = consumer.next() => next,
                () = turned(&mut self.halt) => {
                    // No new deliveries; those that came and were not started go back when the channel
                    // closes, which is when the last of those that were started is acknowledged.
                    let _ = self.channel.basic_cancel(consumer.tag(), BasicCancelOptions::default()).await;
                    return;
                }
            };
            let Some(Ok(delivery)) = next else {
                generation.store(false, Ordering::Release);
                return;
            };
            let pieces = (delivery.data.len() / HELD_PIECE_BYTES + 1).min(HELD_PIECES_MAX);
            let room = Arc::clone(&self.held)
                .acquire_many_owned(u32::try_from(pieces).expect("bounded above"))
                .await
                .expect("the room is never closed");
            let (inbox, in_flight) = (Arc::clone(&self.inbox), Arc::clone(&self.in_flight));
            let delivery = self.delivery(delivery, &generation);
            in_flight.count.fetch_add(1, Ordering::AcqRel);
            let leaving = Leaving(in_flight);
            tokio::spawn(async move {
                inbox.take(delivery).await;
                drop((room, leaving));
            });
        }
    }

    fn delivery(&self, mut delivery: lapin::message::Delivery, generation: &Arc<AtomicBool>) -> Delivery {
        Delivery {
            properties: properties_in(&delivery.properties),
            body: Bytes::from(std::mem::take(&mut delivery.data)),
            exchange: delivery.exchange.to_string(),
            routing_key: delivery.routing_key.to_string(),
            source: self.source.clone(),
            redelivered: delivery.redelivered,
            receipt: Box::new(Tag {
                delivery,
                generation: Arc::clone(generation),
                _channel: self.channel.clone(),
            }),
        }
    }
}

/// One message takes at most this many pieces of the memory limit, so that a huge one cannot wait for
/// ever: it is refused by its size as soon as it is looked at.
const HELD_PIECES_MAX: usize = 1024;

/// Counts a message out when it is done, or its task panicked.
struct Leaving(Arc<InFlight>);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::AcqRel);
        self.0.changed.notify_waiters();
    }
}

/// The right to acknowledge one delivery.
struct Tag {
    /// The delivery without its body: it holds lapin's acker, which has no public name.
    delivery: lapin::message::Delivery,
    generation: Arc<AtomicBool>,
    /// lapin closes a channel with its last handle, and then nothing can be acknowledged on it: while the
    /// worker drains, this is the only one left.
    _channel: Channel,
}

#[async_trait]
impl Receipt for Tag {
    fn is_live(&self) -> bool {
        self.generation.load(Ordering::Acquire) && self.delivery.usable()
    }

    async fn ack(self: Box<Self>) -> bool {
        // `Ok(false)` is not an error to lapin: the channel is gone and the message will come again.
        matches!(self.delivery.ack(BasicAckOptions::default()).await, Ok(true))
    }
}
