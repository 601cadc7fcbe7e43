//! Groups: list, read, create, update, delete.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use crate::domain::bucket::Bucket;
use crate::domain::http::Request;
use crate::domain::ids::{GroupId, excerpt};
use crate::domain::json::{Object, to_raw};
use crate::domain::result::ErrorCode;

use super::converge::{has_all, is_since, is_taken, literal, look_for, moment, unknown};
use super::cost::Cost;
use super::history::OktaReply;
use super::manifest::{Idempotency, Manifest, ToolKind};
use super::output::{Empty, Group};
use super::plan::{ATTRIBUTES, Forecast, GROUP_TYPE, Losses, lost};
use super::replay::{LAG_PAUSE, Replay};
use super::run::{Done, Run, Stop};
use super::subtool::Subtool;

/// The part of a group that decides which operations are possible.
#[derive(Deserialize)]
struct GroupState {
    #[serde(rename = "type")]
    kind: String,
    profile: Object,
}

#[derive(Serialize)]
struct GroupBody<'a> {
    profile: &'a Object,
}

/// The longest name of a group, in characters (Okta Workflows help, "Create Group").
const NAME_CHARS_MAX: usize = 255;

/// The longest description of a group, in characters (same source).
const DESCRIPTION_CHARS_MAX: usize = 1024;

/// Refuses a name or description of a wrong length.
fn check_texts(name: Option<&str>, description: Option<&str>) -> Result<(), Stop> {
    if name == Some("") {
        return Err(Stop::argument("name", "must not be empty"));
    }
    for (argument, text, max) in
        [("name", name, NAME_CHARS_MAX), ("description", description, DESCRIPTION_CHARS_MAX)]
    {
        if text.is_some_and(|text| text.chars().count() > max) {
            return Err(Stop::argument(argument, format!("must not be longer than {max} characters")));
        }
    }
    Ok(())
}

/// Refuses a name or description inside `profile`, where it would be given twice.
fn check_custom(profile: Option<&Object>) -> Result<(), Stop> {
    for name in ["name", "description"] {
        if profile.is_some_and(|profile| profile.get(name).is_some()) {
            let message = format!("`profile` is for custom attributes: give `{name}` beside it");
            return Err(Stop::argument(&format!("profile.{name}"), message));
        }
    }
    Ok(())
}

/// Creates a group.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateGroup {
    /// The name, unique in the org.
    #[schemars(length(min = 1, max = NAME_CHARS_MAX))]
    name: String,
    /// The purpose of the group.
    #[schemars(length(max = DESCRIPTION_CHARS_MAX))]
    description: Option<String>,
    /// Custom attributes.
    profile: Option<Object>,
}

impl Subtool for CreateGroup {
    type Output = Group;
    const MANIFEST: Manifest = Manifest {
        name: "create_group",
        kind: ToolKind::Write,
        scope: "okta.groups.manage",
        summary: "Creates a group managed in Okta, without members.",
        not_for: "Not for a group that exists: a taken name fails with `already_exists`; use `update_group`.",
        cost: Cost::one(Bucket::Groups),
        returns: "the group, with its new `id`",
        examples: &[
            r#"{"name":"Sales EMEA","description":"Everyone who sells in EMEA"}"#,
            r#"{"name":"Support"}"#,
        ],
    };

    fn repeat(&self) -> Idempotency {
        Idempotency::Create
    }

    fn run(&self, okta: &mut Replay<'_>) -> Run<Group> {
        check_texts(Some(&self.name), self.description.as_deref())?;
        check_custom(self.profile.as_ref())?;
        let mut profile = Object::default();
        profile.set("name", to_raw(&self.name));
        if let Some(description) = &self.description {
            profile.set("description", to_raw(description));
        }
        if let Some(custom) = &self.profile {
            profile.merge(custom);
        }
        let request = Request::post("/api/v1/groups", &[]).json(&GroupBody { profile: &profile });
        // Safe to retry: Okta refuses a second group with this name.
        let reply = loop {
            if let Some(reply) = okta.attempt(request.clone())? {
                break reply;
            }
        };
        match okta.may_have_created_since() {
            Some(since) if !reply.is_success() && is_taken(&reply.error(), "name") => {
                Ok(Done::applied(Group(find(okta, &self.name, &profile, since, reply)?)))
            }
            _ => Ok(Done::applied(Group(reply.json()?))),
        }
    }

    fn foresee(&self, okta: &mut Replay<'_>) -> Result<Forecast, Stop> {
        check_free(okta, &self.name, None)?;
        Ok(Forecast::applied().without(&[ATTRIBUTES, LATELY]))
    }
}

/// The unchecked condition of names.
const LATELY: &str =
    "groups that were created or renamed in the last moments, which searches do not show yet";

