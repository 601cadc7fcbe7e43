//! The end of a command: its exit code, or the reason that it was not begun.

/// The exit code for success.
pub(super) const DONE: u8 = 0;
/// The exit code for a failure.
pub(super) const FAILED: u8 = 1;
/// The exit code if nothing was begun: the command, the configuration or the invocation was refused.
pub(super) const REFUSED: u8 = 2;
/// The exit code if told to stop before the end.
pub(super) const INTERRUPTED: u8 = 3;

/// The reason that a command was not begun.
#[derive(Debug)]
pub(super) struct NotBegun(pub(super) String);
