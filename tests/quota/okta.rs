//! One bucket as Okta counts it, and others who use it too. Knows nothing of the worker.

use std::time::Duration;

use jiff::Timestamp;
use okta_worker::domain::bucket::RateHeaders;

/// How long Okta's windows last.
pub const LENGTH: Duration = Duration::from_secs(60);

/// When a run begins: not on a whole second, because Okta's windows never do.
const BEGIN_MS: u64 = 1_772_442_000_400;

/// When a window ends. The recordings fit all three, so each seed runs all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A length after its first request.
    Exact,
    /// The same, in whole seconds.
    WholeSeconds,
    /// On the minute.
    Aligned,
}

impl Kind {
    pub const ALL: [Self; 3] = [Self::Exact, Self::WholeSeconds, Self::Aligned];
}

/// What one side of the traffic came to.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tally {
    pub offered: u64,
    pub refused: u64,
}

/// The bucket.
#[derive(Debug)]
pub struct Okta {
    kind: Kind,
    limit: u32,
    /// How far the reset header is off, in seconds.
    reset_off: i64,
    ends_ms: Option<u64>,
    reset_s: i64,
    used: u32,
    pub own: Tally,
    pub others: Tally,
    /// Our own 429s of the window at hand, and the most that any window saw.
    refused_in_window: u64,
    pub refused_in_window_max: u64,
    /// Since when it is measured, and our requests in each second from then on.
    since: Duration,
    pub per_second: Vec<u32>,
}

impl Okta {
    pub fn new(kind: Kind, limit: u32, reset_off: i64) -> Self {
        Self {
            kind,
            limit,
            reset_off,
            ends_ms: None,
            reset_s: 0,
            used: 0,
            own: Tally::default(),
            others: Tally::default(),
            refused_in_window: 0,
            refused_in_window_max: 0,
            since: Duration::ZERO,
            per_second: Vec::new(),
        }
    }

    /// Forgets what was counted so far; the window goes on.
    pub fn begin_to_measure(&mut self, since: Duration) {
        (self.since, self.per_second) = (since, Vec::new());
        (self.own, self.others) = (Tally::default(), Tally::default());
        (self.refused_in_window, self.refused_in_window_max) = (0, 0);
    }

    /// Announces another limit from now on.
    pub fn announce(&mut self, limit: u32) {
        self.limit = limit;
    }

    /// One of our requests arrives: what it is told, and whether it was let through.
    pub fn ours(&mut self, since: Duration) -> (RateHeaders, bool) {
        let now = self.turn(since);
        let passed = self.take();
        self.own.offered += 1;
        let second = usize::try_from((since - self.since).as_secs()).unwrap();
        self.per_second.resize(self.per_second.len().max(second + 1), 0);
        self.per_second[second] += 1;
        if !passed {
            self.own.refused += 1;
            self.refused_in_window += 1;
            self.refused_in_window_max = self.refused_in_window_max.max(self.refused_in_window);
        }
        let date = Timestamp::from_second(i64::try_from(now / 1000).unwrap()).unwrap();
        let rate = RateHeaders {
            limit: self.limit,
            remaining: self.limit.saturating_sub(self.used),
            reset: self.reset_s + self.reset_off,
            date: Some(date),
        };
        (rate, passed)
    }

    /// A request of somebody else arrives.
    pub fn other(&mut self, since: Duration) {
        self.turn(since);
        self.others.offered += 1;
        self.others.refused += u64::from(!self.take());
    }

    fn take(&mut self) -> bool {
        let passes = self.used < self.limit;
        self.used += u32::from(passes);
        passes
    }

    /// Opens a window when there is none; the time of day in milliseconds.
    fn turn(&mut self, since: Duration) -> u64 {
        let now = BEGIN_MS + u64::try_from(since.as_millis()).unwrap();
        let length = u64::try_from(LENGTH.as_millis()).unwrap();
        if self.ends_ms.is_none_or(|ends| now >= ends) {
            let ends = match self.kind {
                Kind::Exact => now + length,
                Kind::WholeSeconds => now / 1000 * 1000 + length,
                Kind::Aligned => now / length * length + length,
            };
            (self.ends_ms, self.used, self.refused_in_window) = (Some(ends), 0, 0);
            self.reset_s = i64::try_from(ends / 1000).unwrap();
        }
        now
    }
}
