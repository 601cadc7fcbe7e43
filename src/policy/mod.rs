//! Pure decisions: who may, what an answer means, what to do next and how long to wait.
//!
//! Nothing here performs IO, waits, or reads a clock: `now` and `jitter` are arguments.

pub mod budget;
pub mod classify;
pub mod hazards;
pub mod peers;
pub mod permit;
pub mod provenance;
pub mod refusal;
pub mod reply_to;
pub mod retry;
pub mod sensitive;
