//! Invocations of one subject run in the order they were delivered in, whatever holds them up.

use std::time::Duration;

use jiff::SignedDuration;
use okta_worker::domain::bucket::Bucket;
use okta_worker::domain::message::{CANCEL, Properties};
use okta_worker::sandbox::{InjectedFault, Trouble};
use serde_json::{Value, json};

use crate::world::{Mishap, REPLIES, SAM, Setup, World};

/// The body of the update that gives Sam this title.
fn update(title: &str) -> Value {
    json!({ "subtool": "update_user", "arguments": { "user_id": SAM, "profile": { "title": title } } })
}

/// Sends updates of Sam in bulk, one after the other: `t0`, `t1` …
fn send_updates(world: &mut World, count: usize) {
    for number in 0..count {
        world.send("prod.bulk", update(&format!("t{number}")));
    }
}

fn title(world: &World) -> Value {
    world.of_sam("title")
}

/// The ids of all answers so far, and that they have all succeeded.
fn succeeded(world: &World, count: usize) -> Vec<String> {
    let answers = world.answers(count);
    let id = |answer: &String| {
        let (id, rest) = answer.split_once(' ').unwrap();
        assert_eq!(rest, "succeeded applied", "{answers:?}");
        id.to_owned()
    };
    answers.iter().map(id).collect()
}

#[tokio::test(start_paused = true)]
async fn ten_updates_of_one_user_leave_the_last_value() {
    let mut world = Setup::default().open();
    send_updates(&mut world, 10);
    world.rest().await;
    assert_eq!(title(&world), "t9");
    let expected: Vec<_> = (1..=10).map(|number| format!("m{number}")).collect();
    assert_eq!(succeeded(&world, 10), expected);
    world.tape();
    world.close();
}

#[tokio::test(start_paused = true)]
async fn the_order_holds_whatever_the_budget_does() {
    for seed in 0..60 {
        let setup = Setup { prefetch: [1, 2, 5, 16, 32][seed as usize % 5], ..Setup::default() };
        let mut world = setup.limit(Bucket::UserWrite, 2 + (seed as u32 * 7) % 40).open();
        fastrand::seed(seed);
        let joe = json!({ "profile": { "login": "joe@example.com", "email": "joe@example.com",
            "firstName": "Joe", "lastName": "Doe" }, "activate": false });
        world.ask_bulk("create_user", joe);
        world.rest().await;
        assert_eq!(succeeded(&world, 1), ["m1"]);
        let count = 10 + seed as usize % 25;
        let (mut sams, mut joes) = (Vec::new(), Vec::new());
        for number in 0..count {
            if fastrand::u8(..3) == 0 {
                let wait = Duration::from_secs(fastrand::u64(..70));
                world.delay_for_budget(Bucket::UserWrite, wait);
            }
            let (user, theirs) = match fastrand::bool() {
                true => (SAM, &mut sams),
                false => ("Joe@example.com", &mut joes),
            };
            let profile = json!({ "title": format!("t{number}") });
            theirs.push(format!("m{}", number + 2));
            world.ask_bulk("update_user", json!({ "user_id": user, "profile": profile }));
            world.run_for(Duration::from_millis(fastrand::u64(..400))).await;
        }
        world.rest().await;
        let answered = succeeded(&world, count);
        for theirs in [sams, joes] {
            let order: Vec<_> = answered.iter().filter(|id| theirs.contains(id)).cloned().collect();
            assert_eq!(order, theirs, "seed {seed}:\n{}", world.tape());
        }
        world.tape();
        world.forget_crowd();
        world.close();
    }
}

#[tokio::test(start_paused = true)]
async fn a_row_that_needs_the_row_before_finds_what_that_has_made() {
    let mut world = Setup::default().open();
    let sales = world.org().group_id("Sales").unwrap().to_string();
    for number in 0..6 {
        let login = format!("step{number}@example.com");
        let profile = json!({ "login": login, "email": login, "firstName": "S", "lastName": "T" });
        world.ask_bulk("create_user", json!({ "profile": profile, "activate": false }));
        world.ask_bulk("add_user_to_group", json!({ "user_id": login, "group_id": sales }));
        world.ask_bulk("update_user", json!({ "user_id": login, "profile": { "department": "Sales" } }));
    }
    world.rest().await;
    assert_eq!(succeeded(&world, 18).len(), 18);
    world.tape();
    world.close();
}

#[tokio::test(start_paused = true)]
async fn a_read_waits_for_earlier_writes_of_its_subject_and_for_no_read() {
    let mut world = Setup::default().open();
    world.mishap(Mishap::Hangs(Duration::from_secs(1)));
    world.ask("get_user", json!({ "user_id": SAM }));
    world.run_for(Duration::from_millis(10)).await;
    world.ask("get_user", json!({ "user_id": SAM }));
    world.send("prod.interactive", update("first"));
    world.ask("get_user", json!({ "user_id": SAM.to_uppercase() }));
    world.rest().await;
    let answers: Vec<_> = (0..4).map(|_| world.answer()).collect();
    let ids: Vec<_> = answers.iter().map(|answer| answer["id"].as_str().unwrap()).collect();
    let at = |id: &str| ids.iter().position(|it| *it == id).unwrap();
    assert!(at("m3") < at("m4"), "{ids:?}");
    assert_eq!(answers[at("m4")]["result"]["profile"]["title"], "first");
    assert!(at("m2") < at("m1"), "{ids:?}");
    world.tape();
    world.close();
}

