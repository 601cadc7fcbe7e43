//! Users: read, list, delete.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::domain::bucket::Bucket;
use crate::domain::http::Request;
use crate::domain::ids::{UserId, UserKey, excerpt};
use crate::domain::result::{ErrorCode, Failure};

use super::absence::or_default;
use super::cost::Cost;
use super::list::{Limit, follow};
use super::list_rules::ListRules;
use super::manifest::{Idempotency, Manifest, ToolKind};
use super::output::{AppLink, Empty, Group, List, User};
use super::plan::Forecast;
use super::replay::{LAG_PAUSE, Replay};
use super::run::{Done, Run, Stop};
use super::subtool::Subtool;
use super::user_state::UserState;
use super::{cursor, lifecycle, resolve};

/// The largest page of users that Okta gives ("List users": at most 200).
const USERS_PAGE: u32 = 200;

/// Reads a user.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GetUser {
    /// The user's id, login, or short name (the part before `@`) where that is unambiguous.
    user_id: UserKey,
}

impl Subtool for GetUser {
    type Output = User;
    const MANIFEST: Manifest = Manifest {
        name: "get_user",
        kind: ToolKind::Read,
        scope: "okta.users.read",
        summary: "Reads one user by id, login or unambiguous short name, deactivated ones included; recent \
                  writes show at once.",
        not_for: "Not for finding users by anything else, or several at once: use `list_users`.",
        cost: Cost::one(Bucket::UserRead),
        returns: "the user with `status` and the whole `profile`",
        examples: &[r#"{"user_id":"jane@example.com"}"#, r#"{"user_id":"00u1abCdEfGhIjKlMnOp"}"#],
    };

    fn repeat(&self) -> Idempotency {
        Idempotency::Read
    }

    fn run(&self, okta: &mut Replay<'_>) -> Run<User> {
        let user = if self.user_id.as_str().contains('/') {
            resolve::user(&self.user_id, okta)?
        } else {
            UserId::given(&self.user_id)
        };
        Ok(Done::read(User(resolve::read(&user, okta)?.json()?)))
    }
}

/// The order of a sorted list.
#[derive(Debug, Clone, Copy, Deserialize, Serialize, JsonSchema, strum::IntoStaticStr)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "snake_case")]
pub enum SortOrder {
    /// Smallest first.
    Asc,
    /// Largest first.
    Desc,
}

impl SortOrder {
    pub(super) fn as_str(self) -> &'static str {
        self.into()
    }
}

/// Refuses more than one of the three selections, and a sort order without a search.
pub(super) fn check_choice(
    (search, filter, q): (bool, bool, bool),
    sort_by: bool,
    sort_order: bool,
) -> Result<(), Stop> {
    if usize::from(search) + usize::from(filter) + usize::from(q) > 1 {
        let name = if search && filter { "filter" } else { "q" };
        return Err(Stop::argument(name, "give one of `search`, `filter` and `q`"));
    }
    if sort_by && !search {
        return Err(Stop::argument("sort_by", "`sort_by` needs `search`"));
    }
    if sort_order && !search {
        return Err(Stop::argument("sort_order", "`sort_order` needs `search`"));
    }
    Ok(())
}

/// Lists users.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListUsers {
    /// An expression over any profile attribute: `profile.department eq "Sales" and status eq "ACTIVE"`.
    search: Option<String>,
    /// An expression over a few attributes, compared exactly: `status eq "LOCKED_OUT"`.
    filter: Option<String>,
    /// The beginning of a first name, last name or e-mail. Okta shows the first matches and no more.
    q: Option<String>,
    /// The attribute to sort by; needs `search`.
    sort_by: Option<String>,
    /// The order; needs `search`.
    sort_order: Option<SortOrder>,
    /// Also lists deactivated users; only without `search`, `filter` and `q`.
    #[serde(default, deserialize_with = "or_default")]
    #[schemars(with = "Option<bool>")]
    include_deprovisioned: bool,
    /// Maximum users in total.
    #[serde(default)]
    limit: Limit,
    /// `next` of an earlier result with the same arguments.
    after: Option<String>,
}

/// A filter that matches every user: Okta's own way to list all of them, deactivated ones included,
/// since the plain list omits those ("List users", `filter`).
const EVERY_USER: &str = r#"lastUpdated gt "1970-01-01T00:00:00.000Z""#;

