//! A factor of a user, and its JSON.

use serde_json::{Value, json};

use super::ids::Id;
use super::reply::Stamp;

/// A factor.
#[derive(Debug, Clone)]
pub(super) struct Factor {
    pub(super) id: Id,
    /// The type, such as `sms`.
    pub(super) kind: String,
    pub(super) enrolled: Stamp,
}

impl Factor {
    pub(super) fn view(&self, host: &str, user: Id) -> Value {
        let Self { id, kind, enrolled } = self;
        json!({
            "id": id,
            "factorType": kind,
            "provider": "OKTA",
            "vendorName": "OKTA",
            "status": "ACTIVE",
            "created": enrolled,
            "lastUpdated": enrolled,
            "profile": {},
            "_links": {
                "self": { "href": format!("{host}/api/v1/users/{user}/factors/{id}"), "hints": { "allow": ["GET", "DELETE"] } },
                "user": { "href": format!("{host}/api/v1/users/{user}"), "hints": { "allow": ["GET"] } },
            },
        })
    }
}
