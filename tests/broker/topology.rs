//! What is declared, and what is said when it cannot be.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use lapin::types::{AMQPValue, FieldTable};
use okta_worker::domain::ids::ConnectionName;
use okta_worker::domain::topology::{DEAD_MAX, DELIVERY_LIMIT, QueueArgument, Topology, UNDELIVERED};
use serde_json::{Value, json};

use super::caller::{Message, text};
use super::node::ours;
use super::world::{Start, World};

const PASSIVE: Start<'_> =
    Start { settings: "", subtools: "", variables: &[("OKTA_WORKER__BROKER__DECLARE", "false")] };

/// The last line of the worker's own that one which ended has written: its libraries may speak after it.
fn last_line(stderr: &str) -> String {
    let mut lines = stderr.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let own = |line: &Value| line["target"].as_str().is_some_and(|target| target.starts_with("okta_worker"));
    let line = lines.rfind(own).unwrap_or_else(|| panic!("no line of ours: {stderr}"));
    line["message"].as_str().expect("a line has a message").to_owned()
}

#[tokio::test]
async fn a_queue_with_other_arguments_is_named_with_the_argument_and_ends_the_worker() {
    let world = World::new().await;
    let caller = world.caller().await;
    let mut arguments = FieldTable::default();
    for (name, value) in [
        ("x-queue-type", text("quorum")),
        ("x-dead-letter-exchange", text(UNDELIVERED)),
        ("x-dead-letter-strategy", text("at-least-once")),
        ("x-overflow", text("reject-publish")),
        ("x-delivery-limit", AMQPValue::LongLongInt(DELIVERY_LIMIT + 1)),
    ] {
        arguments.insert(name.into(), value);
    }
    caller.queue("okta.invocations.prod.bulk", arguments, None).await;
    let mut worker = world.start(&Start::default());
    assert_eq!(worker.process.wait().code(), Some(1));
    let said = last_line(&worker.process.stderr());
    assert!(said.contains("`okta.invocations.prod.bulk`") && said.contains("`x-delivery-limit`"), "{said}");
}

#[tokio::test]
async fn a_worker_that_must_not_declare_says_what_is_missing_and_else_works() {
    let world = World::new().await;
    let mut worker = world.start(&PASSIVE);
    assert_eq!(worker.process.wait().code(), Some(1));
    let said = last_line(&worker.process.stderr());
    assert!(said.contains("is missing") && said.contains("broker.declare"), "{said}");
    world.worker().stop();
    let _worker = world.worker_with(&PASSIVE);
    let mut caller = world.caller().await;
    let reply = caller.call(&Message::new("prod", "list_groups", &json!({}))).await;
    assert_eq!(reply.body()["status"], "succeeded");
}

/// Name, then arguments by name.
type Declared = BTreeMap<String, BTreeMap<String, Value>>;

fn expected(topology: &Topology) -> (Declared, Declared, BTreeSet<[String; 3]>) {
    let value = |argument: &QueueArgument| match argument {
        QueueArgument::Text(text) => json!(text),
        QueueArgument::Number(number) => json!(number),
    };
    let queues = topology.queues.iter().map(|queue| {
        let arguments = queue.arguments.iter().map(|(name, argument)| ((*name).to_owned(), value(argument)));
        (queue.name.clone(), arguments.collect())
    });
    let exchanges = topology.exchanges.iter().map(|exchange| {
        let alternate = exchange.alternate.map(|name| ("alternate-exchange".to_owned(), json!(name)));
        let kind = ("type".to_owned(), json!(exchange.kind.as_str()));
        (exchange.name.clone(), alternate.into_iter().chain([kind]).collect())
    });
    let bindings = topology.queues.iter().flat_map(|queue| {
        queue.bindings.iter().map(|(exchange, key)| [exchange.clone(), queue.name.clone(), key.clone()])
    });
    (queues.collect(), exchanges.collect(), bindings.collect())
}

