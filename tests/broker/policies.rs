//! Policies that an operator of the broker has set for all queues, and what they do to the worker's.

use lapin::types::FieldTable;
use okta_worker::domain::topology::{DEAD, UNDELIVERED};
use serde_json::{Value, json};

use super::caller::{Message, until};
use super::child::command;
use super::node::{Node, ours};
use super::org::TOKEN;
use super::world::{BROKER_URL, World};

/// A policy for as long as this is there.
struct Policy<'a> {
    node: &'a Node,
    vhost: &'a str,
}

impl<'a> Policy<'a> {
    fn set(node: &'a Node, world: &'a World, pattern: &str, definition: &Value) -> Self {
        let vhost = world.place.vhost.as_deref().expect("a node of ours has virtual hosts");
        node.run("ctl", &["-q", "set_policy", "-p", vhost, "careless", pattern, &definition.to_string()]);
        Self { node, vhost }
    }
}

impl Drop for Policy<'_> {
    fn drop(&mut self) {
        self.node.run("ctl", &["-q", "clear_policy", "-p", self.vhost, "careless"]);
    }
}

#[tokio::test]
async fn what_a_policy_drops_is_answered_as_that_and_parked() {
    let Some(node) = ours() else { return };
    for (definition, sent, dropped, code, keys) in [
        (json!({"message-ttl": 100}), 2, 2, "deadline_exceeded", "message-ttl"),
        (json!({"max-length": 1, "overflow": "drop-head"}), 3, 2, "internal", "max-length"),
    ] {
        let world = World::new().await;
        world.worker().stop();
        let caller = world.caller().await;
        caller.queue("answers", FieldTable::default(), None).await;
        let policy = Policy::set(node, &world, r"^okta\.invocations\.", &definition);
        for number in 0..sent {
            let message = Message::new("prod.bulk", "get_user", &json!({"user_id": "nobody@example.com"}));
            caller.send(&message.id(&number.to_string()).answer_to("answers")).await;
        }
        until("the broker drops them", async || caller.count(UNDELIVERED).await == Some(dropped)).await;
        drop(policy);
        let worker = world.worker();
        let mut told = 0;
        for _ in 0..sent {
            let reply = caller.take("answers").await;
            let body = reply.body();
            if body["error"]["message"].to_string().contains("policy") {
                told += 1;
                assert_eq!(
                    (&body["error"]["code"], &body["error"]["path"]),
                    (&json!(code), &json!(null)),
                    "{body}"
                );
                assert_eq!(body["effect"], "none", "{body}");
                assert!(body["error"]["message"].to_string().contains(keys), "{body}");
                let parked = caller.take(DEAD).await;
                assert_eq!(parked.header_text("okta-reason").as_deref(), Some("dropped"));
            }
        }
        assert_eq!(told, dropped, "{definition}");
        let stderr = worker.process.stderr();
        assert_eq!(stderr.matches("has dropped messages").count(), 1, "{stderr}");
        worker.stop();
    }
}

#[tokio::test]
async fn of_a_write_that_a_policy_drops_nobody_can_tell_whether_it_was_begun() {
    let Some(node) = ours() else { return };
    let world = World::new().await;
    world.worker().stop();
    let caller = world.caller().await;
    caller.queue("answers", FieldTable::default(), None).await;
    let policy = Policy::set(node, &world, r"^okta\.invocations\.", &json!({"message-ttl": 100}));
    let message = Message::new("prod.bulk", "create_group", &json!({"name": "x"})).answer_to("answers");
    caller.send(&message).await;
    until("the broker drops it", async || caller.count(UNDELIVERED).await == Some(1)).await;
    drop(policy);
    let _worker = world.worker();
    let body = caller.take("answers").await.body();
    assert_eq!(
        (&body["error"]["code"], &body["effect"]),
        (&json!("deadline_exceeded"), &json!("unknown")),
        "{body}"
    );
}

#[tokio::test]
async fn check_and_a_worker_that_starts_name_policies_that_show_within_a_moment() {
    let Some(node) = ours() else { return };
    let world = World::new().await;
    let worker = world.worker();
    let file = world.file("check.toml");
    std::fs::write(&file, worker.settings()).unwrap();
    worker.stop();
    let url = world.place.url(super::node::User::Worker);
    let check = async || {
        let mut check = command();
        check.arg("--config").arg(&file).arg("check").env(BROKER_URL, &url).env("TEST_OKTA_TOKEN", TOKEN);
        let ran = tokio::task::spawn_blocking(move || check.output().unwrap()).await.unwrap();
        (ran.status.code(), String::from_utf8_lossy(&ran.stdout).into_owned())
    };
    let (code, said) = check().await;
    assert!(code == Some(0) && said.contains("unchecked  policies: none was seen"), "{code:?} {said}");
    for (definition, named) in [
        (json!({"message-ttl": 1000}), "(`message-ttl`)"),
        (json!({"expires": 1000}), "(`expires`)"),
        (
            json!({"max-length": 100, "overflow": "drop-head"}),
            "beyond 100 messages (`max-length`, `drop-head`)",
        ),
        (json!({"max-length": 100, "overflow": "reject-publish"}), "further ones are refused"),
    ] {
        let policy = Policy::set(node, &world, r"^okta\.", &definition);
        let (code, said) = check().await;
        assert!(
            code == Some(1) && said.contains("FAILED     policies") && said.contains(named),
            "{definition}: {said}"
        );
        drop(policy);
    }
    let _policy = Policy::set(node, &world, r"^okta\.", &json!({"max-length": 500, "overflow": "drop-head"}));
    let worker = world.worker();
    until("the worker says so, too", async || {
        worker.process.stderr().contains("may lose or refuse messages")
    })
    .await;
}
