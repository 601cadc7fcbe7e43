//! The lifecycle of a user: one step from one status to another, or Okta's refusal.
//!
//! The table of statuses and steps follows Okta's documentation and recordings. If neither covers a case, the org
//! guesses, and a comment that begins with "Guess" says so.

use serde_json::json;

use super::call::{PasswordExpiry, RequestContext, Switch};
use super::effects::ChangeKind;
use super::org::Org;
use super::refusal::OktaRefusal;
use super::reply::{OrgReply, Stamp};
use super::users::{User, UserStatus};

impl Org {
    pub(super) fn activate_user(&mut self, asked: &RequestContext<'_>) -> Result<OrgReply, OktaRefusal> {
        let user = self.user_at(&asked.ids[0])?;
        match user.status {
            UserStatus::Staged | UserStatus::Deprovisioned => {}
            // Guess: the refusal is recorded only for an active user.
            UserStatus::Provisioned
            | UserStatus::Active
            | UserStatus::Recovery
            | UserStatus::PasswordExpired
            | UserStatus::LockedOut
            | UserStatus::Suspended => return Err(OktaRefusal::already_active()),
        }
        let mut user = user.clone();
        let ready = user.credentials.has_password || user.credentials.provider.is_some();
        user.activated = Some(Stamp::seconds(asked.now));
        let status = if ready { UserStatus::Active } else { UserStatus::Provisioned };
        self.step(asked, user.clone(), status, ChangeKind::UserActivated);
        Ok(self.send_activation(asked, &user, Switch::On))
    }

    pub(super) fn reactivate_user(&mut self, asked: &RequestContext<'_>) -> Result<OrgReply, OktaRefusal> {
        let user = self.user_at(&asked.ids[0])?;
        if !matches!(user.status, UserStatus::Provisioned | UserStatus::Recovery) {
            return Err(OktaRefusal::wrong_status());
        }
        let user = user.clone();
        self.happened_to_user(asked.cause, ChangeKind::UserReactivated, &user);
        Ok(self.send_activation(asked, &user, Switch::Off))
    }

    /// Mails the activation link, or returns it instead.
    fn send_activation(&mut self, asked: &RequestContext<'_>, user: &User, default: Switch) -> OrgReply {
        if asked.switch("sendEmail", default) == Switch::On {
            self.did(asked.cause, ChangeKind::MailActivation, user.id.to_string());
            return OrgReply::done();
        }
        self.did(asked.cause, ChangeKind::SecretMinted, user.id.to_string());
        let (host, token) = (&self.settings.host, self.ids.token());
        OrgReply::json(
            &json!({ "activationUrl": format!("{host}/tokens/{token}/verify"), "activationToken": token }),
        )
    }

    pub(super) fn deactivate_user(&mut self, asked: &RequestContext<'_>) -> Result<OrgReply, OktaRefusal> {
        let key = &asked.ids[0];
        let user = self.user_at(key)?;
        if user.status == UserStatus::Deprovisioned {
            return Err(OktaRefusal::missing(key, "User"));
        }
        let user = user.clone();
        self.retire(asked, user);
        Ok(OrgReply::done())
    }

    /// Deactivates on the first DELETE, and deletes on the second; both answer 204.
    pub(super) fn delete_user(&mut self, asked: &RequestContext<'_>) -> Result<OrgReply, OktaRefusal> {
        let user = self.user_at(&asked.ids[0])?.clone();
        if user.status != UserStatus::Deprovisioned {
            self.retire(asked, user);
            return Ok(OrgReply::empty());
        }
        self.happened_to_user(asked.cause, ChangeKind::UserDeleted, &user);
        self.users.remove(user.id, asked.now);
        for members in self.members.values_mut() {
            members.remove(user.id, asked.now);
        }
        self.everyone_changed(asked.now);
        self.mail_admin(asked);
        Ok(OrgReply::empty())
    }

    /// Deactivates a user: app assignments end, group memberships stay (Okta help, "Deactivate user accounts").
    fn retire(&mut self, asked: &RequestContext<'_>, user: User) {
        let id = user.id;
        self.step(asked, user, UserStatus::Deprovisioned, ChangeKind::UserDeactivated);
        for assignments in self.assignments.values_mut() {
            assignments.remove(id, asked.now);
        }
        self.mail_admin(asked);
    }

    /// Mails the administrator after deactivate or delete, if `sendEmail` is set.
    fn mail_admin(&mut self, asked: &RequestContext<'_>) {
        if asked.switch("sendEmail", Switch::Off) == Switch::On {
            self.did(asked.cause, ChangeKind::MailAdmin, self.admin.to_string());
        }
    }

