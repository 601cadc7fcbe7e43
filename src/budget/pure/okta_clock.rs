//! The offset of Okta's clock from ours: an interval that every answer narrows.
//!
//! A `Date` is Okta's time, rounded down, at some moment between the sending of a request and the arrival of its
//! answer. So Okta's clock is at or past the `Date` when the answer arrives, and was less than a second past it when
//! the request was sent. The machine's own time of day is never read. Invariant: the true offset lies in the interval,
//! as long as clocks drift by less than [`CLOCK_DRIFT`].

use std::time::{Duration, Instant};

use super::constants::CLOCK_DRIFT;

/// The known offset of Okta's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct OktaClock {
    known: Option<ClockBounds>,
}

/// The seconds of Okta's clock since `base_second`, minus those of ours since `base`: between `least` and
/// `most`.
#[derive(Debug, Clone, Copy)]
struct ClockBounds {
    base: Instant,
    base_second: i64,
    least: f64,
    most: f64,
    at: Instant,
}

impl OktaClock {
    /// Records an answer with this `Date`, in seconds.
    pub fn learn(&mut self, date: i64, sent: Instant, received: Instant) {
        let took = received.saturating_duration_since(sent).as_secs_f64();
        let fresh =
            ClockBounds { base: received, base_second: date, least: 0.0, most: 1.0 + took, at: received };
        let narrowed = self.known.map(|known| known.widened(received).narrowed(date, sent, received));
        // An empty interval means that a clock was set: the old interval is obsolete.
        self.known = Some(narrowed.filter(|known| known.least <= known.most).unwrap_or(fresh));
    }

    /// Returns the moment by which Okta's clock has certainly reached this second.
    pub fn reached_by(&self, second: i64) -> Option<Instant> {
        let known = self.known?;
        let ahead = (second - known.base_second) as f64 - known.least;
        moment(known.base, ahead)
    }

    /// Returns the moment before which Okta's clock has certainly not reached this second.
    pub fn not_reached_before(&self, second: i64) -> Option<Instant> {
        let known = self.known?;
        let ahead = (second - known.base_second) as f64 - known.most;
        moment(known.base, ahead)
    }
}

impl ClockBounds {
    fn widened(self, now: Instant) -> Self {
        let drift = now.saturating_duration_since(self.at).as_secs_f64() * CLOCK_DRIFT;
        Self { least: self.least - drift, most: self.most + drift, at: now.max(self.at), ..self }
    }

    fn narrowed(self, date: i64, sent: Instant, received: Instant) -> Self {
        let ahead = (date - self.base_second) as f64;
        Self {
            least: self.least.max(ahead - seconds_between(self.base, received)),
            most: self.most.min(ahead + 1.0 - seconds_between(self.base, sent)),
            ..self
        }
    }
}

/// Returns the seconds from one moment to another; negative if it was before.
fn seconds_between(from: Instant, to: Instant) -> f64 {
    to.saturating_duration_since(from).as_secs_f64() - from.saturating_duration_since(to).as_secs_f64()
}

fn moment(base: Instant, ahead: f64) -> Option<Instant> {
    let distance = Duration::try_from_secs_f64(ahead.abs()).ok()?;
    if ahead < 0.0 { Some(base.checked_sub(distance).unwrap_or(base)) } else { base.checked_add(distance) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn one_answer_bounds_the_clock_by_a_second_and_the_time_it_took() {
        let sent = Instant::now();
        let received = sent + SECOND / 2;
        let mut clock = OktaClock::default();
        assert_eq!(clock.reached_by(160), None);
        clock.learn(100, sent, received);
        assert_eq!(clock.reached_by(160), Some(received + 60 * SECOND));
        assert_eq!(clock.not_reached_before(160), Some(sent + 59 * SECOND));
    }

    #[test]
    fn answers_just_after_a_second_began_and_just_before_it_ends_narrow_it() {
        let start = Instant::now();
        let ms = |ms: u64| start + Duration::from_millis(ms);
        let mut clock = OktaClock::default();
        // Okta's second 100 begins at our 0 ms.
        clock.learn(100, ms(900), ms(990));
        clock.learn(101, ms(1000), ms(1010));
        let by = clock.reached_by(102).unwrap().duration_since(start).as_secs_f64();
        let not_before = clock.not_reached_before(102).unwrap().duration_since(start).as_secs_f64();
        assert!((2.0..2.02).contains(&by), "{by}");
        assert!((1.85..=2.0).contains(&not_before), "{not_before}");
    }

    #[test]
    fn a_clock_that_was_set_is_learned_anew() {
        let start = Instant::now();
        let mut clock = OktaClock::default();
        clock.learn(100, start, start);
        clock.learn(400, start + SECOND, start + SECOND);
        assert_eq!(clock.reached_by(401), Some(start + 2 * SECOND));
    }
}
