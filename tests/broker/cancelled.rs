//! What a caller wants no more is dropped by whichever worker holds it.

use lapin::types::FieldTable;
use serde_json::json;

use super::caller::{Message, until};
use super::world::{Start, World};

/// Where answers would come.
const ANSWERS: &str = "answers";

#[tokio::test]
async fn a_worker_drops_what_was_cancelled_by_way_of_another() {
    // One of each in two minutes: what waits for the next one surely has not begun. One bucket alone would not
    // be given all the room that there is.
    let world = World::with(&["--limit", "user_read=1", "--limit", "groups=1", "--window", "120"]).await;
    let few = [("OKTA_WORKER__BROKER__PREFETCH", "2")];
    let start = Start { variables: &few, ..Start::default() };
    let holder = world.worker_with(&start);
    let caller = world.caller().await;
    caller.queue(ANSWERS, FieldTable::default(), None).await;
    let read = json!({ "user_id": "sam.admin@example.com" });
    let reading = |id: &str| Message::new("prod", "get_user", &read).id(id).answer_to(ANSWERS);
    let listing = |id: &str| Message::new("prod", "list_groups", &json!({})).id(id).answer_to(ANSWERS);
    for first in [reading("a read"), listing("a list")] {
        caller.send(&first).await;
        caller.take(ANSWERS).await;
    }
    // Both are in hand there, so that it can be given no other.
    for late in [reading("second"), listing("third")] {
        caller.send(&late).await;
    }
    until("both are in hand", async || caller.count("okta.invocations.prod.interactive").await == Some(0))
        .await;
    let teller = world.worker_with(&start);
    for id in ["second", "third"] {
        let cancel = Message::of("prod", "").id(id);
        caller.send(&cancel.with(|properties| properties.with_type("okta.cancel".into()))).await;
    }
    let dropped = |id: &str| format!("dropped `{id}`, which its caller has cancelled");
    until("both are dropped", async || {
        let said = holder.process.stderr();
        said.contains(&dropped("second")) && said.contains(&dropped("third"))
    })
    .await;
    assert!(!teller.process.stderr().contains("dropped"), "it held nothing");
    assert_eq!((caller.count(ANSWERS).await, world.org.requests()), (Some(0), 2));
    holder.stop();
    teller.stop();
}
