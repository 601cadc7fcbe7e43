//! One run: a load is sent, something goes wrong, and everything that happened is gathered for the checker.

use std::time::{Duration, Instant};

use lapin::BasicProperties;
use lapin::types::FieldTable;
use okta_worker::domain::topology::{DEAD, DELAY_TIERS, UNDELIVERED, UNROUTED};
use serde_json::Value;

use super::caller::Caller;
use super::checker::{Answered, History, Verdict, check};
use super::child::{LOOK_AGAIN, http};
use super::load::{ANSWERS, Invocation};
use super::world::{Worker, World};

/// The queues in which work waits.
const WORK: [&str; 4] =
    ["okta.invocations.prod.interactive", "okta.invocations.prod.bulk", UNROUTED, UNDELIVERED];

/// How soon a broker makes ready again what a connection had in hand when it ended.
const GIVEN_BACK_WITHIN: Duration = Duration::from_millis(500);

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

    /// Publishes, persistent and dated as a producer should, and waits for each confirm.
    pub async fn send(&mut self, load: Vec<Invocation>) {
        for Invocation { mut asked, message } in load {
            let now = u64::try_from(jiff::Timestamp::now().as_second()).expect("it is after 1970");
            let dated = |properties: BasicProperties| properties.with_delivery_mode(2).with_timestamp(now);
            self.caller.send(&message.with(dated)).await;
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

    /// Waits until all but so many are answered and nothing waits any more, stops the workers, and has the
    /// checker look.
    pub async fn end(
        mut self,
        mut workers: Vec<Worker>,
        unanswered: usize,
        when_busy: Duration,
    ) -> (Verdict, History) {
        let deadline = Instant::now() + when_busy;
        let expected = self.history.asked.len() - unanswered;
        while Instant::now() < deadline {
            let are_idle = || workers.iter().all(|worker| in_hand(worker) == 0);
            if self.gather().await >= expected && left(&self.caller).await.is_empty() && are_idle() {
                break;
            }
            tokio::time::sleep(5 * LOOK_AGAIN).await;
        }
        // What a worker still has in hand it finishes or gives back, and the broker shows what it got back.
        for worker in &mut workers {
            worker.await_ready(); // one that has only just begun does not know the signal yet
            worker.process.signal("TERM");
        }
        for mut worker in workers {
            assert_eq!(worker.process.wait().code(), Some(0), "{}", worker.process.stderr());
        }
        tokio::time::sleep(GIVEN_BACK_WITHIN).await;
        self.gather().await;
        self.history.left = left(&self.caller).await;
        self.history.parked = parked(&self.caller).await;
        self.history.effects = effects(self.world).split_off(self.before);
        let verdict = check(&self.history);
        if !verdict.is_good() {
            let in_doubt = |answer: &&Answered| answer.code.is_some() || answer.effect == "unknown";
            for Answered { id, effect, code, why, .. } in self.history.answered.iter().filter(in_doubt) {
                println!("{id}: {effect}, {code:?}, {why}");
            }
        }
        (verdict, self.history)
    }

    /// Connects again: the broker was away.
    pub async fn connect(&mut self) {
        self.caller = self.world.caller().await;
    }
}

/// Messages that wait in queues of work.
pub async fn left(caller: &Caller) -> Vec<(&'static str, u32)> {
    let mut left = Vec::new();
    for queue in WORK.into_iter().chain(DELAY_TIERS.map(|(tier, _)| tier)) {
        let count = caller.count(queue).await.unwrap_or(0);
        if count > 0 {
            left.push((queue, count));
        }
    }
    left
}

/// The ids of parked messages, which are taken away.
pub async fn parked(caller: &Caller) -> Vec<String> {
    let mut ids = Vec::new();
    while let Some(parked) = caller.look(DEAD).await {
        let id = parked.properties.message_id().as_ref().map(ToString::to_string);
        ids.push(id.unwrap_or_default());
    }
    ids
}

/// How many messages a worker has in hand, as its metrics say.
pub fn in_hand(worker: &Worker) -> u64 {
    if !worker.is_ready() {
        return 0; // nobody to ask, or nothing consumed yet
    }
    let metrics = worker.metrics();
    let values = metrics.lines().filter(|line| line.starts_with("okta_worker_in_flight{"));
    values.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum()
}

/// An answer as the checker takes it.
pub fn answered(body: &Value) -> Answered {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    Answered {
        id: text(&body["id"]).expect("an answer has an id"),
        status: text(&body["status"]).expect("an answer has a status"),
        effect: text(&body["effect"]).expect("an answer has an effect"),
        code: text(&body["error"]["code"]),
        why: format!("{}: {}", body["subtool"], body["error"]["message"]),
        created: text(&body["result"]["id"]).filter(|_| body["subtool"].as_str() != Some("get_user")),
    }
}

/// What the org has done so far, with whom or what.
pub fn effects(world: &World) -> Vec<(String, String)> {
    let (status, body) = http(world.org.port(), "GET", "/sandbox/effects", "").expect("the sandbox answers");
    assert_eq!(status, 200, "{body}");
    let effects: Vec<Value> = serde_json::from_str(&body).expect("the back door speaks JSON");
    let text = |value: &Value| value.as_str().expect("it is a text").to_owned();
    effects.iter().map(|effect| (text(&effect["kind"]), text(&effect["subject"]))).collect()
}
