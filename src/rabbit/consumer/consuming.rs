//! The consumer of one queue: each delivery becomes a task, as long as memory permits.
//!
//! While the inbox does not want messages of the queue, its consumer is cancelled; the channel stays open. After an
//! orderly cancel, the consumer also hands over the deliveries that the client library still holds: they would
//! reach no other consumer before the channel closes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt as _;
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions,
};
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Connection, Consumer};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::domain::message::{Delivery, Receipt, Source};
use crate::domain::topology::source_queue;
use crate::worker::ports::{Inbox, becomes};

use super::restoring::Restoring;
use crate::rabbit::client::convert::properties_in;
use crate::rabbit::client::error::SessionEnd;

/// The unit in which messages are counted against the memory limit; a small one counts as one piece.
pub(in crate::rabbit) const HELD_PIECE_BYTES: usize = 1024;

/// The most pieces of the memory limit that one message takes, so that a huge message cannot wait for ever: the worker
/// refuses it for its size when it parses it.
const HELD_PIECES_MAX: usize = 1024;

/// The timeout for cancelling a consumer.
const CANCEL_MAX: Duration = Duration::from_secs(10);

/// The count of messages in flight, of all or of a part of them.
#[derive(Default)]
pub(in crate::rabbit) struct InFlight {
    count: AtomicUsize,
    changed: Notify,
    whole: Option<Arc<InFlight>>,
}

impl InFlight {
    /// Creates a count for a part of these messages, which the whole counts as well.
    pub fn part_of(whole: &Arc<Self>) -> Arc<Self> {
        Arc::new(Self { whole: Some(Arc::clone(whole)), ..Self::default() })
    }

    pub fn count(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// Waits until no message is in flight.
    pub async fn finished(&self) {
        loop {
            let changed = self.changed.notified();
            if self.count() == 0 {
                return;
            }
            changed.await;
        }
    }

    fn enter(self: &Arc<Self>) -> ConsumedGuard {
        let mut current = Some(self);
        while let Some(in_flight) = current {
            in_flight.count.fetch_add(1, Ordering::AcqRel);
            current = in_flight.whole.as_ref();
        }
        ConsumedGuard(Arc::clone(self))
    }
}

/// A guard that counts a message out when its task ends or panics.
struct ConsumedGuard(Arc<InFlight>);

impl Drop for ConsumedGuard {
    fn drop(&mut self) {
        let mut current = Some(&self.0);
        while let Some(in_flight) = current {
            in_flight.count.fetch_sub(1, Ordering::AcqRel);
            in_flight.changed.notify_waiters();
            current = in_flight.whole.as_ref();
        }
    }
}

/// The resources that consumers share.
#[derive(Clone)]
pub(in crate::rabbit) struct Means {
    /// The receiver of the messages.
    pub inbox: Arc<dyn Inbox>,
    /// The limit of unacknowledged messages per queue.
    pub prefetch: u16,
    /// The memory budget of all queues together.
    pub held: Arc<Semaphore>,
    /// The messages in flight.
    pub in_flight: Arc<InFlight>,
}

impl Means {
    /// Returns the same resources with a separate count of messages in flight.
    pub fn part(&self) -> Self {
        Self { in_flight: InFlight::part_of(&self.in_flight), ..self.clone() }
    }
}

/// The reason that a consumer stopped handing over messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StopReason {
    /// The consumer was told to halt.
    Halted,
    /// The inbox does not want messages now.
    Unwanted,
    /// The queue was deleted.
    Deleted,
}

/// One queue, consumed while its messages are wanted.
pub(in crate::rabbit) struct Consuming {
    source: Source,
    channel: Channel,
    means: Means,
    wanted: watch::Receiver<bool>,
    consumer: Option<Consumer>,
    /// Declares the queue again if it was deleted; without it, a deleted queue ends the generation.
    restoring: Option<Arc<Restoring>>,
    /// Turns false when deliveries can no longer be acknowledged.
    is_live: watch::Sender<bool>,
    has_ended_in_order: bool,
}

