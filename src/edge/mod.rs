//! The world, real: RabbitMQ and Okta behind the worker's ports, and who watches it.

pub mod health;
pub mod log;
pub mod metrics;
pub mod okta;
pub mod rabbit;
