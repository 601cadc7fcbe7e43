//! Three nodes: each is killed, restarted and cut off from the others under load. `tests/cluster` starts them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Connection, ConnectionProperties};
use serde_json::Value;

use super::caller::{Caller, until};
use super::checker::{Answered, History, Verdict, check};
use super::load::{ANSWERS, Invocation, org_arguments, prepare, texts};
use super::node::Place;
use super::report::passed;
use super::run::{answered, effects, in_hand, left, parked};
use super::world::{Start, Worker, World};

const NODES: [usize; 3] = [1, 2, 3];

/// Messages of one scenario.
const MESSAGES: usize = 1500;

/// The longest time without any answer while some are awaited.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// How long a node that was killed stays away.
const AWAY: Duration = Duration::from_secs(10);

/// How long a node is cut off.
const CUT: Duration = Duration::from_secs(20);

/// How long all answers may take.
const PATIENCE: Duration = Duration::from_secs(600);

/// A cluster that `tests/support/cluster` has started.
struct Cluster {
    dir: PathBuf,
}

impl Cluster {
    /// The one that the environment names; says so where there is none.
    fn found() -> Option<Self> {
        let Some(dir) = std::env::var_os("OKTA_WORKER_TEST_CLUSTER_DIR") else {
            println!("not run: there is no cluster (`tests/cluster` starts one)");
            return None;
        };
        Some(Self { dir: dir.into() })
    }

    async fn run(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/cluster"));
        command.arg(arguments[0]).arg(&self.dir).args(&arguments[1..]);
        let ran = tokio::task::spawn_blocking(move || command.output()).await.expect("it does not panic");
        let ran = ran.expect("`tests/support/cluster` can be run");
        assert!(ran.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&ran.stderr));
        String::from_utf8_lossy(&ran.stdout).into_owned()
    }

    async fn on(&self, command: &str, node: usize) {
        self.run(&[command, &node.to_string()]).await;
    }

    /// Waits until every quorum queue has all its members back, as an operator does before touching the next node.
    async fn until_whole(&self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let list = [
                "ctl",
                "1",
                "-q",
                "list_queues",
                "-p",
                "okta",
                "name",
                "type",
                "online",
                "--formatter",
                "json",
            ];
            let queues: Value = serde_json::from_str(&self.run(&list).await).unwrap_or_default();
            let is_whole = |queue: &Value| {
                !queue["type"].as_str().is_some_and(|kind| kind.contains("quorum"))
                    || queue["online"].as_array().is_some_and(|online| online.len() == NODES.len())
            };
            if queues.as_array().is_some_and(|queues| !queues.is_empty() && queues.iter().all(is_whole)) {
                return;
            }
            assert!(Instant::now() < deadline, "{queues}");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// The node that leads the queue of bulk work.
    async fn leader(&self) -> usize {
        let list = ["ctl", "1", "-q", "list_queues", "-p", "okta", "name", "leader", "--formatter", "json"];
        let queues: Value = serde_json::from_str(&self.run(&list).await).expect("it is JSON");
        let bulk = |queue: &&Value| queue["name"] == "okta.invocations.prod.bulk";
        let leader =
            queues.as_array().and_then(|queues| queues.iter().find(bulk)).expect("it is there")["leader"]
                .clone();
        let number = leader.as_str().and_then(|name| name.rsplit('.').next()?.parse().ok());
        number.unwrap_or_else(|| panic!("{leader} leads it"))
    }
}

fn url(user: &str, node: usize) -> String {
    format!("amqp://{user}:{user}@10.77.1.{node}:5672/okta")
}

/// The URLs of all nodes, from this one on.
fn urls(first: usize) -> String {
    let from = |at: usize| (first - 1 + at) % NODES.len() + 1;
    [from(0), from(1), from(2)].map(|node| url("worker", node)).join(",")
}

/// A task that ends with whoever started it.
struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The answers, and when each came.
#[derive(Clone, Default)]
struct Answers(Arc<Mutex<Vec<(Instant, Answered)>>>);

