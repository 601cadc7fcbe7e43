//! Okta's limits: windows that are spent, lanes that share one, and 429s that come all the same.

use std::time::Duration;

use jiff::SignedDuration;
use okta_worker::domain::bucket::Bucket;
use serde_json::{Value, json};

use crate::world::{Mishap, SAM, Setup, World};

/// Reads a user.
fn read(world: &mut World) {
    world.ask("get_user", json!({ "user_id": SAM }));
}

/// Reads a user, in bulk.
fn read_bulk(world: &mut World) {
    world.ask_bulk("get_user", json!({ "user_id": SAM }));
}

/// The most requests Okta let through in one window of a bucket.
fn accepted_max(world: &World, bucket: Bucket) -> u32 {
    let counters = world.org().counters();
    counters.iter().find(|counter| counter.bucket == bucket.as_str()).unwrap().accepted_max
}

#[tokio::test(start_paused = true)]
async fn an_exhausted_bucket_is_waited_for_without_spending_an_attempt() {
    let mut world = Setup::default().limit(Bucket::UserRead, 2).open();
    for _ in 0..3 {
        read(&mut world);
        world.run_for(Duration::from_secs(1)).await;
    }
    world.rest().await;
    insta::assert_snapshot!(world.tape(), @"
    +0.000s prod interactive received
    +0.100s prod user_read asked GET: 200
    +0.100s m1 get_user succeeded, effect none, attempts 1, calls 1
    +1.000s prod interactive received
    +1.100s prod user_read asked GET: 200
    +1.100s m2 get_user succeeded, effect none, attempts 1, calls 1
    +2.000s prod interactive received
    +2.000s prod user_read exhausted for 58.100s
    +60.100s prod user_read recovered
    +60.100s prod user_read interactive waited 58.100s
    +60.200s prod user_read asked GET: 200
    +60.200s m3 get_user succeeded, effect none, attempts 1, calls 1
    ");
    assert_eq!(world.answers(2).len(), 2);
    let last = world.answer();
    assert_eq!((&last["attempts"], &last["okta_calls"]), (&json!(1), &json!(1)));
    assert_eq!(last["waited_ms"], 58_100);
    world.close();
}

#[tokio::test(start_paused = true)]
async fn one_request_finds_out_what_there_is_before_the_others_go() {
    let mut world = Setup::default().limit(Bucket::UserRead, 3).open();
    for _ in 0..4 {
        read(&mut world);
    }
    world.rest().await;
    insta::assert_snapshot!(world.tape(), @"
    +0.000s prod interactive received
    +0.000s prod interactive received
    +0.000s prod interactive received
    +0.000s prod interactive received
    +0.100s prod user_read asked GET: 200
    +0.100s m1 get_user succeeded, effect none, attempts 1, calls 1
    +0.100s prod user_read interactive waited 0.100s
    +0.100s prod user_read interactive waited 0.100s
    +0.200s prod user_read asked GET: 200
    +0.200s m2 get_user succeeded, effect none, attempts 1, calls 1
    +0.200s prod user_read asked GET: 200
    +0.200s m3 get_user succeeded, effect none, attempts 1, calls 1
    +0.200s prod user_read exhausted for 59.900s
    +60.100s prod user_read recovered
    +60.100s prod user_read interactive waited 60.100s
    +60.200s prod user_read asked GET: 200
    +60.200s m4 get_user succeeded, effect none, attempts 1, calls 1
    ");
    assert_eq!(world.answers(4).len(), 4);
    assert_eq!(accepted_max(&world, Bucket::UserRead), 3);
    world.close();
}

#[tokio::test(start_paused = true)]
async fn a_429_that_got_through_is_repeated_after_the_window_and_spends_no_attempt() {
    let mut world = Setup::default().limit(Bucket::UserRead, 2).open();
    world.others_read(2); // before we knew anything
    world.run_for(Duration::from_secs(10)).await;
    read(&mut world);
    world.rest().await;
    insta::assert_snapshot!(world.tape(), @"
    +10.000s prod interactive received
    +10.100s prod user_read asked GET: 429
    +10.100s prod user_read limited: window
    +10.100s prod user_read exhausted for 51.000s
    +61.100s prod user_read recovered
    +61.100s prod user_read interactive waited 51.000s
    +61.200s prod user_read asked GET: 200
    +61.200s m1 get_user succeeded, effect none, attempts 1, calls 2
    ");
    let answer = world.answer();
    assert_eq!((&answer["attempts"], &answer["okta_calls"]), (&json!(1), &json!(2)));
    world.close();
}

#[tokio::test(start_paused = true)]
async fn a_concurrency_429_waits_briefly_although_its_reset_lies_by_minutes() {
    let mut world = Setup::default().open();
    world.mishap(Mishap::Crowded);
    read(&mut world);
    world.rest().await;
    insta::assert_snapshot!(world.tape(), @"
    +0.000s prod interactive received
    +0.000s prod user_read asked GET: 429
    +0.000s prod user_read limited: concurrency
    +0.339s prod user_read asked GET: 200
    +0.339s m1 get_user succeeded, effect none, attempts 1, calls 2
    ");
    let answer = world.answer();
    assert_eq!(answer["attempts"], 1);
    assert!(answer["duration_ms"].as_u64().unwrap() < 1000);
    world.close();
}

#[tokio::test(start_paused = true)]
async fn a_burst_that_okta_bears_only_a_part_of_at_once_fails_nobody_and_keeps_nobody_long() {
    let mut setup = Setup { prefetch: 100, ..Setup::default() }.limit(Bucket::UserRead, 10_000);
    setup.org.concurrency = 20;
    let mut world = setup.open();
    read(&mut world); // finds out what there is
    world.rest().await;
    for _ in 0..100 {
        read(&mut world);
        read_bulk(&mut world);
    }
    world.rest().await;
    let tape = world.tape();
    let limited = tape.lines().filter(|line| line.contains("limited: concurrency")).count();
    assert!((1..100).contains(&limited), "{limited} were refused: it is to be tried, and learned from");
    assert!(!tape.contains("limited: window"), "{tape}");
    let answers: Vec<_> = (0..201).map(|_| world.answer()).collect();
    let waited = |answer: &Value| answer["waited_ms"].as_u64().unwrap();
    let longest = answers.iter().map(waited).max().unwrap();
    assert!(answers.iter().all(|answer| answer["status"] == "succeeded"));
    assert!(longest <= 5000, "{longest} ms, {limited} refused");
    world.close();
}

#[tokio::test(start_paused = true)]
async fn the_floor_is_left_to_the_orgs_other_clients() {
    let mut world = Setup { capacity_percent: 60, ..Setup::default() }.limit(Bucket::UserRead, 10).open();
    for _ in 0..10 {
        read(&mut world);
    }
    world.rest().await;
    let exhausted = "exhausted";
    let tape = world.tape();
    assert_eq!(tape.lines().filter(|line| line.contains(exhausted)).count(), 1, "{tape}");
    assert_eq!(accepted_max(&world, Bucket::UserRead), 6);
    assert_eq!(world.answers(10).len(), 10);
    world.close();
}

#[tokio::test(start_paused = true)]
async fn a_small_share_of_a_small_bucket_is_still_one_request_per_window() {
    let mut world = Setup { capacity_percent: 1, ..Setup::default() }.limit(Bucket::UserRead, 10).open();
    read(&mut world);
    read(&mut world);
    world.rest().await;
    insta::assert_snapshot!(world.tape(), @"
    +0.000s prod interactive received
    +0.000s prod interactive received
    +0.100s prod user_read asked GET: 200
    +0.100s m1 get_user succeeded, effect none, attempts 1, calls 1
    +0.100s prod user_read exhausted for 60.000s
    +60.100s prod user_read recovered
    +60.100s prod user_read interactive waited 60.100s
    +60.200s prod user_read asked GET: 200
    +60.200s m2 get_user succeeded, effect none, attempts 1, calls 1
    ");
    assert_eq!(world.answers(2).len(), 2);
    world.close();
}

#[tokio::test(start_paused = true)]
async fn an_exhausted_bucket_does_not_block_another() {
    let mut world = Setup::default().limit(Bucket::UserRead, 1).open();
    read(&mut world);
    world.run_for(Duration::from_secs(1)).await;
    read(&mut world);
    world.ask("list_groups", json!({}));
    world.rest().await;
    insta::assert_snapshot!(world.tape(), @"
    +0.000s prod interactive received
    +0.100s prod user_read asked GET: 200
    +0.100s m1 get_user succeeded, effect none, attempts 1, calls 1
    +1.000s prod interactive received
    +1.000s prod user_read exhausted for 59.100s
    +1.000s prod interactive received
    +1.100s prod groups asked GET: 200
    +1.100s m3 list_groups succeeded, effect none, attempts 1, calls 1
    +60.100s prod user_read recovered
    +60.100s prod user_read interactive waited 59.100s
    +60.200s prod user_read asked GET: 200
    +60.200s m2 get_user succeeded, effect none, attempts 1, calls 1
    ");
    assert_eq!(world.answers(3), ["m1 succeeded none", "m3 succeeded none", "m2 succeeded none"]);
    world.close();
}

#[tokio::test(start_paused = true)]
async fn interactive_goes_before_bulk_and_first_come_first_served_within_a_lane() {
    let mut world = Setup::default().limit(Bucket::UserRead, 1).open();
    read_bulk(&mut world);
    world.run_for(Duration::from_secs(1)).await;
    for send in [read_bulk, read_bulk, read, read] {
        send(&mut world);
        world.run_for(Duration::from_secs(1)).await;
    }
    world.rest().await;
    assert_eq!(world.answers(5), ["m1", "m4", "m5", "m2", "m3"].map(|id| format!("{id} succeeded none")));
    let tape = world.tape();
    assert!(!tape.contains("limited"), "{tape}");
    world.close();
}

#[tokio::test(start_paused = true)]
async fn a_deadline_the_budget_cannot_make_is_answered_at_once_with_the_windows_end() {
    let mut world = Setup::default().limit(Bucket::UserRead, 1).open();
    read(&mut world);
    world.run_for(Duration::from_secs(1)).await;
    let deadline = world.now() + SignedDuration::from_secs(30);
    world.ask_by(deadline, "get_user", json!({ "user_id": SAM }));
    world.rest().await;
    insta::assert_snapshot!(world.tape(), @"
    +0.000s prod interactive received
    +0.100s prod user_read asked GET: 200
    +0.100s m1 get_user succeeded, effect none, attempts 1, calls 1
    +1.000s prod interactive received
    +1.000s prod user_read exhausted for 59.100s
    +1.000s m2 get_user failed rate_limited, effect none, attempts 0, calls 0
    ");
    assert_eq!(world.answers(1), ["m1 succeeded none"]);
    let error = world.answer()["error"].clone();
    // Asked at 09:00:00.45 of Okta's clock, heard at .5: it opened before that, so it ends a minute later at
    // the latest.
    assert_eq!(
        (&error["code"], &error["retry_at"]),
        (&json!("rate_limited"), &json!("2026-03-02T09:01:00.5Z"))
    );
    world.close();
}

#[tokio::test(start_paused = true)]
async fn who_stands_in_line_behind_others_is_told_at_once_too() {
    let mut world = Setup::default().limit(Bucket::UserRead, 2).open();
    let deadline = world.now() + SignedDuration::from_secs(30);
    read(&mut world);
    for _ in 0..4 {
        world.ask_by(deadline, "get_user", json!({ "user_id": SAM }));
    }
    world.rest().await;
    read(&mut world); // nobody hurries this one
    world.ask_by(deadline, "get_user", json!({ "user_id": SAM }));
    world.rest().await;
    insta::assert_snapshot!(world.tape(), @"
    +0.000s prod interactive received
    +0.000s prod interactive received
    +0.000s prod interactive received
    +0.000s prod interactive received
    +0.000s prod interactive received
    +0.100s prod user_read asked GET: 200
    +0.100s m1 get_user succeeded, effect none, attempts 1, calls 1
    +0.100s prod user_read interactive waited 0.100s
    +0.200s prod user_read asked GET: 200
    +0.200s m2 get_user succeeded, effect none, attempts 1, calls 1
    +0.200s prod user_read exhausted for 59.900s
    +0.200s prod user_read interactive waited 0.200s
    +0.200s m3 get_user failed rate_limited, effect none, attempts 0, calls 0
    +0.200s prod user_read interactive waited 0.200s
    +0.200s m4 get_user failed rate_limited, effect none, attempts 0, calls 0
    +0.200s prod user_read interactive waited 0.200s
    +0.200s m5 get_user failed rate_limited, effect none, attempts 0, calls 0
    +0.250s prod interactive received
    +0.250s prod interactive received
    +0.250s m7 get_user failed rate_limited, effect none, attempts 0, calls 0
    +60.100s prod user_read recovered
    +60.100s prod user_read interactive waited 59.850s
    +60.200s prod user_read asked GET: 200
    +60.200s m6 get_user succeeded, effect none, attempts 1, calls 1
    ");
    let mut answers = world.answers(7);
    answers.sort_unstable();
    assert_eq!(answers.iter().filter(|answer| answer.contains("rate_limited")).count(), 4);
    world.close();
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_passes_in_line_is_exceeded() {
    let mut world = Setup { latency: Duration::from_secs(20), ..Setup::default() }.open();
    read(&mut world); // finds out what there is, slowly
    let deadline = world.now() + SignedDuration::from_secs(2);
    world.ask_by(deadline, "get_user", json!({ "user_id": SAM }));
    world.ask_by(deadline, "get_user", json!({ "user_id": SAM }));
    world.rest().await;
    insta::assert_snapshot!(world.tape(), @"
    +0.000s prod interactive received
    +0.000s prod interactive received
    +0.000s prod interactive received
    +2.000s prod user_read interactive waited 2.000s
    +2.000s m2 get_user failed deadline_exceeded, effect none, attempts 0, calls 0
    +2.000s prod user_read interactive waited 2.000s
    +2.000s m3 get_user failed deadline_exceeded, effect none, attempts 0, calls 0
    +20.000s prod user_read asked GET: 200
    +20.000s m1 get_user succeeded, effect none, attempts 1, calls 1
    ");
    assert_eq!(
        world.answers(3),
        ["m2 failed deadline_exceeded none", "m3 failed deadline_exceeded none", "m1 succeeded none"]
    );
    world.close();
}

#[tokio::test(start_paused = true)]
async fn work_that_has_begun_is_finished_after_its_deadline() {
    let mut setup = Setup { latency: Duration::from_secs(4), ..Setup::default() }.limit(Bucket::Users, 2);
    setup.org.users = 500;
    let mut world = setup.open();
    let deadline = world.now() + SignedDuration::from_secs(5);
    world.ask_by(deadline, "list_users", json!({ "limit": 500, "include_deprovisioned": true }));
    world.rest().await;
    insta::assert_snapshot!(world.tape(), @"
    +0.000s prod interactive received
    +4.000s prod users asked GET: 200
    +8.000s prod users asked GET: 200
    +8.000s prod users exhausted for 56.000s
    +64.000s prod users recovered
    +64.000s prod users interactive waited 56.000s
    +68.000s prod users asked GET: 200
    +68.000s m1 list_users succeeded, effect none, attempts 1, calls 3
    ");
    let answer = world.answer();
    assert_eq!((&answer["result"]["count"], &answer["attempts"]), (&json!(500), &json!(1)));
    world.close();
}

#[tokio::test(start_paused = true)]
async fn a_thousand_messages_take_as_many_windows_as_they_need_and_meet_no_429() {
    let mut world =
        Setup { prefetch: 32, capacity_percent: 90, ..Setup::default() }.limit(Bucket::UserRead, 100).open();
    let begun = world.now();
    for _ in 0..1000 {
        read_bulk(&mut world);
    }
    world.rest().await;
    let tape = world.tape();
    assert!(!tape.contains("limited"), "{tape}");
    println!(
        "{}",
        tape.lines()
            .filter(|l| l.contains("asked") || l.contains("aside") || l.contains("recov"))
            .take(2500)
            .collect::<Vec<_>>()
            .join("\n")
    );
    assert_eq!(accepted_max(&world, Bucket::UserRead), 90);
    assert_eq!(world.answers(1000).len(), 1000);
    // 12 windows; each costs the whole second that the headers leave open.
    let took = world.now().duration_since(begun);
    assert!(took < SignedDuration::from_secs(11 * 62 + 10), "{took}");
    world.close();
}
