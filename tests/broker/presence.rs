//! How many workers there are: a consumer each on the presence queue of a connection, and a heartbeat each.

use lapin::options::{BasicConsumeOptions, QueueDeleteOptions};
use lapin::types::{AMQPValue, FieldTable};
use okta_worker::budget::gossip::Census;
use okta_worker::domain::topology::INVOCATIONS;
use serde_json::json;

use super::caller::{Caller, Message, until};
use super::fellow::{Fellow, Note};
use super::node::{Place, User, ours};
use super::wire::Wire;
use super::world::World;

const PRESENCE: &str = "okta.presence.prod";
const BULK: &str = "okta.invocations.prod.bulk";

#[tokio::test]
async fn three_workers_know_that_they_are_three_and_when_one_has_left_two() {
    let place = Place::take().await;
    let url = place.url(User::Worker);
    let fellows = [(); 3].map(|()| Fellow::start(&url));
    until("all know of three", async || fellows.iter().all(|fellow| fellow.workers() == 3)).await;
    let caller = Caller::new(&place.url(User::Operator)).await;
    assert_eq!(caller.consumers(PRESENCE).await, Some(3));
    let [one, two, three] = fellows;
    two.stop().await;
    until("both know of two", async || one.workers() == 2 && three.workers() == 2).await;
    assert_eq!(caller.consumers(PRESENCE).await, Some(2));
}

#[tokio::test]
async fn eight_workers_that_come_at_once_to_a_new_virtual_host_all_come_to_work() {
    let place = Place::take().await;
    let url = place.url(User::Worker);
    // On 3.10 such a crowd may be cut off while it declares.
    let fellows = [(); 8].map(|()| Fellow::start(&url));
    until("all know of eight", async || {
        assert!(!fellows.iter().any(Fellow::has_ended), "none gives up");
        fellows.iter().all(|fellow| fellow.workers() == 8)
    })
    .await;
    for fellow in fellows {
        fellow.stop().await;
    }
}

#[tokio::test]
async fn workers_and_waiting_messages_are_counted_before_the_first_message_is_taken() {
    let place = Place::take().await;
    let url = place.url(User::Worker);
    let first = Fellow::start(&url);
    until("it has declared all", async || first.workers() == 1).await;
    first.stop().await;
    let caller = Caller::new(&place.url(User::Operator)).await;
    for _ in 0..2 {
        caller.send(&Message::new("prod.bulk", "list_groups", &json!({}))).await;
    }
    until("they wait", async || caller.count(BULK).await == Some(2)).await;
    let second = Fellow::start(&url);
    let taken = |notes: &[Note]| notes.iter().filter(|note| **note == Note::Taken).count();
    until("both are taken", async || taken(&second.notes()) == 2).await;
    let mut before: Vec<_> = second.notes().into_iter().take_while(|note| *note != Note::Taken).collect();
    before.retain(|note| matches!(note, Note::Counted(..)));
    before.sort_by_key(|note| matches!(note, Note::Counted("prod", _)));
    let census = |queued| Census { workers: 1, queued };
    assert_eq!(before, [Note::Counted("other", census(0)), Note::Counted("prod", census(2))]);
}

#[tokio::test]
async fn a_worker_that_drains_is_counted_until_its_last_work_is_done() {
    let world = World::with(&["--latency", "4000"]).await;
    let mut worker = world.worker();
    let caller = world.caller().await;
    caller.queue("answers", FieldTable::default(), None).await;
    let message = Message::new("prod.bulk", "create_group", &json!({"name": "x"})).answer_to("answers");
    caller.send(&message).await;
    until("it is in flight", async || world.org.requests() == 1).await;
    worker.process.signal("TERM");
    // Not of its own queue: a quorum queue counts a consumer that has left until its last acknowledgement.
    let idle = "okta.invocations.other.bulk";
    until("it takes no more work", async || caller.consumers(idle).await == Some(0)).await;
    assert_eq!(caller.consumers(PRESENCE).await, Some(1));
    assert_eq!(caller.count("answers").await, Some(0), "it was still at work");
    assert_eq!(worker.process.wait().code(), Some(0), "{}", worker.process.stderr());
    assert_eq!(caller.take("answers").await.body()["status"], "succeeded");
    until("it has left", async || caller.consumers(PRESENCE).await == Some(0)).await;
}

