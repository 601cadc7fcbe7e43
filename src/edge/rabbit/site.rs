//! What one life of the consuming connection offers to whatever is served on it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lapin::Connection;

use crate::domain::ids::ConnectionName;
use crate::worker::event::Observer;

use super::consuming::Means;
use super::restoring::Restoring;
use super::roster::Roster;
use super::signals::Signals;

/// What one life of the consuming connection offers to whatever is served on it.
pub(super) struct Site {
    /// The consuming connection.
    pub connection: Arc<Connection>,
    /// What this worker and the others tell each other.
    pub signals: Arc<Signals>,
    /// What queues are consumed with.
    pub means: Means,
    /// Which connections there are.
    pub roster: Roster,
    /// Those that this worker has served, those that were removed among them.
    pub seen: Arc<Mutex<BTreeSet<ConnectionName>>>,
    /// Whether queues are only looked for and not declared.
    pub passive: bool,
    /// What declares a queue again that was deleted.
    pub restoring: Arc<Restoring>,
    /// Who is told.
    pub observer: Arc<dyn Observer>,
}

impl Site {
    /// The connections that this worker has served.
    pub fn seen(&self) -> MutexGuard<'_, BTreeSet<ConnectionName>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the connection is there: then what the broker refuses concerns nobody but who asked.
    pub fn is_up(&self) -> bool {
        self.connection.status().connected()
    }
}
