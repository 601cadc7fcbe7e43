//! The gate before Okta: what may be sent when, for all lanes and buckets of one connection.
//!
//! A request stands in the line of its bucket and lane. Only the head of a lane asks, interactive before
//! bulk: for a slot, then the bucket's ledger, then the ceilings. Whoever may go has a slot and is counted
//! in the ledger at that moment, so nothing is held while waiting. Invariant: what one worker was allowed
//! and others told never exceeds what Okta announced, and half of what may be in hand at most waits for
//! one bucket.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::pure::constants::CONCURRENT_MAX;
use super::pure::ledger::Backlog;
use super::pure::signal::Signal;
use super::pure::slots::Slots;
use super::pure::window::{Heard, NotUntil, Share, Told};
use crate::domain::bucket::Bucket;
use crate::domain::ids::{ConnectionName, Lane};

use super::gossip::{Census, Gossip};
use super::permit::{Account, Ask, Budget, NotNow, Patience, Permit, Ticket};
use crate::event::{Event, Observer};

pub use super::callers::CallerCeilings;

use super::bucket_gate::{Line, Turn};
use super::bucket_gates::{Lines, Settled, has_moved};
use super::callers::{Leaving, Standing, check_hope};
use super::ceiling::PerMinute;
use super::non_idempotent::Emitting;

/// The longest the head of a lane sleeps before it looks again without being told to.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Messages of a lane in hand at once, as the settings have it when they say nothing.
const PREFETCH: usize = 32;

/// Messages of a lane that are delayed at once, for each that may be in hand: enough to reach the messages of other
/// buckets behind some of an exhausted one, and few enough that a backlog stays in its queue.
const DELAYED_PER_PREFETCH: usize = 2;

/// How often there is something to tell even when nothing was heard.
const NEWS_EVERY: Duration = Duration::from_secs(5);

/// What a gate goes by.
#[derive(Clone)]
pub struct Terms {
    /// Whose gate.
    pub connection: ConnectionName,
    /// What of each window is used.
    pub share: Share,
    /// Requests at once of all workers together.
    pub concurrent_max: u32,
    /// Messages of a lane in hand at once.
    pub prefetch: usize,
    /// Requests per minute of all workers together, when there is a ceiling of our own.
    pub max_per_minute: Option<u32>,
    /// The ceilings of callers.
    pub callers: Arc<CallerCeilings>,
}

impl Terms {
    /// What counts when nothing else is said.
    pub fn new(connection: ConnectionName, share: Share) -> Self {
        Self {
            connection,
            share,
            concurrent_max: CONCURRENT_MAX,
            prefetch: PREFETCH,
            max_per_minute: None,
            callers: CallerCeilings::new([]),
        }
    }
}

/// The gate of one connection.
pub struct Gate {
    terms: Terms,
    lines: Lines,
    slots: Mutex<Slots>,
    /// A slot is free again.
    freed: Notify,
    own: Option<Mutex<PerMinute>>,
    /// Bulk requests that stand in any line.
    pub(super) bulk_waiting: AtomicUsize,
    /// Room in each lane for those that mail or mint something.
    emitting: [Emitting; Lane::ALL.len()],
    backlog: Mutex<Counted>,
    admitted: AtomicU64,
    /// There is something to tell the other workers.
    news: Notify,
    observer: Arc<dyn Observer>,
}

/// What is known of the work that waits in the broker.
#[derive(Debug, Clone, Copy)]
struct Counted {
    census: Census,
    at: Option<Instant>,
    /// How many had been admitted at that time.
    admitted: u64,
    /// Since when more is in hand than could be if the queue were empty.
    full_since: Option<Instant>,
    /// Requests per invocation, as a fading mean.
    calls: f64,
}

/// Why the head of a lane may not go.
enum Held {
    /// No slot is free.
    Slots(NotUntil),
    /// The bucket has nothing to give.
    Bucket(NotUntil),
    /// Somebody waits in the lane before it.
    Yields,
    /// The route is counted in another line by now.
    Moved,
}

