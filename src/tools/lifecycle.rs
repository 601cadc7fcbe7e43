//! Lifecycle of a user: activate, deactivate, suspend, unsuspend and unlock.
//!
//! Okta refuses a step that is already done, each with a code of its own. After a refusal that may mean "already
//! done", a read of the status decides between `unchanged` and `precondition_failed`.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::domain::bucket::Bucket;
use crate::domain::http::Request;
use crate::domain::ids::{UserId, UserKey};
use crate::domain::result::Effect;

use super::absence::{or_default, or_yes, yes};
use super::converge::{Converged, effect, is_since, logged, settle, unknown};
use super::cost::Cost;
use super::history::OktaReply;
use super::manifest::{Idempotency, Manifest, ToolKind};
use super::output::{Activation, Empty};
use super::plan::{DEVICES, Forecast, Losses, Lost, MASTERED, lost};
use super::replay::Replay;
use super::resolve;
use super::run::{Done, Run, Stop};
use super::steps::{Leading, Led, already, foresee, settled, step};
use super::subtool::Subtool;
use super::user_state::UserState;

/// Activates a staged or deactivated user.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ActivateUser {
    /// The user's id or login.
    user_id: UserKey,
    /// Makes Okta mail the activation link; otherwise only `reply_to` gets it.
    #[serde(default = "yes", deserialize_with = "or_yes")]
    #[schemars(with = "Option<bool>")]
    send_email: bool,
}

impl Subtool for ActivateUser {
    type Output = Activation;
    const MANIFEST: Manifest = Manifest {
        name: "activate_user",
        kind: ToolKind::Write,
        scope: "okta.users.manage",
        summary: "Activates a STAGED or DEPROVISIONED user and has Okta mail the link; a PROVISIONED one gets \
                  no second e-mail (use `reactivate_user`). With `send_email: false` the result has the link \
                  instead: a one-time secret, only for `reply_to`.",
        not_for: "Not for a suspended user (`unsuspend_user`) nor a locked-out one (`unlock_user`).",
        cost: Cost::one(Bucket::Users),
        returns: "an empty object, or `activation_url` and `activation_token`; `link_missing: true` when Okta \
                  gave no link",
        examples: &[
            r#"{"user_id":"jane@example.com"}"#,
            r#"{"user_id":"00u1abCdEfGhIjKlMnOp","send_email":false}"#,
        ],
    };

    fn repeat(&self) -> Idempotency {
        if self.send_email { Idempotency::NonIdempotent } else { Idempotency::Transition }
    }

    fn mints_secret(&self) -> bool {
        !self.send_email
    }

    fn run(&self, okta: &mut Replay<'_>) -> Run<Activation> {
        let user = resolve::user(&self.user_id, okta)?;
        let write = Request::post("/api/v1/users/{userId}/lifecycle/activate", &[&user])
            .query("sendEmail", self.send_email);
        if self.send_email { mail_link(okta, &user, &write) } else { mint_link(okta, &user, &write) }
    }

    fn foresee(&self, okta: &mut Replay<'_>) -> Result<Forecast, Stop> {
        let user = resolve::user(&self.user_id, okta)?;
        foresee(okta, &user, &ACTIVATION)
    }
}

/// The step of an activation, which leads to `PROVISIONED`, or with a password to `ACTIVE`.
const ACTIVATION: Leading<'static> = Leading {
    verb: "activate",
    refusal: "E0000016",
    from: &["STAGED", "DEPROVISIONED"],
    to: &["ACTIVE", "PROVISIONED"],
    done: &["ACTIVE", "PROVISIONED"],
    refused: &[],
    event: "user.lifecycle.activate",
};

