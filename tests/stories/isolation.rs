//! Who has nothing to give keeps nobody else waiting: neither another org's messages nor those of another
//! bucket in the same lane. Each is compared with the same run without the one that is exhausted.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use okta_worker::budget::gate::{Gate, GateSettings};
use okta_worker::budget::gossip::{Census, Gossip};
use okta_worker::budget::pure::window::QuotaShare;
use okta_worker::domain::bucket::Bucket;
use okta_worker::domain::ids::{ConnectionName, Lane};
use okta_worker::domain::message::{Properties, Source};
use okta_worker::domain::topology::source_queue;
use okta_worker::embedded::broker::Broker;
use okta_worker::embedded::okta::SimulatedOkta;
use okta_worker::event::{Observer, Observers};
use okta_worker::policy::authorization::{AllowList, Callers};
use okta_worker::policy::backoff::RetryRules;
use okta_worker::policy::reply_to::ReplyPolicy;
use okta_worker::sandbox::{Org, OrgSettings};
use okta_worker::worker::clock::Clock;
use okta_worker::worker::ports::Inbox;
use okta_worker::worker::{Connection, Rules, Worker};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::world::{BEGIN, REPLIES, SAM, WORKER, body};

/// How long the exhausted bucket stays so.
const WINDOW: Duration = Duration::from_secs(300);

/// How often the broker counts, as at the edge.
const CENSUS_EVERY: Duration = Duration::from_secs(5);

/// One worker that serves several orgs.
struct House {
    broker: Arc<Broker>,
    begun: Instant,
    _tasks: JoinSet<()>,
    _consuming: JoinSet<()>,
}

fn name(text: &str) -> ConnectionName {
    ConnectionName::parse(text).unwrap()
}

impl House {
    fn new(orgs: &[(&str, OrgSettings)]) -> Self {
        fastrand::seed(28);
        let clock = Clock::starting_at(BEGIN.parse().unwrap());
        let names: Vec<_> = orgs.iter().map(|(org, _)| name(org)).collect();
        let broker = Broker::new(&names);
        broker.declare(REPLIES);
        let observer: Arc<dyn Observer> = Arc::new(Observers(Vec::new()));
        let mut tasks = JoinSet::new();
        let mut connections = HashMap::new();
        for (org, settings) in orgs {
            let share = QuotaShare { capacity_percent: 100, length: settings.window };
            let gate = Gate::new(GateSettings::new(name(org), share), Arc::clone(&observer));
            let org = name(org);
            tasks.spawn(census(Arc::clone(&broker), Arc::clone(&gate), org.clone()));
            let simulated = Arc::new(Mutex::new(Org::new(settings.clone())));
            let okta = Arc::new(SimulatedOkta::new(simulated, "token", clock, Duration::from_millis(100)));
            let budget = Arc::new(gate);
            let connection = Connection::new(org.clone(), okta, budget, AllowList::all());
            connections.insert(org, Arc::new(connection));
        }
        let rules = Rules {
            connections,
            callers: Callers::default(),
            reply_to: ReplyPolicy::default(),
            own_user: Some(WORKER.to_owned()),
            interactive_deadline: Duration::from_secs(3600),
            list_time_max: Duration::from_secs(600),
            retry: RetryRules::default(),
            clock,
            stopping: CancellationToken::new(),
        };
        let worker: Arc<dyn Inbox> = Arc::new(Worker::new(rules, Arc::<Broker>::clone(&broker), observer));
        let consuming = broker.consume(&worker, 32);
        Self { broker, begun: Instant::now(), _tasks: tasks, _consuming: consuming }
    }

    fn send(&self, key: &str, id: &str, subtool: &str, arguments: &Value) {
        let (reply_to, message_id) = (Some(REPLIES.to_owned()), Some(id.to_owned()));
        let body = json!({ "subtool": subtool, "arguments": arguments }).to_string();
        self.broker.publish(key, Properties { reply_to, message_id, ..Properties::default() }, body);
    }

    /// The answers so far whose id begins like this, in order.
    fn answers(&self, prefix: &str) -> Vec<Value> {
        let answers = std::iter::from_fn(|| self.broker.pop(REPLIES));
        let answers = answers.map(|stored| body(&stored));
        answers.filter(|answer| answer["id"].as_str().unwrap().starts_with(prefix)).collect()
    }
}

async fn census(broker: Arc<Broker>, gate: Arc<Gate>, connection: ConnectionName) {
    let bulk = source_queue(&Source::Work { connection, lane: Lane::Bulk });
    loop {
        gate.counted(Census { workers: 1, queued: broker.waiting(&bulk) as u64 });
        sleep(CENSUS_EVERY).await;
    }
}

