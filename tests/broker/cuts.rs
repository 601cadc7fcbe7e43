//! The network between worker and broker breaks, in each way that networks have.

use std::time::{Duration, Instant};

use lapin::types::FieldTable;
use serde_json::json;

use super::caller::{Caller, Message, until};
use super::child::WAIT_MAX;
use super::node::ours;
use super::proxy::{Direction, Door, Flow, Which};
use super::world::{BROKER_URL, Start, World};

const BULK: &str = "okta.invocations.prod.bulk";

/// What the worker calls its two connections.
const CONSUMING: Which = Which::Saying("okta-worker consuming");
const PUBLISHING: Which = Which::Saying("okta-worker publishing");

/// Far below the time after which a broker that does not count the workers is doubted.
const NOTICED_WITHIN: Duration = Duration::from_secs(20);

/// The same way with a heartbeat of two seconds.
fn heartbeat(url: &str) -> String {
    format!("{url}?heartbeat=2")
}

async fn create_groups(caller: &Caller, count: usize) {
    for number in 0..count {
        let id = format!("g{number}");
        let message = Message::new("prod.bulk", "create_group", &json!({ "name": id })).id(&id);
        caller.send(&message.answer_to("answers")).await;
    }
}

/// The ids of the next answers, so many of them, all of which succeeded.
async fn succeeded(caller: &Caller, count: usize) -> Vec<String> {
    let mut ids = Vec::new();
    while ids.len() < count {
        let body = caller.take("answers").await.body();
        assert_eq!(body["status"], "succeeded", "{body}");
        ids.push(body["id"].as_str().expect("an answer has an id").to_owned());
    }
    ids.sort();
    ids.dedup();
    ids
}

#[tokio::test]
async fn a_cut_while_the_prefetch_is_full_has_no_stale_delivery_executed() {
    const MESSAGES: usize = 30;
    let Some(node) = ours() else { return };
    let world = World::with(&["--limit", "groups=20", "--window", "8"]).await;
    let (proxy, url) = world.proxied(node);
    let window = ("OKTA_WORKER__CONNECTIONS__PROD__RATE_LIMIT_WINDOW", "8s");
    let _worker = world.worker_with(&Start { variables: &[(BROKER_URL, &*url), window], ..Start::default() });
    let caller = world.caller().await;
    caller.queue("answers", FieldTable::default(), None).await;
    create_groups(&caller, MESSAGES).await;
    // Of those in hand none is on its way to Okta, so that each is either done or must not be begun.
    until("the window is spent and the rest wait", async || {
        let answered = caller.count("answers").await.expect("it is declared") as usize;
        let waiting = node.unacknowledged(&world.place, BULK);
        answered > 0 && answered + waiting == MESSAGES && world.org.requests() as usize == answered
    })
    .await;
    proxy.cut(Which::All);
    assert_eq!(succeeded(&caller, MESSAGES).await.len(), MESSAGES);
    until("all are acknowledged", async || node.unacknowledged(&world.place, BULK) == 0).await;
    assert_eq!(world.org.effects(), ["group.created"; MESSAGES]);
    assert_eq!(world.org.requests() as usize, MESSAGES, "each was sent once");
    assert!(caller.look("answers").await.is_none());
}

#[tokio::test]
async fn a_network_that_swallows_all_is_noticed_by_missing_heartbeats_and_nothing_is_done_twice() {
    let Some(node) = ours() else { return };
    let world = World::with(&["--latency", "1000"]).await;
    let (proxy, url) = world.proxied(node);
    let mut worker =
        world.worker_with(&Start { variables: &[(BROKER_URL, &*heartbeat(&url))], ..Start::default() });
    let caller = world.caller().await;
    caller.queue("answers", FieldTable::default(), None).await;
    create_groups(&caller, 3).await;
    until("they are in flight", async || world.org.requests() == 3).await;
    // No byte and no end of a connection arrives any more, and nobody can connect.
    proxy.flow(Which::All, Flow::Hold, Flow::Hold);
    proxy.door(Door::Refuse);
    let held = Instant::now();
    until("the worker notices", async || !worker.is_ready()).await;
    println!("noticed after {:?}", held.elapsed());
    assert!(held.elapsed() < NOTICED_WITHIN, "it took {:?}", held.elapsed());
    until("the broker notices", async || node.unacknowledged(&world.place, BULK) == 0).await;
    proxy.pass();
    worker.await_ready();
    answered_at_least_once(&caller, 3).await;
    until("all are acknowledged", async || {
        caller.count(BULK).await == Some(0) && node.unacknowledged(&world.place, BULK) == 0
    })
    .await;
    assert_eq!(world.org.effects(), ["group.created"; 3]);
}

