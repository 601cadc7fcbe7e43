//! The broker goes and comes back; the worker is told to go.

use lapin::types::FieldTable;
use serde_json::json;

use super::caller::{Caller, Message, until};
use super::node::{Place, User, ours};
use super::world::World;

#[tokio::test]
async fn a_worker_outlives_its_broker_and_answers_what_was_in_flight_and_what_was_queued() {
    let Some(node) = ours() else { return };
    let alone = node.alone().await;
    let world = World::at(Place::take_alone(node, &alone), &["--latency", "1000"]);
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
