//! A broker of several nodes: each stands for one here, by a proxy of its own.

use lapin::types::FieldTable;
use serde_json::json;

use super::caller::{Caller, Message, until};
use super::child::{command, free_port};
use super::node::{Node, User, ours};
use super::proxy::{Door, Proxy, Which};
use super::world::{Start, World};

const URLS: &str = "OKTA_WORKER__BROKER__URLS";

/// Two nodes, and a third that is not there, which comes first.
struct Nodes {
    proxies: [Proxy; 2],
    urls: String,
}

impl Nodes {
    fn of(world: &World, node: &Node) -> Self {
        let absent =
            world.place.url(User::Worker).replace(&node.port().to_string(), &free_port().to_string());
        let [(one, first), (two, second)] = [(); 2].map(|()| world.proxied(node));
        Self { proxies: [one, two], urls: format!("{absent},{first},{second}") }
    }
}

async fn answered(caller: &mut Caller) {
    until("it is answered", async || {
        let reply = caller.call(&Message::new("prod", "list_groups", &json!({"limit": 1}))).await;
        reply.body()["status"] == "succeeded"
    })
    .await;
}

#[tokio::test]
async fn a_worker_tries_the_nodes_in_turn_and_goes_to_the_next_when_one_is_gone() {
    let Some(node) = ours() else { return };
    let world = World::new().await;
    let Nodes { proxies: [one, two], urls } = Nodes::of(&world, node);
    let mut worker = world.worker_with(&Start { variables: &[(URLS, &urls)], ..Start::default() });
    assert_eq!(
        (one.accepted(), two.accepted()),
        (2, 0),
        "both its connections go to the first that is there"
    );
    let mut caller = world.caller().await;
    answered(&mut caller).await;
    one.door(Door::Refuse);
    one.cut(Which::All);
    until("it has gone to the next", async || two.accepted() >= 2).await;
    worker.await_ready();
    answered(&mut caller).await;
    // One that accepts and says nothing is gone, too.
    one.door(Door::Silent);
    two.door(Door::Refuse);
    two.cut(Which::All);
    until("it has tried the first", async || one.accepted() >= 3).await;
    two.door(Door::Open);
    worker.await_ready();
    answered(&mut caller).await;
    let stderr = worker.process.stderr();
    assert!(!stderr.contains("worker:worker") && !stderr.contains("amqp://"), "{stderr}");
    worker.stop();
}

#[tokio::test]
async fn the_other_commands_try_the_nodes_in_turn_too() {
    let Some(node) = ours() else { return };
    let world = World::new().await;
    let worker = world.worker();
    let nodes = Nodes::of(&world, node);
    let caller = world.caller().await;
    caller.queue("answers", FieldTable::default(), None).await;
    let file = world.file("worker.toml");
    std::fs::write(&file, worker.settings()).unwrap();
    let rows = world.file("rows.csv");
    std::fs::write(&rows, "name\nA\nB\n").unwrap();
    let rows = rows.display().to_string();
    let submit = ["submit", &rows, "--connection", "prod", "--subtool", "create_group"];
    for arguments in [&["check"][..], &["dead", "list"], &submit] {
        let mut run = command();
        run.arg("--config").arg(&file).args(arguments).env(URLS, &nodes.urls);
        run.env("TEST_OKTA_TOKEN", super::org::TOKEN).env(super::world::BROKER_URL, "unused");
        let ran = tokio::task::spawn_blocking(move || run.output().unwrap()).await.unwrap();
        let said = [ran.stdout, ran.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
        assert_eq!(ran.status.code(), Some(0), "{arguments:?}: {said}");
    }
    assert!(nodes.proxies[0].accepted() >= 3);
    worker.stop();
}
