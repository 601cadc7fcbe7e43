//! One heading of a CSV file, or one path of `--set`: the argument that it names, and the type of its values.
//!
//! `profile.department` leads into an object, `profile.isContractor:boolean` also gives the type of its cells. The
//! type comes from the schema of the subtool's arguments; an attribute of an open object, such as a profile, is text
//! unless the heading says otherwise.

use serde_json::{Map, Value};

use crate::domain::invocation::list;
use crate::tools::catalogue::CatalogueEntry;

use super::cells::{CellType, NAMES, trimmed};

/// The longest heading that an error repeats.
const SHOWN_CHARS_MAX: usize = 64;

/// The longest word in it.
const WORD_CHARS_MAX: usize = 24;

/// The arguments of a subtool, as far as columns depend on them.
pub(super) struct SubtoolArguments {
    /// The name of the subtool.
    pub subtool: &'static str,
    /// The schema of each argument.
    pub arguments: Map<String, Value>,
    /// The required arguments.
    pub required: Vec<String>,
}

impl SubtoolArguments {
    /// Returns the arguments of a subtool.
    pub fn of(entry: &CatalogueEntry) -> Self {
        let schema = (entry.arguments)().to_value();
        let required = schema["required"].as_array().cloned().unwrap_or_default();
        Self {
            subtool: entry.manifest.name,
            arguments: schema["properties"].as_object().cloned().unwrap_or_default(),
            required: required.iter().filter_map(|name| name.as_str().map(str::to_owned)).collect(),
        }
    }

    /// Returns true if `profile` is that of a user, whose attributes Okta defines.
    pub fn has_user_profile(&self) -> bool {
        matches!(self.subtool, "create_user" | "update_user")
    }
}

/// A column of the file.
#[derive(Debug, Clone)]
pub(super) struct Column {
    /// The heading, trimmed.
    pub name: String,
    /// The path that it names, below `arguments`.
    pub path: Vec<String>,
    kind: CellType,
    /// True if cells are trimmed.
    is_trimmed: bool,
}

/// The reason that a heading is not a valid column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unfit {
    /// It does not have the form of a path.
    NoPath,
    /// It looks like a value: the file has no heading.
    Value,
    /// It names no known argument.
    Unknown,
    /// It names an object, whose attributes should be columns.
    Object,
    /// It leads into an argument that has no attributes.
    NoAttributes,
    /// It names an unknown type.
    NoType,
    /// It names a type other than the argument's.
    OtherType(CellType),
}

impl Unfit {
    /// Describes the reason, without a suggestion.
    pub fn words(self, known: &SubtoolArguments) -> String {
        match self {
            Self::NoPath => "is not the path of an argument, such as `profile.department`".to_owned(),
            Self::Value => {
                "is a value and no heading: the first line names the arguments, such as `user_id`".to_owned()
            }
            Self::Unknown => format!("`{}` has no such argument", known.subtool),
            Self::Object => {
                "is an object: its attributes are columns, such as `profile.department`".to_owned()
            }
            Self::NoAttributes => "leads into an argument that has no attributes".to_owned(),
            Self::NoType => format!("names no type behind its colon: there are {NAMES}"),
            Self::OtherType(kind) => {
                format!("names another type than the argument has, which is {}", kind.noun())
            }
        }
    }

    /// Returns true if the heading may be a misspelling of another one.
    pub fn may_be_misspelt(self) -> bool {
        match self {
            Self::NoPath | Self::Unknown | Self::NoAttributes => true,
            Self::Value | Self::Object | Self::NoType | Self::OtherType(_) => false,
        }
    }
}

/// Formats the list of a subtool's arguments.
pub(super) fn known_are(known: &SubtoolArguments) -> String {
    let names = list(&known.arguments.keys().map(String::as_str).collect::<Vec<_>>());
    let below = match known.arguments.contains_key("profile") {
        true => "; attributes stand below `profile`, such as `profile.department`",
        false => "",
    };
    format!("known are {names}{below}")
}

/// Splits a heading into its path and the type that it names.
pub(super) fn parted(name: &str) -> (&str, Option<&str>) {
    name.rsplit_once(':').map_or((name, None), |(path, kind)| (path, Some(kind)))
}

impl Column {
    /// Parses a heading.
    pub fn parse(name: &str, known: &SubtoolArguments) -> Result<Self, Unfit> {
        let name = trimmed(name);
        if name.contains('@') {
            return Err(Unfit::Value);
        }
        let (path, kind) = parted(name);
        let path: Vec<String> = path.split('.').map(str::to_owned).collect();
        if !path.iter().all(|part| is_name(part)) {
            return Err(Unfit::NoPath);
        }
        let schema = known.arguments.get(&path[0]).ok_or(Unfit::Unknown)?;
        let named = kind.map(|kind| CellType::named(kind).ok_or(Unfit::NoType)).transpose()?;
        let kind = match (CellType::of(schema), path.len(), named) {
            (_, 1, Some(CellType::Json)) => CellType::Json,
            (CellType::Object, 1, _) => return Err(Unfit::Object),
            (CellType::Object, _, named) => named.unwrap_or(CellType::Text),
            (own, 1, Some(named)) if own != named => return Err(Unfit::OtherType(own)),
            (own, 1, _) => own,
            (_, _, _) => return Err(Unfit::NoAttributes),
        };
        let is_trimmed = kind == CellType::Text && is_key(&path, known);
        Ok(Self { name: name.to_owned(), path, kind, is_trimmed })
    }

    /// Returns true if two columns have the same path, or the path of one is part of the other.
    pub fn clashes(&self, other: &Self) -> bool {
        self.path.iter().zip(&other.path).all(|(one, another)| one == another)
    }

