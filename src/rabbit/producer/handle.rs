//! A producer's side of the broker: a [`Publisher`] sends invocations, and their results arrive in a durable queue
//! that the producer declares.
//!
//! The producer has two connections, like a worker, and rebuilds them together in the same way: the broker then
//! redelivers unacknowledged results. This file knows nothing of the content of invocations and results.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt as _;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Connection, Consumer};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::domain::message::Receipt;
use crate::domain::topology::{QueueDefinition, Topology};
use crate::event::Observer;

use crate::rabbit::BrokerSettings;
use crate::rabbit::client::blocked::Blocked;
use crate::rabbit::client::connect::{BrokerNodes, close, explain};
use crate::rabbit::client::declare::{DECLARE_TIMEOUT, declare, is_missing, look};
use crate::rabbit::client::publisher::Publisher;

/// The prefetch of results. Most are small, and one has a few MiB at most.
const PREFETCH: u16 = 128;

/// The time for which the broker may still list a consumer that died.
const OTHER_READER_MAX: Duration = Duration::from_secs(10);

/// The interval at which the queue is checked for that consumer.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// The timeout for leaving.
const CLOSE_MAX: Duration = Duration::from_secs(3);

/// The timeout for lapin to write an acknowledgement to the socket.
const SETTLED_MAX: Duration = Duration::from_secs(5);

/// A received result.
pub struct ReceivedResult {
    /// The body.
    pub body: Bytes,
    /// Acknowledges this result and every earlier one.
    pub receipt: Box<dyn Receipt>,
}

/// The reason that the producer cannot be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unopened {
    /// The queue that should hold results does not exist any more.
    #[error("the queue `{0}`, where results are expected, no longer exists")]
    Missing(String),
    /// The broker cannot be reached or refuses, or another process reads the queue.
    #[error("{0}")]
    Failed(String),
}

impl From<String> for Unopened {
    fn from(why: String) -> Self {
        Self::Failed(why)
    }
}

/// The producer's handle: it publishes invocations and receives results.
pub struct Producer {
    /// The publisher of invocations.
    pub publisher: Arc<Publisher>,
    /// The results in order of arrival.
    pub replies: mpsc::Receiver<ReceivedResult>,
    /// The number of results that waited when the producer was opened.
    pub waiting: u32,
    task: JoinHandle<()>,
    leave: CancellationToken,
}

impl Producer {
    /// Connects, and declares the queue. With `must_be_there`, a missing queue is an error, because it should hold
    /// results.
    ///
    /// # Errors
    /// If the broker cannot be reached, refuses, or lacks that queue, or if another process reads it.
    pub async fn open(
        settings: &BrokerSettings,
        queue: QueueDefinition,
        must_be_there: bool,
        observer: Arc<dyn Observer>,
    ) -> Result<Self, Unopened> {
        let leave = CancellationToken::new();
        let nodes = BrokerNodes::new(settings).map_err(|ended| ended.to_string())?;
        let publisher = Arc::new(Publisher::new(leave.clone()));
        let producer_task =
            ProducerTask { nodes, queue, observer, publisher: Arc::clone(&publisher), leave: leave.clone() };
        let waiting = producer_task.wait_for_exclusive(must_be_there).await?;
        let generation = producer_task.connect().await?;
        let (results, replies) = mpsc::channel(1);
        let task = tokio::spawn(producer_task.keep(generation, results));
        Ok(Self { publisher, replies, waiting, task, leave })
    }

