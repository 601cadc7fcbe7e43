//! The catalogue's documents: they say what the types say, and the copies in docs/ are up to date.

use std::fs;

use jsonschema::Validator;
use okta_worker::catalog::{asyncapi, json_schema, markdown, mcp, openai};
use okta_worker::tools::catalogue::{CATALOGUE, CatalogueEntry};
use okta_worker::tools::{Idempotency, ToolKind};
use serde_json::value::to_raw_value;
use serde_json::{Map, Value, json};

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
    for (file, document) in [
        ("docs/okta-worker.schema.json", json_schema()),
        ("docs/mcp-tools.json", mcp::tools(&CATALOGUE)),
        ("docs/openai-tools.json", openai::tools(&CATALOGUE)),
        ("docs/asyncapi.json", asyncapi()),
    ] {
        compare(file, &format!("{document:#}\n"));
    }
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
        with("options", json!({"streams": true})),
        with("options", json!({"max_bytes": 0})),
        with("options", json!({"max_bytes": 8_388_609})),
        with("options", json!({"dry_run": null})),
        with("options", json!({"count_only": true, "stream": true})),
        with("options", json!({"fields": "id"})),
        with("options", Value::Null),
    ];
    for body in bad {
        assert!(!validator.is_valid(&body), "{body}");
    }
    let all = json!({
        "deadline": "2026-11-23T12:00:00Z", "dry_run": true, "fields": ["id"], "count_only": true,
        "max_bytes": 8_388_608, "reason": "HR-1",
    });
    assert!(validator.is_valid(&with("options", all)));
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

fn message(subtool: &str, status: &str, more: &Value) -> Value {
    let mut message = json!({
        "id": "1", "connection": "prod", "subtool": subtool, "status": status, "effect": "none", "attempts": 1,
        "okta_calls": 1, "waited_ms": 0, "duration_ms": 1, "rate_limit": null, "okta_request_ids": [],
    });
    let object = message.as_object_mut().expect("it is an object");
    object.extend(more.as_object().expect("it is an object").clone());
    message
}

/// Results as they may come with and without options, and what they never look like.
fn messages() -> [(bool, Value); 17] {
    let error = json!({
        "code": "not_found", "message": "m", "retryable": false, "retry_at": null, "path": null, "okta": null,
    });
    let plan = json!({
        "requests": [{ "method": "POST", "path": "/api/v1/users/00u1/lifecycle/suspend", "query": {}, "body": null }],
        "predicted": { "effect": "applied", "error": null }, "calls": { "users": 1 },
        "loses": { "groups": [], "apps": [] }, "not_checked": [],
    });
    let list = |items: Value| json!({ "items": items, "count": 2, "complete": true, "next": null });
    let succeeded =
        |subtool: &str, result: Value| message(subtool, "succeeded", &json!({ "result": result }));
    let mut left_out = list(json!([{ "id": "00u1" }]));
    left_out["left_out"] = json!(["DEPROVISIONED"]);
    [
        (true, message("get_user", "failed", &json!({ "error": error }))),
        (false, message("get_user", "failed", &json!({}))),
        (false, message("get_user", "done", &json!({}))),
        (true, message("suspend_user", "planned", &json!({ "result": plan }))),
        (false, message("suspend_user", "planned", &json!({ "result": {} }))),
        (true, succeeded("get_user", json!({ "id": "00u1", "status": "ACTIVE", "profile": {}, "new": 1 }))),
        (true, succeeded("get_user", json!({ "profile": { "email": "a@b.c" } }))),
        (true, succeeded("get_user", json!({}))),
        (false, succeeded("get_user", json!([]))),
        (true, message("get_user", "succeeded", &json!({ "result": null, "result_omitted": true }))),
        (true, succeeded("list_users", list(json!([])))),
        (true, succeeded("list_users", left_out)),
        (false, succeeded("list_users", json!({ "items": [] }))),
        (false, succeeded("list_users", list(json!([7])))),
        (
            true,
            message(
                "list_users",
                "succeeded",
                &json!({ "result": list(json!([])), "page": { "index": 0, "last": false } }),
            ),
        ),
        (
            false,
            message("list_users", "succeeded", &json!({ "result": list(json!([])), "page": { "index": 0 } })),
        ),
        (true, succeeded("activate_user", json!({ "activation_url": "u", "activation_token": "t" }))),
    ]
}

