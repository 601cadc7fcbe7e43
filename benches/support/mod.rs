//! What the benches share: the broker, the simulated org, processes, and the messages.

pub mod messages;
pub mod node;
pub mod org;
pub mod process;
pub mod queues;
