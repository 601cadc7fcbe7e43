//! Why one life of the connections ended, or did not begin. What follows from it, the supervisor knows.

use super::connecting::explain;
use super::declare::Undeclared;

/// Why one generation ended.
pub(super) enum Doubt {
    /// It did not begin.
    Unreachable(String),
    /// The broker has not what it must have.
    Undeclared(Undeclared),
    /// It was there, and then something failed.
    Lost(&'static str),
    /// The worker is told to stop.
    Stopping,
}

impl Doubt {
    /// The broker refused, or was gone, before the generation began.
    pub fn unreachable(error: lapin::Error) -> Self {
        Self::Unreachable(explain(&error))
    }
}
