//! Shared domain types: ids, requests and answers, invocations and results.
//!
//! Nothing here performs IO, reads a clock or waits; the caller passes the time as a value.

pub mod result;
pub mod bucket;
mod encodings;
pub mod invocation;
pub mod expected;
pub mod http;
pub mod ids;
pub mod json;
pub mod link;
pub mod message;
pub mod okta_error;
pub mod opposite;
pub mod page;
pub mod secret;
pub mod text;
pub mod topology;
