//! The story of one message, from its queue to its answer.
//!
//! [`Worker::take`] is the whole of it: open the letter, judge it, talk with Okta, answer, acknowledge.
//! Invariant: at every moment the invocation, a copy of it or its answer is in the broker, because copy
//! and answer are confirmed before the delivery is acknowledged.

mod admission;
pub(crate) mod respond;
pub(crate) mod delay;
mod cancel;
pub mod clock;
mod connection;
mod execution;
pub(crate) mod history;
mod recent_creations;
mod given_up;
pub mod failpoint;
mod lanes;
mod context;
mod dedup;
mod okta_time;
mod order;
mod outcome;
mod parking;
pub mod ports;
mod probe;
mod progress;
pub mod breaker;
mod rules;
mod shares;
mod turn;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::sync::{SemaphorePermit, watch};
use tokio::time::Instant;

use crate::domain::ids::{ConnectionName, Lane};
use crate::domain::message::{CANCEL, Delivery, Receipt, Source};

use crate::event::{Event, Observer, ParkReason};
use crate::worker::cancel::{Cancelled, Mark, Notice};
use crate::worker::context::Letter;
use crate::worker::dedup::{Invocation, Memory};
use crate::worker::delay::{Aside, Put, SoFar};
use crate::worker::failpoint::{Point, reached};
use crate::worker::respond::Answering;
pub use admission::check_body;
use admission::{Job, Reading};
pub use connection::Connection;
use execution::{Company, End, Execution};
use lanes::{InLane, Lanes, Waiting};
use okta_time::Moment;
use outcome::{Conclusion, Ended, Identity, a_bug, cancelled};
use parking::Parking;
use ports::{Inbox, Postbox, Ready};
use progress::Progress;
pub use rules::Rules;
use turn::leaves;

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
    /// What each caller may still park.
    parking: Parking,
    /// What it has of each lane.
    lanes: Lanes,
}

/// How long a message that must run alone lies aside before: one of these, by chance. Those that went aside together
/// would come back together, and one that brings the worker down would take the others with it each time.
const QUARANTINE: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(15)];

/// One message being worked on.
#[derive(Clone, Copy)]
struct Case<'a> {
    rules: &'a Rules,
    body: &'a Bytes,
    receipt: &'a dyn Receipt,
    answering: Answering<'a>,
    in_lane: Option<&'a InLane>,
}

/// A delivery that was read, and has its place among the others.
struct Opened {
    rules: Arc<Rules>,
    letter: Letter,
    body: Bytes,
    receipt: Box<dyn Receipt>,
    /// `None`: reading it shows a bug of ours.
    reading: Option<(Identity, Reading)>,
    in_lane: Option<InLane>,
    begun: Instant,
}

impl Worker {
    /// A worker with these rules that answers through this postbox.
    pub fn new(rules: Rules, postbox: Arc<dyn Postbox>, observer: Arc<dyn Observer>) -> Self {
        let rules = ArcSwap::from_pointee(rules);
        let (memory, cancelled, lanes) = (Memory::default(), Cancelled::default(), Lanes::default());
        let (is_drop_told, parking) = (AtomicBool::new(false), Parking::default());
        Self { rules, postbox, observer, memory, cancelled, is_drop_told, parking, lanes }
    }

    /// The same, where `okta.dead` holds so many messages for so long.
    #[must_use]
    pub fn parking_in(self, dead_max: u32, dead_ttl: Duration) -> Self {
        Self { parking: Parking::in_queue(dead_max, dead_ttl), ..self }
    }

    /// Goes by other rules from now on. A message that was taken before ends by those it was taken under.
    pub fn go_by(&self, rules: Rules) {
        self.rules.store(Arc::new(rules));
    }

    /// Judges and runs a message, panics included.
    async fn run(&self, reading: Reading, case: Case<'_>) -> Ended {
        let (rules, letter) = (case.rules, case.answering.letter);
        if letter.source == Source::Undelivered {
            return self.give_up(letter, &reading);
        }
        if letter.docket.is_given_up() {
            return Ended::crash_loop(reading.effect_unless_read());
        }
        if letter.properties.kind.as_deref() == Some(CANCEL) {
            let is_good =
                |mark: &Mark| letter.came_by_a_good_way().is_ok() && mark.is_permitted(&rules.callers);
            if let Some(mark) = Mark::of(letter).filter(is_good) {
                let notice = if letter.reply_to.is_some() { Notice::Answer } else { Notice::Nothing };
                self.cancelled.add(mark, notice, &*self.postbox, rules.own_user.as_deref()).await;
            }
            return Ended::Dropped;
        }
        match &letter.source {
            // The connection was removed while the message was on its way, and others may still serve it.
            Source::Work { connection, .. } if !rules.connections.contains_key(connection) => {
                return Ended::Stale;
            }
            // The connection has come back: its lanes are served by whoever is counted there.
            Source::Removed { connection, .. } if rules.connections.contains_key(connection) => {
                return Ended::Stale;
            }
            Source::Work { .. } | Source::Removed { .. } | Source::Unrouted | Source::Undelivered => {}
        }
        if let Some(connection) = reading.hangs_on_the_clock(letter, rules) {
            probe::learn_time(&connection, &rules.clock, &self.observer).await;
        }
        // A message that cannot be read and names nobody to tell is kept for people to look at.
        let is_kept =
            reading.envelope.is_err() && letter.reply_to.is_none() && reading.caller_may_use(letter, rules);
        let effect = reading.effect_before(&letter.docket);
        match catch_unwind(AssertUnwindSafe(|| reading.judge(letter, rules))) {
            Ok(Ok(job)) => match self.in_turn(&job, case).await {
                Ok(()) => self.once(&job, case).await,
                Err(ended) => ended,
            },
            Ok(Err(failure)) => Ended::refused(failure, effect, is_kept.then_some(ParkReason::Unreadable)),
            Err(_) => Ended::crashed(effect),
        }
    }

