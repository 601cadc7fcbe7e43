//! Which connections the worker serves, and what it and others know of each other there. Both change while
//! it runs: connections come and go, and one whose terms are others has another gossip.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::watch;

use crate::domain::ids::ConnectionName;
use crate::worker::ports::Gossip;

/// The connections that a worker serves, and for each what it and other workers know of each other.
pub type Gossips = HashMap<ConnectionName, Arc<dyn Gossip>>;

/// These, as they are now.
#[derive(Clone)]
pub(super) struct Roster(watch::Receiver<Gossips>);

impl Roster {
    pub fn new(gossips: watch::Receiver<Gossips>) -> Self {
        Self(gossips)
    }

    /// The connections in order, which are then known here.
    pub fn names(&mut self) -> Vec<ConnectionName> {
        let mut names: Vec<_> = self.0.borrow_and_update().keys().cloned().collect();
        names.sort();
        names
    }

    /// Everything, which is then known here.
    pub fn gossips(&mut self) -> Gossips {
        self.0.borrow_and_update().clone()
    }

    /// The gossip of one connection, if it is still served.
    pub fn gossip(&self, connection: &str) -> Option<Arc<dyn Gossip>> {
        self.0.borrow().get(connection).cloned()
    }

    /// Waits until something is otherwise than known here.
    pub async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending().await // nobody can change it any more
        }
    }
}
