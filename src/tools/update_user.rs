//! Changing a user, and its reconciliation.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::domain::bucket::Bucket;
use crate::domain::http::Request;
use crate::domain::ids::{UserId, UserKey, excerpt};
use crate::domain::json::Object;
use crate::domain::result::ErrorCode;

use super::converge::{has_all, is_since, look_for, moment};
use super::cost::Cost;
use super::history::OktaReply;
use super::manifest::{Idempotency, Manifest, ToolKind};
use super::output::User;
use super::plan::{ATTRIBUTES, Forecast, MASTERED, PASSWORD_POLICY, UNIQUE};
use super::replay::Replay;
use super::resolve;
use super::run::{Done, Run, Stop};
use super::subtool::Subtool;
use super::user_state::UserState;

/// Changes attributes or credentials of a user.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateUser {
    /// The user's id or login.
    user_id: UserKey,
    /// Attributes to change: absent ones stay, `null` clears, `""` is sent unchanged.
    profile: Option<Object>,
    /// Okta's credentials object; needs the kind `credentials` too.
    credentials: Option<Object>,
    /// The id of another user type.
    type_id: Option<String>,
    /// The id of another realm.
    realm_id: Option<String>,
}

/// A user type, by its id.
#[derive(Serialize)]
struct UserType<'a> {
    id: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct UserChange<'a> {
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<UserType<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    realm_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    profile: Option<&'a Object>,
    #[serde(skip_serializing_if = "Option::is_none")]
    credentials: Option<&'a Object>,
}

impl Subtool for UpdateUser {
    type Output = User;
    const MANIFEST: Manifest = Manifest {
        name: "update_user",
        kind: ToolKind::Write,
        scope: "okta.users.manage",
        summary: "Changes the given attributes of a user and leaves the others alone; `null` clears one. \
                  Setting a password through `credentials` needs the kind `credentials` too.",
        not_for: "Not for a deactivated user, nor for status (`suspend_user`, `deactivate_user`, \
                  `activate_user`) or groups (`add_user_to_group`).",
        cost: Cost::one(Bucket::UserWrite).and("1 more in `user_read` with `type_id`"),
        returns: "the whole user after the change",
        examples: &[
            r#"{"user_id":"jane@example.com","profile":{"department":"Support","mobilePhone":null}}"#,
            r#"{"user_id":"00u1abCdEfGhIjKlMnOp","credentials":{"password":{"value":"correct horse battery staple"}}}"#,
            r#"{"user_id":"00u1abCdEfGhIjKlMnOp","type_id":"otyfnjfba4ye7pgjB0g4"}"#,
        ],
    };

    fn repeat(&self) -> Idempotency {
        Idempotency::Set
    }

    fn also_needs(&self) -> Option<ToolKind> {
        self.credentials.as_ref().map(|_| ToolKind::Credentials)
    }

    fn run(&self, okta: &mut Replay<'_>) -> Run<User> {
        self.check()?;
        let user = resolve::user(&self.user_id, okta)?;
        let since = okta.doubt();
        let there = match since {
            Some(_) => look_for(okta, resolve::reading(&user))?,
            None if self.type_id.is_some() => {
                let reply = resolve::read(&user, okta)?;
                reply.success()?;
                Some(reply)
            }
            None => None,
        };
        if let Some(reply) = there.as_ref().filter(|_| since.is_some())
            && self.is_done(since, reply)?
        {
            return Ok(Done::applied(User(reply.json()?)));
        }
        let reply = okta.ask(self.write(&user, there.as_ref())?)?;
        if reply.is_success() {
            return Ok(Done::applied(User(reply.json()?)));
        }
        let refusal = reply.error();
        if refusal.status == 404 {
            // For a deactivated user Okta also answers "not found" (okta-sdk-java issue 721).
            let state: UserState = resolve::read(&user, okta)?.read()?;
            if state.status == "DEPROVISIONED" {
                let message =
                    format!("failed to update user `{}`: it is DEPROVISIONED", excerpt(user.as_str()));
                return Err(Stop::precondition(message, Some(refusal)));
            }
        }
        Err(Stop::Refused(Box::new(refusal)))
    }

