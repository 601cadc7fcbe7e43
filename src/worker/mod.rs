//! The story of one message, from its queue to its answer.
//!
//! [`Worker::take`] is the whole of it: open the letter, judge it, talk with Okta, answer, acknowledge.
//! Invariant: at every moment the invocation, a copy of it or its answer is in the broker, because copy
//! and answer are confirmed before the delivery is acknowledged.

mod admission;
mod answering;
mod aside;
mod cancelling;
pub mod clock;
mod conversation;
mod docket;
pub mod event;
mod fresh;
pub mod gate;
mod given_up;
pub mod killpoint;
mod letter;
mod memory;
pub mod parked;
pub mod ports;
mod progress;
pub mod pulse;

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::FutureExt as _;
use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tokio::time::Instant;

use crate::domain::answer::{Effect, ErrorCode, Failure, Outcome};
use crate::domain::ids::{ConnectionName, Lane};
use crate::domain::mail::{CANCEL, Delivery, Receipt, Source};
use crate::domain::secret::Secrets;
use crate::policy::permit::{AllowList, Callers};
use crate::policy::reply_to::ReplyPolicy;
use crate::policy::retry::RetryRules;

pub use admission::check_body;
use admission::{Job, Reading};
use answering::Answering;
use aside::{Aside, Put};
use cancelling::{Cancelled, Mark, Notice};
use clock::Clock;
use conversation::{Company, Conversation, Cost, End};
use event::{Event, Observer, ParkReason};
use fresh::Fresh;
use killpoint::{Point, reached};
use letter::Letter;
use memory::{Key, Memory};
use ports::{Budget, Inbox, Okta, Postbox};
use progress::Progress;
use pulse::Pulse;

/// One org as the worker sees it.
pub struct Connection {
    /// Its name.
    pub name: ConnectionName,
    /// The way to it.
    pub okta: Arc<dyn Okta>,
    /// What may be sent when.
    pub budget: Arc<dyn Budget>,
    /// What it enables.
    pub subtools: AllowList,
    /// Whether it works.
    pub pulse: Arc<Pulse>,
    /// What was just created there.
    fresh: Fresh,
    /// Room for one message in each lane that may be what brings workers down.
    quarantine: [Semaphore; Lane::ALL.len()],
}

impl Connection {
    /// A connection of which nothing is known yet.
    pub fn new(
        name: ConnectionName,
        okta: Arc<dyn Okta>,
        budget: Arc<dyn Budget>,
        subtools: AllowList,
    ) -> Self {
        let quarantine = [Semaphore::new(1), Semaphore::new(1)];
        Self { name, okta, budget, subtools, pulse: Arc::default(), fresh: Fresh::default(), quarantine }
    }
}

/// What the worker goes by.
pub struct Rules {
    /// The orgs by name.
    pub connections: HashMap<ConnectionName, Arc<Connection>>,
    /// Who may call.
    pub callers: Callers,
    /// Where results may go.
    pub reply_to: ReplyPolicy,
    /// The worker's own broker user, whose `okta-` headers count.
    pub own_user: Option<String>,
    /// How long an interactive invocation without a deadline may take to begin.
    pub interactive_deadline: Duration,
    /// How long a list may go on asking for pages.
    pub list_time_max: Duration,
    /// How often and after how long a failure is tried again.
    pub retry: RetryRules,
    /// Where the time of day is read.
    pub clock: Clock,
    /// Turns true when the worker is to stop: what has not begun is left to others.
    pub stopping: watch::Receiver<bool>,
}

/// Takes messages, runs them, answers them.
pub struct Worker {
    rules: ArcSwap<Rules>,
    postbox: Arc<dyn Postbox>,
    observer: Arc<dyn Observer>,
    /// What was done lately.
    memory: Memory,
    /// What nobody wants any more.
    cancelled: Cancelled,
    /// Whether it was said that a policy on the broker drops messages.
    is_drop_told: AtomicBool,
}

/// How long a message that must run alone lies aside before: one of these, by chance. Those that went aside together
/// would come back together, and one that brings the worker down would take the others with it each time.
const QUARANTINE: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(15)];

/// How the worker came to the end of a delivery.
#[expect(clippy::large_enum_variant, reason = "there is one for each message, and it is nearly always that")]
enum Ended {
    /// The invocation has ended: what is to be answered.
    Concluded(Conclusion),
    /// A copy of the message is in the broker and comes again later.
    PutAside,
    /// Nobody waits for an answer.
    Dropped,
    /// Somebody else will have the message.
    Stale,
}

