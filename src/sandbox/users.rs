//! Users: their data, their JSON, and their lookup by id, login or short name.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use super::expression::{Field, Item};
use super::ids::{Id, fold};
use super::lagging_index::LaggingIndex;
use super::profile::{Profile, SHOWN_EMPTY};
use super::reply::{Href, Stamp, Url};

/// The lifecycle status of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, strum::IntoStaticStr, strum::EnumCount)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[strum(serialize_all = "SCREAMING_SNAKE_CASE")]
pub enum UserStatus {
    /// Created and not activated.
    Staged,
    /// Activated, and has never set a password.
    Provisioned,
    /// In use.
    Active,
    /// The password was reset and not yet set again.
    Recovery,
    /// The password must be changed at the next sign-in.
    PasswordExpired,
    /// Too many wrong passwords.
    LockedOut,
    /// Suspended by an administrator.
    Suspended,
    /// Deactivated; the only status a user can be deleted from.
    Deprovisioned,
}

impl UserStatus {
    /// Every status.
    pub const ALL: [Self; <Self as strum::EnumCount>::COUNT] = [
        Self::Staged,
        Self::Provisioned,
        Self::Active,
        Self::Recovery,
        Self::PasswordExpired,
        Self::LockedOut,
        Self::Suspended,
        Self::Deprovisioned,
    ];

    /// Returns the status in Okta's spelling.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

impl fmt::Display for UserStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The credentials of a user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Credentials {
    /// True if the user has a password, which itself is never stored.
    pub(super) has_password: bool,
    pub(super) recovery_question: Option<String>,
    /// The type and name of another identity provider; `None` means Okta.
    pub(super) provider: Option<(String, String)>,
}

/// A user.
#[derive(Debug, Clone)]
pub(super) struct User {
    pub(super) id: Id,
    pub(super) kind: Id,
    /// The realm, in an org that has realms.
    pub(super) realm: Option<String>,
    pub(super) status: UserStatus,
    /// The status to restore when the suspension ends.
    pub(super) before_suspension: UserStatus,
    pub(super) created: Stamp,
    pub(super) activated: Option<Stamp>,
    pub(super) status_changed: Option<Stamp>,
    pub(super) last_updated: Stamp,
    pub(super) password_changed: Option<Stamp>,
    pub(super) profile: Profile,
    pub(super) credentials: Credentials,
    /// The number of changes, which serves as the `ETag`.
    pub(super) revision: u64,
}

impl User {
    /// Returns the value of a text attribute.
    pub(super) fn text(&self, attribute: &str) -> &str {
        self.profile.get(attribute).and_then(Value::as_str).unwrap_or_default()
    }

    /// Returns the name that the System Log shows.
    pub(super) fn display_name(&self) -> String {
        format!("{} {}", self.text("firstName"), self.text("lastName"))
    }

    pub(super) fn etag(&self) -> String {
        format!("W/\"{}\"", self.revision)
    }
}

impl Item for User {
    fn field(&self, attribute: &str) -> Option<Field<'_>> {
        if let Some(name) = attribute.strip_prefix("profile.") {
            return self.profile.get(name).map(Field::Json);
        }
        match attribute {
            "id" => Some(Field::Text(self.id.as_str().into())),
            "type.id" => Some(Field::Text(self.kind.as_str().into())),
            "status" => Some(Field::Text(self.status.as_str().into())),
            "created" => Some(Field::Time(self.created.0)),
            "activated" => self.activated.map(|stamp| Field::Time(stamp.0)),
            "statusChanged" => self.status_changed.map(|stamp| Field::Time(stamp.0)),
            "lastUpdated" => Some(Field::Time(self.last_updated.0)),
            _ => None,
        }
    }
}

/// The form of a user's JSON: alone, or in a list with no links but its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UserForm {
    Whole,
    Listed,
}

/// A user as the JSON of an answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct UserView<'a> {
    pub(super) user: &'a User,
    pub(super) host: &'a str,
    pub(super) form: UserForm,
}

