//! The groups of apps: assign, remove, list.
//!
//! Recorded: the JSON of an assignment, its list, and the refusal to remove one that does not exist.

use serde_json::{Map, Value, json};

use super::assignment::GroupAssignment;
use super::call::RequestContext;
use super::effects::ChangeKind;
use super::group::GroupView;
use super::ids::Id;
use super::org::Org;
use super::pages::{self, Links, NextPage, Sizes};
use super::refusal::OktaRefusal;
use super::reply::{OrgReply, Stamp};

const APP_GROUPS: Sizes = Sizes { default: 20, max: 200 };
const GROUP_APPS: Sizes = Sizes { default: 20, max: 200 };

/// The smallest page of an app's groups ("List application group assignments").
const APP_GROUPS_MIN: usize = 20;

impl Org {
    pub(super) fn list_app_groups(&self, asked: &RequestContext<'_>) -> Result<OrgReply, OktaRefusal> {
        let app = self.app_at(&asked.ids[0])?;
        // Guess: a smaller page than the smallest is that one.
        let limit = pages::limit(asked, APP_GROUPS)?.max(APP_GROUPS_MIN);
        let start = asked.query("q").map(str::to_lowercase);
        let mut all: Vec<_> = app.groups.iter().collect();
        all.sort_by_key(|(id, assignment)| (assignment.priority, **id));
        let after = pages::after(asked)?;
        let past =
            after.and_then(|after| all.iter().position(|(id, _)| **id == after)).map_or(0, |at| at + 1);
        let found = all.into_iter().skip(past).filter(|(id, _)| {
            start.as_ref().is_none_or(|start| {
                self.groups.get(**id).is_some_and(|group| group.name().to_lowercase().starts_with(start))
            })
        });
        let (page, rest) = pages::cut(found, limit);
        let next = page.last().filter(|_| rest == NextPage::More).map(|(id, _)| id.to_string());
        let host = &self.settings.host;
        let embeds = asked.query("expand").is_some_and(|expand| expand.split(',').any(|it| it == "group"));
        let views: Vec<Value> = page
            .into_iter()
            .map(|(group, assignment)| {
                let mut view = view(host, app.id, *group, assignment);
                if embeds && let Some(group) = self.groups.get(*group) {
                    view["_embedded"] = json!({ "group": GroupView { group, host, stats: None } });
                }
                view
            })
            .collect();
        let path = format!("/api/v1/apps/{}/groups", app.id);
        let links = Links { host, path: &path, limit, kept: &["q", "expand"] };
        Ok(links.write(OrgReply::json(&views), asked, next.as_deref()))
    }

    pub(super) fn get_app_group(&self, asked: &RequestContext<'_>) -> Result<OrgReply, OktaRefusal> {
        let (app, group) = (self.app_at(&asked.ids[0])?, self.group_at(&asked.ids[1])?);
        let assignment = app.groups.get(&group.id).ok_or_else(|| not_assigned(app.id, group.id))?;
        Ok(OrgReply::json(&view(&self.settings.host, app.id, group.id, assignment)))
    }

    pub(super) fn assign_group(&mut self, asked: &RequestContext<'_>) -> Result<OrgReply, OktaRefusal> {
        let (app, group) = (self.active_app(&asked.ids[0])?, self.group_at(&asked.ids[1])?);
        let (group, group_target) = (group.id, group.target());
        let body: Map<String, Value> = match asked.body.is_empty() {
            true => Map::new(),
            false => serde_json::from_slice(asked.body).map_err(|_| OktaRefusal::malformed())?,
        };
        let priority = match body.get("priority") {
            None | Some(Value::Null) => None,
            Some(value) => Some(
                value.as_u64().and_then(|it| u32::try_from(it).ok()).ok_or_else(OktaRefusal::malformed)?,
            ),
        };
        let profile = match body.get("profile") {
            None | Some(Value::Null) => None,
            Some(Value::Object(profile)) => Some(profile.clone()),
            Some(_) => return Err(OktaRefusal::malformed()),
        };
        let now = Stamp::seconds(asked.now);
        let of = self.apps.edit(app, asked.now).expect("the app was there a moment ago");
        let former = of.groups.get(&group).cloned();
        if former.is_none() && priority.is_none() {
            // Guess: a new assignment without a priority comes first. Recorded: it is answered with 0.
            of.groups.values_mut().for_each(|other| other.priority += 1);
        }
        let mut next =
            former.clone().unwrap_or(GroupAssignment { since: now, priority: 0, profile: Map::new() });
        next.priority = priority.unwrap_or(next.priority);
        next.profile = profile.unwrap_or(next.profile);
        let has_changed = former.as_ref() != Some(&next);
        if has_changed {
            next.since = now;
        }
        let answer = view(&self.settings.host, app, group, &next);
        of.groups.insert(group, next);
        let targets = vec![group_target, of.target()];
        if former.is_none() {
            self.happened(asked.cause, ChangeKind::GroupAssigned, format!("{app}/{group}"), targets);
        } else if has_changed {
            self.happened(asked.cause, ChangeKind::GroupAssignmentUpdated, format!("{app}/{group}"), targets);
        }
        Ok(OrgReply::json(&answer))
    }

    pub(super) fn unassign_group(&mut self, asked: &RequestContext<'_>) -> Result<OrgReply, OktaRefusal> {
        let (app, group) = (self.app_at(&asked.ids[0])?, self.group_at(&asked.ids[1])?);
        if !app.groups.contains_key(&group.id) {
            return Err(not_assigned(app.id, group.id));
        }
        let (app, group, targets) = (app.id, group.id, vec![group.target(), app.target()]);
        if let Some(of) = self.apps.edit(app, asked.now) {
            of.groups.remove(&group);
        }
        self.happened(asked.cause, ChangeKind::GroupUnassigned, format!("{app}/{group}"), targets);
        Ok(OrgReply::empty())
    }

    pub(super) fn list_group_apps(&self, asked: &RequestContext<'_>) -> Result<OrgReply, OktaRefusal> {
        let group = self.group_at(&asked.ids[0])?.id;
        let limit = pages::limit(asked, GROUP_APPS)?;
        let found = self
            .apps
            .seen(pages::after(asked)?, asked.now)
            .filter(|(_, app)| app.groups.contains_key(&group));
        let (page, rest) = pages::cut(found, limit);
        let next = page.last().filter(|_| rest == NextPage::More).map(|(id, _)| id.to_string());
        let host = &self.settings.host;
        let views: Vec<Value> = page.into_iter().map(|(_, app)| app.view(host, self.id)).collect();
        let path = format!("/api/v1/groups/{group}/apps");
        let links = Links { host, path: &path, limit, kept: &[] };
        Ok(links.write(OrgReply::json(&views), asked, next.as_deref()))
    }
}

/// Returns an assignment as the JSON of an answer.
fn view(host: &str, app: Id, group: Id, assignment: &GroupAssignment) -> Value {
    json!({
        "id": group,
        "lastUpdated": assignment.since,
        "priority": assignment.priority,
        "profile": assignment.profile,
        "_links": {
            "app": { "href": format!("{host}/api/v1/apps/{app}") },
            "self": { "href": format!("{host}/api/v1/apps/{app}/groups/{group}") },
            "group": { "href": format!("{host}/api/v1/groups/{group}") },
        },
    })
}

/// Builds the refusal, whose recorded text concatenates both ids.
fn not_assigned(app: Id, group: Id) -> OktaRefusal {
    OktaRefusal::missing(&format!("{group}{app}"), "GroupAppAssignment")
}
