//! Shared domain types: ids, requests and answers, invocations and results.
//!
//! Nothing here performs IO, reads a clock or waits; the caller passes the time as a value.

pub mod answer;
pub mod bucket;
mod encodings;
pub mod envelope;
pub mod expected;
pub mod http;
pub mod ids;
pub mod json;
pub mod link;
pub mod mail;
pub mod okta_error;
pub mod opposite;
pub mod page;
pub mod secret;
pub mod text;
pub mod topology;
