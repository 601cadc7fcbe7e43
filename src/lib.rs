//! okta-worker: executes typed invocations from RabbitMQ against Okta, within Okta's rate limits, and answers
//! each one.
//!
//! The path of one message, and the layer that runs each step:
//!
//! ```text
//!   edge      worker   worker ◀─ policy     worker ◀─ tools, policy         worker         edge
//! RabbitMQ ─▶ parse it ─▶ check it ─▶ call Okta, within the rate limits ─▶ answer it ─▶ acknowledge
//!                                             │        ▲                  (confirmed)
//!                                             ▼  edge  │
//!                                                Okta
//! ```
//!
//! [`worker::Worker`] implements that path. The modules are layers, listed bottom up; each names only the layers
//! below it, and `tests/tidy.rs` checks that.

// The vocabulary: ids, requests and answers, invocations and results. No IO, no clock.
pub mod domain;
// The 28 subtools, pure.
pub mod tools;
// The published catalogue: the subtools as documents.
pub mod catalog;
// Pure decisions: permissions, classification of answers, waiting times.
pub mod policy;
// The processing of one message, from its queue to its answer.
pub mod worker;
// The simulated Okta: an org that knows nothing of the worker.
pub mod sandbox;
// The in-process adapters: a queue, and the simulated org behind the worker's port.
pub mod embedded;
// The real adapters: RabbitMQ, Okta, metrics, health, logs.
pub mod edge;
// Settings, as the typed values that the layers below take.
pub mod config;
// One file per command.
pub mod cli;
