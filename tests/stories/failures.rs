//! What fails for now: what is repeated, what never is, and what the answer says about it.

use std::time::Duration;

use okta_worker::policy::backoff::RetryRules;
use okta_worker::sandbox::{InjectedFault, Trouble, UserStatus};
use serde_json::{Value, json};

use crate::world::{Mishap, SAM, Setup, brief};

/// The arguments of a new user.
fn jane() -> Value {
    let login = "jane@example.com";
    json!({ "profile": { "firstName": "Jane", "lastName": "Doe", "email": login, "login": login } })
}

#[tokio::test(start_paused = true)]
async fn a_read_that_failed_for_now_is_repeated_after_a_random_part_of_a_growing_interval() {
    let rules = RetryRules::default();
    let mut world = Setup::default().open();
    world.fault(InjectedFault::next(Trouble::Status(500)).times(4, 0));
    world.ask("get_user", json!({ "user_id": SAM }));
    world.rest().await;
    let tape = world.tape();
    let waits: Vec<Duration> = tape
        .lines()
        .filter_map(|line| line.split_once("next in ")?.1.strip_suffix('s')?.parse().ok())
        .map(Duration::from_secs_f64)
        .collect();
    assert_eq!(waits.len(), 4, "{tape}");
    for (failures, wait) in (1..).zip(waits) {
        assert!(wait <= rules.wait(failures, 1.0), "{tape}");
    }
    let answer = world.answer();
    assert_eq!((&answer["status"], &answer["attempts"]), (&json!("succeeded"), &json!(5)));
    world.close();
}

/// No wait at all between attempts, so that times on the tape are plain.
fn hasty() -> Setup {
    Setup { retry: RetryRules { base: Duration::ZERO, ..RetryRules::default() }, ..Setup::default() }
}

