//! The table of the subtools. One more takes one impl and one row.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::domain::invocation;
use crate::domain::invocation::DecodeError;

use super::manifest::{Idempotency, Manifest, ToolKind};
use super::output::Output as _;
use super::reading::Shape;
use super::subtool::Subtool;
use super::tool::Tool;
use super::{
    app_groups, apps, create_user, events, factors, group_reads, groups, lifecycle, members, passwords,
    reactivation, sessions, update_user, users,
};

/// One row: a subtool without its arguments.
pub struct CatalogueEntry {
    /// The properties that do not depend on the arguments.
    pub manifest: &'static Manifest,
    read: fn(&RawValue) -> Result<Box<dyn Tool>, DecodeError>,
    /// The JSON Schema (2020-12) of the arguments.
    pub arguments: fn() -> Schema,
    /// The JSON Schema (2020-12) of the result.
    pub result: fn() -> Schema,
    /// True if the result is a list.
    pub is_list: bool,
    /// See [`Subtool::MEANINGFUL_WHEN_EMPTY`].
    meaningful_when_empty: &'static [&'static str],
}

impl CatalogueEntry {
    const fn of<T: Subtool>() -> Self {
        Self {
            manifest: &T::MANIFEST,
            read: read::<T>,
            arguments: schema::<T>,
            result: schema::<T::Output>,
            is_list: T::Output::IS_LIST,
            meaningful_when_empty: T::MEANINGFUL_WHEN_EMPTY,
        }
    }

    /// Returns the most restrictive idempotency class among the examples, which cover every case.
    pub fn repeat(&self) -> Idempotency {
        let class = |example: &&str| {
            let arguments = serde_json::from_str(example).expect("examples are JSON");
            self.read(arguments).map(|tool| tool.repeat()).expect("examples fit")
        };
        self.manifest.examples.iter().map(class).max().expect("every subtool has an example")
    }

    /// Returns the kind of power that some arguments need in addition to the manifest's, as an example shows.
    pub fn may_also_need(&self) -> Option<ToolKind> {
        self.manifest.examples.iter().find_map(|example| {
            let arguments = serde_json::from_str(example).expect("examples are JSON");
            self.read(arguments).ok()?.also_needs()
        })
    }

    /// Returns the cases of arguments that decide the idempotency class: first the one without optional arguments, then
    /// each example with another class, reduced to the arguments that cause it.
    pub fn cases(&self) -> Vec<ArgumentCase> {
        let schema = (self.arguments)();
        let required: Vec<&str> = schema
            .get("required")
            .and_then(Value::as_array)
            .map(|names| names.iter().filter_map(Value::as_str).collect())
            .unwrap_or_default();
        let example = |text: &&str| -> Map<String, Value> {
            serde_json::from_str(text).expect("examples are JSON objects")
        };
        let mut plain = self.manifest.examples.first().map(example).expect("every subtool has an example");
        plain.retain(|name, _| required.contains(&name.as_str()));
        let class = |optional: &Map<String, Value>| {
            let mut arguments = plain.clone();
            arguments.extend(optional.clone());
            let raw = serde_json::value::to_raw_value(&arguments).expect("a map of JSON is JSON");
            self.read(&raw).map(|tool| tool.repeat()).expect("a part of an example fits")
        };
        let mut cases = vec![ArgumentCase { with: Map::new(), repeat: class(&Map::new()) }];
        for mut with in self.manifest.examples.iter().map(example) {
            with.retain(|name, _| !required.contains(&name.as_str()));
            let repeat = class(&with);
            for name in with.keys().cloned().collect::<Vec<_>>() {
                let mut fewer = with.clone();
                fewer.remove(&name);
                if class(&fewer) == repeat {
                    with = fewer;
                }
            }
            let case = ArgumentCase { with, repeat };
            if !cases.contains(&case) {
                cases.push(case);
            }
        }
        cases
    }

    /// Parses arguments into the subtool.
    ///
    /// # Errors
    /// The first fault, with its path below `arguments`.
    pub fn read(&self, arguments: &RawValue) -> Result<Box<dyn Tool>, DecodeError> {
        (self.read)(arguments)
    }
}

/// A case of a subtool's arguments, as far as the idempotency class depends on them.
#[derive(Debug, Clone, PartialEq)]
pub struct ArgumentCase {
    /// The optional arguments of the case; empty for all arguments that no other case names.
    pub with: Map<String, Value>,
    /// The idempotency class.
    pub repeat: Idempotency,
}

/// The types of all arguments, by subtool name.
static SHAPES: LazyLock<BTreeMap<&'static str, Shape>> = LazyLock::new(|| {
    let shape = |entry: &CatalogueEntry| {
        let schema = (entry.arguments)().to_value();
        (entry.manifest.name, Shape::of(&schema, entry.meaningful_when_empty))
    };
    CATALOGUE.iter().map(shape).collect()
});

