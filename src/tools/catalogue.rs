//! The table of the 28. Adding the 29th is one impl and one row.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::domain::envelope::{self, Fault};

use super::output::Output as _;
use super::reading::Shape;
use super::{
    Kind, Manifest, Repeat, Subtool, Tool, apps, create_user, events, group_reads, groups, lifecycle,
    members, passwords, users,
};

/// One row: a subtool without its arguments.
pub struct Entry {
    /// What is known of it without arguments.
    pub manifest: &'static Manifest,
    read: fn(&RawValue) -> Result<Box<dyn Tool>, Fault>,
    /// The JSON Schema (2020-12) of its arguments.
    pub arguments: fn() -> Schema,
    /// The JSON Schema (2020-12) of its result.
    pub result: fn() -> Schema,
    /// Whether its result is a list.
    pub is_list: bool,
    /// See [`Subtool::MEANINGFUL_WHEN_EMPTY`].
    meaningful_when_empty: &'static [&'static str],
}

impl Entry {
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

    /// The most careful repeat class among the examples, which show every case.
    pub fn repeat(&self) -> Repeat {
        let class = |example: &&str| {
            let arguments = serde_json::from_str(example).expect("examples are JSON");
            self.read(arguments).map(|tool| tool.repeat()).expect("examples fit")
        };
        self.manifest.examples.iter().map(class).max().expect("every subtool has an example")
    }

    /// A kind of power that some arguments need on top of the manifest's, as an example shows.
    pub fn may_also_need(&self) -> Option<Kind> {
        self.manifest.examples.iter().find_map(|example| {
            let arguments = serde_json::from_str(example).expect("examples are JSON");
            self.read(arguments).ok()?.also_needs()
        })
    }

    /// The cases of arguments that decide the repeat class: first the one without optional arguments, then each
    /// that an example shows with another class, with just the arguments that make it so.
    pub fn cases(&self) -> Vec<Case> {
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
        let mut cases = vec![Case { with: Map::new(), repeat: class(&Map::new()) }];
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
            let case = Case { with, repeat };
            if !cases.contains(&case) {
                cases.push(case);
            }
        }
        cases
    }

    /// Reads arguments into the subtool.
    ///
    /// # Errors
    /// What does not fit, with its path below `arguments`.
    pub fn read(&self, arguments: &RawValue) -> Result<Box<dyn Tool>, Fault> {
        (self.read)(arguments)
    }
}

/// A case of a subtool's arguments, as far as the repeat class depends on them.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    /// The optional arguments that make it; none: everything that no other case names.
    pub with: Map<String, Value>,
    /// What may be done then when nobody knows whether the write was executed.
    pub repeat: Repeat,
}

/// The types of all arguments, by the name of the subtool.
static SHAPES: LazyLock<BTreeMap<&'static str, Shape>> = LazyLock::new(|| {
    let shape = |entry: &Entry| {
        let schema = (entry.arguments)().to_value();
        (entry.manifest.name, Shape::of(&schema, entry.meaningful_when_empty))
    };
    CATALOGUE.iter().map(shape).collect()
});

fn read<T: Subtool>(arguments: &RawValue) -> Result<Box<dyn Tool>, Fault> {
    let taken = |tool: T| Box::new(tool) as Box<dyn Tool>;
    // Nearly all arguments fit as they are. An empty text fits, too, where it may stand for an absent one.
    if !arguments.get().contains(r#""""#)
        && let Ok(tool) = serde_json::from_str::<T>(arguments.get())
    {
        return Ok(taken(tool));
    }
    let shape = &SHAPES[T::MANIFEST.name];
    let typed = shape.typed(arguments);
    let arguments = typed.as_deref().unwrap_or(arguments);
    let names: Vec<&str> = shape.names().collect();
    envelope::read::<T>(arguments.get(), "arguments", &names).map(taken)
}

fn schema<T: JsonSchema>() -> Schema {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    settings.into_generator().into_root_schema_for::<T>()
}

/// The 28, in the order of the contract's table.
const ROWS: [Entry; 28] = [
    Entry::of::<create_user::CreateUser>(),
    Entry::of::<users::GetUser>(),
    Entry::of::<users::ListUsers>(),
    Entry::of::<users::UpdateUser>(),
    Entry::of::<users::DeleteUser>(),
    Entry::of::<lifecycle::ActivateUser>(),
    Entry::of::<lifecycle::DeactivateUser>(),
    Entry::of::<lifecycle::SuspendUser>(),
    Entry::of::<lifecycle::UnsuspendUser>(),
    Entry::of::<lifecycle::UnlockUser>(),
    Entry::of::<passwords::ResetUserPassword>(),
    Entry::of::<passwords::ExpireUserPassword>(),
    Entry::of::<users::ListUserGroups>(),
    Entry::of::<users::ListUserApps>(),
    Entry::of::<group_reads::ListGroups>(),
    Entry::of::<group_reads::GetGroup>(),
    Entry::of::<groups::CreateGroup>(),
    Entry::of::<groups::UpdateGroup>(),
    Entry::of::<groups::DeleteGroup>(),
    Entry::of::<members::ListGroupMembers>(),
    Entry::of::<members::AddUserToGroup>(),
    Entry::of::<members::RemoveUserFromGroup>(),
    Entry::of::<apps::ListApps>(),
    Entry::of::<apps::GetApp>(),
    Entry::of::<apps::ListAppUsers>(),
    Entry::of::<apps::AssignUserToApp>(),
    Entry::of::<apps::RemoveUserFromApp>(),
    Entry::of::<events::ListEvents>(),
];

/// The 28, at one place in memory.
pub static CATALOGUE: [Entry; 28] = ROWS;

/// The row of that name, if there is one.
pub fn find(name: &str) -> Option<&'static Entry> {
    CATALOGUE.iter().find(|entry| entry.manifest.name == name)
}

/// The names of all rows.
pub fn names() -> impl Iterator<Item = &'static str> {
    CATALOGUE.iter().map(|entry| entry.manifest.name)
}

/// A name that stands twice does not compile.
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

/// Whether two names are the same, in a constant.
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
