//! Pure decisions: permissions, the meaning of an answer, the next step and the back-off.
//!
//! Nothing here performs IO, waits, or reads a clock: `now` and `jitter` are arguments.

pub mod budget;
pub mod classify;
pub mod decide;
pub mod hazards;
pub mod pause;
pub mod peers;
pub mod permit;
pub mod provenance;
pub mod refusal;
pub mod reply_to;
pub mod retry;
pub mod sensitive;