/// Waits until each of the first ids has succeeded. A repetition tells the same id whatever it says.
async fn answered_at_least_once(caller: &Caller, count: usize) {
    let mut left: Vec<_> = (0..count).map(|number| format!("g{number}")).collect();
    while !left.is_empty() {
        let body = caller.take("answers").await.body();
        left.retain(|id| !(body["id"] == **id && body["status"] == "succeeded"));
    }
}

#[tokio::test]
async fn where_acknowledgements_are_lost_and_deliveries_arrive_each_is_in_effect_once() {
    let Some(node) = ours() else { return };
    let world = World::new().await;
    let (proxy, url) = world.proxied(node);
    let mut worker =
        world.worker_with(&Start { variables: &[(BROKER_URL, &*heartbeat(&url))], ..Start::default() });
    let caller = world.caller().await;
    caller.queue("answers", FieldTable::default(), None).await;
    proxy.flow(CONSUMING, Flow::Swallow, Flow::Pass);
    create_groups(&caller, 3).await;
    assert_eq!(succeeded(&caller, 3).await.len(), 3);
    until("the broker misses the heartbeats and the worker hears of it", async || !worker.is_ready()).await;
    proxy.pass();
    worker.await_ready();
    until("they are delivered again and acknowledged", async || {
        caller.count(BULK).await == Some(0) && node.unacknowledged(&world.place, BULK) == 0
    })
    .await;
    assert_eq!(world.org.effects(), ["group.created"; 3]);
    while let Some(reply) = caller.look("answers").await {
        let id = reply.body()["id"].as_str().map(str::to_owned).expect("an answer has an id");
        assert_eq!(
            reply.properties.message_id().as_ref().map(|id| id.as_str()),
            Some(&*format!("{id}.result"))
        );
    }
}

/// Cuts the publishing connection after each of these numbers of bytes, with an answer on its way.
async fn cut_after_each(cuts: impl Iterator<Item = usize>, surely: usize) {
    let Some(node) = ours() else { return };
    let world = World::new().await;
    let (proxy, url) = world.proxied(node);
    let mut worker = world.worker_with(&Start { variables: &[(BROKER_URL, &*url)], ..Start::default() });
    let caller = world.caller().await;
    caller.queue("answers", FieldTable::default(), None).await;
    for bytes in cuts {
        worker.await_ready();
        let before = proxy.cut_so_far();
        proxy.cut_after(PUBLISHING, Direction::Out, bytes);
        let id = format!("after {bytes}");
        let message = Message::new("prod", "get_user", &json!({"user_id": "nobody@example.com"}));
        caller.send(&message.id(&id).answer_to("answers")).await;
        let deadline = Instant::now() + WAIT_MAX;
        loop {
            // The one before may be answered twice, because it was delivered twice.
            let reply = caller.take("answers").await;
            let (body, message_id) = (reply.body(), reply.properties.message_id().clone());
            let answered = body["id"].as_str().expect("an answer has an id");
            assert_eq!(message_id.as_ref().map(|id| id.as_str()), Some(&*format!("{answered}.result")));
            assert_eq!(reply.error().0, "not_found");
            if answered == id {
                break;
            }
            assert!(Instant::now() < deadline, "`{id}` is not answered");
        }
        if bytes <= surely {
            until("the connection was cut", async || proxy.cut_so_far() > before).await;
            until("the worker noticed", async || worker.lost_so_far() >= proxy.cut_so_far()).await;
        }
        proxy.pass();
    }
    until("nothing is left", async || {
        caller.count("okta.invocations.prod.interactive").await == Some(0)
            && node.unacknowledged(&world.place, "okta.invocations.prod.interactive") == 0
    })
    .await;
}

/// A publish of such an answer is longer.
const PUBLISH_BYTES_MIN: usize = 600;

#[tokio::test]
async fn a_cut_anywhere_in_a_publish_loses_no_answer() {
    // In the frame of the method, of the properties and of the body, and at the edges of a frame.
    cut_after_each([0, 1, 7, 8, 60, 200, 450, 600].into_iter(), PUBLISH_BYTES_MIN).await;
}

#[tokio::test]
#[ignore = "takes some minutes"]
async fn a_cut_after_each_number_of_bytes_of_a_publish_loses_no_answer() {
    cut_after_each((0..1000).step_by(9), PUBLISH_BYTES_MIN).await;
}
