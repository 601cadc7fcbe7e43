//! The two transports to a worker: RabbitMQ to another process, and a queue inside this one.
//!
//! One difference matters. A row that RabbitMQ has confirmed is done even if this process ends; a row in the
//! in-process queue is lost with it, so it is in doubt until its result is written.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::config::Config;
use crate::domain::ids::ConnectionName;
use crate::domain::message::{Address, Publish, Receipt};
use crate::domain::topology::reply_queue;
use crate::embedded::broker::Broker;
use crate::event::Observer;
use crate::rabbit::{Offered, Producer, Publisher, ReceivedResult, Unopened};

use crate::cli::exit::NotBegun;
use crate::cli::in_process::InProcessWorker;

/// The most rows in the broker without a result: enough that workers never run out of rows, and few enough that
/// stopping a job takes effect.
const WINDOW: u64 = 1000;

/// The time that a stopping job waits for results that are about to arrive.
const GRACE: Duration = Duration::from_secs(2);

/// The same time if stopping would interrupt the work itself.
const GRACE_INSIDE: Duration = Duration::from_secs(10);

/// The queue for results inside the process.
const REPLIES: &str = "results";

/// The outcome of handing over a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Handed {
    /// It will be done even if this process ends.
    Kept,
    /// It will be done if this process lives.
    Taken,
    /// It was not accepted, with the reason.
    Refused(String),
    /// The outcome is unknown.
    Unclear,
}

/// A receiver of rows.
#[async_trait]
pub(super) trait Out: Send + Sync {
    /// Hands over one row.
    async fn hand_over(&self, post: &Publish) -> Handed;
}

#[async_trait]
impl Out for Publisher {
    async fn hand_over(&self, post: &Publish) -> Handed {
        match self.offer(post).await {
            Offered::Confirmed => Handed::Kept,
            Offered::Refused(why) => Handed::Refused(why),
            Offered::Unclear => Handed::Unclear,
        }
    }
}

#[async_trait]
impl Out for Broker {
    async fn hand_over(&self, post: &Publish) -> Handed {
        if let Address::Exchange(_, key) = &post.to {
            self.publish(key, post.properties.clone(), post.body.clone());
        }
        Handed::Taken
    }
}

/// A transport to a worker and back.
#[async_trait]
pub(super) trait Transport: Send {
    /// Returns the receiver of rows.
    fn out(&self) -> Arc<dyn Out>;

    /// Returns the reply queue for results: the one of the job, or an internal one.
    fn reply_to(&self, queue: String) -> String;

    /// Waits for the next result; `None` if no more will come. Cancel-safe: a dropped call loses no result.
    async fn next(&mut self) -> Option<ReceivedResult>;

    /// Returns the number of results that waited when the transport was opened.
    fn waiting(&self) -> u32;

    /// Returns the most rows that may be without a result.
    fn window(&self) -> u64;

    /// Returns the time that a stopping job waits.
    fn grace(&self) -> Duration;

    /// Returns the fate of rows when this process ends.
    fn fate(&self) -> Fate;

    /// Disconnects in order.
    async fn close(&mut self);
}

/// The fate of rows that were handed over when this process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// They stay in their queue, and workers process them.
    Stay,
    /// They are lost.
    End,
}

/// Opens the transport through RabbitMQ. With `must_be_there`, a missing queue for results is an error.
pub(super) async fn broker(
    config: &Config,
    queue: &str,
    must_be_there: bool,
    observer: Arc<dyn Observer>,
) -> Result<Box<dyn Transport>, Unopened> {
    let counter = Producer::open(&config.broker, reply_queue(queue), must_be_there, observer).await?;
    Ok(Box::new(Outside(counter)))
}

/// Opens the transport inside the process, to one connection.
pub(super) fn inside(
    config: &Config,
    connection: &ConnectionName,
    observer: Arc<dyn Observer>,
) -> Result<Box<dyn Transport>, NotBegun> {
    let worker = InProcessWorker::of_connection(config, connection, REPLIES, observer)?;
    Ok(Box::new(EmbeddedTransport { worker, prefetch: usize::from(config.broker.prefetch) }))
}

/// The transport to workers behind RabbitMQ.
struct Outside(Producer);

#[async_trait]
impl Transport for Outside {
    fn out(&self) -> Arc<dyn Out> {
        Arc::<Publisher>::clone(&self.0.publisher)
    }

    fn reply_to(&self, queue: String) -> String {
        queue
    }

    async fn next(&mut self) -> Option<ReceivedResult> {
        self.0.replies.recv().await
    }

    fn waiting(&self) -> u32 {
        self.0.waiting
    }

    fn window(&self) -> u64 {
        WINDOW
    }

    fn grace(&self) -> Duration {
        GRACE
    }

    fn fate(&self) -> Fate {
        Fate::Stay
    }

    async fn close(&mut self) {
        self.0.close().await;
    }
}

/// The transport to a worker in this process.
struct EmbeddedTransport {
    worker: InProcessWorker,
    prefetch: usize,
}

#[async_trait]
impl Transport for EmbeddedTransport {
    fn out(&self) -> Arc<dyn Out> {
        Arc::<Broker>::clone(&self.worker.broker)
    }

    fn reply_to(&self, _: String) -> String {
        REPLIES.to_owned()
    }

    async fn next(&mut self) -> Option<ReceivedResult> {
        let body = self.worker.broker.take(REPLIES).await.body;
        Some(ReceivedResult { body, receipt: Box::new(Gone) })
    }

    fn waiting(&self) -> u32 {
        0
    }

    fn window(&self) -> u64 {
        self.prefetch as u64
    }

    fn grace(&self) -> Duration {
        GRACE_INSIDE
    }

    fn fate(&self) -> Fate {
        Fate::End
    }

    async fn close(&mut self) {}
}

/// The receipt of a result inside the process, which has already left its queue.
struct Gone;

#[async_trait]
impl Receipt for Gone {
    fn is_live(&self) -> bool {
        true
    }

    async fn ack(self: Box<Self>) -> bool {
        true
    }
}
