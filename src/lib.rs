//! okta-worker.
pub mod domain;
pub mod tools;
pub mod worker;