#[test]
fn a_result_message_fits_its_schema() {
    let document = json_schema();
    let validator = validator(&json!({ "$ref": "#/$defs/result", "$defs": document["$defs"] }));
    for (fits, message) in messages() {
        assert_eq!(validator.is_valid(&message), fits, "{message}");
    }
}

fn named<'a>(tools: &'a Value, name: &str) -> &'a Value {
    let tools = tools.as_array().expect("tools are an array");
    tools.iter().find(|tool| tool["name"] == name).unwrap_or_else(|| panic!("no tool `{name}`"))
}

fn arguments(example: &str) -> Map<String, Value> {
    serde_json::from_str(example).expect("examples are JSON objects")
}

fn is_read(entry: &CatalogueEntry, arguments: &Map<String, Value>) -> bool {
    entry.read(&to_raw_value(arguments).expect("a map is JSON")).is_ok()
}

#[test]
fn the_list_of_all_mcp_tools_is_small() {
    /// A model reads the list in every session.
    const BYTES_MAX: usize = 48 * 1024;
    let bytes = mcp::tools(&CATALOGUE).to_string().len();
    println!("{bytes} bytes for {} tools", CATALOGUE.len());
    assert!(bytes <= BYTES_MAX, "{bytes} bytes");
}

#[test]
fn an_mcp_tool_takes_the_arguments_and_some_options() {
    let tools = &mcp::tools(&CATALOGUE)["tools"];
    for entry in &CATALOGUE {
        let name = entry.manifest.name;
        let input = &named(tools, name)["inputSchema"];
        let schema = Value::from((entry.arguments)());
        assert!(
            schema["properties"].get(mcp::OPTIONS).is_none(),
            "{name} has an argument called as the options"
        );
        let mut expected: Vec<&String> =
            schema["properties"].as_object().into_iter().flatten().map(|it| it.0).collect();
        let options = mcp::OPTIONS.to_owned();
        expected.push(&options);
        expected.sort();
        let found: Vec<&String> =
            input["properties"].as_object().into_iter().flatten().map(|it| it.0).collect();
        assert_eq!(found, expected, "{name}");

        let usual = &input["properties"][mcp::OPTIONS]["properties"]["max_bytes"]["default"];
        assert_eq!(*usual, mcp::RESULT_BYTES_USUAL, "{name}: what the server asks for");

        let validator = validator(input);
        for example in entry.manifest.examples {
            let mut called = arguments(example);
            assert!(validator.is_valid(&json!(called)), "{name} {example}");
            called.insert(options.clone(), json!({ "fields": ["id"], "max_bytes": 65536, "reason": "HR-1" }));
            assert!(validator.is_valid(&json!(called)), "{name} {example}");
            called.insert(options.clone(), json!({ "dry_run": true }));
            let is_write = entry.manifest.kind != ToolKind::Read;
            assert_eq!(validator.is_valid(&json!(called)), is_write, "{name} {example}");
            called.insert(options.clone(), json!({ "count_only": true }));
            assert_eq!(validator.is_valid(&json!(called)), name.starts_with("list_"), "{name} {example}");
            called.insert(options.clone(), json!({ "stream": true }));
            assert!(!validator.is_valid(&json!(called)), "{name} {example}");
        }
    }
}

#[test]
fn an_mcp_tool_answers_with_what_matters_of_the_result_message() {
    let tools = &mcp::tools(&CATALOGUE)["tools"];
    for tool in tools.as_array().expect("tools are an array") {
        assert_eq!(tool["outputSchema"]["type"], "object", "{}", tool["name"]);
    }
    for (_, message) in messages().into_iter().filter(|(fits, _)| *fits) {
        let name = message["subtool"].as_str().expect("a subtool");
        assert!(validator(&named(tools, name)["outputSchema"]).is_valid(&message), "{message}");
    }
    let odd = [json!({ "status": "done" }), json!({ "result": [] }), json!({ "error": {} })];
    for odd in odd {
        let message = message("get_user", "succeeded", &odd);
        assert!(!validator(&named(tools, "get_user")["outputSchema"]).is_valid(&message), "{message}");
    }
}