    fn foresee(&self, okta: &mut Replay<'_>) -> Result<Forecast, Stop> {
        self.check()?;
        let user = resolve::user(&self.user_id, okta)?;
        let state: UserState = resolve::read(&user, okta)?.read()?;
        if state.status == "DEPROVISIONED" {
            let message = format!("failed to update user `{}`: it is DEPROVISIONED", excerpt(user.as_str()));
            return Err(Stop::precondition(message, None));
        }
        let login = self.profile.as_ref().and_then(|profile| profile.text("login"));
        if let Some(login) = login.and_then(|login| UserKey::try_from(login).ok())
            && resolve::is_there(&login, okta)?.is_some_and(|other| other.id != state.id)
        {
            let message = format!("failed to update the user: login `{}` is taken", excerpt(login.as_str()));
            return Err(Stop::fail(ErrorCode::AlreadyExists, message));
        }
        let forecast = Forecast::applied().without(&[PASSWORD_POLICY, MASTERED, ATTRIBUTES, UNIQUE]);
        Ok(match self.type_id.is_some() || self.realm_id.is_some() {
            true => forecast.without(&["whether the user type and the realm are there"]),
            false => forecast,
        })
    }
}

/// A user type, as Okta shows it.
#[derive(Deserialize)]
struct TypeRead {
    id: String,
}

/// The part of a user that an update changes.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Updated {
    #[serde(rename = "type")]
    kind: Option<TypeRead>,
    realm_id: Option<String>,
    #[serde(default)]
    profile: Object,
    #[serde(default, deserialize_with = "moment")]
    password_changed: Option<Timestamp>,
}

impl UpdateUser {
    /// Refuses a call that changes nothing.
    fn check(&self) -> Result<(), Stop> {
        let is_move = self.type_id.is_some() || self.realm_id.is_some();
        if self.profile.is_none() && self.credentials.is_none() && !is_move {
            let message = "give `profile`, `credentials`, `type_id` or `realm_id`";
            return Err(Stop::argument("profile", message));
        }
        Ok(())
    }

    /// Returns the write, given the user as it is where the write depends on that.
    ///
    /// POST merges; PUT clears every attribute that is not in the body (recorded). Another user type takes PUT
    /// (recorded), so the whole profile is sent then.
    fn write(&self, user: &UserId, there: Option<&OktaReply<'_>>) -> Result<Request, Stop> {
        let mut body = UserChange {
            kind: self.type_id.as_deref().map(|id| UserType { id }),
            realm_id: self.realm_id.as_deref(),
            profile: self.profile.as_ref(),
            credentials: self.credentials.as_ref(),
        };
        let there: Option<Updated> =
            there.filter(|_| self.type_id.is_some()).map(|reply| reply.read()).transpose()?;
        match there {
            Some(there) if !self.has_type(&there) => {
                let mut profile = there.profile;
                if let Some(changes) = &self.profile {
                    profile.merge(changes);
                }
                body.profile = Some(&profile);
                Ok(Request::put("/api/v1/users/{userId}", &[user]).json(&body))
            }
            Some(_) | None => Ok(Request::post("/api/v1/users/{userId}", &[user]).json(&body)),
        }
    }

    /// Returns true if a user has the requested type already.
    fn has_type(&self, user: &Updated) -> bool {
        self.type_id.as_ref().is_none_or(|id| user.kind.as_ref().is_some_and(|kind| kind.id == *id))
    }

    /// Returns true if a user already has everything requested, so that an update that may have run before
    /// does not undo another client's later change.
    fn is_done(&self, since: Option<Timestamp>, reply: &OktaReply<'_>) -> Result<bool, Stop> {
        let user: Updated = reply.read()?;
        let profile = self.profile.as_ref().is_none_or(|sent| has_all(Some(&user.profile), sent));
        // A password is unreadable: it counts as set if one was set since.
        let credentials =
            self.credentials.is_none() || since.is_some_and(|since| is_since(user.password_changed, since));
        let realm = self.realm_id.is_none() || self.realm_id == user.realm_id;
        Ok(profile && credentials && self.has_type(&user) && realm)
    }
}
