//! Members of a group: list, add, remove.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::domain::bucket::Bucket;
use crate::domain::http::Request;
use crate::domain::ids::{GroupId, UserId, UserKey};

use super::converge::{groups_of, logged};
use super::cost::{A_LOGIN, Cost};
use super::groups::foresee_member;
use super::list::{Limit, follow};
use super::list_rules::ListRules;
use super::manifest::{Idempotency, Manifest, ToolKind};
use super::output::{Empty, List, User};
use super::plan::{DEACTIVATED, Forecast};
use super::replay::Replay;
use super::resolve;
use super::run::{Done, Run, Stop};
use super::subtool::Subtool;
use super::user_state::UserState;

/// Okta's default page size for members ("List member users"): the fewest requests.
const MEMBERS_PAGE: u32 = 1000;

/// Lists the members of a group.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListGroupMembers {
    /// The group's id.
    group_id: GroupId,
    /// Maximum users in total.
    #[serde(default)]
    limit: Limit,
    /// `next` of an earlier result with the same arguments.
    after: Option<String>,
}

impl Subtool for ListGroupMembers {
    type Output = List<User>;
    const MANIFEST: Manifest = Manifest {
        name: "list_group_members",
        kind: ToolKind::Read,
        scope: "okta.groups.read",
        summary: "Lists the users in a group, those not yet active included.",
        not_for: "Not for the number alone, which `list_groups` gives with `expand: \"stats\"`, nor the groups \
                  of a user (`list_user_groups`).",
        cost: Cost::one(Bucket::Groups).per(MEMBERS_PAGE, "users"),
        returns: "`items` with users, `complete`, and `next`",
        examples: &[r#"{"group_id":"00g1emaKYZTWRYYRRTSK"}"#],
    };

    fn repeat(&self) -> Idempotency {
        Idempotency::Read
    }

    fn run(&self, okta: &mut Replay<'_>) -> Run<List<User>> {
        let request = Request::get("/api/v1/groups/{groupId}/users", &[&self.group_id]);
        follow(okta, &request, self.limit, self.after.as_deref(), ListRules::paged(MEMBERS_PAGE))
    }
}

/// Returns true if a change of a membership that may have run before did run: the user is already in the wanted
/// state, or was and another client has undone it since.
fn ran_before(okta: &mut Replay<'_>, group: &GroupId, user: &UserId, is_wanted: bool) -> Result<bool, Stop> {
    let Some(since) = okta.doubt() else { return Ok(false) };
    let groups = groups_of(okta, user)?;
    if groups.iter().any(|id| id == group.as_str()) == is_wanted && !groups.is_empty() {
        return Ok(true);
    }
    let event = if is_wanted { "group.user_membership.add" } else { "group.user_membership.remove" };
    Ok(logged(okta, event, &[user.as_str(), group.as_str()], since)? == Some(true))
}

/// Predicts how a change of a membership would end.
fn foresee_change(
    okta: &mut Replay<'_>,
    group: &GroupId,
    user: &UserKey,
    subtool: &str,
) -> Result<Forecast, Stop> {
    let forecast = foresee_member(okta, group, subtool)?;
    let user = resolve::id(user, okta)?;
    let state: UserState = resolve::read(&user, okta)?.read()?;
    // For deactivated users 204 and 404 are recorded for a removal; for an addition there is no recording.
    Ok(if state.status == "DEPROVISIONED" { Forecast::unknown(DEACTIVATED) } else { forecast })
}

/// Puts a user into a group; doing it twice changes nothing.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AddUserToGroup {
    /// The group that gains a member.
    group_id: GroupId,
    /// The user to add: an id or a login.
    user_id: UserKey,
}

impl Subtool for AddUserToGroup {
    type Output = Empty;
    const MANIFEST: Manifest = Manifest {
        name: "add_user_to_group",
        kind: ToolKind::Write,
        scope: "okta.groups.manage",
        summary: "Puts a user into a group managed in Okta; an existing member stays one. The user gains the \
                  group's access.",
        not_for: "Not for one application alone (`assign_user_to_app`), nor a new user: `create_user` takes \
                  groups too.",
        cost: Cost::one(Bucket::Groups).and(A_LOGIN),
        returns: "an empty object in either case",
        examples: &[r#"{"group_id":"00g1emaKYZTWRYYRRTSK","user_id":"00u1abCdEfGhIjKlMnOp"}"#],
    };

    fn repeat(&self) -> Idempotency {
        Idempotency::Set
    }

    fn run(&self, okta: &mut Replay<'_>) -> Run<Empty> {
        let user = resolve::id(&self.user_id, okta)?;
        if !ran_before(okta, &self.group_id, &user, true)? {
            let write = Request::put("/api/v1/groups/{groupId}/users/{userId}", &[&self.group_id, &user]);
            okta.ask(write)?.success()?;
        }
        Ok(Done::applied(Empty {}))
    }

    fn foresee(&self, okta: &mut Replay<'_>) -> Result<Forecast, Stop> {
        foresee_change(okta, &self.group_id, &self.user_id, Self::MANIFEST.name)
    }
}

/// Takes a user out of a group; doing it twice changes nothing.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RemoveUserFromGroup {
    /// The group that loses a member.
    group_id: GroupId,
    /// The user to remove: an id or a login.
    user_id: UserKey,
}

impl Subtool for RemoveUserFromGroup {
    type Output = Empty;
    const MANIFEST: Manifest = Manifest {
        name: "remove_user_from_group",
        kind: ToolKind::Write,
        scope: "okta.groups.manage",
        summary: "Takes a user out of a group managed in Okta; a non-member stays out. The user loses the \
                  group's access.",
        not_for: "Not for an application that was assigned directly (`remove_user_from_app`), nor somebody \
                  who leaves (`deactivate_user`).",
        cost: Cost::one(Bucket::Groups).and(A_LOGIN),
        returns: "an empty object in either case",
        examples: &[r#"{"group_id":"00g1emaKYZTWRYYRRTSK","user_id":"00u1abCdEfGhIjKlMnOp"}"#],
    };

    fn repeat(&self) -> Idempotency {
        Idempotency::Set
    }

    fn run(&self, okta: &mut Replay<'_>) -> Run<Empty> {
        let user = resolve::id(&self.user_id, okta)?;
        if !ran_before(okta, &self.group_id, &user, false)? {
            let write = Request::delete("/api/v1/groups/{groupId}/users/{userId}", &[&self.group_id, &user]);
            okta.ask(write)?.success()?;
        }
        Ok(Done::applied(Empty {}))
    }

    fn foresee(&self, okta: &mut Replay<'_>) -> Result<Forecast, Stop> {
        foresee_change(okta, &self.group_id, &self.user_id, Self::MANIFEST.name)
    }
}
