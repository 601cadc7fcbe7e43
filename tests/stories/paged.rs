//! Lists that are counted, cut or sent page by page, so that an agent can afford them.

use okta_worker::domain::message::Properties;
use serde_json::{Value, json};

use crate::world::{REPLIES, Setup, World, body};

/// An org of so many users, and the administrator.
fn crowd(users: usize) -> World {
    let mut setup = Setup::default();
    setup.org.users = users;
    setup.open()
}

/// One list, with these arguments and options.
async fn list(world: &mut World, arguments: Value, options: Value) -> Value {
    send(world, arguments, options);
    world.rest().await;
    drop(world.tape());
    world.answer()
}

fn send(world: &mut World, arguments: Value, options: Value) {
    let body = json!({ "subtool": "list_users", "arguments": arguments, "options": options });
    world.send("prod.interactive", body);
}

fn ids(items: &Value) -> Vec<String> {
    items.as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect()
}

/// All users, deactivated ones too, so that the number is known.
fn everybody() -> Value {
    json!({ "include_deprovisioned": true })
}

#[tokio::test(start_paused = true)]
async fn fifty_thousand_users_are_counted_in_less_than_500_bytes() {
    let mut world = crowd(49_999);
    send(&mut world, everybody(), json!({ "count_only": true }));
    world.rest().await;
    drop(world.tape());
    let reply = world.reply();
    let answer = body(&reply);
    assert_eq!(answer["result"], json!({ "items": [], "count": 50_000, "complete": true, "next": null }));
    assert_eq!(answer["okta_calls"], 250);
    assert!(reply.body.len() < 500, "{} bytes: {answer}", reply.body.len());

    // With a limit the count stops there, and says so.
    let mut arguments = everybody();
    arguments["limit"] = json!(300);
    let answer = list(&mut world, arguments, json!({ "count_only": true })).await;
    assert_eq!((&answer["result"]["count"], &answer["result"]["complete"]), (&json!(300), &json!(false)));
    assert!(answer["result"]["next"].is_string());
    world.close();
}

#[tokio::test(start_paused = true)]
async fn a_cut_list_goes_on_without_gap_or_repeat() {
    const BYTES_MAX: usize = 64 * 1024;
    let mut world = crowd(999);
    let mut seen = Vec::new();
    let mut arguments = everybody();
    arguments["limit"] = json!(100_000);
    loop {
        send(&mut world, arguments.clone(), json!({ "max_bytes": BYTES_MAX }));
        world.rest().await;
        drop(world.tape());
        let reply = world.reply();
        assert!(reply.body.len() <= BYTES_MAX, "{} bytes", reply.body.len());
        let result = body(&reply)["result"].clone();
        seen.extend(ids(&result["items"]));
        if result["complete"] == true {
            break;
        }
        assert!(reply.body.len() > BYTES_MAX / 2, "{} bytes", reply.body.len());
        arguments["after"] = result["next"].clone();
    }
    let whole = list(&mut world, everybody(), json!({ "fields": ["id"], "max_bytes": 1_000_000 })).await;
    assert_eq!(whole["result"]["count"], 200, "the limit of who names none");
    let mut sorted = seen.clone();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!((seen.len(), sorted.len()), (1000, 1000));
    world.close();
}

#[tokio::test(start_paused = true)]
async fn a_list_never_loses_its_cursor_and_uses_its_room() {
    let mut world = crowd(20);
    let mut sizes = Vec::new();
    for bytes_max in [1, 900, 3000, 6000] {
        send(&mut world, everybody(), json!({ "max_bytes": bytes_max }));
        world.rest().await;
        drop(world.tape());
        let reply = world.reply();
        let answer = body(&reply);
        let result = &answer["result"];
        assert!(result["next"].is_string() && answer["result_omitted"].is_null(), "{answer}");
        assert!(result["count"] == 0 || reply.body.len() <= bytes_max, "{} bytes", reply.body.len());
        assert_eq!(result["needs_max_bytes"].is_number(), result["count"] == 0);
        sizes.push((bytes_max, result["count"].as_u64()));
        if let Some(needs) = result["needs_max_bytes"].as_u64() {
            let mut arguments = everybody();
            arguments["after"] = result["next"].clone();
            let answer = list(&mut world, arguments, json!({ "max_bytes": needs })).await;
            assert_eq!(answer["result"]["count"], 1, "{answer}");
        }
    }
    assert_eq!(sizes, [(1, Some(0)), (900, Some(0)), (3000, Some(3)), (6000, Some(7))]);
    world.close();
}

