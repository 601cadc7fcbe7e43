//! An app: its data and its JSON.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::assignment::GroupAssignment;
use super::expression::{Field, Item};
use super::ids::Id;
use super::reply::Stamp;
use super::system_log::Target;

/// The attributes of a new app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewApp {
    /// The label shown to users.
    pub label: String,
    /// The name in Okta's catalogue.
    pub name: String,
    /// The sign-on mode, such as `BOOKMARK`.
    pub sign_on_mode: String,
    /// The profile attributes that its users may have.
    pub attributes: BTreeSet<String>,
}

impl NewApp {
    /// Creates a bookmark app without attributes.
    pub fn bookmark(label: &str) -> Self {
        Self {
            label: label.to_owned(),
            name: "bookmark".to_owned(),
            sign_on_mode: "BOOKMARK".to_owned(),
            attributes: BTreeSet::new(),
        }
    }
}

/// An app.
#[derive(Debug, Clone)]
pub(super) struct App {
    pub(super) id: Id,
    pub(super) made_from: NewApp,
    pub(super) is_active: bool,
    pub(super) created: Stamp,
    pub(super) last_updated: Stamp,
    /// The groups whose members may use the app.
    pub(super) groups: BTreeMap<Id, GroupAssignment>,
    /// The settings of the application itself, such as the URL of a bookmark.
    pub(super) settings: Option<Map<String, Value>>,
}

impl App {
    /// Creates an active app.
    pub(super) fn new(id: Id, made_from: NewApp, now: Stamp) -> Self {
        let groups = BTreeMap::new();
        Self { id, made_from, is_active: true, created: now, last_updated: now, groups, settings: None }
    }

    pub(super) fn status(&self) -> &'static str {
        if self.is_active { "ACTIVE" } else { "INACTIVE" }
    }

    pub(super) fn target(&self) -> Target {
        Target::new(self.id, "AppInstance", &self.made_from.label, &self.made_from.label)
    }

    /// Returns the app as the JSON of an answer.
    pub(super) fn view(&self, host: &str, org: Id) -> Value {
        let Self { id, made_from: NewApp { label, name, sign_on_mode, .. }, .. } = self;
        let usual = || json!({ "requestIntegration": false, "url": "https://app.example.com" });
        let app_settings = self.settings.clone().map_or_else(usual, Value::Object);
        let below = |path: &str| json!({ "href": format!("{host}/api/v1/apps/{id}{path}") });
        let (turn, turned) =
            if self.is_active { ("deactivate", "/deactivate") } else { ("activate", "/activate") };
        let mut links = json!({
            "uploadLogo": { "href": format!("{host}/api/v1/apps/{id}/logo"), "hints": { "allow": ["POST"] } },
            "appLinks": [{ "name": "login", "href": self.link(host), "type": "text/html" }],
            "profileEnrollment": { "href": format!("{host}/api/v1/policies/rst{}", &org.as_str()[3..]) },
            "policies": { "href": format!("{host}/api/v1/apps/{id}/policies"), "hints": { "allow": ["PUT"] } },
            "groups": below("/groups"),
            "logo": [{ "name": "medium", "href": logo(host), "type": "image/png" }],
            "accessPolicy": { "href": format!("{host}/api/v1/policies/rst{}", &org.as_str()[3..]) },
            "users": below("/users"),
        });
        links[turn] = below(&format!("/lifecycle{turned}"));
        json!({
            "id": id,
            "orn": format!("orn:okta:idp:{org}:apps:{name}:{id}"),
            "name": name,
            "label": label,
            "status": self.status(),
            "lastUpdated": self.last_updated,
            "created": self.created,
            "accessibility": { "selfService": false, "errorRedirectUrl": null, "loginRedirectUrl": null },
            "visibility": {
                "autoLaunch": false,
                "autoSubmitToolbar": false,
                "hide": { "iOS": false, "web": false },
                "appLinks": { "login": true },
            },
            "features": [],
            "signOnMode": sign_on_mode,
            "credentials": {
                "userNameTemplate": { "template": "${source.login}", "type": "BUILT_IN" },
                "signing": {},
            },
            "settings": {
                "app": app_settings,
                "notifications": {
                    "vpn": { "network": { "connection": "DISABLED" }, "message": null, "helpUrl": null },
                },
                "manualProvisioning": false,
                "implicitAssignment": false,
                "notes": { "admin": null, "enduser": null },
            },
            "_links": links,
        })
    }

    /// Returns the target of the app's link on the dashboard.
    pub(super) fn link(&self, host: &str) -> String {
        format!("{host}/home/{}/{}/2557", self.made_from.name, self.id)
    }
}

pub(super) fn logo(host: &str) -> String {
    format!("{host}/assets/img/logos/default.png")
}

impl Item for App {
    fn field(&self, attribute: &str) -> Option<Field<'_>> {
        match attribute {
            "id" => Some(Field::Text(self.id.as_str().into())),
            "status" => Some(Field::Text(self.status().into())),
            "name" => Some(Field::Text(self.made_from.name.as_str().into())),
            _ => None,
        }
    }
}
