//! Applications and their assignments.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::domain::bucket::Bucket;
use crate::domain::http::Request;
use crate::domain::ids::{AppId, UserKey};
use crate::domain::json::Object;
use crate::domain::result::{Effect, ErrorCode};

use super::absence::or_default;
use super::converge::{Converged, has_all, is_since, logged, look_for, moment, settle, unknown};
use super::cost::{A_LOGIN, Cost};
use super::history::OktaReply;
use super::list::{Limit, follow};
use super::list_rules::ListRules;
use super::manifest::{Idempotency, Manifest, ToolKind};
use super::output::{App, AppUser, Empty, List};
use super::plan::{ATTRIBUTES, DEACTIVATED, Forecast, Losses, Lost};
use super::replay::Replay;
use super::resolve;
use super::run::{Done, Run, Stop};
use super::subtool::Subtool;
use super::user_state::UserState;

/// The largest page of applications ("List applications").
const APPS_PAGE: u32 = 200;

/// The largest page of application users ("List application users").
const APP_USERS_PAGE: u32 = 500;

/// Lists applications.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListApps {
    /// The beginning of a name or label.
    q: Option<String>,
    /// One expression: `status eq "ACTIVE"`, `name eq "workday"`, `user.id eq "00u…"`.
    filter: Option<String>,
    /// An addition to each application: `user/{id}`, with the matching `user.id` filter.
    expand: Option<String>,
    /// Maximum applications in total.
    #[serde(default)]
    limit: Limit,
    /// `next` of an earlier result with the same arguments.
    after: Option<String>,
}

impl Subtool for ListApps {
    type Output = List<App>;
    const MANIFEST: Manifest = Manifest {
        name: "list_apps",
        kind: ToolKind::Read,
        scope: "okta.apps.read",
        summary: "Lists applications by the beginning of their name or label (`q`), or by one expression \
                  (`filter`); without them, all.",
        not_for: "Not for an application whose id is known (`get_app`), nor who has it (`list_app_users`).",
        cost: Cost::one(Bucket::Apps).per(APPS_PAGE, "applications").and("a low limit"),
        returns: "`items` with applications, `complete`, and `next`",
        examples: &[r#"{"q":"Sales"}"#, r#"{"filter":"status eq \"ACTIVE\""}"#, "{}"],
    };

    fn repeat(&self) -> Idempotency {
        Idempotency::Read
    }

    fn run(&self, okta: &mut Replay<'_>) -> Run<List<App>> {
        let request = Request::get("/api/v1/apps", &[])
            .query_opt("q", self.q.as_deref())
            .query_opt("filter", self.filter.as_deref())
            .query_opt("expand", self.expand.as_deref());
        follow(okta, &request, self.limit, self.after.as_deref(), ListRules::paged(APPS_PAGE))
    }
}

/// Reads an application.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GetApp {
    /// The application's id.
    app_id: AppId,
}

impl Subtool for GetApp {
    type Output = App;
    const MANIFEST: Manifest = Manifest {
        name: "get_app",
        kind: ToolKind::Read,
        scope: "okta.apps.read",
        summary: "Reads one application by id, with settings, features and sign-on mode.",
        not_for: "Not for finding an application by its label (`list_apps`), nor its users \
                  (`list_app_users`).",
        cost: Cost::one(Bucket::App),
        returns: "the application as Okta sends it",
        examples: &[r#"{"app_id":"0oa1gjh63g214q0Hq0g4"}"#],
    };

    fn repeat(&self) -> Idempotency {
        Idempotency::Read
    }

    fn run(&self, okta: &mut Replay<'_>) -> Run<App> {
        Ok(Done::read(App(okta.ask(Request::get("/api/v1/apps/{appId}", &[&self.app_id]))?.json()?)))
    }
}

/// What Okta adds to each application user.
#[derive(Debug, Clone, Copy, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AppUserExpand {
    /// The whole user.
    User,
}

