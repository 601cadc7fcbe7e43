//! The same invocation again: one worker runs it once and answers each time; and a message that was delivered
//! too often runs alone, until it is given up.

use std::time::Duration;

use okta_worker::domain::bucket::Bucket;
use okta_worker::domain::message::{HeaderValue, Properties};
use okta_worker::sandbox::{InjectedFault, Trouble};
use serde_json::{Value, json};

use crate::world::{REPLIES, SAM, Setup, WORKER, World, brief};

fn reset() -> Value {
    json!({ "subtool": "reset_user_password", "arguments": { "user_id": SAM } })
}

fn read() -> Value {
    json!({ "subtool": "get_user", "arguments": { "user_id": SAM } })
}

/// Publishes a body under an id.
fn send_as(world: &mut World, id: &str, body: &Value) {
    let (message_id, reply_to) = (Some(id.to_owned()), Some(REPLIES.to_owned()));
    world.send_raw("prod", Properties { message_id, reply_to, ..Properties::default() }, body.to_string());
}

/// Publishes a copy of ours, delivered so often before.
fn send_redelivered(world: &mut World, id: &str, body: &Value, redeliveries: i64) {
    let since = HeaderValue::Int(world.now().as_millisecond());
    let headers =
        [("okta-redeliveries", HeaderValue::Int(redeliveries)), ("okta-first-sent", since)].into_iter();
    let properties = Properties {
        message_id: Some(id.to_owned()),
        reply_to: Some(REPLIES.to_owned()),
        user_id: Some(WORKER.to_owned()),
        headers: headers.map(|(name, value)| (name.to_owned(), value)).collect(),
        ..Properties::default()
    };
    world.send_raw("prod", properties, body.to_string());
}

/// How often Okta mailed a new password since there were so many effects.
fn mails(world: &World, before: usize) -> usize {
    world.effects()[before..].iter().filter(|kind| **kind == "mail.password_reset").count()
}

#[tokio::test(start_paused = true)]
async fn the_same_write_twice_at_once_runs_once_and_is_answered_twice_alike() {
    let mut world = Setup::default().open();
    let before = world.effects().len();
    send_as(&mut world, "r", &reset());
    send_as(&mut world, "r", &reset());
    world.rest().await;
    let [first, second] = [(); 2].map(|()| world.answer());
    assert_eq!(brief(&first), "r succeeded applied");
    assert_eq!(first["result"], second["result"]);
    for same in ["id", "status", "effect", "attempts", "okta_calls", "okta_request_ids"] {
        assert_eq!(first[same], second[same], "{same}");
    }
    assert_eq!((&first["deduplicated"], &second["deduplicated"]), (&Value::Null, &json!(true)));
    assert_eq!(mails(&world, before), 1);
    let tape = world.tape();
    assert_eq!(
        (tape.matches("r reset_user_password succeeded").count(), tape.matches("r dedup").count()),
        (1, 1)
    );
    world.close();
}

#[tokio::test(start_paused = true)]
async fn the_same_write_later_is_answered_and_not_run_for_ten_minutes() {
    let mut world = Setup::default().open();
    let before = world.effects().len();
    for (after_minutes, mailed) in [(0, 1), (9, 1), (2, 2)] {
        world.run_for(Duration::from_secs(after_minutes * 60)).await;
        send_as(&mut world, "r", &reset());
        world.rest().await;
        assert_eq!(brief(&world.answer()), "r succeeded applied");
        assert_eq!(mails(&world, before), mailed, "{after_minutes} minutes later");
    }
    world.tape();
    world.close();
}

