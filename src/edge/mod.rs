//! The real adapters: RabbitMQ and Okta behind the worker's ports, and the telemetry.

pub mod descriptors;
pub mod health;
mod http_server;
pub mod log;
mod log_queue;
pub mod metrics;
pub mod okta;
pub mod panics;
pub mod rabbit;
