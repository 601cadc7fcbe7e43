//! The producing side of `submit`, `call` and `mcp`: publishes invocations and collects their results.

pub(super) mod producer;
pub(super) mod rpc;