impl Consuming {
    /// Begins to consume a queue on a channel of its own, if its messages are wanted now.
    ///
    /// # Errors
    /// If the connection fails.
    pub async fn begin(
        connection: &Connection,
        source: &Source,
        means: &Means,
        restoring: Option<Arc<Restoring>>,
    ) -> Result<Self, SessionEnd> {
        let channel = connection.create_channel().await.map_err(SessionEnd::unreachable)?;
        channel
            .basic_qos(means.prefetch, BasicQosOptions::default())
            .await
            .map_err(SessionEnd::unreachable)?;
        let mut begun = Self {
            source: source.clone(),
            channel,
            means: means.part(),
            wanted: means.inbox.wants(source),
            consumer: None,
            restoring,
            is_live: watch::Sender::new(true),
            has_ended_in_order: false,
        };
        if *begun.wanted.borrow() {
            begun.consume().await?;
        }
        Ok(begun)
    }

    async fn consume(&mut self) -> Result<(), SessionEnd> {
        let (queue, tag) = (ShortString::from(source_queue(&self.source)), ShortString::default());
        let options = BasicConsumeOptions::default();
        let consumer = self.channel.basic_consume(queue, tag, options, FieldTable::default()).await;
        self.consumer = Some(consumer.map_err(SessionEnd::unreachable)?);
        Ok(())
    }

    /// Hands each delivery to a task of its own until told to halt.
    ///
    /// # Errors
    /// If the consumer ends without being told to halt.
    pub async fn run(mut self, halt: CancellationToken) -> Result<(), SessionEnd> {
        loop {
            match self.hand_over_all(&halt).await? {
                StopReason::Halted => break,
                StopReason::Deleted => self.restore(&halt).await?,
                StopReason::Unwanted => self.cancel().await?,
            }
            tokio::select! {
                biased;
                () = halt.cancelled() => break,
                () = becomes(&mut self.wanted, true) => self.consume().await?,
            }
        }
        self.cancel().await?;
        self.has_ended_in_order = true;
        Ok(())
    }

    /// Hands over deliveries until there is a reason to stop.
    async fn hand_over_all(&mut self, halt: &CancellationToken) -> Result<StopReason, SessionEnd> {
        while let Some(consumer) = &mut self.consumer {
            let next = tokio::select! {
                biased;
                () = halt.cancelled() => return Ok(StopReason::Halted),
                () = becomes(&mut self.wanted, false) => return Ok(StopReason::Unwanted),
                next = consumer.next() => next,
            };
            match next {
                Some(Ok(delivery)) => self.hand_over(delivery).await,
                // The broker has cancelled the consumer, and the channel is still open.
                None if self.restoring.is_some() && self.channel.status().connected() => {
                    return Ok(StopReason::Deleted);
                }
                Some(Err(error)) => return Err(self.ended(&error.to_string())),
                None => return Err(SessionEnd::Lost("a consumer ended")),
            }
        }
        Ok(StopReason::Unwanted)
    }

    /// Declares the queue again; messages in hand stay in hand.
    async fn restore(&mut self, halt: &CancellationToken) -> Result<(), SessionEnd> {
        self.consumer = None;
        match &self.restoring {
            Some(restoring) => restoring.restore(&self.source, self.means.in_flight.count(), halt).await,
            None => Ok(()),
        }
    }

    /// Returns the reason for the end of the generation after the broker has ended a consumer.
    fn ended(&self, why: &str) -> SessionEnd {
        match consumer_timeout_in(why) {
            Some(most) => {
                self.means.inbox.hold_at_most(most);
                SessionEnd::Lost(
                    "the broker took back a message that was in hand for longer than its `consumer_timeout`",
                )
            }
            None => SessionEnd::Lost("a consumer ended"),
        }
    }

    /// Cancels the consumer, and hands over the deliveries received by then.
    async fn cancel(&mut self) -> Result<(), SessionEnd> {
        let Some(mut consumer) = self.consumer.take() else { return Ok(()) };
        let cancelled = self.channel.basic_cancel(consumer.tag(), BasicCancelOptions::default());
        if !matches!(timeout(CANCEL_MAX, cancelled).await, Ok(Ok(()))) {
            return Err(SessionEnd::Lost("a consumer cannot be cancelled"));
        }
        while let Some(Ok(delivery)) = consumer.next().await {
            self.hand_over(delivery).await;
        }
        Ok(())
    }

    async fn hand_over(&self, delivery: lapin::message::Delivery) {
        let pieces = (delivery.data.len() / HELD_PIECE_BYTES + 1).min(HELD_PIECES_MAX);
        let memory = Arc::clone(&self.means.held)
            .acquire_many_owned(u32::try_from(pieces).expect("bounded above"))
            .await
            .expect("the semaphore is never closed");
        let counted = self.means.in_flight.enter();
        // Called in the order of delivery, so that the inbox notes the message's place in it; then the task starts.
        let taken = Arc::clone(&self.means.inbox).take(self.delivery(delivery));
        tokio::spawn(async move {
            taken.await;
            drop((memory, counted));
        });
    }

