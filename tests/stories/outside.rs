//! What does not fit in hand waits outside: in its queue, few in delay tiers, and nothing in hand for long.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use okta_worker::budget::gate::{Gate, GateSettings};
use okta_worker::budget::pure::window::QuotaShare;
use okta_worker::domain::bucket::Bucket;
use okta_worker::domain::ids::Lane;
use okta_worker::domain::message::{Delivery, Properties, Receipt, Source};
use okta_worker::embedded::broker::Broker;
use okta_worker::embedded::okta::SimulatedOkta;
use okta_worker::event::{Event, Observer, Observers};
use okta_worker::policy::authorization::{AllowList, Callers};
use okta_worker::policy::backoff::RetryRules;
use okta_worker::policy::reply_to::ReplyPolicy;
use okta_worker::sandbox::{Org, OrgSettings};
use okta_worker::worker::clock::Clock;
use okta_worker::worker::ports::{Inbox, Ready};
use okta_worker::worker::{Connection, Rules, Worker};
use serde_json::json;
use std::sync::Mutex;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::world::{BEGIN, SAM, Setup, WORKER, prod};

#[tokio::test(start_paused = true)]
async fn a_backlog_stays_in_its_queue_and_little_of_it_lies_delayed() {
    let mut world = Setup::default().limit(Bucket::UserRead, 10).open();
    for _ in 0..800 {
        world.ask_bulk("get_user", json!({ "user_id": SAM }));
    }
    for _ in 0..600 {
        world.run_for(Duration::from_secs(1)).await;
        assert!(world.delayed() <= 64, "{} lie delayed", world.delayed());
    }
    let answered = 800 - world.queued() - world.delayed() - world.in_hand();
    assert!(answered >= 90, "{answered} in ten windows of ten");
    assert!(world.queued() >= 500, "{}", world.queued());
    world.rest().await;
    world.answers(800);
    world.tape();
    world.close();
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_one_subject_comes_to_its_end_in_order_and_stays_mostly_in_its_queue() {
    let mut world = Setup::default().open();
    let user = |title: &str| json!({ "user_id": SAM, "profile": { "title": title } });
    for number in 0..150 {
        world.ask_bulk("update_user", user(&format!("t{number}")));
    }
    let mut most = 0;
    for _ in 0..600 {
        world.run_for(Duration::from_millis(100)).await;
        most = most.max(world.delayed());
    }
    assert!(most <= 64, "{most}");
    world.rest().await;
    let answers: Vec<_> = (0..150).map(|_| world.answer()["id"].clone()).collect();
    let expected: Vec<_> = (1..=150).map(|number| json!(format!("m{number}"))).collect();
    assert_eq!(answers, expected);
    assert_eq!(world.of_sam("title"), "t149");
    world.tape();
    world.close();
}

#[tokio::test(start_paused = true)]
async fn nothing_that_only_waits_is_in_hand_for_longer_than_ten_minutes() {
    let mut world = Setup { prefetch: 8, ..Setup::default() };
    world.org.window = Duration::from_secs(3600);
    let mut world = world.limit(Bucket::UserRead, 1).open();
    for _ in 0..4 {
        world.ask_bulk("get_user", json!({ "user_id": SAM }));
    }
    world.run_for(Duration::from_secs(599)).await;
    assert_eq!((world.in_hand(), world.delayed()), (3, 0));
    world.run_for(Duration::from_secs(2)).await;
    assert_eq!((world.in_hand(), world.delayed()), (0, 3));
    world.rest().await;
    let answers: Vec<_> = (0..4).map(|_| world.answer()).collect();
    assert!(answers.iter().all(|answer| answer["status"] == "succeeded"), "{answers:?}");
    assert_eq!(answers[3]["attempts"], 1);
    world.tape();
    world.close();
}

/// The last that was told of a backlog.
#[derive(Default)]
struct Told(Mutex<Option<(u64, usize, Option<Duration>)>>);

impl Observer for Told {
    fn note(&self, event: &Event<'_>) {
        if let Event::Backlog { lane: Lane::Bulk, ready, delayed, oldest, .. } = event {
            *self.0.lock().unwrap() = Some((*ready, *delayed, *oldest));
        }
    }
}

/// A worker by itself, whose bucket for reading users has nothing left for an hour.
struct Alone {
    worker: Arc<Worker>,
    clock: Clock,
    told: Arc<Told>,
    acknowledged: Arc<AtomicUsize>,
    live: watch::Sender<bool>,
}

struct Receipted {
    acknowledged: Arc<AtomicUsize>,
    live: watch::Receiver<bool>,
}

#[async_trait]
impl Receipt for Receipted {
    fn is_live(&self) -> bool {
        *self.live.borrow()
    }
    async fn gone(&self) {
        let _ = self.live.clone().wait_for(|live| !live).await;
    }
    async fn ack(self: Box<Self>) -> bool {
        self.acknowledged.fetch_add(1, Ordering::Relaxed);
        true
    }
}

impl Alone {
    fn new(limit: u32) -> Self {
        fastrand::seed(28);
        let clock = Clock::starting_at(BEGIN.parse().unwrap());
        let window = Duration::from_secs(600);
        let settings =
            OrgSettings { limits: [(Bucket::UserRead, limit)].into(), window, ..OrgSettings::default() };
        let org = Arc::new(Mutex::new(Org::new(settings)));
        let okta = Arc::new(SimulatedOkta::new(org, "token", clock, Duration::from_millis(100)));
        let told = Arc::new(Told::default());
        let observer: Arc<dyn Observer> = Arc::new(Observers(vec![Arc::<Told>::clone(&told)]));
        let share = QuotaShare { capacity_percent: 100, length: window };
        let gate = Gate::new(
            GateSettings { prefetch: 100, ..GateSettings::new(prod(), share) },
            Arc::clone(&observer),
        );
        let connection = Connection::new(prod(), okta, Arc::new(gate), AllowList::all());
        let rules = Rules {
            connections: HashMap::from([(prod(), Arc::new(connection))]),
            callers: Callers::default(),
            reply_to: ReplyPolicy::default(),
            own_user: Some(WORKER.to_owned()),
            interactive_deadline: Duration::from_secs(600),
            list_time_max: Duration::from_secs(600),
            retry: RetryRules::default(),
            clock,
            stopping: CancellationToken::new(),
        };
        let broker = Broker::new([&prod()]);
        let worker = Arc::new(Worker::new(rules, Arc::<Broker>::clone(&broker), observer));
        let (acknowledged, live) = (Arc::default(), watch::Sender::new(true));
        Self { worker, clock, told, acknowledged, live }
    }

    /// Delivers an invocation that was sent so long ago, and runs it.
    fn deliver(&self, subtool: &str, arguments: &serde_json::Value, age: Duration) {
        let sent = self.clock.now().saturating_sub(age).unwrap().as_second();
        let delivery = Delivery {
            body: Bytes::from(json!({ "subtool": subtool, "arguments": arguments }).to_string()),
            properties: Properties { timestamp: u64::try_from(sent).ok(), ..Properties::default() },
            exchange: "okta.invocations".to_owned(),
            routing_key: "prod.bulk".to_owned(),
            source: Source::Work { connection: prod(), lane: Lane::Bulk },
            redelivered: false,
            receipt: Box::new(Receipted {
                acknowledged: Arc::clone(&self.acknowledged),
                live: self.live.subscribe(),
            }),
        };
        tokio::spawn(Arc::clone(&self.worker).take(delivery));
    }

    fn acknowledged(&self) -> usize {
        self.acknowledged.load(Ordering::Relaxed)
    }
}

#[tokio::test(start_paused = true)]
async fn a_delivery_whose_channel_is_gone_leaves_every_line_it_stands_in() {
    let alone = Alone::new(1);
    alone.deliver("get_user", &json!({ "user_id": SAM }), Duration::ZERO);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(alone.acknowledged(), 1);
    // Ten wait for the budget, some for those: nothing is left of this window.
    for number in 0..5 {
        alone.deliver("get_user", &json!({ "user_id": format!("short{number}") }), Duration::ZERO);
        let rename = json!({ "user_id": "sam", "profile": { "title": format!("t{number}") } });
        alone.deliver("update_user", &rename, Duration::ZERO);
    }
    sleep(Duration::from_secs(1)).await;
    alone.live.send_replace(false);
    sleep(Duration::from_secs(1)).await;
    let counted = || {
        alone.worker.counted(&prod(), Ready { interactive: 0, bulk: 0 });
        *alone.told.0.lock().unwrap()
    };
    assert_eq!(counted(), Some((0, 0, None)), "none of them is in hand any more");
    assert_eq!(alone.acknowledged(), 1);
}

#[tokio::test(start_paused = true)]
async fn where_the_broker_takes_messages_back_sooner_none_waits_in_hand_for_half_of_that() {
    let alone = Alone::new(1);
    alone.worker.hold_at_most(Duration::from_secs(60));
    for _ in 0..4 {
        alone.deliver("get_user", &json!({ "user_id": SAM }), Duration::ZERO);
    }
    sleep(Duration::from_secs(19)).await;
    assert_eq!(alone.acknowledged(), 1);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(alone.acknowledged(), 4, "a copy of each lies in a delay tier");
}

#[tokio::test(start_paused = true)]
async fn a_backlog_is_told_with_the_age_of_its_oldest_message() {
    let alone = Alone::new(1000);
    let counted = |bulk| {
        alone.worker.counted(&prod(), Ready { interactive: 0, bulk });
        alone.told.0.lock().unwrap().unwrap()
    };
    assert_eq!(counted(0), (0, 0, None));
    // What came since is younger than that look, and what is behind others is younger than they were.
    sleep(Duration::from_secs(5)).await;
    assert_eq!(counted(7), (7, 0, Some(Duration::from_secs(5))));
    alone.deliver("get_user", &json!({ "user_id": SAM }), Duration::from_secs(3));
    sleep(Duration::from_secs(1)).await;
    let (ready, delayed, oldest) = counted(6);
    assert_eq!((ready, delayed), (6, 0));
    assert!(
        oldest.unwrap() >= Duration::from_secs(4) && oldest.unwrap() < Duration::from_secs(5),
        "{oldest:?}"
    );
    assert_eq!(counted(0), (0, 0, None));
}
