//! The groups of applications: assign, remove, list.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::domain::bucket::Bucket;
use crate::domain::http::Request;
use crate::domain::ids::{AppId, GroupId};
use crate::domain::json::Object;
use crate::domain::result::Effect;

use super::converge::{Converged, has_all, is_since, logged, look_for, moment, settle, unknown};
use super::cost::Cost;
use super::history::OktaReply;
use super::list::{Limit, follow};
use super::list_rules::ListRules;
use super::manifest::{Idempotency, Manifest, ToolKind};
use super::output::{App, AppGroup, Empty, List};
use super::plan::{Forecast, Losses, Lost};
use super::replay::Replay;
use super::run::{Done, Run, Stop};
use super::subtool::Subtool;

/// The largest page of an application's groups ("List application group assignments"); the smallest is 20.
const APP_GROUPS_PAGE: u32 = 200;
const APP_GROUPS_PAGE_MIN: u32 = 20;

/// The page of a group's applications. Okta names no largest one; 200 is that of all applications.
const GROUP_APPS_PAGE: u32 = 200;

/// The route of one assignment.
const ASSIGNMENT: &str = "/api/v1/apps/{appId}/groups/{groupId}";

/// The System Log's event types for an assignment and its removal.
const ASSIGNED: &str = "group.application_assignment.add";
const REMOVED: &str = "group.application_assignment.remove";

/// An object that Okta embeds in each assignment of a group.
#[derive(Debug, Clone, Copy, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AppGroupExpand {
    /// The whole group.
    Group,
    /// Facts about the assignment's profile.
    Metadata,
}

/// Lists the groups of an application.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListAppGroups {
    /// The application's id.
    app_id: AppId,
    /// The beginning of a group's name.
    q: Option<String>,
    /// An addition to each.
    expand: Option<AppGroupExpand>,
    /// Maximum groups in total.
    #[serde(default)]
    limit: Limit,
    /// `next` of an earlier result with the same arguments.
    after: Option<String>,
}

impl Subtool for ListAppGroups {
    type Output = List<AppGroup>;
    const MANIFEST: Manifest = Manifest {
        name: "list_app_groups",
        kind: ToolKind::Read,
        scope: "okta.apps.read",
        summary: "Lists the groups that an application is assigned to, by priority.",
        not_for: "Not for its users (`list_app_users`), nor a group's applications (`list_group_apps`).",
        cost: Cost::one(Bucket::Apps).per(APP_GROUPS_PAGE, "groups"),
        returns: "`items` with assignments, `complete`, and `next`; the `id` of each is the group's",
        examples: &[
            r#"{"app_id":"0oa1gjh63g214q0Hq0g4"}"#,
            r#"{"app_id":"0oa1gjh63g214q0Hq0g4","q":"Eng","expand":"group"}"#,
        ],
    };

    fn repeat(&self) -> Idempotency {
        Idempotency::Read
    }

    fn run(&self, okta: &mut Replay<'_>) -> Run<List<AppGroup>> {
        let request = Request::get("/api/v1/apps/{appId}/groups", &[&self.app_id])
            .query_opt("q", self.q.as_deref())
            .query_opt(
                "expand",
                self.expand.map(|expand| match expand {
                    AppGroupExpand::Group => "group",
                    AppGroupExpand::Metadata => "metadata",
                }),
            );
        let rules = ListRules { page_min: APP_GROUPS_PAGE_MIN, ..ListRules::paged(APP_GROUPS_PAGE) };
        follow(okta, &request, self.limit, self.after.as_deref(), rules)
    }
}

/// Lists the applications of a group.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListGroupApps {
    /// The group's id.
    group_id: GroupId,
    /// Maximum applications in total.
    #[serde(default)]
    limit: Limit,
    /// `next` of an earlier result with the same arguments.
    after: Option<String>,
}

