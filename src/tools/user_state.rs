//! The state of a user: the part that decides which steps are possible.

use jiff::Timestamp;
use serde::Deserialize;

use super::absence::or_default;
use super::converge;

/// The part of a user that decides which steps are possible.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct UserState {
    pub(super) id: String,
    pub(super) status: String,
    /// The time of the last status change; unknown for a user that never had another status.
    #[serde(default, deserialize_with = "converge::moment")]
    pub(super) status_changed: Option<Timestamp>,
    /// The status of a pending transition.
    #[serde(default)]
    pub(super) transitioning_to_status: Option<String>,
    #[serde(default, deserialize_with = "converge::moment")]
    pub(super) password_changed: Option<Timestamp>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) profile: UserProfile,
}

/// The part of a profile that names the user.
#[derive(Debug, Default, Deserialize)]
pub(super) struct UserProfile {
    #[serde(default)]
    pub(super) login: String,
}
