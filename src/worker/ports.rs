//! The ports of the worker: Okta, the outgoing and the incoming messages.
//!
//! `rabbit` and `okta` implement them for production, `embedded` with an in-process queue and the simulated org.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use tokio::sync::watch;

use crate::domain::http::{NoAnswer, Request, Response};
use crate::domain::ids::{ConnectionName, Lane};
use crate::domain::message::{Delivery, Publish, Published, Source, Unpublished};

/// An Okta org, used with one credential.
#[async_trait]
pub trait Okta: Send + Sync {
    /// Sends a request once and returns the answer, also if it is an error.
    ///
    /// # Errors
    /// If there is no answer; the error states whether the request may have been executed.
    async fn send(&self, request: &Request) -> Result<Response, NoAnswer>;
}

/// The port of outgoing messages: persistent, with publisher confirms.
#[async_trait]
pub trait Outbox: Send + Sync {
    /// Publishes the message until the broker confirms it, across reconnects, with the same
    /// properties each time (at-least-once).
    ///
    /// # Errors
    /// If the process is stopping and the broker cannot be reached.
    async fn post(&self, post: &Publish) -> Result<Published, Unpublished>;
}

/// The port of incoming messages: takes each delivery and settles it later.
pub trait Inbox: Send + Sync {
    /// Takes a delivery. Must be called in the order of delivery, which is noted at once; the returned future processes
    /// the delivery up to its settlement, in a task of its own.
    fn take(self: Arc<Self>, delivery: Delivery) -> BoxFuture<'static, ()>;

    /// Notes that the broker takes back a message that is in hand for longer than this.
    fn hold_at_most(&self, _most: Duration) {}

    /// Notes the broker's count of the messages in the queues of a connection's lanes.
    fn counted(&self, _connection: &ConnectionName, _ready: Ready) {}

    /// Records another worker's notice that a caller has cancelled an invocation.
    fn hear(&self, _body: &[u8]) {}

    /// Returns the signal of this source: while it is false, the worker does not consume the queue of the source.
    fn wants(&self, _source: &Source) -> watch::Receiver<bool> {
        watch::channel(true).1
    }
}

/// Messages in the queues of a connection's lanes, not yet delivered to a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ready {
    /// In the interactive lane.
    pub interactive: u64,
    /// In the bulk lane.
    pub bulk: u64,
}

impl Ready {
    /// Returns the messages of one lane.
    pub fn of(self, lane: Lane) -> u64 {
        match lane {
            Lane::Interactive => self.interactive,
            Lane::Bulk => self.bulk,
        }
    }
}

/// Waits until a signal has this value; for ever if its sender is gone.
pub async fn becomes(signal: &mut watch::Receiver<bool>, to: bool) {
    if signal.wait_for(|value| *value == to).await.is_err() {
        std::future::pending().await
    }
}
