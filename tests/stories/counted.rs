//! One bucket as Okta counts it, for whoever sends by the budget alone. Knows nothing of the worker but
//! what its answers look like to it.

use jiff::Timestamp;
use okta_worker::budget::pure::window::Observation;
use okta_worker::domain::bucket::RateHeaders;

/// How long Okta's windows last, in milliseconds.
pub const LENGTH: u64 = 60_000;

/// When a run begins, in milliseconds since 1970.
pub const BEGIN: u64 = 1_772_442_000_400;

/// One bucket as Okta counts it: the first request opens a window that lasts its length, and what is told
/// of it are whole seconds.
#[derive(Debug)]
pub struct Counted {
    pub limit: u32,
    opened: Option<u64>,
    used: u32,
    pub used_max: u32,
    pub refused: u32,
}

impl Counted {
    /// A bucket of this limit, of which nothing is used.
    pub fn new(limit: u32) -> Self {
        Self { limit, opened: None, used: 0, used_max: 0, refused: 0 }
    }

    /// Counts a request that arrives at this time.
    pub fn take(&mut self, at: u64) -> Observation {
        let opened = match self.opened {
            Some(opened) if at < opened + LENGTH => opened,
            Some(_) | None => {
                self.used = 0;
                at
            }
        };
        let second = |at: u64| i64::try_from((BEGIN + at) / 1000).unwrap();
        let rate = |used: u32| RateHeaders {
            limit: self.limit,
            remaining: self.limit.saturating_sub(used),
            reset: second(opened) + i64::try_from(LENGTH / 1000).unwrap(),
            date: Some(Timestamp::from_second(second(at)).unwrap()),
        };
        if self.used >= self.limit {
            self.refused += 1;
            return Observation::Spent(Some(RateHeaders { remaining: 0, ..rate(self.used) }));
        }
        self.opened = Some(opened);
        self.used += 1;
        self.used_max = self.used_max.max(self.used);
        Observation::Rate(rate(self.used))
    }
}

/// What of a limit is ours: at least one request.
pub fn ours(limit: u32, capacity_percent: u8) -> u32 {
    (limit * u32::from(capacity_percent) / 100).max(1)
}