#[test]
fn the_hints_say_what_the_kinds_and_classes_say() {
    let tools = &mcp::tools(&CATALOGUE)["tools"];
    let mut shown = String::new();
    for entry in &CATALOGUE {
        let name = entry.manifest.name;
        let hints = &named(tools, name)["annotations"];
        assert_eq!(hints["readOnlyHint"], entry.manifest.kind == ToolKind::Read, "{name}");
        // A hint about what a call changes has no meaning for one that only reads.
        let idempotent = match entry.manifest.kind {
            ToolKind::Read => Value::Null,
            _ => json!(entry.repeat() != Idempotency::NonIdempotent),
        };
        assert_eq!(hints["idempotentHint"], idempotent, "{name}");
        assert_eq!(hints["openWorldHint"], false, "{name}");
        if hints["destructiveHint"] == true {
            shown.push_str(&format!("{name} "));
        }
    }
    assert_eq!(
        shown.trim_end(),
        "update_user delete_user deactivate_user reset_user_password expire_user_password delete_group remove_user_from_app reset_user_factors remove_group_from_app"
    );
}

/// Calls the function with what every part of a schema is.
fn each(schema: &Value, look: &mut impl FnMut(&Map<String, Value>)) {
    let Some(part) = schema.as_object() else { return };
    look(part);
    for (keyword, below) in part {
        match (keyword.as_str(), below) {
            ("properties", Value::Object(named)) => named.values().for_each(|schema| each(schema, look)),
            ("items", below) => each(below, look),
            ("anyOf", Value::Array(forms)) => forms.iter().for_each(|schema| each(schema, look)),
            _ => {}
        }
    }
}

