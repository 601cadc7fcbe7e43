//! Fixed ceilings, enforced by `governor`: asked without waiting, on tokio's clock.
//!
//! The changing pace is the ledger's: a limiter's quota cannot change in place, a rebuilt limiter grants its burst
//! again, and a limiter with carried-over state blocked for as long as the old one had existed (measured). So a ceiling
//! is rebuilt only when its limit changes, and then the requests that the old one has let pass still count.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::Clock as _;
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use tokio::time::Instant;

use super::pure::constants::UNANNOUNCED_LIMIT;
use super::pure::window::QuotaShare;

/// The minute of `max_per_minute`.
const MINUTE: Duration = Duration::from_secs(60);

/// The part of an evenly spread quota that may be sent at once: a sixtieth, which is one second of a minute.
const BURST_DIVISOR: u32 = 60;

/// A limit higher than any that Okta grants. A higher one would bound nothing, and [`Ceiling::in_place_of`] counts the
/// rest of a limit one by one.
const LIMIT_MAX: u32 = 1_000_000;

/// Tokio's clock for `governor`, so that paused time in tests pauses `governor` too.
#[derive(Debug, Clone, Copy)]
struct TokioClock(Instant);

impl governor::clock::Clock for TokioClock {
    type Instant = Duration;
    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

/// A ceiling: at most a number of requests in a time.
pub(super) struct Ceiling {
    limiter: RateLimiter<NotKeyed, InMemoryState, TokioClock, NoOpMiddleware<Duration>>,
    quota: Quota,
    /// The moment before which no request passes.
    opens: Instant,
}

impl Ceiling {
    fn new(burst: u32, each: Duration) -> Self {
        let burst = NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::with_period(each).unwrap_or_else(|| Quota::per_second(burst)).allow_burst(burst);
        Self::opening(Instant::now(), quota)
    }

    /// Creates a ceiling whose clock starts at `opens`, so no credit is saved up before.
    fn opening(opens: Instant, quota: Quota) -> Self {
        Self { limiter: RateLimiter::direct_with_clock(quota, TokioClock(opens)), quota, opens }
    }

    /// Returns this ceiling as the replacement of another: requests that the old one has let pass are not granted
    /// again. The next request passes when the old one would have let it pass, or a changing count of workers would
    /// block all requests.
    pub fn in_place_of(self, old: &Self) -> Self {
        let most = old.quota.burst_size().get();
        let mut left = 0;
        let mut opens = Instant::now();
        while left < most {
            match old.take() {
                Ok(()) => left += 1,
                Err(until) if left == 0 => {
                    opens = until;
                    break;
                }
                Err(_) => break,
            }
        }
        let new = Self::opening(opens, self.quota);
        let spent = (most - left).min(self.quota.burst_size().get() - 1);
        if let Some(spent) = NonZeroU32::new(spent) {
            let _ = new.limiter.check_n(spent).expect("less than all of it");
        }
        new
    }

    /// Creates the ceiling for the share of an announced limit, all of it at once: the ledger sets the pace, and the
    /// ceiling only bounds the cost of a fault in the ledger. In the length of a window, at most twice the share
    /// passes.
    pub fn of_window(limit: u32, share: QuotaShare) -> Self {
        let ours = share_of(limit.min(LIMIT_MAX), share);
        Self::new(ours, share.length / ours)
    }

    /// Creates the ceiling that is the whole budget of a bucket without an announced limit, spread evenly.
    pub fn unannounced(share: QuotaShare, workers: u32) -> Self {
        let ours = (share_of(UNANNOUNCED_LIMIT, share) / workers.max(1)).max(1);
        Self::new((ours / BURST_DIVISOR).max(1), share.length / ours)
    }

    /// Creates the ceiling for a worker's part of this many requests a minute. It holds for any minute, because the
    /// burst is subtracted from the rate.
    fn per_minute(most: u32, workers: u32) -> Self {
        let ours = (most / workers.max(1)).max(1);
        let burst = (ours / BURST_DIVISOR).max(1);
        Self::new(burst, MINUTE / (ours - burst).max(1))
    }

