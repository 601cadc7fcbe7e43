//! What the story needs from the world, small enough that its twins are obvious.
//!
//! The edge implements these for RabbitMQ and Okta, the embedded floor for the in-process queue and the
//! simulated org.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::time::Instant;

use crate::domain::bucket::Bucket;
use crate::domain::http::{NoAnswer, Request, Response};
use crate::domain::ids::Lane;
use crate::domain::mail::{Delivery, Post, Posted, Unposted};
use crate::policy::window::{Heard, Told};

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
#[async_trait]
pub trait Inbox: Send + Sync {
    /// Runs one delivery to its settlement. Called in a task of its own; returns when the delivery is
    /// settled or given up.
    async fn take(&self, delivery: Delivery);
}

/// The budget of one connection: nobody sends without a permit.
#[async_trait]
pub trait Budget: Send + Sync {
    /// Waits until one request may go.
    ///
    /// # Errors
    /// At once, when that will surely not be before `not_after`; else when `not_after` has come.
    async fn admit(&self, bucket: Bucket, lane: Lane, not_after: Option<Instant>) -> Result<Permit, TooLate>;
}

/// The budget cannot make it in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TooLate {
    /// Known in advance: not before this moment.
    NotBefore(Instant),
    /// The time passed in line.
    Passed,
}

/// Where permits come from and go back to.
pub trait Account: Send + Sync {
    /// A request is over.
    fn settle(&self, bucket: Bucket, lane: Lane, heard: Heard);
}

/// The right to send one request. Dropped without an answer, the request counts as spent.
pub struct Permit {
    account: Option<Arc<dyn Account>>,
    bucket: Bucket,
    lane: Lane,
    given: Instant,
}

impl Permit {
    /// A permit of this account.
    pub fn new(account: Arc<dyn Account>, bucket: Bucket, lane: Lane) -> Self {
        Self { account: Some(account), bucket, lane, given: Instant::now() }
    }

    /// Gives the permit back with what the answer told, or that none came.
    pub fn heard(mut self, told: Told) {
        self.settle(told);
    }

    fn settle(&mut self, told: Told) {
        if let Some(account) = self.account.take() {
            let heard = Heard { told, sent: self.given.into_std(), at: Instant::now().into_std() };
            account.settle(self.bucket, self.lane, heard);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.settle(Told::Lost);
    }
}
