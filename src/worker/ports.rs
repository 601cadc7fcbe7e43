//! What the story needs from the world, small enough that its twins are obvious.
//!
//! The edge implements these for RabbitMQ and Okta, the in-process queue and the simulated org for
//! demo and tests.

use async_trait::async_trait;

use crate::domain::http::{NoAnswer, Request, Response};
use crate::domain::mail::{Delivery, Post, Posted, Unposted};

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
