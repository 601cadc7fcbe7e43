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
    /// The worker is told to stop, and everything in hand is done.
    Stopping,
    /// The worker was told to stop, and that did not end in order.
    Unfinished(&'static str),
}

impl Doubt {
    /// The broker refused, or was gone, before the generation began.
    pub fn unreachable(error: lapin::Error) -> Self {
        Self::Unreachable(explain(&error))
    }
}

/// The broker does not answer at all.
pub(super) fn silent() -> Doubt {
    Doubt::Unreachable("the broker does not answer".to_owned())
}
