//! The assignment of an app: directly to a user, or to a group.

use serde_json::{Map, Value};

use super::reply::Stamp;

/// The assignment of a group to an app.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct GroupAssignment {
    /// The time of the last change.
    pub(super) since: Stamp,
    /// The place among the groups of the app: 0 is the first.
    pub(super) priority: u32,
    pub(super) profile: Map<String, Value>,
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
