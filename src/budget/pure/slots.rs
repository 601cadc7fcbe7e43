//! The concurrency limit of a connection: requests in flight at once, in all buckets.
//!
//! Okta limits concurrency per org and per token and does not announce the limit: a 429 shows that it was reached. So
//! each such 429 reduces the cap by a factor, and time without one raises it by one. The worker ignores the reset
//! header of such a 429, which is wrong by minutes: slots are free within a second.

use std::time::{Duration, Instant};

use crate::domain::ids::Lane;

use super::constants::{
    CONCURRENT_COUNTS, CONCURRENT_GROW_EVERY, CONCURRENT_INTERACTIVE, CONCURRENT_NEWCOMERS,
    CONCURRENT_SHRINK, CONCURRENT_SHRINK_EVERY,
};
use super::window::NotUntil;

/// The slots of one connection, in one worker.
#[derive(Debug, Clone)]
pub struct Slots {
    /// The slots of all workers together.
    most: u32,
    /// The last counts of the workers. The maximum applies: of several workers that start at once, each sees only those
    /// that started before it.
    workers: [u32; CONCURRENT_COUNTS],
    cap: f64,
    busy: [u32; Lane::ALL.len()],
    /// The end of the pause of bulk work after a 429, so that interactive requests are not refused next.
    bulk_paused_until: Option<Instant>,
    shrunk_at: Option<Instant>,
    grown_at: Option<Instant>,
}

impl Slots {
    /// Creates the slots for all workers together, at least one.
    pub fn new(most: u32) -> Self {
        let most = most.max(1);
        Self {
            most,
            workers: [0; CONCURRENT_COUNTS],
            cap: f64::from(most),
            busy: [0; Lane::ALL.len()],
            bulk_paused_until: None,
            shrunk_at: None,
            grown_at: None,
        }
    }

    /// Sets the number of workers that the broker counted; each gets an equal part. At its first count, a worker
    /// assumes that others have started at the same time, until some more counts are known.
    pub fn count(&mut self, workers: u32) {
        let before = self.ours();
        if self.workers == [0; CONCURRENT_COUNTS] {
            self.workers = [CONCURRENT_NEWCOMERS; CONCURRENT_COUNTS];
        }
        self.workers.rotate_right(1);
        self.workers[0] = workers.max(1);
        // A cap that was never lowered is the whole part, whatever its size.
        self.cap = if self.cap >= before { self.ours() } else { self.cap.min(self.ours()) };
    }

    fn ours(&self) -> f64 {
        let workers = self.workers.into_iter().max().unwrap_or_default().max(1);
        (f64::from(self.most) / f64::from(workers)).max(1.0)
    }

    /// Checks for a free slot.
    ///
    /// # Errors
    /// If none is free for this lane: the time to ask again, or the next answer.
    pub fn check(&mut self, now: Instant, lane: Lane) -> Result<(), NotUntil> {
        self.grow(now);
        if lane == Lane::Bulk
            && let Some(until) = self.bulk_paused_until.filter(|until| now < *until)
        {
            return Err(NotUntil::At(until));
        }
        let cap = self.cap as u32;
        let kept = match lane {
            Lane::Bulk => CONCURRENT_INTERACTIVE.min(cap / 4),
            Lane::Interactive => 0,
        };
        if self.in_flight() + kept >= cap.max(1) {
            return Err(NotUntil::NextAnswer);
        }
        Ok(())
    }

    /// Takes a slot that `check` found free.
    pub fn take(&mut self, lane: Lane) {
        self.busy[lane as usize] += 1;
    }

    /// Releases a slot.
    pub fn release(&mut self, lane: Lane) {
        let busy = &mut self.busy[lane as usize];
        *busy = busy.saturating_sub(1);
    }