    /// Closes the connections in order, as far as the broker answers.
    pub async fn close(&mut self) {
        self.leave.cancel();
        let _ = timeout(CLOSE_MAX, &mut self.task).await;
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The task that keeps the connections up.
struct ProducerTask {
    nodes: BrokerNodes,
    queue: QueueDefinition,
    publisher: Arc<Publisher>,
    observer: Arc<dyn Observer>,
    leave: CancellationToken,
}

/// One generation of the connections.
struct ProducerSession {
    connection: Connection,
    channel: Channel,
    consumer: Consumer,
    fault: Arc<Notify>,
}

impl ProducerTask {
    /// Waits until no other process reads the queue, and returns the number of results waiting in it.
    async fn wait_for_exclusive(&self, must_be_there: bool) -> Result<u32, Unopened> {
        let failed = |why: String| Unopened::Failed(self.nodes.unreached(&why));
        let connection = self.nodes.connect("looking").await.map_err(failed)?;
        let name = &*self.queue.name;
        let mut tries = OTHER_READER_MAX.as_millis() / LOOK_AGAIN.as_millis();
        let found = loop {
            let channel = connection.create_channel().await.map_err(|error| failed(error.to_string()))?;
            match timeout(DECLARE_TIMEOUT, look(&channel, name)).await {
                Ok(Ok(queue)) if queue.consumer_count() == 0 => break Ok(queue.message_count()),
                Ok(Ok(_)) if tries == 0 => {
                    break Err(Unopened::Failed(self.read_by_another()));
                }
                Ok(Ok(_)) => {}
                Ok(Err(error)) if !is_missing(&error) => break Err(failed(explain(&error))),
                Ok(Err(_)) if must_be_there => break Err(Unopened::Missing(name.to_owned())),
                Ok(Err(_)) => break Ok(0),
                Err(_) => break Err(failed("it does not answer".to_owned())),
            }
            tries -= 1;
            sleep(LOOK_AGAIN).await;
        };
        close(&connection).await;
        found
    }

    fn read_by_another(&self) -> String {
        format!("another process still reads the results in the queue `{}`", self.queue.name)
    }

    /// Explains why the queue cannot be read. RabbitMQ refuses a second consumer beside an exclusive one, and an
    /// exclusive one beside any other.
    fn unread(&self, error: &lapin::Error) -> String {
        let said = error.to_string();
        if said.contains("in exclusive use") { self.read_by_another() } else { said }
    }

    /// Opens a new generation.
    async fn connect(&self) -> Result<ProducerSession, String> {
        let generation = timeout(DECLARE_TIMEOUT, async {
            let connection = self.nodes.connect("collecting").await?;
            let channel = connection.create_channel().await.map_err(|error| error.to_string())?;
            let topology = Topology { exchanges: Vec::new(), queues: vec![self.queue.clone()] };
            declare(&channel, &topology, false).await.map_err(|undeclared| undeclared.to_string())?;
            let consumer = consume(&channel, &self.queue.name).await.map_err(|error| self.unread(&error))?;
            let publishing = self.nodes.connect("submitting").await?;
            let (blocked, fault) = (Blocked::new(&self.observer), Arc::new(Notify::new()));
            tokio::spawn(blocked.clone().follow(publishing.events_listener(), |_| {}));
            self.publisher.attach(publishing, blocked, Arc::clone(&fault));
            Ok(ProducerSession { connection, channel, consumer, fault })
        });
        generation.await.unwrap_or_else(|_| Err("the broker does not answer".to_owned()))
    }

    /// Hands over results, one generation after the other, until the producer leaves.
    async fn keep(self, mut generation: ProducerSession, results: mpsc::Sender<ReceivedResult>) {
        loop {
            let ended = tokio::select! {
                ended = generation.serve(&results) => ended,
                () = self.leave.cancelled() => None,
            };
            self.publisher.detach().await;
            close(&generation.connection).await;
            let Some(why) = ended else { return };
            generation = self.nodes.reconnect(why, &self.observer, || self.connect()).await;
        }
    }
}

impl ProducerSession {
    /// Hands over results until one of the connections may have failed, and returns the reason; `None` if the receiver
    /// is dropped.
    async fn serve(&mut self, results: &mpsc::Sender<ReceivedResult>) -> Option<String> {
        loop {
            let next = tokio::select! {
                next = self.consumer.next() => next,
                () = self.fault.notified() => return Some("failed to publish".to_owned()),
            };
            let Some(Ok(mut delivery)) = next else { return Some("the queue of results ended".to_owned()) };
            let body = Bytes::from(std::mem::take(&mut delivery.data));
            let receipt = Box::new(CumulativeReceipt { delivery, _channel: self.channel.clone() });
            results.send(ReceivedResult { body, receipt }).await.ok()?;
        }
    }
}

async fn consume(channel: &Channel, queue: &str) -> lapin::Result<Consumer> {
    channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
    let (queue, tag) = (ShortString::from(queue), ShortString::default());
    // Two consumers would each get some of the results and wait for the rest.
    let alone = BasicConsumeOptions { exclusive: true, ..BasicConsumeOptions::default() };
    channel.basic_consume(queue, tag, alone, FieldTable::default()).await
}

/// The receipt of a result and all results before it.
struct CumulativeReceipt {
    /// The delivery without its body.
    delivery: lapin::message::Delivery,
    /// A handle that keeps the channel open: lapin closes a channel with its last handle.
    _channel: Channel,
}

#[async_trait]
impl Receipt for CumulativeReceipt {
    fn is_live(&self) -> bool {
        self.delivery.usable()
    }

    async fn ack(self: Box<Self>) -> bool {
        let all = BasicAckOptions { multiple: true };
        matches!(timeout(SETTLED_MAX, self.delivery.ack(all)).await, Ok(Ok(true)))
    }
}
