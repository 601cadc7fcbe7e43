//! The reason that the supervisor of the connections ended, or could not begin.

use super::declare::Undeclared;

/// The reason that the supervisor ended.
#[derive(Debug, thiserror::Error)]
pub enum SupervisorEnd {
    /// The URI cannot be used.
    #[error("`broker.url` is not an AMQP URI: {0}")]
    Uri(String),
    /// The certificates cannot be read.
    #[error("failed to read `broker.ca_file`: {0}")]
    Ca(std::io::Error),
    /// The broker cannot be reached.
    #[error("failed to reach the broker: {0}")]
    Unreachable(String),
    /// The broker's exchanges or queues differ from those that the worker needs.
    #[error(transparent)]
    Topology(Undeclared),
    /// The worker was told to stop, and messages were still in flight.
    #[error("stopped with {0} messages in flight; the broker will deliver them again")]
    Abandoned(usize),
    /// The worker was told to stop, and some deliveries could not be read.
    #[error("failed to drain: {0}; the broker will deliver the unread messages again")]
    Unread(&'static str),
}