    /// Runs an invocation that this worker has not run yet.
    async fn once(&self, job: &Job<'_>, case: Case<'_>) -> Ended {
        let Some(invocation) = Invocation::of(job, case.body) else { return self.execute(job, case).await };
        let is_same_message = job.letter.docket.may_have_run();
        let begun = tokio::select! {
            begun = self.memory.begin(invocation, is_same_message) => begun,
            () = case.receipt.gone() => return Ended::Stale,
        };
        match begun {
            Err(known) => Ended::Deduplicated(known),
            Ok(running) => {
                let ended = self.execute(job, case).await;
                if let Ended::Concluded(conclusion) = &ended {
                    running.ended(conclusion);
                }
                ended
            }
        }
    }

    /// Talks with Okta, or puts the message aside when the line is long.
    async fn execute(&self, job: &Job<'_>, case: Case<'_>) -> Ended {
        let progress = self.progress(job);
        let company = self.company(case, &progress);
        let aside = self.aside(job, case);
        let _alone = match self.alone(job, &aside, case.in_lane).await {
            Ok(alone) => alone,
            Err(ended) => return ended,
        };
        reached(Point::Judged, Some(&job.letter.id)).await;
        let mut execution = Execution::new(job, company);
        let mut pages = 0;
        let (outcome, park) = loop {
            match AssertUnwindSafe(execution.run()).catch_unwind().await {
                Ok(End::Outcome(outcome)) => break (outcome, None),
                Err(_) => break (execution.crashed(), Some(ParkReason::Internal)),
                Ok(End::Stale) => return Ended::Stale,
                Ok(End::Cancelled(notice)) => {
                    self.note_cancelled(job);
                    match notice {
                        Notice::Nothing => return Ended::Dropped,
                        Notice::Answer => break (cancelled(), None),
                    }
                }
                Ok(End::Page(result)) => {
                    if case.answering.page(result, execution.cost(), pages).await.is_err() {
                        return Ended::Stale;
                    }
                    pages += 1;
                }
                Ok(End::HandBack) => match self.hand_back(&aside, &mut execution, case).await {
                    Some(ended) => return ended,
                    None => execution.stay(),
                },
                Ok(End::ComeAgain { bucket, wait }) => {
                    if let Some(ended) = self.come_again(&aside, &mut execution, case, (bucket, wait)).await {
                        return ended;
                    }
                }
            }
        };
        let cost = execution.cost();
        job.connection.budget.concluded(job.lane, cost.okta_calls);
        Ended::Concluded(Conclusion { outcome, cost, park, pages })
    }

    fn progress<'a>(&'a self, job: &'a Job<'_>) -> Progress<'a> {
        Progress::new(&self.postbox, job.letter, job.connection.name.as_str(), job.subtool)
    }

    fn company<'a>(&'a self, case: Case<'a>, progress: &'a Progress<'a>) -> Company<'a> {
        let Case { rules, receipt, in_lane, .. } = case;
        let (observer, cancelled, hold_max) = (&self.observer, &self.cancelled, self.lanes.hold_max());
        Company { rules, observer, receipt, progress, cancelled, in_lane, hold_max }
    }

    fn aside<'a>(&'a self, job: &'a Job<'a>, case: Case<'a>) -> Aside<'a> {
        let Case { rules, body, receipt, in_lane, .. } = case;
        let place = in_lane.and_then(InLane::place);
        let order = place.map(|place| self.lanes.header(place.number()));
        Aside { job, body, receipt, rules, postbox: &*self.postbox, order }
    }

    /// A message that may be what brings workers down runs when no other such one does, and waits outside
    /// the worker until then: whatever is in hand when a worker dies has been delivered once more.
    async fn alone<'a>(
        &self,
        job: &'a Job<'_>,
        aside: &Aside<'_>,
        in_lane: Option<&InLane>,
    ) -> Result<Option<SemaphorePermit<'a>>, Ended> {
        let Job { connection, lane, letter: Letter { docket, id, .. }, .. } = job;
        if !docket.is_suspect() {
            return Ok(None);
        }
        let room = &connection.quarantine[*lane as usize];
        // One that comes from aside was not in hand while others ran, and has nothing to wait for in hand.
        let alone = match room.try_acquire().ok().filter(|_| docket.is_settled) {
            Some(alone) => alone,
            None => match aside.put(QUARANTINE[fastrand::usize(..2)], None, SoFar::of(docket)).await {
                Put::ComesBack(time) => {
                    leaves(job, in_lane, time);
                    self.observer.note(&Event::HandedBack { connection: &connection.name, lane: *lane, id });
                    return Err(Ended::PutAside);
                }
                Put::Stays => tokio::select! {
                    alone = room.acquire() => alone.expect("the room is never closed"),
                    () = aside.receipt.gone() => return Err(Ended::Stale),
                },
                Put::Stale => return Err(Ended::Stale),
            },
        };
        let redeliveries = docket.redeliveries;
        self.observer.note(&Event::Suspected { connection: &connection.name, lane: *lane, id, redeliveries });
        Ok(Some(alone))
    }
}

