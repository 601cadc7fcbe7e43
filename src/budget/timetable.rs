//! The times at which delayed messages come back, and the delay for one more.
//!
//! A message should be back a little before its turn: a late one leaves the bucket idle, an early one needs another
//! delay. Its turn comes when the waiting requests, and those that come back before it, have been sent at an even pace.
//! The timetable knows only the times of returns. A message that does not come back needs no cleanup, because every
//! entry ends at its time.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::domain::topology::DELAY_TIERS;

/// The longest delay of a message: by then workers may have come or left.
const DELAY_MAX: Duration = Duration::from_secs(300);

/// The messages that are expected back.
#[derive(Debug, Clone)]
pub(super) struct Timetable {
    begun: Instant,
    /// The number of returns in each second since then.
    returns: BTreeMap<u64, u32>,
}

impl Timetable {
    /// Creates an empty timetable.
    pub fn new() -> Self {
        Self { begun: Instant::now(), returns: BTreeMap::new() }
    }

    /// Returns the delay for one more message, if `waiting` requests wait, the bucket opens after `opens_in`, and
    /// `pace` requests go per second. `None` if its turn comes before the shortest delay queue returns it.
    pub fn put(&mut self, now: Instant, waiting: usize, opens_in: Duration, pace: f64) -> Option<Duration> {
        let turn = self.turn(now, waiting, opens_in, pace);
        let (_, tier) =
            DELAY_TIERS.into_iter().rfind(|(_, tier)| tier.as_secs_f64() <= turn && *tier <= DELAY_MAX)?;
        *self.returns.entry(self.second(now + tier)).or_default() += 1;
        Some(tier)
    }

    /// Returns the seconds until every earlier request has been sent.
    fn turn(&mut self, now: Instant, waiting: usize, opens_in: Duration, pace: f64) -> f64 {
        self.forget(now);
        let begin = self.second(now);
        let mut turn = opens_in.as_secs_f64() + waiting as f64 / pace;
        for (second, count) in &self.returns {
            let returns_in = (second - begin) as f64;
            if returns_in > turn {
                break;
            }
            turn += f64::from(*count) / pace;
        }
        turn
    }

    /// Returns the number of messages expected back.
    pub fn expected(&mut self, now: Instant) -> u64 {
        self.forget(now);
        self.returns.values().map(|count| u64::from(*count)).sum()
    }

    /// Forgets the messages that are back at the bucket gate, or in their queue.
    fn forget(&mut self, now: Instant) {
        let begin = self.second(now);
        while let Some(entry) = self.returns.first_entry().filter(|entry| *entry.key() <= begin) {
            entry.remove();
        }
    }

    fn second(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.begun).as_secs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN: Duration = Duration::ZERO;

    fn counted(timetable: &mut Timetable, now: Instant, count: usize, pace: f64) -> BTreeMap<u64, usize> {
        let mut counted = BTreeMap::new();
        for _ in 0..count {
            let wait = timetable.put(now, 16, OPEN, pace).map_or(0, |wait| wait.as_secs());
            *counted.entry(wait).or_default() += 1;
        }
        counted
    }

    #[test]
    fn who_is_next_comes_back_first_and_nobody_after_its_turn() {
        let now = Instant::now();
        let mut timetable = Timetable::new();
        // Sixteen waiting requests take 10.7 s at this pace.
        let waits = counted(&mut timetable, now, 1000, 1.5);
        let expected = BTreeMap::from([(5, 7), (15, 67), (60, 90), (120, 270), (300, 566)]);
        assert_eq!(waits, expected);
        assert_eq!(timetable.expected(now), 1000);
    }

    #[test]
    fn who_comes_back_and_must_leave_again_stays_before_those_who_return_later() {
        let now = Instant::now();
        let mut timetable = Timetable::new();
        counted(&mut timetable, now, 1000, 1.5);
        let later = now + Duration::from_secs(15);
        assert_eq!(timetable.expected(later), 1000 - 74);
        let waits = counted(&mut timetable, later, 50, 1.5);
        assert!(waits.keys().all(|wait| *wait <= 15), "{waits:?}");
    }

    #[test]
    fn while_a_bucket_is_exhausted_all_come_back_when_it_opens() {
        let now = Instant::now();
        let mut timetable = Timetable::new();
        let wait = timetable.put(now, 16, Duration::from_secs(130), 10.0);
        assert_eq!(wait, Some(Duration::from_secs(120)));
    }

    #[test]
    fn a_short_line_is_waited_in() {
        assert_eq!(Timetable::new().put(Instant::now(), 16, OPEN, 20.0), None);
    }
}