/// A list of the broker's, whose arguments are tables or lists of `[name, type, value]`.
fn arguments(listed: &Value) -> BTreeMap<String, Value> {
    match listed {
        Value::Object(table) => table.clone().into_iter().collect(),
        Value::Array(list) => list
            .iter()
            .map(|argument| (argument[0].as_str().expect("a name").to_owned(), argument[2].clone()))
            .collect(),
        other => panic!("no arguments: {other}"),
    }
}

fn field<'a>(row: &'a Value, name: &str) -> &'a str {
    row[name].as_str().unwrap_or_else(|| panic!("no {name} in {row}"))
}

#[tokio::test]
async fn what_a_worker_declares_is_the_topology() {
    let Some(node) = ours() else { return };
    let world = World::new().await;
    let _worker = world.worker();
    let vhost = world.place.vhost.as_deref().expect("a node of ours has virtual hosts");
    let list = |command: &str, columns: &[&str]| -> Vec<Value> {
        let arguments = [&["-q", command, "-p", vhost, "--formatter", "json"], columns].concat();
        serde_json::from_str(&node.run("ctl", &arguments)).expect("it is JSON")
    };
    let names = ["other", "prod"].map(|name| ConnectionName::parse(name).unwrap());
    let topology = Topology::of(names.iter(), Duration::from_secs(14 * 86_400), DEAD_MAX);
    let (queues, exchanges, bindings) = expected(&topology);
    // The queue that signals are heard from is the worker's own and goes with it, and so does what it tries out.
    let is_lasting = |name: &str| !name.starts_with("amq.gen") && !name.contains(".probe-");
    let found: Declared = list("list_queues", &["name", "arguments"])
        .iter()
        .filter(|row| is_lasting(field(row, "name")))
        .map(|row| (field(row, "name").to_owned(), arguments(&row["arguments"])))
        .collect();
    assert_eq!(found, queues);
    let found: Declared = list("list_exchanges", &["name", "type", "arguments"])
        .iter()
        .filter(|row| field(row, "name").starts_with("okta."))
        .map(|row| {
            let mut known = arguments(&row["arguments"]);
            known.insert("type".to_owned(), row["type"].clone());
            (field(row, "name").to_owned(), known)
        })
        .collect();
    assert_eq!(found, exchanges);
    let found: BTreeSet<_> = list("list_bindings", &["source_name", "destination_name", "routing_key"])
        .iter()
        .filter(|row| !field(row, "source_name").is_empty() && is_lasting(field(row, "destination_name")))
        .map(|row| ["source_name", "destination_name", "routing_key"].map(|name| field(row, name).to_owned()))
        .collect();
    assert_eq!(found, bindings);
}

#[test]
fn the_definitions_for_import_are_the_topology() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/rabbitmq/definitions.json");
    let Ok(text) = std::fs::read_to_string(file) else {
        return println!("not run: there is no {file}");
    };
    let definitions: Value = serde_json::from_str(&text).expect("it is JSON");
    let rows = |name: &str| definitions[name].as_array().cloned().unwrap_or_default();
    // The connections are whatever the file's work queues say.
    let names: BTreeSet<_> = rows("queues")
        .iter()
        .filter_map(|row| {
            field(row, "name").strip_prefix("okta.invocations.")?.split('.').next().map(str::to_owned)
        })
        .collect();
    let names: Vec<_> = names.iter().map(|name| ConnectionName::parse(name).unwrap()).collect();
    let topology = Topology::of(names.iter(), Duration::from_secs(14 * 86_400), DEAD_MAX);
    let (queues, exchanges, bindings) = expected(&topology);
    let found: Declared = rows("queues")
        .iter()
        .map(|row| (field(row, "name").to_owned(), arguments(&row["arguments"])))
        .collect();
    assert_eq!(found, queues);
    let found: Declared = rows("exchanges")
        .iter()
        .map(|row| {
            let mut known = arguments(&row["arguments"]);
            known.insert("type".to_owned(), row["type"].clone());
            (field(row, "name").to_owned(), known)
        })
        .collect();
    assert_eq!(found, exchanges);
    let found: BTreeSet<_> = rows("bindings")
        .iter()
        .map(|row| ["source", "destination", "routing_key"].map(|name| field(row, name).to_owned()))
        .collect();
    assert_eq!(found, bindings);
}
