//! One run: a load is sent, something goes wrong, and everything that happened is gathered for the checker.

use std::time::{Duration, Instant};

use lapin::types::FieldTable;
use okta_worker::domain::topology::{DEAD, DELAY_TIERS, UNDELIVERED, UNROUTED};
use serde_json::Value;

use super::caller::Caller;
use super::checker::{Answered, History, Verdict, check};
use super::child::{LOOK_AGAIN, http};
use super::load::{ANSWERS, Invocation};
use super::node::ours;
use super::world::World;

/// The queues in which work waits.
const WORK: [&str; 4] =
    ["okta.invocations.prod.interactive", "okta.invocations.prod.bulk", UNROUTED, UNDELIVERED];

/// A run that is under way.
pub struct Run<'a> {
    world: &'a World,
    caller: Caller,
    history: History,
    /// Effects before the load.
    before: usize,
}

impl<'a> Run<'a> {
    /// Begins one: whatever the org has done so far does not count.
    pub async fn begin(world: &'a World) -> Self {
        let caller = world.caller().await;
        caller.queue(ANSWERS, FieldTable::default(), None).await;
        Self { world, caller, history: History::default(), before: effects(world).len() }
    }

    /// Publishes, and waits for each confirm.
    pub async fn send(&mut self, load: Vec<Invocation>) {
        for Invocation { mut asked, message } in load {
            self.caller.send(&message).await;
            asked.confirmed = true;
            self.history.asked.push(asked);
        }
    }

    /// Takes the answers that have come; how many invocations have one by now.
    pub async fn gather(&mut self) -> usize {
        while let Some(reply) = self.caller.look(ANSWERS).await {
            self.history.answered.push(answered(&reply.body()));
        }
        let mut ids: Vec<_> = self.history.answered.iter().map(|answer| &answer.id).collect();
        ids.sort_unstable();
        ids.dedup();
        ids.len()
    }

    /// Waits until all but so many are answered and nothing waits any more, and has the checker look.
    pub async fn end(mut self, unanswered: usize, patience: Duration) -> (Verdict, History) {
        let deadline = Instant::now() + patience;
        let expected = self.history.asked.len() - unanswered;
        while Instant::now() < deadline {
            if self.gather().await >= expected && self.left().await == 0 && self.in_hand() == 0 {
                break;
            }
            tokio::time::sleep(5 * LOOK_AGAIN).await;
        }
        self.gather().await;
        self.history.left = self.left().await;
        while let Some(parked) = self.caller.look(DEAD).await {
            let id = parked.properties.message_id().as_ref().map(ToString::to_string);
            self.history.parked.push(id.unwrap_or_default());
        }
        self.history.effects = effects(self.world).split_off(self.before);
        (check(&self.history), self.history)
    }

    async fn left(&self) -> u32 {
        let mut left = 0;
        for queue in WORK.into_iter().chain(DELAY_TIERS.map(|(tier, _)| tier)) {
            left += self.caller.count(queue).await.unwrap_or(0);
        }
        left
    }

    /// Messages that a worker has in hand.
    fn in_hand(&self) -> usize {
        let node = ours().expect("asked before");
        WORK.iter().map(|queue| node.unacknowledged(&self.world.place, queue)).sum()
    }
}

fn answered(body: &Value) -> Answered {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    Answered {
        id: text(&body["id"]).expect("an answer has an id"),
        status: text(&body["status"]).expect("an answer has a status"),
        effect: text(&body["effect"]).expect("an answer has an effect"),
        code: text(&body["error"]["code"]),
        created: text(&body["result"]["id"]).filter(|_| body["subtool"].as_str() != Some("get_user")),
    }
}

/// What the org has done so far, with whom or what.
fn effects(world: &World) -> Vec<(String, String)> {
    let (status, body) = http(world.org.port(), "GET", "/sandbox/effects", "").expect("the sandbox answers");
    assert_eq!(status, 200, "{body}");
    let effects: Vec<Value> = serde_json::from_str(&body).expect("the back door speaks JSON");
    let text = |value: &Value| value.as_str().expect("it is a text").to_owned();
    effects.iter().map(|effect| (text(&effect["kind"]), text(&effect["subject"]))).collect()
}
