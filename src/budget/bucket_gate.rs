//! The gate of one bucket: its ledger, its ceiling, and the requests that wait at it.
//!
//! The ledger decides when a request may go. The ceiling is a second bound: if answers announce a limit, it
//! bounds the requests that a fault in the ledger could spend; if they announce none, it is the whole budget.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

use super::pure::bucket_map::GATES_MAX;
use super::pure::ledger::{Backlog, Ledger};
use super::pure::observation::RateAnswer;
use super::pure::signal::Signal;
use super::pure::window::{NotUntil, Observed, QuotaShare};
use crate::domain::bucket::Bucket;
use crate::domain::ids::Lane;

use super::ceiling::{Ceiling, PerMinute};
use super::timetable::Timetable;

/// The longest time without gossip about a window, even if nothing is new.
const GOSSIP_EVERY: Duration = Duration::from_secs(5);

/// The gate of one bucket of one connection.
pub(super) struct BucketGate {
    /// The number of the bucket gate in the connection's gate.
    pub number: usize,
    /// The bucket, for labels.
    pub bucket: Bucket,
    /// The name of the ledger, the same in every worker.
    name: String,
    worker: u32,
    share: QuotaShare,
    state: Mutex<BucketState>,
    /// One turn per lane: only the head of a lane asks, so no request overtakes, and there is no thundering herd.
    turns: [Semaphore; Lane::ALL.len()],
    waiting: [AtomicUsize; Lane::ALL.len()],
    /// A notification that the head of a lane may ask again.
    pub changed: Notify,
    /// A notification that the bucket has just become exhausted: waiting requests check if they are now too late.
    pub exhausted: Notify,
}

struct BucketState {
    ledger: Ledger,
    /// Requests in flight, by route.
    in_flight: [u32; GATES_MAX],
    workers: u32,
    ceiling: Ceiling,
    /// The limit that the ceiling enforces: the announced one, or a share of the default among this many workers.
    enforced: Enforced,
    is_exhausted: bool,
    has_news: bool,
    signalled_at: Instant,
    /// The returns of messages that were delayed because of this bucket gate.
    timetable: Timetable,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Enforced {
    Announced(u32),
    Unannounced { workers: u32 },
}

/// A limit that one answer has lowered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lowered {
    /// The limit before.
    pub from: u32,
    /// The limit now.
    pub to: u32,
}

/// The change of the bucket's state caused by one request for admission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    /// The bucket has just become exhausted, until this moment.
    Exhausted(Instant),
    /// The bucket was exhausted and is not any longer.
    Recovered,
    /// Nothing has changed.
    Unchanged,
}

impl BucketGate {
    /// Creates the gate of a bucket without any observations.
    pub fn new(number: usize, bucket: Bucket, name: String, share: QuotaShare, worker: u32) -> Self {
        Self {
            number,
            bucket,
            name,
            worker,
            share,
            state: Mutex::new(BucketState {
                ledger: Ledger::new(share, worker),
                in_flight: [0; GATES_MAX],
                workers: 1,
                ceiling: Ceiling::unannounced(share, 1),
                enforced: Enforced::Unannounced { workers: 1 },
                is_exhausted: false,
                has_news: false,
                signalled_at: Instant::now(),
                timetable: Timetable::new(),
            }),
            turns: [Semaphore::new(1), Semaphore::new(1)],
            waiting: [AtomicUsize::new(0), AtomicUsize::new(0)],
            changed: Notify::new(),
            exhausted: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, BucketState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the ledger and the ceilings once; `own` is the connection's own ceiling. Returns `None` if the route has
    /// moved to another bucket gate.
    pub fn ask(
        &self,
        (route, place): (usize, &AtomicUsize),
        lane: Lane,
        backlog: Backlog,
        own: Option<&mut PerMinute>,
    ) -> Option<(Result<(), NotUntil>, Admission)> {
        let now = Instant::now();
        let mut state = self.state();
        if has_moved(place, self) {
            return None;
        }
        let asked = state.ledger.admit(now.into_std(), lane, backlog).and_then(|()| {
            let ceilings = own.map_or(Ok(()), PerMinute::take).and_then(|()| state.ceiling.take());
            ceilings.map_err(|until| {
                state.ledger.withdraw(lane);
                NotUntil::At(until.into_std())
            })
        });
        state.in_flight[route] += u32::from(asked.is_ok());
        state.has_news |= asked.is_ok();
        let until = state.ledger.window().not_before(now.into_std());
        let is_exhausted = asked.is_err() && until > now.into_std();
        let change = match (state.is_exhausted, is_exhausted) {
            (false, true) => Admission::Exhausted(Instant::from_std(until)),
            (true, false) if asked.is_ok() => Admission::Recovered,
            (true, false) | (false, false) | (true, true) => Admission::Unchanged,
        };
        state.is_exhausted = is_exhausted || (state.is_exhausted && asked.is_err());
        Some((asked, change))
    }

    /// Settles a finished request; returns the change of the limit if the answer has lowered it, and `None` if the
    /// route, and the request with it, has moved to another bucket gate.
    pub fn settle(&self, route: usize, place: &AtomicUsize, heard: Observed) -> Option<Option<Lowered>> {
        let mut state = self.state();
        if has_moved(place, self) {
            return None;
        }
        state.in_flight[route] = state.in_flight[route].saturating_sub(1);
        let before = state.ledger.window().limit();
        state.ledger.settle(heard);
        state.enforce(self.share);
        state.has_news = true;
        let after = state.ledger.window().limit();
        drop(state);
        self.changed.notify_waiters();
        let lowered = before.zip(after).filter(|(from, to)| to < from);
        Some(lowered.map(|(from, to)| Lowered { from, to }))
    }

    /// Moves all routes to another bucket gate, which counts them from now on; returns true if this one was exhausted.
    pub fn merge_into<'a>(&self, to: &Self, routes: impl Iterator<Item = (usize, &'a AtomicUsize)>) -> bool {
        let was_exhausted = {
            let (mut state, mut other) = (self.state(), to.state());
            for (route, place) in routes {
                other.in_flight[route] += std::mem::take(&mut state.in_flight[route]);
                place.store(to.number, Ordering::Release);
            }
            other.ledger.absorb(&mut state.ledger);
            other.enforce(self.share);
            (state.has_news, other.has_news) = (false, true);
            std::mem::take(&mut state.is_exhausted)
        };
        self.wake(to);
        was_exhausted
    }