/// Lists the users of an application.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListAppUsers {
    /// The application's id.
    app_id: AppId,
    /// The beginning of a user name, first name, last name or e-mail.
    q: Option<String>,
    /// An addition to each.
    expand: Option<AppUserExpand>,
    /// Maximum users in total.
    #[serde(default)]
    limit: Limit,
    /// `next` of an earlier result with the same arguments.
    after: Option<String>,
}

impl Subtool for ListAppUsers {
    type Output = List<AppUser>;
    const MANIFEST: Manifest = Manifest {
        name: "list_app_users",
        kind: ToolKind::Read,
        scope: "okta.apps.read",
        summary: "Lists who is assigned to an application; `scope` tells a direct assignment (USER) from one \
                  by group (GROUP).",
        not_for: "Not for what one user has: use `list_user_apps`.",
        cost: Cost::one(Bucket::Apps).per(APP_USERS_PAGE, "users").and("a low limit"),
        returns: "`items` with assignments, `complete`, and `next`; the `id` of each is the \
                  user's",
        examples: &[
            r#"{"app_id":"0oa1gjh63g214q0Hq0g4"}"#,
            r#"{"app_id":"0oa1gjh63g214q0Hq0g4","q":"jan","expand":"user"}"#,
        ],
    };

    fn repeat(&self) -> Idempotency {
        Idempotency::Read
    }

    fn run(&self, okta: &mut Replay<'_>) -> Run<List<AppUser>> {
        let request = Request::get("/api/v1/apps/{appId}/users", &[&self.app_id])
            .query_opt("q", self.q.as_deref())
            .query_opt("expand", self.expand.map(|AppUserExpand::User| "user"));
        follow(okta, &request, self.limit, self.after.as_deref(), ListRules::paged(APP_USERS_PAGE))
    }
}

/// How an assignment is held.
#[derive(Debug, Clone, Copy, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Scope {
    /// By the user itself.
    #[default]
    User,
    /// By a group.
    Group,
}

/// Assigns a user to an application, or overwrites the assignment.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AssignUserToApp {
    /// The application's id.
    app_id: AppId,
    /// The user's id or login.
    user_id: UserKey,
    /// Attributes of the assignment.
    profile: Option<Object>,
    /// Okta's app credentials object: `userName`, `password`.
    credentials: Option<Object>,
    /// The kind of assignment.
    #[serde(default, deserialize_with = "or_default")]
    #[schemars(with = "Option<Scope>")]
    scope: Scope,
}

#[derive(Serialize)]
struct Assignment<'a> {
    id: &'a str,
    scope: Scope,
    #[serde(skip_serializing_if = "Option::is_none")]
    credentials: Option<&'a Object>,
    #[serde(skip_serializing_if = "Option::is_none")]
    profile: Option<&'a Object>,
}

impl Subtool for AssignUserToApp {
    type Output = AppUser;
    const MANIFEST: Manifest = Manifest {
        name: "assign_user_to_app",
        kind: ToolKind::Write,
        scope: "okta.apps.manage",
        summary: "Assigns a user to an active application; an existing assignment is overwritten. The account \
                  in the application is created in the background.",
        not_for: "Not for many users: use a group (`assign_group_to_app`).",
        cost: Cost::one(Bucket::Apps).and(A_LOGIN),
        returns: "the assignment",
        examples: &[
            r#"{"app_id":"0oa1gjh63g214q0Hq0g4","user_id":"00u1abCdEfGhIjKlMnOp"}"#,
            r#"{"app_id":"0oa1gjh63g214q0Hq0g4","user_id":"00u1abCdEfGhIjKlMnOp","credentials":{"userName":"jane"},"profile":{"role":"viewer"}}"#,
        ],
    };

    fn repeat(&self) -> Idempotency {
        Idempotency::Set
    }