/// How an invocation ended, for the answer.
#[derive(Clone)]
struct Conclusion {
    outcome: Outcome,
    cost: Cost,
    park: Option<ParkReason>,
    /// Pages of a list that were answered before.
    pages: u32,
}

impl Conclusion {
    /// It ended before any page.
    fn new(outcome: Outcome, cost: Cost, park: Option<ParkReason>) -> Self {
        Self { outcome, cost, park, pages: 0 }
    }
}

impl Ended {
    fn refused(failure: Failure, park: Option<ParkReason>) -> Self {
        Self::Concluded(Conclusion::new(failure.into(), Cost::default(), park))
    }

    /// It was delivered again and again, and no worker came to its end.
    fn crash_loop(is_write: bool) -> Self {
        let message = "no worker came to the end of the message in too many deliveries";
        let failure = Failure::new(ErrorCode::Internal, message);
        let outcome =
            if is_write { Outcome::Failed { effect: Effect::Unknown, failure } } else { failure.into() };
        Self::Concluded(Conclusion::new(outcome, Cost::default(), Some(ParkReason::CrashLoop)))
    }

    /// A bug of ours ended it before any request.
    fn crashed() -> Self {
        Self::refused(a_bug(), Some(ParkReason::Internal))
    }
}

/// What the caller is told of an invocation that was taken back.
fn cancelled() -> Failure {
    Failure::new(ErrorCode::Cancelled, "the caller has cancelled it before it began")
}

/// What the caller is told of a bug of ours.
fn a_bug() -> Failure {
    Failure::new(ErrorCode::Internal, "the worker has a bug; the message is parked")
}

/// One message being worked on.
#[derive(Clone, Copy)]
struct Case<'a> {
    rules: &'a Rules,
    body: &'a Bytes,
    receipt: &'a dyn Receipt,
    answering: Answering<'a>,
}

/// What is known of a message for its answer, whatever became of it.
#[derive(Default)]
struct Identity {
    connection: Option<Arc<Connection>>,
    subtool: Option<&'static str>,
    /// The same in words, whether it is one of the 28 or not.
    named: Option<String>,
    reason: Option<String>,
    secrets: Secrets,
    bytes_max: usize,
    /// Whether its result is never left out.
    keeps_result: bool,
    /// Whether its answers are pages.
    is_paged: bool,
}

impl Identity {
    fn of(reading: &Reading) -> Self {
        Self {
            connection: reading.connection.clone(),
            subtool: reading.entry.map(|entry| entry.manifest.name),
            named: reading.named.clone(),
            reason: reading.reason().map(str::to_owned),
            secrets: reading.secrets.clone(),
            bytes_max: reading.bytes_max(),
            keeps_result: reading.keeps_result(),
            is_paged: reading.is_paged(),
        }
    }
}

impl Worker {
    /// A worker with these rules that answers through this postbox.
    pub fn new(rules: Rules, postbox: Arc<dyn Postbox>, observer: Arc<dyn Observer>) -> Self {
        let (memory, cancelled) = (Memory::default(), Cancelled::default());
        let is_drop_told = AtomicBool::new(false);
        Self { rules: ArcSwap::from_pointee(rules), postbox, observer, memory, cancelled, is_drop_told }
    }

    /// Goes by other rules from now on. A message that was taken before ends by those it was taken under.
    pub fn go_by(&self, rules: Rules) {
        self.rules.store(Arc::new(rules));
    }

