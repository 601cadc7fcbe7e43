//! What fails for a whole connection: it is paused, nothing is spent, and it goes on by itself.

use std::time::Duration;

use okta_worker::domain::bucket::Bucket;
use okta_worker::domain::message::{HeaderValue, Properties};
use okta_worker::sandbox::{InjectedFault, Trouble};
use serde_json::{Value, json};

use crate::world::{Mishap, REPLIES, SAM, Setup, World, brief};

/// Every request from now on fails like this.
fn always(trouble: Trouble) -> InjectedFault {
    InjectedFault::next(trouble).times(u32::MAX, 0)
}

fn bulk(body: &Value) -> Value {
    body.clone()
}

fn read() -> Value {
    json!({ "subtool": "get_user", "arguments": { "user_id": SAM } })
}

#[tokio::test(start_paused = true)]
async fn okta_down_for_ten_minutes_costs_no_attempt_and_no_message() {
    const BACKLOG: usize = 1000;
    let mut world = Setup::default().open();
    let begin = world.effects().len();
    for number in 0..BACKLOG {
        let name = format!("Team {number}");
        world.send("prod.bulk", json!({ "subtool": "create_group", "arguments": { "name": name } }));
    }
    world.run_for(Duration::from_millis(1550)).await; // some are on their way
    let before = world.org().effects().len();
    assert!(before > begin && before < begin + BACKLOG);
    // What is on its way is executed and loses its answer, all that comes later is not executed.
    world.fault(InjectedFault::next(Trouble::Lost).after_effect().times(10, 0));
    world.fault(always(Trouble::Lost));
    world.run_for(Duration::from_secs(600)).await;
    let tape = world.tape();
    assert!(tape.contains("prod paused: unreachable"), "{tape}");
    let asked =
        tape.lines().rev().take_while(|line| !line.contains("paused")).filter(|line| line.contains("asked"));
    assert!(asked.count() < 60, "it is probed, and not hammered:\n{tape}");
    world.org().clear_faults();
    world.run_for(Duration::from_secs(31)).await;
    assert!(world.tape().contains("prod resumed: unreachable"), "one probe is enough");
    world.rest().await;
    world.tape();
    for _ in 0..BACKLOG {
        let answer = world.answer();
        assert!(brief(&answer).ends_with("succeeded applied"), "{answer}");
        assert_eq!(answer["attempts"], 1, "{answer}");
    }
    assert_eq!(world.effects().len(), begin + BACKLOG, "each once");
    world.close();
}

#[tokio::test(start_paused = true)]
async fn pages_for_every_path_pause_the_connection_and_fail_no_row() {
    const ROWS: usize = 40;
    for page in [404, 302, 407, 403, 401, 200] {
        let mut world = Setup::default().open();
        world.fault(always(Trouble::Html(page)));
        for number in 0..ROWS {
            let body = match number % 2 {
                0 => read(),
                _ => json!({ "subtool": "create_group", "arguments": { "name": format!("Team {number}") } }),
            };
            world.send("prod.bulk", body);
        }
        world.run_for(Duration::from_secs(120)).await;
        assert!(world.tape().contains("prod paused: unreachable"), "{page}");
        world.ask("get_user", json!({ "user_id": SAM }));
        world.run_for(Duration::from_millis(50)).await;
        let answer = world.answer();
        assert_eq!(brief(&answer), format!("m{} failed okta_unavailable none", ROWS + 1), "{page}");
        assert!(answer["error"]["retry_at"].is_string() && answer["okta_calls"] == 0, "{page}: {answer}");
        world.org().clear_faults();
        world.rest().await;
        assert!(world.tape().contains("prod resumed: unreachable"), "{page}");
        for _ in 0..ROWS {
            let answer = world.answer();
            assert_eq!(
                (&answer["status"], &answer["attempts"]),
                (&json!("succeeded"), &json!(1)),
                "{answer}"
            );
        }
        let created = world.effects().iter().filter(|effect| **effect == "group.created").count();
        assert_eq!(created, ROWS / 2, "{page}: each once");
        world.close();
    }
}

