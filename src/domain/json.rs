//! JSON that is passed on without being interpreted.
//!
//! Okta's JSON comes out byte for byte: numbers such as `1e3`, twenty-digit ids, key order and
//! unknown fields survive, because values stay raw text and are only cut at value boundaries.

use std::fmt;

use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// Serializes one of our own values.
pub fn to_vec(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("our own types have string keys and no failing serializer")
}

/// Serializes one of our own values with a known approximate length, so that the buffer does not reallocate
/// as it grows.
pub fn to_vec_of(value: &impl Serialize, bytes: usize) -> Vec<u8> {
    let mut text = Vec::with_capacity(bytes);
    serde_json::to_writer(&mut text, value)
        .expect("our own types have string keys and no failing serializer");
    text
}

/// Serializes one of our own values to raw JSON.
pub fn to_raw(value: &impl Serialize) -> Box<RawValue> {
    serde_json::value::to_raw_value(value).expect("our own types have string keys and no failing serializer")
}

/// Returns true if brackets nest deeper than `max`. Strings do not count; the text need not be valid JSON.
pub fn is_deeper_than(text: &[u8], max: usize) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                depth += 1;
                if depth > max {
                    return true;
                }
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

/// The error message for an object with a repeated key.
const REPEATED: &str = "a name stands there twice";

/// A JSON object whose values stay raw and whose keys keep their order. A repeated key is refused.
#[derive(Clone, Default)]
pub struct Object(Vec<(String, Box<RawValue>)>);

impl Object {
    /// Returns the raw value of a key.
    pub fn get(&self, key: &str) -> Option<&RawValue> {
        self.0.iter().find(|(known, _)| known == key).map(|(_, value)| &**value)
    }

    /// Returns the value of a key if it is a string.
    pub fn text(&self, key: &str) -> Option<String> {
        serde_json::from_str(self.get(key)?.get()).ok()
    }

    /// Sets a key: in place if it exists, otherwise at the end.
    pub fn set(&mut self, key: &str, value: Box<RawValue>) {
        match self.0.iter_mut().find(|(known, _)| known == key) {
            Some((_, old)) => *old = value,
            None => self.0.push((key.to_owned(), value)),
        }
    }

    /// Removes a key; the other keys keep their order.
    pub fn remove(&mut self, key: &str) {
        self.0.retain(|(known, _)| known != key);
    }

    /// Sets every key of `other`.
    pub fn merge(&mut self, other: &Self) {
        for (key, value) in &other.0 {
            self.set(key, value.clone());
        }
    }

    /// Returns true if there are no keys.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Iterates over keys and raw values in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &RawValue)> {
        self.0.iter().map(|(key, value)| (key.as_str(), &**value))
    }
}

/// Shows only the keys: values may be secrets.
impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.iter().map(|(key, _)| key)).finish()
    }
}