#[tokio::test(start_paused = true)]
async fn nine_of_one_subject_are_in_hand_and_nobody_elses_message_waits_for_the_rest() {
    let mut world = Setup { prefetch: 12, latency: Duration::from_secs(1), ..Setup::default() }.open();
    send_updates(&mut world, 20);
    world.ask_bulk("list_groups", json!({}));
    world.run_for(Duration::from_millis(900)).await;
    let tape = world.tape();
    assert_eq!(tape.matches("put behind others").count(), 11, "{tape}");
    world.run_for(Duration::from_millis(200)).await;
    let tape = world.tape();
    assert!(tape.contains("m21 list_groups succeeded"), "{tape}");
    world.rest().await;
    assert_eq!(title(&world), "t19");
    world.answers(21);
    world.tape();
    world.close();
}

#[tokio::test(start_paused = true)]
async fn those_behind_a_delayed_write_come_back_after_it() {
    let mut world = Setup::default().open();
    world.delay_for_budget(Bucket::UserWrite, Duration::from_secs(60));
    send_updates(&mut world, 3);
    world.run_for(Duration::from_secs(30)).await;
    assert_eq!(world.delayed(), 3);
    send_updates(&mut world, 1);
    world.run_for(Duration::from_secs(1)).await;
    assert_eq!(world.delayed(), 4);
    world.rest().await;
    assert_eq!(succeeded(&world, 4), ["m1", "m2", "m3", "m4"]);
    world.tape();
    world.close();
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_for_its_turn_may_be_cancelled_or_be_late() {
    // The machine's clock is right, or an hour off Okta's, which the worker has heard from.
    for ahead in [0, 3600, -3600] {
        let mut world = Setup::default().open();
        world.replace_worker_whose_clock_is_ahead(ahead);
        world.ask("get_user", json!({ "user_id": SAM }));
        world.rest().await;
        assert_eq!(world.answers(1), ["m1 succeeded none"], "{ahead}");
        world.mishap(Mishap::Hangs(Duration::from_secs(20)));
        world.send("prod.interactive", update("slow"));
        let reply_to = || Some(REPLIES.to_owned());
        let id = Some("unwanted".to_owned());
        let unwanted = Properties { reply_to: reply_to(), message_id: id.clone(), ..Properties::default() };
        world.send_raw("prod.interactive", unwanted, update("unwanted").to_string());
        let deadline = world.now() + SignedDuration::from_secs(5);
        let mut late = update("late");
        late["options"] = json!({ "deadline": deadline });
        world.send("prod.interactive", late);
        world.send("prod.interactive", update("last"));
        world.run_for(Duration::from_secs(1)).await;
        let cancel = Properties { kind: Some(CANCEL.to_owned()), message_id: id, ..Properties::default() };
        world.send_raw("prod.interactive", cancel, "{}");
        world.run_for(Duration::from_secs(6)).await;
        assert_eq!(world.answers(1), ["m4 failed deadline_exceeded none"], "{ahead}");
        assert!(world.tape().contains("cancelled"), "{ahead}");
        world.rest().await;
        assert_eq!(title(&world), "last", "{ahead}");
        assert_eq!(world.answers(2), ["m2 succeeded applied", "m5 succeeded applied"], "{ahead}");
        world.tape();
        world.close();
    }
}

#[tokio::test(start_paused = true)]
async fn a_pause_keeps_the_order_of_those_in_hand() {
    let mut world = Setup::default().open();
    let refused = Trouble::Code { status: 401, code: "E0000011".to_owned() };
    world.fault(InjectedFault::next(refused).times(2, 0));
    send_updates(&mut world, 12);
    world.rest().await;
    assert_eq!(title(&world), "t11");
    let expected: Vec<_> = (1..=12).map(|number| format!("m{number}")).collect();
    assert_eq!(succeeded(&world, 12), expected);
    world.tape();
    world.close();
}

#[tokio::test(start_paused = true)]
async fn somebody_who_waits_for_a_paused_connection_is_answered_at_once_also_behind_others() {
    let mut world = Setup::default().open();
    world.mishap(Mishap::Hangs(Duration::from_secs(30)));
    world.send("prod.interactive", update("slow"));
    world.send("prod.interactive", update("next"));
    world.run_for(Duration::from_secs(1)).await;
    let refused = Trouble::Code { status: 401, code: "E0000011".to_owned() };
    world.fault(InjectedFault::next(refused).times(2, 0));
    world.ask("list_groups", json!({}));
    world.run_for(Duration::from_secs(1)).await;
    assert_eq!(world.answers(2), ["m3 failed unauthorized none", "m2 failed unauthorized none"]);
    world.rest().await;
    assert_eq!(world.answers(1), ["m1 succeeded applied"]);
    world.tape();
    world.close();
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_stops_hands_those_of_one_subject_back_in_order() {
    let mut world = Setup::default().limit(Bucket::UserWrite, 3).open();
    send_updates(&mut world, 8);
    world.run_for(Duration::from_secs(5)).await;
    world.replace_worker();
    world.rest().await;
    assert_eq!(title(&world), "t7");
    let expected: Vec<_> = (1..=8).map(|number| format!("m{number}")).collect();
    assert_eq!(succeeded(&world, 8), expected);
    world.tape();
    world.close();
}