    /// Lowers the cap after a 429 about concurrency. `jitter` is between 0 and 1.
    pub fn shrink(&mut self, now: Instant, jitter: f64) {
        self.bulk_paused_until = Some(now + Duration::from_secs_f64(0.2 + 0.3 * jitter.clamp(0.0, 1.0)));
        self.grown_at = Some(now);
        if self.shrunk_at.is_none_or(|at| now.saturating_duration_since(at) >= CONCURRENT_SHRINK_EVERY) {
            self.shrunk_at = Some(now);
            self.cap = (self.cap * CONCURRENT_SHRINK).max(1.0);
        }
    }

    fn grow(&mut self, now: Instant) {
        let Some(since) = self.grown_at else { return };
        let steps = now.saturating_duration_since(since).as_secs() / CONCURRENT_GROW_EVERY.as_secs();
        if steps > 0 {
            self.cap = (self.cap + steps as f64).min(self.ours());
            self.grown_at = (self.cap < self.ours()).then_some(now);
        }
    }

    /// Returns the requests of a lane in flight.
    pub fn busy(&self, lane: Lane) -> u32 {
        self.busy[lane as usize]
    }

    /// Returns the requests in flight.
    fn in_flight(&self) -> u32 {
        self.busy.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(slots: &mut Slots, now: Instant, lane: Lane) -> Result<(), NotUntil> {
        slots.check(now, lane).map(|()| slots.take(lane))
    }

    fn taken(slots: &mut Slots, now: Instant, lane: Lane) -> u32 {
        (0..1000).take_while(|_| take(slots, now, lane).is_ok()).count() as u32
    }

    #[test]
    fn two_slots_are_kept_for_those_who_wait() {
        let now = Instant::now();
        let mut slots = Slots::new(30);
        assert_eq!(taken(&mut slots, now, Lane::Bulk), 28);
        assert_eq!(taken(&mut slots, now, Lane::Interactive), 2);
        slots.release(Lane::Bulk);
        assert_eq!(take(&mut slots, now, Lane::Bulk), Err(NotUntil::NextAnswer));
        assert_eq!(take(&mut slots, now, Lane::Interactive), Ok(()));
    }

    #[test]
    fn workers_share_them_and_each_has_one() {
        let now = Instant::now();
        for (workers, each) in [(1, 3), (8, 3), (100, 1)] {
            let mut slots = Slots::new(30);
            slots.count(workers);
            assert_eq!(taken(&mut slots, now, Lane::Interactive), each, "{workers}");
        }
    }

    #[test]
    fn fewer_workers_are_believed_when_they_were_counted_three_times() {
        let now = Instant::now();
        let mut slots = Slots::new(30);
        let rows = [(2, 3), (2, 3), (2, 15), (3, 10), (1, 10), (1, 10), (1, 30), (6, 5)];
        for (workers, ours) in rows {
            slots.count(workers);
            let got = taken(&mut slots, now, Lane::Interactive);
            assert_eq!(got, ours, "{workers}");
            (0..got).for_each(|_| slots.release(Lane::Interactive));
        }
    }

    #[test]
    fn a_429_shrinks_them_once_a_second_and_quiet_gives_them_back_one_by_one() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        let mut slots = Slots::new(20);
        slots.shrink(now, 0.0);
        slots.shrink(now, 1.0);
        assert_eq!(take(&mut slots, now, Lane::Bulk), Err(NotUntil::At(now + second / 2)));
        assert_eq!(taken(&mut slots, now, Lane::Interactive), 15);
        (0..15).for_each(|_| slots.release(Lane::Interactive));
        slots.shrink(now + second, 0.0);
        assert_eq!(taken(&mut slots, now + 2 * second, Lane::Interactive), 11);
        assert_eq!(taken(&mut slots, now + 11 * second, Lane::Interactive), 1);
        assert_eq!(taken(&mut slots, now + 21 * second, Lane::Interactive), 1);
        assert_eq!(taken(&mut slots, now + 600 * second, Lane::Interactive), 7);
    }
}