    pub(super) fn suspend_user(&mut self, asked: &RequestContext<'_>) -> Result<OrgReply, OktaRefusal> {
        let user = self.user_at(&asked.ids[0])?;
        // Guess: users who are PROVISIONED, in RECOVERY or PASSWORD_EXPIRED have a `suspend` link (recorded); its
        // effect is not known.
        if user.status != UserStatus::Active {
            let cause = "Cannot suspend a user that is not active".to_owned();
            return Err(OktaRefusal::invalid("suspendUser", vec![cause]));
        }
        let user = User { before_suspension: user.status, ..user.clone() };
        self.step(asked, user, UserStatus::Suspended, ChangeKind::UserSuspended);
        Ok(OrgReply::done())
    }

    pub(super) fn unsuspend_user(&mut self, asked: &RequestContext<'_>) -> Result<OrgReply, OktaRefusal> {
        let user = self.user_at(&asked.ids[0])?;
        if user.status != UserStatus::Suspended {
            let cause = "Cannot unsuspend a user that is not suspended".to_owned();
            return Err(OktaRefusal::invalid("unsuspendUser", vec![cause]));
        }
        let (user, status) = (user.clone(), user.before_suspension);
        self.step(asked, user, status, ChangeKind::UserUnsuspended);
        Ok(OrgReply::done())
    }

    pub(super) fn unlock_user(&mut self, asked: &RequestContext<'_>) -> Result<OrgReply, OktaRefusal> {
        let user = self.user_at(&asked.ids[0])?;
        // Guess: the refusal is recorded only for an active user.
        if user.status != UserStatus::LockedOut {
            return Err(OktaRefusal::not_locked());
        }
        let user = user.clone();
        self.step(asked, user, UserStatus::Active, ChangeKind::UserUnlocked);
        Ok(OrgReply::done())
    }

    pub(super) fn reset_password(&mut self, asked: &RequestContext<'_>) -> Result<OrgReply, OktaRefusal> {
        let user = self.user_at(&asked.ids[0])?;
        let may = match user.status {
            // Guess: RECOVERY and LOCKED_OUT. The other two are recorded.
            UserStatus::Active
            | UserStatus::Recovery
            | UserStatus::PasswordExpired
            | UserStatus::LockedOut => user.credentials.has_password,
            // Guess: all but STAGED.
            UserStatus::Staged
            | UserStatus::Provisioned
            | UserStatus::Suspended
            | UserStatus::Deprovisioned => false,
        };
        if !may {
            return Err(OktaRefusal::reset_refused());
        }
        let user = user.clone();
        let id = user.id.to_string();
        self.step(asked, user, UserStatus::Recovery, ChangeKind::PasswordReset);
        if asked.switch("sendEmail", Switch::On) == Switch::On {
            self.did(asked.cause, ChangeKind::MailReset, id);
            return Ok(OrgReply::done());
        }
        self.did(asked.cause, ChangeKind::SecretMinted, id);
        let (host, token) = (&self.settings.host, self.ids.token());
        Ok(OrgReply::json(&json!({ "resetPasswordUrl": format!("{host}/reset_password/{token}") })))
    }

    pub(super) fn expire_password(
        &mut self,
        asked: &RequestContext<'_>,
        expiry: PasswordExpiry,
    ) -> Result<OrgReply, OktaRefusal> {
        let user = self.user_at(&asked.ids[0])?;
        let may = match user.status {
            // Guess: PASSWORD_EXPIRED, and RECOVERY without a temporary password. The rest is recorded.
            UserStatus::Active | UserStatus::Recovery | UserStatus::PasswordExpired => {
                user.credentials.has_password
            }
            // Guess: all of them.
            UserStatus::Staged
            | UserStatus::Provisioned
            | UserStatus::LockedOut
            | UserStatus::Suspended
            | UserStatus::Deprovisioned => false,
        };
        if !may {
            return Err(OktaRefusal::wrong_status());
        }
        let temporary =
            expiry == PasswordExpiry::Temporary || asked.switch("tempPassword", Switch::Off) == Switch::On;
        let mut user = user.clone();
        if temporary {
            user.password_changed = Some(Stamp::seconds(asked.now));
        }
        let (id, already) = (user.id, user.status == UserStatus::PasswordExpired);
        if !already || temporary {
            self.step(asked, user, UserStatus::PasswordExpired, ChangeKind::PasswordExpired);
        }
        if temporary {
            self.did(asked.cause, ChangeKind::SecretMinted, id.to_string());
            return Ok(OrgReply::json(&json!({ "tempPassword": self.ids.password() })));
        }
        let user = self.users.get(id).expect("the user was there a moment ago");
        Ok(self.show_user(user))
    }

    /// Sets a user's status.
    fn step(&mut self, asked: &RequestContext<'_>, mut user: User, status: UserStatus, change: ChangeKind) {
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
