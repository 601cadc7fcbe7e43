//! The rules may change while messages are in work: each message knows one set of them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use okta_worker::budget::gate::{Gate, GateSettings};
use okta_worker::budget::pure::window::QuotaShare;
use okta_worker::domain::ids::{ConnectionName, Lane};
use okta_worker::domain::message::{Delivery, Properties, Receipt, Source};
use okta_worker::domain::topology::UNCLAIMED;
use okta_worker::embedded::broker::Broker;
use okta_worker::embedded::okta::SimulatedOkta;
use okta_worker::event::{Observer, Observers};
use okta_worker::policy::authorization::{AllowList, Callers};
use okta_worker::policy::backoff::RetryRules;
use okta_worker::policy::reply_to::ReplyPolicy;
use okta_worker::sandbox::{InjectedFault, Org, OrgSettings, Trouble};
use okta_worker::worker::clock::Clock;
use okta_worker::worker::ports::Inbox;
use okta_worker::worker::{Connection, Rules, Worker};
use serde_json::json;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::world::{BEGIN, SAM, WORKER, body};

fn prod() -> ConnectionName {
    ConnectionName::parse("prod").unwrap()
}

fn silent() -> Arc<dyn Observer> {
    Arc::new(Observers(Vec::new()))
}

fn rules(okta: &Arc<SimulatedOkta>, clock: Clock, attempts_max: u32) -> Rules {
    let share = QuotaShare { capacity_percent: 100, length: Duration::from_secs(60) };
    let budget = Arc::new(Gate::new(GateSettings::new(prod(), share), silent()));
    let connection = Connection::new(prod(), Arc::<SimulatedOkta>::clone(okta), budget, AllowList::all());
    Rules {
        connections: HashMap::from([(prod(), Arc::new(connection))]),
        callers: Callers::default(),
        reply_to: ReplyPolicy::default(),
        own_user: Some(WORKER.to_owned()),
        interactive_deadline: Duration::from_secs(600),
        list_time_max: Duration::from_secs(600),
        retry: RetryRules { attempts_max, base: Duration::from_secs(1), cap: Duration::from_secs(1) },
        clock,
        stopping: CancellationToken::new(),
    }
}

/// A delivery of `get_user`, and whether it was acknowledged.
fn delivery() -> (Delivery, Arc<AtomicBool>) {
    struct Receipted(Arc<AtomicBool>);
    #[async_trait]
    impl Receipt for Receipted {
        fn is_live(&self) -> bool {
            true
        }
        async fn ack(self: Box<Self>) -> bool {
            self.0.store(true, Ordering::Relaxed);
            true
        }
    }
    let is_acknowledged = Arc::new(AtomicBool::new(false));
    let delivery = Delivery {
        body: Bytes::from(json!({"subtool": "get_user", "arguments": {"user_id": SAM}}).to_string()),
        properties: Properties::default(),
        exchange: "okta.invocations".to_owned(),
        routing_key: "prod.bulk".to_owned(),
        source: Source::Work { connection: prod(), lane: Lane::Bulk },
        redelivered: false,
        receipt: Box::new(Receipted(Arc::clone(&is_acknowledged))),
    };
    (delivery, is_acknowledged)
}

#[tokio::test(start_paused = true)]
async fn a_message_ends_by_the_rules_that_it_was_taken_under() {
    let clock = Clock::starting_at(BEGIN.parse().unwrap());
    let mut org = Org::new(OrgSettings::default());
    org.script(InjectedFault::next(Trouble::Status(500)).on("GET", "/api/v1/users/{userId}").times(10, 0));
    let okta =
        Arc::new(SimulatedOkta::new(Arc::new(Mutex::new(org)), "token", clock, Duration::from_millis(100)));
    let broker = Broker::new([&prod()]);
    let worker = Arc::new(Worker::new(rules(&okta, clock, 3), Arc::<Broker>::clone(&broker), silent()));
    let (first, _) = delivery();
    tokio::join!(Arc::clone(&worker).take(first), async {
        sleep(Duration::from_millis(50)).await;
        worker.replace_rules(rules(&okta, clock, 2));
    });
    Arc::clone(&worker).take(delivery().0).await;
    let attempts = || body(&broker.pop(UNCLAIMED).expect("it is answered"))["attempts"].clone();
    assert_eq!((attempts(), attempts()), (json!(3), json!(2)));
}

