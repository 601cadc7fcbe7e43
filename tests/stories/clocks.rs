//! Somebody sets the clock of the worker's machine: nothing is waited for that long, nothing runs hot, nothing
//! is lost.

use std::time::Duration;

use okta_worker::domain::bucket::Bucket;
use okta_worker::domain::message::Properties;
use okta_worker::embedded::broker::Stored;
use okta_worker::sandbox::{InjectedFault, Trouble, When};
use serde_json::json;

use super::world::{REPLIES, SAM, Setup, World, brief};

const HOUR: i64 = 3600;

/// A window of four requests a minute, and ten who want one.
fn crowded() -> World {
    let mut world = Setup::default().limit(Bucket::UserRead, 4).open();
    for _ in 0..10 {
        world.ask("get_user", json!({ "user_id": SAM }));
    }
    world
}

/// How long all that is unsettled takes, by tokio's clock.
async fn took(world: &World) -> Duration {
    let begun = tokio::time::Instant::now();
    world.rest().await;
    begun.elapsed()
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_window_waits_no_longer_when_the_clock_is_set_and_no_wait_is_negative() {
    let still = crowded();
    let expected = took(&still).await;
    drop((still.answers(10), still.tape()));
    still.close();
    for by in [HOUR, -HOUR] {
        let world = crowded();
        world.run_for(Duration::from_secs(5)).await;
        world.set_clock(by);
        let took = took(&world).await + Duration::from_secs(5);
        // Those in line go by tokio's clock; those put aside by the broker's.
        assert!(took <= 2 * expected, "{by}: {took:?} rather than {expected:?}");
        assert!(world.org().counters().iter().all(|counter| counter.refused == 0), "{by}");
        for _ in 0..10 {
            let answer = world.answer();
            assert_eq!(answer["status"], "succeeded", "{by}: {answer}");
            let (waited, duration) = (answer["waited_ms"].as_i64(), answer["duration_ms"].as_i64());
            assert!(waited.is_some_and(|waited| (0..10 * 60_000).contains(&waited)), "{by}: {answer}");
            assert!(duration.is_some_and(|duration| duration >= 0), "{by}: {answer}");
        }
        world.tape();
        world.close();
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_in_doubt_is_found_again_whatever_the_clock_says() {
    for by in [HOUR, -HOUR] {
        let mut world = Setup::default().open();
        world.run_for(Duration::from_secs(10)).await;
        let before = world.effects().len();
        world.fault(InjectedFault { when: When::After, ..InjectedFault::next(Trouble::Status(504)) });
        world.set_clock(by);
        world.ask("suspend_user", json!({ "user_id": SAM }));
        world.rest().await;
        assert_eq!(world.answers(1), ["m1 succeeded applied"], "{by}");
        assert_eq!(world.effects().split_off(before), ["user.suspended"], "{by}");
        world.tape();
        world.close();
    }
}

#[tokio::test(start_paused = true)]
async fn a_producer_whose_clock_is_ahead_or_behind_is_answered() {
    for by in [HOUR, -HOUR] {
        let mut world = Setup::default().open();
        let sent = u64::try_from(world.now().as_second() + by).unwrap();
        let (reply_to, timestamp) = (Some(REPLIES.to_owned()), Some(sent));
        let body = json!({ "subtool": "suspend_user", "arguments": { "user_id": SAM } });
        let properties = Properties { reply_to, timestamp, ..Properties::default() };
        world.send_raw("prod.bulk", properties, body.to_string());
        world.rest().await;
        assert_eq!(world.answers(1), ["m1 succeeded applied"], "{by}");
        world.tape();
        world.close();
    }
}

/// How often a new password was mailed.
fn mails(world: &World) -> usize {
    world.effects().into_iter().filter(|kind| *kind == "mail.password_reset").count()
}

fn reset_password() -> String {
    json!({ "subtool": "reset_user_password", "arguments": { "user_id": SAM } }).to_string()
}

/// The clocks of two workers, in seconds ahead of Okta's, and whether the first has heard Okta before.
fn two_clocks() -> impl Iterator<Item = (i64, i64, bool)> {
    let pairs = [(0, 0), (HOUR, 0), (-HOUR, 0), (0, HOUR), (0, -HOUR), (HOUR, -HOUR)];
    pairs.into_iter().flat_map(|(first, second)| [true, false].map(|has_heard| (first, second, has_heard)))
}

/// A world in which Sam was mailed by somebody else 40 minutes ago, with a worker whose clock is so far ahead.
async fn mailed_before(ahead: i64, has_heard: bool) -> World {
    let mut world = Setup::default().open();
    // The status is another one since, so that it tells of a later reset.
    for subtool in ["reset_user_password", "expire_user_password"] {
        world.ask(subtool, json!({ "user_id": SAM }));
        world.rest().await;
        assert!(brief(&world.answer()).ends_with("succeeded applied"));
    }
    world.run_for(Duration::from_secs(40 * 60)).await;
    world.replace_worker_whose_clock_is_ahead(ahead);
    if has_heard {
        world.ask("get_user", json!({ "user_id": SAM }));
        world.rest().await;
        world.answer();
    }
    world
}

/// The copy that the worker puts aside of a reset that it was sent.
async fn put_aside(world: &mut World, timestamp: Option<u64>) -> Stored {
    world.delay_for_budget(Bucket::Users, Duration::from_secs(60));
    let (message_id, reply_to) = (Some("r".to_owned()), Some(REPLIES.to_owned()));
    let properties = Properties { message_id, reply_to, timestamp, ..Properties::default() };
    world.send_raw("prod.bulk", properties, reset_password());
    world.run_for(Duration::from_secs(1)).await;
    world.lying_in("okta.delay.1m")
}

#[tokio::test(start_paused = true)]
async fn a_copy_between_workers_an_hour_apart_mails_once_and_is_found_when_it_is_delivered_again() {
    for (first, second, has_heard) in two_clocks() {
        for is_stamped in [true, false] {
            let place = format!("{first} {second} {has_heard} {is_stamped}");
            let mut world = mailed_before(first, has_heard).await;
            let timestamp = is_stamped.then(|| u64::try_from(world.now().as_second()).unwrap());
            let copy = put_aside(&mut world, timestamp).await;
            world.replace_worker_whose_clock_is_ahead(second);
            world.rest().await;
            assert_eq!(
                (brief(&world.answer()).as_str(), mails(&world)),
                ("r succeeded applied", 2),
                "{place}"
            );
            // Its acknowledgement is lost, and whoever gets it now knows nothing of it.
            for ahead in [second, first, 0] {
                world.replace_worker_whose_clock_is_ahead(ahead);
                world.hand_out_again(&copy);
                world.rest().await;
                let told = brief(&world.answer());
                // By a clock that nobody knows it cannot be said when it was; still nobody is mailed twice.
                let may_be_unknown =
                    first > 0 && !has_heard && !is_stamped && told == "r failed outcome_unknown unknown";
                assert!(told == "r succeeded applied" || may_be_unknown, "{place}, then {ahead}: {told}");
                assert_eq!(mails(&world), 2, "{place}, then {ahead}");
            }
            assert!(world.org().counters().iter().all(|counter| counter.refused == 0), "{place}");
            world.tape();
            world.close();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_was_handed_out_and_not_run_is_mailed_although_somebody_was_mailed_within_the_hour() {
    // Of a worker whose clock is behind and that has never heard Okta nobody can know when it was.
    for (first, second, has_heard) in two_clocks().filter(|(first, _, heard)| *heard || *first >= 0) {
        let place = format!("{first} {second} {has_heard}");
        let mut world = mailed_before(first, has_heard).await;
        let copy = put_aside(&mut world, None).await;
        world.forget("okta.delay.1m");
        world.replace_worker_whose_clock_is_ahead(second);
        world.hand_out_again(&copy);
        world.rest().await;
        assert_eq!((brief(&world.answer()).as_str(), mails(&world)), ("r succeeded applied", 2), "{place}");
        world.tape();
        world.close();
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_is_late_for_a_deadline_that_nobody_set_because_clocks_are_an_hour_apart() {
    for (first, second, has_heard) in two_clocks() {
        for is_stamped in [true, false] {
            let place = format!("{first} {second} {has_heard} {is_stamped}");
            let mut world = Setup::default().open();
            world.replace_worker_whose_clock_is_ahead(first);
            if has_heard {
                world.ask("get_user", json!({ "user_id": SAM }));
                world.rest().await;
                assert_eq!(world.answers(1), ["m1 succeeded none"], "{place}");
            }
            let timestamp = is_stamped.then(|| u64::try_from(world.now().as_second()).unwrap());
            let (message_id, reply_to) = (Some("i".to_owned()), Some(REPLIES.to_owned()));
            let expiration = Some("300000".to_owned());
            let properties =
                Properties { message_id, reply_to, timestamp, expiration, ..Properties::default() };
            let list = json!({ "subtool": "list_groups", "arguments": { "limit": 1 } });
            world.delay_for_budget(Bucket::Groups, Duration::from_secs(60));
            world.send_raw("prod", properties, list.to_string());
            world.run_for(Duration::from_secs(1)).await;
            world.replace_worker_whose_clock_is_ahead(second);
            world.rest().await;
            let answer = world.answer();
            assert_eq!(brief(&answer), "i succeeded none", "{place}");
            assert_eq!(answer["waited_ms"], json!(60_000), "{place}");
            world.tape();
            world.close();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_is_late_for_a_deadline_that_nobody_set_is_told_so_by_okta_s_clock() {
    for (ahead, age_minutes, expected) in [
        (0, 9, "m1 succeeded none"),
        (0, 11, "m1 failed deadline_exceeded none"),
        (HOUR, 9, "m1 succeeded none"),
        (HOUR, 11, "m1 failed deadline_exceeded none"),
    ] {
        let mut world = Setup::default().open();
        world.replace_worker_whose_clock_is_ahead(ahead);
        let sent = world.now().as_second() - age_minutes * 60;
        let (reply_to, timestamp) = (Some(REPLIES.to_owned()), Some(u64::try_from(sent).unwrap()));
        let list = json!({ "subtool": "list_groups", "arguments": { "limit": 1 } });
        world.send_raw("prod", Properties { reply_to, timestamp, ..Properties::default() }, list.to_string());
        world.rest().await;
        assert_eq!(world.answers(1), [expected], "{ahead} {age_minutes}");
        world.tape();
        world.close();
    }
}