#[tokio::test(start_paused = true)]
async fn ten_minutes_end_in_whatever_order_the_invocations_came() {
    let mut world = Setup::default().open();
    for number in 0..20 {
        send_as(&mut world, &format!("other{number}"), &reset());
    }
    send_as(&mut world, "r", &reset());
    world.rest().await;
    let before = world.effects().len();
    // Asked for again and again, and each time the first run counts.
    let later = [(6, true), (3, true), (2, false), (9, true), (2, false)];
    for (after_minutes, _) in later {
        world.run_for(Duration::from_secs(after_minutes * 60)).await;
        send_as(&mut world, "r", &reset());
    }
    world.rest().await;
    assert_eq!(mails(&world, before), 2);
    let answers: Vec<Value> = (0..26).map(|_| world.answer()).collect();
    let again = answers.iter().filter(|answer| answer["id"] == "r").skip(1);
    let again: Vec<bool> = again.map(|answer| answer["deduplicated"] == json!(true)).collect();
    assert_eq!(again, later.map(|(_, is_known)| is_known));
    world.tape();
    world.close();
}

#[tokio::test(start_paused = true)]
async fn ten_minutes_count_from_the_end_of_an_invocation_that_took_long() {
    let mut world = Setup::default().limit(Bucket::UserWrite, 1).open();
    let title = |title: &str| json!({ "user_id": SAM, "profile": { "title": title } });
    let update = |to: &str| json!({ "subtool": "update_user", "arguments": title(to) });
    for number in 0..12 {
        let properties = Properties {
            message_id: Some(format!("u{number}")),
            reply_to: Some(REPLIES.to_owned()),
            ..Properties::default()
        };
        world.send_raw("prod.bulk", properties, update(&number.to_string()).to_string());
    }
    world.rest().await; // one a minute
    let answers: Vec<_> = (0..12).map(|_| world.answer()).collect();
    let last = answers.last().expect("there are twelve");
    world.run_for(Duration::from_secs(9 * 60)).await;
    let id = last["id"].as_str().unwrap().to_owned();
    let properties = Properties {
        message_id: Some(id.clone()),
        reply_to: Some(REPLIES.to_owned()),
        ..Properties::default()
    };
    world.send_raw("prod.bulk", properties, update(id.trim_start_matches('u')).to_string());
    world.rest().await;
    assert_eq!(world.answer()["deduplicated"], json!(true));
    world.tape();
    world.close();
}

#[tokio::test(start_paused = true)]
async fn whatever_differs_in_anything_is_another_invocation() {
    let mut world = Setup::default().open();
    let before = world.effects().len();
    let reply_to = Some(REPLIES.to_owned());
    let said = reset().to_string();
    let mut send = |key: &str, id: &str, user: Option<&str>, body: &str| {
        let (message_id, user_id) = (Some(id.to_owned()), user.map(str::to_owned));
        let properties =
            Properties { message_id, user_id, reply_to: reply_to.clone(), ..Properties::default() };
        world.send_raw(key, properties, body.to_owned());
    };
    send("prod", "r", None, &said);
    send("prod.bulk", "r", None, &said);
    send("prod", "s", None, &said);
    send("prod", "r", Some("somebody"), &said);
    send("prod", "r", None, &format!("{said} "));
    world.rest().await;
    assert_eq!(world.answers(5).iter().filter(|answer| answer.ends_with("succeeded applied")).count(), 5);
    assert_eq!(mails(&world, before), 5);
    world.tape();
    world.close();
}

#[tokio::test(start_paused = true)]
async fn what_failed_and_changed_nothing_is_tried_again_for_the_producer_and_not_for_the_broker() {
    let mut world = Setup::default().open();
    let refused = || InjectedFault::next(Trouble::Code { status: 403, code: "E0000006".to_owned() });
    world.fault(refused());
    send_as(&mut world, "r", &reset());
    world.rest().await;
    assert_eq!(world.answers(1), ["r failed forbidden none"]);
    // The producer publishes it once more, and it is another story now.
    send_as(&mut world, "r", &reset());
    world.rest().await;
    assert_eq!(world.answers(1), ["r succeeded applied"]);
    world.fault(refused());
    send_redelivered(&mut world, "b", &reset(), 0);
    world.rest().await;
    // The acknowledgement was lost.
    send_redelivered(&mut world, "b", &reset(), 1);
    world.rest().await;
    assert_eq!(world.answers(2), ["b failed forbidden none"; 2]);
    world.tape();
    world.close();
}

