//! okta-worker: runs Okta operations from RabbitMQ, inside Okta's rate limits.

fn main() {}
