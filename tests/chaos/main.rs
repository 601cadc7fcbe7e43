//! Workers die, panic and lose their broker; nothing is lost and nothing done twice.
//!
//! A seeded load of all writes and some reads runs against a real RabbitMQ and the simulated org over HTTP
//! while something goes wrong on purpose; then a checker compares what was confirmed, answered and parked
//! with what the org says was really done. The short form runs with `tests/run`; `CHAOS=all` runs the long
//! one with more of everything.

#[path = "../broker/caller.rs"]
#[expect(dead_code, reason = "the broker tests use more of it")]
mod caller;
mod checker;
mod cluster;
#[path = "../broker/child.rs"]
#[expect(dead_code, reason = "the broker tests use more of it")]
mod child;
mod judge;
mod kills;
mod load;
#[path = "../broker/node.rs"]
#[expect(dead_code, reason = "the broker tests use more of it")]
mod node;
#[path = "../broker/org.rs"]
#[expect(dead_code, reason = "the broker tests use more of it")]
mod org;
mod points;
#[path = "../support/proxy.rs"]
mod proxy;
mod report;
mod run;
mod submit;
#[path = "../broker/world.rs"]
#[expect(dead_code, reason = "the broker tests use more of it")]
mod world;
