//! `[callers]`: who may use what, by the broker user that RabbitMQ has verified.

use std::collections::HashMap;

use lapin::options::BasicPublishOptions;
use okta_worker::domain::topology::INVOCATIONS;
use serde_json::json;

use super::caller::{Caller, Message, connect, text, until};
use super::node::{User, ours};
use super::world::{Start, World};

const RULES: &str = r#"
[callers.operator]
connections = ["prod"]
subtools = ["list_groups", "get_group"]
lanes = ["interactive"]
"#;

fn from(user: &str, key: &str, subtool: &str) -> Message {
    let arguments = if subtool == "create_group" { json!({"name": "x"}) } else { json!({}) };
    Message::new(key, subtool, &arguments).with(|properties| properties.with_user_id(user.into()))
}

#[tokio::test]
async fn only_what_a_caller_was_given_is_permitted() {
    if ours().is_none() {
        return;
    }
    let world = World::new().await;
    let _worker = world.worker_with(&Start { settings: RULES, ..Start::default() });
    let mut callers = HashMap::new();
    for user in [User::Operator, User::Caller, User::Worker] {
        callers.insert(user, Caller::new(&world.place.url(user)).await);
    }
    let (key, who) = ("properties.routing_key", "properties.user_id");
    let nameless = Message::new("prod", "list_groups", &json!({}));
    let claims = |message: Message| message.header("okta-caller", text("operator"));
    let rows = [
        (User::Operator, nameless.clone(), who),
        (User::Operator, from("operator", "other", "list_groups"), key),
        (User::Operator, from("operator", "prod.bulk", "list_groups"), key),
        (User::Operator, from("operator", "prod", "list_users"), "subtool"),
        (User::Operator, from("operator", "prod", "create_group"), "subtool"),
        (User::Caller, from("caller", "prod", "list_groups"), who),
        (User::Caller, claims(from("caller", "prod", "list_groups")), who),
        (User::Caller, claims(nameless), who),
        (User::Worker, from("worker", "prod", "list_groups"), who),
    ];
    for (user, message, path) in rows {
        let reply = callers.get_mut(&user).unwrap().call(&message).await;
        let (code, found) = reply.error();
        assert_eq!((code.as_str(), found.as_deref()), ("not_permitted", Some(path)), "{}", reply.body());
    }
    assert_eq!(world.org.requests(), 0);
    for (user, message) in [
        (User::Operator, from("operator", "prod", "list_groups")),
        (User::Operator, from("operator", "prod.interactive", "list_groups")),
        // Our own copies keep who asked.
        (User::Worker, claims(from("worker", "prod", "list_groups"))),
    ] {
        let body = callers.get_mut(&user).unwrap().call(&message).await.body();
        assert_eq!(body["status"], "succeeded", "{user:?}: {body}");
    }
}

#[tokio::test]
async fn a_producer_with_the_contracts_permissions_calls_its_connection_and_no_other() {
    if ours().is_none() {
        return;
    }
    let world = World::new().await;
    let _worker = world.worker();
    let url = world.place.url(User::Caller);
    let mut caller = Caller::new(&url).await;
    let message = Message::new("prod", "list_groups", &json!({}));
    assert_eq!(caller.call(&message).await.body()["status"], "succeeded");
    let connection = connect(&url).await;
    for (exchange, key) in
        [(INVOCATIONS, "other"), (INVOCATIONS, "product"), ("", "okta.invocations.other.bulk")]
    {
        let channel = connection.create_channel().await.unwrap();
        let options = BasicPublishOptions::default();
        let _ = channel
            .basic_publish(exchange.into(), key.into(), options, b"{}", message.properties.clone())
            .await;
        // A refusal closes the channel.
        until("the broker refuses it", async || !channel.status().connected()).await;
    }
    assert_eq!(world.org.requests(), 1);
}
