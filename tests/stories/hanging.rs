//! Requests that hang: nobody else waits for them longer than a few seconds.

use std::time::Duration;

use jiff::SignedDuration;
use okta_worker::domain::bucket::Bucket;
use serde_json::json;

use crate::world::{Mishap, SAM, Setup, World, brief};

/// A request without an answer for a minute, the longest that the real client waits.
const HANG: Mishap = Mishap::Hangs(Duration::from_secs(60));

/// Somebody reads a user and waits so many seconds for the answer.
fn read_within(world: &mut World, seconds: i64) {
    let deadline = world.now() + SignedDuration::from_secs(seconds);
    world.ask_by(deadline, "get_user", json!({ "user_id": SAM }));
}

/// A bulk request hangs; then three people ask, and all are answered within seconds.
async fn three_are_answered_beside_it(world: &mut World) {
    world.mishap(HANG);
    world.ask_bulk("get_user", json!({ "user_id": SAM }));
    world.run_for(Duration::from_millis(500)).await;
    for _ in 0..3 {
        read_within(world, 10);
    }
    world.run_for(Duration::from_secs(4)).await;
    let answers = world.answers(3);
    assert!(answers.iter().all(|answer| answer.ends_with("succeeded none")), "{answers:?}");
}

#[tokio::test(start_paused = true)]
async fn the_first_request_of_all_may_hang_and_delays_others_by_seconds() {
    let mut world = Setup::default().limit(Bucket::UserRead, 30).open();
    three_are_answered_beside_it(&mut world).await;
    world.rest().await;
    assert_eq!(world.answers(1), ["m1 succeeded none"]);
    world.tape();
    world.close();
}

#[tokio::test(start_paused = true)]
async fn the_first_request_of_a_window_may_hang_and_delays_others_by_seconds() {
    let mut world = Setup::default().limit(Bucket::UserRead, 30).open();
    read_within(&mut world, 10);
    world.run_for(Duration::from_secs(120)).await; // its window is over
    assert_eq!(world.answers(1), ["m1 succeeded none"]);
    three_are_answered_beside_it(&mut world).await;
    world.rest().await;
    assert_eq!(world.answers(1), ["m2 succeeded none"]);
    world.tape();
    world.close();
}

#[tokio::test(start_paused = true)]
async fn a_request_that_hangs_is_no_limit_to_whoever_waits_for_it_in_vain() {
    let mut world = Setup::default().limit(Bucket::UserRead, 30).open();
    world.mishap(HANG);
    world.ask_bulk("get_user", json!({ "user_id": SAM }));
    world.run_for(Duration::from_millis(500)).await;
    read_within(&mut world, 2);
    world.run_for(Duration::from_secs(3)).await;
    assert_eq!(world.answers(1), ["m2 failed deadline_exceeded none"]);
    world.rest().await;
    assert_eq!(world.answers(1), ["m1 succeeded none"]);
    world.tape();
    world.close();
}

#[tokio::test(start_paused = true)]
async fn requests_without_an_answer_are_no_limit_either() {
    let mut world = Setup::default().limit(Bucket::UserRead, 3).open();
    read_within(&mut world, 10);
    world.run_for(Duration::from_secs(1)).await;
    assert_eq!(world.answers(1), ["m1 succeeded none"]);
    // Nobody knows whether Okta has counted these two, so nothing else goes before the end of the window.
    for _ in 0..2 {
        world.mishap(Mishap::Hangs(Duration::from_secs(1)));
        world.ask("get_user", json!({ "user_id": SAM }));
    }
    world.run_for(Duration::from_secs(3)).await;
    read_within(&mut world, 5);
    world.run_for(Duration::from_secs(6)).await;
    let answer = world.answer();
    assert_eq!(brief(&answer), "m4 failed deadline_exceeded none");
    world.rest().await;
    assert_eq!(world.answers(2).len(), 2);
    world.tape();
    world.close();
}
