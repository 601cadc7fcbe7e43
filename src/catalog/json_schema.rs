//! One JSON Schema (2020-12) for everything that goes in and comes out.
//!
//! The document itself describes an invocation's body, so validating a body against it checks the
//! arguments of the subtool it names; its `$defs` hold the result message, and arguments and result of
//! each subtool.

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::domain::answer::Answer;
use crate::domain::envelope::{FIELDS_MAX, REASON_CHARS_MAX};
use crate::tools::catalogue::{CATALOGUE, Entry};

/// The document.
pub fn json_schema() -> Value {
    let mut defs = Map::new();
    defs.insert("options".into(), options());
    defs.insert("result".into(), result_message());
    for entry in &CATALOGUE {
        defs.insert(format!("{}.arguments", entry.manifest.name), bare((entry.arguments)().into()));
        defs.insert(format!("{}.result", entry.manifest.name), bare((entry.result)().into()));
    }
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "okta-worker",
        "description": "The body of an invocation. Result messages are `$defs/result`; arguments and result of each subtool are `$defs/<subtool>.arguments` and `$defs/<subtool>.result`.",
        "oneOf": CATALOGUE.iter().map(invocation).collect::<Vec<_>>(),
        "$defs": defs,
    })
}

/// The body of an invocation of one subtool.
fn invocation(entry: &Entry) -> Value {
    let name = entry.manifest.name;
    let arguments = (entry.arguments)();
    let needs_some =
        arguments.get("required").and_then(Value::as_array).is_some_and(|names| !names.is_empty());
    json!({
        "type": "object",
        "title": name,
        "description": entry.manifest.summary,
        "properties": {
            "subtool": { "const": name },
            "arguments": { "$ref": format!("#/$defs/{name}.arguments") },
            "options": { "$ref": "#/$defs/options" },
        },
        "required": if needs_some { vec!["subtool", "arguments"] } else { vec!["subtool"] },
        "additionalProperties": false,
    })
}

/// How an invocation wants to be run and answered. What is not supported yet is not in it.
fn options() -> Value {
    json!({
        "type": "object",
        "properties": {
            "deadline": { "type": "string", "format": "date-time", "description": "Work that has not begun by then is not begun." },
            "fields": {
                "type": "array", "items": { "type": "string", "minLength": 1 }, "maxItems": FIELDS_MAX,
                "description": "Dotted paths kept of each object in the result, such as `profile.email`; the rest is dropped."
            },
            "reason": {
                "type": "string", "maxLength": REASON_CHARS_MAX,
                "description": "Free text for the audit trail: a ticket number, an HR event."
            },
        },
        "additionalProperties": false,
    })
}

/// The body of a result message.
fn result_message() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.inline_subschemas = true;
        settings.contract = schemars::generate::Contract::Serialize;
    });
    bare(settings.into_generator().into_root_schema_for::<Answer>().into())
}

/// A schema as a part of the document: its own `$schema` goes.
fn bare(mut schema: Value) -> Value {
    if let Some(object) = schema.as_object_mut() {
        object.remove("$schema");
    }
    schema
}