#[tokio::test(start_paused = true)]
async fn a_page_is_no_good_answer_to_a_probe() {
    let mut world = Setup::default().open();
    world.fault(always(Trouble::Lost));
    world.send("prod.bulk", read());
    world.run_for(Duration::from_secs(60)).await;
    world.org().clear_faults();
    world.fault(always(Trouble::Html(200)));
    world.run_for(Duration::from_secs(120)).await;
    let tape = world.tape();
    assert!(tape.contains("users asked GET: 200") && !tape.contains("resumed"), "{tape}");
    world.org().clear_faults();
    world.rest().await;
    assert!(world.tape().contains("prod resumed: unreachable"));
    assert_eq!(world.answers(1), ["m1 succeeded none"]);
    world.close();
}

#[tokio::test(start_paused = true)]
async fn one_page_says_nothing_about_one_user() {
    for page in [404, 302, 200] {
        let mut world = Setup::default().open();
        world.fault(InjectedFault::next(Trouble::Html(page)));
        world.ask("get_user", json!({ "user_id": SAM }));
        world.rest().await;
        let tape = world.tape();
        assert!(tape.contains("attempt 1 failed: not_okta") && !tape.contains("paused"), "{tape}");
        assert_eq!(world.answers(1), ["m1 succeeded none"], "{page}");
        world.close();
    }
}

#[tokio::test(start_paused = true)]
async fn a_bad_credential_pauses_until_it_is_good_again() {
    let mut world = Setup::default().open();
    world.fault(always(Trouble::Code { status: 401, code: "E0000011".to_owned() }));
    world.send("prod.bulk", bulk(&read()));
    world.run_for(Duration::from_secs(60)).await;
    assert!(world.tape().contains("prod paused: unauthorized"));
    world.ask("get_user", json!({ "user_id": SAM }));
    world.run_for(Duration::from_millis(50)).await;
    let answer = world.answer();
    assert_eq!(brief(&answer), "m2 failed unauthorized none");
    let error = &answer["error"];
    assert!(error["retryable"] == true && error["retry_at"].is_string(), "{answer}");
    world.org().clear_faults();
    world.rest().await;
    let tape = world.tape();
    assert!(tape.contains("prod resumed: unauthorized"), "{tape}");
    assert_eq!(world.answer()["attempts"], 1);
    world.close();
}

#[tokio::test(start_paused = true)]
async fn read_only_mode_ends_when_a_write_gets_through_and_reads_go_on() {
    let mut world = Setup::default().open();
    let group = json!({ "subtool": "create_group", "arguments": { "name": "Night shift" } });
    for method in ["POST", "PUT", "DELETE"] {
        let fault = InjectedFault { method: Some(method.to_owned()), ..always(Trouble::ReadOnly) };
        world.fault(fault);
    }
    world.send("prod.bulk", group);
    world.run_for(Duration::from_secs(60)).await;
    world.ask("get_user", json!({ "user_id": SAM }));
    world.run_for(Duration::from_secs(1)).await;
    assert_eq!(world.answers(1), ["m2 succeeded none"]);
    let tape = world.tape();
    assert!(
        tape.contains("paused: read_only") && !tape.contains("resumed"),
        "a read proves nothing:\n{tape}"
    );
    world.org().clear_faults();
    world.rest().await;
    world.tape();
    let answer = world.answer();
    assert_eq!((brief(&answer), &answer["attempts"]), ("m1 succeeded applied".to_owned(), &json!(1)));
    world.close();
}

#[tokio::test(start_paused = true)]
async fn a_messages_own_500_pauses_nothing() {
    let mut world = Setup::default().open();
    world.fault(InjectedFault::next(Trouble::Status(500)).on("GET", "/api/v1/users/{userId}").times(5, 0));
    world.send("prod.bulk", bulk(&read()));
    world.rest().await;
    assert!(!world.tape().contains("paused"));
    assert_eq!(world.answers(1), ["m1 failed okta_unavailable none"]);
    world.close();
}

#[tokio::test(start_paused = true)]
async fn nothing_but_500s_pauses_and_whoever_met_them_is_told_what_okta_said() {
    let mut world = Setup::default().open();
    world.fault(always(Trouble::Status(500)));
    world.ask("get_user", json!({ "user_id": SAM }));
    world.run_for(Duration::from_secs(60)).await;
    let answer = world.answer();
    assert_eq!(brief(&answer), "m1 failed okta_unavailable none");
    let error = &answer["error"];
    assert!(error["retry_at"].is_string() && error["okta"]["status"] == 500, "{answer}");
    world.send("prod.bulk", bulk(&read()));
    world.ask("get_user", json!({ "user_id": SAM }));
    world.run_for(Duration::from_secs(60)).await;
    let answer = world.answer();
    assert_eq!(brief(&answer), "m3 failed okta_unavailable none");
    assert!(answer["error"]["okta"].is_null(), "it was not asked: {answer}");
    world.org().clear_faults();
    world.rest().await;
    assert_eq!(world.answer()["attempts"], 1, "what waited has spent none");
    assert!(world.tape().contains("prod resumed: unreachable"));
    world.close();
}

