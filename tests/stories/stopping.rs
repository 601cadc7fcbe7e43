//! Told to stop: what has not begun goes back to the queue, what has changed something is finished.

use std::time::Duration;

use okta_worker::domain::bucket::Bucket;
use okta_worker::sandbox::{InjectedFault, Trouble, UserStatus};
use serde_json::json;

use crate::world::{SAM, Setup};

#[tokio::test(start_paused = true)]
async fn what_waits_for_the_budget_is_handed_back_and_run_by_another_worker() {
    let mut world = Setup::default().limit(Bucket::UserRead, 1).open();
    for _ in 0..2 {
        world.ask("get_user", json!({ "user_id": SAM }));
        world.run_for(Duration::from_secs(1)).await;
    }
    world.replace_worker();
    world.rest().await;
    insta::assert_snapshot!(world.tape(), @"
    +0.000s prod interactive received
    +0.100s prod user_read asked GET: 200
    +0.100s m1 get_user succeeded, effect none, attempts 1, calls 1
    +1.000s prod interactive received
    +1.000s prod user_read exhausted for 59.100s
    +2.000s m2 handed back
    +2.000s prod interactive received
    +2.100s prod user_read asked GET: 429
    +2.100s prod user_read limited: window
    +2.100s prod user_read exhausted for 59.000s
    +61.100s prod user_read recovered
    +61.100s prod user_read interactive waited 59.000s
    +61.200s prod user_read asked GET: 200
    +61.200s m2 get_user succeeded, effect none, attempts 1, calls 2
    ");
    assert_eq!(world.answers(2), ["m1 succeeded none", "m2 succeeded none"]);
    world.close();
}

#[tokio::test(start_paused = true)]
async fn what_has_changed_something_is_finished_by_the_worker_that_stops() {
    let mut world = Setup { latency: Duration::from_secs(1), ..Setup::default() }.open();
    let sam = world.org().user_id(SAM).unwrap();
    world.org().set_status(sam, UserStatus::Deprovisioned);
    world.ask("delete_user", json!({ "user_id": SAM }));
    world.run_for(Duration::from_millis(1800)).await; // the deletion is done and not yet heard of
    world.replace_worker();
    world.rest().await;
    insta::assert_snapshot!(world.tape(), @"
    +0.000s prod interactive received
    +1.000s prod user_read asked GET: 200
    +2.000s prod user_write asked DELETE: 204
    +3.000s prod user_read asked GET: 404
    +3.000s m1 delete_user succeeded, effect applied, attempts 1, calls 3
    ");
    assert_eq!(world.answers(1), ["m1 succeeded applied"]);
    world.close();
}

#[tokio::test(start_paused = true)]
async fn a_wait_before_the_next_attempt_ends_when_the_worker_stops() {
    let mut setup = Setup::default();
    setup.retry.base = Duration::from_secs(25);
    let mut world = setup.open();
    world.fault(InjectedFault::next(Trouble::Status(500)));
    world.ask("get_user", json!({ "user_id": SAM }));
    world.run_for(Duration::from_secs(1)).await;
    world.replace_worker();
    world.rest().await;
    insta::assert_snapshot!(world.tape(), @"
    +0.000s prod interactive received
    +0.100s prod user_read asked GET: 500
    +0.100s prod attempt 1 failed: server_error, next in 12.769s
    +1.000s m1 handed back
    +1.000s prod interactive received
    +1.100s prod user_read asked GET: 200
    +1.100s m1 get_user succeeded, effect none, attempts 2, calls 1
    ");
    assert_eq!(world.answers(1), ["m1 succeeded none"]);
    world.close();
}

#[tokio::test(start_paused = true)]
async fn a_write_in_doubt_is_brought_to_its_end_although_the_worker_stops() {
    let mut world = Setup::default().open();
    let arguments = world.sam_into_sales();
    world.fault(InjectedFault::next(Trouble::Lost).after_effect());
    world.ask("add_user_to_group", arguments);
    world.run_for(Duration::from_millis(101)).await;
    world.replace_worker();
    world.rest().await;
    let tape = world.tape();
    assert!(!tape.contains("handed back"), "{tape}");
    assert_eq!(world.answers(1), ["m1 succeeded applied"]);
    world.close();
}
