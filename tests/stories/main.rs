//! Stories: given an org, messages arrive, time passes, and the tape of events is the assertion.
//!
//! The whole worker runs on the in-process queue and the simulated org under tokio's paused clock, so an
//! hour of waiting takes no time and every moment on the tape is exact.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

mod app;
mod converging;
mod counted;
mod crowd;
mod tape;
mod world;

mod again;
mod aside;
mod budget;
mod calls;
mod ceilings;
mod clocks;
mod dpop;
mod failures;
mod fit;
mod hanging;
mod isolation;
mod keys;
mod ledgers;
mod long_lists;
mod limits;
mod order;
mod outside;
mod paged;
mod pausing;
mod plans;
mod refusals;
mod refused_again;
mod shares;
mod rules;
mod secrets;
mod service_app;
mod stopping;