/// Refuses a name that another group already has.
fn check_free(okta: &mut Replay<'_>, name: &str, own: Option<&GroupId>) -> Result<(), Stop> {
    #[derive(Deserialize)]
    struct Named {
        id: String,
        #[serde(default)]
        profile: Object,
    }
    let search = format!("profile.name eq {}", literal(name));
    let request = Request::get("/api/v1/groups", &[]).query("search", &search).query("limit", 10);
    let found: Vec<Named> = okta.ask(request)?.read()?;
    let is_taken = found.iter().any(|group| {
        group.profile.text("name").as_deref() == Some(name) && own.is_none_or(|own| own.as_str() != group.id)
    });
    if is_taken {
        let message = format!("a group with the name `{}` is there already", excerpt(name));
        return Err(Stop::fail(ErrorCode::AlreadyExists, message));
    }
    Ok(())
}

/// Returns true if a group is managed in Okta.
pub(super) fn is_okta_group(okta: &mut Replay<'_>, group_id: &GroupId) -> Result<bool, Stop> {
    let group: GroupState = okta.ask(Request::get("/api/v1/groups/{groupId}", &[group_id]))?.read()?;
    Ok(group.kind == "OKTA_GROUP")
}

/// Predicts how a change of a group's members would end, by the group's type: Okta refuses it for groups of
/// applications (terraform-provider-okta issue 118) and for its built-in ones (release 2026.04.0).
pub(super) fn foresee_member(
    okta: &mut Replay<'_>,
    group_id: &GroupId,
    subtool: &str,
) -> Result<Forecast, Stop> {
    let group: GroupState = okta.ask(Request::get("/api/v1/groups/{groupId}", &[group_id]))?.read()?;
    let (id, kind) = (excerpt(group_id.as_str()), excerpt(&group.kind));
    match group.kind.as_str() {
        "OKTA_GROUP" => Ok(Forecast::applied()),
        "APP_GROUP" | "BUILT_IN" => {
            let message =
                format!("failed to run `{subtool}`: nobody may change who is in group `{id}` of type {kind}");
            Err(Stop::fail(ErrorCode::Forbidden, message))
        }
        _ => Ok(Forecast::unknown(GROUP_TYPE)),
    }
}

/// The searches for a newly created group, which search results show late.
const CREATE_READS_MAX: usize = 4;

/// Returns the group that has the taken name, if this invocation created it: it has the attributes sent, and
/// was created since then.
fn find(
    okta: &mut Replay<'_>,
    name: &str,
    sent: &Object,
    since: Timestamp,
    taken: OktaReply<'_>,
) -> Result<Box<RawValue>, Stop> {
    #[derive(Deserialize)]
    struct Made {
        #[serde(default, deserialize_with = "moment")]
        created: Option<Timestamp>,
        #[serde(default)]
        profile: Object,
    }
    let search = format!("profile.name eq {}", literal(name));
    let mut is_there = false;
    for read in 0..CREATE_READS_MAX {
        let request = Request::get("/api/v1/groups", &[]).query("search", &search).query("limit", 10);
        let request = if read > 0 { request.after(LAG_PAUSE) } else { request };
        let Some(reply) = look_for(okta, request)? else { continue };
        let found: Vec<Box<RawValue>> = reply.read()?;
        for group in found {
            let Ok(made) = serde_json::from_str::<Made>(group.get()) else { continue };
            if made.profile.text("name").as_deref() != Some(name) {
                continue;
            }
            if is_since(made.created, since) && has_all(Some(&made.profile), sent) {
                return Ok(group);
            }
            is_there = true;
        }
        if is_there {
            return Err(taken.refused());
        }
    }
    Err(unknown("a group with this name is there, and searches do not show yet whether it is this one"))
}

/// Changes name, description or custom attributes of a group.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateGroup {
    /// The group's id.
    group_id: GroupId,
    /// The new name.
    #[schemars(length(min = 1, max = NAME_CHARS_MAX))]
    name: Option<String>,
    /// The new description; `null` clears it.
    #[serde(default, deserialize_with = "given")]
    #[schemars(with = "Option<String>")]
    description: Option<Option<String>>,
    /// Custom attributes to change; `null` clears one.
    profile: Option<Object>,
}

/// Deserializes an argument for which `null` differs from absent.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

impl Subtool for UpdateGroup {
    type Output = Group;
    const MANIFEST: Manifest = Manifest {
        name: "update_group",
        kind: ToolKind::Write,
        scope: "okta.groups.manage",
        summary: "Changes the given attributes of a group and leaves the others alone: reads it, merges, \
                  replaces it; a concurrent change is lost. Only groups managed in Okta can be changed.",
        not_for: "Not for members: use `add_user_to_group` and `remove_user_from_group`.",
        cost: Cost { calls: &[(Bucket::Group, 2)], ..Cost::NONE },
        returns: "the group after the change",
        examples: &[
            r#"{"group_id":"00g1emaKYZTWRYYRRTSK","description":"Everyone who sells in EMEA"}"#,
            r#"{"group_id":"00g1emaKYZTWRYYRRTSK","name":"Sales","profile":{"costCenter":"42"}}"#,
        ],
    };