impl Subtool for ListGroupApps {
    type Output = List<App>;
    const MANIFEST: Manifest = Manifest {
        name: "list_group_apps",
        kind: ToolKind::Read,
        scope: "okta.groups.read",
        summary: "Lists the applications assigned to a group.",
        not_for: "Not for those of one user (`list_user_apps`), nor the groups of one application \
                  (`list_app_groups`).",
        cost: Cost::one(Bucket::Groups).per(GROUP_APPS_PAGE, "applications"),
        returns: "`items` with applications, `complete`, and `next`",
        examples: &[r#"{"group_id":"00g1emaKYZTWRYYRRTSK"}"#],
    };

    fn repeat(&self) -> Idempotency {
        Idempotency::Read
    }

    fn run(&self, okta: &mut Replay<'_>) -> Run<List<App>> {
        let request = Request::get("/api/v1/groups/{groupId}/apps", &[&self.group_id]);
        follow(okta, &request, self.limit, self.after.as_deref(), ListRules::paged(GROUP_APPS_PAGE))
    }
}

/// Assigns a group to an application, or changes the assignment.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AssignGroupToApp {
    /// The application's id.
    app_id: AppId,
    /// The group's id.
    group_id: GroupId,
    /// The group's rank in deciding a member's application profile: 0 is the first.
    #[schemars(range(min = 0, max = 100))]
    priority: Option<u32>,
    /// Attributes that the group's members get in the application.
    profile: Option<Object>,
}

#[derive(Serialize)]
struct AssignmentBody<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    profile: Option<&'a Object>,
}

/// The part of an assignment that shows if it is the requested one.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Assigned {
    #[serde(default, deserialize_with = "moment")]
    last_updated: Option<Timestamp>,
    priority: Option<u32>,
    profile: Option<Object>,
}

impl Subtool for AssignGroupToApp {
    type Output = AppGroup;
    const MANIFEST: Manifest = Manifest {
        name: "assign_group_to_app",
        kind: ToolKind::Write,
        scope: "okta.apps.manage",
        summary: "Assigns an active application to all members of a group; an existing assignment is changed. \
                  The accounts in the application are created in the background.",
        not_for: "Not for one user alone: use `assign_user_to_app`.",
        cost: Cost::one(Bucket::Apps),
        returns: "the assignment",
        examples: &[
            r#"{"app_id":"0oa1gjh63g214q0Hq0g4","group_id":"00g1emaKYZTWRYYRRTSK"}"#,
            r#"{"app_id":"0oa1gjh63g214q0Hq0g4","group_id":"00g1emaKYZTWRYYRRTSK","priority":1,"profile":{"role":"viewer"}}"#,
        ],
    };

    fn repeat(&self) -> Idempotency {
        Idempotency::Set
    }

    fn run(&self, okta: &mut Replay<'_>) -> Run<AppGroup> {
        let ids: [&dyn crate::domain::ids::PathSegment; 2] = [&self.app_id, &self.group_id];
        let read = Request::get(ASSIGNMENT, &ids);
        if let Some(since) = okta.doubt() {
            let mut there = look_for(okta, read.clone())?;
            let about = [self.group_id.as_str(), self.app_id.as_str()];
            if there.is_none() && logged(okta, ASSIGNED, &about, since)? == Some(true) {
                // It may have appeared between the two reads, by another client that wants the same.
                there = look_for(okta, read)?;
                if there.is_none() {
                    // It was assigned and removed since; a second attempt must not restore it.
                    return Err(unknown("the group was assigned, and the assignment was taken away since"));
                }
            }
            if let Some(reply) = there
                && self.is_done(&reply)?
            {
                return Ok(Done::applied(AppGroup(reply.json()?)));
            }
        }
        let body = AssignmentBody { priority: self.priority, profile: self.profile.as_ref() };
        let reply = okta.ask(Request::put(ASSIGNMENT, &ids).json(&body))?;
        Ok(Done::applied(AppGroup(reply.json()?)))
    }

    fn foresee(&self, okta: &mut Replay<'_>) -> Result<Forecast, Stop> {
        #[derive(Deserialize)]
        struct AppState {
            #[serde(default)]
            status: String,
        }
        let app: AppState = okta.ask(Request::get("/api/v1/apps/{appId}", &[&self.app_id]))?.read()?;
        okta.ask(Request::get("/api/v1/groups/{groupId}", &[&self.group_id]))?.success()?;
        // Assigning a group to an inactive application is "not found" (terraform-provider-okta issue 1502); there
        // is no recording of it.
        let forecast = match app.status.as_str() {
            "ACTIVE" => Forecast::applied(),
            _ => Forecast::unknown("whether Okta assigns an application that is not active"),
        };
        Ok(forecast.without(&[
            "whether the application takes these attributes",
            "which members get an account in the application",
        ]))
    }
}