impl Subtool for ListUsers {
    type Output = List<User>;
    const MANIFEST: Manifest = Manifest {
        name: "list_users",
        kind: ToolKind::Read,
        scope: "okta.users.read",
        summary: "Lists users, chosen by `search` (best), `filter` or `q`; without them, everybody except \
                  deactivated users.",
        not_for: "Not for one user whose id or login is known, nor right after a write, as lists lag by about \
                  a second: use `get_user`; for the members of a group use `list_group_members`.",
        cost: Cost::one(Bucket::Users).per(USERS_PAGE, "users"),
        returns: "`items` with users, `complete`, and `next`",
        examples: &[
            r#"{"search":"profile.department eq \"Sales\" and status eq \"ACTIVE\"","sort_by":"profile.lastName","sort_order":"asc"}"#,
            r#"{"filter":"status eq \"LOCKED_OUT\"","limit":1000}"#,
            r#"{"q":"jan"}"#,
            r#"{"include_deprovisioned":true}"#,
            "{}",
        ],
    };

    fn repeat(&self) -> Idempotency {
        Idempotency::Read
    }

    fn run(&self, okta: &mut Replay<'_>) -> Run<List<User>> {
        let choice = (self.search.is_some(), self.filter.is_some(), self.q.is_some());
        check_choice(choice, self.sort_by.is_some(), self.sort_order.is_some())?;
        let has_choice = choice != (false, false, false);
        if has_choice && self.include_deprovisioned {
            let message = "`include_deprovisioned` goes without `search`, `filter` and `q`";
            return Err(Stop::argument("include_deprovisioned", message));
        }
        let filter = self.filter.as_deref().or(self.include_deprovisioned.then_some(EVERY_USER));
        let request = Request::get("/api/v1/users", &[])
            .query_opt("search", self.search.as_deref())
            .query_opt("filter", filter)
            .query_opt("q", self.q.as_deref())
            .query_opt("sortBy", self.sort_by.as_deref())
            .query_opt("sortOrder", self.sort_order.map(SortOrder::as_str));
        let hides_deprovisioned = self.q.is_some() || !(has_choice || self.include_deprovisioned);
        let rules = ListRules {
            is_paged: self.q.is_none(),
            left_out: if hides_deprovisioned { &["DEPROVISIONED"] } else { &[] },
            ..ListRules::paged(USERS_PAGE)
        };
        follow(okta, &request, self.limit, self.after.as_deref(), rules)
    }
}

/// Deletes a deactivated user for good.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeleteUser {
    /// The user's id or login.
    user_id: UserKey,
}

/// The reads after a deletion before its outcome counts as unknown.
const DELETE_READS_MAX: usize = 3;