impl Serialize for Object {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (key, value) in &self.0 {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Object;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut seen = std::collections::HashSet::new();
                let mut entries = Vec::new();
                while let Some((key, value)) = map.next_entry::<String, Box<RawValue>>()? {
                    if !seen.insert(key.clone()) {
                        // The name is the caller's, so the message gives the member's number instead.
                        let number = entries.len() + 1;
                        return Err(A::Error::custom(format!("{REPEATED}: member {number} of the object")));
                    }
                    entries.push((key, value));
                }
                Ok(Object(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

impl schemars::JsonSchema for Object {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Object".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "object", "additionalProperties": true })
    }
}

/// Returns a valid JSON text with line breaks and indentation; numbers, strings and the order of names stay as they
/// are.
pub fn indented(text: &str) -> String {
    let (mut out, mut depth, mut in_string, mut is_escaped) = (String::new(), 0_usize, false, false);
    let mut rest = text.chars().filter(|c| !c.is_ascii_control()).peekable();
    let line = |out: &mut String, depth: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n("  ", depth));
    };
    while let Some(c) = rest.next() {
        if in_string {
            out.push(c);
            in_string = is_escaped || c != '"';
            is_escaped = c == '\\' && !is_escaped;
            continue;
        }
        match c {
            '{' | '[' => {
                out.push(c);
                if let Some(end) = rest.next_if(|next| matches!(next, '}' | ']')) {
                    out.push(end);
                } else {
                    depth += 1;
                    line(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                line(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(c);
                line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            ' ' => {}
            _ => {
                in_string = c == '"';
                out.push(c);
            }
        }
    }
    out
}

/// Returns the value with strings and numbers replaced where `change` returns a new text. All other bytes stay, and
/// so do names. `change` receives the names on the path and the text; for a number, first its text as written and then
/// its parsed value, if that is written differently.
pub fn rewritten(raw: &RawValue, change: &mut dyn FnMut(&[String], &str) -> Option<String>) -> Box<RawValue> {
    let mut out = String::with_capacity(raw.get().len());
    rewrite(raw.get(), &mut Vec::new(), change, &mut out);
    RawValue::from_string(out).expect("put together along the borders of valid JSON")
}

/// Returns the value with names replaced where `change` returns another one; all other bytes stay.
pub fn renamed(raw: &RawValue, change: &mut dyn FnMut(&str) -> Option<String>) -> Box<RawValue> {
    let mut out = String::with_capacity(raw.get().len());
    rename(raw.get(), change, &mut out);
    RawValue::from_string(out).expect("put together along the borders of valid JSON")
}

fn rename(text: &str, change: &mut dyn FnMut(&str) -> Option<String>, out: &mut String) {
    match text.as_bytes().first() {
        Some(b'{') => {
            // A name with a lone surrogate is valid JSON but not a valid string.
            let Ok(Entries(entries)) = serde_json::from_str(text) else { return out.push_str(text) };
            let mut between = '{';
            for (key, value) in entries {
                out.push(between);
                out.push_str(&quoted(&change(&key).unwrap_or(key)));
                out.push(':');
                rename(value.get(), change, out);
                between = ',';
            }
            out.push_str(if between == '{' { "{}" } else { "}" });
        }
        Some(b'[') => {
            let Items(items) = serde_json::from_str(text).expect("an array of a valid JSON text");
            let mut between = '[';
            for item in items {
                out.push(between);
                rename(item.get(), change, out);
                between = ',';
            }
            out.push_str(if between == '[' { "[]" } else { "]" });
        }
        Some(_) | None => out.push_str(text),
    }
}

fn rewrite(
    text: &str,
    path: &mut Vec<String>,
    change: &mut dyn FnMut(&[String], &str) -> Option<String>,
    out: &mut String,
) {
    let changed = match text.as_bytes().first() {
        Some(b'{') => {
            // A name with a lone surrogate is valid JSON but not a valid string.
            let Ok(Entries(entries)) = serde_json::from_str(text) else { return out.push_str(text) };
            let mut between = '{';
            for (key, value) in entries {
                out.push(between);
                out.push_str(&quoted(&key));
                out.push(':');
                path.push(key);
                rewrite(value.get(), path, change, out);
                path.pop();
                between = ',';
            }
            return out.push_str(if between == '{' { "{}" } else { "}" });
        }
        Some(b'[') => {
            let Items(items) = serde_json::from_str(text).expect("an array of a valid JSON text");
            let mut between = '[';
            for item in items {
                out.push(between);
                rewrite(item.get(), path, change, out);
                between = ',';
            }
            return out.push_str(if between == '[' { "[]" } else { "]" });
        }
        // A lone surrogate is valid JSON but not a valid string.
        Some(b'"') => serde_json::from_str::<String>(text).ok().and_then(|text| change(path, &text)),
        Some(b'-' | b'0'..=b'9') => change(path, text).or_else(|| {
            let read = serde_json::from_str::<serde_json::Number>(text).ok()?.to_string();
            (read != text).then(|| change(path, &read)).flatten()
        }),
        _ => None,
    };
    match changed {
        Some(changed) => out.push_str(&quoted(&changed)),
        None => out.push_str(text),
    }
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a string serializes")
}

/// A projection of a value by `options.fields`, as a tree of its dotted paths.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Fields {
    /// The whole value.
    #[default]
    Whole,
    /// Only these keys of an object, each projected by its own tree.
    Parts(Vec<(String, Fields)>),
}

impl Fields {
    /// Parses dotted paths such as `profile.email`.
    ///
    /// # Errors
    /// If a path is empty or has an empty part; the number is the index of the path in the list.
    pub fn parse(paths: &[String]) -> Result<Self, usize> {
        let mut root = Self::Parts(Vec::new());
        for (at, path) in paths.iter().enumerate() {
            if path.split('.').any(str::is_empty) {
                return Err(at);
            }
            root.keep(Some(path));
        }
        Ok(root)
    }

    /// Adds the rest of a path; an empty rest keeps the whole value, and a whole value stays whole.
    fn keep(&mut self, path: Option<&str>) {
        let Some(path) = path else { return *self = Self::Whole };
        let Self::Parts(parts) = self else { return };
        let (head, rest) = path.split_once('.').map_or((path, None), |(head, rest)| (head, Some(rest)));
        let at = parts.iter().position(|(known, _)| known == head).unwrap_or_else(|| {
            parts.push((head.to_owned(), Self::Parts(Vec::new())));
            parts.len() - 1
        });
        parts[at].1.keep(rest);
    }

    /// Returns the projection of an owned value, which is passed on unchanged if it is kept whole.
    pub fn cut(&self, raw: Box<RawValue>) -> Box<RawValue> {
        match self {
            Self::Whole => raw,
            Self::Parts(_) => self.project(&raw),
        }
    }

    /// Returns the projection of a value: of an object the named fields, of an array each item projected
    /// the same way; any other value stays.
    pub fn project(&self, raw: &RawValue) -> Box<RawValue> {
        let text = raw.get();
        let Self::Parts(parts) = self else { return raw.to_owned() };
        let mut out = String::new();
        match text.as_bytes().first() {
            Some(b'{') => match serde_json::from_str::<Entries<'_>>(text) {
                Ok(entries) => write_parts(parts, &entries, &mut out),
                Err(_) => out.push_str(text),
            },
            Some(b'[') => match serde_json::from_str::<Items<'_>>(text) {
                Ok(items) => {
                    out.push('[');
                    for (at, item) in items.0.iter().enumerate() {
                        if at > 0 {
                            out.push(',');
                        }
                        out.push_str(self.project(item).get());
                    }
                    out.push(']');
                }
                Err(_) => out.push_str(text),
            },
            _ => out.push_str(text),
        }
        RawValue::from_string(out).expect("cut along the borders of valid JSON")
    }
}

/// Writes the named entries of an object, in the object's order.
fn write_parts(parts: &[(String, Fields)], entries: &Entries<'_>, out: &mut String) {
    out.push('{');
    let mut first = true;
    for (key, value) in &entries.0 {
        let Some((_, below)) = parts.iter().find(|(name, _)| name == key) else { continue };
        if !first {
            out.push(',');
        }
        first = false;
        out.push_str(&quoted(key));
        out.push(':');
        out.push_str(below.project(value).get());
    }
    out.push('}');
}

/// The entries of an object, borrowed, including repeated keys.
struct Entries<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Entries<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Borrowed<'a>(std::marker::PhantomData<&'a ()>);
        impl<'de: 'a, 'a> Visitor<'de> for Borrowed<'a> {
            type Value = Entries<'a>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries<'a>, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(Borrowed(std::marker::PhantomData))
    }
}

