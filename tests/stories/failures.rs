//! What fails for now, what may have happened, and bugs.

use okta_worker::sandbox::{Fault, Trouble};
use serde_json::json;

use crate::world::{Mishap, SAM, Setup, body};

fn jane() -> serde_json::Value {
    let profile = json!({ "firstName": "Jane", "lastName": "Doe", "email": "jane@example.com", "login": "jane@example.com" });
    json!({ "profile": profile, "activate": false })
}

#[tokio::test(start_paused = true)]
async fn a_read_is_tried_again_after_a_500() {
    let mut world = Setup::default().open();
    world.fault(Fault::next(Trouble::Status(500)).on("GET", "/api/v1/users/{userId}").times(2, 0));
    world.ask("get_user", json!({ "user_id": SAM }));
    world.rest().await;
    let tape = world.tape();
    assert_eq!(tape.matches("failed: server_error").count(), 2, "{tape}");
    let answer = world.answer();
    assert_eq!((&answer["status"], &answer["attempts"]), (&json!("succeeded"), &json!(3)));
    world.close();
}

#[tokio::test(start_paused = true)]
async fn attempts_end() {
    let mut world = Setup::default().open();
    world.fault(Fault::next(Trouble::Html(502)).on("GET", "/api/v1/users/{userId}").times(5, 0));
    world.ask("get_user", json!({ "user_id": SAM }));
    world.rest().await;
    world.tape();
    let answer = world.answer();
    assert_eq!(answer["error"]["code"], "okta_unavailable");
    assert_eq!((&answer["error"]["retryable"], &answer["attempts"]), (&json!(true), &json!(5)));
    assert_eq!(answer["error"]["okta"]["status"], 502);
    world.close();
}

#[tokio::test(start_paused = true)]
async fn a_create_that_may_have_happened_is_not_repeated_and_says_so() {
    for trouble in [Trouble::Lost, Trouble::Status(500), Trouble::Html(502)] {
        let mut world = Setup::default().open();
        world.fault(Fault::next(trouble).on("POST", "/api/v1/users").after_effect());
        world.ask("create_user", jane());
        world.rest().await;
        world.tape();
        assert_eq!(world.answers(1), ["m1 failed outcome_unknown unknown"]);
        assert_eq!(world.effects(), ["user.created"]);
        world.close();
    }
}

#[tokio::test(start_paused = true)]
async fn a_membership_that_may_have_been_set_is_set_again() {
    let mut world = Setup::default().open();
    let group = world.org().group_id("Sales").unwrap().to_string();
    world.fault(
        Fault::next(Trouble::Lost).on("PUT", "/api/v1/groups/{groupId}/users/{userId}").after_effect(),
    );
    world.ask("add_user_to_group", json!({ "group_id": group, "user_id": SAM }));
    world.rest().await;
    let tape = world.tape();
    assert!(tape.contains("failed: no_answer"), "{tape}");
    assert_eq!(world.answers(1), ["m1 succeeded applied"]);
    assert_eq!(world.effects().len(), 1, "the second time changed nothing");
    world.close();
}

#[tokio::test(start_paused = true)]
async fn what_surely_was_not_sent_is_sent_again_whatever_it_is() {
    let mut world = Setup::default().open();
    world.mishap(Mishap::NotSent);
    world.ask("create_user", jane());
    world.rest().await;
    let tape = world.tape();
    assert!(tape.contains("failed: not_sent"), "{tape}");
    assert_eq!(world.answers(1), ["m1 succeeded applied"]);
    world.close();
}

#[tokio::test(start_paused = true)]
async fn a_write_refused_in_read_only_mode_is_sent_again() {
    let mut world = Setup::default().open();
    world.fault(Fault::next(Trouble::ReadOnly).on("POST", "/api/v1/users"));
    world.ask("create_user", jane());
    world.rest().await;
    let tape = world.tape();
    assert!(tape.contains("failed: read_only"), "{tape}");
    assert_eq!(world.answers(1), ["m1 succeeded applied"]);
    world.close();
}

#[tokio::test(start_paused = true)]
async fn a_bug_is_answered_parked_and_does_not_touch_the_next_message() {
    let mut world = Setup::default().open();
    world.mishap(Mishap::Panic);
    world.ask("get_user", json!({ "user_id": SAM }));
    world.rest().await;
    world.ask("get_user", json!({ "user_id": SAM }));
    world.rest().await;
    insta::assert_snapshot!(world.tape(), @r"
    +0.000s prod interactive received
    +0.000s m1 parked: internal
    +0.000s m1 get_user failed internal, effect none, attempts 1, calls 1
    +0.050s prod interactive received
    +0.150s prod user_read asked GET: 200
    +0.150s m2 get_user succeeded, effect none, attempts 1, calls 1
    ");
    assert_eq!(world.answers(2), ["m1 failed internal none", "m2 succeeded none"]);
    let parked = world.parked();
    assert_eq!(body(&parked)["subtool"], "get_user");
    world.close();
}
