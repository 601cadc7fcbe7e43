//! What is kept for one caller takes no room from another, and nothing is kept for whoever may not call.

use std::collections::HashMap;

use okta_worker::domain::ids::Lane;
use okta_worker::domain::message::{CANCEL, HeaderValue, Properties};
use okta_worker::domain::topology::DEAD_MAX;
use okta_worker::policy::authorization::{AllowList, CallerPermissions, Callers};
use serde_json::json;

use crate::world::{SAM, Setup, World, prod};

fn by(user: &str) -> Properties {
    Properties { user_id: Some(user.to_owned()), ..Properties::default() }
}

/// A world that knows these callers and no others.
fn known(names: &[&str]) -> World {
    let caller = CallerPermissions {
        connections: vec![prod()],
        subtools: AllowList::all(),
        lanes: Lane::ALL.to_vec(),
        max_per_minute: None,
    };
    let callers: HashMap<_, _> = names.iter().map(|name| ((*name).to_owned(), caller.clone())).collect();
    Setup { callers: Callers(callers), ..Setup::default() }.open()
}

/// Takes all results and parked messages so far; of the parked ones, who sent them.
fn parked_by(world: &World, results: usize, parked: usize) -> Vec<String> {
    (0..results).for_each(|_| drop(world.result()));
    let by = |_| match world.parked().properties.headers.get("okta-caller") {
        Some(HeaderValue::Text(caller)) => caller.clone(),
        other => panic!("no caller: {other:?}"),
    };
    (0..parked).map(by).collect()
}

#[tokio::test(start_paused = true)]
async fn unreadable_messages_of_one_caller_are_parked_up_to_its_share_and_those_of_another_all_the_same() {
    let share = usize::try_from(DEAD_MAX / 20).unwrap();
    let mut world = Setup::default().open();
    world.send_raw("prod", by("quiet"), "{ not json");
    for _ in 0..share + 10 {
        world.send_raw("prod.bulk", by("loud"), "{ not json");
    }
    world.send_raw("prod", by("third"), "{ not json");
    world.rest().await;
    let mut parked = parked_by(&world, share + 12, share + 2);
    parked.sort();
    parked.dedup();
    assert_eq!(parked, ["loud", "quiet", "third"]);
    assert_eq!(world.tape().matches("not parked: unreadable").count(), 10);
    world.close();
}

#[tokio::test(start_paused = true)]
async fn nothing_is_parked_for_whoever_may_not_use_the_connection() {
    let mut world = known(&["helpdesk"]);
    for user in ["mallory", "helpdesk"] {
        world.send_raw("prod", by(user), "{ not json");
    }
    world.send_raw("prod", Properties::default(), "{ not json");
    world.send_raw("other", by("helpdesk"), "{ not json");
    world.rest().await;
    assert_eq!(parked_by(&world, 4, 1), ["helpdesk"]);
    world.tape();
    world.close();
}

#[tokio::test(start_paused = true)]
async fn whoever_may_not_use_the_connection_cancels_nothing_and_others_still_can() {
    let mut world = known(&["helpdesk"]);
    let cancel = |user: &str, id: &str| {
        let (message_id, kind) = (Some(id.to_owned()), Some(CANCEL.to_owned()));
        Properties { message_id, kind, ..by(user) }
    };
    for invented in 0..10_500 {
        world.send_raw("prod.bulk", cancel("mallory", &format!("x{invented}")), "");
        if invented % 1000 == 0 {
            world.rest().await;
        }
    }
    world.send_raw("prod", cancel("helpdesk", "job"), "");
    world.rest().await;
    let read = json!({ "subtool": "get_user", "arguments": { "user_id": SAM } }).to_string();
    world.send_raw("prod", Properties { message_id: Some("job".to_owned()), ..by("helpdesk") }, read);
    world.rest().await;
    assert!(world.tape().ends_with("job cancelled"));
    world.close();
}
