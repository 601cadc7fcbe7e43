//! The story of one message, from its queue to its answer.

pub mod event;
pub mod ports;
