//! The port of gossip: what the workers of a connection tell each other of its budget.

use async_trait::async_trait;

use super::pure::signal::Signal;

/// What the workers of a connection know of each other, so that together they keep within its budget.
#[async_trait]
pub trait Gossip: Send + Sync {
    /// Waits until there is something to tell.
    async fn news(&self);

    /// What there is to tell now.
    fn tell(&self) -> Vec<Signal>;

    /// Another worker has told something. Loss, delay, repetition and lies are to be expected.
    fn hear(&self, signal: &Signal);

    /// The broker has counted.
    fn counted(&self, census: Census);
}

/// What the broker counts for a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Census {
    /// Workers that serve it, this one included.
    pub workers: u32,
    /// Messages that wait in its bulk queue, not yet delivered to anybody.
    pub queued: u64,
}
