//! Changes to an org without a request: by an administrator in the console, or by a user at the sign-in.
//!
//! Tests and the seed use them. Each change enters the log and the ledger like any other, with a request id that
//! belongs to no request.

use serde_json::{Map, Value};

use super::app::{App, NewApp};
use super::assignment::GroupAssignment;
use super::call::Cause;
use super::effects::ChangeKind;
use super::group::{Group, GroupKind};
use super::ids::Id;
use super::org::Org;
use super::profile::Profile;
use super::reply::Stamp;
use super::settings::ProofDemand;
use super::users::UserStatus;

/// The request id of changes that no request made.
const BY_HAND: &str = "00000000000000000000000000000000";

impl Org {
    fn by_hand(&self) -> Cause<'static> {
        Cause { now: self.now, request_id: BY_HAND, path: "/admin" }
    }

    /// Creates an active bookmark app.
    pub fn create_app(&mut self, label: &str) -> Id {
        self.create_app_from(NewApp::bookmark(label))
    }

    /// Creates an active app.
    pub fn create_app_from(&mut self, new: NewApp) -> Id {
        let id = self.ids.mint("0oa");
        let now = Stamp::seconds(self.now);
        let app = App::new(id, new, now);
        self.happened(self.by_hand(), ChangeKind::AppCreated, id.to_string(), vec![app.target()]);
        self.apps.put(id, app, self.now);
        id
    }

    /// Activates an app; returns false if it does not exist.
    pub fn activate_app(&mut self, app: Id) -> bool {
        self.turn_app(app, true, self.by_hand())
    }

    /// Deactivates an app; returns false if it does not exist.
    pub fn deactivate_app(&mut self, app: Id) -> bool {
        self.turn_app(app, false, self.by_hand())
    }

    pub(super) fn turn_app(&mut self, app: Id, is_active: bool, cause: Cause<'_>) -> bool {
        let (now, change) = match is_active {
            true => (self.now, ChangeKind::AppActivated),
            false => (self.now, ChangeKind::AppDeactivated),
        };
        let Some(turned) = self.apps.edit(app, now) else { return false };
        turned.is_active = is_active;
        turned.last_updated = Stamp::seconds(now);
        let target = turned.target();
        self.happened(cause, change, app.to_string(), vec![target]);
        true
    }

    /// Deletes an app that is not active; returns false if there is none.
    pub fn delete_app(&mut self, app: Id) -> bool {
        let Some(target) = self.apps.get(app).filter(|app| !app.is_active).map(App::target) else {
            return false;
        };
        self.apps.remove(app, self.now);
        self.assignments.remove(&app);
        self.happened(self.by_hand(), ChangeKind::AppDeleted, app.to_string(), vec![target]);
        true
    }

    /// Assigns an app to the members of a group; returns false if either does not exist.
    pub fn assign_group_to_app(&mut self, app: Id, group: Id) -> bool {
        self.grant(app, group, ChangeKind::GroupAssigned)
    }

    /// Ends that assignment; returns false if either does not exist.
    pub fn unassign_group_from_app(&mut self, app: Id, group: Id) -> bool {
        self.grant(app, group, ChangeKind::GroupUnassigned)
    }

    fn grant(&mut self, app: Id, group: Id, change: ChangeKind) -> bool {
        let now = self.now;
        let Some(group_target) = self.groups.get(group).map(Group::target) else {
            return false;
        };
        let Some(granted) = self.apps.edit(app, now) else { return false };
        if change == ChangeKind::GroupAssigned {
            let priority = u32::try_from(granted.groups.len()).unwrap_or(u32::MAX);
            let assignment = GroupAssignment { since: Stamp::seconds(now), priority, profile: Map::new() };
            granted.groups.insert(group, assignment);
        } else {
            granted.groups.remove(&group);
        }
        let targets = vec![group_target, granted.target()];
        self.happened(self.by_hand(), change, format!("{app}/{group}"), targets);
        true
    }

    /// Creates a group as imported from a directory: an APP_GROUP.
    pub fn import_group(&mut self, name: &str) -> Id {
        self.found_group(self.by_hand(), GroupKind::App, group_profile(name, "Imported from a directory"))
    }

    /// Adds a user to a group of any kind.
    pub fn import_member(&mut self, group: Id, user: Id) {
        self.join(self.by_hand(), group, user);
    }

    /// Locks a user out, as too many wrong passwords do; returns false if the user does not exist.
    pub fn lock_out(&mut self, user: Id) -> bool {
        self.set_status(user, UserStatus::LockedOut)
    }

    /// Sets a user's status regardless of the lifecycle; returns false if the user does not exist.
    pub fn set_status(&mut self, user: Id, status: UserStatus) -> bool {
        let Some(mut user) = self.users.get(user).cloned() else { return false };
        if status == UserStatus::Suspended {
            user.before_suspension = user.status;
        }
        user.status = status;
        user.status_changed = Some(Stamp::seconds(self.now));
        user.revision += 1;
        self.users.change(user, self.now);
        true
    }

    /// Revokes every token of the service apps.
    pub fn revoke_tokens(&mut self) {
        self.authorizations.revoke(self.now);
    }

    /// Demands another proof of possession from now on, as an administrator does by a tick at the app.
    pub fn demand_proof(&mut self, proof: ProofDemand) {
        self.settings.proof = proof;
    }

    /// Returns the status of a user.
    pub fn status_of(&self, user: Id) -> Option<UserStatus> {
        Some(self.users.get(user)?.status)
    }

    /// Returns the id of a user by login, short name or id.
    pub fn user_id(&self, key: &str) -> Option<Id> {
        Some(self.users.find(key)?.id)
    }

    /// Returns the first group of that name.
    pub fn group_id(&self, name: &str) -> Option<Id> {
        self.groups.iter().find(|(_, group)| group.name() == name).map(|(id, _)| id)
    }

    /// Returns the first app with that label.
    pub fn app_id(&self, label: &str) -> Option<Id> {
        self.apps.iter().find(|(_, app)| app.made_from.label == label).map(|(id, _)| id)
    }

    /// Returns the group that all users are in.
    pub fn everyone(&self) -> Id {
        self.everyone
    }

    /// Returns the administrator whose credential every caller uses.
    pub fn admin(&self) -> Id {
        self.admin
    }
}

/// Builds the profile of a group.
pub(super) fn group_profile(name: &str, description: &str) -> Profile {
    let mut profile = Map::new();
    profile.insert("name".to_owned(), Value::from(name));
    profile.insert("description".to_owned(), Value::from(description));
    profile
}
