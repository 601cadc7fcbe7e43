//! Budgets: windows that are spent, lanes, floors, deadlines.

use std::time::Duration;

use okta_worker::domain::bucket::Bucket;
use okta_worker::sandbox::{Fault, Trouble};
use serde_json::json;

use crate::world::{SAM, Setup};

#[tokio::test(start_paused = true)]
async fn a_spent_window_is_waited_for_without_spending_an_attempt() {
    let mut world = Setup::default().limit(Bucket::UserRead, 2).open();
    for _ in 0..3 {
        world.ask("get_user", json!({ "user_id": SAM }));
    }
    world.rest().await;
    insta::assert_snapshot!(world.tape(), @r"
    +0.000s prod interactive received
    +0.000s prod interactive received
    +0.000s prod interactive received
    +0.100s prod user_read asked GET: 200
    +0.100s m1 get_user succeeded, effect none, attempts 1, calls 1
    +0.100s prod user_read interactive waited 0.100s
    +0.200s prod user_read asked GET: 200
    +0.200s m2 get_user succeeded, effect none, attempts 1, calls 1
    +0.200s prod user_read exhausted for 60.900s
    +61.100s prod user_read interactive waited 61.100s
    +61.200s prod user_read asked GET: 200
    +61.200s m3 get_user succeeded, effect none, attempts 1, calls 1
    ");
    let [_, _, last] = [world.answer(), world.answer(), world.answer()];
    assert_eq!((&last["attempts"], &last["okta_calls"]), (&json!(1), &json!(1)));
    assert!(last["waited_ms"].as_u64().unwrap() > 59_000);
    world.close();
}

#[tokio::test(start_paused = true)]
async fn a_spent_bucket_does_not_hold_up_another() {
    let mut world = Setup::default().limit(Bucket::UserRead, 1).open();
    world.ask("get_user", json!({ "user_id": SAM }));
    world.rest().await;
    world.ask("get_user", json!({ "user_id": SAM }));
    world.ask("list_groups", json!({ "limit": 1 }));
    world.run_for(Duration::from_secs(1)).await;
    assert_eq!(world.answers(2), ["m1 succeeded none", "m3 succeeded none"]);
    world.rest().await;
    world.tape();
    assert_eq!(world.answers(1), ["m2 succeeded none"]);
    world.close();
}

#[tokio::test(start_paused = true)]
async fn the_share_of_others_is_left_to_them() {
    let mut setup = Setup::default().limit(Bucket::UserRead, 10);
    setup.capacity_percent = 80;
    let mut world = setup.open();
    for _ in 0..10 {
        world.ask("get_user", json!({ "user_id": SAM }));
    }
    world.run_for(Duration::from_secs(30)).await;
    assert_eq!(world.answers(8).len(), 8);
    world.rest().await;
    world.tape();
    assert_eq!(world.answers(2).len(), 2);
    assert!(world.org().counters().iter().all(|counter| counter.refused == 0));
    world.close();
}

#[tokio::test(start_paused = true)]
async fn the_interactive_lane_goes_first_and_each_lane_keeps_its_order() {
    let mut world = Setup::default().limit(Bucket::UserRead, 1).open();
    world.ask("get_user", json!({ "user_id": SAM }));
    world.rest().await;
    for _ in 0..2 {
        world.ask_bulk("get_user", json!({ "user_id": SAM }));
    }
    world.run_for(Duration::from_secs(1)).await;
    world.ask("get_user", json!({ "user_id": SAM }));
    world.rest().await;
    world.tape();
    let order = world.answers(4);
    assert_eq!(order, ["m1 succeeded none", "m4 succeeded none", "m2 succeeded none", "m3 succeeded none"]);
    world.close();
}

#[tokio::test(start_paused = true)]
async fn a_deadline_the_budget_cannot_make_is_answered_at_once() {
    let mut world = Setup::default().limit(Bucket::UserRead, 1).open();
    world.ask("get_user", json!({ "user_id": SAM }));
    world.rest().await;
    let deadline = world.now() + jiff::SignedDuration::from_secs(20);
    world.ask_by(deadline, "get_user", json!({ "user_id": SAM }));
    world.rest().await;
    insta::assert_snapshot!(world.tape(), @r"
    +0.000s prod interactive received
    +0.100s prod user_read asked GET: 200
    +0.100s m1 get_user succeeded, effect none, attempts 1, calls 1
    +0.150s prod interactive received
    +0.150s prod user_read exhausted for 60.950s
    +0.150s m2 get_user failed rate_limited, effect none, attempts 0, calls 0
    ");
    world.answer();
    let late = world.answer();
    assert_eq!(late["error"]["code"], "rate_limited");
    assert_eq!(late["error"]["retryable"], true);
    assert!(late["error"]["retry_at"].as_str().unwrap().starts_with("2026-03-02T09:01:0"));
    world.close();
}

#[tokio::test(start_paused = true)]
async fn a_429_about_the_window_was_not_executed_and_spends_no_attempt() {
    let mut world = Setup::default().limit(Bucket::UserRead, 5).open();
    world.fault(
        Fault::next(Trouble::Code { status: 429, code: "E0000047".into() })
            .on("GET", "/api/v1/users/{userId}"),
    );
    world.ask("get_user", json!({ "user_id": SAM }));
    world.rest().await;
    insta::assert_snapshot!(world.tape(), @r"
    +0.000s prod interactive received
    +0.100s prod user_read asked GET: 429
    +0.100s prod user_read limited: window
    +0.100s prod user_read exhausted for 61.000s
    +61.100s prod user_read interactive waited 61.000s
    +61.200s prod user_read asked GET: 200
    +61.200s m1 get_user succeeded, effect none, attempts 1, calls 2
    ");
    assert_eq!(world.answer()["attempts"], 1);
    world.close();
}

#[tokio::test(start_paused = true)]
async fn a_429_about_concurrency_waits_a_moment_although_its_reset_is_minutes_off() {
    let mut setup = Setup::default();
    setup.org.concurrency = 1;
    let mut world = setup.open();
    world.ask("list_groups", json!({ "limit": 1 }));
    world.ask("list_apps", json!({ "limit": 1 }));
    world.rest().await;
    let took = world.now();
    assert!(took < "2026-03-02T09:00:05Z".parse().unwrap(), "{took}");
    let tape = world.tape();
    assert!(tape.contains("limited: concurrency"), "{tape}");
    assert_eq!(world.answers(2).len(), 2);
    world.close();
}
