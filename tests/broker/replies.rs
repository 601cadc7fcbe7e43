//! Where answers go: direct reply-to, a named queue, `okta.results`, and what nobody fetches.

use lapin::types::{AMQPValue, FieldTable};
use okta_worker::domain::topology::{RESULTS, UNCLAIMED};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::caller::{Message, until};
use super::world::World;

fn list_groups() -> Message {
    Message::new("prod", "list_groups", &json!({"q": "Engineering"}))
}

#[tokio::test]
async fn each_caller_gets_the_direct_replies_to_its_own_messages() {
    let world = World::new().await;
    let _worker = world.worker();
    let (mut one, mut two) = (world.caller().await, world.caller().await);
    let first = one.begin(&list_groups().id("first")).await;
    let second = two.begin(&list_groups().id("second")).await;
    let (second, first) = (two.end(&second).await, one.end(&first).await);
    assert_eq!((&first.body()["id"], &second.body()["id"]), (&json!("first"), &json!("second")));
    assert_eq!(first.exchange, "", "a direct reply comes by the default exchange");
}

#[tokio::test]
async fn a_message_without_an_id_is_answered_under_a_new_one_and_told_so() {
    let world = World::new().await;
    let _worker = world.worker();
    let caller = world.caller().await;
    caller.queue("answers", FieldTable::default(), None).await;
    caller.send(&list_groups().answer_to("answers")).await;
    let reply = caller.take("answers").await;
    let body = reply.body();
    assert_eq!(body["id_generated"], true);
    let id = body["id"].as_str().expect("there is an id");
    assert_eq!(reply.properties.correlation_id().as_ref().map(|id| id.as_str()), Some(id));
    assert_eq!(reply.key, "answers");
}

#[tokio::test]
async fn an_id_as_long_as_amqp_allows_is_answered_under_its_digest() {
    let world = World::new().await;
    let _worker = world.worker();
    let mut caller = world.caller().await;
    let id = "i".repeat(255);
    let reply = caller.call(&list_groups().id(&id)).await;
    assert_eq!(reply.body()["id"], id);
    let digest: String = Sha256::digest(&id).iter().map(|byte| format!("{byte:02x}")).collect();
    let found = reply.properties.message_id().as_ref().map(|id| id.as_str());
    assert_eq!(found, Some(&*format!("{digest}.result")));
}

#[tokio::test]
async fn without_a_reply_to_results_go_to_whoever_is_bound_and_else_wait_unclaimed() {
    let world = World::new().await;
    let _worker = world.worker();
    let caller = world.caller().await;
    caller.queue("watch", FieldTable::default(), Some((RESULTS, "prod.list_groups.*"))).await;
    caller.send(&list_groups().id("watched")).await;
    let watched = caller.take("watch").await;
    assert_eq!((&*watched.exchange, &*watched.key), (RESULTS, "prod.list_groups.succeeded"));
    assert_eq!(watched.body()["id"], "watched");
    caller.send(&Message::new("prod", "get_group", &json!({"group_id": "00gNobody"})).id("unwatched")).await;
    let unclaimed = caller.take(UNCLAIMED).await;
    assert_eq!(unclaimed.key, "prod.get_group.failed");
    assert_eq!(unclaimed.body()["id"], "unwatched");
    // What is neither a connection nor a subtool of ours has no name there.
    caller.send(&Message::new("nobody", "fly", &json!({}))).await;
    assert_eq!(caller.take(UNCLAIMED).await.key, "-.-.failed");
    assert_eq!(caller.count("watch").await, Some(0));
}

#[tokio::test]
async fn a_result_whose_queue_is_gone_is_kept_without_its_one_time_secrets() {
    let world = World::new().await;
    let _worker = world.worker();
    let mut caller = world.caller().await;
    let profile =
        json!({"firstName": "Al", "lastName": "Bo", "login": "al@example.com", "email": "al@example.com"});
    caller.ask("prod", "create_user", &json!({"profile": profile, "activate": false})).await;
    let arguments = json!({"user_id": "al@example.com", "send_email": false});
    caller.send(&Message::new("prod", "activate_user", &arguments).id("late").answer_to("gone")).await;
    let reply = caller.take(UNCLAIMED).await;
    assert_eq!(reply.header("okta-undeliverable"), Some(AMQPValue::Boolean(true)));
    assert_eq!(reply.key, "prod.activate_user.succeeded");
    let body = reply.body();
    assert_eq!(body["id"], "late");
    assert_eq!(body["result"], json!({"activation_url": "***", "activation_token": "***"}), "{body}");
    until("the invocation is acknowledged", async || {
        caller.count("okta.invocations.prod.interactive").await == Some(0)
    })
    .await;
}
