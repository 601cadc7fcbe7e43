//! The ports of the worker: Okta, the outgoing and the incoming messages.
//!
//! `rabbit` and `okta` implement them for real, `embedded` with an in-process queue and the simulated org.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use tokio::sync::watch;

use crate::domain::http::{NoAnswer, Request, Response};
use crate::domain::ids::{ConnectionName, Lane};
use crate::domain::message::{Delivery, Post, Posted, Source, Unposted};

/// One Okta org behind one credential.
#[async_trait]
pub trait Okta: Send + Sync {
    /// Sends a request once and returns whatever was answered, errors included.
    ///
    /// # Errors
    /// When there is no answer, and whether the request may have been executed.
    async fn send(&self, request: &Request) -> Result<Response, NoAnswer>;
}

/// The way out: publishes messages, persistent and confirmed.
#[async_trait]
pub trait Postbox: Send + Sync {
    /// Publishes until the broker has answered for the message, across reconnects, with the same
    /// properties each time: the broker may have it twice, never not at all.
    ///
    /// # Errors
    /// When the process is stopping and the broker cannot be reached.
    async fn post(&self, post: &Post) -> Result<Posted, Unposted>;
}

/// The way in: takes each delivery and settles it in its own time.
pub trait Inbox: Send + Sync {
    /// Takes a delivery. Called in the order of delivery, which is noted at once; what comes back runs the delivery to
    /// its settlement, in a task of its own.
    fn take(self: Arc<Self>, delivery: Delivery) -> BoxFuture<'static, ()>;

    /// The broker takes back what is in hand for longer than this.
    fn hold_at_most(&self, _most: Duration) {}

    /// The broker has counted the messages that are in the queues of a connection's lanes.
    fn counted(&self, _connection: &ConnectionName, _ready: Ready) {}

    /// Another worker has told what a caller wants no more.
    fn hear(&self, _told: &[u8]) {}

    /// Whether messages of this source are wanted now. While it is false its queue is not consumed.
    fn wants(&self, _source: &Source) -> watch::Receiver<bool> {
        watch::channel(true).1
    }
}

/// Messages in the queues of a connection's lanes, not yet delivered to anybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ready {
    /// In the interactive lane.
    pub interactive: u64,
    /// In the bulk lane.
    pub bulk: u64,
}

impl Ready {
    /// Returns those of one lane.
    pub fn of(self, lane: Lane) -> u64 {
        match lane {
            Lane::Interactive => self.interactive,
            Lane::Bulk => self.bulk,
        }
    }
}

/// Waits until a signal says this; for ever when nobody can change what it says.
pub async fn becomes(signal: &mut watch::Receiver<bool>, to: bool) {
    if signal.wait_for(|says| *says == to).await.is_err() {
        std::future::pending().await
    }
}
