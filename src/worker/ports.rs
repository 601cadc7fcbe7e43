//! What the story needs from the world, small enough that its twins are obvious.
//!
//! The edge implements these for RabbitMQ and Okta, the embedded floor for the in-process queue and the
//! simulated org.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::domain::http::{NoAnswer, Request, Response};
use crate::domain::ids::{ConnectionName, Lane};
use crate::domain::mail::{Delivery, Post, Posted, Source, Unposted};
use crate::policy::budget::signal::Signal;
use crate::policy::budget::window::{Heard, Told};

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

/// What the workers of a connection know of each other, so that together they keep within its budget.
#[async_trait]
pub trait Gossip: Send + Sync {
    /// Waits until there is something to tell.
    async fn news(&self);

    /// What there is to tell now.
    fn tell(&self) -> Vec<Signal>;

    /// Another worker has told something. Loss, delay, repetition and lies are to be expected.
    fn hear(&self, signal: &Signal);

    /// The broker has counted.
    fn counted(&self, census: Census);
}

/// What the broker counts for a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Census {
    /// Workers that serve it, this one included.
    pub workers: u32,
    /// Messages that wait in its bulk queue, not yet delivered to anybody.
    pub queued: u64,
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
