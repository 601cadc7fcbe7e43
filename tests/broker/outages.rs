//! The broker goes and comes back; the worker is told to go.

use std::collections::HashSet;

use lapin::options::QueueDeleteOptions;
use lapin::types::FieldTable;
use serde_json::json;

use super::caller::{Caller, Message, until};
use super::fellow::{Fellow, Note};
use super::node::{Alarm, Place, User, alone};
use super::world::{Start, World};

#[tokio::test]
async fn a_worker_outlives_its_broker_and_answers_what_was_in_flight_and_what_was_queued() {
    let Some(node) = alone().await else { return };
    let world = World::at(Place::on(&node), &["--latency", "1000"]);
    let mut worker = world.worker();
    let caller = world.caller().await;
    caller.queue("answers", FieldTable::default(), None).await;
    let message =
        |id: &str| Message::new("prod.bulk", "list_groups", &json!({"limit": 1})).id(id).answer_to("answers");
    let persistent = |message: Message| message.with(|properties| properties.with_delivery_mode(2));
    caller.send(&persistent(message("in flight"))).await;
    until("it is in flight", async || world.org.requests() == 1).await;
    node.run("stop", &[]);
    until("the worker sees it", async || !worker.is_ready()).await;
    assert!(worker.process.ended().is_none(), "a worker does not end with its broker");
    node.run("start", &[]);
    let caller = Caller::new(&world.place.url(User::Operator)).await;
    caller.send(&persistent(message("queued"))).await;
    worker.await_ready();
    let mut left = vec!["in flight".to_owned(), "queued".to_owned()];
    while !left.is_empty() {
        // An answer may come twice, never not at all.
        let body = caller.take("answers").await.body();
        assert_eq!(body["status"], "succeeded", "{body}");
        left.retain(|id| body["id"] != **id);
    }
}

#[tokio::test]
async fn while_the_broker_takes_no_messages_answers_wait_and_then_each_comes_once() {
    const MESSAGES: usize = 40; // more than there are channels for answers
    let Some(node) = alone().await else { return };
    let world = World::at(Place::on(&node), &["--latency", "1500"]);
    let many = Start { variables: &[("OKTA_WORKER__BROKER__PREFETCH", "64")], ..Start::default() };
    let mut worker = world.worker_with(&many);
    let caller = world.caller().await;
    caller.queue("answers", FieldTable::default(), None).await;
    for number in 0..MESSAGES {
        let message = Message::new("prod.bulk", "list_groups", &json!({"limit": 1}));
        caller.send(&message.id(&number.to_string()).answer_to("answers")).await;
    }
    until("some are in flight", async || world.org.requests() > 0).await;
    let alarm = Alarm::raise(&node);
    let is = |value: &str| format!("\nokta_worker_broker_blocked {value}\n");
    until("the worker is told", async || worker.metrics().contains(&is("1"))).await;
    until("all have been asked", async || world.org.requests() == MESSAGES as u64).await;
    assert!(worker.is_ready(), "it consumes");
    let logged = async |line: &str| until(line, async || worker.process.stderr().contains(line)).await;
    logged("the broker takes no messages, so results wait: low on memory").await;
    drop(alarm);
    until("it is over", async || worker.metrics().contains(&is("0"))).await;
    logged("the broker takes messages again").await;
    let mut ids = HashSet::new();
    for _ in 0..MESSAGES {
        let body = caller.take("answers").await.body();
        assert_eq!(body["status"], "succeeded", "{body}");
        ids.insert(body["id"].to_string());
    }
    assert_eq!(ids.len(), MESSAGES);
    worker.process.signal("TERM");
    assert_eq!(worker.process.wait().code(), Some(0), "{}", worker.process.stderr());
    assert_eq!(caller.count("answers").await, Some(0), "none came twice");
    assert_eq!(worker.process.stderr().matches("lost the broker").count(), 0, "to stop is no loss");
}

#[tokio::test]
async fn told_to_stop_a_worker_finishes_what_it_has_begun_and_leaves_the_rest() {
    let world = World::with(&["--latency", "1500"]).await;
    let one_at_a_time = Start { variables: &[("OKTA_WORKER__BROKER__PREFETCH", "1")], ..Start::default() };
    let mut worker = world.worker_with(&one_at_a_time);
    let caller = world.caller().await;
    caller.queue("answers", FieldTable::default(), None).await;
    for id in ["first", "second", "third"] {
        let message = Message::new("prod.bulk", "create_group", &json!({"name": id})).id(id);
        caller.send(&message.answer_to("answers")).await;
    }
    until("the first is in flight", async || world.org.requests() == 1).await;
    worker.process.signal("TERM");
    assert_eq!(worker.process.wait().code(), Some(0), "{}", worker.process.stderr());
    let reply = caller.take("answers").await;
    assert_eq!((&reply.body()["id"], &reply.body()["status"]), (&json!("first"), &json!("succeeded")));
    assert_eq!(caller.count("answers").await, Some(0));
    let queue = "okta.invocations.prod.bulk";
    until("the rest is back in its queue", async || caller.count(queue).await == Some(2)).await;
    assert_eq!(world.org.effects(), ["group.created"]);
    let _next = world.worker();
    for _ in 0..2 {
        assert_eq!(caller.take("answers").await.body()["status"], "succeeded");
    }
    assert_eq!(world.org.effects(), ["group.created"; 3]);
}

