//! okta-worker.
pub mod config;
pub mod domain;
pub mod edge;
pub mod embedded;
pub mod policy;
pub mod tools;
pub mod worker;
