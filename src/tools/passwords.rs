//! Passwords of users: reset and expiry.
//!
//! Both send an e-mail or create a one-time secret each time, so neither is retried blindly.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::domain::bucket::Bucket;
use crate::domain::http::Request;
use crate::domain::ids::UserKey;

use super::absence::{or_default, or_yes, yes};
use super::converge::{Converged, settle, unknown};
use super::cost::Cost;
use super::manifest::{Idempotency, Manifest, ToolKind};
use super::output::{Expiry, PasswordReset};
use super::plan::{Forecast, HAS_PASSWORD, MASTERED};
use super::replay::Replay;
use super::resolve;
use super::run::{Done, Run, Stop};
use super::steps::{Emitted, Leading, Led, emitted, foresee, step};
use super::subtool::Subtool;

/// Sends or mints a password reset.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ResetUserPassword {
    /// The user's id or login.
    user_id: UserKey,
    /// Makes Okta mail the link; otherwise only `reply_to` gets it.
    #[serde(default = "yes", deserialize_with = "or_yes")]
    #[schemars(with = "Option<bool>")]
    send_email: bool,
    /// Signs the user out everywhere.
    #[serde(default, deserialize_with = "or_default")]
    #[schemars(with = "Option<bool>")]
    revoke_sessions: bool,
}

impl Subtool for ResetUserPassword {
    type Output = PasswordReset;
    const MANIFEST: Manifest = Manifest {
        name: "reset_user_password",
        kind: ToolKind::Credentials,
        scope: "okta.users.manage",
        summary: "Starts a password reset: the user cannot sign in until it is done, and each call sends \
                  another e-mail. With `send_email: false` the result has the link: a one-time secret, only \
                  for `reply_to`.",
        not_for: "Not for a user who is only locked out (`unlock_user`), was never activated \
                  (`activate_user`), or may use the old password once more (`expire_user_password`).",
        cost: Cost::one(Bucket::Users),
        returns: "an empty object, or `reset_password_url`; `link_missing: true` when Okta gave no link",
        examples: &[
            r#"{"user_id":"jane@example.com"}"#,
            r#"{"user_id":"00u1abCdEfGhIjKlMnOp","send_email":false,"revoke_sessions":true}"#,
        ],
    };

    fn repeat(&self) -> Idempotency {
        Idempotency::NonIdempotent
    }

    fn mints_secret(&self) -> bool {
        !self.send_email
    }

    fn run(&self, okta: &mut Replay<'_>) -> Run<PasswordReset> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Reset {
            reset_password_url: Option<String>,
        }
        let user = resolve::user(&self.user_id, okta)?;
        let write = Request::post("/api/v1/users/{userId}/lifecycle/reset_password", &[&user])
            .query("sendEmail", self.send_email)
            .query_opt("revokeSessions", self.revoke_sessions.then_some(true));
        let look = |okta: &mut Replay<'_>, since| match emitted(okta, &user, &RESET, since)? {
            Emitted::Not => Ok(None),
            Emitted::Surely if self.send_email => Ok(Some(())),
            Emitted::Surely => Err(unknown(
                "the password was reset, and the link was lost with Okta's answer; ask for another",
            )),
        };
        let reply = match settle(okta, &write, look)? {
            Converged::Found(()) => return Ok(Done::applied(PasswordReset::default())),
            Converged::Said(reply) => reply,
        };
        if self.send_email {
            reply.success()?;
            return Ok(Done::applied(PasswordReset::default()));
        }
        let Reset { reset_password_url } = reply.read()?;
        let link_missing = reset_password_url.as_deref().is_none_or(str::is_empty);
        let note = link_missing.then_some(NO_RESET_LINK);
        Ok(Done::applied(PasswordReset { reset_password_url, link_missing, note }))
    }

    fn foresee(&self, okta: &mut Replay<'_>) -> Result<Forecast, Stop> {
        let user = resolve::user(&self.user_id, okta)?;
        Ok(foresee(okta, &user, &RESET)?.without(&[MASTERED, HAS_PASSWORD]))
    }
}