/// Activates a user and has Okta mail the link.
fn mail_link(okta: &mut Replay<'_>, user: &UserId, write: &Request) -> Run<Activation> {
    let (effect, status) = match settle(okta, write, |okta, since| mailed(okta, user, since))? {
        Converged::Found(found) => found,
        Converged::Said(reply) if reply.is_success() => return Ok(Done::applied(Activation::default())),
        Converged::Said(refused) => {
            let (effect, read) = already(okta, user, refused, &ACTIVATION)?;
            (effect, read.read::<UserState>()?.status)
        }
    };
    // A user in this status before waits for the e-mail of an earlier activation: Okta sends none now.
    let is_waiting = effect == Effect::Unchanged && status == "PROVISIONED";
    Ok(Done {
        effect,
        output: Activation { note: is_waiting.then_some(NOT_MAILED), ..Activation::default() },
    })
}

/// Activates a user and returns the link.
fn mint_link(okta: &mut Replay<'_>, user: &UserId, write: &Request) -> Run<Activation> {
    let (effect, read) = match step(okta, user, write, &ACTIVATION)? {
        Led::Did(reply) => return Ok(Done::applied(activated(reply)?)),
        Led::There(effect, read) => (effect, read),
    };
    let status = read.map(|reply| reply.read::<UserState>()).transpose()?.map(|user| user.status);
    if status.as_deref() != Some("PROVISIONED") {
        return Ok(Done { effect, output: Activation::default() }); // nobody needs a link any more
    }
    if effect == Effect::Unchanged {
        let output = Activation { link_missing: true, note: Some(NO_NEW_LINK), ..Activation::default() };
        return Ok(Done { effect, output });
    }
    // We activated it, and the link was lost with the answer: `reactivate` gives another one.
    let again = Request::post("/api/v1/users/{userId}/lifecycle/reactivate", &[user]);
    let again = again.query("sendEmail", false);
    let reply = loop {
        if let Some(reply) = okta.attempt(again.clone())? {
            break reply;
        }
    };
    Ok(Done::applied(activated(reply)?))
}

/// Returns the link in Okta's answer. Without one the user is activated all the same, but has no link.
pub(super) fn activated(reply: OktaReply<'_>) -> Result<Activation, Stop> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Activated {
        activation_url: Option<String>,
        activation_token: Option<String>,
    }
    let Activated { activation_url, activation_token } = reply.read()?;
    let is_empty = |text: &Option<String>| text.as_deref().is_none_or(str::is_empty);
    // A token alone is a link to whoever knows the org's address (recorded on `reactivate`).
    let link_missing = is_empty(&activation_url) && is_empty(&activation_token);
    let note = link_missing.then_some(NO_LINK);
    Ok(Activation { activation_url, activation_token, link_missing, note })
}

/// The note if the user waits for an activation that was mailed before.
const NOT_MAILED: &str = "nothing was mailed: the user was PROVISIONED already; `reactivate_user` has Okta mail the \
                          activation again";

/// The note if the user waits for an activation, and another client received the link.
const NO_NEW_LINK: &str =
    "there is no new link: the user was PROVISIONED already; `reactivate_user` gives another link";

/// The note if Okta activated a user and gave no link.
const NO_LINK: &str = "the user is activated and Okta gave no link: `reactivate_user` gives another one to a user without a password";

/// Returns effect and status if an activation that sends an e-mail was done: unchanged if the status is older.
fn mailed(okta: &mut Replay<'_>, user: &UserId, since: Timestamp) -> Result<Option<(Effect, String)>, Stop> {
    let read = resolve::reading(user).after(okta.settling());
    let Some((state, _)) = settled(okta, read, &ACTIVATION)? else { return Ok(None) };
    if ACTIVATION.to.contains(&state.status.as_str()) {
        return Ok(Some((effect(state.status_changed, Some(since)), state.status)));
    }
    if state.is_on_its_way(&ACTIVATION) {
        return Ok(Some((Effect::Applied, state.status)));
    }
    if !is_since(state.status_changed, since) {
        return Ok(None);
    }
    match logged(okta, ACTIVATION.event, &[&state.id], since)? {
        Some(true) => Ok(Some((Effect::Applied, state.status))),
        Some(false) | None => Err(unknown("nobody can say whether Okta has mailed the activation link")),
    }
}

/// Deactivates a user.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeactivateUser {
    /// The user's id or login.
    user_id: UserKey,
    /// Makes Okta mail the administrator.
    #[serde(default, deserialize_with = "or_default")]
    #[schemars(with = "Option<bool>")]
    send_email: bool,
}