#[tokio::test]
async fn told_to_stop_a_worker_leaves_what_waits_for_a_window() {
    let world = World::with(&["--limit", "groups=2", "--window", "60"]).await;
    let window = [("OKTA_WORKER__CONNECTIONS__PROD__RATE_LIMIT_WINDOW", "60s")];
    let mut worker = world.worker_with(&Start { variables: &window, ..Start::default() });
    let caller = world.caller().await;
    caller.queue("answers", FieldTable::default(), None).await;
    let message = Message::new("prod.bulk", "list_groups", &json!({"limit": 1})).answer_to("answers");
    caller.send(&message).await;
    caller.take("answers").await;
    caller.send(&message).await;
    let waits = "okta_worker_in_flight{connection=\"prod\",lane=\"bulk\"} 1";
    until("it waits", async || worker.metrics().contains(waits)).await;
    worker.process.signal("TERM");
    assert_eq!(worker.process.wait().code(), Some(0), "{}", worker.process.stderr());
    let queue = "okta.invocations.prod.bulk";
    until("it is back in its queue", async || caller.count(queue).await == Some(1)).await;
    assert_eq!((world.org.requests(), caller.count("answers").await), (1, Some(0)));
}

#[tokio::test]
async fn told_to_stop_twice_a_worker_leaves_at_once_and_the_message_is_run_again() {
    let world = World::with(&["--latency", "4000"]).await;
    let mut worker = world.worker();
    let caller = world.caller().await;
    caller.queue("answers", FieldTable::default(), None).await;
    let message = Message::new("prod", "list_groups", &json!({"limit": 1})).answer_to("answers");
    caller.send(&message).await;
    until("it is in flight", async || world.org.requests() == 1).await;
    worker.process.signal("TERM");
    until("it drains", async || worker.process.stderr().contains("draining")).await;
    worker.process.signal("TERM");
    assert_eq!(worker.process.wait().code(), Some(1));
    assert_eq!(caller.count("answers").await, Some(0));
    let _next = world.worker();
    assert_eq!(caller.take("answers").await.body()["status"], "succeeded");
}

#[tokio::test]
async fn a_work_queue_that_is_deleted_under_the_worker_is_declared_again() {
    let world = World::new().await;
    let _worker = world.worker();
    let mut caller = world.caller().await;
    let channel = caller.open_channel().await;
    let queue = "okta.invocations.prod.interactive";
    channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await.unwrap();
    until("it is declared again", async || caller.count(queue).await.is_some()).await;
    // Bound last: until then the message would go to the unrouted ones.
    until("it is consumed again", async || {
        let reply = caller.call(&Message::new("prod", "list_groups", &json!({"limit": 1}))).await;
        reply.body()["status"] == "succeeded"
    })
    .await;
}

#[tokio::test]
async fn what_is_in_hand_of_a_deleted_queue_is_answered_and_what_waited_there_is_said_to_be_lost() {
    const QUEUE: &str = "okta.invocations.prod.bulk";
    const PREFETCH: usize = 4;
    const WAITING: usize = 2;
    let place = Place::take().await;
    let fellow = Fellow::start(&place.url(User::Worker));
    until("it is there", async || fellow.workers() == 1).await;
    fellow.finish(false);
    let caller = Caller::new(&place.url(User::Operator)).await;
    for _ in 0..PREFETCH + WAITING {
        caller.send(&Message::new("prod.bulk", "list_groups", &json!({}))).await;
    }
    let waiting = |fellow: &Fellow| fellow.census().map(|census| census.queued);
    until("some are in hand and the others counted", async || {
        fellow.taken() == PREFETCH && waiting(&fellow) == Some(WAITING as u64)
    })
    .await;
    let channel = caller.open_channel().await;
    channel.queue_delete(QUEUE.into(), QueueDeleteOptions::default()).await.unwrap();
    until("it is consumed again", async || caller.consumers(QUEUE).await == Some(1)).await;
    let deleted = Note::Deleted(QUEUE.to_owned(), PREFETCH, WAITING as u32);
    assert!(fellow.notes().contains(&deleted), "{:?}", fellow.notes());
    fellow.finish(true);
    until("what comes later is taken", async || {
        caller.send(&Message::new("prod.bulk", "list_groups", &json!({}))).await;
        fellow.taken() > PREFETCH
    })
    .await;
    assert_eq!(fellow.generations(), 1, "nothing else was disturbed");
    assert!(!fellow.notes().contains(&Note::Unsettled), "what was in hand was ended in order");
    fellow.stop().await;
}

#[tokio::test]
async fn a_write_in_hand_when_its_queue_is_deleted_is_answered_once_and_done_once() {
    let world = World::with(&["--latency", "2000"]).await;
    let worker = world.worker();
    let caller = world.caller().await;
    caller.queue("answers", FieldTable::default(), None).await;
    let message = Message::new("prod.bulk", "create_group", &json!({"name": "x"})).id("w");
    caller.send(&message.answer_to("answers")).await;
    until("it is in flight", async || world.org.requests() > 0).await;
    let channel = caller.open_channel().await;
    channel.queue_delete("okta.invocations.prod.bulk".into(), QueueDeleteOptions::default()).await.unwrap();
    let body = caller.take("answers").await.body();
    assert_eq!(
        (&body["id"], &body["status"], &body["effect"]),
        (&json!("w"), &json!("succeeded"), &json!("applied"))
    );
    until("its queue is there again", async || {
        caller.consumers("okta.invocations.prod.bulk").await == Some(1)
    })
    .await;
    let stderr = worker.process.stderr();
    assert!(stderr.contains("`okta.invocations.prod.bulk` was deleted: the 1 messages in hand"), "{stderr}");
    assert_eq!(stderr.matches("declared and consuming").count(), 1, "{stderr}");
    worker.stop();
    assert_eq!(
        (world.org.effects(), caller.count("answers").await),
        (vec!["group.created".to_owned()], Some(0))
    );
}
