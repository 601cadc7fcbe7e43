//! Whether the machine stood still: a task that should run every 50 ms, and how late it was.
//!
//! A controller cannot be blamed for what happens while nobody runs.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::task::JoinSet;

use super::figures::Span;

/// How often the task looks at the clock.
const TICK: Duration = Duration::from_millis(50);

/// A longer gap is a stall: five ticks, a multiple of what a busy machine of two cores shows.
const STALL_MIN: Duration = Duration::from_millis(250);

#[derive(Debug, Clone, Copy)]
struct Gap {
    until: Timestamp,
    length: Duration,
}

/// Watches the machine until it is dropped.
pub struct Ticker {
    stalls: Arc<Mutex<Vec<Gap>>>,
    _task: JoinSet<()>,
}

impl Ticker {
    pub fn start() -> Self {
        let stalls = Arc::new(Mutex::new(Vec::new()));
        let (mut task, seen) = (JoinSet::new(), Arc::clone(&stalls));
        task.spawn(async move {
            loop {
                let before = Instant::now();
                tokio::time::sleep(TICK).await;
                let gap = Gap { until: Timestamp::now(), length: before.elapsed() };
                if gap.length > STALL_MIN {
                    seen.lock().unwrap_or_else(PoisonError::into_inner).push(gap);
                }
            }
        });
        Self { stalls, _task: task }
    }

    /// The longest stall that touched this time.
    pub fn worst(&self, span: Span) -> Option<Duration> {
        let stalls = self.stalls.lock().unwrap_or_else(PoisonError::into_inner);
        let touching =
            stalls.iter().filter(|gap| gap.until >= span.from && gap.until - gap.length <= span.until);
        touching.map(|gap| gap.length).max()
    }
}
