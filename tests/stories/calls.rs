//! One call from its message to its answer: what is refused, what is asked, what is answered.

use std::collections::HashMap;

use okta_worker::domain::ids::Lane;
use okta_worker::domain::message::Properties;
use okta_worker::policy::authorization::{AllowList, CallerPermissions, Callers};
use okta_worker::sandbox::{Attribute, AttributeKind, UserStatus};
use serde_json::{Value, json};

use crate::world::{REPLIES, SAM, Setup, World, body, prod};

#[tokio::test(start_paused = true)]
async fn a_call_is_asked_answered_and_acknowledged() {
    let mut world = Setup::default().open();
    world.ask("get_user", json!({ "user_id": SAM }));
    world.rest().await;
    insta::assert_snapshot!(world.tape(), @"
    +0.000s prod interactive received
    +0.100s prod user_read asked GET: 200
    +0.100s m1 get_user succeeded, effect none, attempts 1, calls 1
    ");
    let answer = world.answer();
    assert_eq!(answer["result"]["profile"]["login"], SAM);
    assert_eq!(answer["rate_limit"]["remaining"], 999);
    world.close();
}

#[tokio::test(start_paused = true)]
async fn a_key_without_a_lane_means_interactive() {
    let mut world = Setup::default().open();
    world.send("prod", json!({ "subtool": "get_user", "arguments": { "user_id": SAM } }));
    world.rest().await;
    insta::assert_snapshot!(world.tape(), @"
    +0.000s prod interactive received
    +0.100s prod user_read asked GET: 200
    +0.100s m1 get_user succeeded, effect none, attempts 1, calls 1
    ");
    assert_eq!(world.answers(1), ["m1 succeeded none"]);
    world.close();
}

#[tokio::test(start_paused = true)]
async fn what_okta_refuses_is_answered_in_the_contracts_words() {
    let mut world = Setup::default().open();
    world.ask("get_user", json!({ "user_id": "nobody@example.com" }));
    world.rest().await;
    insta::assert_snapshot!(world.tape(), @"
    +0.000s prod interactive received
    +0.100s prod user_read asked GET: 404
    +0.100s m1 get_user failed not_found, effect none, attempts 1, calls 1
    ");
    let error = world.answer()["error"].clone();
    assert_eq!(
        (&error["path"], &error["okta"]["error_code"]),
        (&json!("arguments.user_id"), &json!("E0000007"))
    );
    world.close();
}

#[tokio::test(start_paused = true)]
async fn an_active_user_is_never_sent_a_delete() {
    let mut world = Setup::default().open();
    world.ask("delete_user", json!({ "user_id": SAM }));
    world.rest().await;
    insta::assert_snapshot!(world.tape(), @"
    +0.000s prod interactive received
    +0.100s prod user_read asked GET: 200
    +0.100s m1 delete_user failed precondition_failed, effect none, attempts 1, calls 1
    ");
    assert_eq!(world.answers(1), ["m1 failed precondition_failed none"]);
    assert!(world.effects().is_empty());
    world.close();
}

#[tokio::test(start_paused = true)]
async fn a_deactivated_user_is_deleted_and_looked_for() {
    let mut world = Setup::default().open();
    let sam = world.org().user_id(SAM).unwrap();
    world.org().set_status(sam, UserStatus::Deprovisioned);
    world.ask("delete_user", json!({ "user_id": SAM }));
    world.rest().await;
    insta::assert_snapshot!(world.tape(), @"
    +0.000s prod interactive received
    +0.100s prod user_read asked GET: 200
    +0.200s prod user_write asked DELETE: 204
    +0.300s prod user_read asked GET: 404
    +0.300s m1 delete_user succeeded, effect applied, attempts 1, calls 3
    ");
    assert_eq!(world.answers(1), ["m1 succeeded applied"]);
    assert_eq!(world.effects(), ["user.deleted"]);
    world.close();
}

/// Sends a message that must be refused before any request; the error of its answer.
async fn refused(world: &mut World, key: &str, body: Value) -> Value {
    world.send(key, body);
    world.rest().await;
    let tape = world.tape();
    assert!(!tape.contains("asked"), "{tape}");
    let answer = world.answer();
    assert_eq!((&answer["okta_calls"], &answer["effect"]), (&json!(0), &json!("none")));
    answer
}

#[tokio::test(start_paused = true)]
async fn the_first_check_that_fails_answers() {
    let readers = Setup { subtools: AllowList::parse(&["read"]).unwrap(), ..Setup::default() };
    let mut world = readers.open();
    let passed = "2020-01-01T00:00:00Z";
    let rows = [
        // Everything is wrong with the first; each next one mends the fault of the one before.
        ("nope.vip", json!({ "subtool": "crate_user", "extra": 1 }), "invalid_message", "extra"),
        ("nope.vip", json!({ "subtool": "crate_user" }), "unknown_connection", "properties.routing_key"),
        ("prod.vip", json!({ "subtool": "crate_user" }), "invalid_message", "properties.routing_key"),
        ("prod", json!({ "subtool": "crate_user" }), "unknown_subtool", "subtool"),
        ("prod", json!({ "subtool": "create_user", "arguments": { "x": 1 } }), "not_permitted", "subtool"),
        (
            "prod",
            json!({ "subtool": "get_user", "arguments": { "x": 1 }, "options": { "deadline": passed } }),
            "invalid_arguments",
            "arguments.x",
        ),
        (
            "prod",
            json!({ "subtool": "get_user", "arguments": { "user_id": SAM }, "options": { "deadline": passed } }),
            "deadline_exceeded",
            "options.deadline",
        ),
    ];
    for (key, body, code, path) in rows {
        let error = refused(&mut world, key, body).await["error"].clone();
        assert_eq!((error["code"].as_str(), error["path"].as_str()), (Some(code), Some(path)), "{error}");
    }
    world.close();
}

#[tokio::test(start_paused = true)]
async fn a_caller_may_do_what_its_row_says_and_strangers_nothing() {
    let caller = CallerPermissions {
        connections: vec![prod()],
        subtools: AllowList::parse(&["get_user"]).unwrap(),
        lanes: vec![Lane::Interactive],
        max_per_minute: None,
    };
    let callers = Callers(HashMap::from([("helpdesk".to_owned(), caller)]));
    let mut world = Setup { callers, ..Setup::default() }.open();
    let message = json!({ "subtool": "get_user", "arguments": { "user_id": SAM } }).to_string();
    let from = |user: Option<&str>| Properties {
        reply_to: Some(REPLIES.to_owned()),
        user_id: user.map(str::to_owned),
        ..Properties::default()
    };
    world.send_raw("prod", from(Some("helpdesk")), message.clone());
    world.send_raw("prod", from(Some("stranger")), message.clone());
    world.send_raw("prod", from(None), message.clone());
    world.send_raw("prod.bulk", from(Some("helpdesk")), message);
    world.rest().await;
    let mut answers = world.answers(4);
    answers.sort_unstable();
    assert_eq!(
        answers,
        [
            "m1 succeeded none",
            "m2 failed not_permitted none",
            "m3 failed not_permitted none",
            "m4 failed not_permitted none"
        ]
    );
    drop(world.tape());
    world.close();
}

#[tokio::test(start_paused = true)]
async fn an_unreadable_message_that_names_nobody_is_answered_and_parked() {
    let mut world = Setup::default().open();
    world.send_raw("prod.bulk", Properties::default(), "not json");
    world.rest().await;
    insta::assert_snapshot!(world.tape(), @"
    +0.000s prod bulk received
    +0.000s m1 parked: unreadable
    +0.000s m1 - failed invalid_message, effect none, attempts 0, calls 0
    ");
    let result = world.result();
    assert_eq!(result.routing_key, "prod.-.failed");
    assert_eq!(body(&result)["subtool"], Value::Null);
    let parked = world.parked();
    assert_eq!(parked.body, "not json");
    assert_eq!(parked.properties.headers["okta-reason"].as_text(), Some("unreadable"));
    world.close();
}

#[tokio::test(start_paused = true)]
async fn an_unreadable_message_with_a_reply_queue_is_answered_there_and_not_parked() {
    let mut world = Setup::default().open();
    let reply_to = Some(REPLIES.to_owned());
    world.send_raw("prod", Properties { reply_to, ..Properties::default() }, "[]");
    world.rest().await;
    insta::assert_snapshot!(world.tape(), @"
    +0.000s prod interactive received
    +0.000s m1 - failed invalid_message, effect none, attempts 0, calls 0
    ");
    assert_eq!(world.answers(1), ["m1 failed invalid_message none"]);
    world.close();
}

#[tokio::test(start_paused = true)]
async fn an_answer_nobody_waits_for_goes_to_the_results_without_its_secrets() {
    let mut world = Setup::default().open();
    let reply_to = Some("left".to_owned());
    let message =
        json!({ "subtool": "reset_user_password", "arguments": { "user_id": SAM, "send_email": false } });
    world.send_raw("prod", Properties { reply_to, ..Properties::default() }, message.to_string());
    world.rest().await;
    insta::assert_snapshot!(world.tape(), @"
    +0.000s prod interactive received
    +0.100s prod users asked POST: 200
    +0.100s m1 undeliverable
    +0.100s m1 reset_user_password succeeded, effect applied, attempts 1, calls 1
    ");
    let result = world.result();
    assert_eq!(result.routing_key, "prod.reset_user_password.succeeded");
    assert!(result.properties.headers["okta-undeliverable"].is_true());
    let url = body(&result)["result"]["reset_password_url"].as_str().unwrap().to_owned();
    assert!(!url.contains("http"), "{url}");
    world.close();
}

#[tokio::test(start_paused = true)]
async fn a_one_time_secret_without_a_reply_queue_is_never_minted() {
    let mut world = Setup::default().open();
    let message = json!({ "subtool": "activate_user", "arguments": { "user_id": SAM, "send_email": false } });
    world.send_raw("prod", Properties::default(), message.to_string());
    world.rest().await;
    insta::assert_snapshot!(world.tape(), @"
    +0.000s prod interactive received
    +0.000s m1 activate_user failed invalid_message, effect none, attempts 0, calls 0
    ");
    assert_eq!(body(&world.result())["error"]["path"], "properties.reply_to");
    world.close();
}

#[tokio::test(start_paused = true)]
async fn a_list_follows_pages_up_to_its_limit_and_goes_on_where_it_stopped() {
    let mut setup = Setup::default();
    setup.org.users = 649; // and the administrator
    let mut world = setup.open();
    world.ask("list_users", json!({ "limit": 500, "include_deprovisioned": true }));
    world.rest().await;
    insta::assert_snapshot!(world.tape(), @"
    +0.000s prod interactive received
    +0.100s prod users asked GET: 200
    +0.200s prod users asked GET: 200
    +0.300s prod users asked GET: 200
    +0.300s m1 list_users succeeded, effect none, attempts 1, calls 3
    ");
    let first = world.answer()["result"].clone();
    assert_eq!((&first["count"], &first["complete"]), (&json!(500), &json!(false)));
    world.ask("list_users", json!({ "limit": 500, "include_deprovisioned": true, "after": first["next"] }));
    world.rest().await;
    insta::assert_snapshot!(world.tape(), @"
    +0.350s prod interactive received
    +0.450s prod users asked GET: 200
    +0.450s m2 list_users succeeded, effect none, attempts 1, calls 1
    ");
    let rest = world.answer()["result"].clone();
    assert_eq!((&rest["complete"], &rest["next"]), (&json!(true), &Value::Null));
    let mut ids: Vec<_> = [&first, &rest]
        .into_iter()
        .flat_map(|list| list["items"].as_array().unwrap())
        .map(|user| user["id"].as_str().unwrap())
        .collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 650, "every user once");
    world.close();
}

#[tokio::test(start_paused = true)]
async fn a_single_object_over_the_limit_is_left_out_and_the_call_has_succeeded() {
    let mut setup = Setup::default();
    setup.org.user_attributes = ["prologue", "epilogue"]
        .map(|name| Attribute { name: name.to_owned(), kind: AttributeKind::Text })
        .to_vec();
    let mut world = setup.open();
    let half = "x".repeat(700 * 1024);
    world.ask("update_user", json!({ "user_id": SAM, "profile": { "prologue": half } }));
    world.rest().await;
    world.ask("update_user", json!({ "user_id": SAM, "profile": { "epilogue": half } }));
    world.rest().await;
    insta::assert_snapshot!(world.tape(), @"
    +0.000s prod interactive received
    +0.100s prod user_write asked POST: 200
    +0.100s m1 update_user succeeded, effect applied, attempts 1, calls 1
    +0.150s prod interactive received
    +0.250s prod user_write asked POST: 200
    +0.250s m2 update_user succeeded, effect applied, attempts 1, calls 1
    ");
    assert!(world.answer().get("result_omitted").is_none());
    let answer = world.answer();
    assert_eq!((&answer["result"], &answer["result_omitted"]), (&Value::Null, &json!(true)));
    world.close();
}
