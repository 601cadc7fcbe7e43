//! The estimated time left of a job, from its results. Pure: the time is an argument.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use crate::domain::bucket::Bucket;
use crate::domain::result::RateLimit;

use super::results::Answered;

/// The data for the estimate, from the results of this run.
#[derive(Debug)]
pub(super) struct Outlook {
    /// The share of a limit that the worker uses, in percent.
    capacity_percent: u8,
    /// The length of a window.
    window: Duration,
    answered: u64,
    calls: u64,
    /// The number of results per bucket, each with the latest state of its window.
    buckets: BTreeMap<Bucket, (u64, RateLimit)>,
}

impl Outlook {
    /// Creates an estimate without data.
    pub fn new(capacity_percent: u8, window: Duration) -> Self {
        Self { capacity_percent, window, answered: 0, calls: 0, buckets: BTreeMap::new() }
    }

    /// Records the result of one more row.
    pub fn note(&mut self, result: &Answered) {
        self.answered += 1;
        self.calls += u64::from(result.okta_calls);
        if let Some(rate) = result.rate_limit {
            let (count, last) = self.buckets.entry(rate.bucket).or_insert((0, rate));
            *count += 1;
            // Results may overtake each other: the lower rest in the later window is the newer one.
            if (rate.reset, last.remaining) >= (last.reset, rate.remaining) {
                *last = rate;
            }
        }
    }

    /// Returns the rows per second since this run began.
    pub fn rate(&self, elapsed: Duration) -> Option<f64> {
        (self.answered > 0 && elapsed > Duration::ZERO).then(|| self.answered as f64 / elapsed.as_secs_f64())
    }

    /// Estimates the time for this many rows: at least what the budget of the busiest bucket requires, and at least
    /// what the pace so far predicts.
    pub fn left(&self, rows: u64, now: Timestamp, elapsed: Duration) -> Option<Duration> {
        if rows == 0 {
            return Some(Duration::ZERO);
        }
        let observed = Duration::try_from_secs_f64(rows as f64 / self.rate(elapsed)?).ok()?;
        Some(observed.max(self.budget(rows, now).unwrap_or_default()))
    }

    /// Estimates the time by the budget alone.
    fn budget(&self, rows: u64, now: Timestamp) -> Option<Duration> {
        let (_, rate) = self.buckets.values().max_by_key(|(count, _)| *count)?;
        let usable = f64::from(rate.limit) * f64::from(self.capacity_percent) / 100.0;
        let needed = rows as f64 * self.calls as f64 / self.answered as f64;
        if usable < 1.0 {
            return None;
        }
        let until_reset = Duration::try_from(rate.reset.duration_since(now)).unwrap_or_default();
        let kept = f64::from(rate.limit) - usable;
        let here = if until_reset.is_zero() { usable } else { (f64::from(rate.remaining) - kept).max(0.0) };
        if needed <= here {
            return Some(Duration::ZERO);
        }
        let windows = (needed - here) / usable;
        Duration::try_from_secs_f64(self.window.as_secs_f64() * windows).ok().map(|rest| until_reset + rest)
    }
}

/// Formats a time for people: seconds, minutes, hours.
pub(super) fn words(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..=99 => format!("{seconds} s"),
        seconds @ 100..=5_999 => format!("{} min", seconds.div_ceil(60)),
        seconds => format!("{} h {:02} min", seconds / 3600, seconds % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn answered(calls: u32, remaining: u32) -> Answered {
        let rate = RateLimit { bucket: Bucket::Users, limit: 600, remaining, reset: at(60) };
        let body = r#"{"id":"x.1","status":"succeeded","effect":"applied"}"#;
        Answered { okta_calls: calls, rate_limit: Some(rate), ..Answered::read(body.as_bytes()).unwrap() }
    }

    #[test]
    fn without_a_budget_what_was_seen_goes_on() {
        let mut eta = Outlook::new(90, MINUTE);
        assert_eq!(eta.left(10, at(0), MINUTE), None);
        for _ in 0..20 {
            eta.note(&Answered { rate_limit: None, ..answered(1, 0) });
        }
        assert_eq!(eta.left(40, at(0), Duration::from_secs(10)), Some(Duration::from_secs(20)));
        assert_eq!(eta.left(0, at(0), MINUTE), Some(Duration::ZERO));
    }

    #[test]
    fn a_budget_that_is_used_up_takes_whole_windows() {
        let mut eta = Outlook::new(90, MINUTE);
        eta.note(&answered(2, 61));
        eta.note(&answered(2, 60)); // as much as is left to others
        // 1,080 rows of two calls each need four windows of 540 after this one.
        let left = eta.left(1080, at(30), Duration::from_secs(1));
        assert_eq!(left, Some(Duration::from_secs(540)));
        // With 210 calls left here, 105 rows are sent at once; the pace so far decides.
        eta.note(&Answered {
            rate_limit: Some(RateLimit { bucket: Bucket::Users, limit: 600, remaining: 270, reset: at(120) }),
            ..answered(2, 0)
        });
        assert_eq!(eta.left(105, at(90), Duration::from_secs(3)), Some(Duration::from_secs(105)));
        assert_eq!(eta.left(375, at(90), Duration::from_millis(3)), Some(Duration::from_secs(90)));
    }

    #[test]
    fn times_are_said_as_people_say_them() {
        let said = [7, 99, 100, 5_999, 7_260].map(|seconds| words(Duration::from_secs(seconds)));
        assert_eq!(said, ["7 s", "99 s", "2 min", "100 min", "2 h 01 min"]);
    }
}
