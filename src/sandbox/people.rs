//! The operations on users except their lifecycle: create, read, list, update, and their groups.

use http::header::{ETAG, IF_MATCH};
use serde_json::{Map, Value};

use super::call::{RequestContext, Switch, Update};
use super::effects::ChangeKind;
use super::expression::Operator;
use super::group::{GroupKind, GroupView};
use super::ids::Id;
use super::org::Org;
use super::pages::{self, Links, NextPage, Sizes};
use super::profile::{self, Profile};
use super::refusal::OktaRefusal;
use super::reply::{OrgReply, Stamp};
use super::search::{Dialect, Query};
use super::settings::Attribute;
use super::users::{Credentials, User, UserForm, UserStatus, UserView};

/// The most groups that a new user may join at creation.
const GROUPS_MAX: usize = 20;

/// The shortest password of Okta's default policy.
const PASSWORD_CHARS_MIN: usize = 8;

const USERS: Sizes = Sizes { default: 200, max: 200 };
const USERS_BY_Q: Sizes = Sizes { default: 10, max: 200 };
const GROUPS_OF_USER: Sizes = Sizes { default: 200, max: 200 };

/// The password of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NewPassword {
    None,
    Given,
}

impl Org {
    /// Returns the user that a path names.
    pub(super) fn user_at(&self, key: &str) -> Result<&User, OktaRefusal> {
        self.users.find(key).ok_or_else(|| OktaRefusal::missing(key, "User"))
    }

    pub(super) fn view<'a>(&'a self, user: &'a User, form: UserForm) -> UserView<'a> {
        UserView { user, host: &self.settings.host, form }
    }

    pub(super) fn show_user(&self, user: &User) -> OrgReply {
        OrgReply::json(&self.view(user, UserForm::Whole)).with(ETAG, user.etag())
    }

    pub(super) fn get_user(&self, asked: &RequestContext<'_>) -> Result<OrgReply, OktaRefusal> {
        Ok(self.show_user(self.user_at(&asked.ids[0])?))
    }

    pub(super) fn list_users(&self, asked: &RequestContext<'_>) -> Result<OrgReply, OktaRefusal> {
        if let Some(start) = asked.query("q") {
            return self.list_users_by_start(asked, start);
        }
        let custom = &self.settings.user_attributes;
        let dialect = Dialect {
            search: &|attribute, operator| is_searchable(attribute, operator, custom),
            filter: &is_filterable,
        };
        let query = Query::read(asked, &dialect)?;
        let limit = pages::limit(asked, USERS)?;
        let asks = asked.query("search").or(asked.query("filter")).is_some();
        let page = query.page(asked, self.users.index(), limit, |user| {
            asks || user.status != UserStatus::Deprovisioned
        })?;
        let views: Vec<_> = page.items.iter().map(|user| self.view(user, UserForm::Listed)).collect();
        // Recorded: a `sortOrder` that is neither is dropped. A link leads to the following page in the same order.
        let is_order = |order: &str| ["asc", "desc"].iter().any(|known| order.eq_ignore_ascii_case(known));
        let kept: &[&str] = match asked.query("sortOrder").is_some_and(is_order) {
            true => &["filter", "search", "sortBy", "sortOrder"],
            false => &["filter", "search", "sortBy"],
        };
        let links = Links { host: &self.settings.host, path: "/api/v1/users", limit, kept };
        Ok(links.write(OrgReply::json(&views), asked, page.next.as_deref()))
    }

    /// Lists users whose names or e-mail address start with this text. One page, and no links.
    fn list_users_by_start(&self, asked: &RequestContext<'_>, start: &str) -> Result<OrgReply, OktaRefusal> {
        if asked.query("filter").or(asked.query("search")).is_some() {
            return Err(OktaRefusal::search_and_filter());
        }
        let start = start.to_lowercase();
        let starts = |user: &User| {
            ["firstName", "lastName", "email"]
                .iter()
                .any(|name| user.text(name).to_lowercase().starts_with(&start))
        };
        let found = self
            .users
            .index()
            .seen(None, asked.now)
            .filter(|(_, user)| user.status != UserStatus::Deprovisioned && starts(user))
            .map(|(_, user)| self.view(user, UserForm::Listed));
        let (page, _) = pages::cut(found, pages::limit(asked, USERS_BY_Q)?);
        Ok(OrgReply::json(&page))
    }