#[tokio::test(start_paused = true)]
async fn attempts_used_up_are_okta_unavailable() {
    let mut world = hasty().open();
    world.fault(InjectedFault::next(Trouble::Html(502)).times(5, 0));
    world.ask("get_user", json!({ "user_id": SAM }));
    world.rest().await;
    insta::assert_snapshot!(world.tape(), @"
    +0.000s prod interactive received
    +0.100s prod user_read asked GET: 502
    +0.100s prod attempt 1 failed: gateway, next in 0.000s
    +0.200s prod user_read asked GET: 502
    +0.200s prod attempt 2 failed: gateway, next in 0.000s
    +0.300s prod user_read asked GET: 502
    +0.300s prod attempt 3 failed: gateway, next in 0.000s
    +0.400s prod user_read asked GET: 502
    +0.400s prod attempt 4 failed: gateway, next in 0.000s
    +0.500s prod user_read asked GET: 502
    +0.600s prod users asked GET: 200
    +0.600s m1 get_user failed okta_unavailable, effect none, attempts 5, calls 5
    ");
    let error = world.answer()["error"].clone();
    assert_eq!((&error["code"], &error["retryable"]), (&json!("okta_unavailable"), &json!(true)));
    world.close();
}

#[tokio::test(start_paused = true)]
async fn a_create_whose_answer_is_lost_is_found_again() {
    let mut world = hasty().open();
    world.fault(InjectedFault::next(Trouble::Lost).after_effect());
    world.ask("create_user", jane());
    world.rest().await;
    insta::assert_snapshot!(world.tape(), @"
    +0.000s prod interactive received
    +0.100s prod users asked POST: no answer
    +0.100s prod attempt 1 failed: no_answer, next in 0.000s
    +0.200s prod users asked POST: 400
    +0.300s prod user_read asked GET: 200
    +0.300s m1 create_user succeeded, effect applied, attempts 2, calls 3
    ");
    assert_eq!(world.answers(1), ["m1 succeeded applied"]);
    assert_eq!(world.effects().iter().filter(|effect| **effect == "user.created").count(), 1);
    world.close();
}

#[tokio::test(start_paused = true)]
async fn a_create_that_met_a_500_and_did_not_happen_is_sent_once_more() {
    let mut world = hasty().open();
    world.fault(InjectedFault::next(Trouble::Status(500)));
    world.ask("create_user", jane());
    world.rest().await;
    insta::assert_snapshot!(world.tape(), @"
    +0.000s prod interactive received
    +0.100s prod users asked POST: 500
    +0.100s prod attempt 1 failed: server_error, next in 0.000s
    +0.200s prod users asked POST: 200
    +0.200s m1 create_user succeeded, effect applied, attempts 2, calls 2
    ");
    assert_eq!(world.answers(1), ["m1 succeeded applied"]);
    assert_eq!(world.effects().iter().filter(|effect| **effect == "user.created").count(), 1);
    world.close();
}

#[tokio::test(start_paused = true)]
async fn a_membership_whose_answer_is_lost_is_set_again() {
    let mut world = hasty().open();
    let arguments = world.sam_into_sales();
    world.fault(InjectedFault::next(Trouble::Lost).after_effect());
    world.ask("add_user_to_group", arguments);
    world.rest().await;
    insta::assert_snapshot!(world.tape(), @"
    +0.000s prod interactive received
    +0.100s prod groups asked PUT: no answer
    +0.100s prod attempt 1 failed: no_answer, next in 0.000s
    +0.200s prod groups asked PUT: 204
    +0.200s m1 add_user_to_group succeeded, effect applied, attempts 2, calls 2
    ");
    assert_eq!(world.answers(1), ["m1 succeeded applied"]);
    assert_eq!(world.effects(), ["member.added"]);
    world.close();
}

#[tokio::test(start_paused = true)]
async fn a_membership_that_stays_in_doubt_says_so() {
    let mut world = hasty().open();
    let arguments = world.sam_into_sales();
    world.fault(InjectedFault::next(Trouble::Lost).after_effect().times(5, 0));
    world.ask("add_user_to_group", arguments);
    world.rest().await;
    drop(world.tape());
    assert_eq!(world.answers(1), ["m1 failed okta_unavailable unknown"]);
    world.close();
}

#[tokio::test(start_paused = true)]
async fn a_membership_in_doubt_and_then_refused_still_says_so() {
    let mut world = hasty().open();
    let arguments = world.sam_into_sales();
    world.fault(InjectedFault::next(Trouble::Lost).after_effect());
    world.fault(InjectedFault::next(Trouble::Status(403)));
    world.ask("add_user_to_group", arguments);
    world.rest().await;
    insta::assert_snapshot!(world.tape(), @"
    +0.000s prod interactive received
    +0.100s prod groups asked PUT: no answer
    +0.100s prod attempt 1 failed: no_answer, next in 0.000s
    +0.200s prod groups asked PUT: 403
    +0.200s m1 add_user_to_group failed forbidden, effect unknown, attempts 2, calls 2
    ");
    assert_eq!(world.answers(1), ["m1 failed forbidden unknown"]);
    world.close();
}

#[tokio::test(start_paused = true)]
async fn what_surely_was_not_sent_is_always_repeated() {
    let mut world = hasty().open();
    for _ in 0..2 {
        world.mishap(Mishap::NotSent);
    }
    world.ask("create_user", jane());
    world.rest().await;
    insta::assert_snapshot!(world.tape(), @"
    +0.000s prod interactive received
    +0.000s prod users asked POST: no answer
    +0.000s prod attempt 1 failed: not_sent, next in 0.000s
    +0.000s prod users asked POST: no answer
    +0.000s prod attempt 2 failed: not_sent, next in 0.000s
    +0.100s prod users asked POST: 200
    +0.100s m1 create_user succeeded, effect applied, attempts 3, calls 1
    ");
    assert_eq!(world.answers(1), ["m1 succeeded applied"]);
    world.close();
}

#[tokio::test(start_paused = true)]
async fn a_write_refused_in_read_only_mode_tells_who_waits_when_to_come_again() {
    let mut world = hasty().open();
    world.fault(InjectedFault::next(Trouble::ReadOnly));
    world.ask("create_user", jane());
    world.rest().await;
    insta::assert_snapshot!(world.tape(), @"
    +0.000s prod interactive received
    +0.100s prod users asked POST: 503
    +0.100s prod paused: read_only
    +0.100s m1 create_user failed okta_unavailable, effect none, attempts 1, calls 1
    ");
    let error = world.answer()["error"].clone();
    assert_eq!((&error["retryable"], error["retry_at"].is_string()), (&json!(true), true));
    world.close();
}

#[tokio::test(start_paused = true)]
async fn a_deletion_that_cannot_be_verified_is_unknown() {
    let mut world = hasty().open();
    let sam = world.org().user_id(SAM).unwrap();
    world.org().set_status(sam, UserStatus::Deprovisioned);
    world.fault(InjectedFault::next(Trouble::Status(500)).on("GET", "/api/v1/users/{userId}").times(5, 1));
    world.ask("delete_user", json!({ "user_id": SAM }));
    world.rest().await;
    insta::assert_snapshot!(world.tape(), @"
    +0.000s prod interactive received
    +0.100s prod user_read asked GET: 200
    +0.200s prod user_write asked DELETE: 204
    +0.300s prod user_read asked GET: 500
    +0.300s prod attempt 1 failed: server_error, next in 0.000s
    +0.400s prod user_read asked GET: 500
    +0.400s prod attempt 2 failed: server_error, next in 0.000s
    +0.500s prod user_read asked GET: 500
    +0.500s prod attempt 3 failed: server_error, next in 0.000s
    +0.600s prod user_read asked GET: 500
    +0.600s prod attempt 4 failed: server_error, next in 0.000s
    +0.700s prod user_read asked GET: 500
    +0.800s prod users asked GET: 200
    +0.800s m1 delete_user failed outcome_unknown, effect unknown, attempts 5, calls 7
    ");
    assert_eq!(world.answers(1), ["m1 failed outcome_unknown unknown"]);
    world.close();
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_answered_and_parked_and_the_next_message_does_not_notice() {
    let mut world = hasty().open();
    world.mishap(Mishap::Panic);
    world.ask("create_user", jane());
    world.run_for(Duration::from_millis(10)).await;
    world.ask("get_user", json!({ "user_id": SAM }));
    world.rest().await;
    insta::assert_snapshot!(world.tape(), @"
    +0.000s prod interactive received
    +0.000s m1 parked: internal
    +0.000s m1 create_user failed internal, effect unknown, attempts 1, calls 1
    +0.010s prod interactive received
    +0.110s prod user_read asked GET: 200
    +0.110s m2 get_user succeeded, effect none, attempts 1, calls 1
    ");
    assert_eq!(world.answers(2), ["m1 failed internal unknown", "m2 succeeded none"]);
    let parked = world.parked();
    assert_eq!(parked.properties.headers["okta-reason"].as_text(), Some("internal"));
    assert_eq!(parked.properties.message_id.as_deref(), Some("m1"));
    world.close();
}

#[tokio::test(start_paused = true)]
async fn a_panic_while_only_reading_has_changed_nothing() {
    let mut world = hasty().open();
    world.mishap(Mishap::Panic);
    world.ask("delete_user", json!({ "user_id": SAM }));
    world.rest().await;
    insta::assert_snapshot!(world.tape(), @"
    +0.000s prod interactive received
    +0.000s m1 parked: internal
    +0.000s m1 delete_user failed internal, effect none, attempts 1, calls 1
    ");
    assert_eq!(world.answers(1), ["m1 failed internal none"]);
    drop(world.parked());
    world.close();
}

#[tokio::test(start_paused = true)]
async fn an_attempt_counts_once_though_the_message_lies_aside_before_it() {
    let minutes = Duration::from_secs(120);
    let retry = RetryRules { attempts_max: 4, base: minutes, cap: minutes };
    let mut world = Setup { retry, ..Setup::default() }.open();
    world.fault(InjectedFault::next(Trouble::Status(500)).on("GET", "/api/v1/users/{userId}").times(3, 0));
    world.send("prod.bulk", json!({ "subtool": "get_user", "arguments": { "user_id": SAM } }));
    world.rest().await;
    let answer = world.answer();
    assert_eq!((brief(&answer), &answer["attempts"]), ("m1 succeeded none".to_owned(), &json!(4)));
    assert!(world.tape().contains("aside"), "one of the waits is too long to be taken in hand");
    world.close();
}
