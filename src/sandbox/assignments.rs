//! App assignments: the users of each app, directly or through a group.
//!
//! A direct assignment (scope USER) hides one through a group. Only the former can be removed from a user; the latter
//! ends with the membership.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::app::{App, logo};
use super::assignment::DirectAssignment;
use super::call::RequestContext;
use super::effects::ChangeKind;
use super::ids::Id;
use super::org::Org;
use super::pages::{self, Links, NextPage, Sizes};
use super::profile;
use super::refusal::OktaRefusal;
use super::reply::{OrgReply, Stamp};
use super::users::{User, UserForm, UserStatus};

const APP_USERS: Sizes = Sizes { default: 50, max: 500 };

/// A user's access to an app.
#[derive(Debug)]
pub(super) struct AppAccess<'a> {
    user: &'a User,
    way: AssignedBy<'a>,
}

#[derive(Debug)]
enum AssignedBy<'a> {
    Own(&'a DirectAssignment),
    /// Through this group, since this time.
    Group(Id, Stamp),
}

impl AppAccess<'_> {
    /// Returns the assignment as the JSON of an answer.
    pub(super) fn view(&self, app: Id, host: &str) -> Value {
        let user = self.user.id;
        let mut links = json!({
            "app": { "href": format!("{host}/api/v1/apps/{app}") },
            "user": { "href": format!("{host}/api/v1/users/{user}") },
        });
        let (scope, created, last_updated, user_name, profile) = match &self.way {
            AssignedBy::Own(own) => (
                "USER",
                own.created,
                own.last_updated,
                own.user_name.as_str(),
                Value::Object(own.profile.clone()),
            ),
            AssignedBy::Group(group, since) => {
                links["group"] = json!({ "href": format!("{host}/api/v1/groups/{group}") });
                ("GROUP", *since, *since, self.user.text("login"), json!({}))
            }
        };
        json!({
            "id": user,
            "externalId": null,
            "created": created,
            "lastUpdated": last_updated,
            "scope": scope,
            "status": "ACTIVE",
            "statusChanged": created,
            "passwordChanged": null,
            "syncState": "DISABLED",
            "credentials": { "userName": user_name },
            "profile": profile,
            "_links": links,
        })
    }

    fn names_start_with(&self, start: &str) -> bool {
        let user_name = match &self.way {
            AssignedBy::Own(own) => own.user_name.as_str(),
            AssignedBy::Group(..) => self.user.text("login"),
        };
        [user_name, self.user.text("firstName"), self.user.text("lastName"), self.user.text("email")]
            .iter()
            .any(|text| text.to_lowercase().starts_with(start))
    }
}

