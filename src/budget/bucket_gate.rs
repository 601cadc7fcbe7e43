//! One bucket's line: its ledger, its ceiling, and who stands in it.
//!
//! The ledger says when a request may go. The ceiling is a second lock: where answers announce a limit it
//! bounds what a fault in the ledger could spend, where they announce nothing it is the whole budget.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

use super::pure::bucket_map::{Answer, LINES_MAX};
use super::pure::ledger::{Backlog, Ledger};
use super::pure::signal::Signal;
use super::pure::window::{Heard, NotUntil, Share};
use crate::domain::bucket::Bucket;
use crate::domain::ids::Lane;

use super::bucket_gates::has_moved;
use super::ceiling::{Ceiling, PerMinute};
use super::timetable::Timetable;

/// How often a worker tells the others of a window even when it has heard nothing new.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// One bucket of one connection.
pub(super) struct Line {
    /// Which of the gate's lines it is.
    pub number: usize,
    /// Where it is counted, for labels.
    pub bucket: Bucket,
    /// Its name among the workers.
    name: String,
    worker: u32,
    share: Share,
    state: Mutex<State>,
    /// One turn per lane: only the head of a lane asks, so nobody overtakes and nobody wakes a herd.
    turns: [Semaphore; Lane::ALL.len()],
    waiting: [AtomicUsize; Lane::ALL.len()],
    /// The head of a lane may ask again.
    pub changed: Notify,
    /// The bucket has just become exhausted: whoever stands in line may know now that it is in vain.
    pub exhausted: Notify,
}

struct State {
    ledger: Ledger,
    /// Requests on their way, by route.
    on_the_way: [u32; LINES_MAX],
    workers: u32,
    ceiling: Ceiling,
    /// What the ceiling enforces: an announced limit, or what so many workers share where none is.
    enforced: Enforced,
    is_exhausted: bool,
    is_news: bool,
    told_at: Instant,
    /// Messages that were put aside because of this line.
    timetable: Timetable,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Enforced {
    Announced(u32),
    Unannounced { workers: u32 },
}

/// What changed for a bucket by one answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lowered {
    /// The limit before.
    pub from: u32,
    /// The limit now.
    pub to: u32,
}

/// What asking once came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// The bucket had nothing left for us until this moment, and nobody knew yet.
    Exhausted(Instant),
    /// The bucket was exhausted and is no longer.
    Recovered,
    /// All is as it was.
    Unchanged,
}

impl Line {
    /// The line of a bucket nothing is known of.
    pub fn new(number: usize, bucket: Bucket, name: String, share: Share, worker: u32) -> Self {
        Self {
            number,
            bucket,
            name,
            worker,
            share,
            state: Mutex::new(State {
                ledger: Ledger::new(share, worker),
                on_the_way: [0; LINES_MAX],
                workers: 1,
                ceiling: Ceiling::unannounced(share, 1),
                enforced: Enforced::Unannounced { workers: 1 },
                is_exhausted: false,
                is_news: false,
                told_at: Instant::now(),
                timetable: Timetable::new(),
            }),
            turns: [Semaphore::new(1), Semaphore::new(1)],
            waiting: [AtomicUsize::new(0), AtomicUsize::new(0)],
            changed: Notify::new(),
            exhausted: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks ledger and ceilings once; `own` is the connection's own ceiling. `None`: the route has moved to
    /// another line.
    pub fn ask(
        &self,
        (route, place): (usize, &AtomicUsize),
        lane: Lane,
        backlog: Backlog,
        own: Option<&mut PerMinute>,
    ) -> Option<(Result<(), NotUntil>, Turn)> {
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
        state.on_the_way[route] += u32::from(asked.is_ok());
        state.is_news |= asked.is_ok();
        let until = state.ledger.window().not_before(now.into_std());
        let is_exhausted = asked.is_err() && until > now.into_std();
        let turn = match (state.is_exhausted, is_exhausted) {
            (false, true) => Turn::Exhausted(Instant::from_std(until)),
            (true, false) if asked.is_ok() => Turn::Recovered,
            (true, false) | (false, false) | (true, true) => Turn::Unchanged,
        };
        state.is_exhausted = is_exhausted || (state.is_exhausted && asked.is_err());
        Some((asked, turn))
    }

    /// A request is over; the limit, when it was lowered by that. `None`: the route has moved to another
    /// line, and the request with it.
    pub fn settle(&self, route: usize, place: &AtomicUsize, heard: Heard) -> Option<Option<Lowered>> {
        let mut state = self.state();
        if has_moved(place, self) {
            return None;
        }
        state.on_the_way[route] = state.on_the_way[route].saturating_sub(1);
        let before = state.ledger.window().limit();
        state.ledger.settle(heard);
        state.enforce(self.share);
        state.is_news = true;
        let after = state.ledger.window().limit();
        drop(state);
        self.changed.notify_waiters();
        let lowered = before.zip(after).filter(|(from, to)| to < from);
        Some(lowered.map(|(from, to)| Lowered { from, to }))
    }

    /// All routes of this line are counted in another one from now on; whether this one was exhausted.
    pub fn merge_into<'a>(&self, to: &Self, routes: impl Iterator<Item = (usize, &'a AtomicUsize)>) -> bool {
        let was_exhausted = {
            let (mut state, mut other) = (self.state(), to.state());
            for (route, place) in routes {
                other.on_the_way[route] += std::mem::take(&mut state.on_the_way[route]);
                place.store(to.number, Ordering::Release);
            }
            other.ledger.absorb(&mut state.ledger);
            other.enforce(self.share);
            (state.is_news, other.is_news) = (false, true);
            std::mem::take(&mut state.is_exhausted)
        };
        self.wake(to);
        was_exhausted
    }

