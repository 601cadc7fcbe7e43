//! Properties that are not UTF-8: no client library reads them, so the broker has to park them.

use std::time::{Duration, Instant};

use lapin::types::FieldTable;
use okta_worker::domain::topology::{DEAD, INVOCATIONS};
use serde_json::json;
use tokio::time::sleep;

use super::caller::{Message, until};
use super::dead::lines;
use super::node::ours;
use super::wire::Wire;
use super::world::World;

/// Ten deliveries from the work queue and twenty from the last stop, a connection each.
const PARKED_WITHIN: Duration = Duration::from_secs(120);

#[tokio::test]
async fn properties_that_are_not_utf_8_stop_nobody_else_and_end_parked() {
    let Some(node) = ours() else { return };
    let world = World::new().await;
    let mut worker = world.worker();
    let mut caller = world.caller().await;
    let vhost = world.place.vhost.clone().expect("a node of ours has virtual hosts");
    let mut wire = Wire::connect(node.port(), "operator", &vhost);
    let body = br#"{"subtool":"list_groups"}"#;
    wire.publish(INVOCATIONS, "prod.bulk", b"\xff\xfe", body);
    let deadline = Instant::now() + PARKED_WITHIN;
    let mut answered = 0;
    while caller.count(DEAD).await != Some(1) {
        assert!(Instant::now() < deadline, "it is not parked, and {answered} others were answered");
        caller.ask("other", "list_groups", &json!({"limit": 1})).await;
        caller.ask("prod", "list_groups", &json!({"limit": 1})).await;
        answered += 2;
        sleep(Duration::from_millis(100)).await; // paces the neighbours; nothing waits for it
    }
    assert!(answered >= 10, "only {answered} others were answered meanwhile");
    assert!(worker.process.ended().is_none());
    let list = lines(&world, &["list"], 0);
    assert_eq!((&list[0]["connection"], &list[0]["lane"]), (&json!("prod"), &json!("bulk")), "{list:?}");
    assert_eq!((&list[0]["reason"], &list[0]["caller"]), (&json!("crash_loop"), &json!(null)), "{list:?}");
    assert!(list[0]["parked"].is_string(), "{list:?}");
    until("it is back", async || caller.count(DEAD).await == Some(1)).await;
    assert!(wire.has(DEAD, b"\xff\xfe"), "it is parked with its own properties");
    caller.ask("prod.bulk", "list_groups", &json!({"limit": 1})).await;
}

#[tokio::test]
async fn told_to_stop_while_it_consumes_one_by_one_a_worker_finishes_what_it_has_begun() {
    let Some(node) = ours() else { return };
    let world = World::with(&["--latency", "1500"]).await;
    let mut worker = world.worker();
    let caller = world.caller().await;
    caller.queue("answers", FieldTable::default(), None).await;
    let vhost = world.place.vhost.clone().expect("a node of ours has virtual hosts");
    let mut wire = Wire::connect(node.port(), "operator", &vhost);
    wire.publish(INVOCATIONS, "prod.bulk", b"\xff\xfe", b"{}");
    until("it consumes one by one", async || worker.process.stderr().contains("consuming one by one")).await;
    let message = Message::new("prod", "create_group", &json!({"name": "x"})).answer_to("answers");
    caller.send(&message).await;
    until("it is in flight", async || world.org.requests() == 1).await;
    worker.process.signal("TERM");
    assert_eq!(worker.process.wait().code(), Some(0), "{}", worker.process.stderr());
    assert_eq!(caller.take("answers").await.body()["status"], "succeeded");
    let stderr = worker.process.stderr();
    assert!(!stderr.contains("delivers it again"), "{stderr}");
    assert_eq!(caller.count("okta.invocations.prod.interactive").await, Some(0));
    assert_eq!(world.org.effects(), ["group.created"]);
}
