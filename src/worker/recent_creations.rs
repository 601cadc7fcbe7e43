//! Objects that this worker has just created: because of read-after-write lag, some servers of Okta may not know them.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::shares::Shares;

/// The longest read-after-write lag of a creation.
const FRESH: Duration = Duration::from_secs(10);

/// The most creations remembered, of all callers together: more than the largest orgs allow in that time.
const CREATIONS_MAX: usize = 4096;

/// The ids of recently created objects, by caller.
#[derive(Debug)]
pub(super) struct RecentCreations(Mutex<Shares<Option<String>, String, ()>>);

impl Default for RecentCreations {
    fn default() -> Self {
        Self(Mutex::new(Shares::new(FRESH, CREATIONS_MAX)))
    }
}

impl RecentCreations {
    /// Adds an object that a caller has created.
    pub fn add(&self, caller: Option<&str>, id: String) {
        let mut created = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        created.insert(caller.map(str::to_owned), id, (), 1, Instant::now());
    }

    /// Returns true if the object was created so recently that Okta may not find it yet.
    pub fn has(&self, id: &str) -> bool {
        let created = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        created.get(&id.to_owned(), Instant::now()).is_some()
    }
}