    /// Some routes of this line are counted in another one from now on, of which nothing is known yet. Of
    /// this one is known what an answer to those that stay told: all else may have been of the other.
    pub fn split_into<'a>(
        &self,
        to: &Self,
        routes: impl Iterator<Item = (usize, &'a AtomicUsize)>,
        rest: &Answer,
    ) {
        {
            let (mut state, mut other) = (self.state(), to.state());
            for (route, place) in routes {
                let moving = std::mem::take(&mut state.on_the_way[route]);
                other.on_the_way[route] += moving;
                state.ledger.hand_over(moving, &mut other.ledger);
                place.store(to.number, Ordering::Release);
            }
            state.ledger.begin_anew();
            state.ledger.begin_with(rest);
            state.enforce(self.share);
        }
        self.wake(to);
    }

    /// Whoever stands in either line looks where it belongs.
    fn wake(&self, to: &Self) {
        for line in [self, to] {
            line.exhausted.notify_waiters();
            line.changed.notify_waiters();
        }
    }

    /// Another worker told of this bucket.
    pub fn hear(&self, signal: &Signal) {
        let mut state = self.state();
        if state.ledger.hear(signal, Instant::now().into_std()) {
            state.enforce(self.share);
            drop(state);
            self.changed.notify_waiters();
        }
    }

    /// The broker counted the workers.
    pub fn count(&self, workers: u32) {
        let mut state = self.state();
        state.workers = workers.max(1);
        state.ledger.count(workers);
        state.enforce(self.share);
        drop(state);
        self.changed.notify_waiters();
    }

    /// What the others should know, if it is new or was not told for long.
    pub fn tell(&self) -> Option<Signal> {
        let now = Instant::now();
        let mut state = self.state();
        if !state.is_news && now.duration_since(state.told_at) < TELL_EVERY {
            return None;
        }
        state.is_news = false;
        state.told_at = now;
        let at_work = state.ledger.window().in_flight() > 0 || self.is_waited_for();
        state.ledger.tell(self.worker, &self.name, at_work, now.into_std())
    }

    /// The name of the ledger among the workers.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The first moment at which the limit has room for anybody, as far as Okta told.
    pub fn not_before(&self) -> Instant {
        Instant::from_std(self.state().ledger.window().told_not_before(Instant::now().into_std()))
    }

    /// Waits for the turn of a lane.
    pub fn turn(&self, lane: Lane) -> &Semaphore {
        &self.turns[lane as usize]
    }

    /// Who counts itself among those who wait in a lane.
    pub fn waiting(&self, lane: Lane) -> &AtomicUsize {
        &self.waiting[lane as usize]
    }

    /// Whether anybody stands in line.
    pub fn is_waited_for(&self) -> bool {
        self.waiting.iter().any(|waiting| waiting.load(Ordering::Relaxed) > 0)
    }

    /// For how long one more message should be put aside; `None` when its turn comes soon, or nothing is
    /// known yet.
    pub fn aside(&self, lane: Lane) -> Option<Duration> {
        let now = Instant::now();
        let mut state = self.state();
        let pace = state.even_pace(self.share)?;
        let opens = Instant::from_std(state.ledger.window().not_before(now.into_std()));
        let standing = self.waiting(lane).load(Ordering::Relaxed);
        state.timetable.put(now, standing, opens.saturating_duration_since(now), pace)
    }

    /// How many messages that were put aside are still to come back.
    pub fn expected_back(&self) -> u64 {
        self.state().timetable.expected(Instant::now())
    }
}

impl State {
    /// Requests per second, when the worker's part of the window is spread evenly over it.
    fn even_pace(&self, share: Share) -> Option<f64> {
        let window = self.ledger.window();
        let ours = f64::from(window.ours(window.limit()?));
        Some(ours / share.length.as_secs_f64() / f64::from(self.workers))
    }

    /// Swaps the ceiling when what it enforces has changed.
    fn enforce(&mut self, share: Share) {
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
