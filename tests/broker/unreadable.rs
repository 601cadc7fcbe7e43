//! Properties that are not UTF-8: no client library reads them, so the broker has to park them.

use std::time::{Duration, Instant};

use okta_worker::domain::topology::{DEAD, INVOCATIONS};
use serde_json::json;
use tokio::time::sleep;

use super::node::ours;
use super::wire::Wire;
use super::world::World;

/// Ten deliveries from the work queue and twenty from the last stop, a connection each.
const PARKED_WITHIN: Duration = Duration::from_secs(60);

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
    assert!(wire.has(DEAD, b"\xff\xfe"), "it is parked with its own properties");
    caller.ask("prod.bulk", "list_groups", &json!({"limit": 1})).await;
}
