//! The result message as a schema, and the part of it that agents see.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema};
use serde_json::{Map, Value, json};

use crate::domain::bucket::Bucket;
use crate::domain::result::{Effect, Failure, ResultMessage, Status};
use crate::tools::ToolKind;
use crate::tools::catalogue::{CATALOGUE, CatalogueEntry};

use super::schema::{bare, plain};

/// Returns the schema of a result message; `at` maps a name to the location of its definition.
pub(super) fn result(at: impl Fn(&str) -> String) -> Value {
    let mut message = bare(written::<ResultMessage>());
    let properties = message["properties"].as_object_mut().expect("a message is an object");
    properties.insert("result".into(), json!({
        "description": "Of a success the subtool's result, of a plan the plan; `null` when it was too large (`result_omitted`).",
        "type": ["object", "null"],
    }));
    let mut rules = vec![
        json!({ "if": status(Status::Failed), "then": { "required": ["error"] } }),
        json!({
            "if": status(Status::Planned),
            "then": { "properties": { "result": { "$ref": at("plan") } }, "required": ["result"] },
        }),
        json!({ "if": status(Status::Succeeded), "then": { "required": ["result"] } }),
    ];
    for entry in &CATALOGUE {
        let name = entry.manifest.name;
        let mut of_this = status(Status::Succeeded);
        of_this["properties"]["subtool"] = json!({ "const": name });
        let result = json!({ "anyOf": [{ "$ref": at(&format!("{name}.result")) }, { "type": "null" }] });
        rules.push(json!({ "if": of_this, "then": { "properties": { "result": result } } }));
    }
    message["allOf"] = rules.into();
    message
}

/// Returns a schema that matches the messages with this status.
fn status(status: Status) -> Value {
    json!({ "properties": { "status": { "const": status.as_str() } }, "required": ["status"] })
}

/// Returns the schema of a dry run's plan.
pub(super) fn plan() -> Value {
    let mut error = plain(bare(written::<Failure>()));
    error["type"] = json!(["object", "null"]);
    plan_with(&error)
}

fn plan_with(error: &Value) -> Value {
    let mut error = error.clone();
    error["description"] = json!("The failure it would end with, as far as reading shows.");
    let lost = json!({
        "type": "array",
        "items": {
            "type": "object",
            "properties": { "id": { "type": "string" }, "name": { "type": ["string", "null"] } },
            "required": ["id", "name"],
        },
    });
    let buckets: Vec<&str> = Bucket::ALL.into_iter().map(Bucket::as_str).collect();
    json!({
        "type": "object",
        "description": "What would be done; nothing was written. Secrets are masked.",
        "properties": {
            "requests": {
                "type": "array",
                "description": "The writes that would be sent, in order.",
                "items": {
                    "type": "object",
                    "properties": {
                        "method": { "type": "string" },
                        "path": { "type": "string" },
                        "query": {
                            "type": "object", "additionalProperties": { "type": "string" },
                            "description": "The query, by name.",
                        },
                        "body": { "description": "The body as JSON; `null` without one." },
                    },
                    "required": ["method", "path", "query", "body"],
                },
            },
            "predicted": {
                "type": "object",
                "description": "How it would end.",
                "properties": { "effect": effect(), "error": error },
                "required": ["effect", "error"],
            },
            "calls": {
                "type": "object",
                "description": "Requests to Okta, by bucket, those that only read among them.",
                "propertyNames": { "enum": buckets },
                "additionalProperties": { "type": "integer", "minimum": 0 },
            },
            "loses": {
                "type": "object",
                "description": "What the user or group would lose.",
                "properties": { "groups": lost, "apps": lost },
                "required": ["groups", "apps"],
            },
            "not_checked": {
                "type": "array", "items": { "type": "string" },
                "description": "What only Okta itself can tell.",
            },
        },
        "required": ["requests", "predicted", "calls", "loses", "not_checked"],
    })
}

fn effect() -> Value {
    let effects = [Effect::None, Effect::Applied, Effect::Unchanged, Effect::Unknown];
    json!({
        "type": "string",
        "enum": effects.map(Effect::as_str),
        "description": "What changed: `applied` means that Okta changed it or accepted to, `unchanged` that it was so already, `unknown` that nobody can tell.",
    })
}

/// Returns the schema of the part of a result message that an agent sees: status, and result or error. It says no more
/// of the result than that it is an object: the schemas of all tools are in a model's context for its whole session.
pub(super) fn of_a_tool(entry: &CatalogueEntry) -> Value {
    let mut statuses = vec![Status::Succeeded, Status::Failed];
    if entry.manifest.kind != ToolKind::Read {
        statuses.push(Status::Planned);
    }
    let statuses: Vec<&str> = statuses.into_iter().map(Status::as_str).collect();
    json!({
        "type": "object",
        "properties": {
            "status": { "enum": statuses },
            "effect": { "type": "string" },
            "result": { "type": ["object", "null"] },
            "error": { "required": ["code", "message"] },
        },
        "required": ["status", "effect"],
    })
}

/// Returns the schema of a type as the worker serializes it.
fn written<T: JsonSchema>() -> Schema {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.inline_subschemas = true;
        settings.contract = schemars::generate::Contract::Serialize;
    });
    settings.into_generator().into_root_schema_for::<T>()
}

/// Returns the definitions of a document, by name: options, the plan, the result message, and arguments and
/// result of each subtool. `at` maps a name to the location of its definition.
pub(super) fn definitions(at: impl Fn(&str) -> String) -> Map<String, Value> {
    let mut all = Map::new();
    all.insert("options".into(), super::options::all());
    all.insert("plan".into(), plan());
    all.insert("result".into(), result(at));
    for entry in &CATALOGUE {
        all.insert(format!("{}.arguments", entry.manifest.name), bare((entry.arguments)()));
        all.insert(format!("{}.result", entry.manifest.name), bare((entry.result)()));
    }
    all
}
