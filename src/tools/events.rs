//! The System Log.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::domain::bucket::Bucket;
use crate::domain::http::Request;

use super::cost::Cost;
use super::list::{Limit, follow};
use super::list_rules::ListRules;
use super::manifest::{Idempotency, Manifest, ToolKind};
use super::output::{List, LogEvent};
use super::replay::Replay;
use super::run::Run;
use super::subtool::Subtool;

/// The largest page of events ("System Log", `limit`).
const EVENTS_PAGE: u32 = 1000;

/// The order of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum EventOrder {
    /// Oldest first.
    Ascending,
    /// Newest first.
    Descending,
}

/// Lists events of the System Log.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListEvents {
    /// The start, as an ISO 8601 time; by default seven days before `until`.
    since: Option<String>,
    /// The end, as an ISO 8601 time; by default now.
    until: Option<String>,
    /// An expression: `eventType eq "user.lifecycle.create"`.
    filter: Option<String>,
    /// At most ten words, all of which must occur.
    q: Option<String>,
    /// The order; oldest first by default.
    sort_order: Option<EventOrder>,
    /// Maximum events in total.
    #[serde(default)]
    limit: Limit,
    /// `next` of an earlier result with the same arguments.
    after: Option<String>,
}

impl Subtool for ListEvents {
    type Output = List<LogEvent>;
    const MANIFEST: Manifest = Manifest {
        name: "list_events",
        kind: ToolKind::Read,
        scope: "okta.logs.read",
        summary: "Lists events of the System Log: who did what, when. Give `since` and `until`, and a `filter` \
                  on `eventType` or `target.id`.",
        not_for: "Not for the present state (`get_user`, `get_group`, `get_app`); events may be late, and Okta \
                  keeps them for 90 days.",
        cost: Cost::one(Bucket::Logs).per(EVENTS_PAGE, "events").and("the lowest limit"),
        returns: "`items` with events, `complete`, and `next`, each event once",
        examples: &[
            r#"{"since":"2026-11-01T00:00:00Z","until":"2026-11-02T00:00:00Z","filter":"eventType eq \"user.lifecycle.create\""}"#,
            r#"{"q":"suspend","sort_order":"DESCENDING","limit":20}"#,
            "{}",
        ],
    };

    fn repeat(&self) -> Idempotency {
        Idempotency::Read
    }

    fn run(&self, okta: &mut Replay<'_>) -> Run<List<LogEvent>> {
        let order = self.sort_order.map(|order| match order {
            EventOrder::Ascending => "ASCENDING",
            EventOrder::Descending => "DESCENDING",
        });
        let request = Request::get("/api/v1/logs", &[])
            .query_opt("since", self.since.as_deref())
            .query_opt("until", self.until.as_deref())
            .query_opt("filter", self.filter.as_deref())
            .query_opt("q", self.q.as_deref())
            .query_opt("sortOrder", order);
        // Without `until`, oldest first, Okta treats the query as polling: there is always a next page, and
        // an empty one means that there is nothing new ("System Log", polling requests).
        let is_poll = self.until.is_none() && self.sort_order != Some(EventOrder::Descending);
        let rules = ListRules {
            ends_empty: is_poll,
            is_keyed: true,
            not_with_after: &["since"],
            ..ListRules::paged(EVENTS_PAGE)
        };
        follow(okta, &request, self.limit, self.after.as_deref(), rules)
    }
}