#[test]
fn a_function_tool_is_strict_unless_an_argument_is_an_open_object() {
    let tools = openai::tools(&CATALOGUE);
    let open: Vec<&str> = CATALOGUE
        .iter()
        .map(|entry| entry.manifest.name)
        .filter(|name| named(&tools, name)["strict"] == false)
        .collect();
    let objects = [
        "create_user",
        "update_user",
        "create_group",
        "update_group",
        "assign_user_to_app",
        "assign_group_to_app",
    ];
    assert_eq!(open, objects);
    for name in open {
        let text = named(&tools, name)["parameters"].to_string();
        assert!(text.contains(r#""additionalProperties":true"#), "{name}: a profile is closed");
    }
    const KNOWN: [&str; 7] =
        ["type", "description", "properties", "required", "additionalProperties", "items", "enum"];
    for tool in tools.as_array().into_iter().flatten().filter(|tool| tool["strict"] == true) {
        each(&tool["parameters"], &mut |part| {
            for keyword in part.keys() {
                assert!(KNOWN.contains(&keyword.as_str()), "{}: `{keyword}`", tool["name"]);
            }
            if let Some(properties) = part.get("properties").and_then(Value::as_object) {
                assert_eq!(part["additionalProperties"], false, "{}", tool["name"]);
                assert_eq!(
                    part["required"],
                    json!(properties.keys().collect::<Vec<_>>()),
                    "{}",
                    tool["name"]
                );
            }
        });
    }
}

#[test]
fn what_a_strict_tool_must_send_is_read() {
    let tools = openai::tools(&CATALOGUE);
    for entry in &CATALOGUE {
        let tool = named(&tools, entry.manifest.name);
        let validator = validator(&tool["parameters"]);
        for example in entry.manifest.examples {
            let mut called = arguments(example);
            if tool["strict"] == true {
                let absent = tool["parameters"]["required"].as_array().into_iter().flatten();
                for name in absent.filter_map(Value::as_str) {
                    called.entry(name).or_insert(Value::Null);
                }
            }
            assert!(validator.is_valid(&json!(called)), "{} {example}", entry.manifest.name);
            assert!(is_read(entry, &called), "{} {called:?}", entry.manifest.name);
        }
        // Nothing but what must be there, and everything else `null`.
        let mut plainest = arguments(entry.manifest.examples[0]);
        let schema = Value::from((entry.arguments)());
        for (name, _) in schema["properties"].as_object().into_iter().flatten() {
            if !schema["required"].as_array().is_some_and(|names| names.contains(&json!(name))) {
                plainest.insert(name.clone(), Value::Null);
            }
        }
        assert!(validator.is_valid(&json!(plainest)), "{} {plainest:?}", entry.manifest.name);
        assert!(is_read(entry, &plainest), "{} {plainest:?}", entry.manifest.name);
    }
}

#[test]
fn the_cases_of_a_subtool_tell_the_class_of_all_its_arguments() {
    let mut checked = 0;
    for entry in &CATALOGUE {
        let name = entry.manifest.name;
        let cases = entry.cases();
        assert_eq!(cases.iter().map(|case| case.repeat).max(), Some(entry.repeat()), "{name}");
        let schema = Value::from((entry.arguments)());
        let switches: Vec<&String> = schema["properties"]
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(_, property)| property["type"].to_string().contains("boolean"))
            .map(|(argument, _)| argument)
            .collect();
        for example in entry.manifest.examples {
            for set in 0..1_u32 << switches.len() {
                let mut called = arguments(example);
                for (at, argument) in switches.iter().enumerate() {
                    called.insert((*argument).clone(), json!(set & 1 << at != 0));
                }
                let tool = entry
                    .read(&to_raw_value(&called).expect("a map is JSON"))
                    .unwrap_or_else(|_| panic!("{name}"));
                let case = cases
                    .iter()
                    .rev()
                    .find(|case| {
                        case.with.iter().all(|(argument, value)| called.get(argument) == Some(value))
                    })
                    .expect("the first case is everything else");
                assert_eq!(tool.repeat(), case.repeat, "{name} {called:?}");
                checked += 1;
            }
        }
    }
    assert!(checked > 60, "{checked}");
    let text = markdown();
    assert!(text.contains("emit; transition with `send_email: false`"));
    assert!(text.contains("transition; emit with `temp_password: true`"));
}

#[test]
fn a_description_is_three_to_five_sentences_and_names_only_what_there_is() {
    for entry in &CATALOGUE {
        let name = entry.manifest.name;
        let text = entry.manifest.description();
        let sentences = text.matches(". ").count() + 1;
        assert!((3..=5).contains(&sentences), "{name} has {sentences} sentences: {text}");
        assert!(text.len() <= 700, "{name}: {} characters", text.len());
        assert!(entry.manifest.not_for.starts_with("Not for "), "{name}");
        let siblings = CATALOGUE.iter().map(|other| other.manifest.name).filter(|other| *other != name);
        assert!(
            siblings.clone().any(|other| entry.manifest.not_for.contains(&format!("`{other}`"))),
            "{name}"
        );
        for word in text.split('`').skip(1).step_by(2) {
            let is_subtool = ["get_", "list_", "create_", "update_", "delete_", "add_", "remove_", "assign_"]
                .iter()
                .any(|verb| word.starts_with(verb))
                || word.ends_with("_user");
            assert!(!is_subtool || siblings.clone().any(|other| other == word), "{name} names `{word}`");
        }
    }
}

#[test]
fn every_reference_in_the_asyncapi_document_leads_somewhere() {
    fn follow(value: &Value, document: &Value, found: &mut usize) {
        match value {
            Value::Object(object) => {
                if let Some(reference) = object.get("$ref").and_then(Value::as_str) {
                    let pointer = reference.strip_prefix('#').expect("within the document");
                    assert!(document.pointer(pointer).is_some(), "{reference}");
                    *found += 1;
                }
                object.values().for_each(|below| follow(below, document, found));
            }
            Value::Array(values) => values.iter().for_each(|below| follow(below, document, found)),
            _ => {}
        }
    }
    let document = asyncapi();
    let mut found = 0;
    follow(&document, &document, &mut found);
    assert!(found > 100, "{found}");
    for exchange_or_queue in [
        "okta.invocations",
        "okta.results",
        "okta.results.unclaimed",
        "okta.unrouted",
        "okta.undelivered",
        "okta.dead",
    ] {
        let channels = document["channels"].to_string();
        assert!(channels.contains(&format!(r#""name":"{exchange_or_queue}""#)), "{exchange_or_queue}");
    }
}
