//! Observers of the events and what operators read: metrics, health, logs, panics.

pub mod descriptors;
pub mod health;
mod http_server;
pub mod log;
mod log_queue;
pub mod metrics;
pub mod panics;