impl Subtool for DeactivateUser {
    type Output = Empty;
    const MANIFEST: Manifest = Manifest {
        name: "deactivate_user",
        kind: ToolKind::Destructive,
        scope: "okta.users.manage",
        summary: "Deactivates a user: sign-in ends, application assignments are removed, and the user's API \
                  tokens stop working. Group memberships stay: a user activated again regains the groups' \
                  applications.",
        not_for: "Not for a block that keeps the assignments: use `suspend_user`; to delete the account, call \
                  `delete_user` afterwards.",
        cost: Cost::one(Bucket::Users),
        returns: "an empty object; `unchanged` when the user was deactivated already",
        examples: &[r#"{"user_id":"jane@example.com"}"#],
    };

    fn repeat(&self) -> Idempotency {
        Idempotency::Transition
    }

    fn run(&self, okta: &mut Replay<'_>) -> Run<Empty> {
        let user = resolve::user(&self.user_id, okta)?;
        let write = Request::post("/api/v1/users/{userId}/lifecycle/deactivate", &[&user])
            .query("sendEmail", self.send_email);
        match step(okta, &user, &write, &DEACTIVATION)? {
            Led::Did(_) => Ok(Done::applied(Empty {})),
            Led::There(effect, _) => Ok(Done { effect, output: Empty {} }),
        }
    }

    fn foresee(&self, okta: &mut Replay<'_>) -> Result<Forecast, Stop> {
        let user = resolve::user(&self.user_id, okta)?;
        let forecast = foresee(okta, &user, &DEACTIVATION)?;
        if !forecast.is_applied() {
            return Ok(forecast);
        }
        // Group memberships stay (Okta help, "Deactivate user accounts").
        let mut not_checked = Vec::new();
        let apps = lost_apps(okta, &user, &mut not_checked)?;
        Ok(forecast.losing(Losses { groups: Vec::new(), apps }).without(&not_checked))
    }
}

/// The step of a deactivation, which leads to `DEPROVISIONED` from every other status.
const DEACTIVATION: Leading<'static> = Leading {
    verb: "deactivate",
    // For an already deactivated user Okta answers "not found" (okta-sdk-java issue 721).
    refusal: "E0000007",
    from: &["STAGED", "PROVISIONED", "ACTIVE", "RECOVERY", "PASSWORD_EXPIRED", "LOCKED_OUT", "SUSPENDED"],
    to: &["DEPROVISIONED"],
    done: &["DEPROVISIONED"],
    refused: &[],
    event: "user.lifecycle.deactivate",
};

/// Reads the applications that a user would lose.
fn lost_apps(
    okta: &mut Replay<'_>,
    user: &UserId,
    not_checked: &mut Vec<&'static str>,
) -> Result<Vec<Lost>, Stop> {
    lost(okta, Request::get("/api/v1/users/{userId}/appLinks", &[user]), not_checked)
}

/// Adds the groups and applications that are lost with a deleted user.
pub(super) fn losses(okta: &mut Replay<'_>, user: &UserId, forecast: Forecast) -> Result<Forecast, Stop> {
    let mut not_checked = Vec::new();
    let groups = lost(okta, Request::get("/api/v1/users/{userId}/groups", &[user]), &mut not_checked)?;
    let apps = lost_apps(okta, user, &mut not_checked)?;
    not_checked.dedup();
    Ok(forecast.losing(Losses { groups, apps }).without(&not_checked))
}