impl Gate {
    /// The gate of a connection on these terms. Nothing is known of other workers yet.
    pub fn new(terms: Terms, observer: Arc<dyn Observer>) -> Arc<Self> {
        let worker = fastrand::u32(..);
        Arc::new(Self {
            lines: Lines::new(terms.share, worker),
            slots: Mutex::new(Slots::new(terms.concurrent_max)),
            freed: Notify::new(),
            own: terms.max_per_minute.map(|most| Mutex::new(PerMinute::new(most))),
            bulk_waiting: AtomicUsize::new(0),
            emitting: Default::default(),
            backlog: Mutex::new(Counted {
                census: Census { workers: 1, queued: 0 },
                at: None,
                admitted: 0,
                full_since: None,
                calls: 1.0,
            }),
            admitted: AtomicU64::new(0),
            news: Notify::new(),
            terms,
            observer,
        })
    }

    /// What the broker counted last.
    pub fn census(&self) -> Census {
        self.backlog.lock().unwrap_or_else(PoisonError::into_inner).census
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many may stand in one line before further messages are put aside.
    pub(super) fn line_max(&self) -> usize {
        (self.terms.prefetch / 2).max(1)
    }

    /// Waits for the caller's ceiling, for room among those that mail, in the bucket's line, and for a slot.
    async fn let_through(&self, ask: &Ask<'_>) -> Result<Ticket, NotNow> {
        let route = self.lines.route(ask.method, ask.route);
        if let Some(caller) = ask.caller.and_then(|name| self.terms.callers.of(name)) {
            // Whoever does not get further must not spend what its caller may send.
            let line = self.lines.of(route);
            self.check_length(line, ask)?;
            check_hope(Some(self.not_before(line)), ask.not_after)?;
            caller.admit(ask, self.line_max()).await?;
        }
        let emitting = match ask.emits {
            true => Some(self.emitting[ask.lane as usize].enter(ask, self.lines.of(route), self).await?),
            false => None,
        };
        while !self.stand(route, ask).await? {} // what was learned meanwhile may have moved it
        if let Some(room) = emitting {
            room.forget(); // until it is settled
        }
        Ok(Ticket { route, lane: ask.lane, emits: ask.emits })
    }

    /// Returns what becomes of a request that has waited as long as it may.
    fn time_is_up(&self, ask: &Ask<'_>) -> NotNow {
        if ask.not_after.is_some_and(|not_after| ask.leave_at.is_none_or(|leave_at| not_after <= leave_at)) {
            return NotNow::Passed;
        }
        let line = self.lines.of(self.lines.route(ask.method, ask.route));
        NotNow::ComeAgain(line.aside(ask.lane).unwrap_or_default())
    }

    /// Has a message put aside that would stand in a line which is long enough.
    fn check_length(&self, line: &Line, ask: &Ask<'_>) -> Result<(), NotNow> {
        if ask.patience == Patience::ComeAgain
            && line.waiting(ask.lane).load(Ordering::Relaxed) >= self.line_max()
            && let Some(wait) = line.aside(ask.lane)
        {
            return Err(NotNow::ComeAgain(wait));
        }
        Ok(())
    }

    /// Stands in the line that the route has now; false when it has another one before its turn came.
    async fn stand(&self, route: usize, ask: &Ask<'_>) -> Result<bool, NotNow> {
        let line = self.lines.of(route);
        if !line.is_waited_for() && self.ask(line, route, ask.lane).is_ok() {
            return Ok(true);
        }
        self.check_length(line, ask)?;
        self.wait(line, route, ask).await
    }

    /// Waits in line for a lane's turn and then for the budget, unless that is in vain; false when the route
    /// has another line by now.
    async fn wait(&self, line: &Line, route: usize, ask: &Ask<'_>) -> Result<bool, NotNow> {
        let _leaving = Leaving(&line.changed);
        let _standing = Standing::new(line.waiting(ask.lane));
        let _counted = (ask.lane == Lane::Bulk).then(|| Standing::new(&self.bulk_waiting));
        let turn = line.turn(ask.lane).acquire();
        tokio::pin!(turn);
        let _turn = loop {
            let exhausted = line.exhausted.notified();
            if has_moved(self.lines.place(route), line) {
                return Ok(false);
            }
            check_hope(Some(self.not_before(line)), ask.not_after)?;
            tokio::select! {
                biased;
                turn = &mut turn => break turn.expect("the line is never closed"),
                () = exhausted => {}
            }
        };
        loop {
            let (changed, freed) = (line.changed.notified(), self.freed.notified());
            let held = match self.head_asks(line, route, ask.lane) {
                Ok(()) => return Ok(true),
                Err(Held::Moved) => return Ok(false),
                Err(held) => held,
            };
            check_hope(Some(self.not_before(line)), ask.not_after)?;
            let (until, is_slot) = match held {
                Held::Slots(until) => (until, true),
                Held::Bucket(until) => (until, false),
                Held::Yields | Held::Moved => (NotUntil::NextAnswer, false),
            };
            let soon = Instant::now() + LOOK_AGAIN;
            let look_again = match until {
                NotUntil::At(until) => Instant::from_std(until).min(soon),
                NotUntil::NextAnswer => soon,
            };
            tokio::select! {
                () = sleep_until(look_again) => {}
                () = changed => {}
                () = freed, if is_slot => {}
            }
        }
    }

    /// The first moment at which bucket and ceiling have room for anybody, as far as is known.
    pub(super) fn not_before(&self, line: &Line) -> Instant {
        let own = self.own.as_ref().map(|own| own.lock().unwrap_or_else(PoisonError::into_inner));
        own.and_then(|own| own.full_until()).map_or(line.not_before(), |full| full.max(line.not_before()))
    }

    /// The head of a lane asks; bulk yields to whoever waits in front of it.
    fn head_asks(&self, line: &Line, route: usize, lane: Lane) -> Result<(), Held> {
        if lane == Lane::Bulk && line.waiting(Lane::Interactive).load(Ordering::Relaxed) > 0 {
            let moved = has_moved(self.lines.place(route), line);
            return Err(if moved { Held::Moved } else { Held::Yields });
        }
        self.ask(line, route, lane)
    }

    /// Asks for a slot, the ledger and the ceilings once.
    fn ask(&self, line: &Line, route: usize, lane: Lane) -> Result<(), Held> {
        let now = Instant::now();
        let mut slots = self.slots();
        slots.check(now.into_std(), lane).map_err(Held::Slots)?;
        let backlog = self.backlog(line, &slots, now);
        let mut own = self.own.as_ref().map(|own| own.lock().unwrap_or_else(PoisonError::into_inner));
        let was_full = own.as_ref().and_then(|own| own.full_until());
        let place = (route, self.lines.place(route));
        let asked = line.ask(place, lane, backlog, own.as_deref_mut());
        let is_full = own.as_ref().and_then(|own| own.full_until());
        drop(own);
        if is_full > was_full {
            line.exhausted.notify_waiters();
        }
        let Some((asked, turn)) = asked else { return Err(Held::Moved) };
        if asked.is_ok() {
            slots.take(lane);
        }
        drop(slots);
        match turn {
            Turn::Unchanged => {}
            Turn::Exhausted(until) => {
                line.exhausted.notify_waiters();
                let wait = until.saturating_duration_since(now);
                self.note(&Event::BucketExhausted {
                    connection: &self.terms.connection,
                    bucket: line.bucket,
                    wait,
                });
            }
            Turn::Recovered => self.note_recovered(line.bucket),
        }
        if asked.is_ok() {
            self.news.notify_one();
        }
        if asked.is_ok() && lane == Lane::Bulk {
            self.admitted.fetch_add(1, Ordering::Relaxed);
        }
        asked.map_err(Held::Bucket)
    }

    /// How many bulk requests are known to wait for a bucket, in all workers.
    ///
    /// With little in hand the queue is empty. With much in hand only the broker's count says what is
    /// behind, as long as it was made since and has not been used up.
    fn backlog(&self, line: &Line, slots: &Slots, now: Instant) -> Backlog {
        let mut counted = self.backlog.lock().unwrap_or_else(PoisonError::into_inner);
        let workers = u64::from(counted.census.workers);
        let standing = line.waiting(Lane::Bulk).load(Ordering::Relaxed) as u64 + 1;
        let here = standing + line.expected_back();
        let in_hand = self.bulk_waiting.load(Ordering::Relaxed) + slots.busy(Lane::Bulk) as usize;
        let queued = if in_hand < self.line_max() {
            counted.full_since = None;
            0
        } else {
            let since = *counted.full_since.get_or_insert(now);
            let used = (self.admitted.load(Ordering::Relaxed) - counted.admitted) * workers;
            if counted.at.is_none_or(|at| at <= since) || used > counted.census.queued {
                return None;
            }
            counted.census.queued
        };
        // What is on its way goes on as often as an invocation calls.
        let begun = (u64::from(slots.busy(Lane::Bulk)) * workers) as f64 * (counted.calls - 1.0);
        Some(((queued + here * workers) as f64 * counted.calls + begun).ceil() as u64)
    }

    fn note_recovered(&self, bucket: Bucket) {
        self.note(&Event::BucketRecovered { connection: &self.terms.connection, bucket });
    }

    fn note(&self, event: &Event<'_>) {
        self.observer.note(event);
    }
}

#[async_trait]
impl Budget for Arc<Gate> {
    async fn admit(&self, ask: Ask<'_>) -> Result<Permit, NotNow> {
        if ask.not_after.is_some_and(|at| at <= Instant::now()) {
            return Err(NotNow::Passed);
        }
        let let_through = self.let_through(&ask);
        let ticket = match ask.not_after.into_iter().chain(ask.leave_at).min() {
            None => let_through.await?,
            Some(at) => timeout_at(at, let_through).await.unwrap_or_else(|_| Err(self.time_is_up(&ask)))?,
        };
        Ok(Permit::new(Arc::<Gate>::clone(self), ticket))
    }

