//! The rate-limit budget of a connection: no request is sent without a permit.
//!
//! `pure` holds the model of Okta's windows, without IO or clock; the gate and its parts make requests wait for it.

mod bucket_gate;
mod bucket_gates;
mod callers;
mod ceiling;
mod connection_queue;
pub mod gate;
pub mod gossip;
mod non_idempotent;
pub mod permit;
pub mod pure;
mod timetable;
