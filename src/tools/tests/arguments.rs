//! Arguments: the accepted and the refused ones, the path of the fault, and agreement with the published schema.

use serde_json::{Map, Value, json};

use super::super::{Idempotency, ToolKind};
use super::*;
use crate::domain::invocation::DecodeError;
use crate::tools::catalogue::CATALOGUE;

fn fault(name: &str, arguments: &str) -> DecodeError {
    match entry(name).read(&raw(arguments)) {
        Ok(_) => panic!("{name} takes {arguments}"),
        Err(fault) => fault,
    }
}

/// Returns the first example of a row, as an object.
fn example(entry: &CatalogueEntry) -> Map<String, Value> {
    serde_json::from_str(entry.manifest.examples[0]).unwrap()
}

fn arguments_schema(entry: &CatalogueEntry) -> Value {
    serde_json::to_value((entry.arguments)()).unwrap()
}

fn check_schema(entry: &CatalogueEntry, arguments: &Value) -> bool {
    jsonschema::draft202012::new(&arguments_schema(entry)).expect("a schema").is_valid(arguments)
}

#[test]
fn every_example_is_read_and_fits_its_schema() {
    for entry in &CATALOGUE {
        let name = entry.manifest.name;
        assert!(!entry.manifest.examples.is_empty(), "{name}");
        for example in entry.manifest.examples {
            tool(name, example);
            assert!(check_schema(entry, &serde_json::from_str(example).unwrap()), "{name} {example}");
        }
    }
}

#[test]
fn an_unknown_argument_is_refused_by_reader_and_schema() {
    for entry in &CATALOGUE {
        let mut arguments = example(entry);
        arguments.insert("nonsense".into(), json!(1));
        let arguments = Value::Object(arguments);
        let fault = fault(entry.manifest.name, &arguments.to_string());
        assert_eq!(fault.path.as_deref(), Some("arguments.nonsense"), "{}", entry.manifest.name);
        assert!(!check_schema(entry, &arguments), "{}", entry.manifest.name);
    }
}

#[test]
fn what_okta_would_read_as_something_else_is_refused_at_the_door() {
    let mut checked = 0;
    for entry in &CATALOGUE {
        for argument in ["user_id", "group_id", "app_id"] {
            if !example(entry).contains_key(argument) {
                continue;
            }
            let slashes: &[&str] = if argument == "user_id" { &[] } else { &["a/b", "a?b", "../users/x"] };
            for bad in ["", " ", ".", "..", "me", "Me", "a\nb", "a\u{0}"].iter().chain(slashes) {
                let mut arguments = example(entry);
                arguments.insert(argument.into(), json!(bad));
                let fault = fault(entry.manifest.name, &Value::Object(arguments).to_string());
                let path = format!("arguments.{argument}");
                assert_eq!(fault.path, Some(path), "{} {bad:?}", entry.manifest.name);
                checked += 1;
            }
        }
    }
    assert!(checked > 200, "{checked}");
}

