//! The resources of one generation of the consuming connection, for the connections served on it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lapin::Connection;

use crate::domain::ids::ConnectionName;
use crate::event::Observer;

use super::consuming::Means;
use super::restoring::Restoring;
use super::served::Served;
use super::signals::Signals;

/// The resources of one generation of the consuming connection, for the connections served on it.
pub(in crate::rabbit) struct Site {
    /// The consuming connection.
    pub connection: Arc<Connection>,
    /// The signals exchanged with other workers.
    pub signals: Arc<Signals>,
    /// The resources of the consumers.
    pub means: Means,
    /// The configured connections.
    pub roster: Served,
    /// The connections that this worker has served, including removed ones.
    pub seen: Arc<Mutex<BTreeSet<ConnectionName>>>,
    /// True if queues are only checked and not declared.
    pub passive: bool,
    /// The resources for declaring deleted queues again.
    pub restoring: Arc<Restoring>,
    /// The observer of events.
    pub observer: Arc<dyn Observer>,
}

impl Site {
    /// Locks the connections that this worker has served.
    pub fn seen(&self) -> MutexGuard<'_, BTreeSet<ConnectionName>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns true if the connection is up: a refusal by the broker then concerns only the caller.
    pub fn is_up(&self) -> bool {
        self.connection.status().connected()
    }
}
