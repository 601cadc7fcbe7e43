//! All lines of a gate: which request stands in which, and how requests move when that was wrong.
//!
//! A route has a number, and a place by it: its line. Every request that is on its way is counted in the
//! line of its route, whatever line it was admitted in. Invariant: a place changes only under the lock of
//! the line that is left, together with what is on the way, so nothing is lost or counted twice.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use http::Method;

use super::pure::bucket_map::{Answer, BUCKETS, Change, Keys, Kind, LINES_MAX, ROUTES_MAX, Route};
use super::pure::window::{Heard, Share, Told};
use crate::domain::bucket::Bucket;

use super::bucket_gate::{Line, Lowered};

/// The lines of one connection.
pub(super) struct Lines {
    share: Share,
    worker: u32,
    workers: AtomicU32,
    /// Those of the buckets, and those of routes that were split off, once they are.
    lines: [OnceLock<Line>; LINES_MAX],
    routes: [OnceLock<Route>; ROUTES_MAX],
    /// The line of each route.
    places: [AtomicUsize; LINES_MAX],
    keys: Mutex<Keys>,
}

/// What an answer changed, besides what its line knows.
pub(super) struct Settled {
    /// The bucket of the line.
    pub bucket: Bucket,
    /// Its limit, when it was lowered.
    pub lowered: Option<Lowered>,
    /// A line that is no longer used had nothing left, which nobody will hear the end of.
    pub gone: Option<Bucket>,
}

impl Lines {
    /// The lines of the table.
    pub fn new(share: Share, worker: u32) -> Self {
        let lines = Self {
            share,
            worker,
            workers: AtomicU32::new(1),
            lines: [const { OnceLock::new() }; LINES_MAX],
            routes: [const { OnceLock::new() }; ROUTES_MAX],
            places: std::array::from_fn(AtomicUsize::new),
            keys: Mutex::new(Keys::new(share.length)),
        };
        for bucket in Bucket::ALL {
            lines.open(bucket as usize);
        }
        lines
    }

    fn keys(&self) -> MutexGuard<'_, Keys> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of a route.
    pub fn route(&self, method: &Method, template: &'static str) -> usize {
        for (at, known) in self.routes.iter().enumerate() {
            match known.get() {
                Some(known) if known.template == template && known.method == *method => return BUCKETS + at,
                Some(_) => {}
                None => return self.register(&Route { method: method.clone(), template }),
            }
        }
        Bucket::of(method, template) as usize
    }

    /// Gives a route a number that is seen for the first time.
    fn register(&self, route: &Route) -> usize {
        let mut keys = self.keys();
        let number = keys.number(route);
        if let Some(slot) = number.checked_sub(BUCKETS).and_then(|at| self.routes.get(at)) {
            self.places[number].store(keys.line(number), Ordering::Release);
            slot.get_or_init(|| route.clone());
        }
        number
    }

    /// The line in which requests of this route stand now.
    pub fn of(&self, route: usize) -> &Line {
        self.open(self.places[route].load(Ordering::Acquire))
    }

    fn open(&self, number: usize) -> &Line {
        self.lines[number].get_or_init(|| {
            let route = number.checked_sub(BUCKETS).and_then(|at| self.routes[at].get());
            let (bucket, name) = match route {
                Some(route) => (route.bucket(), route.line_name()),
                None => (Bucket::ALL[number], Bucket::ALL[number].to_string()),
            };
            let line = Line::new(number, bucket, name, self.share, self.worker);
            line.count(self.workers.load(Ordering::Relaxed));
            line
        })
    }

    /// Those that have requests to serve.
    pub fn in_use(&self) -> impl Iterator<Item = &Line> {
        let is_used = |line: &&Line| self.places.iter().any(|at| at.load(Ordering::Acquire) == line.number);
        self.lines.iter().filter_map(OnceLock::get).filter(is_used)
    }

    /// The broker counted the workers.
    pub fn count(&self, workers: u32) {
        self.workers.store(workers, Ordering::Relaxed);
        for line in self.lines.iter().filter_map(OnceLock::get) {
            line.count(workers);
        }
    }

    /// The place of a route, for its line to look at under its lock.
    pub fn place(&self, route: usize) -> &AtomicUsize {
        &self.places[route]
    }

    /// A request is over: first what its answer says of the table, then of the window.
    pub fn settle(&self, route: usize, heard: Heard) -> Settled {
        let gone = self.learn(route, heard);
        loop {
            let line = self.of(route);
            if let Some(lowered) = line.settle(route, &self.places[route], heard) {
                return Settled { bucket: line.bucket, lowered, gone };
            }
        }
    }

    /// Learns where the route is counted; the bucket of a line that went while it was exhausted.
    fn learn(&self, route: usize, heard: Heard) -> Option<Bucket> {
        let Told::Rate(rate) = heard.told else { return None };
        let mut keys = self.keys();
        let change = keys.learn(route, Answer { rate, sent: heard.sent, at: heard.at })?;
        self.apply(&change)
    }

    /// Moves routes to another line. The keys are locked, so nothing else moves meanwhile.
    fn apply(&self, change: &Change) -> Option<Bucket> {
        let (from, to) = (self.open(change.from), self.open(change.to));
        let places = change.routes.iter().map(|route| (*route, &self.places[*route]));
        match change.kind {
            Kind::Merge => from.merge_into(to, places).then_some(from.bucket),
            Kind::Split { rest } => {
                from.split_into(to, places, &rest);
                None
            }
        }
    }
}

/// Whether a route has another line than this by now.
pub(super) fn has_moved(place: &AtomicUsize, line: &Line) -> bool {
    place.load(Ordering::Acquire) != line.number
}
