//! Groups and their members.
//!
//! Only groups of type OKTA_GROUP can be changed. All users are in Everyone, which has no member list; APP_GROUPs
//! stand for groups of a directory that Okta only mirrors.

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::call::{Cause, RequestContext};
use super::effects::ChangeKind;
use super::expression::Operator;
use super::group::{Group, GroupKind, GroupView, Stats};
use super::ids::Id;
use super::org::Org;
use super::pages::{self, Links, NextPage, Sizes};
use super::people::is_order;
use super::profile::Profile;
use super::refusal::OktaRefusal;
use super::reply::{OrgReply, Stamp};
use super::search::{Dialect, Query};
use super::settings::Attribute;
use super::users::{User, UserForm, UserStatus};

const GROUPS: Sizes = Sizes { default: 10_000, max: 10_000 };
const GROUPS_BY_Q: Sizes = Sizes { default: 300, max: 10_000 };
const MEMBERS: Sizes = Sizes { default: 1000, max: 1000 };

const NAME_CHARS_MAX: usize = 255;
const DESCRIPTION_CHARS_MAX: usize = 1024;

impl Org {
    /// Returns the group that a path names.
    pub(super) fn group_at(&self, key: &str) -> Result<&Group, OktaRefusal> {
        Id::parse(key)
            .and_then(|id| self.groups.get(id))
            .ok_or_else(|| OktaRefusal::missing(key, "UserGroup"))
    }

    fn show_group(&self, group: &Group) -> OrgReply {
        OrgReply::json(&GroupView { group, host: &self.settings.host, stats: None })
    }

