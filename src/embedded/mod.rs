//! The in-process adapters: a queue and, in place of Okta, the simulated org, behind the same ports as the real ones.
//! Demo and tests run the worker on them.

pub mod broker;
mod death;
pub mod okta;
