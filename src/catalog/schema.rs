//! Transformations of derived schemas for documents: they keep the set of valid values, but for keywords
//! that a document's reader does not support.

use schemars::Schema;
use serde_json::{Map, Value, json};

/// Returns a derived schema as a part of a document: without `$schema`, and without the widths of numbers,
/// which are not formats of JSON Schema.
pub(super) fn bare(schema: Schema) -> Value {
    let mut schema = Value::from(schema);
    each(&mut schema, &|part| {
        part.remove("$schema");
        let is_width = part.get("type").is_some_and(|kind| names_type(kind, "integer"));
        if is_width {
            part.remove("format");
        }
    });
    schema
}

/// Returns an equivalent schema with the fewest keywords, for models and intermediaries: no titles, a choice
/// of constants is an `enum`, and a nullable value says so in its `type`.
pub(super) fn plain(mut schema: Value) -> Value {
    each(&mut schema, &|part| {
        part.remove("title");
        lift_null(part);
        name_choices(part);
    });
    schema
}

/// Returns the schema for a model, in as few bytes as its reader needs: an optional value may be absent, and the server
/// checks bounds and takes `null` for absent in any case.
pub(super) fn brief(mut schema: Value) -> Value {
    each(&mut schema, &|part| {
        for keyword in ["minLength", "maxLength", "minItems", "minimum", "maximum"] {
            part.remove(keyword);
        }
        if let Some(Value::Array(kinds)) = part.get_mut("type") {
            kinds.retain(|kind| kind != "null");
            if let [only] = &kinds[..] {
                let only = only.clone();
                part.insert("type".into(), only);
            }
        }
        if let Some(Value::Array(values)) = part.get_mut("enum") {
            values.retain(|value| !value.is_null());
        }
        if part
            .get("default")
            .is_some_and(|value| value == &json!([]) || value == &json!(false) || value.is_null())
        {
            part.remove("default");
        }
    });
    schema
}

/// Changes a schema and every schema in it, outer ones first.
pub(super) fn each(schema: &mut Value, change: &impl Fn(&mut Map<String, Value>)) {
    let Some(part) = schema.as_object_mut() else { return };
    change(part);
    for (keyword, below) in part.iter_mut() {
        match (keyword.as_str(), below) {
            ("properties" | "$defs", Value::Object(named)) => {
                named.values_mut().for_each(|schema| each(schema, change));
            }
            ("anyOf" | "oneOf" | "allOf", Value::Array(forms)) => {
                forms.iter_mut().for_each(|schema| each(schema, change));
            }
            ("items" | "additionalProperties", below) => each(below, change),
            _ => {}
        }
    }
}

/// Returns true if a `type` names this type.
pub(super) fn names_type(kind: &Value, name: &str) -> bool {
    kind == name || kind.as_array().is_some_and(|kinds| kinds.iter().any(|kind| kind == name))
}

/// Adds a sentence to a schema's description.
pub(super) fn say(part: &mut Map<String, Value>, sentence: &str) {
    let said = part.get("description").and_then(Value::as_str).unwrap_or_default();
    let said = [said, sentence].join(" ").trim().to_owned();
    part.insert("description".into(), said.into());
}

/// Makes a schema accept `null`, too.
pub(super) fn allow_null(part: &mut Map<String, Value>) {
    match part.get_mut("type") {
        Some(Value::Array(kinds)) if !kinds.contains(&json!("null")) => kinds.push("null".into()),
        Some(Value::Array(_)) | None => {}
        Some(kind) => *kind = json!([kind, "null"]),
    }
    if let Some(Value::Array(values)) = part.get_mut("enum")
        && !values.contains(&Value::Null)
    {
        values.push(Value::Null);
    }
}

/// Replaces `anyOf` of a schema and `null` by that schema with `null` allowed.
fn lift_null(part: &mut Map<String, Value>) {
    let Some([form, null]) = part.get("anyOf").and_then(Value::as_array).map(Vec::as_slice) else { return };
    let Some(form) = form.as_object().filter(|_| *null == json!({ "type": "null" })).cloned() else { return };
    part.remove("anyOf");
    for (keyword, value) in form {
        part.entry(keyword).or_insert(value);
    }
    name_choices(part);
    allow_null(part);
}

/// Replaces `oneOf` of described constants by an `enum`, with their descriptions appended.
fn name_choices(part: &mut Map<String, Value>) {
    let Some(forms) = part.get("oneOf").and_then(Value::as_array) else { return };
    if !forms.iter().all(|form| form.get("const").is_some_and(Value::is_string)) {
        return;
    }
    let choices: Vec<Value> = forms.iter().map(|form| form["const"].clone()).collect();
    let described: Vec<String> = forms
        .iter()
        .filter_map(|form| Some(format!("`{}`: {}", form["const"].as_str()?, form["description"].as_str()?)))
        .collect();
    part.remove("oneOf");
    part.insert("type".into(), "string".into());
    part.insert("enum".into(), choices.into());
    say(part, &described.join(" "));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_that_may_be_absent_becomes_one_enum() {
        let derived = json!({
            "title": "T",
            "description": "The order.",
            "anyOf": [
                { "description": "An order.", "oneOf": [
                    { "const": "asc", "description": "Smallest first.", "type": "string" },
                    { "const": "desc", "description": "Largest first.", "type": "string" },
                ] },
                { "type": "null" },
            ],
        });
        let expected = json!({
            "description": "The order. `asc`: Smallest first. `desc`: Largest first.",
            "type": ["string", "null"],
            "enum": ["asc", "desc", null],
        });
        assert_eq!(plain(derived), expected);
    }

    #[test]
    fn a_property_may_be_called_like_a_keyword() {
        let schema = json!({ "properties": { "title": { "type": "string", "title": "T" } }, "default": { "title": 1 } });
        let expected = json!({ "properties": { "title": { "type": "string" } }, "default": { "title": 1 } });
        assert_eq!(plain(schema), expected);
    }
}
