//! What is refused before any request.

use okta_worker::domain::message::Properties;
use okta_worker::policy::authorization::AllowList;
use serde_json::{Value, json};

use crate::world::{SAM, Setup};

#[tokio::test(start_paused = true)]
async fn the_first_failing_check_answers_whatever_else_is_wrong() {
    let setup = || Setup { subtools: AllowList::parse(&["read"]).unwrap(), ..Setup::default() };
    let past = json!({ "deadline": "2020-01-01T00:00:00Z" });
    let rows: [(&str, Value, &str, &str); 9] = [
        ("prod", json!({ "subtool": 1, "arguments": {} }), "invalid_message", "subtool"),
        ("prod.vip", json!({ "subtool": "crate_user" }), "invalid_message", "properties.routing_key"),
        ("prud", json!({ "subtool": "crate_user" }), "unknown_connection", "properties.routing_key"),
        ("prod", json!({ "subtool": "crate_user", "arguments": { "x": 1 } }), "unknown_subtool", "subtool"),
        (
            "prod",
            json!({ "subtool": "create_user", "arguments": { "x": 1 }, "options": past }),
            "not_permitted",
            "subtool",
        ),
        (
            "prod",
            json!({ "subtool": "get_user", "arguments": { "x": 1 }, "options": past }),
            "invalid_arguments",
            "arguments.x",
        ),
        (
            "prod",
            json!({ "subtool": "list_users", "arguments": { "q": "a", "filter": "b" }, "options": past }),
            "invalid_arguments",
            "arguments.q",
        ),
        (
            "prod",
            json!({ "subtool": "get_user", "arguments": { "user_id": "" } }),
            "invalid_arguments",
            "arguments.user_id",
        ),
        (
            "prod",
            json!({ "subtool": "get_user", "arguments": { "user_id": SAM }, "options": past }),
            "deadline_exceeded",
            "options.deadline",
        ),
    ];
    for (key, body, code, path) in rows {
        let mut world = setup().open();
        world.send(key, body.clone());
        world.rest().await;
        world.tape();
        let answer = world.answer();
        assert_eq!(
            (&answer["error"]["code"], &answer["error"]["path"]),
            (&json!(code), &json!(path)),
            "{body}"
        );
        assert_eq!((&answer["okta_calls"], &answer["effect"]), (&json!(0), &json!("none")), "{body}");
        world.close();
    }
}

#[tokio::test(start_paused = true)]
async fn an_unknown_subtool_is_named_in_the_answer_and_nowhere_else() {
    let mut world = Setup::default().open();
    world.send_raw("prod", Properties::default(), r#"{"subtool":"crate_user"}"#);
    world.rest().await;
    world.tape();
    let result = world.result();
    assert_eq!(result.routing_key, "prod.-.failed");
    let answer = crate::world::body(&result);
    assert_eq!(answer["subtool"], "crate_user");
    assert!(answer["error"]["message"].as_str().unwrap().contains("did you mean `create_user`?"));
    world.close();
}

#[tokio::test(start_paused = true)]
async fn a_message_that_cannot_be_read_is_answered_under_the_subtool_it_names() {
    for body in [
        r#"{"subtool":"get_user","arguments":[1]}"#,
        r#"{"subtool":"get_user","options":{"max_bytes":0}}"#,
        r#"{"subtool":"get_user","extra":1}"#,
    ] {
        let mut world = Setup::default().open();
        world.send_raw("prod", Properties::default(), body);
        world.rest().await;
        drop((world.tape(), world.parked()));
        let result = world.result();
        assert_eq!(result.routing_key, "prod.get_user.failed", "{body}");
        let answer = crate::world::body(&result);
        assert_eq!(
            (&answer["subtool"], &answer["error"]["code"]),
            (&json!("get_user"), &json!("invalid_message"))
        );
        world.close();
    }
}

#[tokio::test(start_paused = true)]
async fn a_one_time_secret_needs_somebody_to_give_it_to() {
    let mut world = Setup::default().open();
    let body =
        json!({ "subtool": "reset_user_password", "arguments": { "user_id": SAM, "send_email": false } });
    world.send_raw("prod", Properties::default(), body.to_string());
    world.rest().await;
    world.tape();
    let result = crate::world::body(&world.result());
    assert_eq!(result["error"]["code"], "invalid_message");
    assert_eq!(result["error"]["path"], "properties.reply_to");
    assert!(world.effects().is_empty());
    world.close();
}

#[tokio::test(start_paused = true)]
async fn a_message_that_cannot_be_read_and_names_nobody_is_parked_whole() {
    let mut world = Setup::default().open();
    world.send_raw("prod", Properties::default(), "{ not json");
    world.rest().await;
    insta::assert_snapshot!(world.tape(), @r"
    +0.000s prod interactive received
    +0.000s m1 parked: unreadable
    +0.000s m1 - failed invalid_message, effect none, attempts 0, calls 0
    ");
    assert_eq!(crate::world::body(&world.result())["error"]["code"], "invalid_message");
    assert_eq!(&world.parked().body[..], b"{ not json");
    world.close();
}

#[tokio::test(start_paused = true)]
async fn a_secret_in_arguments_that_do_not_fit_is_not_repeated() {
    let mut world = Setup::default().open();
    world.ask("create_user", json!({ "profile": {}, "credentials": "hunter2-planted" }));
    world.rest().await;
    world.tape();
    let answer = world.answer();
    assert_eq!(answer["error"]["path"], "arguments.credentials");
    assert!(!answer.to_string().contains("hunter2"), "{answer}");
    world.close();
}
