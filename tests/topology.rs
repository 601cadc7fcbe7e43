//! The queues as documents: ARCHITECTURE.md and deploy/rabbitmq/definitions.json say what is declared.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::time::Duration;

use okta_worker::domain::ids::ConnectionName;
use okta_worker::domain::topology::{DEAD_MAX, QueueArgument, QueueDefinition, Topology};
use serde_json::{Value, json};

/// The default of `broker.dead_ttl`.
const DEAD_TTL: Duration = Duration::from_secs(14 * 24 * 60 * 60);

fn topology() -> Topology {
    let prod = ConnectionName::parse("prod").expect("a good name");
    Topology::of([&prod].into_iter(), DEAD_TTL, DEAD_MAX)
}

fn text(argument: &QueueArgument) -> String {
    match argument {
        QueueArgument::Text("") => "(default)".to_owned(),
        QueueArgument::Text(text) => (*text).to_owned(),
        QueueArgument::Number(number) => number.to_string(),
    }
}

fn row(queue: &QueueDefinition) -> String {
    let arguments: Vec<_> = queue
        .arguments
        .iter()
        .map(|(name, value)| format!("{} {}", name.trim_start_matches("x-"), text(value)))
        .collect();
    let bindings: Vec<_> = queue
        .bindings
        .iter()
        .map(
            |(exchange, key)| {
                if key.is_empty() { format!("`{exchange}`") } else { format!("`{exchange}` `{key}`") }
            },
        )
        .collect();
    format!("| `{}` | {} | {} |", queue.name, bindings.join(", "), arguments.join(", "))
}

/// The table of queues for a connection `prod`.
fn table() -> String {
    let mut table = String::from("| queue | bound to | arguments |\n|---|---|---|\n");
    for queue in topology().queues {
        writeln!(table, "{}", row(&queue)).expect("a string takes everything");
    }
    table
}

#[test]
fn the_table_in_architecture_is_up_to_date() {
    const FILE: &str = "ARCHITECTURE.md";
    const BEGIN: &str = "<!-- queues: generated -->\n";
    const END: &str = "<!-- /queues -->";
    let document = fs::read_to_string(FILE).expect("ARCHITECTURE.md is there");
    let (head, rest) = document.split_once(BEGIN).expect("the table has a beginning");
    let (there, tail) = rest.split_once(END).expect("the table has an end");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(FILE, format!("{head}{BEGIN}{}{END}{tail}", table())).expect("ARCHITECTURE.md is writable");
    } else {
        assert!(there == table(), "{FILE} is out of date: run `UPDATE_DOCS=1 cargo test --test topology`");
    }
}

#[test]
fn the_definitions_hold_exactly_what_is_declared() {
    let text = fs::read_to_string("deploy/rabbitmq/definitions.json").expect("the file is there");
    let definitions: Value = serde_json::from_str(&text).expect("the file is JSON");
    let by_name = |list: &str| -> BTreeMap<String, Value> {
        let entries = definitions[list].as_array().expect("a list").iter();
        entries.map(|entry| (entry["name"].as_str().expect("a name").to_owned(), entry.clone())).collect()
    };
    let argument = |value: &QueueArgument| match value {
        QueueArgument::Text(text) => json!(text),
        QueueArgument::Number(number) => json!(number),
    };
    let (declared, mut queues, mut exchanges) = (topology(), by_name("queues"), by_name("exchanges"));
    for queue in &declared.queues {
        let there = queues.remove(&queue.name).unwrap_or_else(|| panic!("`{}` is missing", queue.name));
        let arguments: Value =
            queue.arguments.iter().map(|(name, value)| ((*name).to_owned(), argument(value))).collect();
        assert_eq!(there["arguments"], arguments, "{}", queue.name);
        assert_eq!(
            (&there["durable"], &there["auto_delete"]),
            (&json!(true), &json!(false)),
            "{}",
            queue.name
        );
    }
    for exchange in &declared.exchanges {
        let there =
            exchanges.remove(&exchange.name).unwrap_or_else(|| panic!("`{}` is missing", exchange.name));
        assert_eq!(there["type"], exchange.kind.as_str(), "{}", exchange.name);
        assert_eq!(
            there["arguments"]["alternate-exchange"].as_str(),
            exchange.alternate,
            "{}",
            exchange.name
        );
    }
    assert!(queues.is_empty() && exchanges.is_empty(), "nobody declares {queues:?} {exchanges:?}");
    let mut bindings: Vec<_> = definitions["bindings"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|b| {
            [&b["source"], &b["routing_key"], &b["destination"]]
                .map(|t| t.as_str().expect("a text").to_owned())
        })
        .collect();
    let mut wanted: Vec<_> = declared
        .queues
        .iter()
        .flat_map(|q| {
            q.bindings.iter().map(|(exchange, key)| [exchange.clone(), key.clone(), q.name.clone()])
        })
        .collect();
    bindings.sort();
    wanted.sort();
    assert_eq!(bindings, wanted);
}
