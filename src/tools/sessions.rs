//! The sessions of users.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::domain::bucket::Bucket;
use crate::domain::http::Request;
use crate::domain::ids::UserKey;

use super::absence::{or_default, or_yes, yes};
use super::cost::{A_LOGIN, Cost};
use super::manifest::{Idempotency, Manifest, ToolKind};
use super::output::Empty;
use super::plan::Forecast;
use super::replay::Replay;
use super::resolve;
use super::run::{Done, Run, Stop};
use super::subtool::Subtool;

/// Signs a user out everywhere.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClearUserSessions {
    /// The user's id or login.
    user_id: UserKey,
    /// Also revokes the user's OAuth and OpenID Connect tokens.
    #[serde(default = "yes", deserialize_with = "or_yes")]
    #[schemars(with = "Option<bool>")]
    revoke_oauth_tokens: bool,
    /// Also forgets the factors that devices remember.
    #[serde(default, deserialize_with = "or_default")]
    #[schemars(with = "Option<bool>")]
    forget_devices: bool,
}

impl Subtool for ClearUserSessions {
    type Output = Empty;
    const MANIFEST: Manifest = Manifest {
        name: "clear_user_sessions",
        kind: ToolKind::Write,
        scope: "okta.users.manage",
        summary: "Signs a user out: ends the sessions at Okta and, unless `revoke_oauth_tokens` is false, revokes the \
                  tokens of applications; the user may sign in again at once.",
        not_for: "Not for keeping somebody out: call `suspend_user` or `deactivate_user` first; an \
                  application's own sessions continue.",
        cost: Cost::one(Bucket::Users).and(A_LOGIN),
        returns: "an empty object",
        examples: &[
            r#"{"user_id":"00u1abCdEfGhIjKlMnOp"}"#,
            r#"{"user_id":"jane@example.com","revoke_oauth_tokens":false,"forget_devices":true}"#,
        ],
    };

    fn repeat(&self) -> Idempotency {
        Idempotency::Set
    }

    fn run(&self, okta: &mut Replay<'_>) -> Run<Empty> {
        let user = resolve::id(&self.user_id, okta)?;
        // Both are sent: Okta's own defaults are the opposite.
        let write = Request::delete("/api/v1/users/{userId}/sessions", &[&user])
            .query("oauthTokens", self.revoke_oauth_tokens)
            .query("forgetDevices", self.forget_devices);
        okta.ask(write)?.success()?;
        Ok(Done::applied(Empty {}))
    }

    fn foresee(&self, okta: &mut Replay<'_>) -> Result<Forecast, Stop> {
        let user = resolve::id(&self.user_id, okta)?;
        resolve::read(&user, okta)?.success()?;
        Ok(Forecast::applied())
    }
}
