//! okta-worker: typed invocations come in from RabbitMQ, run against Okta inside its rate limits, and each
//! is answered.
//!
//! The way of one message, and the floor that each step stands on:
//!
//! ```text
//!   edge       worker       worker ◀─ policy        worker ◀─ tools, policy     worker        edge
//! RabbitMQ ─▶ open letter ─▶ judge it ─▶ talk with Okta, inside the budget ─▶ answer it ─▶ acknowledge
//!                                              │        ▲                    (confirmed)
//!                                              ▼  edge  │
//!                                                 Okta
//! ```
//!
//! [`worker::Worker`] is that story. The floors, the ground first; each names only those below it, and
//! `tests/tidy.rs` checks that.

// The words: ids, requests and answers, invocations and results. No IO, no clock.
pub mod domain;
// What can be asked: the 28 subtools, pure.
pub mod tools;
// What the outside is told of them: the catalogue as documents.
pub mod catalog;
// Pure decisions: who may, what an answer means, how long to wait.
pub mod policy;
// The story: one message from its queue to its answer.
pub mod worker;
// The world, simulated: an Okta org that knows nothing of the worker.
pub mod sandbox;
// The world inside the process: a queue, and the simulated org behind the worker's port.
pub mod embedded;
// The world, real: RabbitMQ, Okta, metrics, health, logs.
pub mod edge;
// Settings, as the typed values the floors below take.
pub mod config;
// One file per command.
pub mod cli;