    // Okta stores an empty description as it is.
    const MEANINGFUL_WHEN_EMPTY: &'static [&'static str] = &["description"];

    fn repeat(&self) -> Idempotency {
        Idempotency::Set
    }

    fn run(&self, okta: &mut Replay<'_>) -> Run<Group> {
        if self.name.is_none() && self.description.is_none() && self.profile.is_none() {
            return Err(Stop::argument("name", "give `name`, `description` or `profile`"));
        }
        check_texts(self.name.as_deref(), self.description.as_ref().and_then(Option::as_deref))?;
        check_custom(self.profile.as_ref())?;
        let route = "/api/v1/groups/{groupId}";
        let read = okta.ask(Request::get(route, &[&self.group_id]))?;
        let group: GroupState = read.read()?;
        if group.kind != "OKTA_GROUP" {
            return Err(wrong_type("update", &self.group_id, &group.kind));
        }
        let before = group.profile.clone();
        // Okta's only update is a PUT that erases every attribute it does not name (recorded), so omission is
        // also the way to clear one.
        let mut profile = group.profile;
        if let Some(name) = &self.name {
            profile.set("name", to_raw(name));
        }
        match &self.description {
            None => {}
            Some(None) => profile.remove("description"),
            Some(Some(description)) => profile.set("description", to_raw(description)),
        }
        for (name, value) in self.profile.iter().flat_map(Object::iter) {
            match value.get() {
                "null" => profile.remove(name),
                _ => profile.set(name, value.to_owned()),
            }
        }
        if okta.doubt().is_some() && has_all(Some(&before), &profile) && has_all(Some(&profile), &before) {
            return Ok(Done::applied(Group(read.json()?))); // it ran before
        }
        let request = Request::put(route, &[&self.group_id]).json(&GroupBody { profile: &profile });
        Ok(Done::applied(Group(okta.ask(request)?.json()?)))
    }

    fn foresee(&self, okta: &mut Replay<'_>) -> Result<Forecast, Stop> {
        if let Some(name) = &self.name {
            check_free(okta, name, Some(&self.group_id))?;
        }
        Ok(Forecast::applied().without(&[ATTRIBUTES, LATELY]))
    }
}

/// Stops because the group is not managed in Okta.
fn wrong_type(verb: &str, group_id: &GroupId, kind: &str) -> Stop {
    let message =
        format!("failed to {verb} group `{}`: it is of type {}", excerpt(group_id.as_str()), excerpt(kind));
    Stop::precondition(message, None)
}

/// Deletes a group.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeleteGroup {
    /// The group's id.
    group_id: GroupId,
}

impl Subtool for DeleteGroup {
    type Output = Empty;
    const MANIFEST: Manifest = Manifest {
        name: "delete_group",
        kind: ToolKind::Destructive,
        scope: "okta.groups.manage",
        summary: "Deletes a group for good, with its memberships and the access they gave. Refuses groups that \
                  an application or Okta itself owns.",
        not_for: "Not for removing single users: use `remove_user_from_group`.",
        cost: Cost { calls: &[(Bucket::Group, 2)], ..Cost::NONE },
        returns: "an empty object",
        examples: &[r#"{"group_id":"00g1emaKYZTWRYYRRTSK"}"#],
    };

    fn repeat(&self) -> Idempotency {
        Idempotency::Transition
    }

    fn run(&self, okta: &mut Replay<'_>) -> Run<Empty> {
        let route = "/api/v1/groups/{groupId}";
        loop {
            let read = okta.ask(Request::get(route, &[&self.group_id]))?;
            if okta.doubt().is_some() && !read.is_success() && read.error().status == 404 {
                return Ok(Done::applied(Empty {}));
            }
            let group: GroupState = read.read()?;
            if matches!(group.kind.as_str(), "APP_GROUP" | "BUILT_IN") {
                return Err(wrong_type("delete", &self.group_id, &group.kind));
            }
            match okta.attempt(Request::delete(route, &[&self.group_id]))? {
                Some(reply) if okta.doubt().is_some() && reply.error().status == 404 => {}
                Some(reply) => drop(reply.success()?),
                None => continue,
            }
            return Ok(Done::applied(Empty {}));
        }
    }

    fn foresee(&self, okta: &mut Replay<'_>) -> Result<Forecast, Stop> {
        let mut not_checked = Vec::new();
        let filter = format!("group.id eq {}", literal(self.group_id.as_str()));
        let apps = Request::get("/api/v1/apps", &[]).query("filter", filter).query("limit", 200);
        let apps = lost(okta, apps, &mut not_checked)?;
        not_checked.push("group rules and policies that name the group");
        Ok(Forecast::applied().losing(Losses { groups: Vec::new(), apps }).without(&not_checked))
    }
}
