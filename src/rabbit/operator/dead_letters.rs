//! The queue of parked messages, walked once from its head: each message is acknowledged, or left in its place.
//!
//! A walk consumes messages and returns them when it ends: AMQP has no other way to inspect a queue. Messages left in
//! place stay unacknowledged at the broker meanwhile, so this process need not remember them. RabbitMQ counts each
//! return, whatever its cause (closing the channel or the connection, a lost connection, a nack: all measured), and
//! from 4.0 on drops a message at its 21st delivery, unless the queue sets another limit; `okta.dead` does not, and
//! arguments of a queue cannot be changed. So the walk reports how often a message was returned, and a caller that
//! leaves a message in place must renew it in time.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions,
};
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Connection, Consumer};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::domain::message::{Properties, Publish, Published, Unpublished};
use crate::domain::topology::DEAD;
use crate::event::Observer;
use crate::worker::ports::Outbox as _;

use crate::rabbit::BrokerSettings;
use crate::rabbit::client::blocked::Blocked;
use crate::rabbit::client::connect::{BrokerNodes, close, explain};
use crate::rabbit::client::declare::{is_missing, look};
use crate::rabbit::client::publisher::Publisher;

/// The prefetch of one consumer. A consumer that holds this many messages is replaced, because they stay
/// unacknowledged; it also bounds the bodies in memory.
const BATCH: u16 = 64;

/// The time without a delivery after which the queue is checked for messages.
const QUIET: Duration = Duration::from_secs(1);

/// The longest time without a delivery while the queue has messages.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// The timeout for an answer of the broker.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// The time to wait for the broker to requeue returned messages: 100,000 take a few seconds.
const GIVEN_BACK_MAX: Duration = Duration::from_secs(10);

/// The interval at which the queue is checked for them.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// The time after which a walk should begin anew: RabbitMQ closes a channel whose messages are unacknowledged for half
/// an hour.
const WALK_MAX: Duration = Duration::from_secs(10 * 60);

/// The queue of parked messages, with a publisher for the copies that replace them.
pub struct DeadLetters {
    sorting: Connection,
    channel: Channel,
    consumer: Option<Consumer>,
    /// Deliveries that a consumer had received before it was cancelled.
    early: VecDeque<lapin::message::Delivery>,
    /// The number of messages of this consumer left in place.
    left_of_consumer: u16,
    /// The number of messages of all consumers left in place.
    left_in_place: u32,
    /// The tag of the last delivery.
    last: u64,
    /// The tags of the last deliveries of earlier consumers.
    batches: Vec<u64>,
    /// The number of messages still to see.
    ahead: u32,
    began: Instant,
    publisher: Arc<Publisher>,
    leave: CancellationToken,
}

/// A parked message.
pub struct DeadLetter {
    /// The properties.
    pub properties: Properties,
    /// The body, unchanged.
    pub body: Bytes,
    /// The right to settle the message.
    pub slip: DeadLetterHandle,
}

/// The right to remove one message from the queue.
pub struct DeadLetterHandle {
    /// The delivery without its body.
    delivery: lapin::message::Delivery,
    /// A handle that keeps the channel open: lapin closes a channel with its last handle.
    _channel: Channel,
}

impl DeadLetterHandle {
    /// Removes the message; returns false if that failed and the message stays.
    pub async fn take_off(self) -> bool {
        matches!(timeout(ANSWER_MAX, self.delivery.ack(BasicAckOptions::default())).await, Ok(Ok(true)))
    }
}