    fn run(&self, okta: &mut Replay<'_>) -> Run<AppUser> {
        // The body accepts only an id; a login there is a 404.
        let user = resolve::id(&self.user_id, okta)?;
        let body = Assignment {
            id: user.as_str(),
            scope: self.scope,
            credentials: self.credentials.as_ref(),
            profile: self.profile.as_ref(),
        };
        let read = Request::get("/api/v1/apps/{appId}/users/{userId}", &[&self.app_id, &user]);
        if let Some(since) = okta.doubt() {
            let mut there = look_for(okta, read.clone())?;
            if there.is_none()
                && logged(okta, ASSIGNED, &[user.as_str(), self.app_id.as_str()], since)? == Some(true)
            {
                // It may have appeared between the two reads, by another client that wants the same.
                there = look_for(okta, read.clone())?;
                if there.is_none() {
                    // It was assigned and removed since; a second attempt must not restore it.
                    return Err(unknown("the user was assigned, and the assignment was taken away since"));
                }
            }
            if let Some(reply) = there
                && self.is_done(&reply)?
            {
                return Ok(Done::applied(AppUser(reply.json()?)));
            }
        }
        let reply = okta.ask(Request::post("/api/v1/apps/{appId}/users", &[&self.app_id]).json(&body))?;
        if reply.is_success() {
            return Ok(Done::applied(AppUser(reply.json()?)));
        }
        let refusal = reply.error();
        if refusal.is("E0000062") {
            // "Already assigned", from Okta's catalogue; recordings show an upsert instead.
            return Ok(Done::unchanged(AppUser(okta.ask(read)?.json()?)));
        }
        Err(Stop::Refused(Box::new(refusal)))
    }

    fn foresee(&self, okta: &mut Replay<'_>) -> Result<Forecast, Stop> {
        #[derive(Deserialize)]
        struct AppState {
            #[serde(default)]
            status: String,
        }
        let app: AppState = okta.ask(Request::get("/api/v1/apps/{appId}", &[&self.app_id]))?.read()?;
        let user = resolve::id(&self.user_id, okta)?;
        let state: UserState = resolve::read(&user, okta)?.read()?;
        // terraform-provider-okta issue 1502: assigning a group to an inactive application is "not found". For
        // users there is no recording.
        let forecast = match (app.status.as_str(), state.status.as_str()) {
            (_, "DEPROVISIONED") => Forecast::unknown(DEACTIVATED),
            ("ACTIVE", _) => Forecast::applied(),
            _ => Forecast::unknown("whether Okta assigns an application that is not active"),
        };
        Ok(forecast.without(&[
            ATTRIBUTES,
            "whether the application takes these credentials",
            "whether the account in the application can be made",
        ]))
    }
}

/// The System Log's event types for an assignment and its removal.
const ASSIGNED: &str = "application.user_membership.add";
const UNASSIGNED: &str = "application.user_membership.remove";

/// The part of an assignment that shows if it is the requested one.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Assigned {
    #[serde(default, deserialize_with = "moment")]
    created: Option<Timestamp>,
    #[serde(default)]
    scope: String,
    profile: Option<Object>,
    credentials: Option<Object>,
}

impl AssignUserToApp {
    /// Returns true if an assignment has everything requested; a password is unreadable and counts as set.
    fn is_done(&self, reply: &OktaReply<'_>) -> Result<bool, Stop> {
        let there: Assigned = reply.read()?;
        let scope = match self.scope {
            Scope::User => "USER",
            Scope::Group => "GROUP",
        };
        let mut credentials = self.credentials.clone().unwrap_or_default();
        credentials.remove("password");
        let profile = self.profile.as_ref().is_none_or(|sent| has_all(there.profile.as_ref(), sent));
        Ok(there.scope == scope && profile && has_all(there.credentials.as_ref(), &credentials))
    }
}

/// Takes an application away from a user.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RemoveUserFromApp {
    /// The application's id.
    app_id: AppId,
    /// The user's id or login.
    user_id: UserKey,
    /// Makes Okta mail the administrator.
    #[serde(default, deserialize_with = "or_default")]
    #[schemars(with = "Option<bool>")]
    send_email: bool,
}

