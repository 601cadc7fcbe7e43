//! Pure decisions: permissions, the meaning of an answer, the next step and the back-off.
//!
//! Nothing here performs IO, waits, or reads a clock: `now` and `jitter` are arguments.

pub mod classify;
pub mod decide;
pub mod hazards;
pub mod pause;
pub mod peers;
pub mod authorization;
pub mod origin;
pub mod refusal;
pub mod reply_to;
pub mod backoff;
pub mod sensitive;