impl DeadLetters {
    /// Connects, and starts a walk at the first message.
    ///
    /// # Errors
    /// A description of the failure, if the broker cannot be reached or the queue may not be read.
    pub async fn open(settings: &BrokerSettings, observer: &Arc<dyn Observer>) -> Result<Self, String> {
        let nodes = BrokerNodes::new(settings).map_err(|ended| ended.to_string())?;
        let failed = |why: String| nodes.unreached(&why);
        let sorting = nodes.connect_mending("sorting").await.map_err(failed)?;
        let leave = CancellationToken::new();
        let publisher = Arc::new(Publisher::new(leave.clone()));
        let publishing = nodes.connect("putting back").await.map_err(failed)?;
        let (blocked, fault) = (Blocked::new(observer), Arc::new(Notify::new()));
        tokio::spawn(blocked.clone().follow(publishing.events_listener(), |_| {}));
        publisher.attach(publishing, blocked, Arc::clone(&fault));
        let (lost, leaving) = (Arc::clone(&publisher), leave.clone());
        tokio::spawn(async move {
            fault.notified().await;
            leaving.cancel();
            lost.detach().await;
        });
        let (channel, ahead) = Self::walk(&sorting).await?;
        Ok(Self {
            sorting,
            channel,
            consumer: None,
            early: VecDeque::new(),
            left_of_consumer: 0,
            left_in_place: 0,
            last: 0,
            batches: Vec::new(),
            ahead,
            began: Instant::now(),
            publisher,
            leave,
        })
    }

    /// Opens a channel for a walk, and counts the messages.
    async fn walk(connection: &Connection) -> Result<(Channel, u32), String> {
        let walk = async {
            let channel = connection.create_channel().await?;
            channel.basic_qos(BATCH, BasicQosOptions::default()).await?;
            let queue = look(&channel, DEAD).await?;
            lapin::Result::Ok((channel, queue.message_count()))
        };
        match within(walk).await? {
            Ok(walk) => Ok(walk),
            Err(error) if is_missing(&error) => {
                Err(format!("there is no queue `{DEAD}` yet: `okta-worker run` declares it"))
            }
            Err(error) => Err(explain(&error)),
        }
    }

    /// Returns the next message; `None` at the message that was the last when the walk began.
    ///
    /// # Errors
    /// A description of the failure, if the broker delivers no more messages.
    pub async fn next(&mut self) -> Result<Option<DeadLetter>, String> {
        let mut silent = Duration::ZERO;
        while self.ahead > 0 {
            if self.left_of_consumer == BATCH {
                self.cancel().await?;
            }
            let Some(delivery) = self.deliver().await? else {
                silent += QUIET;
                // Another process may be walking the queue too, and messages may have expired.
                let queue = within(look(&self.channel, DEAD)).await?.map_err(|error| explain(&error))?;
                if queue.message_count() == 0 {
                    break;
                }
                if silent >= SILENCE_MAX {
                    return Err(format!("the broker does not deliver the messages in `{DEAD}`"));
                }
                self.cancel().await?; // its prefetch may be full
                continue;
            };
            self.ahead -= 1;
            return Ok(Some(self.found(delivery)));
        }
        self.ahead = 0;
        Ok(None)
    }

    /// Returns the next delivery, if one arrives within a moment.
    async fn deliver(&mut self) -> Result<Option<lapin::message::Delivery>, String> {
        if let Some(early) = self.early.pop_front() {
            return Ok(Some(early));
        }
        let consumer = match &mut self.consumer {
            Some(consumer) => consumer,
            None => {
                let (queue, tag) = (ShortString::from(DEAD), ShortString::default());
                let options = BasicConsumeOptions::default();
                let consume = self.channel.basic_consume(queue, tag, options, FieldTable::default());
                let consumer = within(consume).await?.map_err(|error| explain(&error))?;
                self.consumer.insert(consumer)
            }
        };
        match timeout(QUIET, consumer.next()).await {
            Err(_) => Ok(None),
            Ok(Some(Ok(delivery))) => Ok(Some(delivery)),
            Ok(Some(Err(error))) => Err(explain(&error)),
            Ok(None) => Err("the broker has taken the messages back".to_owned()),
        }
    }

    fn found(&mut self, mut delivery: lapin::message::Delivery) -> DeadLetter {
        self.last = delivery.delivery_tag;
        DeadLetter {
            properties: crate::rabbit::client::convert::properties_in(&delivery.properties),
            body: Bytes::from(std::mem::take(&mut delivery.data)),
            slip: DeadLetterHandle { delivery, _channel: self.channel.clone() },
        }
    }

