//! The broker does not know the worker any more, or not yet.

use std::time::{Duration, Instant};

use serde_json::json;

use super::caller::{Message, until};
use super::child::{LOOK_AGAIN, WAIT_MAX};
use super::node::{Node, ours};
use super::proxy::{Proxy, Which};
use super::world::{BROKER_URL, Start, Worker, World};

/// The shortest wait between two tries to reach the broker.
const WAIT_MIN: Duration = Duration::from_millis(250);

/// How often the worker has said that the broker does not let it in.
fn refusals(worker: &Worker) -> usize {
    worker.process.stderr().matches("ACCESS_REFUSED").count()
}

/// Waits until so many more tries were refused, and sees that each came after a wait.
fn refused_without_haste(worker: &mut Worker, proxy: &Proxy) {
    const TRIES: usize = 3;
    let (begun, before) = (Instant::now(), refusals(worker));
    while refusals(worker) < before + TRIES {
        assert!(worker.process.ended().is_none(), "it ended: {}", worker.process.stderr());
        assert!(begun.elapsed() < WAIT_MAX, "it does not try: {}", worker.process.stderr());
        std::thread::sleep(LOOK_AGAIN);
    }
    assert!(begun.elapsed() >= WAIT_MIN * 2, "{TRIES} tries in {:?}", begun.elapsed());
    assert!(!worker.is_ready());
    assert!(proxy.accepted() <= 2 + refusals(worker) * 2, "it connects more often than it says");
}

#[tokio::test]
async fn a_password_that_is_wrong_at_first_and_changes_later_is_waited_for() {
    let Some(node) = ours() else { return };
    let world = World::new().await;
    let (proxy, _) = world.proxied(node);
    let (user, url) = stranger(node, &world, &proxy);
    let change = |password: &str| node.run("ctl", &["-q", "change_password", &user, password]);
    let mut worker = world.start(&Start { variables: &[(BROKER_URL, &*url)], ..Start::default() });
    refused_without_haste(&mut worker, &proxy);
    change("hunter2-planted");
    worker.await_ready();
    let mut caller = world.caller().await;
    let message = Message::new("prod", "list_groups", &json!({"limit": 1}));
    assert_eq!(caller.call(&message).await.body()["status"], "succeeded");
    change("hunter3-planted");
    assert_eq!(caller.call(&message).await.body()["status"], "succeeded", "who is inside stays");
    proxy.cut(Which::All);
    until("the worker sees it", async || !worker.is_ready()).await;
    refused_without_haste(&mut worker, &proxy);
    change("hunter2-planted");
    worker.await_ready();
    assert_eq!(caller.call(&message).await.body()["status"], "succeeded");
    assert!(!worker.process.stderr().contains("hunter"), "{}", worker.process.stderr());
}

/// A broker user whom the broker knows by another password, and the way in through the proxy.
fn stranger(node: &Node, world: &World, proxy: &Proxy) -> (String, String) {
    let url = world.place.url_with(node, [".*"; 3]);
    let user =
        url.strip_prefix("amqp://").and_then(|rest| rest.split_once(':')).expect("a name").0.to_owned();
    let url = url.replace(&format!(":{user}@"), ":hunter2-planted@");
    let url = url.replace(&format!(":{}/", node.port()), &format!(":{}/", proxy.port()));
    (user, url)
}

#[tokio::test]
async fn a_token_that_okta_refuses_shows_before_the_first_message() {
    let world = World::new().await;
    let variables = &[("TEST_OKTA_TOKEN", "a-token-that-nobody-made")];
    let worker = world.worker_with(&Start { variables, ..Start::default() });
    until("the log says so", async || worker.process.stderr().contains("paused")).await;
    let said = worker.readiness();
    assert!(said.contains("prod") && said.contains("unauthorized"), "{said}");
    let paused = "okta_worker_connection_paused{connection=\"prod\",reason=\"unauthorized\"} 1";
    assert!(worker.metrics().contains(paused));
    assert!(worker.process.stderr().contains("Okta answered 401"), "{}", worker.process.stderr());
    worker.stop();
}
