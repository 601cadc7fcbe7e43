//! Messages put aside: they make room for others, come back, and are what they were.

use std::time::Duration;

use jiff::SignedDuration;
use okta_worker::domain::bucket::Bucket;
use okta_worker::domain::ids::Lane;
use okta_worker::domain::message::{HeaderValue, Headers, Properties};
use okta_worker::policy::authorization::{AllowList, CallerPermissions, Callers};
use okta_worker::sandbox::UserStatus;
use serde_json::{Value, json};

use crate::world::{REPLIES, SAM, Setup, WORKER, World, brief, prod};

const MINUTE: Duration = Duration::from_secs(60);

fn text(text: &str) -> HeaderValue {
    HeaderValue::Text(text.to_owned())
}

fn headers(headers: &[(&str, HeaderValue)]) -> Headers {
    headers.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
}

fn to_replies() -> Properties {
    Properties { reply_to: Some(REPLIES.to_owned()), ..Properties::default() }
}

fn read_sam() -> String {
    json!({ "subtool": "get_user", "arguments": { "user_id": SAM } }).to_string()
}

/// Reads a user.
fn read(world: &mut World) {
    world.ask("get_user", json!({ "user_id": SAM }));
}

#[tokio::test(start_paused = true)]
async fn a_message_put_aside_comes_back_and_is_answered_once() {
    let mut world = Setup::default().open();
    world.delay_for_budget(Bucket::UserRead, Duration::from_secs(20));
    let correlation_id = Some("agent-7".to_owned());
    world.send_raw("prod", Properties { correlation_id, ..to_replies() }, read_sam());
    world.rest().await;
    insta::assert_snapshot!(world.tape(), @"
    +0.000s prod interactive received
    +0.000s prod user_read interactive put aside for 15s
    +15.000s prod interactive received
    +15.100s prod user_read asked GET: 200
    +15.100s m1 get_user succeeded, effect none, attempts 1, calls 1
    ");
    let answer = world.reply();
    assert_eq!(answer.properties.correlation_id.as_deref(), Some("agent-7"));
    assert_eq!(answer.properties.message_id.as_deref(), Some("m1.result"));
    let answer = crate::world::body(&answer);
    assert_eq!((&answer["waited_ms"], &answer["duration_ms"]), (&json!(15_000), &json!(15_100)));
    assert_eq!(answer["id_generated"], Value::Null);
    world.close();
}

#[tokio::test(start_paused = true)]
async fn the_other_buckets_messages_go_on_meanwhile() {
    let mut world = Setup { prefetch: 1, ..Setup::default() }.open();
    world.delay_for_budget(Bucket::UserRead, MINUTE);
    world.ask_bulk("get_user", json!({ "user_id": SAM }));
    world.ask_bulk("list_groups", json!({}));
    world.rest().await;
    insta::assert_snapshot!(world.tape(), @"
    +0.000s prod bulk received
    +0.000s prod user_read bulk put aside for 60s
    +0.000s prod bulk received
    +0.100s prod groups asked GET: 200
    +0.100s m2 list_groups succeeded, effect none, attempts 1, calls 1
    +60.000s prod bulk received
    +60.100s prod user_read asked GET: 200
    +60.100s m1 get_user succeeded, effect none, attempts 1, calls 1
    ");
    assert_eq!(world.answers(2), ["m2 succeeded none", "m1 succeeded none"]);
    world.close();
}

#[tokio::test(start_paused = true)]
async fn a_message_that_goes_round_twice_looks_as_after_once() {
    let mut world = Setup::default().open();
    for _ in 0..2 {
        world.delay_for_budget(Bucket::UserRead, Duration::from_secs(5));
    }
    let sent = headers(&[
        ("traceparent", text("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")),
        ("x-ours", HeaderValue::Bool(true)),
        ("okta-resent", HeaderValue::Bool(false)),
        ("CC", HeaderValue::List(vec![text("prod.bulk")])),
        ("okta-attempts", HeaderValue::Int(4)),
    ]);
    let properties = Properties {
        user_id: Some("helpdesk".to_owned()),
        correlation_id: Some("c".to_owned()),
        kind: Some("okta.invocation".to_owned()),
        content_type: Some("application/json".to_owned()),
        timestamp: Some(1_772_442_000),
        headers: sent,
        ..to_replies()
    };
    world.send_raw("prod", properties.clone(), read_sam());
    world.run_for(Duration::from_secs(1)).await;
    let first = world.lying_in("okta.delay.5s");
    world.run_for(Duration::from_secs(5)).await;
    let second = world.lying_in("okta.delay.5s");
    let began = world.now().as_millisecond() - 6000;
    let expected = |waited: i64| {
        let headers = headers(&[
            ("okta-age-ms", HeaderValue::Int(waited)),
            ("okta-aside-since", HeaderValue::Int(began + waited)),
            ("okta-attempts", HeaderValue::Int(0)),
            ("okta-caller", text("helpdesk")),
            ("okta-first-sent", HeaderValue::Int(1_772_442_000_000)),
            ("okta-redeliveries", HeaderValue::Int(0)),
            ("okta-resent", HeaderValue::Bool(false)),
            ("okta-waited-ms", HeaderValue::Int(waited)),
            ("traceparent", text("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")),
            ("x-ours", HeaderValue::Bool(true)),
        ]);
        let (message_id, user_id) = (Some("m1".to_owned()), Some(WORKER.to_owned()));
        Properties { message_id, user_id, headers, ..properties.clone() }
    };
    // The number that it had in the order of its subject, and the clock, are this worker's own.
    let mut orders = Vec::new();
    let copies = [first, second].map(|mut copy| {
        assert!(copy.properties.headers.remove("okta-clock").is_some());
        orders.push(copy.properties.headers.remove("okta-order").unwrap());
        copy
    });
    assert_eq!(orders[0], orders[1]);
    assert_eq!(copies.each_ref().map(|copy| &copy.properties), [&expected(0), &expected(5000)]);
    for copy in copies {
        assert_eq!(copy.routing_key, "prod.interactive");
        assert_eq!(copy.body, read_sam());
    }
    world.rest().await;
    world.tape();
    assert_eq!(world.answer()["waited_ms"], 10_000);
    world.close();
}

#[tokio::test(start_paused = true)]
async fn a_deadline_holds_for_all_copies_together() {
    let mut world = Setup::default().open();
    // Nobody said when it was sent, so its ten minutes begin with the first receipt.
    for _ in 0..4 {
        world.delay_for_budget(Bucket::UserRead, 10 * MINUTE);
    }
    read(&mut world);
    world.run_for(Duration::from_secs(541)).await;
    insta::assert_snapshot!(world.tape(), @"
    +0.000s prod interactive received
    +0.000s prod user_read interactive put aside for 300s
    +300.000s prod interactive received
    +300.000s prod user_read interactive put aside for 120s
    +420.000s prod interactive received
    +420.000s prod user_read interactive put aside for 120s
    +540.000s prod interactive received
    +540.000s prod user_read interactive put aside for 15s
    ");
    world.rest().await;
    world.tape();
    assert_eq!(world.answers(1), ["m1 succeeded none"]);
    world.close();
}

#[tokio::test(start_paused = true)]
async fn who_would_come_back_too_late_waits_in_line() {
    let mut world = Setup::default().limit(Bucket::UserRead, 1).open();
    read(&mut world);
    world.run_for(Duration::from_millis(60_200)).await;
    world.delay_for_budget(Bucket::UserRead, MINUTE);
    let deadline = world.now() + SignedDuration::from_millis(950);
    world.ask_by(deadline, "get_user", json!({ "user_id": SAM }));
    world.rest().await;
    insta::assert_snapshot!(world.tape(), @"
    +0.000s prod interactive received
    +0.100s prod user_read asked GET: 200
    +0.100s m1 get_user succeeded, effect none, attempts 1, calls 1
    +60.200s prod interactive received
    +60.300s prod user_read asked GET: 200
    +60.300s m2 get_user succeeded, effect none, attempts 1, calls 1
    ");
    assert_eq!(world.answers(2), ["m1 succeeded none", "m2 succeeded none"]);
    world.close();
}

#[tokio::test(start_paused = true)]
async fn an_expiration_becomes_a_deadline_of_the_copy() {
    let latency = Duration::from_secs(20);
    let mut world = Setup { prefetch: 1, latency, ..Setup::default() }.open();
    world.delay_for_budget(Bucket::UserRead, MINUTE);
    let expiration = Some("10000".to_owned());
    world.send_raw("prod.bulk", Properties { expiration, ..to_replies() }, read_sam());
    world.ask_bulk("list_groups", json!({}));
    world.run_for(Duration::from_secs(1)).await;
    assert_eq!(world.lying_in("okta.delay.5s").properties.expiration, None);
    world.rest().await;
    insta::assert_snapshot!(world.tape(), @"
    +0.000s prod bulk received
    +0.000s prod user_read bulk put aside for 5s
    +0.000s prod bulk received
    +20.000s prod groups asked GET: 200
    +20.000s m2 list_groups succeeded, effect none, attempts 1, calls 1
    +20.000s prod bulk received
    +20.000s m1 get_user failed deadline_exceeded, effect none, attempts 0, calls 0
    ");
    assert_eq!(world.answers(1), ["m2 succeeded none"]);
    let answer = world.answer();
    assert_eq!(brief(&answer), "m1 failed deadline_exceeded none");
    assert_eq!(answer["error"]["path"], "properties.expiration");
    assert_eq!(answer["waited_ms"], 20_000);
    world.close();
}

#[tokio::test(start_paused = true)]
async fn an_expiration_is_a_deadline_in_line_too() {
    let mut world = Setup::default().limit(Bucket::UserRead, 1).open();
    read(&mut world);
    world.run_for(Duration::from_secs(1)).await;
    let expiration = Some("10000".to_owned());
    world.send_raw("prod.bulk", Properties { expiration, ..to_replies() }, read_sam());
    world.rest().await;
    world.tape();
    assert_eq!(world.answers(1), ["m1 succeeded none"]);
    let answer = world.answer();
    assert_eq!(brief(&answer), "m2 failed rate_limited none");
    assert_eq!(answer["error"]["path"], "properties.expiration");
    world.close();
}

#[tokio::test(start_paused = true)]
async fn a_caller_forges_neither_who_asked_nor_what_was_tried() {
    let permitted = |subtools: &str| CallerPermissions {
        connections: vec![prod()],
        subtools: AllowList::parse(&[subtools]).unwrap(),
        lanes: Lane::ALL.to_vec(),
        max_per_minute: None,
    };
    let callers = [("mallory".to_owned(), permitted("read")), ("admin".to_owned(), permitted("all"))];
    let mut world = Setup { callers: Callers(callers.into()), ..Setup::default() }.open();
    let forged = || Properties {
        user_id: Some("mallory".to_owned()),
        headers: headers(&[
            ("okta-caller", text("admin")),
            ("okta-attempts", HeaderValue::Int(4)),
            ("okta-waited-ms", HeaderValue::Int(1_000_000)),
            ("okta-first-sent", HeaderValue::Int(0)),
            ("okta-expires", HeaderValue::Int(0)),
            ("okta-id-generated", HeaderValue::Bool(true)),
        ]),
        ..to_replies()
    };
    let create = json!({ "subtool": "create_group", "arguments": { "name": "Mine" } });
    world.send_raw("prod", forged(), create.to_string());
    world.delay_for_budget(Bucket::UserRead, Duration::from_secs(1));
    world.send_raw("prod", forged(), read_sam());
    world.run_for(Duration::from_millis(500)).await;
    assert_eq!(world.lying_in("okta.delay.1s").properties.headers["okta-caller"], text("mallory"));
    world.rest().await;
    world.tape();
    assert_eq!(world.answers(1), ["m1 failed not_permitted none"]);
    let answer = world.answer();
    assert_eq!(brief(&answer), "m2 succeeded none");
    assert_eq!((&answer["attempts"], &answer["waited_ms"]), (&json!(1), &json!(1000)));
    assert_eq!(answer["id_generated"], Value::Null);
    world.close();
}

#[tokio::test(start_paused = true)]
async fn an_id_of_our_making_stays_and_is_said_to_be() {
    let mut world = Setup::default().open();
    world.delay_for_budget(Bucket::UserRead, Duration::from_secs(1));
    world.send_nameless("prod", to_replies(), read_sam());
    world.run_for(Duration::from_millis(500)).await;
    let id = world.lying_in("okta.delay.1s").properties.message_id.unwrap();
    world.rest().await;
    world.tape();
    let reply = world.reply();
    assert_eq!(reply.properties.correlation_id, Some(id.clone()));
    let answer = crate::world::body(&reply);
    assert_eq!((&answer["id"], &answer["id_generated"]), (&json!(id), &json!(true)));
    world.close();
}

#[tokio::test(start_paused = true)]
async fn an_invocation_that_has_begun_is_not_put_aside() {
    let mut world = Setup::default().open();
    let sam = world.org().user_id(SAM).unwrap();
    world.org().set_status(sam, UserStatus::Deprovisioned);
    world.delay_for_budget(Bucket::UserWrite, MINUTE);
    world.ask("delete_user", json!({ "user_id": SAM }));
    world.rest().await;
    world.ask("update_user", json!({ "user_id": "00unobody0000000000x", "profile": { "title": "x" } }));
    world.rest().await;
    insta::assert_snapshot!(world.tape(), @"
    +0.000s prod interactive received
    +0.100s prod user_read asked GET: 200
    +0.200s prod user_write asked DELETE: 204
    +0.300s prod user_read asked GET: 404
    +0.300s m1 delete_user succeeded, effect applied, attempts 1, calls 3
    +0.350s prod interactive received
    +0.350s prod user_write interactive put aside for 60s
    +60.350s prod interactive received
    +60.450s prod user_write asked POST: 404
    +60.550s prod user_read asked GET: 404
    +60.550s m2 update_user failed not_found, effect none, attempts 1, calls 2
    ");
    assert_eq!(world.answers(2), ["m1 succeeded applied", "m2 failed not_found none"]);
    world.close();
}

#[tokio::test(start_paused = true)]
async fn what_one_worker_put_aside_another_one_runs() {
    let mut world = Setup::default().open();
    world.delay_for_budget(Bucket::UserRead, MINUTE);
    read(&mut world);
    world.run_for(Duration::from_secs(1)).await;
    world.replace_worker();
    world.rest().await;
    insta::assert_snapshot!(world.tape(), @"
    +0.000s prod interactive received
    +0.000s prod user_read interactive put aside for 60s
    +60.000s prod interactive received
    +60.100s prod user_read asked GET: 200
    +60.100s m1 get_user succeeded, effect none, attempts 1, calls 1
    ");
    assert_eq!(world.answers(1), ["m1 succeeded none"]);
    world.close();
}

#[tokio::test(start_paused = true)]
async fn without_a_tier_to_lie_in_a_message_waits_in_line() {
    let mut world = Setup::default().open();
    world.without_queue("okta.delay.1m");
    world.delay_for_budget(Bucket::UserRead, MINUTE);
    read(&mut world);
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
async fn headers_that_no_frame_may_hold_keep_a_message_in_line() {
    let mut world = Setup::default().open();
    world.delay_for_budget(Bucket::UserRead, MINUTE);
    let headers = headers(&[("baggage", text(&"x".repeat(4096)))]);
    world.send_raw("prod", Properties { headers, ..to_replies() }, read_sam());
    world.rest().await;
    assert!(!world.tape().contains("put aside"));
    assert_eq!(world.answers(1), ["m1 succeeded none"]);
    world.close();
}
