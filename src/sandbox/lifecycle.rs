//! The lifecycle of a user: one step from one status to another, or Okta's refusal.
//!
//! The table of statuses and steps follows Okta's documentation and recordings. If neither covers a case, the org
//! guesses, and a comment that begins with "Guess" says so.

use serde_json::json;

use super::call::{Asked, Switch};
use super::effects::Change;
use super::org::Org;
use super::refusal::Refusal;
use super::reply::{Reply, Stamp};
use super::users::{Status, User};

/// The kind of password expiry: without or with a temporary password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expiry {
    Plain,
    Temporary,
}

impl Org {
    pub(super) fn activate_user(&mut self, asked: &Asked<'_>) -> Result<Reply, Refusal> {
        let user = self.user_at(&asked.ids[0])?;
        match user.status {
            Status::Staged | Status::Deprovisioned => {}
            // Guess: the refusal is recorded only for an active user.
            Status::Provisioned
            | Status::Active
            | Status::Recovery
            | Status::PasswordExpired
            | Status::LockedOut
            | Status::Suspended => return Err(Refusal::already_active()),
        }
        let mut user = user.clone();
        let ready = user.credentials.has_password || user.credentials.provider.is_some();
        user.activated = Some(Stamp::seconds(asked.now));
        let status = if ready { Status::Active } else { Status::Provisioned };
        self.step(asked, user.clone(), status, Change::UserActivated);
        Ok(self.send_activation(asked, &user, Switch::On))
    }

    pub(super) fn reactivate_user(&mut self, asked: &Asked<'_>) -> Result<Reply, Refusal> {
        let user = self.user_at(&asked.ids[0])?;
        if !matches!(user.status, Status::Provisioned | Status::Recovery) {
            return Err(Refusal::wrong_status());
        }
        let user = user.clone();
        self.happened_to_user(asked.cause, Change::UserReactivated, &user);
        Ok(self.send_activation(asked, &user, Switch::Off))
    }

    /// Mails the activation link, or returns it instead.
    fn send_activation(&mut self, asked: &Asked<'_>, user: &User, default: Switch) -> Reply {
        if asked.switch("sendEmail", default) == Switch::On {
            self.did(asked.cause, Change::MailActivation, user.id.to_string());
            return Reply::done();
        }
        self.did(asked.cause, Change::SecretMinted, user.id.to_string());
        let (host, token) = (&self.settings.host, self.ids.token());
        Reply::json(
            &json!({ "activationUrl": format!("{host}/tokens/{token}/verify"), "activationToken": token }),
        )
    }

    pub(super) fn deactivate_user(&mut self, asked: &Asked<'_>) -> Result<Reply, Refusal> {
        let key = &asked.ids[0];
        let user = self.user_at(key)?;
        if user.status == Status::Deprovisioned {
            return Err(Refusal::missing(key, "User"));
        }
        let user = user.clone();
        self.retire(asked, user);
        Ok(Reply::done())
    }

    /// Deactivates on the first DELETE, and deletes on the second; both answer 204.
    pub(super) fn delete_user(&mut self, asked: &Asked<'_>) -> Result<Reply, Refusal> {
        let user = self.user_at(&asked.ids[0])?.clone();
        if user.status != Status::Deprovisioned {
            self.retire(asked, user);
            return Ok(Reply::empty());
        }
        self.happened_to_user(asked.cause, Change::UserDeleted, &user);
        self.users.remove(user.id, asked.now);
        for members in self.members.values_mut() {
            members.remove(user.id, asked.now);
        }
        self.everyone_changed(asked.now);
        self.mail_admin(asked);
        Ok(Reply::empty())
    }

    /// Deactivates a user: app assignments end, group memberships stay (Okta help, "Deactivate user accounts").
    fn retire(&mut self, asked: &Asked<'_>, user: User) {
        let id = user.id;
        self.step(asked, user, Status::Deprovisioned, Change::UserDeactivated);
        for assignments in self.assignments.values_mut() {
            assignments.remove(id, asked.now);
        }
        self.mail_admin(asked);
    }

    /// Mails the administrator after deactivate or delete, if `sendEmail` is set.
    fn mail_admin(&mut self, asked: &Asked<'_>) {
        if asked.switch("sendEmail", Switch::Off) == Switch::On {
            self.did(asked.cause, Change::MailAdmin, self.admin.to_string());
        }
    }