    /// Moves some routes to another bucket gate, which has no observations yet. This bucket gate keeps only the answer
    /// `rest`, of a route that stays: all other observations may be about the routes that leave.
    pub fn split_into<'a>(
        &self,
        to: &Self,
        routes: impl Iterator<Item = (usize, &'a AtomicUsize)>,
        rest: &RateAnswer,
    ) {
        {
            let (mut state, mut other) = (self.state(), to.state());
            for (route, place) in routes {
                let moving = std::mem::take(&mut state.in_flight[route]);
                other.in_flight[route] += moving;
                state.ledger.hand_over(moving, &mut other.ledger);
                place.store(to.number, Ordering::Release);
            }
            state.ledger.begin_anew();
            state.ledger.begin_with(rest);
            state.enforce(self.share);
        }
        self.wake(to);
    }

    /// Wakes the requests at both bucket gates, so that they look up the gate of their route.
    fn wake(&self, to: &Self) {
        for gate in [self, to] {
            gate.exhausted.notify_waiters();
            gate.changed.notify_waiters();
        }
    }

    /// Records another worker's signal about this bucket.
    pub fn hear(&self, signal: &Signal) {
        let mut state = self.state();
        if state.ledger.hear(signal, Instant::now().into_std()) {
            state.enforce(self.share);
            drop(state);
            self.changed.notify_waiters();
        }
    }

    /// Sets the number of workers that the broker counted.
    pub fn count(&self, workers: u32) {
        let mut state = self.state();
        state.workers = workers.max(1);
        state.ledger.count(workers);
        state.enforce(self.share);
        drop(state);
        self.changed.notify_waiters();
    }

    /// Returns the signal for the replicas, if there is news or the last signal was sent long ago.
    pub fn tell(&self) -> Option<Signal> {
        let now = Instant::now();
        let mut state = self.state();
        if !state.has_news && now.duration_since(state.signalled_at) < GOSSIP_EVERY {
            return None;
        }
        state.has_news = false;
        state.signalled_at = now;
        let at_work = state.ledger.window().in_flight() > 0 || self.is_waited_for();
        state.ledger.tell(self.worker, &self.name, at_work, now.into_std())
    }

    /// Returns the name of the ledger, the same in every worker.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the first moment at which the limit has room, as Okta announced it.
    pub fn not_before(&self) -> Instant {
        Instant::from_std(self.state().ledger.window().told_not_before(Instant::now().into_std()))
    }

    /// Returns the semaphore for the turn of a lane.
    pub fn turn(&self, lane: Lane) -> &Semaphore {
        &self.turns[lane as usize]
    }

    /// Returns the number of waiting requests of a lane.
    pub fn waiting(&self, lane: Lane) -> &AtomicUsize {
        &self.waiting[lane as usize]
    }

    /// Returns true if a request waits.
    pub fn is_waited_for(&self) -> bool {
        self.waiting.iter().any(|waiting| waiting.load(Ordering::Relaxed) > 0)
    }

    /// Returns the delay for one more message; `None` if its turn comes soon, or if no limit is known yet.
    pub fn delay(&self, lane: Lane) -> Option<Duration> {
        let now = Instant::now();
        let mut state = self.state();
        let pace = state.even_pace(self.share)?;
        let opens_at = Instant::from_std(state.ledger.window().not_before(now.into_std()));
        let waiting_count = self.waiting(lane).load(Ordering::Relaxed);
        state.timetable.put(now, waiting_count, opens_at.saturating_duration_since(now), pace)
    }

    /// Returns the number of delayed messages that are not back yet.
    pub fn expected_back(&self) -> u64 {
        self.state().timetable.expected(Instant::now())
    }
}

/// Returns true if a route has another bucket gate than this one by now.
pub(super) fn has_moved(place: &AtomicUsize, gate: &BucketGate) -> bool {
    place.load(Ordering::Acquire) != gate.number
}

impl BucketState {
    /// Returns the requests per second if the worker's part of the window is spread evenly over it.
    fn even_pace(&self, share: QuotaShare) -> Option<f64> {
        let window = self.ledger.window();
        let ours = f64::from(window.ours(window.limit()?));
        Some(ours / share.length.as_secs_f64() / f64::from(self.workers))
    }

    /// Replaces the ceiling if the limit that it enforces has changed.
    fn enforce(&mut self, share: QuotaShare) {
        let window = self.ledger.window();
        let enforced = match window.limit() {
            Some(limit) => Enforced::Announced(limit),
            None => Enforced::Unannounced { workers: self.workers },
        };
        if enforced != self.enforced {
            self.enforced = enforced;
            let ceiling = match enforced {
                Enforced::Announced(limit) => Ceiling::of_window(limit, share),
                Enforced::Unannounced { workers } => Ceiling::unannounced(share, workers),
            };
            self.ceiling = ceiling.in_place_of(&self.ceiling);
        }
    }
}
