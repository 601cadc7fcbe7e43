//! What is refused, with which code and path, and that it neither reaches Okta nor disturbs its neighbours.

use lapin::types::{AMQPValue, FieldTable};
use okta_worker::domain::topology::{DEAD, INVOCATIONS, UNCLAIMED};
use serde_json::{Value, json};

use super::caller::{Caller, Message, Reply, text, texts};
use super::world::World;

/// A message, and the code, path and words of its refusal.
struct Row {
    what: &'static str,
    message: Message,
    code: &'static str,
    path: Option<&'static str>,
    says: &'static str,
}

fn row(
    what: &'static str,
    message: Message,
    code: &'static str,
    path: impl Into<Option<&'static str>>,
    says: &'static str,
) -> Row {
    Row { what, message, code, path: path.into(), says }
}

fn ask(subtool: &str, arguments: Value) -> Message {
    Message::new("prod", subtool, &arguments)
}

fn raw(body: impl Into<Vec<u8>>) -> Message {
    Message::of("prod", body)
}

fn rows() -> Vec<Row> {
    let huge = json!({"subtool": "get_user", "options": {"reason": "x".repeat(2 * 1024 * 1024)}});
    let deep = format!(r#"{{"subtool":"get_user","arguments":{}"#, "[".repeat(100_000));
    let user = || ask("get_user", json!({"user_id": "jane@example.com"}));
    let invalid = "invalid_message";
    let arguments = "invalid_arguments";
    let id = "arguments.user_id";
    vec![
        row("not UTF-8", raw([b'{', 0xff, 0xfe]), invalid, None, "not UTF-8"),
        row("not JSON", raw("{hello"), invalid, None, "not JSON"),
        row("nothing", raw(""), invalid, None, "not a JSON object"),
        row("an array", raw("[]"), invalid, None, "not a JSON object"),
        row("two MiB", raw(huge.to_string()), invalid, None, "bytes"),
        row("100,000 brackets", raw(deep), invalid, None, "nests deeper"),
        row("brackets alone", raw("[".repeat(100_000)), invalid, None, "nests deeper"),
        row(
            "an unknown field",
            raw(r#"{"subtool":"list_groups","priority":9}"#),
            invalid,
            "priority",
            "priority",
        ),
        row("no subtool", raw(r#"{"arguments":{}}"#), invalid, "subtool", "subtool"),
        row(
            "an unknown option",
            user().options(json!({"retries": 3})),
            invalid,
            "options.retries",
            "retries",
        ),
        row(
            "a deadline in words",
            user().options(json!({"deadline": "soon"})),
            invalid,
            "options.deadline",
            "RFC 3339",
        ),
        row("a misspelt subtool", ask("crate_user", json!({})), "unknown_subtool", "subtool", "create_user"),
        row("a missing argument", ask("get_user", json!({})), arguments, id, "user_id"),
        row("a wrong type", ask("get_user", json!({"user_id": 3})), arguments, id, ""),
        row(
            "an unknown argument",
            ask("get_user", json!({"user_id": "a@b.c", "nonsense": 1})),
            arguments,
            "arguments.nonsense",
            "nonsense",
        ),
        row("an empty id", ask("get_user", json!({"user_id": ""})), arguments, id, ""),
        row("oneself", ask("get_user", json!({"user_id": "me"})), arguments, id, ""),
        row(
            "a path",
            ask("get_group", json!({"group_id": "../groups/x"})),
            arguments,
            "arguments.group_id",
            "",
        ),
        row("a long login", ask("get_user", json!({"user_id": "x".repeat(500)})), arguments, id, ""),
        row(
            "an unknown connection",
            Message::new("nobody.bulk", "list_groups", &json!({})),
            "unknown_connection",
            "properties.routing_key",
            "`nobody`",
        ),
        row(
            "an unknown lane",
            Message::new("prod.vip", "list_groups", &json!({})),
            invalid,
            "properties.routing_key",
            "`vip`",
        ),
        row(
            "a subtool that is not enabled",
            Message::new("other", "create_group", &json!({"name": "x"})),
            "not_permitted",
            "subtool",
            "`other` does not enable `create_group`",
        ),
        row(
            "a deadline in the past",
            user().options(json!({"deadline": "2020-01-01T00:00:00Z"})),
            "deadline_exceeded",
            "options.deadline",
            "2020",
        ),
        row(
            "a message from long ago that somebody waited for",
            user().with(|properties| properties.with_timestamp(1_600_000_000)),
            "deadline_exceeded",
            "options.deadline",
            "2020",
        ),
        row(
            "a compressed body",
            user().with(|properties| properties.with_content_encoding("gzip".into())),
            invalid,
            "properties.content_encoding",
            "`gzip`",
        ),
    ]
}

/// The id of a group of the directory.
async fn engineering(caller: &mut Caller) -> String {
    let found = caller.ask("prod", "list_groups", &json!({"q": "Engineering"})).await;
    found["items"][0]["id"].as_str().expect("there are engineers").to_owned()
}

fn refused(reply: &Reply, code: &str, path: &str) {
    assert_eq!(reply.error(), (code.to_owned(), Some(path.to_owned())), "{}", reply.body());
    assert_eq!(reply.body()["effect"], "none");
}

#[tokio::test]
async fn what_is_refused_reaches_neither_okta_nor_its_neighbours() {
    let world = World::new().await;
    let _worker = world.worker();
    let mut caller = world.caller().await;
    let neighbour = json!({"group_id": engineering(&mut caller).await});
    for Row { what, message, code, path, says } in rows() {
        let before = world.org.requests();
        let reply = caller.call(&message.id(what)).await;
        let body = reply.body();
        assert_eq!(reply.error(), (code.to_owned(), path.map(str::to_owned)), "{what}: {body}");
        let said = body["error"]["message"].as_str().expect("an error has a message");
        assert!(said.contains(says), "{what}: {body}");
        let rest = (&body["status"], &body["effect"], &body["okta_calls"], &body["rate_limit"]);
        assert_eq!(rest, (&json!("failed"), &json!("none"), &json!(0), &Value::Null), "{what}");
        assert_eq!(body["id"], what);
        assert_eq!(world.org.requests(), before, "{what}");
        caller.ask("prod", "get_group", &neighbour).await;
    }
    assert_eq!(caller.count(DEAD).await, Some(0), "who can be told needs no parking");
    assert!(world.org.effects().is_empty());
}

#[tokio::test]
async fn results_never_go_into_the_workers_own_queues() {
    let world = World::new().await;
    let _worker = world.worker();
    let caller = world.caller().await;
    for own in [DEAD, "okta.invocations.other.bulk", "okta.undelivered"] {
        caller.send(&ask("list_groups", json!({})).id(own).answer_to(own)).await;
        let reply = caller.take(UNCLAIMED).await;
        assert_eq!(reply.body()["id"], own);
        refused(&reply, "not_permitted", "properties.reply_to");
        assert_eq!(caller.count(own).await, Some(0), "{own}");
    }
    assert_eq!(world.org.requests(), 0);
}

#[tokio::test]
async fn a_one_time_secret_is_not_minted_when_there_is_nowhere_to_send_it() {
    let world = World::new().await;
    let _worker = world.worker();
    let caller = world.caller().await;
    for (subtool, arguments) in [
        ("activate_user", json!({"user_id": "sam.admin@example.com", "send_email": false})),
        ("reset_user_password", json!({"user_id": "sam.admin@example.com", "send_email": false})),
        ("expire_user_password", json!({"user_id": "sam.admin@example.com", "temp_password": true})),
    ] {
        caller.send(&ask(subtool, arguments)).await;
        let reply = caller.take(UNCLAIMED).await;
        assert_eq!(reply.body()["subtool"], subtool);
        refused(&reply, "invalid_message", "properties.reply_to");
    }
    assert_eq!((world.org.requests(), world.org.effects().len()), (0, 0));
}

#[tokio::test]
async fn a_copy_in_another_connections_queue_is_not_permitted() {
    let world = World::new().await;
    let _worker = world.worker();
    let mut caller = world.caller().await;
    caller.queue("answers", FieldTable::default(), None).await;
    let group = engineering(&mut caller).await;
    for header in ["CC", "BCC"] {
        let before = world.org.requests();
        let message = ask("get_group", json!({"group_id": group})).id(header).answer_to("answers");
        caller.send(&message.header(header, texts(&["other.bulk"]))).await;
        let mut replies = [caller.take("answers").await, caller.take("answers").await];
        replies.sort_by_key(|reply| reply.body()["connection"].to_string());
        let [copy, original] = replies;
        assert_eq!(
            (&copy.body()["connection"], &original.body()["connection"]),
            (&json!("other"), &json!("prod"))
        );
        refused(&copy, "not_permitted", "properties.routing_key");
        assert_eq!(original.body()["status"], "succeeded", "{header}");
        assert_eq!(world.org.requests(), before + 1, "{header}");
    }
}

#[tokio::test]
async fn what_a_callers_own_queue_dead_letters_is_not_permitted() {
    let world = World::new().await;
    let _worker = world.worker();
    let caller = world.caller().await;
    caller.queue("answers", FieldTable::default(), None).await;
    let mut arguments = FieldTable::default();
    arguments.insert("x-message-ttl".into(), AMQPValue::LongInt(1));
    arguments.insert("x-dead-letter-exchange".into(), text(INVOCATIONS));
    arguments.insert("x-dead-letter-routing-key".into(), text("other.interactive"));
    caller.queue("mine", arguments, None).await;
    let message = Message { exchange: String::new(), ..Message::new("mine", "list_groups", &json!({})) };
    caller.send(&message.answer_to("answers")).await;
    let reply = caller.take("answers").await;
    refused(&reply, "not_permitted", "properties.headers.x-death");
    assert_eq!(world.org.requests(), 0);
}

#[tokio::test]
async fn an_unreadable_message_that_names_nobody_is_kept_as_it_came() {
    let world = World::new().await;
    let _worker = world.worker();
    let caller = world.caller().await;
    let body = [b'{', 0xff, b'}'];
    caller.send(&raw(body).id("broken").header("mine", text("not kept"))).await;
    let parked = caller.take(DEAD).await;
    assert_eq!(parked.bytes, body);
    assert_eq!(parked.header_text("okta-reason").as_deref(), Some("unreadable"));
    assert_eq!(parked.header_text("okta-routing-key").as_deref(), Some("prod"));
    assert_eq!(parked.properties.message_id().as_ref().map(|id| id.as_str()), Some("broken"));
    let reply = caller.take(UNCLAIMED).await;
    assert_eq!((reply.error().0.as_str(), reply.key.as_str()), ("invalid_message", "prod.-.failed"));
}
