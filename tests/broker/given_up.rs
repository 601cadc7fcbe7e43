//! What the broker gives up is answered all the same.

use futures_util::StreamExt as _;
use lapin::options::{BasicConsumeOptions, BasicNackOptions};
use lapin::types::FieldTable;
use okta_worker::domain::topology::{DEAD, DELIVERY_LIMIT, UNDELIVERED};
use serde_json::json;

use super::caller::{Message, until};
use super::world::World;

const QUEUE: &str = "okta.invocations.prod.interactive";

#[tokio::test]
async fn a_message_that_expires_while_no_worker_runs_is_answered_when_one_does() {
    let world = World::new().await;
    world.worker().stop();
    let caller = world.caller().await;
    caller.queue("answers", FieldTable::default(), None).await;
    let message = Message::new("prod", "list_groups", &json!({})).id("old").answer_to("answers");
    caller.send(&message.with(|properties| properties.with_expiration("50".into()))).await;
    until("it expires", async || caller.count(UNDELIVERED).await == Some(1)).await;
    let _worker = world.worker();
    let reply = caller.take("answers").await;
    let (code, path) = reply.error();
    assert_eq!((code.as_str(), path.as_deref()), ("deadline_exceeded", Some("properties.expiration")));
    let body = reply.body();
    assert_eq!((&body["id"], &body["error"]["retryable"]), (&json!("old"), &json!(true)));
    assert_eq!((world.org.requests(), caller.count(DEAD).await), (0, Some(0)));
}

#[tokio::test]
async fn a_message_past_the_delivery_limit_is_answered_and_parked() {
    let world = World::new().await;
    world.worker().stop();
    let caller = world.caller().await;
    caller.queue("answers", FieldTable::default(), None).await;
    let message = Message::new("prod", "list_groups", &json!({})).id("killer").answer_to("answers");
    caller.send(&message).await;
    let channel = caller.open_channel().await;
    let consumer = channel
        .basic_consume(QUEUE.into(), "".into(), BasicConsumeOptions::default(), FieldTable::default())
        .await;
    let mut consumer = consumer.unwrap();
    for _ in 0..=DELIVERY_LIMIT {
        let delivery = consumer.next().await.unwrap().unwrap();
        delivery.nack(BasicNackOptions { requeue: true, ..BasicNackOptions::default() }).await.unwrap();
    }
    until("the broker gives it up", async || caller.count(UNDELIVERED).await == Some(1)).await;
    drop(consumer);
    let _worker = world.worker();
    let reply = caller.take("answers").await;
    assert_eq!((reply.error().0.as_str(), &reply.body()["id"]), ("internal", &json!("killer")));
    let parked = caller.take(DEAD).await;
    assert_eq!(parked.bytes, message.body);
    assert_eq!(parked.header_text("okta-reason").as_deref(), Some("crash_loop"));
    assert_eq!(world.org.requests(), 0);
}
