//! okta-worker.
pub mod domain;
pub mod worker;
