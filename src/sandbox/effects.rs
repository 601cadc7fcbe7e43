//! The ledger of effects, in order, which tests of retries read.
//!
//! A request that changes nothing leaves no trace here, whatever its answer was.

use jiff::Timestamp;
use serde::Serialize;

/// One effect of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RecordedEffect {
    /// The time of the effect.
    pub at: Timestamp,
    /// The `X-Okta-Request-Id` of the request that caused it.
    pub request_id: String,
    /// The kind of effect, such as `user.created`.
    pub kind: &'static str,
    /// The id of the changed object; for a membership or an assignment `<group or app>/<user>`.
    pub subject: String,
}

/// The changes that the org can make, with their names in the ledger and in the System Log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ChangeKind {
    UserCreated,
    UserUpdated,
    PasswordSet,
    UserActivated,
    UserReactivated,
    UserDeactivated,
    UserSuspended,
    UserUnsuspended,
    UserUnlocked,
    UserDeleted,
    PasswordReset,
    PasswordExpired,
    MailActivation,
    MailReset,
    MailAdmin,
    SecretMinted,
    GroupCreated,
    GroupUpdated,
    GroupDeleted,
    MemberAdded,
    MemberRemoved,
    AppAssigned,
    AppAssignmentUpdated,
    AppUnassigned,
    AppCreated,
    AppUpdated,
    AppActivated,
    AppDeactivated,
    AppDeleted,
    GroupAssigned,
    GroupAssignmentUpdated,
    GroupUnassigned,
    FactorsReset,
    SessionsCleared,
}

impl ChangeKind {
    /// Returns the name of the change in the ledger.
    pub(super) fn effect(self) -> &'static str {
        self.words().0
    }

    /// Returns `eventType` and `displayMessage` of its log event; mails and secrets have none.
    pub(super) fn event(self) -> Option<(&'static str, &'static str)> {
        let (_, kind, message) = self.words();
        (!kind.is_empty()).then_some((kind, message))
    }

    fn words(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::UserCreated => ("user.created", "user.lifecycle.create", "Create Okta user"),
            Self::UserUpdated => {
                ("user.updated", "user.account.update_profile", "Update user profile for Okta")
            }
            Self::PasswordSet => {
                ("user.password_set", "user.account.update_password", "User update password for Okta")
            }
            Self::UserActivated => ("user.activated", "user.lifecycle.activate", "Activate Okta user"),
            Self::UserReactivated => {
                ("user.reactivated", "user.lifecycle.reactivate", "Reactivate Okta user")
            }
            Self::UserDeactivated => {
                ("user.deactivated", "user.lifecycle.deactivate", "Deactivate Okta user")
            }
            Self::UserSuspended => ("user.suspended", "user.lifecycle.suspend", "Suspend Okta user"),
            Self::UserUnsuspended => ("user.unsuspended", "user.lifecycle.unsuspend", "Unsuspend Okta user"),
            Self::UserUnlocked => ("user.unlocked", "user.account.unlock_by_admin", "Unlock user account"),
            Self::UserDeleted => ("user.deleted", "user.lifecycle.delete.initiated", "Delete Okta user"),
            Self::PasswordReset => (
                "user.password_reset",
                "user.account.reset_password",
                "Fired when the user's Okta password is reset",
            ),
            Self::PasswordExpired => {
                ("user.password_expired", "user.account.expire_password", "Expire Okta user password")
            }
            Self::MailActivation => ("mail.activation", "", ""),
            Self::MailReset => ("mail.password_reset", "", ""),
            Self::MailAdmin => ("mail.admin", "", ""),
            Self::SecretMinted => ("secret.minted", "", ""),
            Self::GroupCreated => ("group.created", "group.lifecycle.create", "Create Okta group"),
            Self::GroupUpdated => ("group.updated", "group.profile.update", "Update Okta group"),
            Self::GroupDeleted => ("group.deleted", "group.lifecycle.delete", "Delete Okta group"),
            Self::MemberAdded => {
                ("member.added", "group.user_membership.add", "Add user to group membership")
            }
            Self::MemberRemoved => {
                ("member.removed", "group.user_membership.remove", "Remove user from group membership")
            }
            Self::AppAssigned => {
                ("app.assigned", "application.user_membership.add", "Add user to application membership")
            }
            Self::AppAssignmentUpdated => (
                "app.assignment_updated",
                "application.user_membership.update",
                "Update user's application membership",
            ),
            Self::AppUnassigned => (
                "app.unassigned",
                "application.user_membership.remove",
                "Remove user's application membership",
            ),
            Self::AppUpdated => ("app.updated", "application.lifecycle.update", "Update application"),
            Self::AppCreated => ("app.created", "application.lifecycle.create", "Create application"),
            Self::AppActivated => ("app.activated", "application.lifecycle.activate", "Activate application"),
            Self::AppDeactivated => {
                ("app.deactivated", "application.lifecycle.deactivate", "Deactivate application")
            }
            Self::AppDeleted => ("app.deleted", "application.lifecycle.delete", "Delete application"),
            Self::GroupAssigned => (
                "app.group_assigned",
                "group.application_assignment.add",
                "Add assigned application to group",
            ),
            Self::GroupAssignmentUpdated => (
                "app.group_assignment_updated",
                "group.application_assignment.update",
                "Update assigned application of group",
            ),
            Self::FactorsReset => {
                ("user.factors_reset", "user.mfa.factor.reset_all", "Reset all factors for user")
            }
            Self::SessionsCleared => ("user.sessions_cleared", "user.session.clear", "Clear user session"),
            Self::GroupUnassigned => (
                "app.group_unassigned",
                "group.application_assignment.remove",
                "Remove assigned application from group",
            ),
        }
    }
}
