//! The lifecycle of a user: activate, deactivate, suspend, unsuspend, unlock, reset and expire passwords.
//!
//! Okta refuses a step that is already done, each with a code of its own. A refusal that may mean "already
//! so" is followed by a read of the status, which decides between `unchanged` and `precondition_failed`.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::domain::http::Request;
use crate::domain::ids::{UserId, UserKey, excerpt};

use super::output::{Activation, Empty, Expiry, PasswordReset};
use super::{Dialogue, Done, Kind, Manifest, Repeat, Reply, Step, Stop, Subtool, UserState, resolve, yes};

/// After a refusal: the user as read, when it is already where the step leads.
fn already<'a>(
    okta: &mut Dialogue<'a>,
    user: &UserId,
    refusal: Reply<'_>,
    (verb, code, wanted): (&str, &str, &[&str]),
) -> Result<Reply<'a>, Stop> {
    let error = refusal.error();
    if !error.is(code) {
        return Err(Stop::Refused(Box::new(error)));
    }
    let reply = resolve::read(user, okta)?;
    let state: UserState = reply.read()?;
    if wanted.contains(&state.status.as_str()) {
        return Ok(reply);
    }
    let message =
        format!("failed to {verb} user `{}`: it is {}", excerpt(user.as_str()), excerpt(&state.status));
    Err(Stop::precondition(message, Some(error)))
}

/// Activates a staged or deactivated user.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ActivateUser {
    /// The user's id or login.
    user_id: UserKey,
    /// Whether Okta mails the activation link; otherwise the result holds it, to `reply_to` alone.
    #[serde(default = "yes")]
    send_email: bool,
}

impl Subtool for ActivateUser {
    type Output = Activation;
    const MANIFEST: Manifest = Manifest {
        name: "activate_user",
        kind: Kind::Write,
        scope: "okta.users.manage",
        summary: "Activates a STAGED or DEPROVISIONED user and has Okta mail the link. With `send_email: false` no \
                  mail goes out and the result holds the link: a one-time secret, so `reply_to` is required.",
        examples: &[
            r#"{"user_id":"jane@example.com"}"#,
            r#"{"user_id":"00u1abCdEfGhIjKlMnOp","send_email":false}"#,
        ],
    };

    fn repeat(&self) -> Repeat {
        if self.send_email { Repeat::Emit } else { Repeat::Transition }
    }

    fn mints_secret(&self) -> bool {
        !self.send_email
    }

    fn converse(&self, okta: &mut Dialogue<'_>) -> Step<Activation> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Activated {
            activation_url: Option<String>,
            activation_token: Option<String>,
        }
        let user = resolve::user(&self.user_id, okta)?;
        let request = Request::post("/api/v1/users/{userId}/lifecycle/activate", &[&user])
            .query("sendEmail", self.send_email);
        let reply = okta.ask(request)?;
        if !reply.is_success() {
            already(okta, &user, reply, ("activate", "E0000016", &["ACTIVE", "PROVISIONED"]))?;
            return Ok(Done::unchanged(Activation::default()));
        }
        if self.send_email {
            return Ok(Done::applied(Activation::default()));
        }
        let Activated { activation_url, activation_token } = reply.read()?;
        Ok(Done::applied(Activation { activation_url, activation_token }))
    }
}

/// Deactivates a user.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeactivateUser {
    /// The user's id or login.
    user_id: UserKey,
    /// Whether Okta mails the administrator.
    #[serde(default)]
    send_email: bool,
}

impl Subtool for DeactivateUser {
    type Output = Empty;
    const MANIFEST: Manifest = Manifest {
        name: "deactivate_user",
        kind: Kind::Destructive,
        scope: "okta.users.manage",
        summary: "Deactivates a user: sign-in ends and application assignments are taken away. For a pause that keeps \
                  them use `suspend_user`.",
        examples: &[r#"{"user_id":"jane@example.com"}"#],
    };

    fn repeat(&self) -> Repeat {
        Repeat::Transition
    }

    fn converse(&self, okta: &mut Dialogue<'_>) -> Step<Empty> {
        let user = resolve::user(&self.user_id, okta)?;
        let request = Request::post("/api/v1/users/{userId}/lifecycle/deactivate", &[&user])
            .query("sendEmail", self.send_email);
        let reply = okta.ask(request)?;
        if reply.is_success() {
            return Ok(Done::applied(Empty {}));
        }
        // Of a user that is deactivated already Okta says "not found" (okta-sdk-java issue 721).
        already(okta, &user, reply, ("deactivate", "E0000007", &["DEPROVISIONED"]))?;
        Ok(Done::unchanged(Empty {}))
    }
}

/// A lifecycle step without arguments or answer: the type, its manifest, the route, the refusal that may
/// mean "already so" and the statuses that are.
macro_rules! plain_step {
    (
        $(#[$doc:meta])* $name:ident, $tool:literal, $verb:literal, $route:literal,
        already: $code:literal, $statuses:expr, $summary:literal
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
                kind: Kind::Write,
                scope: "okta.users.manage",
                summary: $summary,
                examples: &[r#"{"user_id":"jane@example.com"}"#],
            };

            fn repeat(&self) -> Repeat {
                Repeat::Transition
            }

            fn converse(&self, okta: &mut Dialogue<'_>) -> Step<Empty> {
                let user = resolve::user(&self.user_id, okta)?;
                let reply = okta.ask(Request::post($route, &[&user]))?;
                if reply.is_success() {
                    return Ok(Done::applied(Empty {}));
                }
                already(okta, &user, reply, ($verb, $code, $statuses))?;
                Ok(Done::unchanged(Empty {}))
            }
        }
    };
}

plain_step!(
    /// Suspends an active user.
    SuspendUser, "suspend_user", "suspend", "/api/v1/users/{userId}/lifecycle/suspend",
    already: "E0000001", &["SUSPENDED"],
    "Suspends an ACTIVE user: sign-in ends, groups and applications stay. `unsuspend_user` takes it back."
);
plain_step!(
    /// Ends a suspension.
    UnsuspendUser, "unsuspend_user", "unsuspend", "/api/v1/users/{userId}/lifecycle/unsuspend",
    // Everything that is neither suspended nor deactivated is "not suspended" already.
    already: "E0000001",
    &["ACTIVE", "STAGED", "PROVISIONED", "RECOVERY", "PASSWORD_EXPIRED", "LOCKED_OUT"],
    "Ends a suspension. The status afterwards is the one before it, not always ACTIVE."
);
plain_step!(
    /// Unlocks a user that was locked out.
    UnlockUser, "unlock_user", "unlock", "/api/v1/users/{userId}/lifecycle/unlock",
    // After unlocking, a user whose password expired meanwhile is PASSWORD_EXPIRED (recorded).
    already: "E0000032", &["ACTIVE", "PASSWORD_EXPIRED"],
    "Unlocks a LOCKED_OUT user; the password stays. Users mastered by Active Directory are unlocked there."
);

/// Sends or mints a password reset.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ResetUserPassword {
    /// The user's id or login.
    user_id: UserKey,
    /// Whether Okta mails the link; otherwise the result holds it, to `reply_to` alone.
    #[serde(default = "yes")]
    send_email: bool,
    /// Whether the user is signed out everywhere.
    #[serde(default)]
    revoke_sessions: bool,
}