#[tokio::test(start_paused = true)]
async fn a_scope_that_is_taken_away_pauses_and_one_that_never_worked_does_not() {
    let mut world = Setup::default().open();
    let lost = || Trouble::InsufficientScope("okta.groups.manage".to_owned());
    let group = |name: &str| json!({ "subtool": "create_group", "arguments": { "name": name } });
    world.fault(InjectedFault::next(lost()).on("POST", "/api/v1/groups"));
    world.send("prod.bulk", group("One"));
    world.rest().await;
    assert!(!world.tape().contains("paused"));
    assert_eq!(world.answers(1), ["m1 failed forbidden none"]);
    world.send("prod.bulk", group("Two"));
    world.rest().await;
    assert_eq!(world.answers(1), ["m2 succeeded applied"]);
    // Reading needs another scope, which is still there.
    world.fault(always(lost()).on("POST", "/api/v1/groups"));
    world.fault(always(lost()).on("DELETE", "/api/v1/groups/{groupId}/users/{userId}"));
    world.send("prod.bulk", group("Three"));
    world.run_for(Duration::from_secs(60)).await;
    let tape = world.tape();
    assert!(
        tape.contains("paused: forbidden") && !tape.contains("resumed"),
        "a read proves nothing:\n{tape}"
    );
    world.org().clear_faults();
    world.rest().await;
    world.tape();
    assert_eq!(world.answers(1), ["m3 succeeded applied"]);
    world.close();
}

#[tokio::test(start_paused = true)]
async fn a_second_lost_scope_fails_by_itself_and_a_lost_credential_takes_the_place_of_a_lost_scope() {
    let mut world = Setup::default().open();
    let lost = |scope: &str| always(Trouble::InsufficientScope(scope.to_owned()));
    let group = |name: &str| json!({ "subtool": "create_group", "arguments": { "name": name } });
    let suspend = || json!({ "subtool": "suspend_user", "arguments": { "user_id": SAM } });
    world.send("prod.bulk", group("One"));
    world.send("prod", suspend());
    world.rest().await;
    assert_eq!(world.answers(2).len(), 2);
    world.fault(lost("okta.groups.manage").on("POST", "/api/v1/groups"));
    world.fault(lost("okta.groups.manage").on("DELETE", "/api/v1/groups/{groupId}/users/{userId}"));
    world.send("prod.bulk", group("Two"));
    world.run_for(Duration::from_secs(5)).await;
    assert!(world.tape().contains("paused: forbidden"));
    // The pause is about groups, and does not stop what is done to users.
    world.fault(lost("okta.users.manage").on("POST", "/api/v1/users/{userId}/lifecycle/suspend"));
    world.send("prod", suspend());
    world.run_for(Duration::from_secs(5)).await;
    let answer = world.answer();
    assert!(brief(&answer).starts_with("m4 failed forbidden"), "{answer}");
    assert!(answer["okta_calls"].as_u64().unwrap() < 20, "{answer}");
    world.tape();
    world.fault(always(Trouble::Code { status: 401, code: "E0000011".to_owned() }));
    world.send("prod", read());
    world.run_for(Duration::from_secs(5)).await;
    assert_eq!(world.answers(1), ["m5 failed unauthorized none"]);
    assert!(world.tape().contains("paused: unauthorized"));
    world.org().clear_faults();
    world.rest().await;
    assert_eq!(world.answers(1), ["m3 succeeded applied"]);
    world.tape();
    world.close();
}

/// Sends a read whose headers leave no room for those of a copy.
fn send_what_cannot_be_copied(world: &mut World) {
    let large = ("x-large".to_owned(), HeaderValue::Text("x".repeat(5000)));
    let (reply_to, headers) = (Some(REPLIES.to_owned()), [large].into());
    let properties = Properties { reply_to, headers, ..Properties::default() };
    world.send_raw("prod.bulk", properties, read().to_string());
}

