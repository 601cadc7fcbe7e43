//! Answers that cannot go where they should: each is found, kept, and never taken for another.

use std::collections::BTreeSet;

use lapin::options::QueueDeleteOptions;
use lapin::types::{AMQPValue, FieldTable};
use okta_worker::domain::topology::{DEAD, UNCLAIMED};
use serde_json::json;

use super::caller::{Caller, Message, Reply, until};
use super::node::{Place, alone};
use super::world::{Start, World};

const INTERACTIVE: &str = "okta.invocations.prod.interactive";

fn list_groups(id: &str) -> Message {
    Message::new("prod", "list_groups", &json!({"limit": 1})).id(id)
}

fn id(reply: &Reply) -> String {
    reply.body()["id"].as_str().expect("an answer has an id").to_owned()
}

fn is_undeliverable(reply: &Reply) -> bool {
    reply.header("okta-undeliverable") == Some(AMQPValue::Boolean(true))
}

#[tokio::test]
async fn of_fifty_answers_at_once_each_whose_queue_is_missing_is_found_and_no_other() {
    const MESSAGES: usize = 350;
    const MISSING_EVERY: usize = 7;
    let world = World::with(&["--limit", "groups=10000"]).await;
    let prefetch = [("OKTA_WORKER__BROKER__PREFETCH", "50")];
    let _worker = world.worker_with(&Start { variables: &prefetch, ..Start::default() });
    let caller = world.caller().await;
    caller.queue("answers", FieldTable::default(), None).await;
    let (mut there, mut missing) = (BTreeSet::new(), BTreeSet::new());
    for number in 0..MESSAGES {
        let id = format!("m{number:03}");
        let (queue, ids) = match number % MISSING_EVERY {
            0 => ("gone", &mut missing),
            _ => ("answers", &mut there),
        };
        caller.send(&list_groups(&id).answer_to(queue)).await;
        ids.insert(id);
    }
    for (queue, ids, undeliverable) in [("answers", there, false), (UNCLAIMED, missing, true)] {
        let mut found = BTreeSet::new();
        for _ in 0..ids.len() {
            let reply = caller.take(queue).await;
            assert_eq!(is_undeliverable(&reply), undeliverable, "{reply:?}");
            found.insert(id(&reply));
        }
        assert_eq!(found, ids);
        assert!(caller.look(queue).await.is_none());
    }
    until("all are acknowledged", async || caller.count(INTERACTIVE).await == Some(0)).await;
}

/// A reply queue that takes one message, with one in it.
async fn full(caller: &Caller) {
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-length".into(), AMQPValue::LongLongInt(1));
    arguments.insert("x-overflow".into(), AMQPValue::LongString("reject-publish".into()));
    caller.queue("answers", arguments, None).await;
    let mut filler = list_groups("filler");
    (filler.exchange, filler.key) = (String::new(), "answers".to_owned());
    caller.send(&filler).await;
}

#[tokio::test]
async fn an_answer_that_a_full_queue_refuses_is_offered_again_until_there_is_room() {
    let world = World::new().await;
    let worker = world.worker();
    let mut caller = world.caller().await;
    full(&caller).await;
    caller.send(&list_groups("late").answer_to("answers")).await;
    until("it was asked", async || world.org.requests() == 1).await;
    caller.call(&list_groups("after it")).await; // so that the full queue has refused the first by now
    assert_eq!(
        caller.take("answers").await.properties.message_id().as_ref().map(|id| id.as_str()),
        Some("filler")
    );
    assert_eq!(id(&caller.take("answers").await), "late");
    assert_eq!((world.org.requests(), worker.lost_so_far()), (2, 0));
    assert_eq!(caller.count(UNCLAIMED).await, Some(0));
}

#[tokio::test]
async fn an_answer_that_a_full_queue_goes_on_refusing_is_kept_unclaimed() {
    let world = World::new().await;
    let worker = world.worker();
    let caller = world.caller().await;
    full(&caller).await;
    caller.send(&list_groups("late").answer_to("answers")).await;
    let reply = caller.take(UNCLAIMED).await;
    assert!(is_undeliverable(&reply) && id(&reply) == "late", "{reply:?}");
    until("it is acknowledged", async || caller.count(INTERACTIVE).await == Some(0)).await;
    assert_eq!((caller.count("answers").await, world.org.requests(), worker.lost_so_far()), (Some(1), 1, 0));
}

#[tokio::test]
async fn an_answer_to_a_caller_who_has_left_is_dropped_and_keeps_nobody_waiting() {
    let world = World::with(&["--latency", "500"]).await;
    let worker = world.worker();
    let mut leaving = world.caller().await;
    leaving.begin(&list_groups("left")).await;
    until("it is in flight", async || world.org.requests() == 1).await;
    drop(leaving);
    let mut staying = world.caller().await;
    let reply = staying.call(&list_groups("stays")).await;
    assert_eq!((&reply.body()["id"], &reply.body()["status"]), (&json!("stays"), &json!("succeeded")));
    let answered = "answered `left`: list_groups succeeded";
    until("the other is answered too", async || worker.process.stderr().contains(answered)).await;
    // Direct replies are not mandatory, so nothing says that nobody was there.
    assert_eq!(staying.count(UNCLAIMED).await, Some(0));
    until("both are acknowledged", async || staying.count(INTERACTIVE).await == Some(0)).await;
    assert_eq!((world.org.requests(), worker.lost_so_far()), (2, 0));
}

#[tokio::test]
async fn what_must_be_parked_is_not_lost_although_somebody_has_deleted_the_queue_for_it() {
    let world = World::new().await;
    let worker = world.worker();
    let caller = world.caller().await;
    let channel = caller.open_channel().await;
    channel.queue_delete(DEAD.into(), QueueDeleteOptions::default()).await.unwrap();
    caller.send(&Message::of("prod.bulk", "no JSON").id("unreadable")).await;
    until("it is declared again, and the message in it", async || caller.count(DEAD).await == Some(1)).await;
    let parked = caller.take(DEAD).await;
    assert_eq!(
        parked.properties.message_id().as_ref().map(ToString::to_string).as_deref(),
        Some("unreadable")
    );
    until("it is acknowledged", async || caller.count("okta.invocations.prod.bulk").await == Some(0)).await;
    worker.stop();
}

#[tokio::test]
async fn of_a_result_that_is_too_large_for_the_broker_the_caller_is_told() {
    let Some(node) = alone().await else { return };
    let limit = |bytes: u32| {
        node.run("eval", &[&format!("application:set_env(rabbit, max_message_size, {bytes}).")]);
    };
    let world = World::at(Place::on(&node), &["--users", "100"]);
    limit(20_000); // of channels that are opened from now on
    let worker = world.worker();
    let caller = world.caller().await;
    caller.queue("answers", FieldTable::default(), None).await;
    let list = Message::new("prod", "list_users", &json!({ "limit": 100 }));
    for message in [list.clone().id("asked").answer_to("answers"), list.id("unclaimed")] {
        caller.send(&message).await;
    }
    for (queue, id) in [("answers", "asked"), (UNCLAIMED, "unclaimed")] {
        let body = caller.take(queue).await.body();
        let told = (&body["id"], &body["status"], &body["result"], &body["result_omitted"]);
        assert_eq!(told, (&json!(id), &json!("succeeded"), &json!(null), &json!(true)));
    }
    limit(134_217_728);
    worker.stop();
}
