//! The producing side of `submit`, `call` and `mcp`: publishes invocations and collects their results.

pub(super) mod handle;
pub(super) mod rpc;
