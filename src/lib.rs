//! okta-worker: executes typed invocations from RabbitMQ against Okta, within Okta's rate limits, and answers
//! each one.
//!
//! The path of one message, and the layer that runs each step:
//!
//! ```text
//!  rabbit     worker   worker ◀─ policy   worker ◀─ tools, budget, policy   worker        rabbit
//! RabbitMQ ─▶ parse it ─▶ check it ─▶ call Okta, within the rate limits ─▶ answer it ─▶ acknowledge
//!                                             │        ▲                  (confirmed)
//!                                             ▼  okta  │
//!                                                Okta
//! ```
//!
//! [`worker::Worker`] implements that path. The modules are layers, listed bottom up; each names only the layers
//! below it, and `tests/tidy.rs` checks that.

// The vocabulary: ids, requests and answers, invocations and results. No IO, no clock.
pub mod domain;
// The subtools, pure.
pub mod tools;
// The published catalogue: the subtools as documents.
pub mod catalog;
// Pure decisions: permissions, classification of answers, waiting times.
pub mod policy;
// The closed list of events, and their observers: metrics, log, health.
pub mod event;
// The rate-limit budget: no request goes out without a permit.
pub mod budget;
// The processing of one message, from its queue to its answer.
pub mod worker;
// The simulated Okta: an org that knows nothing of the worker.
pub mod sandbox;
// The in-process adapters: a queue, and the simulated org behind the worker's port.
pub mod embedded;
// Metrics, health, logs.
pub mod telemetry;
// The adapter of RabbitMQ.
pub mod rabbit;
// The adapter of Okta.
pub mod okta;
// Settings, as the typed values that the layers below take.
pub mod config;
// One file per command.
pub mod cli;