impl Answers {
    /// Collects them from all nodes at once: a node that is cut off gives nothing meanwhile.
    async fn collect(self) {
        let all = NODES.map(|node| {
            let answers = self.clone();
            tokio::spawn(async move {
                loop {
                    let _ = answers.collect_at(node).await;
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            })
        });
        let _guards = all.map(AbortOnDrop);
        std::future::pending::<()>().await;
    }

    async fn collect_at(&self, node: usize) -> lapin::Result<()> {
        // A consumer whose queue has lost its leader may never hear of it.
        const QUIET_MAX: Duration = Duration::from_secs(15);
        // What is delivered to a node that is cut off comes back only when the others give that node up.
        const PREFETCH: u16 = 10;
        let connection = Connection::connect(&url("operator", node), ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
        let (options, none) = (BasicConsumeOptions::default(), FieldTable::default());
        let mut consumer = channel.basic_consume(ANSWERS.into(), "".into(), options, none).await?;
        while let Ok(Some(delivery)) = tokio::time::timeout(QUIET_MAX, consumer.next()).await {
            let delivery = delivery?;
            let body: Value = serde_json::from_slice(&delivery.data).expect("an answer is JSON");
            self.all().push((Instant::now(), answered(&body)));
            delivery.ack(BasicAckOptions::default()).await?;
        }
        let _ = tokio::time::timeout(QUIET_MAX, connection.close(200, "quiet".into())).await;
        Ok(())
    }

    fn all(&self) -> std::sync::MutexGuard<'_, Vec<(Instant, Answered)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self) -> usize {
        let mut ids: Vec<_> = self.all().iter().map(|(_, answer)| answer.id.clone()).collect();
        ids.sort_unstable();
        ids.dedup();
        ids.len()
    }
}

/// One scenario under way.
struct Scenario {
    world: World,
    workers: Vec<Worker>,
    history: History,
    answers: Answers,
    collecting: tokio::task::JoinHandle<()>,
    before: usize,
    began: Instant,
}

impl Scenario {
    async fn begin(cluster: &Cluster) -> Self {
        let world = World::at(Place::take().await, &texts(&org_arguments(12)));
        let caller = Caller::new(&url("operator", 1)).await;
        // As README.md advises: a classic queue is away with its node, and the answers with it.
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), super::caller::text("quorum"));
        caller.queue(ANSWERS, arguments, None).await;
        let workers = NODES.map(|node| {
            let urls = urls(node);
            world.worker_with(&Start {
                variables: &[("OKTA_WORKER__BROKER__URLS", &urls)],
                ..Start::default()
            })
        });
        cluster.until_whole().await;
        let answers = Answers::default();
        let collecting = tokio::spawn(answers.clone().collect());
        let (before, began) = (effects(&world).len(), Instant::now());
        Self {
            world,
            workers: workers.into(),
            history: History::default(),
            answers,
            collecting,
            before,
            began,
        }
    }

    /// Makes a load and has all that comes from it later count.
    async fn prepare(&mut self, prefix: &str, seed: u64) -> Vec<Invocation> {
        let load = prepare(&self.world.org, prefix, MESSAGES, seed).await;
        self.before = effects(&self.world).len();
        load
    }

    /// Publishes through one node.
    async fn send(&mut self, load: Vec<Invocation>, node: usize) {
        let caller = Caller::new(&url("operator", node)).await;
        for Invocation { mut asked, message } in load {
            let now = u64::try_from(jiff::Timestamp::now().as_second()).expect("it is after 1970");
            let dated = |properties: BasicProperties| properties.with_delivery_mode(2).with_timestamp(now);
            caller.send(&message.with(dated)).await;
            asked.confirmed = true;
            self.history.asked.push(asked);
        }
    }

    /// Waits until so many are answered.
    async fn until_answered(&self, count: usize) {
        let deadline = Instant::now() + PATIENCE;
        while self.answers.count() < count {
            assert!(Instant::now() < deadline, "{} of {count} answered", self.answers.count());
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Waits for the last answer, stops the workers, and has the checker look; the verdict and the longest silence.
    async fn end(mut self) -> (Verdict, Duration) {
        self.until_answered(self.history.asked.len()).await;
        let caller = Caller::new(&url("operator", 1)).await;
        until("nothing waits any more", async || {
            left(&caller).await.is_empty() && self.workers.iter().all(|worker| in_hand(worker) == 0)
        })
        .await;
        for worker in self.workers.drain(..) {
            worker.stop();
        }
        tokio::time::sleep(Duration::from_secs(1)).await; // what was given back is shown
        self.collecting.abort();
        let all = std::mem::take(&mut *self.answers.all());
        let mut times: Vec<_> = all.iter().map(|(at, _)| *at).collect();
        times.insert(0, self.began);
        let silence = times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default();
        self.history.answered = all.into_iter().map(|(_, answer)| answer).collect();
        self.history.left = left(&caller).await;
        self.history.parked = parked(&caller).await;
        self.history.effects = effects(&self.world).split_off(self.before);
        (check(&self.history), silence)
    }
}

/// What is promised of every scenario; its figures.
fn judged((verdict, silence): (Verdict, Duration), seed: u64) -> String {
    assert!(verdict.is_good(), "seed {seed}: {verdict:#?}");
    assert!(silence <= SILENCE_MAX, "seed {seed}: {silence:?} without an answer");
    let Verdict { unknown_emits, answered_again, .. } = verdict;
    format!(
        "{MESSAGES} messages: lost 0, twice 0; {unknown_emits} `outcome_unknown`, {answered_again} answered more than \
         once, at most {:.1} s without an answer; seed {seed}",
        silence.as_secs_f64()
    )
}

/// Has each node go and come back under a third of the load.
async fn each_in_turn(gone: &str, prefix: &str, number: &str) {
    let Some(cluster) = Cluster::found() else { return };
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut scenario = Scenario::begin(&cluster).await;
    let mut load = scenario.prepare(prefix, seed).await;
    scenario.began = Instant::now();
    for node in NODES {
        let rest = load.split_off(load.len().min(MESSAGES / NODES.len()));
        scenario.send(std::mem::replace(&mut load, rest), node % NODES.len() + 1).await;
        let sent = scenario.history.asked.len();
        scenario.until_answered(sent - MESSAGES / NODES.len() + MESSAGES / 15).await;
        cluster.on(gone, node).await;
        tokio::time::sleep(AWAY).await;
        cluster.on("up", node).await;
        cluster.until_whole().await;
    }
    passed(number, &judged(scenario.end().await, seed));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_node_is_killed_in_turn_and_nothing_is_lost_or_done_twice() {
    each_in_turn("kill", "n", "39").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_of_the_nodes_loses_nothing_and_does_nothing_twice() {
    each_in_turn("down", "o", "40").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_of_the_work_is_cut_off_for_a_while_and_nothing_is_lost_or_done_twice() {
    let Some(cluster) = Cluster::found() else { return };
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut scenario = Scenario::begin(&cluster).await;
    let load = scenario.prepare("p", seed).await;
    scenario.began = Instant::now();
    let leader = cluster.leader().await;
    scenario.send(load, leader % NODES.len() + 1).await;
    scenario.until_answered(MESSAGES / 15).await;
    cluster.on("cut", leader).await;
    tokio::time::sleep(CUT).await;
    cluster.on("heal", leader).await;
    passed("41", &judged(scenario.end().await, seed));
}
