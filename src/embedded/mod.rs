//! The world inside the process: a queue and, in place of Okta, the simulated org, behind the same ports
//! as the real ones. Demo and tests run the worker on it.

pub mod broker;
mod death;
pub mod okta;
