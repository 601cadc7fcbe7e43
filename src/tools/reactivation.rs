//! A second activation of users who have not used the first one.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::domain::bucket::Bucket;
use crate::domain::http::Request;
use crate::domain::ids::UserKey;

use super::absence::{or_yes, yes};
use super::converge::{Converged, settle, unknown};
use super::cost::Cost;
use super::lifecycle::activated;
use super::manifest::{Idempotency, Manifest, ToolKind};
use super::output::Activation;
use super::plan::Forecast;
use super::replay::Replay;
use super::resolve;
use super::run::{Done, Run, Stop};
use super::steps::{Emitted, Leading, already, emitted, foresee};
use super::subtool::Subtool;

/// Sends the activation of a user again.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReactivateUser {
    /// The user's id or login.
    user_id: UserKey,
    /// Makes Okta mail the activation link; otherwise only `reply_to` gets it.
    #[serde(default = "yes", deserialize_with = "or_yes")]
    #[schemars(with = "Option<bool>")]
    send_email: bool,
}

impl Subtool for ReactivateUser {
    type Output = Activation;
    const MANIFEST: Manifest = Manifest {
        name: "reactivate_user",
        kind: ToolKind::Write,
        scope: "okta.users.manage",
        summary: "Sends a PROVISIONED user the activation again: a new e-mail each time, and the earlier link \
                  expires. With `send_email: false` the result has the link instead: a one-time secret, only \
                  for `reply_to`.",
        not_for: "Not for a STAGED or DEPROVISIONED user (`activate_user`) nor a suspended one (`unsuspend_user`).",
        cost: Cost::one(Bucket::Users),
        returns: "an empty object, or `activation_url` and `activation_token`; `link_missing: true` when Okta \
                  gave no link",
        examples: &[
            r#"{"user_id":"jane@example.com"}"#,
            r#"{"user_id":"00u1abCdEfGhIjKlMnOp","send_email":false}"#,
        ],
    };

    fn repeat(&self) -> Idempotency {
        Idempotency::NonIdempotent
    }

    fn mints_secret(&self) -> bool {
        !self.send_email
    }

    fn run(&self, okta: &mut Replay<'_>) -> Run<Activation> {
        let user = resolve::user(&self.user_id, okta)?;
        let write = Request::post("/api/v1/users/{userId}/lifecycle/reactivate", &[&user])
            .query("sendEmail", self.send_email);
        let look = |okta: &mut Replay<'_>, since| match emitted(okta, &user, &REACTIVATION, since)? {
            Emitted::Not => Ok(None),
            Emitted::Surely if self.send_email => Ok(Some(())),
            Emitted::Surely => Err(unknown(
                "the activation was sent again, and the link was lost with Okta's answer; ask for another",
            )),
        };
        match settle(okta, &write, look)? {
            Converged::Found(()) => Ok(Done::applied(Activation::default())),
            Converged::Said(reply) if reply.is_success() && self.send_email => {
                Ok(Done::applied(Activation::default()))
            }
            Converged::Said(reply) if reply.is_success() => Ok(Done::applied(activated(reply)?)),
            Converged::Said(refused) => {
                // In the right status the status is not why Okta refuses.
                let (effect, _) = already(okta, &user, refused, &Leading { to: &[], ..REACTIVATION })?;
                Ok(Done { effect, output: Activation::default() })
            }
        }
    }

    fn foresee(&self, okta: &mut Replay<'_>) -> Result<Forecast, Stop> {
        let user = resolve::user(&self.user_id, okta)?;
        foresee(okta, &user, &REACTIVATION)
    }
}

/// The step of a second activation, which leaves a user `PROVISIONED`. Okta refuses every other status but `RECOVERY`,
/// of which there is no recording.
const REACTIVATION: Leading<'static> = Leading {
    verb: "reactivate",
    refusal: "E0000038",
    from: &["PROVISIONED"],
    to: &["PROVISIONED"],
    done: &[],
    refused: &["STAGED", "ACTIVE", "PASSWORD_EXPIRED", "LOCKED_OUT", "SUSPENDED", "DEPROVISIONED"],
    event: "user.lifecycle.reactivate",
};
