//! The port of a budget: requests that ask to be sent, and the permits that they wait for.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use crate::domain::ids::Lane;

use super::pure::observation::{Heard, Told};

/// Messages of a lane that a worker has delayed at once, where nobody says how many are in hand.
const DELAYED_MAX: usize = 64;

/// The budget of one connection: nobody sends without a permit.
#[async_trait]
pub trait Budget: Send + Sync {
    /// Waits until one request may go.
    ///
    /// # Errors
    /// When it may not go in time, or should not be waited for in the worker.
    async fn admit(&self, ask: Ask<'_>) -> Result<Permit, NotNow>;

    /// An invocation of this lane has ended after so many requests: others like it will take as many.
    fn concluded(&self, _lane: Lane, _requests: u32) {}

    /// Returns how many workers serve the connection, as far as is known.
    fn workers(&self) -> u32 {
        1
    }

    /// Returns how many messages of a lane this worker may have delayed at once.
    fn delayed_max(&self) -> usize {
        DELAYED_MAX
    }
}

/// One request that asks to be sent.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// Its method.
    pub method: &'a http::Method,
    /// Its path template.
    pub route: &'static str,
    /// For whom.
    pub lane: Lane,
    /// Who asked, where callers have ceilings of their own.
    pub caller: Option<&'a str>,
    /// Until when it may wait.
    pub not_after: Option<Instant>,
    /// When the message must come again rather than wait longer in hand, however patient it is: RabbitMQ takes a
    /// delivery back that is held for long, and counts it as a failed one.
    pub leave_at: Option<Instant>,
    /// Whether it mails or mints something: few such are on their way at once, because what was when a worker died
    /// nobody can be sure of.
    pub emits: bool,
    /// What to do in a long line.
    pub patience: Patience,
}

/// What to do in a long line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// Wait in the worker: the invocation has begun.
    Wait,
    /// Make room for messages of other buckets: nothing has been sent, so the message may come again.
    ComeAgain,
}

/// Why a request may not go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotNow {
    /// Known in advance: not before this moment, which is too late.
    NotBefore(Instant),
    /// The time passed in line.
    Passed,
    /// Half of what may be in hand waits for the same already: put the message aside for so long.
    ComeAgain(Duration),
}

/// Where permits come from and go back to.
pub trait Account: Send + Sync {
    /// A request is over.
    fn settle(&self, ticket: Ticket, heard: Heard);
}

/// What a permit was given for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    /// The route, as the account numbers them: it is counted where that is counted.
    pub route: usize,
    /// The lane.
    pub lane: Lane,
    /// Whether it mails or mints something.
    pub emits: bool,
}

/// The right to send one request. Dropped without an answer, the request counts as spent.
pub struct Permit {
    account: Option<Arc<dyn Account>>,
    ticket: Ticket,
    given: Instant,
}

impl Permit {
    /// A permit of this account.
    pub fn new(account: Arc<dyn Account>, ticket: Ticket) -> Self {
        Self { account: Some(account), ticket, given: Instant::now() }
    }

    /// Gives the permit back with what the answer told, or that none came.
    pub fn heard(mut self, told: Told) {
        self.settle(told);
    }

    fn settle(&mut self, told: Told) {
        if let Some(account) = self.account.take() {
            let heard = Heard { told, sent: self.given.into_std(), at: Instant::now().into_std() };
            account.settle(self.ticket, heard);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.settle(Told::Lost);
    }
}