    /// Returns a group of a list. No group here comes from an app, so `expand=app` embeds nothing.
    fn listed_group<'a>(&'a self, group: &'a Group, asked: &RequestContext<'_>) -> GroupView<'a> {
        let wants_stats =
            asked.query("expand").is_some_and(|expand| expand.split(',').any(|it| it == "stats"));
        let stats = wants_stats.then(|| Stats {
            users_count: self.group_users(group, None, asked.now).count(),
            apps_count: self.apps.iter().filter(|(_, app)| app.groups.contains_key(&group.id)).count(),
            group_push_mappings_count: 0,
            has_admin_privilege: false,
        });
        GroupView { group, host: &self.settings.host, stats }
    }

    /// Returns the members of a group, after a cursor.
    fn group_users<'a>(
        &'a self,
        group: &Group,
        after: Option<Id>,
        now: Timestamp,
    ) -> Box<dyn Iterator<Item = &'a User> + 'a> {
        let users = self.users.index();
        // Guess: all except deactivated users. Other groups keep those (Okta help), so they are listed there.
        if group.kind == GroupKind::BuiltIn {
            let all = users.seen(after, now).map(|(_, user)| user);
            return Box::new(all.filter(|user| user.status != UserStatus::Deprovisioned));
        }
        let members =
            self.members.get(&group.id).into_iter().flat_map(move |members| members.seen(after, now));
        Box::new(members.filter_map(move |(id, ())| users.seen_one(id, now)))
    }

    pub(super) fn get_group(&self, asked: &RequestContext<'_>) -> Result<OrgReply, OktaRefusal> {
        Ok(self.show_group(self.group_at(&asked.ids[0])?))
    }

    pub(super) fn list_groups(&self, asked: &RequestContext<'_>) -> Result<OrgReply, OktaRefusal> {
        let host = &self.settings.host;
        let custom = &self.settings.group_attributes;
        let dialect = Dialect {
            search: &|attribute, operator| is_searchable(attribute, operator, custom),
            filter: &is_filterable,
        };
        let query = Query::read(asked, &dialect)?;
        if let Some(start) = asked.query("q") {
            let start = start.to_lowercase();
            let limit = pages::limit(asked, GROUPS_BY_Q)?;
            let starts = |group: &Group| group.name().to_lowercase().starts_with(&start);
            // Recorded: `q` combines with a filter, and there is no Link header at all.
            let page = query.page(asked, &self.groups, limit, starts)?;
            let views: Vec<_> = page.items.iter().map(|group| self.listed_group(group, asked)).collect();
            return Ok(OrgReply::json(&views));
        }
        let limit = pages::limit(asked, GROUPS)?;
        let page = query.page(asked, &self.groups, limit, |_| true)?;
        let views: Vec<_> = page.items.iter().map(|group| self.listed_group(group, asked)).collect();
        let kept = &["filter", "search", "expand", "sortBy", "sortOrder"];
        let links = Links { host, path: "/api/v1/groups", limit, kept };
        Ok(links.write(OrgReply::json(&views), asked, page.next.as_deref()))
    }

    pub(super) fn create_group(&mut self, asked: &RequestContext<'_>) -> Result<OrgReply, OktaRefusal> {
        let profile = self.group_profile(asked, None)?;
        let id = self.found_group(asked.cause, GroupKind::Okta, profile);
        let group = self.groups.get(id).expect("the group was just made");
        Ok(self.show_group(group))
    }

    /// Creates a group of any kind.
    pub(super) fn found_group(&mut self, cause: Cause<'_>, kind: GroupKind, profile: Profile) -> Id {
        let now = Stamp::seconds(cause.now);
        let id = self.ids.mint("00g");
        let group =
            Group { id, kind, created: now, last_updated: now, last_membership_updated: now, profile };
        self.happened(cause, ChangeKind::GroupCreated, id.to_string(), vec![group.target()]);
        self.groups.put(id, group, cause.now);
        id
    }

    /// Replaces the whole profile with the one in the PUT: attributes that it omits are gone.
    pub(super) fn replace_group(&mut self, asked: &RequestContext<'_>) -> Result<OrgReply, OktaRefusal> {
        let former = self.group_at(&asked.ids[0])?;
        former.check_own_members()?;
        let profile = self.group_profile(asked, Some(former.id))?;
        let (id, changed) = (former.id, former.profile != profile);
        let group = self.groups.edit(id, asked.now).expect("the group was there a moment ago");
        group.profile = profile;
        group.last_updated = Stamp::seconds(asked.now);
        let target = group.target();
        if changed {
            self.happened(asked.cause, ChangeKind::GroupUpdated, id.to_string(), vec![target]);
        }
        self.get_group(asked)
    }

    pub(super) fn delete_group(&mut self, asked: &RequestContext<'_>) -> Result<OrgReply, OktaRefusal> {
        let group = self.group_at(&asked.ids[0])?;
        if group.kind == GroupKind::BuiltIn {
            return Err(OktaRefusal::forbidden());
        }
        let (id, target) = (group.id, group.target());
        self.happened(asked.cause, ChangeKind::GroupDeleted, id.to_string(), vec![target]);
        self.groups.remove(id, asked.now);
        self.members.remove(&id);
        for app in self.apps.iter().map(|(app, _)| app).collect::<Vec<_>>() {
            if let Some(app) = self.apps.edit(app, asked.now) {
                app.groups.remove(&id);
            }
        }
        Ok(OrgReply::empty())
    }

    /// Returns the checked profile of a body; `whose` already has its name.
    fn group_profile(&self, asked: &RequestContext<'_>, whose: Option<Id>) -> Result<Profile, OktaRefusal> {
        let body = asked.object(&["profile"])?;
        let wanted = body.get("profile").and_then(Value::as_object).ok_or_else(OktaRefusal::malformed)?;
        let custom = &self.settings.group_attributes;
        if let Some(name) = wanted.keys().find(|name| !is_attribute(name, custom)) {
            let cause = format!("Property name '{name}' is not defined in profile");
            return Err(OktaRefusal::invalid("group", vec![cause]));
        }
        let mut profile: Profile = Map::clone(wanted);
        profile.retain(|name, value| name == "description" || !value.is_null());
        profile.entry("description").or_insert(Value::Null);
        for name in ["name", "description"] {
            if profile.get(name).is_some_and(|value| !value.is_string() && !value.is_null()) {
                return Err(OktaRefusal::malformed());
            }
        }
        let name = profile.get("name").and_then(Value::as_str).unwrap_or_default();
        if name.trim().is_empty() {
            return Err(OktaRefusal::invalid(
                "name",
                vec!["name: The field cannot be left blank".to_owned()],
            ));
        }
        let description = profile.get("description").and_then(Value::as_str).unwrap_or_default();
        for (field, text, most) in
            [("name", name, NAME_CHARS_MAX), ("description", description, DESCRIPTION_CHARS_MAX)]
        {
            if text.chars().count() > most {
                return Err(OktaRefusal::invalid(field, vec![format!("{field}: The field is too long")]));
            }
        }
        let taken = self.groups.iter().any(|(id, group)| Some(id) != whose && group.name() == name);
        if taken { Err(OktaRefusal::taken("name")) } else { Ok(profile) }
    }

    pub(super) fn list_members(&self, asked: &RequestContext<'_>) -> Result<OrgReply, OktaRefusal> {
        let group = self.group_at(&asked.ids[0])?;
        let limit = pages::limit(asked, MEMBERS)?;
        let (page, rest) = pages::cut(self.group_users(group, pages::after(asked)?, asked.now), limit);
        let next = page.last().filter(|_| rest == NextPage::More).map(|user| user.id.to_string());
        let views: Vec<_> = page.into_iter().map(|user| self.view(user, UserForm::Listed)).collect();
        let path = format!("/api/v1/groups/{}/users", group.id);
        let links = Links { host: &self.settings.host, path: &path, limit, kept: &[] };
        Ok(links.write(OrgReply::json(&views), asked, next.as_deref()))
    }

    pub(super) fn add_member(&mut self, asked: &RequestContext<'_>) -> Result<OrgReply, OktaRefusal> {
        let group = self.group_at(&asked.ids[0])?;
        let user = self.user_at(&asked.ids[1])?;
        group.check_own_members()?;
        // Guess: for a deactivated user only the removal is recorded, with 204 and with 404.
        if user.status == UserStatus::Deprovisioned {
            return Err(OktaRefusal::missing(&asked.ids[1], "User"));
        }
        let (group, user) = (group.id, user.id);
        self.join(asked.cause, group, user);
        Ok(OrgReply::empty())
    }

    pub(super) fn remove_member(&mut self, asked: &RequestContext<'_>) -> Result<OrgReply, OktaRefusal> {
        let group = self.group_at(&asked.ids[0])?;
        let user = self.user_at(&asked.ids[1])?;
        group.check_own_members()?;
        let (group, user) = (group.id, user.id);
        let was = self.members.get_mut(&group).and_then(|members| members.remove(user, asked.now));
        if was.is_some() {
            self.membership_changed(asked.cause, ChangeKind::MemberRemoved, group, user);
        }
        Ok(OrgReply::empty())
    }

    /// Adds a user to a group, unless the user is already a member.
    pub(super) fn join(&mut self, cause: Cause<'_>, group: Id, user: Id) {
        let members = self.members_of(group);
        if members.get(user).is_none() {
            members.put(user, (), cause.now);
            self.membership_changed(cause, ChangeKind::MemberAdded, group, user);
        }
    }

    fn membership_changed(&mut self, cause: Cause<'_>, change: ChangeKind, group: Id, user: Id) {
        let Some(of) = self.groups.edit(group, cause.now) else { return };
        of.last_membership_updated = Stamp::seconds(cause.now);
        let group_target = of.target();
        let user_target = self.user_target(user);
        self.happened(cause, change, format!("{group}/{user}"), vec![user_target, group_target]);
    }

    /// Updates the membership time of Everyone after users were added or removed.
    pub(super) fn everyone_changed(&mut self, now: Timestamp) {
        if let Some(everyone) = self.groups.edit(self.everyone, now) {
            everyone.last_membership_updated = Stamp::seconds(now);
        }
    }
}

fn is_attribute(name: &str, custom: &[Attribute]) -> bool {
    matches!(name, "name" | "description") || custom.iter().any(|known| known.name == name)
}

fn is_searchable(attribute: &str, operator: Operator, custom: &[Attribute]) -> bool {
    let known = match attribute.strip_prefix("profile.") {
        Some(name) => is_attribute(name, custom),
        None => {
            matches!(
                attribute,
                "id" | "type" | "created" | "lastUpdated" | "lastMembershipUpdated" | "source.id"
            )
        }
    };
    known
        && match operator {
            Operator::NotEqual | Operator::EndsWith => false,
            Operator::Contains => matches!(attribute, "profile.name" | "profile.description"),
            Operator::StartsWith
            | Operator::Equal
            | Operator::Greater
            | Operator::GreaterOrEqual
            | Operator::Less
            | Operator::LessOrEqual
            | Operator::Present => true,
        }
}

fn is_filterable(attribute: &str, operator: Operator) -> bool {
    match attribute {
        "id" | "type" => operator == Operator::Equal,
        "lastUpdated" | "lastMembershipUpdated" => is_order(operator),
        _ => false,
    }
}