impl Subtool for ResetUserPassword {
    type Output = PasswordReset;
    const MANIFEST: Manifest = Manifest {
        name: "reset_user_password",
        kind: Kind::Credentials,
        scope: "okta.users.manage",
        summary: "Starts a password reset: the user cannot sign in until it is done, and each call sends another mail. \
                  With `send_email: false` the result holds the link: a one-time secret, so `reply_to` is required.",
        examples: &[
            r#"{"user_id":"jane@example.com"}"#,
            r#"{"user_id":"00u1abCdEfGhIjKlMnOp","send_email":false,"revoke_sessions":true}"#,
        ],
    };

    fn repeat(&self) -> Repeat {
        Repeat::Emit
    }

    fn mints_secret(&self) -> bool {
        !self.send_email
    }

    fn converse(&self, okta: &mut Dialogue<'_>) -> Step<PasswordReset> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Reset {
            reset_password_url: Option<String>,
        }
        let user = resolve::user(&self.user_id, okta)?;
        let request = Request::post("/api/v1/users/{userId}/lifecycle/reset_password", &[&user])
            .query("sendEmail", self.send_email)
            .query_opt("revokeSessions", self.revoke_sessions.then_some(true));
        let reply = okta.ask(request)?;
        if self.send_email {
            reply.success()?;
            return Ok(Done::applied(PasswordReset::default()));
        }
        let Reset { reset_password_url } = reply.read()?;
        Ok(Done::applied(PasswordReset { reset_password_url }))
    }
}

/// Expires a password, optionally replacing it by a temporary one.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExpireUserPassword {
    /// The user's id or login.
    user_id: UserKey,
    /// Whether Okta sets a temporary password, given in the result to `reply_to` alone.
    #[serde(default)]
    temp_password: bool,
    /// Whether the user is signed out everywhere; needs `temp_password`.
    #[serde(default)]
    revoke_sessions: bool,
}

impl Subtool for ExpireUserPassword {
    type Output = Expiry;
    const MANIFEST: Manifest = Manifest {
        name: "expire_user_password",
        kind: Kind::Credentials,
        scope: "okta.users.manage",
        summary: "Makes the user choose a new password at the next sign-in. With `temp_password: true` the result holds \
                  a temporary one: a one-time secret, so `reply_to` is required.",
        examples: &[
            r#"{"user_id":"jane@example.com"}"#,
            r#"{"user_id":"00u1abCdEfGhIjKlMnOp","temp_password":true,"revoke_sessions":true}"#,
        ],
    };

    fn repeat(&self) -> Repeat {
        if self.temp_password { Repeat::Emit } else { Repeat::Transition }
    }

    fn mints_secret(&self) -> bool {
        self.temp_password
    }

    fn converse(&self, okta: &mut Dialogue<'_>) -> Step<Expiry> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Temporary {
            temp_password: String,
        }
        if self.revoke_sessions && !self.temp_password {
            return Err(Stop::argument("revoke_sessions", "`revoke_sessions` needs `temp_password: true`"));
        }
        let user = resolve::user(&self.user_id, okta)?;
        if self.temp_password {
            let route = "/api/v1/users/{userId}/lifecycle/expire_password_with_temp_password";
            let request = Request::post(route, &[&user])
                .query_opt("revokeSessions", self.revoke_sessions.then_some(true));
            let Temporary { temp_password } = okta.ask(request)?.read()?;
            return Ok(Done::applied(Expiry::Temporary(temp_password)));
        }
        let reply = okta.ask(Request::post("/api/v1/users/{userId}/lifecycle/expire_password", &[&user]))?;
        if reply.is_success() {
            return Ok(Done::applied(Expiry::User(reply.json()?)));
        }
        let wanted = ("expire the password of", "E0000038", &["PASSWORD_EXPIRED"][..]);
        Ok(Done::unchanged(Expiry::User(already(okta, &user, reply, wanted)?.json()?)))
    }
}