impl AssignGroupToApp {
    /// Returns true if an assignment has everything requested.
    fn is_done(&self, reply: &OktaReply<'_>) -> Result<bool, Stop> {
        let there: Assigned = reply.read()?;
        let priority = self.priority.is_none_or(|wanted| there.priority == Some(wanted));
        let profile = self.profile.as_ref().is_none_or(|sent| has_all(there.profile.as_ref(), sent));
        Ok(priority && profile)
    }
}

/// Takes an application away from a group.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RemoveGroupFromApp {
    /// The application's id.
    app_id: AppId,
    /// The group's id.
    group_id: GroupId,
}

impl Subtool for RemoveGroupFromApp {
    type Output = Empty;
    const MANIFEST: Manifest = Manifest {
        name: "remove_group_from_app",
        kind: ToolKind::Destructive,
        scope: "okta.apps.manage",
        summary: "Unassigns a group from an application: members who have it through this group alone lose it, \
                  and their accounts there may be deactivated.",
        not_for: "Not for one member: use `remove_user_from_group`.",
        cost: Cost::one(Bucket::Apps),
        returns: "an empty object; `unchanged` when nothing was assigned",
        examples: &[r#"{"app_id":"0oa1gjh63g214q0Hq0g4","group_id":"00g1emaKYZTWRYYRRTSK"}"#],
    };

    fn repeat(&self) -> Idempotency {
        Idempotency::Transition
    }

    fn run(&self, okta: &mut Replay<'_>) -> Run<Empty> {
        let ids: [&dyn crate::domain::ids::PathSegment; 2] = [&self.app_id, &self.group_id];
        let write = Request::delete(ASSIGNMENT, &ids);
        let look = |okta: &mut Replay<'_>, since| {
            let Some(reply) = look_for(okta, Request::get(ASSIGNMENT, &ids))? else {
                return Ok(None); // the answer to the write will say what is missing
            };
            // Assigned again since: by another client after us, if we removed it.
            let there: Assigned = reply.read()?;
            let about = [self.group_id.as_str(), self.app_id.as_str()];
            let was_taken =
                is_since(there.last_updated, since) && logged(okta, REMOVED, &about, since)? == Some(true);
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
        // One 404 for three cases: no group, no application, no assignment. Only the last one is already done.
        okta.ask(Request::get("/api/v1/groups/{groupId}", &[&self.group_id]))?.success()?;
        okta.ask(Request::get("/api/v1/apps/{appId}", &[&self.app_id]))?.success()?;
        let effect = if okta.doubt().is_some() { Effect::Applied } else { Effect::Unchanged };
        Ok(Done { effect, output: Empty {} })
    }

    fn foresee(&self, okta: &mut Replay<'_>) -> Result<Forecast, Stop> {
        #[derive(Deserialize)]
        struct Labelled {
            id: String,
            label: Option<String>,
        }
        let ids: [&dyn crate::domain::ids::PathSegment; 2] = [&self.app_id, &self.group_id];
        let app = Request::get("/api/v1/apps/{appId}", &[&self.app_id]);
        let there = okta.ask(Request::get(ASSIGNMENT, &ids))?;
        if there.is_success() {
            let Labelled { id, label } = okta.ask(app)?.read()?;
            let losses = Losses { groups: Vec::new(), apps: vec![Lost { id, name: label }] };
            return Ok(Forecast::applied()
                .losing(losses)
                .without(&["which members lose the application, and what becomes of their accounts there"]));
        }
        let error = there.error();
        if error.status != 404 {
            return Err(Stop::Refused(Box::new(error)));
        }
        let group = Request::get("/api/v1/groups/{groupId}", &[&self.group_id]);
        okta.ask(group.clone())?.success()?;
        okta.ask(app.clone())?.success()?;
        Ok(Forecast::unchanged(group).then(app))
    }
}