/// The names of an object's members, in order, including repeated ones.
#[derive(Default)]
pub struct Names(pub Vec<String>);

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Entries(entries) = Entries::deserialize(deserializer)?;
        Ok(Self(entries.into_iter().map(|(name, _)| name).collect()))
    }
}

/// The items of an array, borrowed.
struct Items<'a>(Vec<&'a RawValue>);

impl<'de: 'a, 'a> Deserialize<'de> for Items<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Borrowed<'a>(std::marker::PhantomData<&'a ()>);
        impl<'de: 'a, 'a> Visitor<'de> for Borrowed<'a> {
            type Value = Items<'a>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Items<'a>, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    items.push(item);
                }
                Ok(Items(items))
            }
        }
        deserializer.deserialize_seq(Borrowed(std::marker::PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).unwrap()
    }

    fn fields(paths: &[&str]) -> Fields {
        Fields::parse(&paths.iter().map(|path| (*path).to_owned()).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn fields_keep_the_bytes_of_what_they_keep() {
        let user =
            raw(r#"{"id":"00u1","n":1e3,"profile":{"email":"a@b","big":12345678901234567890},"x":null}"#);
        assert_eq!(
            fields(&["n", "profile.big"]).project(&user).get(),
            r#"{"n":1e3,"profile":{"big":12345678901234567890}}"#
        );
    }

    #[test]
    fn what_is_not_rewritten_stays_byte_for_byte() {
        let text =
            r#"{"b":[1e3,12345678901234567890,"\u00e9",{}],"a":{"b":"x","b":null},"c":[],"d":"\ud800"}"#;
        assert_eq!(rewritten(&raw(text), &mut |_, _| None).get(), text);
        let mut heard = Vec::new();
        let changed = rewritten(&raw(text), &mut |path, text| {
            heard.push(format!("{} {text}", path.join(".")));
            (text == "x" || text == "1000.0").then(|| "y".to_owned())
        });
        assert_eq!(changed.get(), text.replace("1e3", "\"y\"").replace("\"x\"", "\"y\""));
        let heard: Vec<&str> = heard.iter().map(String::as_str).collect();
        assert_eq!(heard, ["b 1e3", "b 1000.0", "b 12345678901234567890", "b é", "a.b x"]);
    }

    #[test]
    fn a_whole_object_outweighs_its_parts_in_either_order() {
        let user = raw(r#"{"profile":{"email":"a","login":"b"}}"#);
        for paths in [["profile", "profile.email"], ["profile.email", "profile"]] {
            assert_eq!(fields(&paths).project(&user).get(), user.get());
        }
        assert_eq!(fields(&["profile.email", "profile.login"]).project(&user).get(), user.get());
    }

    #[test]
    fn arrays_are_cut_item_by_item() {
        let events = raw(r#"{"target":[{"id":"1","type":"User"},{"id":"2"}]}"#);
        assert_eq!(fields(&["target.id"]).project(&events).get(), r#"{"target":[{"id":"1"},{"id":"2"}]}"#);
    }

    #[test]
    fn an_indented_text_is_the_same_json() {
        let text = r#"{"a":[1e3,12345678901234567890,{}],"b":"x, {\"y\": [\\\\]}","c":{"d":[]},"e":null}"#;
        let shown = "{\n  \"a\": [\n    1e3,\n    12345678901234567890,\n    {}\n  ],\n  \"b\": \"x, {\\\"y\\\": [\\\\\\\\]}\",\n  \
                     \"c\": {\n    \"d\": []\n  },\n  \"e\": null\n}";
        assert_eq!(indented(text), shown);
        assert_eq!(indented(&indented(text)), shown);
        let read = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(read(&indented(text)), read(text));
    }

    #[test]
    fn empty_paths_are_refused() {
        assert_eq!(Fields::parse(&["id".into(), "profile.".into()]), Err(1));
    }

    #[test]
    fn depth_counts_brackets_outside_strings() {
        assert!(is_deeper_than(&[b'['; 100_000], 64));
        assert!(!is_deeper_than(br#"{"a":"[[[[\"[[["}"#, 1));
        assert!(is_deeper_than(br#"{"a":[]}"#, 1));
    }

    #[test]
    fn objects_merge_in_order_and_refuse_repeated_keys() {
        let mut base: Object = serde_json::from_str(r#"{"name":"a","x":1e3}"#).unwrap();
        base.merge(&serde_json::from_str(r#"{"name":"b","y":null}"#).unwrap());
        assert_eq!(serde_json::to_string(&base).unwrap(), r#"{"name":"b","x":1e3,"y":null}"#);
        assert!(serde_json::from_str::<Object>(r#"{"a":1,"a":2}"#).is_err());
    }
}