    fn workers(&self) -> u32 {
        self.census().workers
    }

    fn delayed_max(&self) -> usize {
        self.terms.prefetch.saturating_mul(DELAYED_PER_PREFETCH)
    }

    fn concluded(&self, lane: Lane, requests: u32) {
        /// Over so many invocations the mean fades.
        const MEMORY: f64 = 32.0;
        if lane == Lane::Bulk && requests > 0 {
            let mut counted = self.backlog.lock().unwrap_or_else(PoisonError::into_inner);
            counted.calls += (f64::from(requests) - counted.calls) / MEMORY;
        }
    }
}

impl Account for Gate {
    fn settle(&self, ticket: Ticket, heard: Heard) {
        let Settled { bucket, lowered, gone } = self.lines.settle(ticket.route, heard);
        {
            let mut slots = self.slots();
            slots.release(ticket.lane);
            if heard.told == Told::Crowded {
                slots.shrink(heard.at, fastrand::f64());
            }
        }
        if ticket.emits {
            self.emitting[ticket.lane as usize].leave();
        }
        self.freed.notify_waiters();
        self.news.notify_one();
        if let Some(gone) = gone {
            self.note_recovered(gone);
        }
        if let Some(lowered) = lowered {
            let connection = &self.terms.connection;
            let (from, to) = (lowered.from, lowered.to);
            self.note(&Event::LimitLowered { connection, bucket, from, to });
        }
    }
}

#[async_trait]
impl Gossip for Gate {
    async fn news(&self) {
        tokio::select! {
            () = self.news.notified() => {}
            () = sleep(NEWS_EVERY) => {}
        }
    }

    fn tell(&self) -> Vec<Signal> {
        self.lines.in_use().filter_map(Line::tell).collect()
    }

    fn hear(&self, signal: &Signal) {
        if let Some(line) = self.lines.in_use().find(|line| line.name() == signal.ledger) {
            line.hear(signal);
        }
    }

    fn counted(&self, census: Census) {
        let census = Census { workers: census.workers.max(1), ..census };
        {
            let mut counted = self.backlog.lock().unwrap_or_else(PoisonError::into_inner);
            counted.census = census;
            counted.at = Some(Instant::now());
            counted.admitted = self.admitted.load(Ordering::Relaxed);
        }
        let workers = census.workers;
        self.slots().count(workers);
        self.terms.callers.count(workers);
        self.lines.count(workers);
        if let Some(own) = &self.own {
            own.lock().unwrap_or_else(PoisonError::into_inner).count(workers);
        }
    }
}