impl Worker {
    /// Reads a delivery and gives it its place among the others of its lane.
    fn open(&self, delivery: Delivery) -> Opened {
        let begun = Instant::now();
        let Delivery { body, properties, exchange, routing_key, source, redelivered, receipt } = delivery;
        let rules = self.rules.load_full();
        let address = (source, exchange, routing_key);
        let who = (&rules.reply_to, rules.own_user.as_deref());
        let ahead = rules.connection_of(&address).and_then(|connection| connection.ahead(&rules.clock));
        let letter = Letter::new(address, properties, redelivered, Moment::now(&rules.clock, ahead), who);
        let reading = catch_unwind(AssertUnwindSafe(|| {
            let reading = Reading::new(&letter, &body, &rules);
            (Identity::of(&reading), reading)
        }));
        let reading = reading.ok();
        let in_lane = self.enter(&letter, reading.as_ref().map(|(_, reading)| reading), &rules);
        Opened { rules, letter, body, receipt, reading, in_lane, begun }
    }

    /// Runs a delivery to its settlement.
    async fn settle(&self, opened: Opened) {
        let Opened { rules, letter, body, receipt, reading, in_lane, begun } = opened;
        let _inside = Inside::new(&letter, &*self.observer);
        reached(Point::Delivered, Some(&letter.id)).await;
        let (identity, reading) = match reading {
            Some((identity, reading)) => (identity, Some(reading)),
            None => (Identity::default(), None),
        };
        let answering = Answering { worker: self, letter: &letter, identity: &identity, begun };
        let (rules, in_lane) = (&*rules, in_lane.as_ref());
        let case = Case { rules, body: &body, receipt: &*receipt, answering, in_lane };
        let ended = match reading {
            Some(reading) => self.run(reading, case).await,
            None => Ended::crashed(letter.docket.effect_before()),
        };
        let is_safe = match ended {
            Ended::Concluded(conclusion) => {
                reached(Point::Concluded, Some(&letter.id)).await;
                answering.answer(conclusion, &body).await.is_ok()
            }
            Ended::Deduplicated(conclusion) => {
                reached(Point::Concluded, Some(&letter.id)).await;
                answering.answer_again(conclusion).await.is_ok()
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
}

impl Inbox for Worker {
    fn take(self: Arc<Self>, delivery: Delivery) -> BoxFuture<'static, ()> {
        match catch_unwind(AssertUnwindSafe(|| self.open(delivery))) {
            Ok(opened) => Box::pin(async move { self.settle(opened).await }),
            Err(_) => Box::pin(async {}), // a bug of ours; the delivery was given back
        }
    }

    fn hold_at_most(&self, most: Duration) {
        self.lanes.hold_at_most(most);
    }

    fn counted(&self, connection: &ConnectionName, ready: Ready) {
        let now = self.rules.load().clock.now();
        for lane in Lane::ALL {
            let ready = ready.of(lane);
            let Waiting { delayed, oldest } = self.lanes.of(connection, lane).waiting(ready, now);
            let oldest = oldest.map(|sent| Duration::try_from(now.duration_since(sent)).unwrap_or_default());
            self.observer.note(&Event::Backlog { connection, lane, ready, delayed, oldest });
        }
    }

    fn hear(&self, told: &[u8]) {
        self.cancelled.hear(told, &self.rules.load().callers);
    }

    /// While a connection is paused, what nobody waits for stays in its queue.
    fn wants(&self, source: &Source) -> watch::Receiver<bool> {
        let rules = self.rules.load();
        match source {
            Source::Work { connection, lane: Lane::Bulk } => match rules.connections.get(connection) {
                Some(connection) => connection.pulse.wants_bulk(),
                None => watch::channel(true).1,
            },
            Source::Work { .. } | Source::Removed { .. } | Source::Unrouted | Source::Undelivered => {
                watch::channel(true).1
            }
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