fn read<T: Subtool>(arguments: &RawValue) -> Result<Box<dyn Tool>, DecodeError> {
    let taken = |tool: T| Box::new(tool) as Box<dyn Tool>;
    // Nearly all arguments fit as they are. An empty text fits, too, even if it may mean absent.
    if !arguments.get().contains(r#""""#)
        && let Ok(tool) = serde_json::from_str::<T>(arguments.get())
    {
        return Ok(taken(tool));
    }
    let shape = &SHAPES[T::MANIFEST.name];
    let typed = shape.typed(arguments);
    let arguments = typed.as_deref().unwrap_or(arguments);
    let names: Vec<&str> = shape.names().collect();
    invocation::read::<T>(arguments.get(), "arguments", &names).map(taken)
}

fn schema<T: JsonSchema>() -> Schema {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    settings.into_generator().into_root_schema_for::<T>()
}

/// The subtools: the 28 of the first version in their order, and eight more.
const ROWS: [CatalogueEntry; 36] = [
    CatalogueEntry::of::<create_user::CreateUser>(),
    CatalogueEntry::of::<users::GetUser>(),
    CatalogueEntry::of::<users::ListUsers>(),
    CatalogueEntry::of::<update_user::UpdateUser>(),
    CatalogueEntry::of::<users::DeleteUser>(),
    CatalogueEntry::of::<lifecycle::ActivateUser>(),
    CatalogueEntry::of::<lifecycle::DeactivateUser>(),
    CatalogueEntry::of::<lifecycle::SuspendUser>(),
    CatalogueEntry::of::<lifecycle::UnsuspendUser>(),
    CatalogueEntry::of::<lifecycle::UnlockUser>(),
    CatalogueEntry::of::<passwords::ResetUserPassword>(),
    CatalogueEntry::of::<passwords::ExpireUserPassword>(),
    CatalogueEntry::of::<users::ListUserGroups>(),
    CatalogueEntry::of::<users::ListUserApps>(),
    CatalogueEntry::of::<group_reads::ListGroups>(),
    CatalogueEntry::of::<group_reads::GetGroup>(),
    CatalogueEntry::of::<groups::CreateGroup>(),
    CatalogueEntry::of::<groups::UpdateGroup>(),
    CatalogueEntry::of::<groups::DeleteGroup>(),
    CatalogueEntry::of::<members::ListGroupMembers>(),
    CatalogueEntry::of::<members::AddUserToGroup>(),
    CatalogueEntry::of::<members::RemoveUserFromGroup>(),
    CatalogueEntry::of::<apps::ListApps>(),
    CatalogueEntry::of::<apps::GetApp>(),
    CatalogueEntry::of::<apps::ListAppUsers>(),
    CatalogueEntry::of::<apps::AssignUserToApp>(),
    CatalogueEntry::of::<apps::RemoveUserFromApp>(),
    CatalogueEntry::of::<events::ListEvents>(),
    CatalogueEntry::of::<sessions::ClearUserSessions>(),
    CatalogueEntry::of::<reactivation::ReactivateUser>(),
    CatalogueEntry::of::<factors::ResetUserFactors>(),
    CatalogueEntry::of::<factors::ListUserFactors>(),
    CatalogueEntry::of::<app_groups::AssignGroupToApp>(),
    CatalogueEntry::of::<app_groups::RemoveGroupFromApp>(),
    CatalogueEntry::of::<app_groups::ListAppGroups>(),
    CatalogueEntry::of::<app_groups::ListGroupApps>(),
];

/// The subtools, in static memory.
pub static CATALOGUE: [CatalogueEntry; ROWS.len()] = ROWS;

/// Returns the row with this name, if there is one.
pub fn find(name: &str) -> Option<&'static CatalogueEntry> {
    CATALOGUE.iter().find(|entry| entry.manifest.name == name)
}

/// Returns the names of all rows.
pub fn names() -> impl Iterator<Item = &'static str> {
    CATALOGUE.iter().map(|entry| entry.manifest.name)
}

/// Rejects duplicate names at compile time.
const _: () = {
    let mut row = 0;
    while row < ROWS.len() {
        let mut other = row + 1;
        while other < ROWS.len() {
            assert!(
                !is_same(ROWS[row].manifest.name, ROWS[other].manifest.name),
                "two subtools have one name"
            );
            other += 1;
        }
        row += 1;
    }
};

/// Returns true if two names are equal, in a constant.
const fn is_same(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    if a.len() != b.len() {
        return false;
    }
    let mut at = 0;
    while at < a.len() {
        if a[at] != b[at] {
            return false;
        }
        at += 1;
    }
    true
}