#[tokio::test]
async fn a_presence_queue_that_is_deleted_under_the_worker_is_declared_again() {
    let place = Place::take().await;
    let fellow = Fellow::start(&place.url(User::Worker));
    until("it is counted", async || fellow.workers() == 1).await;
    let caller = Caller::new(&place.url(User::Operator)).await;
    let channel = caller.open_channel().await;
    channel.queue_delete(PRESENCE.into(), QueueDeleteOptions::default()).await.unwrap();
    until("it is counted again", async || caller.consumers(PRESENCE).await == Some(1)).await;
    assert_eq!(fellow.generations(), 1, "the work went on");
}

#[tokio::test]
async fn workers_whose_presence_queue_cannot_be_used_work_and_know_of_each_other_all_the_same() {
    let place = Place::take().await;
    let caller = Caller::new(&place.url(User::Operator)).await;
    // As good as one whose node is down: the broker refuses to declare and to look.
    let length: FieldTable = {
        let mut arguments = FieldTable::default();
        arguments.insert("x-max-length".into(), AMQPValue::LongLongInt(1));
        arguments
    };
    caller.queue(PRESENCE, length, None).await;
    let url = place.url(User::Worker);
    let [one, two] = [(); 2].map(|()| Fellow::start(&url));
    until("both know of two", async || one.workers() == 2 && two.workers() == 2).await;
    let uncounted = |note: &Note| matches!(note, Note::Uncounted(why) if why.contains("x-max-length"));
    assert_eq!(one.notes().iter().filter(|note| uncounted(note)).count(), 1, "{:?}", one.notes());
    caller.send(&Message::new("prod.bulk", "list_groups", &json!({}))).await;
    until("one of them takes it", async || one.taken() + two.taken() == 1).await;
    two.stop().await;
    until("it is alone", async || one.workers() == 1).await;
    assert_eq!(one.generations(), 1, "it has not left its work");
    // As soon as it can be used, it is.
    let channel = caller.open_channel().await;
    channel.queue_delete(PRESENCE.into(), QueueDeleteOptions::default()).await.unwrap();
    until("it is counted there", async || caller.consumers(PRESENCE).await == Some(1)).await;
    assert_eq!(one.generations(), 1, "without a new beginning");
}

#[tokio::test]
async fn workers_of_release_0_1_0_are_counted_beside_those_that_tell() {
    let place = Place::take().await;
    let caller = Caller::new(&place.url(User::Operator)).await;
    let fellow = Fellow::start(&place.url(User::Worker));
    until("it is counted", async || fellow.workers() == 1).await;
    // All that such a worker does about it.
    let channel = caller.open_channel().await;
    let (tag, none) = ("".into(), FieldTable::default());
    let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
    let _old = channel.basic_consume(PRESENCE.into(), tag, options, none).await.unwrap();
    until("it knows of two", async || fellow.workers() == 2).await;
    assert_eq!(caller.consumers(PRESENCE).await, Some(2), "and so does the other");
}

#[tokio::test]
async fn what_somebody_puts_into_a_presence_queue_is_gone_and_changes_nothing() {
    let place = Place::take().await;
    let fellow = Fellow::start(&place.url(User::Worker));
    until("it is counted", async || fellow.workers() == 1).await;
    let caller = Caller::new(&place.url(User::Operator)).await;
    let stray = Message { exchange: String::new(), ..Message::of(PRESENCE, "stray") };
    caller.send(&stray).await;
    caller.send(&stray).await;
    until("nothing waits", async || caller.count(PRESENCE).await == Some(0)).await;
    assert_eq!(caller.consumers(PRESENCE).await, Some(1));
}

#[tokio::test]
async fn a_worker_that_consumes_one_by_one_is_counted_too() {
    let Some(node) = ours() else { return };
    let world = World::new().await;
    let worker = world.worker();
    let vhost = world.place.vhost.clone().expect("a node of ours has virtual hosts");
    let mut wire = Wire::connect(node.port(), "operator", &vhost);
    wire.publish(INVOCATIONS, "prod.bulk", b"\xff\xfe", b"{}");
    until("it consumes one by one", async || worker.process.stderr().contains("consuming one by one")).await;
    let caller = world.caller().await;
    until("it is counted", async || caller.consumers(PRESENCE).await == Some(1)).await;
    let began = worker.process.stderr().matches("declared and consuming").count();
    assert_eq!(began, 1, "it still consumes one by one: {}", worker.process.stderr());
    worker.stop();
    until("it has left", async || caller.consumers(PRESENCE).await == Some(0)).await;
}