/// The duration that 95 of 100 kept below, in milliseconds.
fn p95(answers: &[Value]) -> u64 {
    let duration = |answer: &Value| {
        assert_eq!(answer["status"], "succeeded", "{answer}");
        answer["duration_ms"].as_u64().unwrap()
    };
    let mut durations: Vec<_> = answers.iter().map(duration).collect();
    durations.sort_unstable();
    durations[durations.len() * 95 / 100]
}

fn limits(limits: &[(Bucket, u32)]) -> OrgSettings {
    OrgSettings { limits: limits.iter().copied().collect(), window: WINDOW, ..OrgSettings::default() }
}

/// How long the messages of four orgs take, while a fifth has work that it cannot do, or none.
async fn beside_an_org(backlog: usize) -> (usize, u64) {
    let busy = limits(&[(Bucket::UserRead, 3000)]);
    let orgs = ["a", "b", "c", "d"].map(|org| (org, busy.clone()));
    let spent = ("e", limits(&[(Bucket::UserRead, 5)]));
    let house = House::new(&orgs.iter().cloned().chain([spent]).collect::<Vec<_>>());
    for number in 0..backlog {
        for lane in Lane::ALL {
            house.send(
                &format!("e.{lane}"),
                &format!("spent{number}"),
                "get_user",
                &json!({ "user_id": SAM }),
            );
        }
    }
    for turn in 0..580_u64 {
        sleep_until(house.begun + Duration::from_millis(500) * u32::try_from(turn).unwrap()).await;
        for (org, _) in &orgs {
            for lane in Lane::ALL {
                let id = format!("free{org}{lane}{turn}");
                house.send(&format!("{org}.{lane}"), &id, "get_user", &json!({ "user_id": SAM }));
            }
        }
    }
    sleep_until(house.begun + WINDOW - Duration::from_secs(1)).await;
    let answers = house.answers("free");
    (answers.len(), p95(&answers))
}

#[tokio::test(start_paused = true)]
async fn an_org_that_is_exhausted_does_not_delay_four_others() {
    let (answered, alone) = beside_an_org(0).await;
    let (answered_too, beside) = beside_an_org(500).await;
    assert_eq!((answered, answered_too), (4640, 4640));
    assert!(beside * 10 <= alone * 11, "{beside} ms beside it, {alone} ms without it");
}

/// So many of an exhausted bucket wait in its line and in delay tiers; further ones stay in the queue of their lane.
const OUTSIDE_MAX: usize = 70;

/// How long messages of one bucket take, a few a second and then many at once, with so many of an
/// exhausted bucket in front of them in the same lane.
async fn behind_a_bucket(backlog: usize) -> [u64; 2] {
    let house = House::new(&[("a", limits(&[(Bucket::UserRead, 5), (Bucket::Groups, 3000)]))]);
    for number in 0..backlog {
        house.send("a.bulk", &format!("spent{number}"), "get_user", &json!({ "user_id": SAM }));
    }
    for turn in 0..200_u32 {
        house.send("a.bulk", &format!("group{turn}"), "list_groups", &json!({}));
        sleep(Duration::from_millis(500)).await;
    }
    let few = house.answers("group");
    for turn in 0..400 {
        house.send("a.bulk", &format!("group{turn}"), "list_groups", &json!({}));
    }
    sleep(Duration::from_secs(90)).await;
    let many = house.answers("group");
    assert_eq!((few.len(), many.len()), (200, 400), "answered");
    [p95(&few), p95(&many)]
}

#[tokio::test(start_paused = true)]
async fn a_bucket_that_is_exhausted_does_not_delay_another_ones_messages_behind_it() {
    let alone = behind_a_bucket(0).await;
    let behind = behind_a_bucket(OUTSIDE_MAX).await;
    for (alone, behind) in alone.into_iter().zip(behind) {
        assert!(behind * 10 <= alone * 11, "{behind} ms behind it, {alone} ms without it");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lanes_messages_of_a_bucket_are_executed_in_the_order_they_were_sent_in() {
    let house = House::new(&[("a", limits(&[(Bucket::UserRead, 20), (Bucket::Groups, 3000)]))]);
    for number in 0..12 {
        // Half of what may be in hand waits, so nobody is put aside.
        for lane in Lane::ALL {
            let id = format!("{lane}{number:02}");
            house.send(&format!("a.{lane}"), &id, "get_user", &json!({ "user_id": SAM }));
            house.send(&format!("a.{lane}"), &format!("g{id}"), "list_groups", &json!({}));
        }
    }
    sleep(15 * WINDOW).await;
    let answers = house.answers("");
    assert_eq!(answers.len(), 48);
    for prefix in ["bulk", "interactive", "gbulk", "ginteractive"] {
        let ids: Vec<_> = answers
            .iter()
            .map(|answer| answer["id"].as_str().unwrap())
            .filter(|id| id.strip_prefix(prefix).is_some_and(|rest| rest.len() == 2))
            .collect();
        assert_eq!(ids.len(), 12);
        assert!(ids.is_sorted(), "{ids:?}");
    }
}
