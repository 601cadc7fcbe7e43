//! A group without its members: its data and its JSON.

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use super::expression::{Field, Item};
use super::ids::Id;
use super::profile::Profile;
use super::refusal::OktaRefusal;
use super::reply::{Href, Stamp, Url};
use super::system_log::Target;

/// The origin of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GroupKind {
    Okta,
    App,
    BuiltIn,
}

impl GroupKind {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Okta => "OKTA_GROUP",
            Self::App => "APP_GROUP",
            Self::BuiltIn => "BUILT_IN",
        }
    }
}

/// A group, without its members.
#[derive(Debug, Clone)]
pub(super) struct Group {
    pub(super) id: Id,
    pub(super) kind: GroupKind,
    pub(super) created: Stamp,
    pub(super) last_updated: Stamp,
    pub(super) last_membership_updated: Stamp,
    /// The profile. Name and description are always in it, the latter possibly as `null`.
    pub(super) profile: Profile,
}

impl Group {
    pub(super) fn name(&self) -> &str {
        self.profile.get("name").and_then(Value::as_str).unwrap_or_default()
    }

    /// Refuses to change the members of a group that Okta does not own.
    pub(super) fn check_own_members(&self) -> Result<(), OktaRefusal> {
        if self.kind == GroupKind::Okta { Ok(()) } else { Err(OktaRefusal::forbidden()) }
    }

    pub(super) fn target(&self) -> Target {
        Target::new(self.id, "UserGroup", "unknown", self.name())
    }
}

impl Item for Group {
    fn field(&self, attribute: &str) -> Option<Field<'_>> {
        if let Some(name) = attribute.strip_prefix("profile.") {
            return self.profile.get(name).map(Field::Json);
        }
        match attribute {
            "id" => Some(Field::Text(self.id.as_str().into())),
            "type" => Some(Field::Text(self.kind.as_str().into())),
            "created" => Some(Field::Time(self.created.0)),
            "lastUpdated" => Some(Field::Time(self.last_updated.0)),
            "lastMembershipUpdated" => Some(Field::Time(self.last_membership_updated.0)),
            _ => None,
        }
    }
}

/// A group as the JSON of an answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct GroupView<'a> {
    pub(super) group: &'a Group,
    pub(super) host: &'a str,
    /// The stats that `expand=stats` embeds.
    pub(super) stats: Option<Stats>,
}

/// The size of a group.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Stats {
    pub(super) users_count: usize,
    pub(super) apps_count: usize,
    pub(super) group_push_mappings_count: usize,
    pub(super) has_admin_privilege: bool,
}

impl Serialize for GroupView<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let group = self.group;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("id", &group.id)?;
        map.serialize_entry("created", &group.created)?;
        map.serialize_entry("lastUpdated", &group.last_updated)?;
        map.serialize_entry("lastMembershipUpdated", &group.last_membership_updated)?;
        let class =
            if group.kind == GroupKind::App { "okta:windows_security_principal" } else { "okta:user_group" };
        map.serialize_entry("objectClass", &[class])?;
        map.serialize_entry("type", group.kind.as_str())?;
        map.serialize_entry("profile", &group.profile)?;
        if let Some(stats) = &self.stats {
            map.serialize_entry("_embedded", &json!({ "stats": stats }))?;
        }
        map.serialize_entry("_links", &GroupLinks(self))?;
        map.end()
    }
}

struct GroupLinks<'a, 'b>(&'a GroupView<'b>);

impl Serialize for GroupLinks<'_, '_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (host, id) = (self.0.host, self.0.group.id);
        let mut map = serializer.serialize_map(None)?;
        let logo = |size: &str| json!({ "name": size, "href": format!("{host}/assets/img/logos/groups/{size}.png"), "type": "image/png" });
        map.serialize_entry("logo", &[logo("medium"), logo("large")])?;
        for below in ["owners", "users", "apps"] {
            let href = Url(format_args!("{host}/api/v1/groups/{id}/{below}"));
            map.serialize_entry(below, &Href { href, method: None })?;
        }
        map.end()
    }
}