#[tokio::test(start_paused = true)]
async fn of_those_that_were_delivered_too_often_one_runs_and_the_others_wait_outside() {
    let mut world = Setup::default().open();
    for id in ["a", "b"] {
        send_redelivered(&mut world, id, &read(), 2);
    }
    send_redelivered(&mut world, "c", &read(), 1);
    world.rest().await;
    insta::assert_snapshot!(world.tape(), @"
    +0.000s prod interactive received
    +0.000s a handed back
    +0.000s prod interactive received
    +0.000s b handed back
    +0.000s prod interactive received
    +0.100s prod user_read asked GET: 200
    +0.100s c get_user succeeded, effect none, attempts 1, calls 1
    +15.000s prod interactive received
    +15.000s a runs alone after 2 redeliveries
    +15.000s prod interactive received
    +15.000s b handed back
    +15.100s prod user_read asked GET: 200
    +15.100s a get_user succeeded, effect none, attempts 1, calls 1
    +30.000s prod interactive received
    +30.000s b runs alone after 2 redeliveries
    +30.100s prod user_read asked GET: 200
    +30.100s b get_user succeeded, effect none, attempts 1, calls 1
    ");
    assert_eq!(world.answers(3).len(), 3);
    world.close();
}

#[tokio::test(start_paused = true)]
async fn one_delivered_too_often_that_must_not_be_copied_runs_alone_in_the_worker() {
    let mut world = Setup::default().open();
    for id in ["a", "b"] {
        let (message_id, reply_to) = (Some(id.to_owned()), Some(REPLIES.to_owned()));
        let headers = [("x-delivery-count".to_owned(), HeaderValue::Int(2))].into_iter().collect();
        let properties = Properties { message_id, reply_to, headers, ..Properties::default() };
        world.send_again("prod", properties, read().to_string());
    }
    world.rest().await;
    assert_eq!(world.answers(2), ["a succeeded none", "b succeeded none"]);
    assert_eq!(world.tape().matches("runs alone").count(), 2);
    world.close();
}

#[tokio::test(start_paused = true)]
async fn one_that_no_worker_came_to_the_end_of_is_answered_and_parked_without_a_request() {
    let mut world = Setup::default().open();
    send_redelivered(&mut world, "k", &reset(), 11);
    world.rest().await;
    assert_eq!(world.answers(1), ["k failed internal unknown"]);
    let parked = world.parked();
    let header = |name: &str| parked.properties.headers.get(name).cloned();
    assert_eq!(header("okta-reason"), Some(HeaderValue::Text("crash_loop".to_owned())));
    assert_eq!(header("okta-redeliveries"), Some(HeaderValue::Int(11)));
    assert_eq!(header("okta-attempts"), Some(HeaderValue::Int(0)));
    assert_eq!(header("okta-first-sent"), Some(HeaderValue::Int(world.now().as_millisecond() - 50)));
    assert!(!world.tape().contains("asked"));
    world.close();
}

#[tokio::test(start_paused = true)]
async fn what_may_have_changed_something_and_may_be_tried_again_is_tried_for_the_producer() {
    let mut world = Setup::default().open();
    let title = json!({ "user_id": SAM, "profile": { "title": "Chief" } });
    let update = json!({ "subtool": "update_user", "arguments": title });
    world.fault(InjectedFault::next(Trouble::Status(500)).on("POST", "/api/v1/users/{userId}").times(5, 0));
    send_as(&mut world, "u", &update);
    world.rest().await;
    let answer = world.answer();
    assert_eq!(
        (brief(&answer), &answer["error"]["retryable"]),
        ("u failed okta_unavailable unknown".to_owned(), &json!(true))
    );
    send_as(&mut world, "u", &update);
    world.rest().await;
    assert_eq!(world.answers(1), ["u succeeded applied"]);
    world.tape();
    world.close();
}
