//! How long callers waited, in the figures that are usual.

use std::time::Duration;

/// How long callers waited, the shortest first.
#[derive(Debug, Clone, Default)]
pub struct Waits(Vec<Duration>);

impl Waits {
    pub fn of(mut waits: Vec<Duration>) -> Self {
        waits.sort_unstable();
        Self(waits)
    }

    /// The wait that so many percent did not exceed: the nearest rank.
    pub fn percentile(&self, percent: usize) -> Option<Duration> {
        let rank = (self.0.len() * percent).div_ceil(100);
        self.0.get(rank.checked_sub(1)?).copied()
    }

    pub fn max(&self) -> Option<Duration> {
        self.0.last().copied()
    }
}
