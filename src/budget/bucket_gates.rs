//! All bucket gates of a connection: the assignment of routes to them, and the moves after a correction.
//!
//! A route has a number, and under that number a place: its bucket gate. Every request in flight is counted at the
//! bucket gate of its route, even if another bucket gate has admitted it. Invariant: the place of a route changes only
//! under the lock of the gate that it leaves, and its requests in flight move with it, so none is lost or counted
//! twice.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use http::Method;

use super::pure::bucket_map::{BUCKETS, BucketMap, GATES_MAX, MapChange, MapChangeKind, ROUTES_MAX, Route};
use super::pure::observation::RateAnswer;
use super::pure::window::{Observation, Observed, QuotaShare};
use crate::domain::bucket::Bucket;

use super::bucket_gate::{BucketGate, Lowered};

/// The bucket gates of one connection.
pub(super) struct BucketGates {
    share: QuotaShare,
    worker: u32,
    workers: AtomicU32,
    /// The gates of the buckets, and the gates of routes that have been split off.
    gates: [OnceLock<BucketGate>; GATES_MAX],
    routes: [OnceLock<Route>; ROUTES_MAX],
    /// The bucket gate of each route.
    places: [AtomicUsize; GATES_MAX],
    map: Mutex<BucketMap>,
}

/// The changes caused by an answer, for the gate of the connection.
pub(super) struct SettledAnswer {
    /// The bucket.
    pub bucket: Bucket,
    /// The limit, if it was lowered.
    pub lowered: Option<Lowered>,
    /// The bucket of an exhausted bucket gate that is no longer used, and so never reports a recovery.
    pub gone: Option<Bucket>,
}

impl BucketGates {
    /// Creates the bucket gates of the published table.
    pub fn new(share: QuotaShare, worker: u32) -> Self {
        let gates = Self {
            share,
            worker,
            workers: AtomicU32::new(1),
            gates: [const { OnceLock::new() }; GATES_MAX],
            routes: [const { OnceLock::new() }; ROUTES_MAX],
            places: std::array::from_fn(AtomicUsize::new),
            map: Mutex::new(BucketMap::new(share.length)),
        };
        for bucket in Bucket::ALL {
            gates.open(bucket as usize);
        }
        gates
    }

    fn map(&self) -> MutexGuard<'_, BucketMap> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the number of a route.
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

    /// Gives a number to a new route.
    fn register(&self, route: &Route) -> usize {
        let mut map = self.map();
        let number = map.number(route);
        if let Some(slot) = number.checked_sub(BUCKETS).and_then(|at| self.routes.get(at)) {
            self.places[number].store(map.gate(number), Ordering::Release);
            slot.get_or_init(|| route.clone());
        }
        number
    }

    /// Returns the bucket gate of this route now.
    pub fn of(&self, route: usize) -> &BucketGate {
        self.open(self.places[route].load(Ordering::Acquire))
    }

    fn open(&self, number: usize) -> &BucketGate {
        self.gates[number].get_or_init(|| {
            let route = number.checked_sub(BUCKETS).and_then(|at| self.routes[at].get());
            let (bucket, name) = match route {
                Some(route) => (route.bucket(), route.gate_name()),
                None => (Bucket::ALL[number], Bucket::ALL[number].to_string()),
            };
            let gate = BucketGate::new(number, bucket, name, self.share, self.worker);
            gate.count(self.workers.load(Ordering::Relaxed));
            gate
        })
    }

    /// Returns the bucket gates that count some route.
    pub fn in_use(&self) -> impl Iterator<Item = &BucketGate> {
        let is_used =
            |gate: &&BucketGate| self.places.iter().any(|at| at.load(Ordering::Acquire) == gate.number);
        self.gates.iter().filter_map(OnceLock::get).filter(is_used)
    }

    /// Sets the number of workers that the broker counted.
    pub fn count(&self, workers: u32) {
        self.workers.store(workers, Ordering::Relaxed);
        for gate in self.gates.iter().filter_map(OnceLock::get) {
            gate.count(workers);
        }
    }

    /// Returns the place of a route, which the bucket gate checks under its lock.
    pub fn place(&self, route: usize) -> &AtomicUsize {
        &self.places[route]
    }

    /// Settles a finished request: its answer first updates the bucket map, then the window.
    pub fn settle(&self, route: usize, heard: Observed) -> SettledAnswer {
        let gone = self.learn(route, heard);
        loop {
            let gate = self.of(route);
            if let Some(lowered) = gate.settle(route, &self.places[route], heard) {
                return SettledAnswer { bucket: gate.bucket, lowered, gone };
            }
        }
    }

    /// Updates the bucket map from an answer; returns the bucket of a merged gate that was exhausted.
    fn learn(&self, route: usize, heard: Observed) -> Option<Bucket> {
        let Observation::Rate(rate) = heard.told else { return None };
        let mut map = self.map();
        let change = map.learn(route, RateAnswer { rate, sent: heard.sent, at: heard.at })?;
        self.apply(&change)
    }

    /// Moves routes to another bucket gate. The bucket map is locked, so no other route moves meanwhile.
    fn apply(&self, change: &MapChange) -> Option<Bucket> {
        let (from, to) = (self.open(change.from), self.open(change.to));
        let places = change.routes.iter().map(|route| (*route, &self.places[*route]));
        match change.kind {
            MapChangeKind::Merge => from.merge_into(to, places).then_some(from.bucket),
            MapChangeKind::Split { rest } => {
                from.split_into(to, places, &rest);
                None
            }
        }
    }
}
