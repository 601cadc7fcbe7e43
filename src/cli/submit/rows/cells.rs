//! The cells of a column: conversion of a text to a JSON value, by the column's type.
//!
//! Errors name the type and never the text, which may be a secret.

use serde_json::Value;

/// The text for `null`.
const CLEARS: &str = "\\null";

/// The character between the items of a list.
const BETWEEN: char = ';';

/// The most digits that a number keeps exactly.
const DIGITS_MAX: usize = 15;

/// The type of a column's cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CellType {
    /// Text, unchanged.
    Text,
    /// `true` or `false`.
    Boolean,
    /// A whole number.
    Integer,
    /// A number.
    Number,
    /// A list of texts.
    List,
    /// Any JSON value.
    Json,
    /// An object whose attributes have columns of their own.
    Object,
}

/// The types that a heading may name, with their names there.
pub(super) const NAMES: &str = "`text`, `boolean`, `integer`, `number`, `list`, `json`";

impl CellType {
    /// Returns the type that a schema demands, ignoring alternatives such as `null`.
    pub fn of(schema: &Value) -> Self {
        if let Some(either) = schema["anyOf"].as_array().or_else(|| schema["oneOf"].as_array()) {
            let first = either.iter().find(|schema| schema["type"] != "null");
            return first.map_or(Self::Text, Self::of);
        }
        let name = match &schema["type"] {
            Value::Array(names) => names.iter().find(|name| *name != "null").unwrap_or(&Value::Null),
            name => name,
        };
        match name.as_str() {
            Some("boolean") => Self::Boolean,
            Some("integer") => Self::Integer,
            Some("number") => Self::Number,
            Some("array") => Self::List,
            Some("object") => Self::Object,
            _ => Self::Text,
        }
    }

    /// Returns the type that a heading names after its colon.
    pub fn named(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "text" | "string" => Some(Self::Text),
            "boolean" | "bool" => Some(Self::Boolean),
            "integer" | "int" => Some(Self::Integer),
            "number" => Some(Self::Number),
            "list" | "array" => Some(Self::List),
            "json" => Some(Self::Json),
            _ => None,
        }
    }

    /// Returns the name of the type, with its article.
    pub fn noun(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Boolean => "a boolean",
            Self::Integer => "an integer",
            Self::Number => "a number",
            Self::List => "a list",
            Self::Json => "JSON",
            Self::Object => "an object",
        }
    }

    /// Parses a cell; `None` if it is empty and so has no value.
    ///
    /// # Errors
    /// If the text is not of this type; the description does not repeat it.
    pub fn value(self, cell: &str) -> Result<Option<Value>, &'static str> {
        let bare = trimmed(cell);
        if cell.is_empty() || bare.is_empty() && self != Self::Text {
            return Ok(None);
        }
        if cell == CLEARS || bare == CLEARS && self != Self::Text {
            return Ok(Some(Value::Null));
        }
        let value = match self {
            Self::Text | Self::Object => Value::from(cell),
            Self::Boolean if bare.eq_ignore_ascii_case("true") => Value::Bool(true),
            Self::Boolean if bare.eq_ignore_ascii_case("false") => Value::Bool(false),
            Self::Boolean => return Err("is no boolean: it must be `true` or `false`"),
            Self::Integer => match number(bare)? {
                Some(number) if number.is_i64() || number.is_u64() => Value::Number(number),
                Some(_) | None => return Err("is no integer: it must be a whole number such as `42`"),
            },
            Self::Number => match number(bare)? {
                Some(number) => Value::Number(number),
                None => return Err("is no number: it must be one such as `42` or `0.5`"),
            },
            Self::List => {
                let items = bare.split(BETWEEN).map(trimmed).filter(|item| !item.is_empty());
                Value::from(items.collect::<Vec<_>>())
            }
            Self::Json => {
                serde_json::from_str(bare).map_err(|_| "is not JSON, which the heading says it is")?
            }
        };
        Ok(Some(value))
    }
}

