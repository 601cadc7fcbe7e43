//! The reasons that a generation of connections ended, or did not begin. The supervisor decides what follows.

use super::connect::explain;
use super::declare::Undeclared;

/// The reason that one generation ended.
pub(in crate::rabbit) enum SessionEnd {
    /// The generation did not begin.
    Unreachable(String),
    /// The broker lacks a required exchange or queue, or has it with other arguments.
    Undeclared(Undeclared),
    /// The generation began, and then something failed.
    Lost(&'static str),
    /// The worker was told to stop, and all messages in hand are done.
    Stopping,
    /// The worker was told to stop, and draining failed.
    Unfinished(&'static str),
}

impl SessionEnd {
    /// Creates the reason for a broker that refused a call, or was lost, before the generation began.
    pub fn unreachable(error: lapin::Error) -> Self {
        Self::Unreachable(explain(&error))
    }
}

/// Creates the reason for a broker that does not answer.
pub(in crate::rabbit) fn silent() -> SessionEnd {
    SessionEnd::Unreachable("the broker does not answer".to_owned())
}
