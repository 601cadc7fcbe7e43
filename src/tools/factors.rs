//! The factors of users: list and reset.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::domain::bucket::Bucket;
use crate::domain::http::Request;
use crate::domain::ids::UserKey;

use super::cost::{A_LOGIN, Cost};
use super::list::{Limit, follow};
use super::list_rules::ListRules;
use super::manifest::{Idempotency, Manifest, ToolKind};
use super::output::{Empty, Factor, List};
use super::plan::{DEACTIVATED, Forecast};
use super::replay::Replay;
use super::resolve;
use super::run::{Done, Run, Stop};
use super::subtool::Subtool;
use super::user_state::UserState;

/// Lists the factors of a user.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListUserFactors {
    /// The user's id or login.
    user_id: UserKey,
}

impl Subtool for ListUserFactors {
    type Output = List<Factor>;
    const MANIFEST: Manifest = Manifest {
        name: "list_user_factors",
        kind: ToolKind::Read,
        scope: "okta.users.read",
        summary: "Lists the factors that a user has enrolled for multi-factor authentication, with the status of each.",
        not_for: "Not for whether the user may sign in, which `get_user` shows by `status`.",
        cost: Cost::one(Bucket::Users).and(A_LOGIN),
        returns: "`items` with factors and `complete`",
        examples: &[r#"{"user_id":"00u1abCdEfGhIjKlMnOp"}"#],
    };

    fn repeat(&self) -> Idempotency {
        Idempotency::Read
    }

    fn run(&self, okta: &mut Replay<'_>) -> Run<List<Factor>> {
        let user = resolve::id(&self.user_id, okta)?;
        let request = Request::get("/api/v1/users/{userId}/factors", &[&user]);
        follow(okta, &request, Limit::default(), None, ListRules::unsized_pages())
    }
}

/// Removes all factors of a user.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ResetUserFactors {
    /// The user's id or login.
    user_id: UserKey,
}

impl Subtool for ResetUserFactors {
    type Output = Empty;
    const MANIFEST: Manifest = Manifest {
        name: "reset_user_factors",
        kind: ToolKind::Credentials,
        scope: "okta.users.manage",
        summary: "Removes all factors of a user, who enrolls again at the next sign-in. This is irreversible.",
        not_for: "Not for a forgotten password: use `reset_user_password`.",
        cost: Cost::one(Bucket::Users),
        returns: "an empty object in either case",
        examples: &[r#"{"user_id":"jane@example.com"}"#],
    };

    fn repeat(&self) -> Idempotency {
        Idempotency::Set
    }

    fn run(&self, okta: &mut Replay<'_>) -> Run<Empty> {
        let user = resolve::user(&self.user_id, okta)?;
        okta.ask(Request::post("/api/v1/users/{userId}/lifecycle/reset_factors", &[&user]))?.success()?;
        Ok(Done::applied(Empty {}))
    }

    fn foresee(&self, okta: &mut Replay<'_>) -> Result<Forecast, Stop> {
        let user = resolve::user(&self.user_id, okta)?;
        let state: UserState = resolve::read(&user, okta)?.read()?;
        Ok(match state.status.as_str() {
            "DEPROVISIONED" => Forecast::unknown(DEACTIVATED),
            _ => Forecast::applied(),
        })
    }
}
