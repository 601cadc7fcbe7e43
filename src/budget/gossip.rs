//! The port of gossip: signals between the workers of a connection about its budget.

use async_trait::async_trait;

use super::pure::signal::Signal;

/// The gossip between the workers of a connection, which keeps them together within its budget.
#[async_trait]
pub trait Gossip: Send + Sync {
    /// Waits until there is news for the replicas.
    async fn news(&self);

    /// Returns the signals to send now.
    fn tell(&self) -> Vec<Signal>;

    /// Records another worker's signal, which may be late, repeated or false; signals may also get lost.
    fn hear(&self, signal: &Signal);

    /// Records the broker's census.
    fn counted(&self, census: Census);
}

/// The broker's counts for a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Census {
    /// Workers that serve the connection, this one included.
    pub workers: u32,
    /// Messages that wait in its bulk queue, not yet delivered to a worker.
    pub queued: u64,
}