/// Parses a number in JSON's notation: `007` and `1,000` are not numbers.
fn number(text: &str) -> Result<Option<serde_json::Number>, &'static str> {
    let Ok(number) = serde_json::from_str::<serde_json::Number>(text) else { return Ok(None) };
    let is_exact = number.is_i64() || number.is_u64();
    let digits = text.split(['e', 'E']).next().unwrap_or(text).bytes().filter(u8::is_ascii_digit).count();
    if !is_exact && digits > DIGITS_MAX {
        return Err("is a number with more digits than can be kept exactly");
    }
    Ok(Some(number))
}

/// Trims blanks at both ends, including invisible ones, which text from web pages and chats may contain.
pub(super) fn trimmed(text: &str) -> &str {
    text.trim_matches(|c: char| {
        c.is_whitespace()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_cell_is_read_by_its_type() {
        let rows = [
            (CellType::Text, " x ", json!(" x ")),
            (CellType::Text, "007", json!("007")),
            (CellType::Text, "true", json!("true")),
            (CellType::Text, " ", json!(" ")),
            (CellType::Boolean, "TRUE", json!(true)),
            (CellType::Boolean, " false\u{a0}", json!(false)),
            (CellType::Integer, "-42", json!(-42)),
            (CellType::Integer, "18446744073709551615", json!(u64::MAX)),
            (CellType::Number, "0.5", json!(0.5)),
            (CellType::Number, "42", json!(42)),
            (CellType::Number, "1e3", json!(1000.0)),
            (CellType::List, "a; b;;c ", json!(["a", "b", "c"])),
            (CellType::List, ";", json!([])),
            (CellType::Json, " {\"a\":[1,null]} ", json!({"a": [1, null]})),
            (CellType::Json, "\"\"", json!("")),
        ];
        for (kind, cell, value) in rows {
            assert_eq!(kind.value(cell), Ok(Some(value)), "{cell:?}");
        }
        for kind in [
            CellType::Text,
            CellType::Boolean,
            CellType::Integer,
            CellType::Number,
            CellType::List,
            CellType::Json,
        ] {
            assert_eq!(kind.value(""), Ok(None));
            assert_eq!(kind.value("\\null"), Ok(Some(Value::Null)), "{kind:?}");
            assert_eq!(kind.value("\u{a0}").unwrap().is_none(), kind != CellType::Text, "{kind:?}");
        }
    }

    #[test]
    fn a_cell_of_another_type_is_refused_without_being_repeated() {
        let rows = [
            (CellType::Boolean, "hunter2", "no boolean"),
            (CellType::Boolean, "1", "no boolean"),
            (CellType::Boolean, "yes", "no boolean"),
            (CellType::Integer, "hunter2", "no integer"),
            (CellType::Integer, "0.5", "no integer"),
            (CellType::Integer, "007", "no integer"),
            (CellType::Integer, "1,000", "no integer"),
            (CellType::Integer, "123456789012345678901", "more digits"),
            (CellType::Number, "hunter2", "no number"),
            (CellType::Number, "0x10", "no number"),
            (CellType::Number, "NaN", "no number"),
            (CellType::Number, "0.12345678901234567", "more digits"),
            (CellType::Json, "hunter2", "not JSON"),
            (CellType::Json, "[1", "not JSON"),
        ];
        for (kind, cell, words) in rows {
            let said = kind.value(cell).expect_err(cell);
            assert!(said.contains(words) && !said.contains(cell), "{cell}: {said}");
        }
    }

    #[test]
    fn blanks_that_cannot_be_seen_are_blanks() {
        assert_eq!(trimmed("\u{a0}\u{200b} ana \u{feff}\u{202f}\t"), "ana");
        assert_eq!(trimmed("\u{a0}\u{200b}"), "");
        assert_eq!(trimmed("a\u{a0}b"), "a\u{a0}b");
    }
}