    /// Judges and runs a message, panics included.
    async fn run(&self, reading: Reading, case: Case<'_>) -> Ended {
        let (rules, letter) = (case.rules, case.answering.letter);
        if letter.source == Source::Undelivered {
            return self.give_up(letter, reading.is_write());
        }
        if letter.docket.is_given_up() {
            return Ended::crash_loop(reading.is_write());
        }
        if letter.properties.kind.as_deref() == Some(CANCEL) {
            if let Some(mark) = Mark::of(letter).filter(|_| letter.came_by_a_good_way().is_ok()) {
                let notice = if letter.reply_to.is_some() { Notice::Answer } else { Notice::Nothing };
                self.cancelled.add(mark, notice, &*self.postbox, rules.own_user.as_deref()).await;
            }
            return Ended::Dropped;
        }
        if letter.lane().is_some_and(|(connection, _)| !rules.connections.contains_key(connection)) {
            return Ended::Stale; // the connection was removed while the message was on its way
        }
        // A message that cannot be read and names nobody to tell is kept for people to look at.
        let is_kept = reading.envelope.is_err() && letter.reply_to.is_none();
        let may_have_changed = reading.is_write() && letter.docket.maybe_since().is_some();
        match catch_unwind(AssertUnwindSafe(|| reading.judge(letter, rules))) {
            Ok(Ok(job)) => self.once(&job, case).await,
            // A write that an earlier delivery may have begun: too late to look.
            Ok(Err(failure)) if failure.code == ErrorCode::DeadlineExceeded && may_have_changed => {
                let outcome = Outcome::Failed { effect: Effect::Unknown, failure };
                Ended::Concluded(Conclusion::new(outcome, Cost::default(), None))
            }
            Ok(Err(failure)) => Ended::refused(failure, is_kept.then_some(ParkReason::Unreadable)),
            Err(_) => Ended::crashed(),
        }
    }

    /// Runs an invocation that this worker has not run yet.
    async fn once(&self, job: &Job<'_>, case: Case<'_>) -> Ended {
        let Some(key) = Key::of(job, case.body) else { return self.converse(job, case).await };
        match self.memory.begin(key, job.letter.docket.redeliveries > 0).await {
            Err(known) => Ended::Concluded(known),
            Ok(running) => {
                let ended = self.converse(job, case).await;
                if let Ended::Concluded(conclusion) = &ended {
                    running.ended(conclusion);
                }
                ended
            }
        }
    }

    /// Talks with Okta, or puts the message aside when the line is long.
    async fn converse(&self, job: &Job<'_>, case: Case<'_>) -> Ended {
        let Case { rules, body, receipt, answering } = case;
        let (postbox, observer) = (&*self.postbox, &self.observer);
        let progress = Progress::new(&self.postbox, job.letter, job.connection.name.as_str(), job.subtool);
        let company = Company { rules, observer, receipt, progress: &progress, cancelled: &self.cancelled };
        let aside = Aside { job, body, receipt, rules, postbox };
        let _alone = match self.alone(job, &aside).await {
            Ok(alone) => alone,
            Err(ended) => return ended,
        };
        reached(Point::Judged, Some(&job.letter.id)).await;
        let mut conversation = Conversation::new(job, company);
        let mut pages = 0;
        let (outcome, park) = loop {
            match AssertUnwindSafe(conversation.hold()).catch_unwind().await {
                Ok(End::Outcome(outcome)) => break (outcome, None),
                Err(_) => break (conversation.crashed(), Some(ParkReason::Internal)),
                Ok(End::Stale) => return Ended::Stale,
                Ok(End::Cancelled(notice)) => {
                    let (connection, lane, id) = (&job.connection.name, job.lane, &*job.letter.id);
                    self.observer.note(&Event::Cancelled { connection, lane, id });
                    match notice {
                        Notice::Nothing => return Ended::Dropped,
                        Notice::Answer => break (cancelled().into(), None),
                    }
                }
                Ok(End::Page(result)) => {
                    if answering.page(result, conversation.cost.clone(), pages).await.is_err() {
                        return Ended::Stale;
                    }
                    pages += 1;
                }
                Ok(End::HandBack) => {
                    let (attempts, waited) = (conversation.attempts(), conversation.waited());
                    let is_stopping = *rules.stopping.borrow();
                    match aside.hand_back(attempts, waited, conversation.is_in_doubt()).await {
                        Put::ComesBack(_) => {
                            let (connection, lane, id) = (&job.connection.name, job.lane, &*job.letter.id);
                            self.observer.note(&Event::HandedBack { connection, lane, id });
                            return Ended::PutAside;
                        }
                        Put::Stays if !is_stopping => conversation.stay(),
                        Put::Stays | Put::Stale => return Ended::Stale,
                    }
                }
                Ok(End::ComeAgain { bucket, wait }) => {
                    match aside.put(wait, conversation.attempts(), conversation.waited()).await {
                        Put::ComesBack(wait) => {
                            let (connection, lane) = (&job.connection.name, job.lane);
                            self.observer.note(&Event::PutAside { connection, lane, bucket, wait });
                            return Ended::PutAside;
                        }
                        Put::Stays => conversation.stay(),
                        Put::Stale => return Ended::Stale,
                    }
                }
            }
        };
        job.connection.budget.concluded(job.lane, conversation.cost.okta_calls);
        Ended::Concluded(Conclusion { outcome, cost: conversation.cost, park, pages })
    }

