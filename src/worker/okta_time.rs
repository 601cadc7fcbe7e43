//! The offset of Okta's clock from the machine's, as observed in the answers on a connection.
//!
//! Workers run on several machines, and the clock of one may be wrong by hours. Therefore the times in an invocation's
//! history are by Okta's clock, which is the same for all workers, as soon as the offset is known. Invariant: an
//! observation is stored with a moment of tokio's clock, so it stays true when the machine's clock is set.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use super::clock::Clock;

/// The offset up to which a machine's clock counts as correct: Okta's `Date` has whole seconds, and the answer takes
/// time to arrive.
const OFFSET_IGNORED_MAX: SignedDuration = SignedDuration::from_secs(2);

/// The offset beyond which a `Date` is not believed: no running machine is off by that much,
/// but an intermediary between Okta and the worker may write anything.
pub(super) const AHEAD_MAX: SignedDuration = SignedDuration::from_hours(26);

/// The observation of Okta's clock on one connection.
#[derive(Debug, Default)]
pub(super) struct OktaTime {
    latest: Mutex<Option<DateObservation>>,
    /// The time of the last request for Okta's time. Locked during such a request.
    pub asked: tokio::sync::Mutex<Option<Instant>>,
}

/// A time of Okta's clock, and the moment of its arrival.
#[derive(Debug, Clone, Copy)]
struct DateObservation {
    date: Timestamp,
    at: Instant,
}

impl OktaTime {
    /// Records the `Date` of an answer of Okta's that has just arrived.
    pub fn learn(&self, date: Timestamp) {
        let latest = DateObservation { date, at: Instant::now() };
        *self.latest.lock().unwrap_or_else(PoisonError::into_inner) = Some(latest);
    }

    /// Returns the time by which Okta's clock is ahead of the machine's now; `None` if that is not known.
    pub fn ahead(&self, clock: &Clock) -> Option<SignedDuration> {
        let DateObservation { date, at } = (*self.latest.lock().unwrap_or_else(PoisonError::into_inner))?;
        let now: Duration = at.elapsed();
        let ahead = date.saturating_add(now).ok()?.duration_since(clock.now());
        match ahead.abs() {
            offset if offset <= OFFSET_IGNORED_MAX => Some(SignedDuration::ZERO),
            offset if offset <= AHEAD_MAX => Some(ahead),
            _ => None,
        }
    }
}

/// A moment, with the clock that it was read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moment {
    /// The time by the machine's clock.
    pub at: Timestamp,
    /// The number of that clock.
    pub clock: u64,
    /// The time by which Okta's clock is ahead of it, if that is known.
    pub ahead: Option<SignedDuration>,
}

impl Moment {
    /// Returns the current moment, for a connection on which Okta's clock is ahead by this time.
    pub fn now(clock: &Clock, ahead: Option<SignedDuration>) -> Self {
        Self { at: clock.now(), clock: clock.number(), ahead }
    }
}

/// Converts a time from the machine's clock to Okta's, if the offset is known.
pub(super) fn by_okta(at: Timestamp, ahead: Option<SignedDuration>) -> Timestamp {
    at.saturating_add(ahead.unwrap_or_default()).unwrap_or(at)
}

/// Converts a time from Okta's clock to the machine's, if the offset is known.
pub(super) fn by_machine(at: Timestamp, ahead: Option<SignedDuration>) -> Timestamp {
    at.saturating_sub(ahead.unwrap_or_default()).unwrap_or(at)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_clock_is_right_or_off_by_what_okta_tells_and_absurd_dates_are_not_believed() {
        let set: &'static AtomicI64 = Box::leak(Box::default());
        let base = Timestamp::from_second(1_000_000).unwrap();
        let clock = Clock::set_by(base, set);
        let time = OktaTime::default();
        assert_eq!(time.ahead(&clock), None);
        let rows = [
            (0, Some(0)),
            (-2, Some(0)),
            (2, Some(0)),
            (3600, Some(3600)),
            (-3600, Some(-3600)),
            (26 * 3600, Some(26 * 3600)),
            (27 * 3600, None),
            (-1_000_000, None),
        ];
        for (ahead, expected) in rows {
            time.learn(Timestamp::from_second(1_000_000 + ahead).unwrap());
            assert_eq!(time.ahead(&clock), expected.map(SignedDuration::from_secs), "{ahead}");
        }
        // The machine's clock is set, Okta's is not.
        time.learn(base);
        tokio::time::advance(Duration::from_secs(100)).await;
        set.store(3600, Ordering::Relaxed);
        assert_eq!(time.ahead(&clock), Some(SignedDuration::from_secs(-3600)));
        assert_eq!(by_machine(by_okta(base, time.ahead(&clock)), time.ahead(&clock)), base);
    }
}