    /// Takes one request.
    ///
    /// # Errors
    /// If none is left: the moment from which on one is.
    pub fn take(&self) -> Result<(), Instant> {
        if Instant::now() < self.opens {
            return Err(self.opens);
        }
        self.limiter
            .check()
            .map_err(|refused| Instant::now() + refused.wait_time_from(self.limiter.clock().now()))
    }
}

/// A number of requests per minute of all workers together, of which each has its part.
pub(super) struct PerMinute {
    most: u32,
    workers: u32,
    ceiling: Ceiling,
    /// The moment until which the ceiling is full, if it was full when last asked.
    full_until: Option<Instant>,
}

impl PerMinute {
    /// Creates a ceiling with the whole number, until more workers are counted.
    pub fn new(most: u32) -> Self {
        Self { most, workers: 1, ceiling: Ceiling::per_minute(most, 1), full_until: None }
    }

    /// Sets the number of workers that the broker counted.
    pub fn count(&mut self, workers: u32) {
        self.change(self.most, workers);
    }

    /// Sets the number of requests from now on; those that passed before still count.
    pub fn allow(&mut self, most: u32) {
        self.change(most, self.workers);
    }

    fn change(&mut self, most: u32, workers: u32) {
        if (self.most, self.workers) != (most, workers) {
            (self.most, self.workers) = (most, workers);
            self.ceiling = Ceiling::per_minute(most, workers).in_place_of(&self.ceiling);
        }
    }

    /// Takes one request.
    ///
    /// # Errors
    /// If none is left: the moment from which on one is.
    pub fn take(&mut self) -> Result<(), Instant> {
        let taken = self.ceiling.take();
        self.full_until = taken.err();
        taken
    }

    /// Returns the moment before which no request passes, as far as is known.
    pub fn full_until(&self) -> Option<Instant> {
        self.full_until
    }

    /// Returns the time per request at this worker's part of the rate.
    pub fn each(&self) -> Duration {
        MINUTE * self.workers / self.most.max(1)
    }
}

fn share_of(limit: u32, share: QuotaShare) -> u32 {
    let ours = u64::from(limit) * u64::from(share.capacity_percent) / 100;
    u32::try_from(ours).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARE: QuotaShare = QuotaShare { capacity_percent: 100, length: MINUTE };

    /// Returns the time at which each of the requests of three minutes passes, in milliseconds.
    async fn passed(ceiling: &Ceiling) -> Vec<u128> {
        let start = Instant::now();
        let mut passed = Vec::new();
        while start.elapsed() < 3 * MINUTE {
            match ceiling.take() {
                Ok(()) => passed.push(start.elapsed().as_millis()),
                Err(until) => tokio::time::sleep_until(until).await,
            }
        }
        passed
    }

    /// Returns the most requests that pass in any time of a minute.
    fn most_in_a_minute(passed: &[u128]) -> usize {
        let within = |begin: &u128| passed.iter().filter(|at| (*begin..begin + 60_000).contains(*at)).count();
        passed.iter().map(within).max().unwrap_or(0)
    }

    #[tokio::test(start_paused = true)]
    async fn no_minute_sees_more_than_its_ceiling_and_little_less() {
        for (most, workers, ours) in
            [(600, 1, 600), (60, 1, 60), (7, 1, 7), (1, 1, 1), (600, 4, 150), (3, 8, 1)]
        {
            let passed = passed(&Ceiling::per_minute(most, workers)).await;
            assert!(most_in_a_minute(&passed) <= ours, "{most} of {workers}");
            assert!(passed.len() * 100 >= 3 * ours * 84, "{most} of {workers}: {}", passed.len());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn without_an_announcement_six_hundred_go_evenly() {
        let ceiling = Ceiling::unannounced(SHARE, 2);
        let passed = passed(&ceiling).await;
        assert!((300..=305).contains(&most_in_a_minute(&passed)), "{}", most_in_a_minute(&passed));
        assert_eq!(passed.iter().filter(|at| **at == 0).count(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_beyond_all_reason_is_not_counted_to_its_end() {
        let huge = Ceiling::of_window(u32::MAX, SHARE);
        assert_eq!(huge.quota.burst_size().get(), LIMIT_MAX);
        Ceiling::of_window(600, SHARE).in_place_of(&huge).take().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_window_lets_its_share_pass_at_once_and_never_twice_as_much() {
        let ceiling = Ceiling::of_window(100, QuotaShare { capacity_percent: 50, ..SHARE });
        let passed = passed(&ceiling).await;
        assert_eq!(passed.iter().filter(|at| **at == 0).count(), 50);
        assert!(most_in_a_minute(&passed) <= 100);
    }
}
