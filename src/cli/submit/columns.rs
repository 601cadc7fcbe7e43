//! The columns of a CSV file: each is an argument, or an attribute inside one, and its cells have a type.
//!
//! The types come from the schema of the subtool's arguments. What stands in an object that takes anything, as a
//! profile does, is text.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::domain::envelope::{list, nearest};
use crate::domain::ids::excerpt;
use crate::tools::catalogue::Entry;

/// What stands for `null` in a cell.
const CLEARS: &str = "\\null";

/// What is between the items of a list.
const BETWEEN: char = ';';

/// What a cell holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Flag,
    Integer,
    Number,
    List,
    /// An object whose attributes have columns of their own.
    Object,
}

impl Kind {
    /// The type of a schema; what else it may be besides `null` counts for nothing.
    fn of(schema: &Value) -> Self {
        if let Some(either) = schema["anyOf"].as_array().or_else(|| schema["oneOf"].as_array()) {
            let first = either.iter().find(|schema| schema["type"] != "null");
            return first.map_or(Self::Text, Self::of);
        }
        let name = match &schema["type"] {
            Value::Array(names) => names.iter().find(|name| *name != "null").unwrap_or(&Value::Null),
            name => name,
        };
        match name.as_str() {
            Some("boolean") => Self::Flag,
            Some("integer") => Self::Integer,
            Some("number") => Self::Number,
            Some("array") => Self::List,
            Some("object") => Self::Object,
            _ => Self::Text,
        }
    }
}

/// One column.
#[derive(Debug)]
struct Column {
    /// As it stands in the header.
    name: String,
    path: Vec<String>,
    kind: Kind,
}

/// The columns of a file that are understood, by their place.
#[derive(Debug)]
pub(super) struct Columns {
    columns: BTreeMap<usize, Column>,
    /// How many the header names.
    named: usize,
    /// How many the header has; spreadsheets leave nameless ones at its end.
    pub count: usize,
    /// Whether a row can be read at all.
    pub are_good: bool,
}

/// Something wrong in a column: its place from 0, and what.
pub(super) type Fault = (usize, String);

impl Columns {
    /// Reads a header, and what is wrong with it.
    pub fn read(header: &[&str], entry: &Entry) -> (Self, Vec<Fault>) {
        let schema = (entry.arguments)().to_value();
        let known = schema["properties"].as_object().cloned().unwrap_or_default();
        let (mut columns, mut faults) = (BTreeMap::<usize, Column>::new(), Vec::new());
        let named = header.iter().rposition(|name| !name.trim().is_empty()).map_or(0, |last| last + 1);
        for (at, name) in header[..named].iter().map(|name| name.trim()).enumerate() {
            let column = column(name, &known, entry.manifest.name);
            let column =
                column.and_then(|column| match columns.values().find(|other| clash(other, &column)) {
                    Some(other) if other.name == column.name => Err("stands there twice".to_owned()),
                    Some(other) => Err(format!("cannot stand beside `{}`, which holds the same", other.name)),
                    None => Ok(column),
                });
            match column {
                Ok(column) => drop(columns.insert(at, column)),
                Err(why) => faults.push((at, why)),
            }
        }
        let required = schema["required"].as_array().cloned().unwrap_or_default();
        for name in required.iter().filter_map(Value::as_str) {
            if faults.is_empty() && !columns.values().any(|column| column.path[0] == name) {
                faults.push((header.len(), format!("no column `{name}`, without which no row can be done")));
            }
        }
        (Self { columns, named, count: header.len(), are_good: faults.is_empty() }, faults)
    }

    /// Whether a row may have so many cells.
    pub fn fit(&self, cells: usize) -> bool {
        (self.named..=self.count).contains(&cells)
    }

    /// The arguments that the cells of a row are, and what is wrong with them.
    pub fn arguments<'a>(
        &self,
        cells: impl Iterator<Item = &'a [u8]>,
    ) -> Result<Map<String, Value>, Vec<Fault>> {
        let (mut arguments, mut faults) = (Map::new(), Vec::new());
        for (at, cell) in cells.enumerate() {
            let Some(column) = self.columns.get(&at) else {
                if at >= self.named && !cell.trim_ascii().is_empty() {
                    faults.push((at, "the header has no name for this column".to_owned()));
                }
                continue;
            };
            let value = std::str::from_utf8(cell).map_err(|_| "is not UTF-8".to_owned());
            match value.and_then(|text| column.kind.value(text)) {
                Ok(Some(value)) => put(&mut arguments, &column.path, value),
                Ok(None) => {}
                Err(why) => faults.push((at, why)),
            }
        }
        if faults.is_empty() { Ok(arguments) } else { Err(faults) }
    }

    /// The column that a path below `arguments` leads to or into, or the first one of an object it leads to.
    pub fn of_path(&self, path: &str) -> Option<usize> {
        let path: Vec<&str> = path.split('.').collect();
        let leads = |column: &Column| column.path.iter().zip(&path).all(|(own, there)| own == there);
        self.columns.iter().find(|(_, column)| leads(column)).map(|(at, _)| *at)
    }

    /// The name of a column.
    pub fn name(&self, at: usize) -> Option<&str> {
        self.columns.get(&at).map(|column| column.name.as_str())
    }
}