    pub(super) fn create_user(&mut self, asked: &RequestContext<'_>) -> Result<OrgReply, OktaRefusal> {
        let body = asked.object(&["profile", "credentials", "groupIds", "type", "realmId"])?;
        let activates = asked.switch("activate", Switch::On) == Switch::On;
        let wanted = Profile::clone(part(&body, "profile")?.unwrap_or(&Map::new()));
        let given = part(&body, "credentials")?;
        let password = password(given)?;
        let expires =
            asked.query("nextLogin").is_some_and(|next| next.eq_ignore_ascii_case("changePassword"));
        if expires && !activates {
            return Err(OktaRefusal::next_login_without_activation());
        }
        if expires && password == NewPassword::None {
            return Err(OktaRefusal::next_login_without_password());
        }
        profile::check_attributes(&wanted, &self.settings.user_attributes, "newUser")?;
        let mut profile = Profile::new();
        profile::merge(&mut profile, wanted);
        profile::check(&profile)?;
        self.check_login(&profile, None)?;
        check_password(given)?;
        let kind = self.type_asked(&body)?.unwrap_or(self.user_type);
        let groups = self.groups_of_body(&body)?;

        let mut credentials = Credentials::default();
        apply_credentials(&mut credentials, given);
        if asked.switch("provider", Switch::Off) == Switch::On {
            credentials.provider = provider(given);
        }
        let status = match (activates, password) {
            (false, _) => UserStatus::Staged,
            (true, NewPassword::Given) if expires => UserStatus::PasswordExpired,
            (true, NewPassword::Given) => UserStatus::Active,
            (true, NewPassword::None) if credentials.provider.is_some() => UserStatus::Active,
            (true, NewPassword::None) => UserStatus::Provisioned,
        };
        let now = Stamp::seconds(asked.now);
        let since_activation = activates.then_some(now);
        let has_password = password == NewPassword::Given;
        let user = User {
            id: self.ids.mint("00u"),
            kind,
            realm: realm(&body),
            status,
            before_suspension: status,
            created: now,
            activated: since_activation,
            // Recorded since 2023: a password counts as a change of status, even for a staged user.
            status_changed: (activates || has_password).then_some(now),
            last_updated: now,
            password_changed: has_password.then_some(now),
            profile,
            credentials,
            revision: 1,
        };
        let reply = self.show_user(&user);
        self.happened_to_user(asked.cause, ChangeKind::UserCreated, &user);
        if activates {
            self.happened_to_user(asked.cause, ChangeKind::UserActivated, &user);
        }
        if status == UserStatus::Provisioned {
            self.did(asked.cause, ChangeKind::MailActivation, user.id.to_string());
        }
        let id = user.id;
        self.users.add(user, asked.now);
        self.everyone_changed(asked.now);
        for group in groups {
            self.join(asked.cause, group, id);
        }
        Ok(reply)
    }