#[tokio::test(start_paused = true)]
async fn a_stream_comes_page_by_page_in_order() {
    let mut world = crowd(999);
    let mut arguments = everybody();
    arguments["limit"] = json!(900);
    send(&mut world, arguments, json!({ "stream": true, "fields": ["id"] }));
    world.rest().await;
    drop(world.tape());
    let mut seen = Vec::new();
    for index in 0..5 {
        let reply = world.reply();
        assert_eq!(reply.properties.message_id.as_deref(), Some(&*format!("m1.{index}")));
        let page = body(&reply);
        assert_eq!(page["page"], json!({ "index": index, "last": index == 4 }));
        let result = &page["result"];
        let count = if index == 4 { 100 } else { 200 };
        assert_eq!((&page["status"], &result["count"]), (&json!("succeeded"), &json!(count)));
        assert_eq!((&result["complete"], result["next"].is_string()), (&json!(false), true));
        seen.extend(ids(&result["items"]));
    }
    let all = seen.len();
    seen.dedup();
    assert_eq!((all, seen.len()), (900, 900));
    world.close();
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_the_last_page() {
    let mut world = crowd(10);
    let answer = list(&mut world, json!({ "q": "a", "filter": "x" }), json!({ "stream": true })).await;
    assert_eq!(answer["error"]["code"], "invalid_arguments");
    assert_eq!(answer["page"], json!({ "index": 0, "last": true }));
    world.close();
}

#[tokio::test(start_paused = true)]
async fn what_is_larger_than_it_may_be_is_left_out_and_told() {
    let mut world = crowd(0);
    let body = json!({
        "subtool": "get_user",
        "arguments": { "user_id": crate::world::SAM },
        "options": { "max_bytes": 900 },
    });
    world.send("prod.interactive", body);
    world.rest().await;
    drop(world.tape());
    let answer = world.answer();
    assert_eq!((&answer["result"], &answer["result_omitted"]), (&Value::Null, &json!(true)));
    assert_eq!(answer["status"], "succeeded");
    world.close();
}

#[tokio::test(start_paused = true)]
async fn only_lists_are_counted_and_streamed() {
    let mut world = crowd(0);
    for name in ["count_only", "stream"] {
        let options = json!({ name: true });
        let arguments = json!({ "user_id": crate::world::SAM });
        world.send(
            "prod.interactive",
            json!({ "subtool": "get_user", "arguments": arguments, "options": options }),
        );
        world.rest().await;
        drop(world.tape());
        let error = world.answer()["error"].clone();
        assert_eq!(
            (&error["code"], &error["path"]),
            (&json!("invalid_message"), &json!(format!("options.{name}")))
        );
    }
    world.close();
}

#[tokio::test(start_paused = true)]
async fn what_nobody_wants_any_more_is_dropped_unless_it_has_begun() {
    let mut world = Setup::default().limit(okta_worker::domain::bucket::Bucket::UserRead, 1).open();
    world.others_read(1);
    world.ask("get_user", json!({ "user_id": crate::world::SAM }));
    world.rest().await;
    drop((world.tape(), world.answer()));
    let cancel = |id: &str, user: Option<&str>| Properties {
        message_id: Some(id.to_owned()),
        kind: Some("okta.cancel".to_owned()),
        user_id: user.map(str::to_owned),
        ..Properties::default()
    };
    world.ask("get_user", json!({ "user_id": crate::world::SAM }));
    world.ask("get_user", json!({ "user_id": crate::world::SAM }));
    world.send_raw("prod.interactive", cancel("m2", None), "");
    world.send_raw("prod.interactive", cancel("m3", Some("somebody else")), "");
    world.rest().await;
    let tape = world.tape();
    assert!(tape.contains("m2 cancelled") && !tape.contains("m3 cancelled"), "{tape}");
    assert_eq!(world.answers(1), ["m3 succeeded none"]);
    world.close();
}

#[tokio::test(start_paused = true)]
async fn whoever_cancels_with_a_reply_to_is_answered_that_nothing_was_done() {
    let mut world = Setup::default().limit(okta_worker::domain::bucket::Bucket::UserRead, 1).open();
    world.others_read(1);
    world.ask("get_user", json!({ "user_id": crate::world::SAM }));
    world.rest().await;
    drop((world.tape(), world.answer()));
    world.ask("get_user", json!({ "user_id": crate::world::SAM }));
    let cancel = Properties {
        message_id: Some("m2".to_owned()),
        kind: Some("okta.cancel".to_owned()),
        reply_to: Some("a queue".to_owned()),
        ..Properties::default()
    };
    world.send_raw("prod.interactive", cancel, "");
    world.rest().await;
    let tape = world.tape();
    assert!(tape.contains("m2 cancelled"), "{tape}");
    let answer = world.answer();
    assert_eq!(
        (&answer["id"], &answer["status"], &answer["effect"]),
        (&json!("m2"), &json!("failed"), &json!("none"))
    );
    let error = &answer["error"];
    assert_eq!(
        (&error["code"], &error["retryable"], &error["retry_at"]),
        (&json!("cancelled"), &json!(false), &json!(null))
    );
    world.close();
}

#[tokio::test(start_paused = true)]
async fn who_asks_for_it_hears_of_a_wait_once_a_second() {
    let mut world = Setup::default().limit(okta_worker::domain::bucket::Bucket::UserRead, 1).open();
    world.others_read(1);
    let arguments = json!({ "user_id": crate::world::SAM });
    world.ask("get_user", arguments.clone());
    world.rest().await; // from now on the worker knows the window
    drop((world.tape(), world.answer()));
    let mut properties = Properties { reply_to: Some(REPLIES.to_owned()), ..Properties::default() };
    properties.headers.insert("okta-progress".into(), okta_worker::domain::message::HeaderValue::Bool(true));
    let body_of = json!({ "subtool": "get_user", "arguments": arguments });
    world.send_raw("prod.interactive", properties, body_of.to_string());
    let begun = world.now();
    world.rest().await;
    let waited = world.now().duration_since(begun).as_secs();
    drop(world.tape());
    let mut told = 0;
    loop {
        let reply = world.reply();
        if reply.properties.kind.as_deref() == Some("okta.result") {
            break;
        }
        let progress = body(&reply);
        assert_eq!(reply.properties.kind.as_deref(), Some("okta.progress"));
        assert_eq!(reply.properties.correlation_id.as_deref(), Some("m2"));
        assert_eq!(
            (&progress["waiting_for"], &progress["bucket"]),
            (&json!("rate_limit"), &json!("user_read"))
        );
        told += 1;
    }
    assert!(told >= 10 && told <= waited + 1, "{told} in {waited} s");
    world.close();
}