    pub(super) fn suspend_user(&mut self, asked: &Asked<'_>) -> Result<Reply, Refusal> {
        let user = self.user_at(&asked.ids[0])?;
        // Guess: users who are PROVISIONED, in RECOVERY or PASSWORD_EXPIRED have a `suspend` link (recorded); its
        // effect is not known.
        if user.status != Status::Active {
            let cause = "Cannot suspend a user that is not active".to_owned();
            return Err(Refusal::invalid("suspendUser", vec![cause]));
        }
        let user = User { before_suspension: user.status, ..user.clone() };
        self.step(asked, user, Status::Suspended, Change::UserSuspended);
        Ok(Reply::done())
    }

    pub(super) fn unsuspend_user(&mut self, asked: &Asked<'_>) -> Result<Reply, Refusal> {
        let user = self.user_at(&asked.ids[0])?;
        if user.status != Status::Suspended {
            let cause = "Cannot unsuspend a user that is not suspended".to_owned();
            return Err(Refusal::invalid("unsuspendUser", vec![cause]));
        }
        let (user, status) = (user.clone(), user.before_suspension);
        self.step(asked, user, status, Change::UserUnsuspended);
        Ok(Reply::done())
    }

    pub(super) fn unlock_user(&mut self, asked: &Asked<'_>) -> Result<Reply, Refusal> {
        let user = self.user_at(&asked.ids[0])?;
        // Guess: the refusal is recorded only for an active user.
        if user.status != Status::LockedOut {
            return Err(Refusal::not_locked());
        }
        let user = user.clone();
        self.step(asked, user, Status::Active, Change::UserUnlocked);
        Ok(Reply::done())
    }

    pub(super) fn reset_password(&mut self, asked: &Asked<'_>) -> Result<Reply, Refusal> {
        let user = self.user_at(&asked.ids[0])?;
        let may = match user.status {
            // Guess: RECOVERY and LOCKED_OUT. The other two are recorded.
            Status::Active | Status::Recovery | Status::PasswordExpired | Status::LockedOut => {
                user.credentials.has_password
            }
            // Guess: all but STAGED.
            Status::Staged | Status::Provisioned | Status::Suspended | Status::Deprovisioned => false,
        };
        if !may {
            return Err(Refusal::reset_refused());
        }
        let user = user.clone();
        let id = user.id.to_string();
        self.step(asked, user, Status::Recovery, Change::PasswordReset);
        if asked.switch("sendEmail", Switch::On) == Switch::On {
            self.did(asked.cause, Change::MailReset, id);
            return Ok(Reply::done());
        }
        self.did(asked.cause, Change::SecretMinted, id);
        let (host, token) = (&self.settings.host, self.ids.token());
        Ok(Reply::json(&json!({ "resetPasswordUrl": format!("{host}/reset_password/{token}") })))
    }

    pub(super) fn expire_password(&mut self, asked: &Asked<'_>, expiry: Expiry) -> Result<Reply, Refusal> {
        let user = self.user_at(&asked.ids[0])?;
        let may = match user.status {
            // Guess: PASSWORD_EXPIRED, and RECOVERY without a temporary password. The rest is recorded.
            Status::Active | Status::Recovery | Status::PasswordExpired => user.credentials.has_password,
            // Guess: all of them.
            Status::Staged
            | Status::Provisioned
            | Status::LockedOut
            | Status::Suspended
            | Status::Deprovisioned => false,
        };
        if !may {
            return Err(Refusal::wrong_status());
        }
        let temporary =
            expiry == Expiry::Temporary || asked.switch("tempPassword", Switch::Off) == Switch::On;
        let mut user = user.clone();
        if temporary {
            user.password_changed = Some(Stamp::seconds(asked.now));
        }
        let (id, already) = (user.id, user.status == Status::PasswordExpired);
        if !already || temporary {
            self.step(asked, user, Status::PasswordExpired, Change::PasswordExpired);
        }
        if temporary {
            self.did(asked.cause, Change::SecretMinted, id.to_string());
            return Ok(Reply::json(&json!({ "tempPassword": self.ids.password() })));
        }
        let user = self.users.get(id).expect("the user was there a moment ago");
        Ok(self.show_user(user))
    }

    /// Sets a user's status.
    fn step(&mut self, asked: &Asked<'_>, mut user: User, status: Status, change: Change) {
        let now = Stamp::seconds(asked.now);
        if user.status != status {
            user.status_changed = Some(now);
        }
        user.status = status;
        user.last_updated = now;
        user.revision += 1;
        self.happened_to_user(asked.cause, change, &user);
        self.users.change(user, asked.now);
    }
}