    /// Returns true if a path below `arguments` leads to this column, into it, or to an object that it is part of.
    pub fn is_at(&self, path: &str) -> bool {
        self.path.iter().zip(path.split('.')).all(|(own, there)| own == there)
    }

    /// Parses a cell; `None` if it has no value.
    ///
    /// # Errors
    /// If the cell is not of the column's type; the description does not repeat it.
    pub fn value(&self, cell: &str) -> Result<Option<Value>, &'static str> {
        self.kind.value(if self.is_trimmed { trimmed(cell) } else { cell })
    }

    /// Inserts a value at the column's path.
    pub fn put(&self, value: Value, into: &mut Map<String, Value>) {
        put(into, &self.path, value);
    }
}

/// Returns true if a part of a path has the form of an argument or attribute name.
fn is_name(part: &str) -> bool {
    !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '$'))
}

/// Returns true if a path leads to an id or a login, which never has blanks at the ends.
fn is_key(path: &[String], known: &SubtoolArguments) -> bool {
    match path {
        [name] => name.ends_with("_id"),
        [object, name] if object == "profile" => name == "login" && known.has_user_profile(),
        [object, name] => object == "credentials" && name == "userName",
        _ => false,
    }
}

/// Returns an invalid heading if an error may repeat it: only if it is made of words, since a file without a heading
/// begins with a person's data.
pub(in crate::cli::submit) fn shown(name: &str) -> Option<String> {
    let (path, kind) = parted(name);
    let is_word = |word: &str| {
        (1..=WORD_CHARS_MAX).contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_alphabetic())
    };
    let is_repeatable = name.len() <= SHOWN_CHARS_MAX
        && path.split(['.', '_']).all(is_word)
        && kind.is_none_or(|kind| CellType::named(kind).is_some());
    is_repeatable.then(|| name.to_owned())
}

/// Inserts a value at its path, where nothing is in the way, because columns do not clash.
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
    use super::*;
    use crate::tools::catalogue::{CATALOGUE, find};

    fn parse(name: &str, subtool: &str) -> Result<Column, Unfit> {
        Column::parse(name, &SubtoolArguments::of(find(subtool).unwrap()))
    }

    #[test]
    fn a_heading_may_say_what_its_cells_are() {
        let rows = [
            ("profile.isContractor", CellType::Text),
            ("profile.isContractor:boolean", CellType::Boolean),
            ("profile.isContractor:BOOL", CellType::Boolean),
            ("profile.age:number", CellType::Number),
            ("profile.age:integer", CellType::Integer),
            ("profile.age:int", CellType::Integer),
            ("profile.roles:list", CellType::List),
            ("profile.roles:array", CellType::List),
            ("profile.employeeNumber:text", CellType::Text),
            ("profile.employeeNumber:string", CellType::Text),
            ("profile.address:json", CellType::Json),
            ("profile:json", CellType::Json),
            ("activate", CellType::Boolean),
            ("activate:boolean", CellType::Boolean),
            ("group_ids:list", CellType::List),
            ("group_ids:json", CellType::Json),
        ];
        for (name, kind) in rows {
            let column = parse(name, "create_user").expect(name);
            assert_eq!((column.kind, column.name.as_str()), (kind, name));
            assert!(!column.path.iter().any(|part| part.contains(':')), "{name}");
        }
        assert_eq!(parse("profile.age:years", "create_user").unwrap_err(), Unfit::NoType);
        assert_eq!(parse("profile.age:", "create_user").unwrap_err(), Unfit::NoType);
        assert_eq!(parse("activate:text", "create_user").unwrap_err(), Unfit::OtherType(CellType::Boolean));
        assert_eq!(parse("user_id:number", "get_user").unwrap_err(), Unfit::OtherType(CellType::Text));
    }

    #[test]
    fn ids_and_logins_are_trimmed_and_nothing_else_is() {
        let rows = [
            ("user_id", "get_user", true),
            ("group_id", "add_user_to_group", true),
            ("app_id", "assign_user_to_app", true),
            ("credentials.userName", "assign_user_to_app", true),
            ("profile.login", "create_user", true),
            ("profile.login", "update_user", true),
            ("type_id", "create_user", true),
            ("profile.login", "create_group", false),
            ("profile.title", "create_user", false),
            ("credentials.password.value", "create_user", false),
            ("name", "create_group", false),
        ];
        for (name, subtool, is_trimmed) in rows {
            let value = parse(name, subtool).unwrap().value("\u{a0} x\t").unwrap().unwrap();
            assert_eq!(value == "x", is_trimmed, "{name}: {value}");
        }
    }

    #[test]
    fn only_what_has_the_form_of_a_heading_is_repeated() {
        for name in ["user_id", "profile.isContractor:boolean", "usr_id", "Username"] {
            assert_eq!(shown(name).as_deref(), Some(name));
        }
        for name in [
            "",
            "First Name",
            "ana@x.example",
            "hunter2",
            "Tr0ub4dor&3",
            "correct-horse",
            "a..b",
            ":text",
            "x:hunter",
            "a\u{202e}b",
            &"x".repeat(65),
            &"x".repeat(25),
        ] {
            assert_eq!(shown(name), None, "{name}");
        }
    }

    #[test]
    fn no_subtool_has_an_argument_that_columns_do_not_know() {
        for entry in &CATALOGUE {
            for (name, schema) in SubtoolArguments::of(entry).arguments {
                let kind = CellType::of(&schema);
                let is_text = schema["type"] == "string" || schema["type"][0] == "string";
                let is_enum = schema.to_string().contains("const") || schema.to_string().contains("enum");
                assert!(
                    kind != CellType::Text || is_text || is_enum,
                    "{}: {name}: {schema}",
                    entry.manifest.name
                );
            }
        }
    }
}