    pub(super) fn update_user(
        &mut self,
        asked: &RequestContext<'_>,
        update: Update,
    ) -> Result<OrgReply, OktaRefusal> {
        let key = &asked.ids[0];
        let former = self.user_at(key)?;
        if former.status == UserStatus::Deprovisioned {
            // Unless an org allows edits of deactivated profiles, Okta reports them as missing.
            return Err(OktaRefusal::missing(key, "User"));
        }
        if asked.headers.get(IF_MATCH).is_some_and(|etag| etag.as_bytes() != former.etag().as_bytes()) {
            return Err(OktaRefusal::changed_meanwhile());
        }
        let body = asked.object(&["profile", "credentials", "type", "realmId"])?;
        let given = part(&body, "credentials")?;
        let mut user = former.clone();
        if let Some(wanted) = part(&body, "profile")? {
            profile::check_attributes(wanted, &self.settings.user_attributes, "user")?;
            if update == Update::Replace {
                user.profile = Profile::new();
            }
            profile::merge(&mut user.profile, wanted.clone());
            profile::check(&user.profile)?;
            self.check_login(&user.profile, Some(user.id))?;
        }
        check_password(given)?;
        let kind = self.type_asked(&body)?;
        if let Some(kind) = kind.filter(|kind| *kind != user.kind) {
            if update == Update::Merge {
                return Err(OktaRefusal::type_kept());
            }
            user.kind = kind;
        }
        if let Some(realm) = realm(&body) {
            user.realm = Some(realm);
        }
        let sets_password = password(given)? == NewPassword::Given;
        apply_credentials(&mut user.credentials, given);
        let changed = user.profile != former.profile
            || (user.kind, &user.realm) != (former.kind, &former.realm)
            || user.credentials.recovery_question != former.credentials.recovery_question;
        let now = Stamp::seconds(asked.now);
        user.last_updated = now;
        user.revision += 1;
        if sets_password {
            user.password_changed = Some(now);
        }
        if changed {
            self.happened_to_user(asked.cause, ChangeKind::UserUpdated, &user);
        }
        if sets_password {
            self.happened_to_user(asked.cause, ChangeKind::PasswordSet, &user);
        }
        let reply = self.show_user(&user);
        self.users.change(user, asked.now);
        Ok(reply)
    }

    pub(super) fn list_user_groups(&self, asked: &RequestContext<'_>) -> Result<OrgReply, OktaRefusal> {
        let user = self.user_at(&asked.ids[0])?.id;
        let limit = pages::limit(asked, GROUPS_OF_USER)?;
        let found = self.groups.seen(pages::after(asked)?, asked.now).filter(|(id, group)| {
            group.kind == GroupKind::BuiltIn
                || self.members.get(id).is_some_and(|members| members.seen_one(user, asked.now).is_some())
        });
        let (page, rest) = pages::cut(found, limit);
        let next = page.last().filter(|_| rest == NextPage::More).map(|(id, _)| id.to_string());
        let host = &self.settings.host;
        let views: Vec<_> = page.iter().map(|(_, group)| GroupView { group, host, stats: None }).collect();
        let path = format!("/api/v1/users/{user}/groups");
        let links = Links { host, path: &path, limit, kept: &[] };
        Ok(links.write(OrgReply::json(&views), asked, next.as_deref()))
    }

    fn check_login(&self, profile: &Profile, whose: Option<Id>) -> Result<(), OktaRefusal> {
        let login = profile.get("login").and_then(Value::as_str).unwrap_or_default();
        if self.users.is_free(login, whose) { Ok(()) } else { Err(OktaRefusal::taken("login")) }
    }

    /// Returns the user type that a body names, if it names one.
    fn type_asked(&self, body: &Map<String, Value>) -> Result<Option<Id>, OktaRefusal> {
        let Some(id) = body.get("type").and_then(|kind| kind.get("id")).and_then(Value::as_str) else {
            return Ok(None);
        };
        let known = [self.user_type, self.second_user_type].into_iter().find(|known| known.as_str() == id);
        known.map(Some).ok_or_else(|| OktaRefusal::missing(id, "UserType"))
    }

    fn groups_of_body(&self, body: &Map<String, Value>) -> Result<Vec<Id>, OktaRefusal> {
        let Some(value) = body.get("groupIds").filter(|value| !value.is_null()) else {
            return Ok(Vec::new());
        };
        let ids = value.as_array().ok_or_else(OktaRefusal::malformed)?;
        if ids.len() > GROUPS_MAX {
            return Err(OktaRefusal::too_many_groups());
        }
        ids.iter()
            .map(|id| {
                let group = self.group_at(id.as_str().ok_or_else(OktaRefusal::malformed)?)?;
                group.check_own_members()?; // Guess: as when a member is added
                Ok(group.id)
            })
            .collect()
    }
}