#[tokio::test(start_paused = true)]
async fn a_message_of_a_connection_that_was_removed_meanwhile_is_left_to_others() {
    let clock = Clock::starting_at(BEGIN.parse().unwrap());
    let org = Arc::new(Mutex::new(Org::new(OrgSettings::default())));
    let okta = Arc::new(SimulatedOkta::new(org, "token", clock, Duration::ZERO));
    let broker = Broker::new([&prod()]);
    let worker = Arc::new(Worker::new(rules(&okta, clock, 1), Arc::<Broker>::clone(&broker), silent()));
    worker.replace_rules(Rules { connections: HashMap::new(), ..rules(&okta, clock, 1) });
    let (delivery, is_acknowledged) = delivery();
    Arc::clone(&worker).take(delivery).await;
    assert!(!is_acknowledged.load(Ordering::Relaxed));
    assert_eq!(broker.waiting(UNCLAIMED), 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_left_in_the_queues_of_a_removed_connection_is_answered_once_no_worker_serves_it() {
    let clock = Clock::starting_at(BEGIN.parse().unwrap());
    let org = Arc::new(Mutex::new(Org::new(OrgSettings::default())));
    let okta = Arc::new(SimulatedOkta::new(org, "token", clock, Duration::ZERO));
    let broker = Broker::new([&prod()]);
    let worker = Arc::new(Worker::new(rules(&okta, clock, 1), Arc::<Broker>::clone(&broker), silent()));
    let removed = || Source::Removed { connection: prod(), lane: Lane::Bulk };
    // It is served again: whoever is counted there will have the message.
    let (mut delivery, is_acknowledged) = self::delivery();
    delivery.source = removed();
    Arc::clone(&worker).take(delivery).await;
    assert!(!is_acknowledged.load(Ordering::Relaxed));
    worker.replace_rules(Rules { connections: HashMap::new(), ..rules(&okta, clock, 1) });
    let suspend = json!({ "subtool": "suspend_user", "arguments": { "user_id": SAM } }).to_string();
    for (redelivered, write, effect) in
        [(false, false, "none"), (true, false, "none"), (false, true, "none"), (true, true, "unknown")]
    {
        let (mut delivery, is_acknowledged) = self::delivery();
        (delivery.source, delivery.redelivered) = (removed(), redelivered);
        if write {
            delivery.body = Bytes::from(suspend.clone());
        }
        Arc::clone(&worker).take(delivery).await;
        assert!(is_acknowledged.load(Ordering::Relaxed));
        let answer = body(&broker.pop(UNCLAIMED).expect("it is answered"));
        let told = (&answer["error"]["code"], &answer["effect"], &answer["connection"]);
        assert_eq!(
            told,
            (&json!("unknown_connection"), &json!(effect), &json!(null)),
            "{redelivered} {write}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_pause_under_settings_that_are_gone_ends_by_itself() {
    let clock = Clock::starting_at(BEGIN.parse().unwrap());
    let mut org = Org::new(OrgSettings::default());
    let bad_token = Trouble::Code { status: 401, code: "E0000011".to_owned() };
    org.script(InjectedFault::next(bad_token).times(u32::MAX, 0));
    let org = Arc::new(Mutex::new(org));
    let okta = Arc::new(SimulatedOkta::new(Arc::clone(&org), "token", clock, Duration::ZERO));
    let broker = Broker::new([&prod()]);
    let old = rules(&okta, clock, 1);
    let mut connection = Connection::new(
        prod(),
        Arc::<SimulatedOkta>::clone(&okta),
        Arc::clone(&old.connections[&prod()].budget),
        AllowList::all(),
    );
    connection.breaker = Arc::clone(&old.connections[&prod()].breaker);
    let new =
        Rules { connections: HashMap::from([(prod(), Arc::new(connection))]), ..rules(&okta, clock, 1) };
    let worker = Arc::new(Worker::new(old, Arc::<Broker>::clone(&broker), silent()));
    let (delivery, _) = delivery();
    Arc::clone(&worker).take(delivery).await; // it is paused, and the message goes back
    let source = Source::Work { connection: prod(), lane: Lane::Bulk };
    assert!(!*worker.wants(&source).borrow());
    worker.replace_rules(new);
    sleep(Duration::from_secs(30)).await;
    assert!(*worker.wants(&source).borrow(), "nobody probes for it any more");
}
