//! The assignment of an app: directly to a user, or to a group.

use serde_json::{Map, Value};

use super::reply::Stamp;

/// The assignment of a group to an app.
#[derive(Debug, Clone, Copy)]
pub(super) struct GroupAssignment {
    pub(super) since: Stamp,
}

/// The direct assignment of a user to an app.
#[derive(Debug, Clone)]
pub(super) struct DirectAssignment {
    pub(super) created: Stamp,
    pub(super) last_updated: Stamp,
    pub(super) user_name: String,
    pub(super) has_password: bool,
    pub(super) profile: Map<String, Value>,
}
