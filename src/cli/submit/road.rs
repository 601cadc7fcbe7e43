//! The two roads to a worker: RabbitMQ, where it is another process, and a queue inside this one.
//!
//! They differ in one thing that matters. What RabbitMQ has confirmed is done even if this process ends; what is
//! inside dies with it, so a row that was handed over there is in doubt until its result is written.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::config::Config;
use crate::domain::ids::ConnectionName;
use crate::domain::mail::{Address, Post, Receipt};
use crate::domain::topology::reply_queue;
use crate::edge::rabbit::{Counter, Offered, Publisher, Reply, Unopened};
use crate::embedded::broker::Broker;
use crate::worker::Worker;
use crate::worker::event::Observer;
use crate::worker::ports::Inbox;

use super::super::Refusal;
use super::super::assembly::{self, Ground, Orgs};

/// Rows in the broker at once that have no result: so many that workers never wait for more, and so few that
/// stopping a job stops it.
const WINDOW: u64 = 1000;

/// How long a job that is told to stop waits for what is about to come.
const GRACE: Duration = Duration::from_secs(2);

/// The same where stopping would interrupt the work itself.
const GRACE_INSIDE: Duration = Duration::from_secs(10);

/// The queue for results inside the process.
const REPLIES: &str = "results";

/// What became of a row that was handed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Handed {
    /// It will be done whatever becomes of this process.
    Kept,
    /// It will be done if this process lives.
    Taken,
    /// It was not taken, and why.
    Refused(String),
    /// Nobody knows whether it was taken.
    Unclear,
}

/// Takes rows.
#[async_trait]
pub(super) trait Out: Send + Sync {
    /// Hands one over.
    async fn hand_over(&self, post: &Post) -> Handed;
}

#[async_trait]
impl Out for Publisher {
    async fn hand_over(&self, post: &Post) -> Handed {
        match self.offer(post).await {
            Offered::Confirmed => Handed::Kept,
            Offered::Refused(why) => Handed::Refused(why),
            Offered::Unclear => Handed::Unclear,
        }
    }
}

#[async_trait]
impl Out for Broker {
    async fn hand_over(&self, post: &Post) -> Handed {
        if let Address::Exchange(_, key) = &post.to {
            self.publish(key, post.properties.clone(), post.body.clone());
        }
        Handed::Taken
    }
}

/// A road to a worker and back.
#[async_trait]
pub(super) trait Road: Send {
    /// Where rows are handed over.
    fn out(&self) -> Arc<dyn Out>;

    /// The queue that results are to go to: the one of the job, or our own.
    fn reply_to(&self, queue: String) -> String;

    /// The next result; `None`: none will come. Nothing is lost when it is not waited for to the end.
    async fn next(&mut self) -> Option<Reply>;

    /// How many results waited when the road was opened.
    fn waiting(&self) -> u32;

    /// How many rows may be without a result.
    fn window(&self) -> u64;

    /// How long a job that is told to stop waits.
    fn grace(&self) -> Duration;

    /// What becomes of rows when this process ends.
    fn fate(&self) -> Fate;

    /// Leaves in order.
    async fn close(&mut self);
}

/// What becomes of rows that were handed over when this process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// They stay in their queue, and workers go on with them.
    Stay,
    /// They end with it.
    End,
}

/// The road through RabbitMQ. With `must_be_there` the queue for results holds some, or will.
pub(super) async fn broker(
    config: &Config,
    queue: &str,
    must_be_there: bool,
    observer: Arc<dyn Observer>,
) -> Result<Box<dyn Road>, Unopened> {
    let counter = Counter::open(&config.broker, reply_queue(queue), must_be_there, observer).await?;
    Ok(Box::new(Outside(counter)))
}

/// The road inside the process, to one connection.
pub(super) fn inside(
    config: &Config,
    connection: &ConnectionName,
    observer: Arc<dyn Observer>,
) -> Result<Box<dyn Road>, Refusal> {
    let (stop, stopping) = watch::channel(false);
    let ground = Ground::new(config, &observer);
    let prefetch = ground.prefetch;
    let mut orgs = assembly::orgs(config, &ground, &Orgs::new())?;
    orgs.retain(|known, _| known == connection);
    let broker = Broker::new([connection]);
    broker.declare(REPLIES);
    let rules = assembly::own_rules(config, &orgs, stopping);
    let worker: Arc<dyn Inbox> = Arc::new(Worker::new(rules, Arc::<Broker>::clone(&broker), observer));
    let consuming = broker.consume(&worker, prefetch);
    Ok(Box::new(Inside { broker, prefetch, _consuming: consuming, _stop: stop }))
}

/// Workers behind RabbitMQ.
struct Outside(Counter);

#[async_trait]
impl Road for Outside {
    fn out(&self) -> Arc<dyn Out> {
        Arc::<Publisher>::clone(&self.0.publisher)
    }

    fn reply_to(&self, queue: String) -> String {
        queue
    }

    async fn next(&mut self) -> Option<Reply> {
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

/// A worker in this process.
struct Inside {
    broker: Arc<Broker>,
    prefetch: usize,
    _consuming: JoinSet<()>,
    _stop: watch::Sender<bool>,
}

#[async_trait]
impl Road for Inside {
    fn out(&self) -> Arc<dyn Out> {
        Arc::<Broker>::clone(&self.broker)
    }

    fn reply_to(&self, _: String) -> String {
        REPLIES.to_owned()
    }

    async fn next(&mut self) -> Option<Reply> {
        let body = self.broker.take(REPLIES).await.body;
        Some(Reply { body, receipt: Box::new(Gone) })
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

/// A result inside the process is out of its queue already.
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
