//! The port of a budget: requests that ask to be sent, and the permits that they wait for.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use crate::domain::ids::Lane;

use super::pure::observation::{Observation, Observed};

/// Default for the most delayed messages of a lane, if the prefetch is unknown.
const DELAYED_MAX: usize = 64;

/// The budget of one connection: no request is sent without a permit.
#[async_trait]
pub trait Budget: Send + Sync {
    /// Waits until one request may go.
    ///
    /// # Errors
    /// If the request may not go in time, or should not wait in the worker.
    async fn admit(&self, ask: Ask<'_>) -> Result<Permit, NotNow>;

    /// Records the number of requests of an ended invocation of this lane, as an estimate for further invocations.
    fn concluded(&self, _lane: Lane, _requests: u32) {}

    /// Returns the number of workers that serve the connection, as far as is known.
    fn workers(&self) -> u32 {
        1
    }

    /// Returns the most messages of a lane that this worker may have delayed at once.
    fn delayed_max(&self) -> usize {
        DELAYED_MAX
    }
}

/// One request that asks to be sent.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// The method.
    pub method: &'a http::Method,
    /// The path template.
    pub route: &'static str,
    /// The lane.
    pub lane: Lane,
    /// The caller, which may have a ceiling of its own.
    pub caller: Option<&'a str>,
    /// The moment until which the request may wait.
    pub not_after: Option<Instant>,
    /// The moment at which the message must be delayed instead of waiting longer in hand: RabbitMQ takes a
    /// delivery back that is held for long, and counts it as failed.
    pub leave_at: Option<Instant>,
    /// True if the request sends e-mail or creates a one-time secret: few such are in flight at once, because their
    /// outcome is unknown if the worker dies.
    pub emits: bool,
    /// The behavior while many requests wait for the bucket.
    pub when_busy: WhenBusy,
}

/// The behavior of a request while many requests wait for its bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenBusy {
    /// It waits in the worker: the invocation has begun.
    Wait,
    /// It makes room for messages of other buckets: nothing has been sent yet, so the message may be delayed.
    Delay,
}

/// The reason that a request may not go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotNow {
    /// The budget has no room before this moment, which is too late.
    NotBefore(Instant),
    /// The deadline passed while the request waited.
    Passed,
    /// The message is to be delayed for this time: half of the prefetch waits for the same bucket, ceiling or slot, or
    /// the message must not stay in hand any longer.
    Delay(Duration),
}

/// The account that issues permits and settles them.
pub trait Account: Send + Sync {
    /// Settles a finished request.
    fn settle(&self, ticket: Ticket, heard: Observed);
}

/// The request that a permit was given for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    /// The account's number of the route: the request counts in the bucket of its route.
    pub route: usize,
    /// The lane.
    pub lane: Lane,
    /// True if the request sends e-mail or creates a one-time secret.
    pub emits: bool,
}

/// The right to send one request. Dropped without an answer, the request counts as spent.
pub struct Permit {
    account: Option<Arc<dyn Account>>,
    ticket: Ticket,
    issued_at: Instant,
}

impl Permit {
    /// Creates a permit of this account.
    pub fn new(account: Arc<dyn Account>, ticket: Ticket) -> Self {
        Self { account: Some(account), ticket, issued_at: Instant::now() }
    }

    /// Settles the permit with the observation from the answer, or from its absence.
    pub fn heard(mut self, told: Observation) {
        self.settle(told);
    }

    fn settle(&mut self, told: Observation) {
        if let Some(account) = self.account.take() {
            let heard = Observed { told, sent: self.issued_at.into_std(), at: Instant::now().into_std() };
            account.settle(self.ticket, heard);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.settle(Observation::Lost);
    }
}
