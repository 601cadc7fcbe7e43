//! Messages of release 0.1, by its producers and by its workers, and some of a later one: each is answered.
//!
//! `fixtures/0.1.json` is not changed any more: whatever lies in a queue or a delay tier while workers are
//! replaced must be understood by those that come.

use std::collections::BTreeMap;

use lapin::types::{AMQPValue, FieldTable};
use okta_worker::domain::topology::DEAD;
use serde::Deserialize;
use serde_json::Value;

use super::caller::{Caller, Message, text};
use super::node::{User, ours};
use super::world::World;

#[derive(Deserialize)]
struct Fixture {
    what: String,
    by: By,
    exchange: String,
    key: String,
    properties: Known,
    headers: BTreeMap<String, Value>,
    body: Value,
    answer: Expected,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum By {
    Operator,
    Worker,
}

#[derive(Deserialize)]
struct Known {
    message_id: String,
    timestamp: Option<u64>,
}

#[derive(Deserialize, PartialEq, Eq, Debug)]
struct Expected {
    status: String,
    effect: String,
    code: Option<String>,
}

fn header(value: &Value) -> AMQPValue {
    match value {
        Value::Bool(it) => AMQPValue::Boolean(*it),
        Value::Number(it) => AMQPValue::LongLongInt(it.as_i64().expect("it is whole")),
        Value::String(it) => text(it),
        other => panic!("no header has this: {other}"),
    }
}

fn message(fixture: &Fixture) -> Message {
    let mut message = Message::of(&fixture.key, fixture.body.to_string());
    message.exchange.clone_from(&fixture.exchange);
    for (name, value) in &fixture.headers {
        message = message.header(name, header(value));
    }
    message.id(&fixture.properties.message_id).answer_to("answers").with(|mut properties| {
        properties = properties.with_delivery_mode(2);
        if let Some(timestamp) = fixture.properties.timestamp {
            properties = properties.with_timestamp(timestamp);
        }
        match fixture.by {
            By::Worker => properties.with_user_id("worker".into()),
            By::Operator => properties,
        }
    })
}

#[tokio::test]
async fn what_release_0_1_has_left_in_queues_and_tiers_is_understood() {
    if ours().is_none() {
        return; // copies are by the worker's own broker user
    }
    let fixtures: Vec<Fixture> =
        serde_json::from_str(include_str!("fixtures/0.1.json")).expect("they are read");
    let world = World::new().await;
    world.worker().stop(); // the queues are there
    let caller = world.caller().await;
    caller.queue("answers", FieldTable::default(), None).await;
    let fellow = Caller::new(&world.place.url(User::Worker)).await;
    for fixture in &fixtures {
        let sender = if fixture.by == By::Worker { &fellow } else { &caller };
        sender.send(&message(fixture)).await;
    }
    let _worker = world.worker();
    let mut answers = BTreeMap::new();
    while answers.len() < fixtures.len() {
        let body = caller.take("answers").await.body();
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let (status, effect) = (text(&body["status"]), text(&body["effect"]));
        let answer = Expected {
            status: status.expect("an answer has a status"),
            effect: effect.expect("an answer has an effect"),
            code: text(&body["error"]["code"]),
        };
        answers.insert(text(&body["id"]).expect("an answer has an id"), answer);
    }
    for fixture in fixtures {
        assert_eq!(answers.get(&fixture.properties.message_id), Some(&fixture.answer), "{}", fixture.what);
    }
    assert_eq!(caller.count(DEAD).await, Some(0), "nothing is parked");
}