/// Whether two columns hold the same, or one what the other is part of.
fn clash(one: &Column, other: &Column) -> bool {
    one.path.iter().zip(&other.path).all(|(a, b)| a == b)
}

fn column(name: &str, known: &Map<String, Value>, subtool: &str) -> Result<Column, String> {
    if let Some(wrong) = name.chars().find(|c| matches!(c, ';' | '\t')) {
        let wrong = if wrong == ';' { "a semicolon" } else { "a tab" };
        return Err(format!("the separator must be a comma, and here it is {wrong}"));
    }
    let path: Vec<String> = name.split('.').map(str::to_owned).collect();
    if path.iter().any(String::is_empty) {
        return Err("is not the path of an argument, such as `profile.department`".to_owned());
    }
    let names: Vec<&str> = known.keys().map(String::as_str).collect();
    let Some(schema) = known.get(&path[0]) else {
        let hint = match nearest(&path[0], names.iter().copied()) {
            Some(near) => {
                format!(", did you mean `{}`?", [&[near.to_owned()], &path[1..]].concat().join("."))
            }
            None if known.contains_key("profile") && path.len() == 1 => {
                format!(", did you mean `profile.{}`?", excerpt(name))
            }
            None => format!(", known are {}", list(&names)),
        };
        return Err(format!("`{subtool}` has no such argument{hint}"));
    };
    let kind = match (Kind::of(schema), path.len()) {
        (Kind::Object, 1) => {
            return Err(format!("is an object: its attributes are columns, such as `{}.…`", excerpt(name)));
        }
        (Kind::Object, _) => Kind::Text,
        (kind, 1) => kind,
        (_, _) => return Err(format!("`{}` has no attributes", excerpt(&path[0]))),
    };
    Ok(Column { name: name.to_owned(), path, kind })
}

impl Kind {
    /// The value of a cell; `None`: it is absent.
    fn value(self, cell: &str) -> Result<Option<Value>, String> {
        if cell.is_empty() {
            return Ok(None);
        }
        if cell == CLEARS {
            return Ok(Some(Value::Null));
        }
        let bare = cell.trim();
        let value = match self {
            Self::Text | Self::Object => Value::from(cell),
            Self::Flag if bare.eq_ignore_ascii_case("true") => Value::Bool(true),
            Self::Flag if bare.eq_ignore_ascii_case("false") => Value::Bool(false),
            Self::Flag => return Err(format!("`{}` is neither `true` nor `false`", excerpt(cell))),
            Self::Integer => {
                let number = bare.parse::<i64>();
                Value::from(number.map_err(|_| format!("`{}` is not a whole number", excerpt(cell)))?)
            }
            Self::Number => {
                let number = serde_json::from_str::<serde_json::Number>(bare);
                Value::Number(number.map_err(|_| format!("`{}` is not a number", excerpt(cell)))?)
            }
            Self::List => {
                let items = cell.split(BETWEEN).map(str::trim).filter(|item| !item.is_empty());
                Value::from(items.collect::<Vec<_>>())
            }
        };
        Ok(Some(value))
    }
}