    fn delivery(&self, mut delivery: lapin::message::Delivery) -> Delivery {
        Delivery {
            properties: properties_in(&delivery.properties),
            body: Bytes::from(std::mem::take(&mut delivery.data)),
            exchange: delivery.exchange.to_string(),
            routing_key: delivery.routing_key.to_string(),
            source: self.source.clone(),
            redelivered: delivery.redelivered,
            receipt: Box::new(DeliveryTag {
                delivery: Some(delivery),
                is_live: self.is_live.subscribe(),
                channel: self.channel.clone(),
            }),
        }
    }
}

impl Drop for Consuming {
    fn drop(&mut self) {
        if !self.has_ended_in_order {
            self.is_live.send_replace(false);
        }
    }
}

/// Returns the broker's `consumer_timeout` if it has closed a channel for it. RabbitMQ 3.10 and 4.0 state it in a text:
/// "delivery acknowledgement on channel 2 timed out. Timeout value used: 60000 ms."
fn consumer_timeout_in(why: &str) -> Option<Duration> {
    let (_, after) = why.split_once("Timeout value used: ")?;
    let millis = after.split(|c: char| !c.is_ascii_digit()).next()?;
    millis.parse().ok().map(Duration::from_millis)
}

/// The interval at which a waiting message checks that it can still be acknowledged.
const POLL_EVERY: Duration = Duration::from_secs(1);

/// The timeout for lapin to write an acknowledgement to the socket.
const SETTLED_MAX: Duration = Duration::from_secs(5);

/// The right to acknowledge one delivery.
struct DeliveryTag {
    /// The delivery without its body: it holds lapin's acker, which has no public name. `None` after the
    /// acknowledgement.
    delivery: Option<lapin::message::Delivery>,
    is_live: watch::Receiver<bool>,
    /// lapin closes a channel with its last handle, and deliveries on it can then not be acknowledged: while the
    /// worker drains, this is the only handle left.
    channel: Channel,
}

#[async_trait]
impl Receipt for DeliveryTag {
    fn is_live(&self) -> bool {
        *self.is_live.borrow() && self.delivery.as_ref().is_some_and(|it| it.usable())
    }

    async fn gone(&self) {
        let mut is_live = self.is_live.clone();
        loop {
            // A channel that closes while it has no consumer gives no notice, so its state is polled.
            let told = async { is_live.wait_for(|is_live| !is_live).await.is_ok() };
            match timeout(POLL_EVERY, told).await {
                Ok(true) => return,
                Ok(false) => sleep(POLL_EVERY).await,
                Err(_) => {}
            }
            if !self.is_live() {
                return;
            }
        }
    }

    async fn ack(mut self: Box<Self>) -> bool {
        let Some(delivery) = self.delivery.take() else { return false };
        // `Ok(false)` is not an error to lapin: the channel is gone and the message will be redelivered. If the
        // connection breaks at that very moment, lapin never returns.
        let acknowledged = timeout(SETTLED_MAX, delivery.ack(BasicAckOptions::default())).await;
        matches!(acknowledged, Ok(Ok(true)))
    }
}

/// Requeues the message after an uncaught panic, which ends the task but not the channel. The redelivery rightly counts
/// as a failed delivery.
impl Drop for DeliveryTag {
    fn drop(&mut self) {
        let Some(delivery) = self.delivery.take().filter(|_| std::thread::panicking()) else { return };
        let (options, channel) =
            (BasicNackOptions { requeue: true, ..Default::default() }, self.channel.clone());
        tokio::spawn(async move {
            let _ = timeout(SETTLED_MAX, delivery.nack(options)).await;
            drop(channel);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_brokers_timeout_is_read_from_its_words() {
        let rows = [
            (
                "PRECONDITION_FAILED - delivery acknowledgement on channel 2 timed out. Timeout value used: 60000 ms. \
                 This timeout value can be configured, see consumers doc guide to learn more",
                Some(60_000),
            ),
            ("Timeout value used: soon", None),
            ("PRECONDITION_FAILED - unknown delivery tag 7", None),
        ];
        for (why, expected) in rows {
            assert_eq!(consumer_timeout_in(why), expected.map(Duration::from_millis), "{why}");
        }
    }
}
