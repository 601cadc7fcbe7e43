//! What a broker does when work takes too long or memory runs out.

use std::time::{Duration, Instant};

use lapin::types::FieldTable;
use serde_json::json;
use tokio::time::sleep;

use super::caller::{Message, until};
use super::child::free_port;
use super::node::{Alarm, Alone, Place, alone};
use super::proxy::{Flow, Proxy, Which};
use super::world::{Start, World};

const BULK: &str = "okta.invocations.prod.bulk";

/// Channels that are opened while this is there have 5 seconds for each delivery, instead of half an hour.
struct Impatience<'a>(&'a Alone);

impl<'a> Impatience<'a> {
    fn begin(node: &'a Alone) -> Self {
        // How often a channel looks is asked anew each time, and may stay so.
        let settings = "application:set_env(rabbit, channel_tick_interval, 1000), \
                        application:set_env(rabbit, consumer_timeout, 5000).";
        node.run("eval", &[settings]);
        Self(node)
    }
}

impl Drop for Impatience<'_> {
    fn drop(&mut self) {
        self.0.run("eval", &["application:set_env(rabbit, consumer_timeout, 1800000)."]);
    }
}

/// Wide enough for a busy machine; without noticing, the worker would never consume again.
const AGAIN_WITHIN: Duration = Duration::from_secs(15);

#[tokio::test]
async fn a_channel_closed_over_a_message_that_took_too_long_is_replaced_and_consumed_again() {
    let Some(node) = alone().await else { return };
    let world = World::at(Place::on(&node), &[]);
    let okta = Proxy::start(free_port(), world.org.port());
    let base_url = format!("http://127.0.0.1:{}", okta.port());
    let variables = [("OKTA_WORKER__CONNECTIONS__PROD__BASE_URL", &*base_url)];
    let impatience = Impatience::begin(&node);
    let mut worker = world.worker_with(&Start { variables: &variables, ..Start::default() });
    drop(impatience);
    let caller = world.caller().await;
    caller.queue("answers", FieldTable::default(), None).await;
    okta.flow(Which::All, Flow::Pass, Flow::Hold);
    let message = |id: &str| Message::new("prod.bulk", "list_groups", &json!({"limit": 1})).id(id);
    caller.send(&message("slow").answer_to("answers")).await;
    until("Okta is asked and does not answer", async || world.org.requests() == 1).await;
    until("the broker closes the channel", async || worker.lost_so_far() == 1).await;
    let lost = Instant::now();
    okta.pass();
    caller.send(&message("next").answer_to("answers")).await;
    let mut left = vec!["slow", "next"];
    while !left.is_empty() {
        let body = caller.take("answers").await.body();
        assert_eq!(body["status"], "succeeded", "{body}");
        left.retain(|id| body["id"] != **id);
    }
    println!("consumed again after {:?}", lost.elapsed());
    assert!(lost.elapsed() < AGAIN_WITHIN, "it took {:?}", lost.elapsed());
    worker.await_ready();
    until("all are acknowledged", async || {
        caller.count(BULK).await == Some(0) && node.unacknowledged(&world.place, BULK) == 0
    })
    .await;
}

#[tokio::test]
async fn messages_that_only_wait_for_the_budget_are_all_answered_and_count_as_no_failed_deliveries() {
    const MESSAGES: usize = 18;
    let Some(node) = alone().await else { return };
    let world = World::at(Place::on(&node), &["--limit", "groups=3", "--window", "6"]);
    let _impatience = Impatience::begin(&node);
    let window = [("OKTA_WORKER__CONNECTIONS__PROD__RATE_LIMIT_WINDOW", "6s")];
    let worker = world.worker_with(&Start { variables: &window, ..Start::default() });
    let caller = world.caller().await;
    caller.queue("answers", FieldTable::default(), None).await;
    for number in 0..MESSAGES {
        let id = format!("g{number}");
        let message = Message::new("prod.bulk", "create_group", &json!({ "name": id })).id(&id);
        caller.send(&message.answer_to("answers")).await;
    }
    let mut ids = Vec::new();
    while ids.len() < MESSAGES {
        let body = caller.take("answers").await.body();
        assert_eq!((&body["status"], &body["attempts"]), (&json!("succeeded"), &json!(1)), "{body}");
        ids.push(body["id"].as_str().expect("an answer has an id").to_owned());
    }
    ids.sort();
    ids.dedup();
    assert_eq!((ids.len(), world.org.effects().len()), (MESSAGES, MESSAGES), "each once");
    // Once it learned how long the broker waits; from then on nothing was in hand for that long.
    assert!(worker.lost_so_far() <= 1, "{}", worker.process.stderr());
    assert_eq!(world.org.refused(), 0);
}

/// Answers wait for an alarm of so long at least, and nothing is lost or done again.
async fn alarmed_for(time: Duration) {
    const MESSAGES: usize = 10;
    let Some(node) = alone().await else { return };
    let world = World::at(Place::on(&node), &["--latency", "3000"]);
    let worker = world.worker();
    let caller = world.caller().await;
    caller.queue("answers", FieldTable::default(), None).await;
    for number in 0..MESSAGES {
        let id = format!("g{number}");
        let message = Message::new("prod.bulk", "create_group", &json!({ "name": id })).id(&id);
        caller.send(&message.answer_to("answers")).await;
    }
    until("all are in flight", async || world.org.requests() as usize == MESSAGES).await;
    let alarm = Alarm::raise(&node);
    until("Okta has done all", async || world.org.effects().len() == MESSAGES).await;
    // The broker takes the first message that comes after the alarm, and then reads no more. What it has
    // taken is acknowledged all the same, by the other connection.
    until("what it has taken is acknowledged", async || {
        let answered = caller.count("answers").await.expect("it is declared") as usize;
        answered > 0 && node.unacknowledged(&world.place, BULK) + answered == MESSAGES
    })
    .await;
    assert!(caller.count("answers").await < Some(10), "the alarm came too late to hold anything back");
    sleep(time).await; // what is to be seen is that nothing happens
    drop(alarm);
    for _ in 0..MESSAGES {
        let body = caller.take("answers").await.body();
        assert_eq!(body["status"], "succeeded", "{body}");
    }
    until("all are acknowledged", async || node.unacknowledged(&world.place, BULK) == 0).await;
    assert_eq!(world.org.effects(), ["group.created"; MESSAGES]);
    assert_eq!(
        (world.org.requests() as usize, worker.lost_so_far()),
        (MESSAGES, 0),
        "nothing was done again"
    );
}

#[tokio::test]
async fn while_memory_is_short_acknowledgements_flow_and_answers_wait() {
    alarmed_for(Duration::ZERO).await;
}

#[tokio::test]
#[ignore = "takes more than a minute"]
async fn answers_wait_for_memory_longer_than_for_a_confirm_and_nothing_is_done_again() {
    alarmed_for(Duration::from_secs(65)).await;
}
