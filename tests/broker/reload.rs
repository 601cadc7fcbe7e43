//! The configuration changes while the worker runs.

use std::collections::BTreeSet;

use lapin::options::{QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::FieldTable;
use serde_json::{Value, json};

use super::caller::{Caller, Message, until};
use super::node::{Node, ours};
use super::org::TOKEN;
use super::world::{Start, Worker, World};

const BULK: &str = "okta.invocations.third.bulk";
const PRESENCE: &str = "okta.presence.third";

/// One more connection to the same org.
fn third(world: &World, rest: &str) -> String {
    let base_url = world.org.url();
    format!("\n[connections.third]\nbase_url = \"{base_url}\"\nrate_limit_window = \"2s\"\n{rest}\n")
}

/// Opens it and enables these.
fn open(subtools: &str) -> String {
    format!("api_token = {{ env = \"TEST_OKTA_TOKEN\" }}\nsubtools = {subtools}")
}

/// The queues that are consumed, each with its consumer's tag.
fn consumers(node: &Node, world: &World) -> BTreeSet<String> {
    let vhost = world.place.vhost.as_deref().expect("a node of ours has virtual hosts");
    let listed = node.run("ctl", &["-q", "list_consumers", "-p", vhost, "queue_name", "consumer_tag"]);
    listed.lines().skip(1).map(str::to_owned).collect()
}

/// Those of the connections that were there from the beginning.
fn old_consumers(node: &Node, world: &World) -> BTreeSet<String> {
    consumers(node, world).into_iter().filter(|consumer| !consumer.contains(".third")).collect()
}

async fn says(worker: &Worker, what: &str) {
    until(what, async || worker.process.stderr().contains(what)).await;
}

fn list(key: &str) -> Message {
    Message::new(key, "list_groups", &json!({"limit": 1}))
}

async fn status(caller: &mut Caller, message: &Message) -> Value {
    caller.call(message).await.body()["status"].clone()
}

#[tokio::test]
async fn a_connection_comes_changes_and_goes_and_the_others_keep_their_consumers() {
    let Some(node) = ours() else { return };
    let world = World::new().await;
    let worker = world.worker();
    let mut caller = world.caller().await;
    let (before, text) = (old_consumers(node, &world), worker.settings());
    assert_eq!(before.len(), 9, "two connections, what belongs to none, and signals: {before:?}");

    // It is found without being told.
    worker.write(&format!("{text}{}", third(&world, &open("\"all\""))));
    until("the third is consumed", async || caller.consumers(BULK).await == Some(1)).await;
    assert_eq!(caller.consumers(PRESENCE).await, Some(1));
    assert_eq!(status(&mut caller, &list("third")).await, "succeeded");
    says(&worker, "connection `third` was added").await;
    assert!(worker.metrics().contains("okta_worker_in_flight{connection=\"third\",lane=\"bulk\"}"));

    let consumed = consumers(node, &world);
    worker.write(&format!("{text}{}", third(&world, &open("\"read\"\ncapacity_percent = 50"))));
    worker.process.signal("HUP");
    says(&worker, "connection `third` has changed: subtools, capacity_percent").await;
    let create = Message::new("third", "create_group", &json!({"name": "x"}));
    assert_eq!(caller.call(&create).await.error().0, "not_permitted");
    assert_eq!(status(&mut caller, &list("third.bulk")).await, "succeeded");
    assert_eq!(consumers(node, &world), consumed, "a change disturbs no consumer");

    worker.write(&text);
    worker.process.signal("HUP");
    until("it is consumed no more", async || caller.consumers(BULK).await == Some(0)).await;
    until("it has left", async || caller.consumers(PRESENCE).await == Some(0)).await;
    says(&worker, "connection `third` was removed").await;
    says(&worker, "no worker serves `third` any more").await;
    assert_eq!(status(&mut caller, &list("prod")).await, "succeeded");
    assert_eq!(old_consumers(node, &world), before);
    assert_eq!(worker.process.stderr().matches("declared and consuming").count(), 1);
    worker.stop();
}

/// What a caller is told of a connection that is not there, and of what effect.
async fn is_unknown(caller: &mut Caller, message: &Message) {
    let reply = caller.call(message).await;
    assert_eq!(reply.error(), ("unknown_connection".to_owned(), Some("properties.routing_key".to_owned())));
    assert_eq!(reply.body()["effect"], "none");
}

#[tokio::test]
async fn who_waits_for_a_removed_connection_is_answered_once_the_last_worker_has_left_it() {
    let world = World::new().await;
    let settings = third(&world, &open("\"all\""));
    let start = || Start { settings: &settings, ..Start::default() };
    let (first, second) = (world.worker_with(&start()), world.worker_with(&start()));
    let mut caller = world.caller().await;
    caller.queue("answers", FieldTable::default(), None).await;
    let without = |worker: &Worker| {
        let text = worker.settings();
        worker.write(text.split_once("\n[connections.third]").expect("it is there").0);
        worker.process.signal("HUP");
    };
    without(&first);
    until("one has left", async || caller.consumers(PRESENCE).await == Some(1)).await;
    for _ in 0..20 {
        assert_eq!(status(&mut caller, &list("third")).await, "succeeded", "the other still serves it");
    }
    // What comes while nobody serves it, and what comes afterwards.
    without(&second);
    until("both have left", async || caller.consumers(PRESENCE).await == Some(0)).await;
    caller.send(&list("third.bulk").id("left").answer_to("answers")).await;
    let left = caller.take("answers").await;
    assert_eq!((left.error().0.as_str(), &left.body()["id"]), ("unknown_connection", &json!("left")));
    for worker in [&first, &second] {
        says(worker, "no worker serves `third` any more").await;
    }
    for key in ["third", "third.interactive", "third.bulk"] {
        is_unknown(&mut caller, &list(key)).await;
    }
    // A worker that starts without the connection has nothing to do with its queues.
    first.stop();
    second.stop();
    let mut third_worker = world.worker();
    is_unknown(&mut caller, &list("third")).await;
    // It comes back, and so do its bindings.
    let text = third_worker.settings();
    third_worker.write(&format!("{text}{settings}"));
    third_worker.process.signal("HUP");
    says(&third_worker, "connection `third` was added").await;
    until("it is served", async || caller.consumers(PRESENCE).await == Some(1)).await;
    until("and reached", async || status(&mut caller, &list("third.bulk")).await == "succeeded").await;
    third_worker.await_ready();
    without(&third_worker);
    says(&third_worker, "no worker serves `third` any more").await;
    third_worker.write(&format!("{text}{settings}"));
    third_worker.process.signal("HUP");
    until("it is served again", async || status(&mut caller, &list("third.bulk")).await == "succeeded").await;
    third_worker.stop();
}

#[tokio::test]
async fn what_is_in_hand_ends_as_it_began_when_its_connection_changes_or_is_removed() {
    let world = World::with(&["--users", "1000", "--latency", "1000"]).await;
    let settings = third(&world, &open("\"all\""));
    let mut worker = world.worker_with(&Start { settings: &settings, ..Start::default() });
    let caller = world.caller().await;
    caller.queue("answers", FieldTable::default(), None).await;
    for key in ["prod.bulk", "third.bulk"] {
        let message = Message::new(key, "list_users", &json!({"limit": 1000}));
        caller.send(&message.answer_to("answers")).await;
    }
    until("both lists have begun", async || world.org.requests() >= 2).await;
    let text = worker.settings();
    let (rest, _) = text.split_once("\n[connections.third]").expect("it is there");
    worker.write(&rest.replacen("subtools = [\"all\"]", "subtools = [\"write\"]", 1));
    worker.process.signal("HUP");
    says(&worker, "connection `third` was removed").await;
    assert_eq!(caller.count("answers").await, Some(0), "both lists are still running");
    assert_eq!(caller.consumers(PRESENCE).await, Some(1), "and whoever runs one is counted");
    for _ in 0..2 {
        let body = caller.take("answers").await.body();
        assert_eq!((&body["status"], &body["okta_calls"]), (&json!("succeeded"), &json!(5)), "{body}");
    }
    until("the removed one has left", async || caller.consumers(PRESENCE).await == Some(0)).await;
    assert_eq!(world.org.requests(), 10, "each page was asked for once");
    worker.process.signal("TERM");
    assert_eq!(worker.process.wait().code(), Some(0), "{}", worker.process.stderr());
}

#[tokio::test]
async fn a_token_that_is_replaced_in_its_file_is_taken_up_by_itself_and_by_sighup() {
    let world = World::new().await;
    let file = world.file("token");
    std::fs::write(&file, TOKEN).unwrap();
    let settings =
        third(&world, &format!("api_token = {{ file = \"{}\" }}\nsubtools = \"all\"", file.display()));
    let worker = world.worker_with(&Start { settings: &settings, ..Start::default() });
    let mut caller = world.caller().await;
    assert_eq!(status(&mut caller, &list("third")).await, "succeeded");
    let mut taken_up = 0;
    for is_told in [false, true] {
        for (token, expected) in [("wrong", "failed"), (TOKEN, "succeeded")] {
            std::fs::write(&file, token).unwrap();
            if is_told {
                worker.process.signal("HUP");
            }
            taken_up += 1;
            let line = "connection `third` has changed: token";
            until(line, async || worker.process.stderr().matches(line).count() == taken_up).await;
            until(expected, async || status(&mut caller, &list("third")).await == expected).await;
        }
    }
    worker.stop();
}

#[tokio::test]
async fn a_bad_file_is_refused_whole_and_the_configuration_in_force_is_kept() {
    let world = World::new().await;
    let worker = world.worker();
    let mut caller = world.caller().await;
    let text = worker.settings();
    let good = format!("{text}{}", third(&world, &open("\"all\"")));
    worker.write(&good.replace("[broker]", "[broker]\nprefetch = 0\ncolour = 1"));
    worker.process.signal("HUP");
    says(&worker, "broker.colour: unknown key").await;
    says(&worker, "broker.prefetch: must be between 1 and 1000").await;
    assert!(worker.process.stderr().contains("the new configuration is refused, the one in force is kept"));
    assert_eq!(caller.consumers(BULK).await, None, "nothing of it is taken up");
    assert_eq!(status(&mut caller, &list("prod")).await, "succeeded");

    let no_connection = "[broker]\nurl = { env = \"TEST_AMQP_URL\" }\n";
    worker.write(no_connection);
    worker.process.signal("HUP");
    says(&worker, "no connection is configured").await;
    assert_eq!(status(&mut caller, &list("prod")).await, "succeeded");
    assert!(worker.metrics().contains("okta_worker_configuration_refused 1"));

    worker.write(&good);
    until("the good one is taken up", async || caller.consumers(BULK).await == Some(1)).await;
    assert!(worker.metrics().contains("okta_worker_configuration_refused 0"));
    let backlog = "okta_worker_backlog{connection=\"third\"";
    assert!(worker.metrics().contains(backlog));
    worker.write(&text);
    until("its gauges are gone", async || !worker.metrics().contains(backlog)).await;
    worker.stop();
}

#[tokio::test]
async fn other_keys_hold_at_once_or_are_named_for_the_next_start() {
    let world = World::new().await;
    let worker = world.worker();
    let mut caller = world.caller().await;
    let before = worker.settings();
    let callers = "[callers.hr]\nconnections = [\"prod\"]\nsubtools = \"read\"\n";
    let text = before.replace("[broker]", "[broker]\nprefetch = 7\nlist_time_max = \"1m\"");
    worker.write(&format!("{text}log_format = \"text\"\n{callers}"));
    worker.process.signal("HUP");
    says(&worker, "the configuration has changed: broker.list_time_max, callers").await;
    says(&worker, "holds only after a restart: broker.prefetch, telemetry.log_format").await;
    assert_eq!(caller.call(&list("prod")).await.error().0, "not_permitted");
    worker.write(&before);
    worker.process.signal("HUP");
    let again = "the configuration has changed: broker.list_time_max, callers";
    until("it is as before", async || worker.process.stderr().matches(again).count() == 2).await;
    assert_eq!(status(&mut caller, &list("prod")).await, "succeeded");
    worker.process.signal("HUP");
    says(&worker, "nothing has changed").await;
    worker.stop();
}

/// A queue of another kind stands where one of the third connection's has to be.
async fn left_out(options: QueueDeclareOptions, why: &str) {
    let Some(node) = ours() else { return };
    let world = World::new().await;
    let worker = world.worker();
    let mut caller = world.caller().await;
    let before = old_consumers(node, &world);
    let channel = caller.open_channel().await;
    let declared = channel.queue_declare(BULK.into(), options, FieldTable::default()).await;
    declared.expect("nobody has declared it yet");
    worker.write(&format!("{}{}", worker.settings(), third(&world, &open("\"all\""))));
    worker.process.signal("HUP");
    says(&worker, &format!("`third` is not served: {why}")).await;
    assert_eq!(status(&mut caller, &list("prod")).await, "succeeded");
    let deleted = channel.queue_delete(BULK.into(), QueueDeleteOptions::default()).await;
    deleted.expect("it is there");
    until("it is consumed", async || caller.consumers(BULK).await == Some(1)).await;
    assert_eq!(status(&mut caller, &list("third")).await, "succeeded");
    assert_eq!(old_consumers(node, &world), before);
    worker.stop();
}

#[tokio::test]
async fn a_connection_that_the_broker_has_other_queues_for_is_left_out_until_it_has_not() {
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    left_out(options, "queue `okta.invocations.third.bulk` exists with another").await;
}

#[tokio::test]
async fn a_connection_that_cannot_be_declared_now_is_left_out_until_it_can() {
    let options = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
    left_out(options, "failed to declare `okta.invocations.third.bulk`: RESOURCE_LOCKED").await;
}
