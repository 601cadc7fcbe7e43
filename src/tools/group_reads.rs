//! Listing and reading groups.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::domain::bucket::Bucket;
use crate::domain::http::Request;
use crate::domain::ids::GroupId;

use super::cost::Cost;
use super::list::{Limit, follow};
use super::list_rules::ListRules;
use super::manifest::{Idempotency, Manifest, ToolKind};
use super::output::{Group, List};
use super::replay::Replay;
use super::run::{Done, Run};
use super::subtool::Subtool;
use super::users::{SortOrder, check_choice};

/// The page size that Okta recommends for groups ("List groups": at most 10,000, recommended 200).
const GROUPS_PAGE: u32 = 200;

/// The largest page of groups, for `q`, which has only this one page.
const GROUPS_PAGE_MAX: u32 = 10_000;

/// Additions that Okta makes to each group of a list.
#[derive(Debug, Clone, Copy, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum GroupExpand {
    /// Counts of members and applications.
    Stats,
    /// The application a group was imported from.
    App,
}

/// Lists groups.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListGroups {
    /// An expression over any profile attribute: `profile.name sw "Sales"`.
    search: Option<String>,
    /// An expression over `id`, `type` and times: `type eq "OKTA_GROUP"`.
    filter: Option<String>,
    /// The beginning of a name. Okta shows the first matches and no more.
    q: Option<String>,
    /// The attribute to sort by; needs `search`.
    sort_by: Option<String>,
    /// The order; needs `search`.
    sort_order: Option<SortOrder>,
    /// An addition to each group.
    expand: Option<GroupExpand>,
    /// Maximum groups in total.
    #[serde(default)]
    limit: Limit,
    /// `next` of an earlier result with the same arguments.
    after: Option<String>,
}

impl Subtool for ListGroups {
    type Output = List<Group>;
    const MANIFEST: Manifest = Manifest {
        name: "list_groups",
        kind: ToolKind::Read,
        scope: "okta.groups.read",
        summary: "Lists groups, chosen by `search` (best), `filter` or `q`; without them, all. `expand: \
                  \"stats\"` adds member counts, which is far cheaper than listing the members.",
        not_for: "Not for a group whose id is known (`get_group`), nor the groups of a user \
                  (`list_user_groups`).",
        cost: Cost::one(Bucket::Groups).per(GROUPS_PAGE, "groups"),
        returns: "`items` with groups, `complete`, and `next`",
        examples: &[
            r#"{"search":"profile.name sw \"Sales\"","expand":"stats"}"#,
            r#"{"q":"Eng","limit":5}"#,
            r#"{"q":"Eng","filter":"type eq \"OKTA_GROUP\""}"#,
            r#"{"filter":"type eq \"OKTA_GROUP\""}"#,
            "{}",
        ],
    };

    fn repeat(&self) -> Idempotency {
        Idempotency::Read
    }

    fn run(&self, okta: &mut Replay<'_>) -> Run<List<Group>> {
        // Okta takes `q` together with `filter` (recorded), and `search` with neither.
        let narrows = self.filter.is_some() && self.q.is_some() && self.search.is_none();
        let choice = (self.search.is_some(), self.filter.is_some() && !narrows, self.q.is_some());
        check_choice(choice, self.sort_by.is_some(), self.sort_order.is_some())?;
        let expand = self.expand.map(|expand| match expand {
            GroupExpand::Stats => "stats",
            GroupExpand::App => "app",
        });
        let request = Request::get("/api/v1/groups", &[])
            .query_opt("search", self.search.as_deref())
            .query_opt("filter", self.filter.as_deref())
            .query_opt("q", self.q.as_deref())
            .query_opt("sortBy", self.sort_by.as_deref())
            .query_opt("sortOrder", self.sort_order.map(SortOrder::as_str))
            .query_opt("expand", expand);
        let rules = match self.q {
            Some(_) => ListRules { is_paged: false, ..ListRules::paged(GROUPS_PAGE_MAX) },
            None => ListRules::paged(GROUPS_PAGE),
        };
        follow(okta, &request, self.limit, self.after.as_deref(), rules)
    }
}

/// Reads a group.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GetGroup {
    /// The group's id.
    group_id: GroupId,
}

impl Subtool for GetGroup {
    type Output = Group;
    const MANIFEST: Manifest = Manifest {
        name: "get_group",
        kind: ToolKind::Read,
        scope: "okta.groups.read",
        summary: "Reads one group by id.",
        not_for: "Not for finding a group by its name (`list_groups` with `search`), nor its members \
                  (`list_group_members`).",
        cost: Cost::one(Bucket::Group),
        returns: "the group with `type` and `profile`",
        examples: &[r#"{"group_id":"00g1emaKYZTWRYYRRTSK"}"#],
    };

    fn repeat(&self) -> Idempotency {
        Idempotency::Read
    }

    fn run(&self, okta: &mut Replay<'_>) -> Run<Group> {
        let reply = okta.ask(Request::get("/api/v1/groups/{groupId}", &[&self.group_id]))?;
        Ok(Done::read(Group(reply.json()?)))
    }
}
