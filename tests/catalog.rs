//! The catalogue's documents: they say what the types say, and the copies in docs/ are up to date.

use std::fs;

use jsonschema::Validator;
use okta_worker::catalog::{json_schema, markdown};
use okta_worker::tools::catalogue::CATALOGUE;
use serde_json::{Value, json};

fn validator(schema: &Value) -> Validator {
    jsonschema::draft202012::new(schema).expect("the document is a JSON Schema")
}

fn example(subtool: &str, arguments: &str) -> Value {
    let arguments: Value = serde_json::from_str(arguments).expect("examples are JSON");
    json!({ "subtool": subtool, "arguments": arguments })
}

/// Compares a file with what the program says, or writes it when `UPDATE_DOCS` is set.
fn compare(file: &str, says: &str) {
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(file, says).expect("docs/ is writable");
    }
    let there = fs::read_to_string(file).unwrap_or_default();
    assert!(there == says, "{file} is out of date: run `UPDATE_DOCS=1 cargo test --test catalog`");
}

#[test]
fn the_copies_in_docs_are_up_to_date() {
    compare("docs/subtools.md", &markdown());
    compare("docs/okta-worker.schema.json", &format!("{:#}\n", json_schema()));
}

#[test]
fn every_example_is_a_valid_invocation() {
    let validator = validator(&json_schema());
    for entry in &CATALOGUE {
        for arguments in entry.manifest.examples {
            let body = example(entry.manifest.name, arguments);
            assert!(validator.is_valid(&body), "{body}");
        }
    }
}

#[test]
fn what_the_worker_refuses_the_schema_refuses_too() {
    let validator = validator(&json_schema());
    let good = example("get_user", r#"{"user_id":"jane@example.com"}"#);
    let with = |name: &str, value: Value| {
        let mut body = good.clone();
        body[name] = value;
        body
    };
    let bad = [
        example("crate_user", "{}"),
        example("get_user", "{}"),
        example("get_user", r#"{"user_id":""}"#),
        example("get_user", r#"{"user_id":7}"#),
        example("get_user", r#"{"user_id":"a","x":1}"#),
        example("list_users", r#"{"limit":0}"#),
        with("extra", json!(1)),
        with("options", json!({"stream": true})),
        with("options", json!({"fields": "id"})),
        with("options", Value::Null),
    ];
    for body in bad {
        assert!(!validator.is_valid(&body), "{body}");
    }
    assert!(validator.is_valid(&with("options", json!({"fields": ["id"], "reason": "HR-1"}))));
}

#[test]
fn every_subtool_has_its_schemas_in_the_document() {
    let document = json_schema();
    for entry in &CATALOGUE {
        for part in ["arguments", "result"] {
            let definition = &document["$defs"][format!("{}.{part}", entry.manifest.name)];
            validator(definition);
            assert_eq!(definition["type"], "object", "{} {part}", entry.manifest.name);
        }
    }
}

#[test]
fn a_result_message_fits_its_schema() {
    let document = json_schema();
    let validator = validator(&json!({ "$ref": "#/$defs/result", "$defs": document["$defs"] }));
    let failed = json!({
        "id": "1", "connection": "prod", "subtool": null, "status": "failed", "effect": "none",
        "error": { "code": "not_found", "message": "m", "retryable": false, "retry_at": null,
                   "path": null, "okta": null },
        "attempts": 1, "okta_calls": 1, "waited_ms": 0, "duration_ms": 1, "rate_limit": null,
        "okta_request_ids": []
    });
    assert!(validator.is_valid(&failed));
    let mut odd = failed.clone();
    odd["status"] = json!("done");
    assert!(!validator.is_valid(&odd));
}