    /// Leaves a message in place until the walk ends.
    pub fn leave_alone(&mut self, slip: DeadLetterHandle) {
        self.left_of_consumer += 1;
        self.left_in_place += 1;
        drop(slip);
    }

    /// Cancels the consumer, whose prefetch may be full; another consumer continues.
    async fn cancel(&mut self) -> Result<(), String> {
        self.left_of_consumer = 0;
        let Some(mut consumer) = self.consumer.take() else { return Ok(()) };
        let cancelled = self.channel.basic_cancel(consumer.tag(), BasicCancelOptions::default());
        within(cancelled).await?.map_err(|error| explain(&error))?;
        while let Some(Ok(delivery)) = consumer.next().await {
            self.last = delivery.delivery_tag;
            self.early.push_back(delivery);
        }
        self.batches.push(self.last);
        Ok(())
    }

    /// Returns true if it is time to return the messages left in place and to begin another walk.
    pub fn is_due(&self) -> bool {
        self.began.elapsed() >= WALK_MAX
    }

    /// Returns the messages left in place to the queue, and starts a new walk at the first message.
    ///
    /// # Errors
    /// A description of the failure, if the broker does not answer or refuses.
    pub async fn begin_again(&mut self) -> Result<(), String> {
        self.give_back().await;
        (self.channel, self.ahead) = Self::walk(&self.sorting).await?;
        self.began = Instant::now();
        Ok(())
    }

    /// Requeues the messages of one consumer after the other, the oldest first: when a channel closes, the broker
    /// requeues the messages of its consumers in any order. Each return counts as a delivery in both cases. Of many
    /// thousands of messages only parts keep their order, because the broker also requeues deferred messages in any
    /// order. Then closes the channel, after every acknowledgement on it.
    async fn give_back(&mut self) {
        let is_cancelled = self.cancel().await.is_ok();
        let back = self.left_in_place.saturating_add(u32::try_from(self.early.len()).unwrap_or(u32::MAX));
        self.early.clear();
        self.left_in_place = 0;
        for last in std::mem::take(&mut self.batches).into_iter().filter(|last| is_cancelled && *last > 0) {
            let options = BasicNackOptions { multiple: true, requeue: true };
            let _ = timeout(ANSWER_MAX, self.channel.basic_nack(last, options)).await;
        }
        self.last = 0;
        // The broker needs some time, and another reader would meanwhile find an empty queue.
        let there = async || look(&self.channel, DEAD).await.map(|queue| queue.message_count());
        let given_back = async {
            while there().await.is_ok_and(|count| count < back) {
                sleep(LOOK_AGAIN).await;
            }
        };
        let _ = timeout(GIVEN_BACK_MAX, given_back).await;
        let _ = timeout(ANSWER_MAX, self.channel.close(200, "done".into())).await;
    }

    /// Publishes a message, and waits until the broker has it.
    ///
    /// # Errors
    /// If the connection is lost; the outcome is then unknown.
    pub async fn post(&self, post: &Publish) -> Result<Published, Unpublished> {
        self.publisher.post(post).await
    }

    /// Returns the publisher, for publishing several messages at once.
    pub fn publisher(&self) -> Arc<Publisher> {
        Arc::clone(&self.publisher)
    }

    /// Returns true if a queue exists.
    ///
    /// # Errors
    /// If the broker does not answer.
    pub async fn has_queue(&self, name: &str) -> Result<bool, String> {
        let found = async {
            let channel = self.sorting.create_channel().await?; // a missing queue closes it
            look(&channel, name).await
        };
        match within(found).await? {
            Ok(_) => Ok(true),
            Err(error) if is_missing(&error) => Ok(false),
            Err(error) => Err(explain(&error)),
        }
    }

    /// Returns the messages left in place to the queue, and disconnects.
    pub async fn close(mut self) {
        self.give_back().await;
        self.leave.cancel();
        self.publisher.detach().await;
        close(&self.sorting).await;
    }
}

async fn within<T>(asked: impl Future<Output = T>) -> Result<T, String> {
    timeout(ANSWER_MAX, asked).await.map_err(|_| "the broker does not answer".to_owned())
}