#[test]
fn faults_name_the_place() {
    let rows: [(&str, &str, &str, &str); 14] = [
        ("get_user", "{}", "user_id", "`user_id` is missing"),
        ("get_user", r#"{"userId":"x"}"#, "userId", "unknown field `userId`, did you mean `user_id`?"),
        ("get_user", r#"{"user_id":7}"#, "user_id", "invalid type: integer `7`, expected a string"),
        ("create_user", "{}", "profile", "`profile` is missing"),
        ("create_user", r#"{"profile":[]}"#, "profile", "invalid type: sequence, expected an object"),
        ("create_user", r#"{"profile":null}"#, "profile", "invalid type: null, expected an object"),
        (
            "create_user",
            r#"{"profile":{},"group_ids":["$G","a/b"]}"#,
            "group_ids.1",
            "must be an id, without `/` or `?`",
        ),
        ("create_user", r#"{"profile":{},"group_ids":["me"]}"#, "group_ids.0", "must be an id, not `me`"),
        (
            "create_user",
            r#"{"profile":{},"activate":"yes"}"#,
            "activate",
            "invalid type: string, expected a boolean",
        ),
        (
            "create_user",
            r#"{"profile":{},"next_login":"x"}"#,
            "next_login",
            "unknown value, expected `changePassword`",
        ),
        ("list_users", r#"{"limit":0}"#, "limit", "must be between 1 and 100000, not 0"),
        ("list_users", r#"{"limit":100001}"#, "limit", "must be between 1 and 100000, not 100001"),
        ("list_users", r#"{"limit":1,"limit":2}"#, "limit", "`limit` stands there twice"),
        (
            "list_events",
            r#"{"sort_order":"desc"}"#,
            "sort_order",
            "unknown value, expected `ASCENDING` or `DESCENDING`",
        ),
    ];
    for (name, arguments, path, message) in rows {
        let fault = fault(name, arguments);
        assert_eq!(
            (fault.message.as_str(), fault.path),
            (message, Some(format!("arguments.{path}"))),
            "{name} {arguments}"
        );
    }
}

#[test]
fn defaults_in_the_schemas_are_the_contract_s() {
    let lists = CATALOGUE.iter().map(|entry| entry.manifest.name).filter(|name| name.starts_with("list_"));
    let lists = lists.filter(|name| *name != "list_user_factors"); // which Okta gives whole
    let mut expected: Vec<(&str, &str, Value)> = lists.map(|name| (name, "limit", json!(200))).collect();
    expected.extend([
        ("create_user", "activate", json!(true)),
        ("create_user", "provider", json!(false)),
        ("create_user", "group_ids", json!([])),
        ("list_users", "include_deprovisioned", json!(false)),
        ("activate_user", "send_email", json!(true)),
        ("deactivate_user", "send_email", json!(false)),
        ("clear_user_sessions", "revoke_oauth_tokens", json!(true)),
        ("clear_user_sessions", "forget_devices", json!(false)),
        ("reactivate_user", "send_email", json!(true)),
        ("reset_user_password", "send_email", json!(true)),
        ("reset_user_password", "revoke_sessions", json!(false)),
        ("expire_user_password", "temp_password", json!(false)),
        ("expire_user_password", "revoke_sessions", json!(false)),
        ("assign_user_to_app", "scope", json!("USER")),
        ("remove_user_from_app", "send_email", json!(false)),
    ]);
    let mut found = Vec::new();
    for entry in &CATALOGUE {
        let schema = arguments_schema(entry);
        for (argument, property) in schema["properties"].as_object().into_iter().flatten() {
            if let Some(default) = property.get("default").filter(|default| !default.is_null()) {
                found.push((entry.manifest.name, argument.clone(), default.clone()));
            }
        }
    }
    let mut expected: Vec<(&str, String, Value)> =
        expected.into_iter().map(|(name, argument, value)| (name, argument.to_owned(), value)).collect();
    let key = |row: &(&str, String, Value)| (row.0.to_owned(), row.1.clone());
    expected.sort_by_key(key);
    found.sort_by_key(key);
    assert_eq!(found, expected);
}

#[test]
fn bounds_in_the_schemas_are_the_readers() {
    let long_key = "x".repeat(255);
    let rows: [(&str, Value); 7] = [
        ("list_users", json!({ "limit": 0 })),
        ("list_users", json!({ "limit": 100_001 })),
        ("list_users", json!({ "sort_order": "up" })),
        ("get_user", json!({ "user_id": "" })),
        ("get_user", json!({ "user_id": long_key })),
        ("create_user", json!({ "profile": [] })),
        ("assign_user_to_app", json!({ "app_id": "0oa1", "user_id": "00u1", "scope": "user" })),
    ];
    for (name, arguments) in rows {
        fault(name, &arguments.to_string());
        assert!(!check_schema(entry(name), &arguments), "{name} {arguments}");
    }
    // The run refuses these, one step later.
    let groups = vec!["00g1"; 21];
    let rows = [
        ("create_user", json!({ "profile": {}, "group_ids": groups })),
        ("create_group", json!({ "name": "" })),
        ("create_group", json!({ "name": "x".repeat(256) })),
        ("create_group", json!({ "name": "x", "description": "x".repeat(1025) })),
        ("update_group", json!({ "group_id": "00g1", "name": "x".repeat(256) })),
    ];
    for (name, arguments) in rows {
        let end = tell(name, &arguments.to_string(), &[]).end;
        assert!(end.starts_with("invalid_arguments at arguments."), "{name}: {end}");
        assert!(!check_schema(entry(name), &arguments), "{name} {arguments}");
    }
}

#[test]
fn kinds_and_repeat_classes_are_the_contract_s() {
    use ToolKind::{Credentials, Destructive, Read, Write};
    let rows = [
        ("create_user", Write, Idempotency::Create),
        ("get_user", Read, Idempotency::Read),
        ("list_users", Read, Idempotency::Read),
        ("update_user", Write, Idempotency::Set),
        ("delete_user", Destructive, Idempotency::Transition),
        ("activate_user", Write, Idempotency::NonIdempotent),
        ("deactivate_user", Destructive, Idempotency::Transition),
        ("suspend_user", Write, Idempotency::Transition),
        ("unsuspend_user", Write, Idempotency::Transition),
        ("unlock_user", Write, Idempotency::Transition),
        ("reset_user_password", Credentials, Idempotency::NonIdempotent),
        ("expire_user_password", Credentials, Idempotency::Transition),
        ("list_user_groups", Read, Idempotency::Read),
        ("list_user_apps", Read, Idempotency::Read),
        ("list_groups", Read, Idempotency::Read),
        ("get_group", Read, Idempotency::Read),
        ("create_group", Write, Idempotency::Create),
        ("update_group", Write, Idempotency::Set),
        ("delete_group", Destructive, Idempotency::Transition),
        ("list_group_members", Read, Idempotency::Read),
        ("add_user_to_group", Write, Idempotency::Set),
        ("remove_user_from_group", Write, Idempotency::Set),
        ("list_apps", Read, Idempotency::Read),
        ("get_app", Read, Idempotency::Read),
        ("list_app_users", Read, Idempotency::Read),
        ("assign_user_to_app", Write, Idempotency::Set),
        ("remove_user_from_app", Destructive, Idempotency::Transition),
        ("list_events", Read, Idempotency::Read),
        ("clear_user_sessions", Write, Idempotency::Set),
        ("reactivate_user", Write, Idempotency::NonIdempotent),
        ("reset_user_factors", Credentials, Idempotency::Set),
        ("list_user_factors", Read, Idempotency::Read),
        ("assign_group_to_app", Write, Idempotency::Set),
        ("remove_group_from_app", Destructive, Idempotency::Transition),
        ("list_app_groups", Read, Idempotency::Read),
        ("list_group_apps", Read, Idempotency::Read),
    ];
    let found: Vec<_> = CATALOGUE
        .iter()
        .map(|entry| {
            let first = tool(entry.manifest.name, entry.manifest.examples[0]);
            (entry.manifest.name, entry.manifest.kind, first.repeat())
        })
        .collect();
    assert_eq!(found, rows);
    for entry in &CATALOGUE {
        let resource = entry.manifest.scope.strip_suffix(".read");
        assert_eq!(resource.is_some(), entry.manifest.kind == Read, "{}", entry.manifest.name);
    }
}

#[test]
fn arguments_decide_what_else_is_needed_and_minted() {
    let rows = [
        ("update_user", r#"{"user_id":"$U","profile":{}}"#, None, false, Idempotency::Set),
        (
            "update_user",
            r#"{"user_id":"$U","credentials":{}}"#,
            Some(ToolKind::Credentials),
            false,
            Idempotency::Set,
        ),
        ("activate_user", r#"{"user_id":"$U"}"#, None, false, Idempotency::NonIdempotent),
        ("activate_user", r#"{"user_id":"$U","send_email":false}"#, None, true, Idempotency::Transition),
        ("reset_user_password", r#"{"user_id":"$U"}"#, None, false, Idempotency::NonIdempotent),
        (
            "reset_user_password",
            r#"{"user_id":"$U","send_email":false}"#,
            None,
            true,
            Idempotency::NonIdempotent,
        ),
        ("expire_user_password", r#"{"user_id":"$U"}"#, None, false, Idempotency::Transition),
        (
            "expire_user_password",
            r#"{"user_id":"$U","temp_password":true}"#,
            None,
            true,
            Idempotency::NonIdempotent,
        ),
    ];
    for (name, arguments, needs, mints, repeat) in rows {
        let tool = tool(name, arguments);
        assert_eq!(
            (tool.also_needs(), tool.mints_secret(), tool.repeat()),
            (needs, mints, repeat),
            "{name} {arguments}"
        );
    }
}

#[test]
fn null_is_as_good_as_absent_where_it_does_not_clear() {
    for entry in &CATALOGUE {
        let name = entry.manifest.name;
        let schema = arguments_schema(entry);
        let required = schema["required"].as_array().cloned().unwrap_or_default();
        let plain = example(entry);
        let only_required: Map<String, Value> =
            plain.into_iter().filter(|(argument, _)| required.contains(&json!(argument))).collect();
        let said = |arguments: &Map<String, Value>| {
            let end = tell(name, &Value::Object(arguments.clone()).to_string(), &[]);
            (end.asked, end.end)
        };
        let mut with_nulls = only_required.clone();
        for argument in schema["properties"].as_object().into_iter().flatten().map(|(argument, _)| argument) {
            if !required.contains(&json!(argument))
                && (name, argument.as_str()) != ("update_group", "description")
            {
                with_nulls.insert(argument.clone(), Value::Null);
            }
        }
        assert_eq!(said(&with_nulls), said(&only_required), "{name}");
        assert!(check_schema(entry, &Value::Object(with_nulls)), "{name}");
    }
}

/// Returns the empty value of each optional argument, as a model that must name them all may send it, and values
/// that stand for one of another type.
#[test]
fn arguments_are_taken_as_models_send_them() {
    let rows = [
        ("list_users", r#"{"q":"","search":"","filter":"","limit":3}"#, r#"{"limit":3}"#),
        ("list_users", r#"{"after":"","limit":"5","sort_order":""}"#, r#"{"limit":5}"#),
        ("list_users", r#"{"include_deprovisioned":"true"}"#, r#"{"include_deprovisioned":true}"#),
        ("list_apps", r#"{"expand":"","q":"a"}"#, r#"{"q":"a"}"#),
        ("list_events", r#"{"since":"","until":"","sort_order":""}"#, "{}"),
        (
            "create_user",
            r#"{"profile":"{\"login\":\"a@example.com\"}","group_ids":"[\"00g1\"]","activate":"false","type_id":""}"#,
            r#"{"profile":{"login":"a@example.com"},"group_ids":["00g1"],"activate":false}"#,
        ),
        (
            "update_user",
            r#"{"user_id":"a@example.com","credentials":"{\"password\":{\"value\":\"x\"}}","profile":""}"#,
            r#"{"user_id":"a@example.com","credentials":{"password":{"value":"x"}}}"#,
        ),
        ("create_group", r#"{"name":"a","description":"","profile":""}"#, r#"{"name":"a"}"#),
        ("activate_user", r#"{"user_id":"00u1","send_email":""}"#, r#"{"user_id":"00u1"}"#),
        (
            "assign_user_to_app",
            r#"{"app_id":"0oa1","user_id":"00u1abCdEfGhIjKlMnOp","scope":"","profile":"{}"}"#,
            r#"{"app_id":"0oa1","user_id":"00u1abCdEfGhIjKlMnOp","profile":{}}"#,
        ),
    ];
    for (name, sent, meant) in rows {
        let said = |arguments: &str| {
            let told = tell(name, arguments, &[]);
            (told.asked, told.end)
        };
        assert_eq!(said(sent), said(meant), "{name} {sent}");
    }
}

#[test]
fn an_empty_text_stays_where_it_has_a_meaning() {
    let profile = r#"{"user_id":"a@example.com","profile":{"nickName":"","age":"5","flag":"true"}}"#;
    let asked = tell("update_user", profile, &[]).asked;
    assert!(asked[0].contains(r#"{"profile":{"nickName":"","age":"5","flag":"true"}}"#), "{asked:?}");
    let end = tell("update_group", r#"{"group_id":"00g1","name":"","description":""}"#, &[]);
    assert!(!end.end.starts_with("invalid_arguments"), "an empty description is a change: {}", end.end);
    let end = tell("update_group", r#"{"group_id":"00g1","name":"","profile":""}"#, &[]).end;
    assert!(end.starts_with("invalid_arguments at arguments.name"), "{end}");
}

#[test]
fn no_fault_repeats_what_was_sent() {
    const SECRET: &str = "Pa\"ss w0rd, expected";
    for entry in &CATALOGUE {
        let name = entry.manifest.name;
        let schema = arguments_schema(entry);
        let names: Vec<&String> = schema["properties"].as_object().into_iter().flat_map(Map::keys).collect();
        let values =
            [json!(SECRET), json!([SECRET]), json!({ SECRET: SECRET }), json!(format!("{{\"a\":\"{SECRET}"))];
        for argument in names.iter().map(|name| name.as_str()).chain([SECRET]) {
            for value in &values {
                let mut arguments = example(entry);
                arguments.insert(argument.to_owned(), value.clone());
                let Err(fault) = entry.read(&raw(&Value::Object(arguments).to_string())) else { continue };
                let said = format!("{fault:?}");
                assert!(
                    !said.contains("ss w0") && !said.contains("w0rd"),
                    "{name} {argument} {value}: {said}"
                );
                let place = fault.path.unwrap_or_default();
                assert!(place.starts_with("arguments"), "{name} {argument}: {place}");
            }
        }
    }
}