/// Puts a value where its path leads; nothing else is in the way there, because columns do not clash.
fn put(into: &mut Map<String, Value>, path: &[String], value: Value) {
    match path {
        [] => {}
        [last] => drop(into.insert(last.clone(), value)),
        [first, rest @ ..] => {
            if let Value::Object(inner) =
                into.entry(first.clone()).or_insert_with(|| Value::Object(Map::new()))
            {
                put(inner, rest, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::tools::catalogue::find;

    fn read(header: &[&str], subtool: &str) -> (Columns, Vec<Fault>) {
        Columns::read(header, find(subtool).unwrap())
    }

    #[test]
    fn cells_become_arguments_by_the_schema() {
        let header =
            ["profile.login", "profile.manager.name", "activate", "group_ids", "type_id", "next_login"];
        let (columns, faults) = read(&header, "create_user");
        assert!(faults.is_empty(), "{faults:?}");
        let row = |cells: [&str; 6]| columns.arguments(cells.iter().map(|cell| cell.as_bytes()));
        assert_eq!(
            Value::Object(row(["ana@x.example", " 007 ", "FALSE", "00g1; 00g2;", "\\null", ""]).unwrap()),
            json!({"profile": {"login": "ana@x.example", "manager": {"name": " 007 "}}, "activate": false,
                   "group_ids": ["00g1", "00g2"], "type_id": null})
        );
        assert_eq!(Value::Object(row([""; 6]).unwrap()), json!({}));
        let faults = row(["a", "b", "yes", "", "", ""]).unwrap_err();
        assert_eq!(faults, [(2, "`yes` is neither `true` nor `false`".to_owned())]);
        assert_eq!(
            columns.arguments([&b"\xff"[..]].into_iter()).unwrap_err(),
            [(0, "is not UTF-8".to_owned())]
        );
    }

    #[test]
    fn a_number_is_a_number() {
        let (columns, faults) = read(&["user_id", "limit"], "list_user_groups");
        assert!(faults.is_empty(), "{faults:?}");
        let row = |cells: [&str; 2]| columns.arguments(cells.iter().map(|cell| cell.as_bytes()));
        assert_eq!(Value::Object(row(["u", "20"]).unwrap()), json!({"user_id": "u", "limit": 20}));
        assert_eq!(row(["u", "many"]).unwrap_err(), [(1, "`many` is not a whole number".to_owned())]);
    }

    #[test]
    fn every_fault_of_a_header_has_its_column_and_a_hint() {
        let rows: [(&[&str], &str, usize, &str); 10] = [
            (
                &["user_id", "usr_id"],
                "get_user",
                1,
                "`get_user` has no such argument, did you mean `user_id`?",
            ),
            (
                &["profle.title"],
                "create_user",
                0,
                "`create_user` has no such argument, did you mean `profile.title`?",
            ),
            (
                &["department"],
                "create_user",
                0,
                "`create_user` has no such argument, did you mean `profile.department`?",
            ),
            (&["user_id", "user_id"], "get_user", 1, "stands there twice"),
            (
                &["profile.a", "profile.a.b"],
                "create_user",
                1,
                "cannot stand beside `profile.a`, which holds the same",
            ),
            (&["profile"], "create_user", 0, "is an object: its attributes are columns, such as `profile.…`"),
            (&["user_id.x"], "get_user", 0, "`user_id` has no attributes"),
            (&["", "user_id"], "get_user", 0, "is not the path of an argument, such as `profile.department`"),
            (
                &["user_id;send_email"],
                "activate_user",
                0,
                "the separator must be a comma, and here it is a semicolon",
            ),
            (&["user_id\tx"], "get_user", 0, "the separator must be a comma, and here it is a tab"),
        ];
        for (header, subtool, at, why) in rows {
            assert_eq!(read(header, subtool).1, [(at, why.to_owned())], "{header:?}");
        }
        let (_, faults) = read(&["activate"], "create_user");
        assert_eq!(faults, [(1, "no column `profile`, without which no row can be done".to_owned())]);
    }

    #[test]
    fn nameless_columns_at_the_end_are_nothing_while_they_are_empty() {
        let (columns, faults) = read(&["user_id", "", " "], "get_user");
        assert!(faults.is_empty(), "{faults:?}");
        let row = |cells: &[&str]| columns.arguments(cells.iter().map(|cell| cell.as_bytes()));
        assert_eq!(Value::Object(row(&["u", "", " "]).unwrap()), json!({"user_id": "u"}));
        assert_eq!(
            row(&["u", "x", ""]).unwrap_err(),
            [(1, "the header has no name for this column".to_owned())]
        );
        assert_eq!([0, 1, 2, 3, 4].map(|cells| columns.fit(cells)), [false, true, true, true, false]);
    }

    #[test]
    fn a_path_leads_to_its_column() {
        let (columns, _) = read(&["profile.login", "group_ids"], "create_user");
        let of =
            ["profile.login", "group_ids.3", "profile.email", "profile"].map(|path| columns.of_path(path));
        assert_eq!(of, [Some(0), Some(1), None, Some(0)]);
    }

    #[test]
    fn no_subtool_has_an_argument_that_columns_do_not_know() {
        for entry in &crate::tools::catalogue::CATALOGUE {
            let schema = (entry.arguments)().to_value();
            for (name, schema) in schema["properties"].as_object().unwrap() {
                let kind = Kind::of(schema);
                let is_text = schema["type"] == "string" || schema["type"][0] == "string";
                let is_enum = schema.to_string().contains("const") || schema.to_string().contains("enum");
                assert!(
                    kind != Kind::Text || is_text || is_enum,
                    "{}: {name}: {schema}",
                    entry.manifest.name
                );
            }
        }
    }
}
