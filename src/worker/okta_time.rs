//! How far the machine's clock is from Okta's, as a connection's answers told.
//!
//! Workers run on several machines, and the clock of one may be wrong by hours. What they tell each other of an
//! invocation's history is therefore told by Okta's clock as soon as that is known, which all of them hear alike.
//! Invariant: what was learned is kept beside tokio's clock, so it stays true when somebody sets the machine's.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use super::clock::Clock;

/// A machine's clock that is not further off than this is taken to be right: Okta's `Date` has whole seconds, and
/// its answer takes its way.
const RIGHT: SignedDuration = SignedDuration::from_secs(2);

/// A `Date` further from the machine's clock than this is not believed: no machine is off by that much and runs,
/// but what stands between Okta and the worker may write anything.
pub(super) const AHEAD_MAX: SignedDuration = SignedDuration::from_hours(26);

/// What one connection has told of Okta's clock.
#[derive(Debug, Default)]
pub(super) struct OktaTime {
    told: Mutex<Option<Told>>,
    /// When Okta was asked for it last. Held while that goes on.
    pub asked: tokio::sync::Mutex<Option<Instant>>,
}

/// What Okta's clock showed, and when.
#[derive(Debug, Clone, Copy)]
struct Told {
    date: Timestamp,
    at: Instant,
}

impl OktaTime {
    /// An answer of Okta's that has just come carried this `Date`.
    pub fn learn(&self, date: Timestamp) {
        let told = Told { date, at: Instant::now() };
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = Some(told);
    }

    /// How far Okta's clock is ahead of the machine's now; `None`: that is not known.
    pub fn ahead(&self, clock: &Clock) -> Option<SignedDuration> {
        let Told { date, at } = (*self.told.lock().unwrap_or_else(PoisonError::into_inner))?;
        let now: Duration = at.elapsed();
        let ahead = date.saturating_add(now).ok()?.duration_since(clock.now());
        match ahead.abs() {
            off if off <= RIGHT => Some(SignedDuration::ZERO),
            off if off <= AHEAD_MAX => Some(ahead),
            _ => None,
        }
    }
}

/// A moment as a worker tells the time of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moment {
    /// The time by the machine's clock.
    pub at: Timestamp,
    /// Which clock that is.
    pub clock: u64,
    /// How far Okta's clock is ahead of it, as far as that is known.
    pub ahead: Option<SignedDuration>,
}

impl Moment {
    /// Now, for a connection whose Okta's clock is so far ahead.
    pub fn now(clock: &Clock, ahead: Option<SignedDuration>) -> Self {
        Self { at: clock.now(), clock: clock.number(), ahead }
    }
}

/// A time of the machine's clock by Okta's, as far as that is known.
pub(super) fn by_okta(at: Timestamp, ahead: Option<SignedDuration>) -> Timestamp {
    at.saturating_add(ahead.unwrap_or_default()).unwrap_or(at)
}

/// A time of Okta's clock by the machine's, as far as that is known.
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
        // The machine's clock is set, and Okta's is still where it was.
        time.learn(base);
        tokio::time::advance(Duration::from_secs(100)).await;
        set.store(3600, Ordering::Relaxed);
        assert_eq!(time.ahead(&clock), Some(SignedDuration::from_secs(-3600)));
        assert_eq!(by_machine(by_okta(base, time.ahead(&clock)), time.ahead(&clock)), base);
    }
}
