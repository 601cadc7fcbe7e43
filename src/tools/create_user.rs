//! Creating a user, and its reconciliation.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::domain::bucket::Bucket;
use crate::domain::http::Request;
use crate::domain::ids::{GroupId, UserId, UserKey, excerpt};
use crate::domain::json::Object;
use crate::domain::result::ErrorCode;

use super::absence::{or_default, or_yes, yes};
use super::converge::{groups_of, has_all, is_since, is_taken, look_for, moment, unknown};
use super::cost::Cost;
use super::history::OktaReply;
use super::manifest::{Idempotency, Manifest, ToolKind};
use super::output::User;
use super::plan::{ATTRIBUTES, Forecast, GROUP_TYPE, PASSWORD_POLICY, UNIQUE};
use super::replay::{LAG_PAUSE, Replay};
use super::run::{Done, Run, Stop};
use super::subtool::Subtool;
use super::{groups, resolve};

/// What may happen at the next sign-in of a user created with a password.
#[derive(Debug, Clone, Copy, Deserialize, Serialize, JsonSchema)]
pub enum NextLogin {
    /// The user must choose a new password.
    #[serde(rename = "changePassword")]
    ChangePassword,
}

/// Creates a user.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateUser {
    /// Okta's own profile attributes, custom ones included; `login` and `email` at least.
    profile: Object,
    /// Activates the user. Without a password, Okta then mails an activation link.
    #[serde(default = "yes", deserialize_with = "or_yes")]
    #[schemars(with = "Option<bool>")]
    activate: bool,
    /// Okta's credentials object: `password`, `recovery_question`, `provider`.
    credentials: Option<Object>,
    /// Groups to put the user into, at most 20.
    #[serde(default, deserialize_with = "or_default")]
    #[schemars(with = "Option<Vec<GroupId>>", length(max = GROUP_IDS_MAX))]
    group_ids: Vec<GroupId>,
    /// The step required at the first sign-in; needs `activate` and a password.
    next_login: Option<NextLogin>,
    /// Makes Okta use `credentials.provider`, which it ignores otherwise.
    #[serde(default, deserialize_with = "or_default")]
    #[schemars(with = "Option<bool>")]
    provider: bool,
    /// The id of a user type other than the default.
    type_id: Option<String>,
    /// The id of the realm.
    realm_id: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NewUser<'a> {
    profile: &'a Object,
    #[serde(skip_serializing_if = "Option::is_none")]
    credentials: Option<&'a Object>,
    #[serde(skip_serializing_if = "<[GroupId]>::is_empty")]
    group_ids: &'a [GroupId],
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<TypeId<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    realm_id: Option<&'a str>,
}

#[derive(Serialize)]
struct TypeId<'a> {
    id: &'a str,
}

/// The most groups Okta takes with a new user (E0000093 beyond).
const GROUP_IDS_MAX: usize = 20;

impl Subtool for CreateUser {
    type Output = User;
    const MANIFEST: Manifest = Manifest {
        name: "create_user",
        kind: ToolKind::Write,
        scope: "okta.users.manage",
        summary: "Creates a user. `activate: false` creates it silently; otherwise, without a password, Okta \
                  mails the user an activation link.",
        not_for: "Not for somebody who has an account: a taken login, even of a deactivated user, fails with \
                  `already_exists`; use `update_user` or `activate_user`.",
        cost: Cost::one(Bucket::Users),
        returns: "the user, with its new `id` and its `status`",
        examples: &[
            r#"{"profile":{"firstName":"Jane","lastName":"Doe","email":"jane@example.com","login":"jane@example.com"}}"#,
            r#"{"profile":{"firstName":"Joe","lastName":"Roe","email":"joe@example.com","login":"joe@example.com","department":"Sales"},"activate":false,"group_ids":["00g1emaKYZTWRYYRRTSK"]}"#,
            r#"{"profile":{"firstName":"Ann","lastName":"Poe","email":"ann@example.com","login":"ann@example.com"},"credentials":{"password":{"value":"correct horse battery staple"}},"next_login":"changePassword"}"#,
        ],
    };

    fn repeat(&self) -> Idempotency {
        Idempotency::Create
    }

