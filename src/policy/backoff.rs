//! Backoff: the limits of retries and the waits between them.
//!
//! This is the only file that uses the crate `backoff`, for its interval arithmetic; the jitter is an argument.

use std::time::Duration;

use backoff::backoff::Backoff;

/// The configured limits of retrying.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryRules {
    /// Attempts in all, the first one included.
    pub attempts_max: u32,
    /// The longest wait before the second attempt; doubles from then on.
    pub base: Duration,
    /// The longest wait of all.
    pub cap: Duration,
}

impl Default for RetryRules {
    fn default() -> Self {
        Self { attempts_max: 5, base: Duration::from_millis(500), cap: Duration::from_secs(30) }
    }
}

impl RetryRules {
    /// Returns the wait after this many failures (1 and up) with full jitter: between zero and the whole
    /// interval, depending on `jitter` (0 to 1), so that workers that failed together do not
    /// retry together.
    pub fn wait(&self, failures: u32, jitter: f64) -> Duration {
        let mut intervals = backoff::ExponentialBackoff {
            current_interval: self.base,
            initial_interval: self.base,
            randomization_factor: 0.0,
            multiplier: 2.0,
            max_interval: self.cap,
            max_elapsed_time: None,
            ..backoff::ExponentialBackoff::default()
        };
        /// The most doublings: 2^32 times any base is beyond any cap.
        const DOUBLINGS_MAX: u32 = 32;
        let mut interval = self.base;
        for _ in 0..failures.clamp(1, DOUBLINGS_MAX) {
            interval = intervals.next_backoff().unwrap_or(self.cap);
        }
        interval.min(self.cap).mul_f64(jitter.clamp(0.0, 1.0))
    }
}

/// The longest wait with the message in hand; for a longer one the message goes to a delay queue.
pub const WAIT_IN_HAND_MAX: Duration = Duration::from_secs(30);

/// The waits while a user, policy or type is set up ("try again in a few minutes", E0000112).
pub const BUSY: RetryRules =
    RetryRules { attempts_max: u32::MAX, base: Duration::from_secs(4), cap: Duration::from_secs(30) };

/// The waits for Okta's read-after-write lag.
pub const LAG: RetryRules =
    RetryRules { attempts_max: 4, base: Duration::from_millis(500), cap: Duration::from_secs(2) };

/// The waits for a resource that this machine lacks.
pub const LOCAL: RetryRules =
    RetryRules { attempts_max: 10, base: Duration::from_secs(1), cap: Duration::from_secs(15) };

/// The waits between probes of a paused connection.
pub const PROBE: RetryRules =
    RetryRules { attempts_max: u32::MAX, base: Duration::from_secs(2), cap: Duration::from_secs(30) };

/// The longest `Retry-After` that the worker obeys: a longer one may come from an intermediary.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60 * 60);

/// Returns the wait in `Retry-After`, in seconds; Okta has not been seen to send it.
pub fn retry_after(headers: &http::HeaderMap) -> Option<Duration> {
    let seconds = headers.get(http::header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_doubles_up_to_the_cap() {
        let rules =
            RetryRules { attempts_max: 5, base: Duration::from_millis(500), cap: Duration::from_secs(3) };
        let waits: Vec<_> = (1..=5).map(|failures| rules.wait(failures, 1.0).as_millis()).collect();
        assert_eq!(waits, [500, 1000, 2000, 3000, 3000]);
    }

    #[test]
    fn no_answer_makes_anybody_wait_for_more_than_an_hour() {
        let asked = |value: &str| {
            retry_after(&[(http::header::RETRY_AFTER, value.parse().unwrap())].into_iter().collect())
        };
        assert_eq!(asked("7"), Some(Duration::from_secs(7)));
        assert_eq!(asked("18446744073709551615"), Some(RETRY_AFTER_MAX));
        assert_eq!((asked("soon"), asked("-1")), (None, None));
    }

    #[test]
    fn jitter_takes_any_part_of_the_interval() {
        let rules = RetryRules::default();
        assert_eq!(rules.wait(1, 0.0), Duration::ZERO);
        assert_eq!(rules.wait(3, 0.5), Duration::from_secs(1));
        assert_eq!(rules.wait(u32::MAX, 1.0), Duration::from_secs(30));
    }
}