    /// A message that may be what brings workers down runs when no other such one does, and waits outside
    /// the worker until then: whatever is in hand when a worker dies has been delivered once more.
    async fn alone<'a>(
        &self,
        job: &'a Job<'_>,
        aside: &Aside<'_>,
    ) -> Result<Option<SemaphorePermit<'a>>, Ended> {
        let Job { connection, lane, letter: Letter { docket, id, .. }, .. } = job;
        if !docket.is_suspect() {
            return Ok(None);
        }
        let room = &connection.quarantine[*lane as usize];
        // One that comes from aside was not in hand while others ran, and has nothing to wait for in hand.
        let alone = match room.try_acquire().ok().filter(|_| docket.is_settled) {
            Some(alone) => alone,
            None => match aside.put(QUARANTINE[fastrand::usize(..2)], docket.attempts, docket.waited).await {
                Put::ComesBack(_) => {
                    self.observer.note(&Event::HandedBack { connection: &connection.name, lane: *lane, id });
                    return Err(Ended::PutAside);
                }
                Put::Stays => room.acquire().await.expect("the room is never closed"),
                Put::Stale => return Err(Ended::Stale),
            },
        };
        let redeliveries = docket.redeliveries;
        self.observer.note(&Event::Suspected { connection: &connection.name, lane: *lane, id, redeliveries });
        Ok(Some(alone))
    }
}

#[async_trait]
impl Inbox for Worker {
    async fn take(&self, delivery: Delivery) {
        let begun = Instant::now();
        let Delivery { body, properties, exchange, routing_key, source, redelivered, receipt } = delivery;
        let rules = &*self.rules.load_full();
        let address = (source, exchange, routing_key);
        let who = (&rules.reply_to, rules.own_user.as_deref());
        let letter = Letter::new(address, properties, redelivered, rules.clock.now(), who);
        let _inside = Inside::new(&letter, &*self.observer);

        reached(Point::Delivered, Some(&letter.id)).await;
        let read = catch_unwind(AssertUnwindSafe(|| {
            let reading = Reading::new(&letter, &body, rules);
            (Identity::of(&reading), reading)
        }));
        let (identity, reading) = match read {
            Ok((identity, reading)) => (identity, Some(reading)),
            Err(_) => (Identity::default(), None),
        };
        let answering = Answering { worker: self, letter: &letter, identity: &identity, begun };
        let case = Case { rules, body: &body, receipt: &*receipt, answering };
        let ended = match reading {
            Some(reading) => self.run(reading, case).await,
            None => Ended::crashed(),
        };
        let is_safe = match ended {
            Ended::Concluded(conclusion) => {
                reached(Point::Concluded, Some(&letter.id)).await;
                answering.answer(conclusion, &body).await.is_ok()
            }
            Ended::PutAside | Ended::Dropped => true,
            Ended::Stale => false,
        };
        reached(Point::Done, Some(&letter.id)).await;
        if !is_safe || !receipt.ack().await {
            self.observer.note(&Event::Stale { id: &letter.id });
        }
        reached(Point::Acknowledged, Some(&letter.id)).await;
    }

    fn hear(&self, told: &[u8]) {
        self.cancelled.hear(told);
    }

    /// While a connection is paused, what nobody waits for stays in its queue.
    fn wants(&self, source: &Source) -> watch::Receiver<bool> {
        let rules = self.rules.load();
        match source {
            Source::Work { connection, lane: Lane::Bulk } => match rules.connections.get(connection) {
                Some(connection) => connection.pulse.wants_bulk(),
                None => watch::channel(true).1,
            },
            Source::Work { .. } | Source::Unrouted | Source::Undelivered => watch::channel(true).1,
        }
    }
}

/// A message being worked on, for the gauge of what is in flight.
struct Inside<'a> {
    letter: &'a Letter,
    observer: &'a dyn Observer,
}

impl<'a> Inside<'a> {
    fn new(letter: &'a Letter, observer: &'a dyn Observer) -> Self {
        if let Some((connection, lane)) = letter.lane() {
            let redelivered = letter.redelivered;
            observer.note(&Event::Received { connection, lane, redelivered });
        }
        Self { letter, observer }
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        if let Some((connection, lane)) = self.letter.lane() {
            self.observer.note(&Event::Left { connection, lane });
        }
    }
}
