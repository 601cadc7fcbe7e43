//! The subtools as function tools of OpenAI's Responses API.
//!
//! A model's call holds an invocation's `arguments`. Strict mode forces a model to follow the schema,
//! but does not support open objects: it is on exactly if no argument is one, because a profile may hold any
//! attribute of the org. A strict schema requires every argument; the model sends `null` for an omitted one,
//! which counts as absent.

use serde_json::{Map, Value, json};

use crate::tools::catalogue::CatalogueEntry;

use super::schema::{allow_null, bare, each, names_type, plain, say};

/// Returns the array for the field `tools` of a request.
pub fn tools<'a>(entries: impl IntoIterator<Item = &'a CatalogueEntry>) -> Value {
    entries.into_iter().map(tool).collect()
}

/// Returns one subtool as a function tool.
pub fn tool(entry: &CatalogueEntry) -> Value {
    let mut parameters = plain(bare((entry.arguments)()));
    let strict = !has_open_object(&parameters);
    if strict {
        each(&mut parameters, &make_strict);
    }
    if let Some(part) = parameters.as_object_mut() {
        part.remove("description"); // the tool's own says more
    }
    json!({
        "type": "function",
        "name": entry.manifest.name,
        "description": entry.manifest.description(),
        "parameters": parameters,
        "strict": strict,
    })
}

/// Returns true if some object in the schema accepts properties that it does not name.
fn has_open_object(schema: &Value) -> bool {
    let found = std::cell::Cell::new(false);
    each(&mut schema.clone(), &|part| {
        let is_object = part.get("type").is_some_and(|kind| names_type(kind, "object"));
        if is_object && part.get("additionalProperties") != Some(&Value::Bool(false)) {
            found.set(true);
        }
    });
    found.get()
}

/// Marks every property of an object as required, lets optional ones be `null`, and turns keywords that the
/// dialect does not support, or did not for some models, into words.
fn make_strict(part: &mut Map<String, Value>) {
    if let Some(default) = part.remove("default").filter(|default| !default.is_null()) {
        say(part, &format!("`null` means {default}."));
    }
    for (least, most, unit) in [
        ("minimum", "maximum", ""),
        ("minLength", "maxLength", " characters"),
        ("minItems", "maxItems", " items"),
    ] {
        match (part.remove(least), part.remove(most)) {
            (Some(least), Some(most)) => say(part, &format!("Between {least} and {most}{unit}.")),
            (Some(least), None) => say(part, &format!("At least {least}{unit}.")),
            (None, Some(most)) => say(part, &format!("At most {most}{unit}.")),
            (None, None) => {}
        }
    }
    if let Some(format) = part.remove("format").as_ref().and_then(Value::as_str) {
        say(part, &format!("A {format}."));
    }
    if !part.get("type").is_some_and(|kind| names_type(kind, "object")) {
        return;
    }
    let required = part.get("required").and_then(Value::as_array).cloned().unwrap_or_default();
    let properties = part.entry("properties").or_insert_with(|| json!({}));
    let properties = properties.as_object_mut().expect("properties are an object");
    for (name, property) in properties.iter_mut() {
        if let Some(property) = property.as_object_mut().filter(|_| !required.contains(&json!(name))) {
            allow_null(property);
        }
    }
    let names: Vec<Value> = properties.keys().cloned().map(Value::from).collect();
    part.insert("required".into(), names.into());
}