/// The note if Okta reset a password and gave no link.
const NO_RESET_LINK: &str =
    "the password is reset and Okta gave no link: run `reset_user_password` again for another one";

/// The step of a password reset, which leads to `RECOVERY`.
const RESET: Leading<'static> = Leading {
    verb: "reset the password of",
    refusal: "",
    from: &["ACTIVE", "PASSWORD_EXPIRED"],
    to: &["RECOVERY"],
    done: &[],
    refused: &["STAGED"],
    event: "user.account.reset_password",
};

/// Expires a password, optionally replacing it by a temporary one.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExpireUserPassword {
    /// The user's id or login.
    user_id: UserKey,
    /// Makes Okta set a temporary password, which only `reply_to` gets.
    #[serde(default, deserialize_with = "or_default")]
    #[schemars(with = "Option<bool>")]
    temp_password: bool,
    /// Signs the user out everywhere; needs `temp_password`.
    #[serde(default, deserialize_with = "or_default")]
    #[schemars(with = "Option<bool>")]
    revoke_sessions: bool,
}

impl Subtool for ExpireUserPassword {
    type Output = Expiry;
    const MANIFEST: Manifest = Manifest {
        name: "expire_user_password",
        kind: ToolKind::Credentials,
        scope: "okta.users.manage",
        summary: "Makes the user choose a new password at the next sign-in. With `temp_password: true` a \
                  temporary one replaces it and is in the result: a one-time secret, only for `reply_to`.",
        not_for: "Not for a forgotten password: use `reset_user_password`.",
        cost: Cost::one(Bucket::Users),
        returns: "the user, or only `temp_password` with `temp_password: true`",
        examples: &[
            r#"{"user_id":"jane@example.com"}"#,
            r#"{"user_id":"00u1abCdEfGhIjKlMnOp","temp_password":true,"revoke_sessions":true}"#,
        ],
    };

    fn repeat(&self) -> Idempotency {
        if self.temp_password { Idempotency::NonIdempotent } else { Idempotency::Transition }
    }

    fn mints_secret(&self) -> bool {
        self.temp_password
    }

    fn run(&self, okta: &mut Replay<'_>) -> Run<Expiry> {
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
            let write = Request::post(route, &[&user])
                .query_opt("revokeSessions", self.revoke_sessions.then_some(true));
            let look = |okta: &mut Replay<'_>, since| match emitted(okta, &user, &EXPIRY, since)? {
                Emitted::Not => Ok(None::<Temporary>),
                Emitted::Surely => Err(unknown(
                    "a temporary password was set, and it was lost with Okta's answer; ask for another",
                )),
            };
            let Temporary { temp_password } = match settle(okta, &write, look)? {
                Converged::Found(temporary) => temporary,
                Converged::Said(reply) => reply.read()?,
            };
            return Ok(Done::applied(Expiry::Temporary(temp_password)));
        }
        let write = Request::post("/api/v1/users/{userId}/lifecycle/expire_password", &[&user]);
        match step(okta, &user, &write, &EXPIRY)? {
            Led::Did(reply) => Ok(Done::applied(Expiry::User(reply.json()?))),
            Led::There(effect, Some(reply)) => Ok(Done { effect, output: Expiry::User(reply.json()?) }),
            Led::There(effect, None) => {
                let user = resolve::read(&user, okta)?.json()?; // as it is by now
                Ok(Done { effect, output: Expiry::User(user) })
            }
        }
    }

    fn foresee(&self, okta: &mut Replay<'_>) -> Result<Forecast, Stop> {
        let user = resolve::user(&self.user_id, okta)?;
        Ok(foresee(okta, &user, &EXPIRY)?.without(&[MASTERED, HAS_PASSWORD]))
    }
}

/// The step of a password expiry, which leads to `PASSWORD_EXPIRED`.
const EXPIRY: Leading<'static> = Leading {
    verb: "expire the password of",
    refusal: "E0000038",
    from: &["ACTIVE"],
    to: &["PASSWORD_EXPIRED"],
    done: &[],
    refused: &[],
    event: "user.account.expire_password",
};