impl Serialize for UserView<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let user = self.user;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("id", &user.id)?;
        map.serialize_entry("status", user.status.as_str())?;
        map.serialize_entry("created", &user.created)?;
        map.serialize_entry("activated", &user.activated)?;
        map.serialize_entry("statusChanged", &user.status_changed)?;
        map.serialize_entry("lastLogin", &None::<Stamp>)?; // nobody signs in to a simulation
        map.serialize_entry("lastUpdated", &user.last_updated)?;
        map.serialize_entry("passwordChanged", &user.password_changed)?;
        map.serialize_entry("type", &json!({ "id": user.kind }))?;
        if let Some(realm) = &user.realm {
            map.serialize_entry("realmId", realm)?;
        }
        map.serialize_entry("profile", &ProfileView(&user.profile))?;
        map.serialize_entry("credentials", &CredentialsView(&user.credentials))?;
        map.serialize_entry("_links", &LinksView(self))?;
        map.end()
    }
}

struct ProfileView<'a>(&'a Profile);

impl Serialize for ProfileView<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (name, value) in self.0 {
            map.serialize_entry(name, value)?;
        }
        for name in SHOWN_EMPTY {
            if !self.0.contains_key(name) {
                map.serialize_entry(name, &())?;
            }
        }
        map.end()
    }
}

struct CredentialsView<'a>(&'a Credentials);

impl Serialize for CredentialsView<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if self.0.has_password {
            map.serialize_entry("password", &json!({}))?;
        }
        if let Some(question) = &self.0.recovery_question {
            map.serialize_entry("recovery_question", &json!({ "question": question }))?;
        }
        let (kind, name) =
            self.0.provider.as_ref().map_or(("OKTA", "OKTA"), |(kind, name)| (kind.as_str(), name.as_str()));
        map.serialize_entry("provider", &json!({ "type": kind, "name": name }))?;
        map.end()
    }
}

struct LinksView<'a, 'b>(&'a UserView<'b>);

impl Serialize for LinksView<'_, '_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let UserView { user, host, form } = *self.0;
        let (id, kind) = (user.id, user.kind);
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry(
            "self",
            &Href { href: Url(format_args!("{host}/api/v1/users/{id}")), method: None },
        )?;
        if form == UserForm::Listed {
            return map.end();
        }
        for name in steps(user.status) {
            let (method, below) = step(name);
            let href = Url(format_args!("{host}/api/v1/users/{id}{below}"));
            map.serialize_entry(name, &Href { href, method: Some(method) })?;
        }
        let schema = &kind.as_str()[3..];
        let href = Url(format_args!("{host}/api/v1/meta/schemas/user/osc{schema}"));
        map.serialize_entry("schema", &Href { href, method: None })?;
        let href = Url(format_args!("{host}/api/v1/meta/types/user/{kind}"));
        map.serialize_entry("type", &Href { href, method: None })?;
        map.end()
    }
}

/// Returns the links of a user in this status, as recorded.
fn steps(status: UserStatus) -> &'static [&'static str] {
    match status {
        UserStatus::Staged => &["activate", "resetFactors"],
        UserStatus::Provisioned => &["suspend", "reactivate", "resetPassword", "resetFactors", "deactivate"],
        UserStatus::Active | UserStatus::Recovery | UserStatus::PasswordExpired => &[
            "suspend",
            "resetPassword",
            "forgotPassword",
            "expirePassword",
            "changeRecoveryQuestion",
            "resetFactors",
            "changePassword",
            "deactivate",
        ],
        UserStatus::LockedOut => &["unlock", "resetPassword", "resetFactors", "deactivate"],
        UserStatus::Suspended => &["unsuspend", "resetPassword", "resetFactors", "deactivate"],
        UserStatus::Deprovisioned => &["activate", "delete", "resetFactors"],
    }
}

