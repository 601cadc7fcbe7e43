//! The connections that the worker serves, each with its gossip. Both change while the worker runs: connections are
//! added and removed, and a connection with changed settings gets a new gossip.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::watch;

use crate::budget::gossip::Gossip;
use crate::domain::ids::ConnectionName;

/// The connections that a worker serves, each with its gossip: the state that workers share about it.
pub type Gossips = HashMap<ConnectionName, Arc<dyn Gossip>>;

/// A view of the current gossips.
#[derive(Clone)]
pub(in crate::rabbit) struct Served(watch::Receiver<Gossips>);

impl Served {
    pub fn new(gossips: watch::Receiver<Gossips>) -> Self {
        Self(gossips)
    }

    /// Returns the sorted connections, and marks the current state as seen.
    pub fn names(&mut self) -> Vec<ConnectionName> {
        let mut names: Vec<_> = self.0.borrow_and_update().keys().cloned().collect();
        names.sort();
        names
    }

    /// Returns all gossips, and marks the current state as seen.
    pub fn gossips(&mut self) -> Gossips {
        self.0.borrow_and_update().clone()
    }

    /// Returns the gossip of one connection, if it is still served.
    pub fn gossip(&self, connection: &str) -> Option<Arc<dyn Gossip>> {
        self.0.borrow().get(connection).cloned()
    }

    /// Waits for the set of served connections to change.
    pub async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending().await // the sender is gone, so the set cannot change any more
        }
    }
}
