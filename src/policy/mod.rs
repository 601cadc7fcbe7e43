//! Pure decisions: who may, what an answer means, what to do next and how long to wait.
//!
//! Nothing here performs IO, waits, or reads a clock: `now` and `jitter` are arguments.

pub mod permit;
pub mod reply_to;
pub mod retry;