impl Org {
    /// Returns a user's access to an app, as the index sees it.
    pub(super) fn access<'a>(&'a self, app: &App, user: Id, now: Timestamp) -> Option<AppAccess<'a>> {
        let own = self.assignments.get(&app.id).and_then(|own| own.seen_one(user, now));
        let way = match own {
            Some(own) => AssignedBy::Own(own),
            None => app
                .groups
                .iter()
                .find(|(group, _)| self.is_member(**group, user, now))
                .map(|(group, grant)| AssignedBy::Group(*group, grant.since))?,
        };
        Some(AppAccess { user: self.users.index().seen_one(user, now)?, way })
    }

    /// Returns true if a user benefits from a group. A deactivated user stays in it, but does not (Okta help).
    fn is_member(&self, group: Id, user: Id, now: Timestamp) -> bool {
        let there = self.users.index().seen_one(user, now);
        there.is_some_and(|user| user.status != UserStatus::Deprovisioned)
            && (group == self.everyone
                || self.members.get(&group).is_some_and(|members| members.seen_one(user, now).is_some()))
    }

    /// Returns all users of an app, in the order of their ids.
    fn app_users<'a>(
        &'a self,
        app: &App,
        after: Option<Id>,
        now: Timestamp,
    ) -> Box<dyn Iterator<Item = Id> + 'a> {
        if app.groups.contains_key(&self.everyone) {
            return Box::new(self.users.index().seen(after, now).map(|(user, _)| user));
        }
        let own = self.assignments.get(&app.id).into_iter().flat_map(move |own| own.seen(after, now));
        let own = own.map(|(user, _)| user);
        if app.groups.is_empty() {
            return Box::new(own);
        }
        let mut users: BTreeSet<Id> = own.collect();
        for members in app.groups.keys().filter_map(|group| self.members.get(group)) {
            users.extend(members.seen(after, now).map(|(user, ())| user));
        }
        Box::new(users.into_iter())
    }

    pub(super) fn list_app_users(&self, asked: &RequestContext<'_>) -> Result<OrgReply, OktaRefusal> {
        let app = self.app_at(&asked.ids[0])?;
        let limit = pages::limit(asked, APP_USERS)?;
        let start = asked.query("q").map(str::to_lowercase);
        let found = self
            .app_users(app, pages::after(asked)?, asked.now)
            .filter_map(|user| self.access(app, user, asked.now))
            .filter(|access| start.as_ref().is_none_or(|start| access.names_start_with(start)));
        let (page, rest) = pages::cut(found, limit);
        let next = page.last().filter(|_| rest == NextPage::More).map(|access| access.user.id.to_string());
        let host = &self.settings.host;
        let embeds = asked.query("expand") == Some("user");
        let views: Vec<Value> = page
            .iter()
            .map(|access| {
                let mut view = access.view(app.id, host);
                if embeds {
                    view["_embedded"] = json!({ "user": self.view(access.user, UserForm::Whole) });
                }
                view
            })
            .collect();
        let path = format!("/api/v1/apps/{}/users", app.id);
        // Okta omitted `expand` here until release 2026.08.0 (okta-sdk-nodejs issue 439).
        let links = Links { host, path: &path, limit, kept: &["q"] };
        Ok(links.write(OrgReply::json(&views), asked, next.as_deref()))
    }

    pub(super) fn get_app_user(&self, asked: &RequestContext<'_>) -> Result<OrgReply, OktaRefusal> {
        let app = self.app_at(&asked.ids[0])?;
        let user = self.user_by_id(&asked.ids[1])?;
        let access = self.access_now(app, user).ok_or_else(|| not_assigned(app.id, user.id))?;
        let mut view = access.view(app.id, &self.settings.host);
        if asked.query("expand") == Some("user") {
            view["_embedded"] = json!({ "user": self.view(user, UserForm::Whole) });
        }
        Ok(OrgReply::json(&view))
    }

    /// Returns a user's access to an app, at this instant.
    fn access_now<'a>(&'a self, app: &App, user: &'a User) -> Option<AppAccess<'a>> {
        let way = match self.assignments.get(&app.id).and_then(|own| own.get(user.id)) {
            Some(own) => AssignedBy::Own(own),
            None if user.status == UserStatus::Deprovisioned => return None,
            None => app
                .groups
                .iter()
                .find(|(group, _)| {
                    **group == self.everyone
                        || self.members.get(group).is_some_and(|members| members.get(user.id).is_some())
                })
                .map(|(group, grant)| AssignedBy::Group(*group, grant.since))?,
        };
        Some(AppAccess { user, way })
    }

    /// Handles POST to the list: the body names the user.
    pub(super) fn assign(&mut self, asked: &RequestContext<'_>) -> Result<OrgReply, OktaRefusal> {
        let app = self.active_app(&asked.ids[0])?;
        let body = asked.object(&["id", "credentials", "profile", "scope"])?;
        let user = body.get("id").and_then(Value::as_str).unwrap_or_default();
        let user = self.user_by_id(user)?.id;
        self.put_assignment(asked, app, user, &body)
    }

    /// Handles POST to one user's assignment: the path names the user.
    pub(super) fn update_app_user(&mut self, asked: &RequestContext<'_>) -> Result<OrgReply, OktaRefusal> {
        let app = self.active_app(&asked.ids[0])?;
        let body = asked.object(&["id", "credentials", "profile", "scope"])?;
        let user = self.user_by_id(&asked.ids[1])?.id;
        self.put_assignment(asked, app, user, &body)
    }

    /// Creates or updates an assignment. An update keeps `created` and has a newer `lastUpdated` (recorded).
    fn put_assignment(
        &mut self,
        asked: &RequestContext<'_>,
        app: Id,
        user: Id,
        body: &Map<String, Value>,
    ) -> Result<OrgReply, OktaRefusal> {
        let of = self.apps.get(app).expect("the app was there a moment ago");
        let who = self.users.get(user).expect("the user was there a moment ago");
        // Guess: Okta's catalogue lists E0000117 for this case, and there is no recording.
        if who.status == UserStatus::Deprovisioned {
            return Err(OktaRefusal::inactive_user());
        }
        let wanted = body.get("profile").and_then(Value::as_object);
        if let Some(name) = wanted.and_then(|profile| {
            profile.iter().find(|(name, value)| !value.is_null() && !of.made_from.attributes.contains(*name))
        }) {
            return Err(OktaRefusal::invalid("assignment", vec![format!("Property '{}' not found", name.0)]));
        }
        let credentials = body.get("credentials");
        let user_name = credentials.and_then(|given| given.get("userName")?.as_str());
        let sets_password = credentials
            .is_some_and(|given| given.get("password").and_then(|password| password.get("value")).is_some());
        let now = Stamp::seconds(asked.now);
        let former = self.assignments.get(&app).and_then(|own| own.get(user));
        let mut next = former.cloned().unwrap_or_else(|| DirectAssignment {
            created: now,
            last_updated: now,
            user_name: who.text("login").to_owned(),
            has_password: false,
            profile: Map::new(),
        });
        next.last_updated = now;
        next.has_password |= sets_password;
        if let Some(user_name) = user_name {
            next.user_name = user_name.to_owned();
        }
        if let Some(wanted) = wanted {
            profile::merge(&mut next.profile, wanted.clone());
        }
        let change = match former {
            None => Some(ChangeKind::AppAssigned),
            Some(former) => {
                (sets_password || former.user_name != next.user_name || former.profile != next.profile)
                    .then_some(ChangeKind::AppAssignmentUpdated)
            }
        };
        let targets = vec![self.user_target(user), of.target()];
        self.assignments_of(app).put(user, next, asked.now);
        if let Some(change) = change {
            self.happened(asked.cause, change, format!("{app}/{user}"), targets);
        }
        let own = self.assignments.get(&app).and_then(|own| own.get(user)).expect("it was just put there");
        let access =
            AppAccess { user: self.users.get(user).expect("it is still there"), way: AssignedBy::Own(own) };
        Ok(OrgReply::json(&access.view(app, &self.settings.host)))
    }

    pub(super) fn unassign(&mut self, asked: &RequestContext<'_>) -> Result<OrgReply, OktaRefusal> {
        let app = self.app_at(&asked.ids[0])?;
        let user = self.user_by_id(&asked.ids[1])?;
        let by_group = match self.access_now(app, user).map(|access| access.way) {
            None => return Err(not_assigned(app.id, user.id)),
            Some(AssignedBy::Group(..)) => true,
            Some(AssignedBy::Own(_)) => false,
        };
        if by_group {
            return Err(OktaRefusal::granted_by_group());
        }
        let (app, user, targets) = (app.id, user.id, vec![self.user_target(user.id), app.target()]);
        self.assignments_of(app).remove(user, asked.now);
        self.happened(asked.cause, ChangeKind::AppUnassigned, format!("{app}/{user}"), targets);
        if asked.switch("sendEmail", super::call::Switch::Off) == super::call::Switch::On {
            self.did(asked.cause, ChangeKind::MailAdmin, self.admin.to_string());
        }
        Ok(OrgReply::empty())
    }

    /// Returns an app that can be assigned: an inactive one is reported as missing.
    pub(super) fn active_app(&self, key: &str) -> Result<Id, OktaRefusal> {
        let app = self.app_at(key)?;
        if app.is_active { Ok(app.id) } else { Err(OktaRefusal::missing(key, "AppInstance")) }
    }

    /// Returns a user by id only: assignments take no logins.
    fn user_by_id(&self, key: &str) -> Result<&User, OktaRefusal> {
        Id::parse(key).and_then(|id| self.users.get(id)).ok_or_else(|| OktaRefusal::missing(key, "User"))
    }

    /// Lists the dashboard of a user: one link for each app that the user may use. Not paged.
    pub(super) fn app_links(&self, asked: &RequestContext<'_>) -> Result<OrgReply, OktaRefusal> {
        let user = self.user_at(&asked.ids[0])?;
        let host = &self.settings.host;
        let links: Vec<Value> = self
            .apps
            .seen(None, asked.now)
            .filter(|(_, app)| app.is_active && self.access(app, user.id, asked.now).is_some())
            .enumerate()
            .map(|(at, (id, app))| {
                json!({
                    "id": format!("00ub{}", &user.id.as_str()[4..]),
                    "label": app.made_from.label,
                    "linkUrl": app.link(host),
                    "logoUrl": logo(host),
                    "appName": app.made_from.name,
                    "appInstanceId": id,
                    "appAssignmentId": format!("0ua{}", &user.id.as_str()[3..]),
                    "credentialsSetup": false,
                    "hidden": false,
                    "sortOrder": at,
                })
            })
            .collect();
        Ok(OrgReply::json(&links))
    }
}

/// Builds the refusal, whose recorded text concatenates both ids.
fn not_assigned(app: Id, user: Id) -> OktaRefusal {
    OktaRefusal::missing(&format!("{user}{app}"), "AppUser")
}
