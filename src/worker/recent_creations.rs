//! What this worker has just created: Okta's servers may not all know it yet.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::shares::Shares;

/// How long a creation may take to be known everywhere.
const FRESH: Duration = Duration::from_secs(10);

/// The most creations remembered, of all callers together: more than the largest orgs allow in that time.
const CREATIONS_MAX: usize = 4096;

/// The ids of what was created lately, by who asked for it.
#[derive(Debug)]
pub(super) struct Fresh(Mutex<Shares<Option<String>, String, ()>>);

impl Default for Fresh {
    fn default() -> Self {
        Self(Mutex::new(Shares::new(FRESH, CREATIONS_MAX)))
    }
}

impl Fresh {
    /// A caller has created something.
    pub fn add(&self, caller: Option<&str>, id: String) {
        let mut created = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        created.insert(caller.map(str::to_owned), id, (), 1, Instant::now());
    }

    /// Whether it was created so lately that it may not be known yet.
    pub fn has(&self, id: &str) -> bool {
        let created = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        created.get(&id.to_owned(), Instant::now()).is_some()
    }
}