impl Subtool for DeleteUser {
    type Output = Empty;
    const MANIFEST: Manifest = Manifest {
        name: "delete_user",
        kind: ToolKind::Destructive,
        scope: "okta.users.manage",
        summary: "Deletes a user for good; this cannot be undone. Fails with `precondition_failed` unless the \
                  user is DEPROVISIONED: call `deactivate_user` first.",
        not_for: "Not for offboarding (`deactivate_user`) nor a temporary block (`suspend_user`).",
        cost: Cost { calls: &[(Bucket::UserRead, 2), (Bucket::UserWrite, 1)], ..Cost::NONE }
            .and("up to 2 more in `user_read` until the deletion shows"),
        returns: "an empty object, once the user is gone",
        examples: &[r#"{"user_id":"00u1abCdEfGhIjKlMnOp"}"#],
    };

    fn repeat(&self) -> Idempotency {
        Idempotency::Transition
    }

    fn run(&self, okta: &mut Replay<'_>) -> Run<Empty> {
        let key = resolve::user(&self.user_id, okta)?;
        let mut known: Option<UserId> = None;
        let id = loop {
            let read = known.as_ref().map_or_else(|| resolve::reading(&key), resolve::reading);
            let reply = okta.ask(read)?;
            if okta.doubt().is_some() && !reply.is_success() && reply.error().status == 404 {
                return Ok(Done::applied(Empty {}));
            }
            let user: UserState = reply.read()?;
            if user.status != "DEPROVISIONED" {
                let message = format!(
                    "failed to delete user `{}`: it is {}, deactivate it first",
                    excerpt(key.as_str()),
                    excerpt(&user.status)
                );
                return Err(Stop::precondition(message, None));
            }
            // By id, so that a login given to another user in between is not affected. Okta's DELETE of a user
            // that is not deactivated deactivates it and also answers 204 (recorded), hence the read
            // before each attempt, and the reads after.
            let id = UserId::from_okta(&user.id).map_err(|_| Stop::unreadable())?;
            match okta.attempt(Request::delete("/api/v1/users/{userId}", &[&id]))? {
                Some(reply) if okta.doubt().is_some() && reply.error().status == 404 => break id,
                Some(reply) => {
                    reply.success()?;
                    break id;
                }
                None => known = Some(id),
            }
        };
        for read in 0..DELETE_READS_MAX {
            let mut request = Request::get("/api/v1/users/{userId}", &[&id]);
            if read > 0 {
                request = request.after(LAG_PAUSE);
            }
            let reply = okta.ask(request)?;
            if !reply.is_success() {
                let error = reply.error();
                if error.status == 404 {
                    return Ok(Done::applied(Empty {}));
                }
                let message = format!("failed to verify that user `{}` is deleted", excerpt(key.as_str()));
                let failure = Failure::new(ErrorCode::OutcomeUnknown, message).with_okta(error);
                return Err(Stop::Fail(Box::new(failure)));
            }
        }
        let message =
            format!("user `{}` is still there after Okta accepted to delete it", excerpt(key.as_str()));
        Err(Stop::fail(ErrorCode::OutcomeUnknown, message))
    }

    fn foresee(&self, okta: &mut Replay<'_>) -> Result<Forecast, Stop> {
        let user = resolve::user(&self.user_id, okta)?;
        lifecycle::losses(okta, &user, Forecast::applied().then(resolve::reading(&user)))
    }
}

/// Lists the groups of a user.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListUserGroups {
    /// The user's id or login.
    user_id: UserKey,
    /// Maximum groups in total.
    #[serde(default)]
    limit: Limit,
    /// `next` of an earlier result with the same arguments.
    after: Option<String>,
}

impl Subtool for ListUserGroups {
    type Output = List<Group>;
    const MANIFEST: Manifest = Manifest {
        name: "list_user_groups",
        kind: ToolKind::Read,
        scope: "okta.users.read",
        summary: "Lists the groups a user is in, the built-in Everyone included.",
        not_for: "Not for the members of a group (`list_group_members`) nor finding groups \
                  (`list_groups`).",
        cost: Cost::one(Bucket::Users).and("more for a user in hundreds of groups"),
        returns: "`items` with groups, `complete`, and `next`",
        examples: &[r#"{"user_id":"jane@example.com"}"#],
    };

    fn repeat(&self) -> Idempotency {
        Idempotency::Read
    }

    fn run(&self, okta: &mut Replay<'_>) -> Run<List<Group>> {
        cursor::check(self.after.as_deref())?;
        let user = resolve::user(&self.user_id, okta)?;
        let request = Request::get("/api/v1/users/{userId}/groups", &[&user]);
        follow(okta, &request, self.limit, self.after.as_deref(), ListRules::unsized_pages())
    }
}

/// Lists the applications on a user's dashboard.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListUserApps {
    /// The user's id or login.
    user_id: UserKey,
    /// Maximum links in total.
    #[serde(default)]
    limit: Limit,
    /// `next` of an earlier result with the same arguments.
    after: Option<String>,
}

impl Subtool for ListUserApps {
    type Output = List<AppLink>;
    const MANIFEST: Manifest = Manifest {
        name: "list_user_apps",
        kind: ToolKind::Read,
        scope: "okta.users.read",
        summary: "Lists the links on a user's dashboard; an application is listed once per link.",
        not_for: "Not for how access is assigned, directly or by a group: use `list_app_users`; `list_apps` \
                  with a `filter` on `user.id` lists each application once.",
        cost: Cost::one(Bucket::Users),
        returns: "`items` with links, `complete`, and `next`; `appInstanceId` is the \
                  application's id",
        examples: &[r#"{"user_id":"jane@example.com"}"#],
    };

    fn repeat(&self) -> Idempotency {
        Idempotency::Read
    }

    fn run(&self, okta: &mut Replay<'_>) -> Run<List<AppLink>> {
        cursor::check(self.after.as_deref())?;
        let user = resolve::user(&self.user_id, okta)?;
        let request = Request::get("/api/v1/users/{userId}/appLinks", &[&user]);
        follow(okta, &request, self.limit, self.after.as_deref(), ListRules::unsized_pages())
    }
}
