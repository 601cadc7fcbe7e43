//! The replicas, which are the other workers of the same connection: their number, and the active ones.
//!
//! The broker counts the replicas; their gossip adds their activity. Nothing here relies on the truth or the arrival of
//! a signal: the requests of a silent replica count as external traffic.

use std::time::Instant;

use super::constants::{
    SIBLING_GAPS, SIBLING_SECONDS_MAX, SIBLING_SECONDS_MIN, SIBLINGS_MAX, SIGNAL_SECONDS,
};
use super::signal::Signal;

/// One replica as of its last signal.
#[derive(Debug, Clone, Copy)]
struct Replica {
    worker: u32,
    rate: f64,
    in_flight: u32,
    at_work: bool,
    last_signal: Instant,
}

/// The replicas.
#[derive(Debug, Clone)]
pub struct Replicas {
    worker: u32,
    counted: u32,
    known_replicas: Vec<Replica>,
    last_signal: Option<Instant>,
}

impl Replicas {
    /// Creates the state of a worker without known replicas.
    pub fn new(worker: u32) -> Self {
        Self { worker, counted: 1, known_replicas: Vec::new(), last_signal: None }
    }

    /// Sets the number of workers that the broker counted, this one included.
    pub fn count(&mut self, workers: u32) {
        self.counted = workers.max(1);
        if self.counted == 1 {
            self.known_replicas.clear();
        }
    }

    /// Records a worker's signal; returns false if it was this worker's own.
    pub fn hear(&mut self, signal: &Signal, now: Instant) -> bool {
        if signal.worker == self.worker {
            return false;
        }
        self.last_signal = Some(now);
        let Signal { worker, rate, in_flight, at_work, .. } = *signal;
        let replica = Replica { worker, rate, in_flight, at_work, last_signal: now };
        self.known_replicas
            .retain(|known| known.worker != signal.worker && known.silence(now) <= SIBLING_SECONDS_MAX);
        if self.known_replicas.len() < SIBLINGS_MAX {
            self.known_replicas.push(replica);
        }
        true
    }

    /// Returns the number of all workers, this one included.
    pub fn workers(&self) -> u32 {
        self.counted
    }

    /// Returns true if the replicas have sent a signal recently.
    pub fn is_told(&self, now: Instant) -> bool {
        self.last_signal.is_some_and(|last_signal| seconds(last_signal, now) <= SIBLING_SECONDS_MAX)
    }

    /// Returns the replicas whose signals say that they have work.
    fn at_work(&self, now: Instant) -> impl Iterator<Item = &Replica> {
        self.known_replicas.iter().filter(move |replica| replica.is_at_work(now))
    }

    /// Returns the number of active replicas, by their signals.
    pub fn busy(&self, now: Instant) -> u32 {
        u32::try_from(self.at_work(now).count()).unwrap_or(u32::MAX)
    }

    /// Returns the requests per second of the replicas, by their signals.
    pub fn rate(&self, now: Instant) -> f64 {
        self.at_work(now).map(|replica| replica.rate).sum()
    }

    /// Estimates the requests of the replicas that no answer may have shown yet: those in flight by their
    /// signals, and those that they may have sent since.
    pub fn unseen(&self, now: Instant) -> f64 {
        let unseen = |replica: &Replica| {
            let since = replica.silence(now).min(SIGNAL_SECONDS);
            f64::from(replica.in_flight) + replica.rate * since
        };
        self.known_replicas
            .iter()
            .filter(|replica| replica.silence(now) <= SIBLING_SECONDS_MAX)
            .map(unseen)
            .sum()
    }

    /// Returns the number of active replicas with a lower number than this worker.
    pub fn rank(&self, now: Instant) -> u32 {
        let before = self.at_work(now).filter(|replica| replica.worker < self.worker).count();
        u32::try_from(before).unwrap_or(u32::MAX)
    }
}

impl Replica {
    fn silence(&self, now: Instant) -> f64 {
        seconds(self.last_signal, now)
    }

    fn is_at_work(&self, now: Instant) -> bool {
        let usual = SIBLING_GAPS / self.rate.max(f64::EPSILON);
        self.at_work && self.silence(now) <= usual.clamp(SIBLING_SECONDS_MIN, SIBLING_SECONDS_MAX)
    }
}

fn seconds(from: Instant, to: Instant) -> f64 {
    to.saturating_duration_since(from).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn signal(worker: u32, rate: f64) -> Signal {
        Signal {
            worker,
            ledger: "users".to_owned(),
            reset: 0,
            limit: 600,
            remaining: 600,
            age: Duration::ZERO,
            to_end: Duration::ZERO,
            in_flight: 0,
            rate,
            at_work: true,
        }
    }

    #[test]
    fn who_is_silent_for_three_of_its_own_gaps_is_not_at_work() {
        let now = Instant::now();
        let mut replicas = Replicas::new(5);
        assert!(replicas.hear(&signal(1, 10.0), now));
        assert!(replicas.hear(&signal(9, 0.5), now));
        assert!(!replicas.hear(&signal(5, 99.0), now), "that was this one");
        assert_eq!((replicas.busy(now), replicas.rate(now), replicas.rank(now)), (2, 10.5, 1));
        let later = now + Duration::from_secs(4);
        assert_eq!((replicas.busy(later), replicas.rate(later), replicas.rank(later)), (1, 0.5, 0));
        assert!(replicas.is_told(later));
        assert!(!replicas.is_told(now + Duration::from_secs(16)));
    }

    #[test]
    fn more_workers_than_there_can_be_are_not_remembered() {
        let now = Instant::now();
        let mut replicas = Replicas::new(0);
        for worker in 1..2 * SIBLINGS_MAX as u32 {
            replicas.hear(&signal(worker, 1.0), now);
        }
        assert_eq!(replicas.known_replicas.len(), SIBLINGS_MAX);
    }
}