#[tokio::test(start_paused = true)]
async fn what_cannot_go_back_to_its_queue_is_answered_before_the_broker_takes_it_back() {
    let mut world = Setup::default().open();
    world.fault(always(Trouble::Code { status: 401, code: "E0000011".to_owned() }));
    send_what_cannot_be_copied(&mut world);
    world.run_for(Duration::from_secs(9 * 60)).await;
    assert_eq!(world.answers(0), [""; 0]);
    world.run_for(Duration::from_secs(2 * 60)).await;
    let answer = world.answer();
    assert!(brief(&answer).ends_with("failed unauthorized none"), "{answer}");
    assert_eq!(answer["error"]["retryable"], json!(true));
    world.org().clear_faults();
    world.rest().await;
    world.tape();
    world.close();
}

#[tokio::test(start_paused = true)]
async fn pauses_in_a_row_hold_a_message_no_longer_than_twice_the_longest_wait() {
    let mut world = Setup::default().open();
    let refused = || always(Trouble::Code { status: 401, code: "E0000011".to_owned() });
    world.fault(refused());
    send_what_cannot_be_copied(&mut world);
    // After nine minutes a probe succeeds, and the message's own request is refused again.
    for _ in 0..2 {
        world.run_for(Duration::from_secs(9 * 60)).await;
        world.tape();
        world.org().clear_faults();
        world.fault(refused().on("GET", "/api/v1/users/{userId}").times(1, 0));
        let mut tape = String::new();
        while !tape.contains("paused: unauthorized") {
            world.run_for(Duration::from_millis(100)).await;
            tape.push_str(&world.tape());
        }
        assert!(tape.contains("resumed: unauthorized"), "{tape}");
        world.fault(refused());
    }
    assert_eq!(world.answers(0), [""; 0]);
    world.run_for(Duration::from_secs(2 * 60)).await;
    let answer = world.answer();
    assert!(brief(&answer).ends_with("failed unauthorized none"), "{answer}");
    assert_eq!(world.in_hand(), 0);
    world.org().clear_faults();
    world.rest().await;
    world.tape();
    world.close();
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_a_pause_cuts_short_is_in_the_time_waited() {
    const ASKED: usize = 20;
    let mut world = Setup::default().limit(Bucket::UserRead, 10).open();
    for _ in 0..ASKED {
        world.ask("get_user", json!({ "user_id": SAM }));
    }
    world.run_for(Duration::from_secs(20)).await;
    world.fault(always(Trouble::Code { status: 401, code: "E0000011".to_owned() }));
    world.ask("create_group", json!({ "name": "Night shift" }));
    world.run_for(Duration::from_secs(1)).await;
    let answers: Vec<Value> = (0..=ASKED).map(|_| world.answer()).collect();
    let cut = answers.iter().find(|answer| answer["id"] == json!(format!("m{ASKED}"))).unwrap();
    assert!(brief(cut).ends_with("failed unauthorized none"), "{cut}");
    let waited = cut["waited_ms"].as_u64().unwrap();
    assert!((19_000..=21_500).contains(&waited), "{cut}");
    world.org().clear_faults();
    world.rest().await;
    world.tape();
    world.close();
}

#[tokio::test(start_paused = true)]
async fn a_machine_without_files_waits_and_neither_spends_attempts_nor_blames_okta() {
    let mut world = Setup::default().open();
    for _ in 0..9 {
        world.mishap(Mishap::NoFiles);
    }
    world.ask("get_user", json!({ "user_id": SAM }));
    world.rest().await;
    let tape = world.tape();
    assert!(tape.contains("failed: local") && !tape.contains("paused"), "{tape}");
    let answer = world.answer();
    assert_eq!((&answer["attempts"], &answer["okta_calls"]), (&json!(1), &json!(1)), "{answer}");

    // Somebody who waits hears of it in the end; the next one is not told of a pause.
    for _ in 0..10 {
        world.mishap(Mishap::NoFiles);
    }
    world.ask("get_user", json!({ "user_id": SAM }));
    world.rest().await;
    let answer = world.answer();
    assert_eq!(answer["error"]["code"], "okta_unavailable");
    assert_eq!(
        answer["error"]["message"],
        "failed to run `get_user`: failed to ask Okta: too many open files"
    );
    assert!(!world.tape().contains("paused"));
    world.ask("get_user", json!({ "user_id": SAM }));
    world.rest().await;
    drop(world.tape());
    assert_eq!(world.answers(1), ["m3 succeeded none"]);
    world.close();
}
