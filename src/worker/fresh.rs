//! What this worker has just created: Okta's servers may not all know it yet.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How long a creation may take to be known everywhere.
const FRESH: Duration = Duration::from_secs(10);

/// The most creations remembered.
const CREATIONS_MAX: usize = 256;

/// The ids of what was created lately.
#[derive(Debug, Default)]
pub(super) struct Fresh(Mutex<VecDeque<(String, Instant)>>);

impl Fresh {
    /// Something was created.
    pub fn add(&self, id: String) {
        let mut created = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if created.len() == CREATIONS_MAX {
            created.pop_front();
        }
        created.push_back((id, Instant::now()));
    }

    /// Whether it was created so lately that it may not be known yet.
    pub fn has(&self, id: &str) -> bool {
        let created = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        created.iter().any(|(known, at)| known == id && at.elapsed() < FRESH)
    }
}