/// Defines a lifecycle step without arguments or answer: the type, its manifest, the route, the refusal that may
/// mean "already done", the statuses that mean so, and the event in the System Log.
macro_rules! plain_step {
    (
        $(#[$doc:meta])* $name:ident, $tool:literal, $verb:literal, $route:literal,
        from: $from:literal, already: $code:literal, $statuses:expr, done: $done:expr,
        refused: $refused:expr, not_checked: $not_checked:expr, $event:literal,
        $summary:literal, $not_for:literal, $returns:literal
    ) => {
        $(#[$doc])*
        #[derive(Debug, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            /// The user's id or login.
            user_id: UserKey,
        }

        impl Subtool for $name {
            type Output = Empty;
            const MANIFEST: Manifest = Manifest {
                name: $tool,
                kind: ToolKind::Write,
                scope: "okta.users.manage",
                summary: $summary,
                not_for: $not_for,
                cost: Cost::one(Bucket::Users),
                returns: $returns,
                examples: &[r#"{"user_id":"jane@example.com"}"#],
            };

            fn repeat(&self) -> Idempotency {
                Idempotency::Transition
            }

            fn run(&self, okta: &mut Replay<'_>) -> Run<Empty> {
                let user = resolve::user(&self.user_id, okta)?;
                match step(okta, &user, &Request::post($route, &[&user]), &Self::LEADING)? {
                    Led::Did(_) => Ok(Done::applied(Empty {})),
                    Led::There(effect, _) => Ok(Done { effect, output: Empty {} }),
                }
            }

            fn foresee(&self, okta: &mut Replay<'_>) -> Result<Forecast, Stop> {
                let user = resolve::user(&self.user_id, okta)?;
                Ok(foresee(okta, &user, &Self::LEADING)?.without($not_checked))
            }
        }

        impl $name {
            const LEADING: Leading<'static> = Leading {
                verb: $verb,
                refusal: $code,
                from: &[$from],
                to: $statuses,
                done: $done,
                refused: $refused,
                event: $event,
            };
        }
    };
}

/// The statuses of a user who is neither suspended nor deactivated.
const NOT_SUSPENDED: &[&str] =
    &["ACTIVE", "STAGED", "PROVISIONED", "RECOVERY", "PASSWORD_EXPIRED", "LOCKED_OUT"];

plain_step!(
    /// Suspends an active user.
    SuspendUser, "suspend_user", "suspend", "/api/v1/users/{userId}/lifecycle/suspend",
    from: "ACTIVE", already: "E0000001", &["SUSPENDED"], done: &["SUSPENDED"],
    // Users who are PROVISIONED, in RECOVERY or PASSWORD_EXPIRED have a `suspend` link (recorded); there is no
    // recording of its use.
    refused: &["STAGED", "LOCKED_OUT", "DEPROVISIONED"], not_checked: &[MASTERED], "user.lifecycle.suspend",
    "Suspends an ACTIVE user: sign-in ends, groups and applications stay. `unsuspend_user` reverses it.",
    "Not for somebody who leaves for good: use `deactivate_user`.",
    "an empty object; `unchanged` when the user was suspended already"
);
plain_step!(
    /// Ends a suspension.
    UnsuspendUser, "unsuspend_user", "unsuspend", "/api/v1/users/{userId}/lifecycle/unsuspend",
    // Every user that is neither suspended nor deactivated is already "not suspended".
    from: "SUSPENDED", already: "E0000001",
    NOT_SUSPENDED, done: NOT_SUSPENDED, refused: &["DEPROVISIONED"], not_checked: &[MASTERED],
    "user.lifecycle.unsuspend",
    "Ends a suspension. The user regains the previous status, not always ACTIVE.",
    "Not for a locked-out user (`unlock_user`) nor a deactivated one (`activate_user`).",
    "an empty object; `unchanged` when the user was not suspended"
);
plain_step!(
    /// Unlocks a user that was locked out.
    UnlockUser, "unlock_user", "unlock", "/api/v1/users/{userId}/lifecycle/unlock",
    // After unlocking, a user whose password expired in the meantime is PASSWORD_EXPIRED (recorded).
    from: "LOCKED_OUT", already: "E0000032", &["ACTIVE", "PASSWORD_EXPIRED"], done: &["ACTIVE"],
    refused: &[], not_checked: &[MASTERED, DEVICES], "user.account.unlock_by_admin",
    "Unlocks a LOCKED_OUT user; the password stays. Users mastered by Active Directory are unlocked there.",
    "Not for a suspended user (`unsuspend_user`) nor a forgotten password (`reset_user_password`).",
    "an empty object; `unchanged` when the user was not locked out"
);