impl Subtool for RemoveUserFromApp {
    type Output = Empty;
    const MANIFEST: Manifest = Manifest {
        name: "remove_user_from_app",
        kind: ToolKind::Destructive,
        scope: "okta.apps.manage",
        summary: "Unassigns a user from an application; the application profile is lost and the account there \
                  may be deactivated.",
        not_for: "Not for access through a group, which is refused: use `remove_user_from_group`; for all \
                  applications at once use `deactivate_user`.",
        cost: Cost::one(Bucket::Apps).and(A_LOGIN),
        returns: "an empty object; `unchanged` when nothing was assigned",
        examples: &[r#"{"app_id":"0oa1gjh63g214q0Hq0g4","user_id":"00u1abCdEfGhIjKlMnOp"}"#],
    };

    fn repeat(&self) -> Idempotency {
        Idempotency::Transition
    }

    fn run(&self, okta: &mut Replay<'_>) -> Run<Empty> {
        // By id: a login in this path is a 404, which must not be mistaken for "no assignment" below.
        let user = resolve::id(&self.user_id, okta)?;
        let route = "/api/v1/apps/{appId}/users/{userId}";
        let write = Request::delete(route, &[&self.app_id, &user])
            .query_opt("sendEmail", self.send_email.then_some(true));
        let look = |okta: &mut Replay<'_>, since| {
            let Some(reply) = look_for(okta, Request::get(route, &[&self.app_id, &user]))? else {
                return Ok(None); // the answer to the write will say what is missing
            };
            // Assigned again since: by another client after us, if we removed it.
            let there: Assigned = reply.read()?;
            let was_taken = is_since(there.created, since)
                && logged(okta, UNASSIGNED, &[user.as_str(), self.app_id.as_str()], since)? == Some(true);
            Ok(was_taken.then_some(()))
        };
        let refusal = match settle(okta, &write, look)? {
            Converged::Found(()) => return Ok(Done::applied(Empty {})),
            Converged::Said(reply) if reply.is_success() => return Ok(Done::applied(Empty {})),
            Converged::Said(reply) => reply.error(),
        };
        if refusal.status != 404 {
            return Err(Stop::Refused(Box::new(refusal)));
        }
        // One 404 for three cases: no user, no application, no assignment. Only the last one is already done.
        resolve::read(&user, okta)?.success()?;
        okta.ask(Request::get("/api/v1/apps/{appId}", &[&self.app_id]))?.success()?;
        let effect = if okta.doubt().is_some() { Effect::Applied } else { Effect::Unchanged };
        Ok(Done { effect, output: Empty {} })
    }

    fn foresee(&self, okta: &mut Replay<'_>) -> Result<Forecast, Stop> {
        let user = resolve::id(&self.user_id, okta)?;
        let app = Request::get("/api/v1/apps/{appId}", &[&self.app_id]);
        let route = "/api/v1/apps/{appId}/users/{userId}";
        let assignment = okta.ask(Request::get(route, &[&self.app_id, &user]))?;
        if assignment.is_success() {
            let there: Assigned = assignment.read()?;
            if there.scope == "GROUP" {
                let message = "failed to take the application away: a group gives it to the user";
                return Err(Stop::fail(ErrorCode::OktaRejected, message));
            }
            let app: Lost = okta.ask(app)?.read::<Labelled>()?.into();
            let losses = Losses { groups: Vec::new(), apps: vec![app] };
            return Ok(Forecast::applied().losing(losses).without(&["what becomes of the account there"]));
        }
        let error = assignment.error();
        if error.status != 404 {
            return Err(Stop::Refused(Box::new(error)));
        }
        resolve::read(&user, okta)?.success()?;
        okta.ask(app.clone())?.success()?;
        Ok(Forecast::unchanged(resolve::reading(&user)).then(app))
    }
}

/// The part of an application that people recognize it by.
#[derive(Deserialize)]
struct Labelled {
    id: String,
    label: Option<String>,
}

impl From<Labelled> for Lost {
    fn from(Labelled { id, label }: Labelled) -> Self {
        Self { id, name: label }
    }
}