/// Returns the method and path of a link.
fn step(name: &str) -> (&'static str, &'static str) {
    match name {
        "activate" => ("POST", "/lifecycle/activate"),
        "reactivate" => ("POST", "/lifecycle/reactivate"),
        "deactivate" => ("POST", "/lifecycle/deactivate"),
        "suspend" => ("POST", "/lifecycle/suspend"),
        "unsuspend" => ("POST", "/lifecycle/unsuspend"),
        "unlock" => ("POST", "/lifecycle/unlock"),
        "resetPassword" => ("POST", "/lifecycle/reset_password"),
        "expirePassword" => ("POST", "/lifecycle/expire_password"),
        "resetFactors" => ("POST", "/lifecycle/reset_factors"),
        "forgotPassword" => ("POST", "/credentials/forgot_password"),
        "changePassword" => ("POST", "/credentials/change_password"),
        "changeRecoveryQuestion" => ("POST", "/credentials/change_recovery_question"),
        _ => ("DELETE", ""),
    }
}

/// All users, with an index by login and short name.
#[derive(Debug)]
pub(super) struct Users {
    index: LaggingIndex<User>,
    /// The folded logins. A deactivated user still holds its own.
    logins: HashMap<String, Id>,
    /// The folded parts before the `@`, each with all users who have it.
    short_names: HashMap<String, Vec<Id>>,
}

impl Users {
    pub(super) fn new(lag: Duration) -> Self {
        Self { index: LaggingIndex::new(lag), logins: HashMap::new(), short_names: HashMap::new() }
    }

    pub(super) fn index(&self) -> &LaggingIndex<User> {
        &self.index
    }

    pub(super) fn get(&self, id: Id) -> Option<&User> {
        self.index.get(id)
    }

    /// Finds a user by id, login or unambiguous short name.
    pub(super) fn find(&self, key: &str) -> Option<&User> {
        if let Some(user) = Id::parse(key).and_then(|id| self.index.get(id)) {
            return Some(user);
        }
        let key = fold(key);
        let id = match self.logins.get(&key) {
            Some(id) => *id,
            None => match self.short_names.get(&key)?.as_slice() {
                [id] => *id,
                _ => return None, // what Okta answers to an ambiguous name is not known; 404 is likely
            },
        };
        self.index.get(id)
    }

    /// Returns true if no other user holds a login.
    pub(super) fn is_free(&self, login: &str, whose: Option<Id>) -> bool {
        self.logins.get(&fold(login)).is_none_or(|holder| Some(*holder) == whose)
    }

    pub(super) fn add(&mut self, user: User, now: Timestamp) {
        self.name(&user);
        self.index.put(user.id, user, now);
    }

    /// Replaces a user's state, and its index entries if the login changed.
    pub(super) fn change(&mut self, user: User, now: Timestamp) {
        let known = self.index.get(user.id).map(|former| former.text("login").to_owned());
        if known.as_deref() != Some(user.text("login")) {
            if let Some(login) = known {
                self.forget(&login, user.id);
            }
            self.name(&user);
        }
        self.index.put(user.id, user, now);
    }

    pub(super) fn remove(&mut self, id: Id, now: Timestamp) {
        if let Some(user) = self.index.remove(id, now) {
            self.forget(user.text("login"), id);
        }
    }

    fn name(&mut self, user: &User) {
        let login = fold(user.text("login"));
        let short = short_name(&login).to_owned();
        self.logins.insert(login, user.id);
        self.short_names.entry(short).or_default().push(user.id);
    }

    fn forget(&mut self, login: &str, id: Id) {
        let login = fold(login);
        self.logins.remove(&login);
        let short = short_name(&login);
        if let Some(holders) = self.short_names.get_mut(short) {
            holders.retain(|holder| *holder != id);
            if holders.is_empty() {
                self.short_names.remove(short);
            }
        }
    }
}

fn short_name(login: &str) -> &str {
    login.split_once('@').map_or(login, |(short, _)| short)
}
