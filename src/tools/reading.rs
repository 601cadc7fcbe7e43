//! Arguments as models send them: an empty text for an absent value, and numbers, Booleans, objects and lists as
//! text.
//!
//! Follows the schema of the arguments and changes nothing inside them, so a profile stays as sent. Only a text with
//! an unambiguous meaning is converted; all other values stay, for the parser of the arguments to refuse.

use serde_json::Value;
use serde_json::value::RawValue;

use crate::domain::invocation::BODY_DEPTH_MAX;
use crate::domain::json::{self, Object};

/// The JSON type of an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum JsonType {
    /// A string or an enumeration of strings.
    Text,
    Flag,
    Integer,
    List,
    Object,
}

impl JsonType {
    /// Reads the type of a schema, ignoring that it may also be `null`.
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
            Some("array") => Self::List,
            Some("object") => Self::Object,
            Some(_) | None => Self::Text,
        }
    }

    /// Converts a text to JSON of this type; `None` if it is ambiguous.
    fn read(self, text: &str) -> Option<Box<RawValue>> {
        let text = text.trim();
        match self {
            Self::Text => None,
            Self::Flag if text.eq_ignore_ascii_case("true") => Some(json::to_raw(&true)),
            Self::Flag if text.eq_ignore_ascii_case("false") => Some(json::to_raw(&false)),
            Self::Flag => None,
            Self::Integer => text.parse::<i64>().ok().map(|number| json::to_raw(&number)),
            Self::List => document(text, '['),
            Self::Object => document(text, '{'),
        }
    }
}

/// Returns a text that is a JSON document with this first character, nested no deeper than a body may be.
fn document(text: &str, begins: char) -> Option<Box<RawValue>> {
    let is_flat = text.starts_with(begins) && !json::is_deeper_than(text.as_bytes(), BODY_DEPTH_MAX);
    is_flat.then(|| RawValue::from_string(text.to_owned()).ok()).flatten()
}

/// One argument.
#[derive(Debug)]
struct ArgumentShape {
    name: String,
    kind: JsonType,
    /// True if an empty text means absent.
    is_absent_when_empty: bool,
}

/// The arguments of a subtool and their types.
#[derive(Debug)]
pub struct Shape(Vec<ArgumentShape>);

impl Shape {
    /// Reads the schema of an object. An empty text means absent for an optional member, except for the members in
    /// `meaningful_when_empty`.
    pub fn of(schema: &Value, meaningful_when_empty: &[&str]) -> Self {
        let required = schema["required"].as_array().map(Vec::as_slice).unwrap_or_default();
        let argument = |(name, schema): (&String, &Value)| ArgumentShape {
            name: name.clone(),
            kind: JsonType::of(schema),
            is_absent_when_empty: !required.iter().any(|required| required == name)
                && !meaningful_when_empty.contains(&name.as_str()),
        };
        Self(schema["properties"].as_object().into_iter().flatten().map(argument).collect())
    }

    /// Returns the names of all members.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|argument| argument.name.as_str())
    }

    /// Returns the object with its members converted to the types of the schema, if unambiguous; `None` if nothing
    /// changes.
    pub fn typed(&self, raw: &RawValue) -> Option<Box<RawValue>> {
        let mut object: Object = serde_json::from_str(raw.get()).ok()?;
        let mut is_changed = false;
        for ArgumentShape { name, kind, is_absent_when_empty } in &self.0 {
            let Some(value) = object.get(name) else { continue };
            if *kind == JsonType::Integer
                && let Some(number) = whole(value.get())
            {
                object.set(name, number);
                is_changed = true;
                continue;
            }
            let Some(text) = object.text(name) else { continue };
            if text.is_empty() && *is_absent_when_empty {
                object.remove(name);
                is_changed = true;
            } else if let Some(value) = kind.read(&text) {
                object.set(name, value);
                is_changed = true;
            }
        }
        is_changed.then(|| json::to_raw(&object))
    }
}

/// Converts a number such as `5.0` to the integer that it is in JSON Schema.
fn whole(raw: &str) -> Option<Box<RawValue>> {
    /// The bound above which 64-bit floating point has no exact integers.
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    if !raw.starts_with(|c: char| c.is_ascii_digit() || c == '-') || !raw.contains(['.', 'e', 'E']) {
        return None;
    }
    let number: f64 = raw.parse().ok()?;
    let is_whole = number.fract() == 0.0 && number.abs() < EXACT_MAX;
    is_whole.then(|| RawValue::from_string(format!("{number:.0}")).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn typed(value: &str) -> String {
        let schema = json!({
            "properties": {
                "id": { "type": "string" },
                "q": { "type": ["string", "null"] },
                "note": { "type": ["string", "null"] },
                "order": { "anyOf": [{ "oneOf": [{ "const": "asc", "type": "string" }] }, { "type": "null" }] },
                "limit": { "type": ["integer", "null"] },
                "activate": { "type": ["boolean", "null"] },
                "profile": { "type": "object" },
                "more": { "type": ["object", "null"] },
                "groups": { "type": ["array", "null"] },
            },
            "required": ["id", "profile"],
        });
        let raw: &RawValue = serde_json::from_str(value).unwrap();
        Shape::of(&schema, &["note"])
            .typed(raw)
            .map_or_else(|| value.to_owned(), |typed| typed.get().to_owned())
    }

    #[test]
    fn what_can_have_one_meaning_alone_is_taken() {
        let rows = [
            (
                r#"{"q":"","order":"","limit":"","activate":"","more":"","groups":"","id":"x"}"#,
                r#"{"id":"x"}"#,
            ),
            (r#"{"limit":"5","activate":"true"}"#, r#"{"limit":5,"activate":true}"#),
            (r#"{"limit":" 5 ","activate":"False"}"#, r#"{"limit":5,"activate":false}"#),
            (r#"{"limit":5.0}"#, r#"{"limit":5}"#),
            (r#"{"limit":1e3}"#, r#"{"limit":1000}"#),
            (r#"{"profile":"{\"a\":1e3}","groups":"[\"g\"]"}"#, r#"{"profile":{"a":1e3},"groups":["g"]}"#),
            (r#"{"more":" {\"password\":\"\\\"\"}"}"#, r#"{"more":{"password":"\""}}"#),
        ];
        for (sent, taken) in rows {
            assert_eq!(typed(sent), taken);
        }
        let same = [
            r#"{"id":"","note":"","profile":""}"#,
            r#"{"limit":"many","activate":"yes"}"#,
            r#"{"limit":5.5,"activate":1}"#,
            r#"{"limit":"5.0"}"#,
            r#"{"profile":{"age":"5","note":"","flag":"true","list":"[1]"}}"#,
            r#"{"profile":"[]","groups":"{}"}"#,
            r#"{"profile":"{","groups":"g"}"#,
            r#"{"id":"5","q":"true"}"#,
            r#"{"id":"x","id":"y"}"#,
            r#"{"unknown":"5"}"#,
        ];
        for sent in same {
            assert_eq!(typed(sent), sent);
        }
        let deep = format!(r#"{{"profile":"{}"}}"#, r#"{\"a\":"#.repeat(BODY_DEPTH_MAX + 1));
        assert_eq!(typed(&deep), deep);
    }
}
