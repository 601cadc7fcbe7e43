//! `okta-worker dead`: lists, shows, replays or discards the messages parked in `okta.dead`.
//!
//! Runs under the worker's own broker user and needs no Okta credential.

mod choice;
mod command;
mod session;
mod discard;
mod entry;
mod form;
mod list;
mod parked;
mod replay;
mod show;

pub(super) use command::{Arguments, run};
