//! Somebody sets the clock of the worker's machine: nothing is waited for that long, nothing runs hot, nothing
//! is lost.

use std::time::Duration;

use okta_worker::domain::bucket::Bucket;
use okta_worker::domain::mail::Properties;
use okta_worker::sandbox::{Fault, Trouble, When};
use serde_json::json;

use super::world::{REPLIES, SAM, Setup, World};

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
        world.fault(Fault { when: When::After, ..Fault::next(Trouble::Status(504)) });
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
