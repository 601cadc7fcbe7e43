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
pub(super) enum Road {
    /// Through RabbitMQ.
    Broker(Counter),
    /// To a worker in this process.
    Inside(Inside),
    /// To a test.
    #[cfg(test)]
    Scripted { out: Arc<dyn Out>, replies: tokio::sync::mpsc::Receiver<Reply>, window: u64 },
}

/// A worker in this process.
pub(super) struct Inside {
    broker: Arc<Broker>,
    prefetch: usize,
    _consuming: JoinSet<()>,
    _stop: watch::Sender<bool>,
}

impl Road {
    /// The road through RabbitMQ. With `must_be_there` the queue for results holds some, or will.
    pub async fn broker(
        config: &Config,
        queue: &str,
        must_be_there: bool,
        observer: Arc<dyn Observer>,
    ) -> Result<Self, Unopened> {
        Counter::open(&config.broker, reply_queue(queue), must_be_there, observer).await.map(Self::Broker)
    }

    /// The road inside the process, to one connection.
    pub fn inside(
        config: &Config,
        connection: &ConnectionName,
        observer: Arc<dyn Observer>,
    ) -> Result<Self, Refusal> {
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
        Ok(Self::Inside(Inside { broker, prefetch, _consuming: consuming, _stop: stop }))
    }

    /// Where rows are handed over.
    pub fn out(&self) -> Arc<dyn Out> {
        match self {
            Self::Broker(counter) => Arc::<Publisher>::clone(&counter.publisher),
            Self::Inside(inside) => Arc::<Broker>::clone(&inside.broker),
            #[cfg(test)]
            Self::Scripted { out, .. } => Arc::clone(out),
        }
    }

    /// The queue that results are to go to: the one of the job, or our own.
    pub fn reply_to(&self, queue: String) -> String {
        match self {
            Self::Broker(_) => queue,
            Self::Inside(_) => REPLIES.to_owned(),
            #[cfg(test)]
            Self::Scripted { .. } => queue,
        }
    }

    /// The next result; `None`: none will come. Nothing is lost when it is not waited for to the end.
    pub async fn next(&mut self) -> Option<Reply> {
        match self {
            Self::Broker(counter) => counter.replies.recv().await,
            Self::Inside(inside) => {
                let body = inside.broker.take(REPLIES).await.body;
                Some(Reply { body, receipt: Box::new(Gone) })
            }
            #[cfg(test)]
            Self::Scripted { replies, .. } => replies.recv().await,
        }
    }

    /// How many results waited when the road was opened.
    pub fn waiting(&self) -> u32 {
        match self {
            Self::Broker(counter) => counter.waiting,
            Self::Inside(_) => 0,
            #[cfg(test)]
            Self::Scripted { .. } => 0,
        }
    }

    /// How many rows may be without a result.
    pub fn window(&self) -> u64 {
        match self {
            Self::Broker(_) => WINDOW,
            Self::Inside(inside) => inside.prefetch as u64,
            #[cfg(test)]
            Self::Scripted { window, .. } => *window,
        }
    }

    /// How long a job that is told to stop waits.
    pub fn grace(&self) -> Duration {
        match self {
            Self::Broker(_) => GRACE,
            Self::Inside(_) => GRACE_INSIDE,
            #[cfg(test)]
            Self::Scripted { .. } => GRACE,
        }
    }

    /// Leaves in order.
    pub async fn close(&mut self) {
        match self {
            Self::Broker(counter) => counter.close().await,
            Self::Inside(_) => {}
            #[cfg(test)]
            Self::Scripted { .. } => {}
        }
    }
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
