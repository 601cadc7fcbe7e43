//! One JSON Schema (2020-12) for invocations and results.
//!
//! The document itself describes an invocation's body, so validating a body against it checks the
//! arguments of the named subtool; its `$defs` hold the result message, and arguments and result of
//! each subtool.

use serde_json::{Value, json};

use crate::tools::catalogue::{CATALOGUE, CatalogueEntry};

use super::message::definitions;
use super::schema::bare;

/// Returns the document.
pub fn json_schema() -> Value {
    let at = |name: &str| format!("#/$defs/{name}");
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "okta-worker",
        "description": "The body of an invocation. Result messages are `$defs/result`; arguments and result of each subtool are `$defs/<subtool>.arguments` and `$defs/<subtool>.result`.",
        "oneOf": CATALOGUE.iter().map(|entry| invocation(entry, at)).collect::<Vec<_>>(),
        "$defs": definitions(at),
    })
}

/// Returns the schemas of one subtool's arguments and result.
pub fn json_schema_of(entry: &CatalogueEntry) -> Value {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": entry.manifest.name,
        "description": entry.manifest.description(),
        "$defs": { "arguments": bare((entry.arguments)()), "result": bare((entry.result)()) },
        "properties": {
            "arguments": { "$ref": "#/$defs/arguments" },
            "result": { "$ref": "#/$defs/result" },
        },
    })
}

/// Returns the schema of one subtool's invocations; `at` maps a name to the location of its definition.
pub(super) fn invocation(entry: &CatalogueEntry, at: impl Fn(&str) -> String) -> Value {
    let name = entry.manifest.name;
    let arguments = (entry.arguments)();
    let needs_some =
        arguments.get("required").and_then(Value::as_array).is_some_and(|names| !names.is_empty());
    json!({
        "type": "object",
        "title": name,
        "description": entry.manifest.description(),
        "properties": {
            "subtool": { "const": name },
            "arguments": { "$ref": at(&format!("{name}.arguments")) },
            "options": { "$ref": at("options") },
        },
        "required": if needs_some { vec!["subtool", "arguments"] } else { vec!["subtool"] },
        "additionalProperties": false,
    })
}