    fn run(&self, okta: &mut Replay<'_>) -> Run<User> {
        if self.group_ids.len() > GROUP_IDS_MAX {
            let message = format!("at most {GROUP_IDS_MAX} groups, not {}", self.group_ids.len());
            return Err(Stop::argument("group_ids", message));
        }
        let next_login = self.next_login.map(|NextLogin::ChangePassword| "changePassword");
        let body = NewUser {
            profile: &self.profile,
            credentials: self.credentials.as_ref(),
            group_ids: &self.group_ids,
            kind: self.type_id.as_deref().map(|id| TypeId { id }),
            realm_id: self.realm_id.as_deref(),
        };
        let request = Request::post("/api/v1/users", &[])
            .query("activate", self.activate)
            .query_opt("provider", self.provider.then_some(true))
            .query_opt("nextLogin", next_login)
            .json(&body);
        // Safe to retry: Okta refuses a second user with this login.
        let reply = loop {
            if let Some(reply) = okta.attempt(request.clone())? {
                break reply;
            }
        };
        match okta.may_have_created_since() {
            Some(since) if !reply.is_success() && is_taken(&reply.error(), "login") => {
                Ok(Done::applied(User(self.find(okta, since, reply)?)))
            }
            _ => Ok(Done::applied(User(reply.json()?))),
        }
    }

    fn foresee(&self, okta: &mut Replay<'_>) -> Result<Forecast, Stop> {
        let refused = |why: &str| Err(Stop::fail(ErrorCode::OktaRejected, why));
        let has_password =
            self.credentials.as_ref().is_some_and(|credentials| credentials.get("password").is_some());
        if self.next_login.is_some() && !(self.activate && has_password) {
            return refused("failed to create the user: `next_login` needs `activate` and a password");
        }
        let Some(login) = self.profile.text("login") else {
            return refused("failed to create the user: `profile.login` is missing");
        };
        if let Ok(key) = UserKey::try_from(login.clone())
            && resolve::is_there(&key, okta)?.is_some()
        {
            let message = format!("failed to create the user: login `{}` is taken", excerpt(&login));
            return Err(Stop::fail(ErrorCode::AlreadyExists, message));
        }
        let mut forecast = Forecast::applied();
        for group in &self.group_ids {
            if !groups::is_okta_group(okta, group)? {
                forecast = Forecast::unknown(GROUP_TYPE);
            }
        }
        Ok(forecast.without(&[PASSWORD_POLICY, ATTRIBUTES, UNIQUE]))
    }
}

/// The part of a user that shows if this invocation created it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Made {
    id: String,
    status: String,
    #[serde(default, deserialize_with = "moment")]
    created: Option<Timestamp>,
    #[serde(default)]
    profile: Object,
    #[serde(rename = "type", default)]
    kind: Option<MadeType>,
    #[serde(default)]
    realm_id: Option<String>,
    #[serde(default)]
    transitioning_to_status: Option<String>,
}

#[derive(Deserialize)]
struct MadeType {
    id: String,
}

/// The most reads of a new user that is not yet in its final state.
const CREATE_READS_MAX: usize = 4;

impl CreateUser {
    /// Returns the user that has the taken login, if this invocation created it.
    fn find(
        &self,
        okta: &mut Replay<'_>,
        since: Timestamp,
        taken: OktaReply<'_>,
    ) -> Result<Box<RawValue>, Stop> {
        let Some(key) = self.profile.text("login").and_then(|login| UserKey::try_from(login).ok()) else {
            return Err(taken.refused());
        };
        let key = resolve::user(&key, okta)?;
        for read in 0..CREATE_READS_MAX {
            let request = resolve::reading(&key);
            let request = if read > 0 { request.after(LAG_PAUSE) } else { request };
            let Some(reply) = look_for(okta, request)? else { continue };
            let made: Made = reply.read()?;
            if !self.is(&made, since) {
                return Err(taken.refused());
            }
            if !self.has_groups(okta, &made)? {
                continue;
            }
            // It may have been left staged deliberately, so it is not activated on suspicion.
            if self.activate && made.status == "STAGED" && made.transitioning_to_status.is_none() {
                continue;
            }
            return reply.json();
        }
        Err(unknown("the user was created, but it is not activated or not in all groups; look at it"))
    }

    fn is(&self, made: &Made, since: Timestamp) -> bool {
        let same = |asked: Option<&str>, made: Option<&str>| asked.is_none() || asked == made;
        is_since(made.created, since)
            && has_all(Some(&made.profile), &self.profile)
            && same(self.type_id.as_deref(), made.kind.as_ref().map(|kind| kind.id.as_str()))
            && same(self.realm_id.as_deref(), made.realm_id.as_deref())
    }

    /// Returns true if the user is in all requested groups.
    fn has_groups(&self, okta: &mut Replay<'_>, made: &Made) -> Result<bool, Stop> {
        if self.group_ids.is_empty() {
            return Ok(true);
        }
        let user = UserId::from_okta(&made.id).map_err(|_| Stop::unreadable())?;
        let groups = groups_of(okta, &user)?;
        Ok(self.group_ids.iter().all(|wanted| groups.iter().any(|group| group == wanted.as_str())))
    }
}
