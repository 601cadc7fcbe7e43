//! The time of day, by the machine's clock or a virtual one.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicI64, Ordering};

use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

/// The clock from which the worker reads the time of day. Waits use tokio's clock; when that is paused, a virtual
/// clock moves along with it.
#[derive(Debug, Clone, Copy)]
pub enum Clock {
    /// The machine's clock.
    Machine,
    /// A time of day that begins at a fixed moment and moves with tokio's clock, for tests and demos.
    Virtual {
        /// The time of day at the beginning.
        base: Timestamp,
        /// The beginning, by tokio's clock.
        start: tokio::time::Instant,
        /// The seconds by which the clock was set forward since.
        set: &'static AtomicI64,
    },
}

impl Clock {
    /// Creates a virtual clock that begins now.
    pub fn starting_at(base: Timestamp) -> Self {
        static NEVER: AtomicI64 = AtomicI64::new(0);
        Self::Virtual { base, start: tokio::time::Instant::now(), set: &NEVER }
    }

    /// Creates a virtual clock that begins now and is set forward, or back, by this many seconds, as an operator may do
    /// with a machine's clock.
    pub fn set_by(base: Timestamp, set: &'static AtomicI64) -> Self {
        Self::Virtual { base, start: tokio::time::Instant::now(), set }
    }

    /// Returns the time of day.
    pub fn now(&self) -> Timestamp {
        match self {
            Self::Machine => Timestamp::now(),
            Self::Virtual { base, start, set } => {
                let set = SignedDuration::from_secs(set.load(Ordering::Relaxed));
                let now = base.saturating_add(start.elapsed()).and_then(|now| now.saturating_add(set));
                now.unwrap_or(Timestamp::MAX)
            }
        }
    }

    /// Returns the number that identifies the clock: the clocks of two workers differ in it, even on one machine.
    pub fn number(&self) -> u64 {
        static OF_THIS_PROCESS: LazyLock<u64> = LazyLock::new(|| Uuid::new_v4().as_u64_pair().0);
        match self {
            Self::Machine => *OF_THIS_PROCESS,
            Self::Virtual { set, .. } => std::ptr::from_ref::<AtomicI64>(set).addr() as u64,
        }
    }

    /// Returns the moment on tokio's clock at which it will be this time of day.
    pub fn instant_of(&self, at: Timestamp) -> tokio::time::Instant {
        let ahead = at.duration_since(self.now());
        let now = tokio::time::Instant::now();
        std::time::Duration::try_from(ahead).map_or(now, |ahead| now.checked_add(ahead).unwrap_or(now))
    }

    /// Returns the time of day at a moment on tokio's clock.
    pub fn time_of(&self, at: tokio::time::Instant) -> Timestamp {
        let ahead = at.saturating_duration_since(tokio::time::Instant::now());
        self.now().saturating_add(ahead).unwrap_or(Timestamp::MAX)
    }
}
