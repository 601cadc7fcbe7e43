//! A table of settings from which known keys are taken; the keys left at the end are unknown.

use std::collections::BTreeSet;

use super::entry::ConfigValue;
use super::problem::Findings;
use super::spot::{Origin, Spot};
use super::tree::{Node, Table, Value};
use crate::domain::invocation::nearest;
use crate::domain::secret::MASK;
use crate::domain::text::is_repeatable;

/// A table of settings, emptied key by key.
pub(super) struct Section<'f> {
    pub(super) spot: Spot,
    pub(super) findings: &'f Findings,
    table: Table,
    asked: Vec<&'static str>,
}

impl<'f> Section<'f> {
    /// Creates the section of the whole configuration.
    pub(super) fn root(table: Table, findings: &'f Findings) -> Self {
        let spot = Spot { path: String::new(), origin: Origin::Default };
        Self::at(spot, table, findings)
    }

    /// Creates the section of the keys at a spot.
    pub(super) fn at(spot: Spot, table: Table, findings: &'f Findings) -> Self {
        Self { spot, findings, table, asked: Vec::new() }
    }

    /// Removes and returns a value, if it exists.
    pub(super) fn take(&mut self, key: &'static str) -> Option<ConfigValue<'f>> {
        self.asked.push(key);
        let Node { value, origin } = self.table.remove(key)?;
        Some(ConfigValue {
            spot: Spot { path: self.spot.child(key), origin },
            findings: self.findings,
            value,
        })
    }

    /// Removes and returns a required value.
    pub(super) fn need(&mut self, key: &'static str) -> Option<ConfigValue<'f>> {
        let entry = self.take(key);
        if entry.is_none() {
            self.findings.missing(&self.spot, key, "is missing");
        }
        entry
    }

    /// Removes and returns a table below this one; an absent one is empty.
    pub(super) fn section(&mut self, key: &'static str) -> Option<Section<'f>> {
        match self.take(key) {
            Some(entry) => entry.section(),
            None => {
                let spot = Spot { path: self.spot.child(key), origin: self.spot.origin.clone() };
                Some(Section::at(spot, Table::new(), self.findings))
            }
        }
    }

    /// Returns the names in a table below this one, without removing it.
    pub(super) fn names(&self, key: &str) -> BTreeSet<String> {
        match self.table.get(key) {
            Some(Node { value: Value::Table(table), .. }) => table.keys().cloned().collect(),
            _ => BTreeSet::new(),
        }
    }

    /// Returns true if an unsupported key is present, and refuses it unless its value is empty.
    pub(super) fn not_yet(&mut self, key: &'static str) -> bool {
        match self.take(key) {
            Some(ConfigValue { value: Value::Text(text), .. }) if text.is_empty() => false,
            Some(entry) => {
                entry.fault("is not supported yet");
                true
            }
            None => false,
        }
    }

    /// Returns the remaining values by user-chosen name.
    pub(super) fn by_name(self) -> impl Iterator<Item = (String, ConfigValue<'f>)> {
        let Self { spot, findings, table, .. } = self;
        table.into_iter().map(move |(name, Node { value, origin })| {
            let spot = Spot { path: spot.child(&name), origin };
            (name, ConfigValue { spot, findings, value })
        })
    }

    /// Refuses the remaining keys.
    pub(super) fn close(self) {
        for (key, node) in &self.table {
            let near = nearest(key, self.asked.iter().copied());
            // A key that resembles no known one may be a secret that was pasted there.
            let shown = if near.is_some() || is_repeatable(key) { key } else { MASK };
            let spot = Spot { path: self.spot.child(shown), origin: node.origin.clone() };
            if !matches!(spot.origin, Origin::Variable(_)) {
                let hint = near.map_or_else(String::new, |near| format!(", did you mean `{near}`?"));
                self.findings.fault(&spot, format!("unknown key{hint}"));
            }
            for variable in variables(node) {
                let hint = match near {
                    Some(near) => format!(", did you mean `{}`?", renamed(variable, key, near)),
                    None => String::new(),
                };
                let origin = Origin::Variable(variable.to_owned());
                self.findings.fault(&Spot { path: String::new(), origin }, format!("fits no key{hint}"));
            }
        }
    }
}

impl<'f> ConfigValue<'f> {
    /// Returns the keys below.
    pub(super) fn section(self) -> Option<Section<'f>> {
        match self.value {
            Value::Table(table) => Some(Section::at(self.spot, table, self.findings)),
            Value::List(_) | Value::Text(_) | Value::Integer(_) | Value::Flag(_) | Value::Other(_) => {
                self.expected("a table of keys")
            }
        }
    }
}

/// Returns the environment variables that set a value or a part of it.
fn variables(node: &Node) -> Vec<&str> {
    match (&node.value, &node.origin) {
        (Value::Table(table), _) => table.values().flat_map(variables).collect(),
        (_, Origin::Variable(name)) => vec![name],
        (_, Origin::Default | Origin::File(..)) => Vec::new(),
    }
}

/// Returns the name of a variable with one key corrected.
fn renamed(variable: &str, key: &str, near: &str) -> String {
    let keys = variable.split("__");
    let right = |part: &str| {
        if part.eq_ignore_ascii_case(key) { near.to_ascii_uppercase() } else { part.to_owned() }
    };
    keys.map(right).collect::<Vec<_>>().join("__")
}