/// Returns a part of a body that is an object, if it is present.
fn part<'a>(body: &'a Map<String, Value>, name: &str) -> Result<Option<&'a Map<String, Value>>, OktaRefusal> {
    match body.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(object)) => Ok(Some(object)),
        Some(_) => Err(OktaRefusal::malformed()),
    }
}

/// Reads the password in the credentials of a body: clear, hashed or left to a hook. `{}` counts as none.
fn password(credentials: Option<&Map<String, Value>>) -> Result<NewPassword, OktaRefusal> {
    let Some(credentials) = credentials else { return Ok(NewPassword::None) };
    let given = part(credentials, "password")?.is_some_and(|password| {
        ["value", "hash", "hook"].iter().any(|kind| password.get(*kind).is_some_and(|v| !v.is_null()))
    });
    Ok(if given { NewPassword::Given } else { NewPassword::None })
}

/// Refuses a clear password that violates the policy.
fn check_password(credentials: Option<&Map<String, Value>>) -> Result<(), OktaRefusal> {
    let clear = credentials.and_then(|given| given.get("password")?.get("value")?.as_str());
    if clear.is_some_and(|password| password.chars().count() < PASSWORD_CHARS_MIN) {
        let cause = format!(
            "password: Password requirements were not met. Password requirements: at least {PASSWORD_CHARS_MIN} characters."
        );
        return Err(OktaRefusal::invalid("password", vec![cause]));
    }
    Ok(())
}

fn apply_credentials(credentials: &mut Credentials, given: Option<&Map<String, Value>>) {
    if matches!(password(given), Ok(NewPassword::Given)) {
        credentials.has_password = true;
    }
    if let Some(question) = given.and_then(|given| given.get("recovery_question")?.get("question")?.as_str())
    {
        credentials.recovery_question = Some(question.to_owned());
    }
}

/// Returns the identity provider of a body, unless it is Okta itself.
fn provider(given: Option<&Map<String, Value>>) -> Option<(String, String)> {
    let provider = given?.get("provider")?;
    let kind = provider.get("type")?.as_str().filter(|kind| *kind != "OKTA")?;
    let name = provider.get("name").and_then(Value::as_str).unwrap_or(kind);
    Some((kind.to_owned(), name.to_owned()))
}

/// Returns true if `search` on users allows this: "any property", all operators but `ne` and `ew`, `co` on names only.
fn is_searchable(attribute: &str, operator: Operator, custom: &[Attribute]) -> bool {
    let known = match attribute.strip_prefix("profile.") {
        Some(name) => profile::is_attribute(name, custom),
        None => matches!(
            attribute,
            "id" | "status" | "created" | "activated" | "statusChanged" | "lastUpdated" | "type.id"
        ),
    };
    known
        && match operator {
            Operator::NotEqual | Operator::EndsWith => false,
            Operator::Contains => {
                matches!(
                    attribute,
                    "profile.firstName" | "profile.lastName" | "profile.email" | "profile.login"
                )
            }
            Operator::Equal
            | Operator::StartsWith
            | Operator::Greater
            | Operator::GreaterOrEqual
            | Operator::Less
            | Operator::LessOrEqual
            | Operator::Present => true,
        }
}

/// Returns true if `filter` on users supports this.
fn is_filterable(attribute: &str, operator: Operator) -> bool {
    match attribute {
        "lastUpdated" => is_order(operator),
        "status" | "id" | "profile.login" | "profile.email" | "profile.firstName" | "profile.lastName" => {
            operator == Operator::Equal
        }
        _ => false,
    }
}

/// Returns true for the operators of a time.
pub(super) fn is_order(operator: Operator) -> bool {
    matches!(
        operator,
        Operator::Equal
            | Operator::Greater
            | Operator::GreaterOrEqual
            | Operator::Less
            | Operator::LessOrEqual
    )
}

/// Returns the realm that a body names. Any id is taken: what Okta answers to an unknown one is not recorded.
fn realm(body: &Map<String, Value>) -> Option<String> {
    Some(body.get("realmId")?.as_str()?.to_owned())
}
