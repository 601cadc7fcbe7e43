//! Messages put aside lie in RabbitMQ's own delay tiers and come back out of them.
//!
//! The worker runs in this process, so that its budget can be one that turns messages away.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use lapin::options::{ExchangeDeleteOptions, QueueDeleteOptions};
use lapin::types::{AMQPValue, FieldTable};
use okta_worker::budget::gate::{Gate, GateSettings};
use okta_worker::budget::gossip::Gossip;
use okta_worker::budget::permit::{Ask, Budget, NotNow, Permit, WhenBusy};
use okta_worker::budget::pure::window::QuotaShare;
use okta_worker::domain::ids::ConnectionName;
use okta_worker::domain::message::{Delivery, HeaderValue, Headers, Properties};
use okta_worker::domain::secret::Secret;
use okta_worker::domain::topology::INVOCATIONS;
use okta_worker::embedded::okta::SimulatedOkta;
use okta_worker::event::{Event, Observer};
use okta_worker::policy::authorization::{AllowList, Callers};
use okta_worker::policy::backoff::RetryRules;
use okta_worker::policy::reply_to::ReplyPolicy;
use okta_worker::rabbit::{BrokerSettings, Publisher, Supervisor, own_user};
use okta_worker::sandbox::{self, Org};
use okta_worker::worker::clock::Clock;
use okta_worker::worker::ports::Inbox;
use okta_worker::worker::{Connection, Rules, Worker};
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::caller::{Caller, Message, text, texts};
use super::child::LOOK_AGAIN;
use super::node::{Place, User};

const TIER: &str = "okta.delay.1s";

/// A budget that turns away so many who may come again.
struct Crowded {
    left: AtomicUsize,
    gate: Arc<Gate>,
}

#[async_trait]
impl Budget for Crowded {
    async fn admit(&self, ask: Ask<'_>) -> Result<Permit, NotNow> {
        let one_less = |left: usize| left.checked_sub(1);
        let is_turned_away = ask.when_busy == WhenBusy::Delay
            && self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok();
        if is_turned_away { Err(NotNow::Delay(Duration::from_secs(1))) } else { self.gate.admit(ask).await }
    }
}

/// Writes down with which properties each message came.
struct Seen {
    worker: Arc<Worker>,
    properties: Mutex<Vec<Properties>>,
    /// By how much the time that a copy lay aside was off what its tier says.
    errors: Mutex<Vec<SignedDuration>>,
}

impl Inbox for Seen {
    fn take(self: Arc<Self>, delivery: Delivery) -> BoxFuture<'static, ()> {
        let headers = &delivery.properties.headers;
        if let Some(since) = headers.get("okta-aside-since").and_then(HeaderValue::as_int) {
            let lay = Timestamp::now().duration_since(Timestamp::from_millisecond(since).unwrap());
            self.errors.lock().unwrap().push(lay - SignedDuration::from_secs(1));
        }
        self.properties.lock().unwrap().push(delivery.properties.clone());
        Arc::clone(&self.worker).take(delivery)
    }
}

/// Says when everything is declared and consumed.
struct Ready(watch::Sender<bool>);

impl Observer for Ready {
    fn note(&self, event: &Event<'_>) {
        if let Event::Broker { connected, .. } = event {
            self.0.send_replace(*connected);
        }
    }
}

/// A worker on the real broker, with an org of its own.
struct Running {
    seen: Arc<Seen>,
    ready: watch::Receiver<bool>,
    stop: CancellationToken,
    ended: JoinHandle<()>,
}

impl Running {
    /// A worker whose budget turns away so many.
    fn start(place: &Place, turns_away: usize) -> Self {
        let url = place.url(User::Worker);
        let prod = ConnectionName::parse("prod").unwrap();
        let org = Arc::new(Mutex::new(Org::new(sandbox::OrgSettings::default())));
        let (ready, is_ready) = watch::channel(false);
        let observer: Arc<dyn Observer> = Arc::new(Ready(ready));
        let share = QuotaShare { capacity_percent: 90, length: Duration::from_secs(60) };
        let gate = Gate::new(GateSettings::new(prod.clone(), share), Arc::clone(&observer));
        let gossips = HashMap::from([(prod.clone(), Arc::<Gate>::clone(&gate) as Arc<dyn Gossip>)]);
        let okta = Arc::new(SimulatedOkta::new(org, "token", Clock::Machine, Duration::ZERO));
        let budget = Arc::new(Crowded { left: AtomicUsize::new(turns_away), gate });
        let connection = Connection::new(prod.clone(), okta, budget, AllowList::all());
        let stopping = CancellationToken::new();
        let rules = Rules {
            connections: HashMap::from([(prod.clone(), Arc::new(connection))]),
            callers: Callers::default(),
            reply_to: ReplyPolicy::default(),
            own_user: Some(own_user(&url).unwrap()),
            interactive_deadline: Duration::from_secs(600),
            list_time_max: Duration::from_secs(600),
            retry: RetryRules::default(),
            clock: Clock::Machine,
            stopping: stopping.clone(),
        };
        let publisher = Arc::new(Publisher::new(stopping.clone()));
        let worker = Arc::new(Worker::new(rules, Arc::<Publisher>::clone(&publisher), Arc::clone(&observer)));
        let seen = Arc::new(Seen { worker, properties: Mutex::default(), errors: Mutex::default() });
        let settings = BrokerSettings {
            url: Secret::new(&url),
            other_urls: Vec::new(),
            management: None,
            ca_file: None,
            prefetch: 8,
            held_bytes_max: 1 << 26,
            declare: true,
            dead_ttl: Duration::from_secs(60),
            dead_max: okta_worker::domain::topology::DEAD_MAX,
        };
        let inbox: Arc<dyn Inbox> = Arc::<Seen>::clone(&seen);
        let supervisor =
            Supervisor::new(settings, watch::channel(gossips).1, publisher, inbox, observer).unwrap();
        let stop = stopping.clone();
        let ended = tokio::spawn(async move { supervisor.run(stopping).await.unwrap() });
        Self { seen, ready: is_ready, stop, ended }
    }

    /// A producer, as soon as everything is declared and consumed.
    async fn caller(&self, place: &Place) -> Caller {
        let ready = self.ready.clone().wait_for(|ready| *ready).await.map(|_| ());
        ready.unwrap();
        Caller::new(&place.url(User::Operator)).await
    }

    /// How the messages came so far.
    fn seen(&self) -> Vec<Properties> {
        self.seen.properties.lock().unwrap().clone()
    }

    async fn stop(self) {
        self.stop.cancel();
        self.ended.await.unwrap();
    }
}

/// What must be the same in every copy: all but the times, and what the broker calls the latest of equals.
fn lasting(mut properties: Properties) -> Properties {
    for name in ["okta-aside-since", "okta-waited-ms", "okta-age-ms", "okta-expires-in-ms", "x-death"] {
        assert!(properties.headers.remove(name).is_some(), "{name}");
    }
    properties
}

/// The queue and count of each entry in `x-death`.
fn deaths(headers: &Headers) -> Vec<(String, i64)> {
    let Some(HeaderValue::List(deaths)) = headers.get("x-death") else { return Vec::new() };
    let entry = |death: &HeaderValue| {
        let HeaderValue::Table(death) = death else { panic!("{death:?}") };
        (death["queue"].as_text().unwrap().to_owned(), death["count"].as_int().unwrap())
    };
    deaths.iter().map(entry).collect()
}

#[tokio::test]
async fn a_message_goes_round_twice_and_its_caller_is_answered_where_it_waits() {
    let place = Place::take().await;
    let worker = Running::start(&place, 2);
    let mut caller = worker.caller(&place).await;
    let message = Message::new("prod.bulk", "list_groups", &json!({}))
        .header("traceparent", text("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"))
        .header("okta-caller", text("admin"))
        .header("okta-attempts", AMQPValue::LongLongInt(4))
        .header("CC", texts(&[]));
    let message = message.with(|properties| properties.with_expiration("60000".into()));
    let reply = caller.call(&message).await;
    let body = reply.body();
    assert_eq!((&body["status"], &body["attempts"]), (&json!("succeeded"), &json!(1)), "{body}");
    assert!(body["waited_ms"].as_u64() >= Some(2000), "{body}");
    assert_eq!(body["id_generated"], true);

    let seen = worker.seen();
    let [sent, once, twice] = seen.as_slice() else { panic!("it came {} times: {seen:?}", seen.len()) };
    assert_eq!(deaths(&once.headers), [(TIER.to_owned(), 1)]);
    assert_eq!(deaths(&twice.headers), [(TIER.to_owned(), 1)]);
    assert_eq!(lasting(once.clone()), lasting(twice.clone()));
    assert_eq!(once.message_id.as_deref(), body["id"].as_str());
    assert_eq!((&once.reply_to, &once.correlation_id), (&sent.reply_to, &sent.correlation_id));
    assert_eq!((&once.user_id, &once.expiration), (&own_user(&place.url(User::Worker)).ok(), &None));
    assert_eq!(once.headers["traceparent"], sent.headers["traceparent"]);
    assert_eq!(once.headers["okta-caller"], HeaderValue::Text(String::new()));
    assert_eq!(once.headers["okta-attempts"], HeaderValue::Int(0));
    assert!(!once.headers.contains_key("CC"));
    worker.stop().await;
}

#[tokio::test]
async fn each_message_put_aside_is_answered_once_on_its_reply_queue() {
    const MESSAGES: usize = 40;
    let place = Place::take().await;
    let worker = Running::start(&place, MESSAGES + 10);
    let caller = worker.caller(&place).await;
    caller.queue("answers", FieldTable::default(), None).await;
    let mut expected = Vec::new();
    for number in 0..MESSAGES {
        let id = format!("m{number:02}");
        let message = Message::new("prod.bulk", "list_groups", &json!({"limit": 1})).id(&id);
        caller.send(&message.answer_to("answers")).await;
        expected.push(id);
    }
    let mut answered = Vec::new();
    for _ in 0..MESSAGES {
        let body = caller.take("answers").await.body();
        assert_eq!(body["status"], "succeeded", "{body}");
        answered.push(body["id"].as_str().unwrap().to_owned());
    }
    answered.sort();
    assert_eq!(answered, expected);
    assert_eq!(worker.seen().len(), 2 * MESSAGES + 10);
    assert!(caller.look("answers").await.is_none());
    worker.stop().await;
}

#[tokio::test]
async fn a_tier_that_is_gone_keeps_messages_in_the_worker_and_loses_none() {
    let place = Place::take().await;
    let worker = Running::start(&place, 2);
    let mut caller = worker.caller(&place).await;
    let message = Message::new("prod", "list_groups", &json!({}));
    let channel = caller.open_channel().await;
    channel.queue_delete(TIER.into(), QueueDeleteOptions::default()).await.unwrap();
    assert_eq!(caller.call(&message).await.body()["status"], "succeeded");
    channel.exchange_delete(TIER.into(), ExchangeDeleteOptions::default()).await.unwrap();
    assert_eq!(caller.call(&message).await.body()["status"], "succeeded");
    assert_eq!(worker.seen().len(), 2);
    worker.stop().await;
}

#[tokio::test]
#[ignore = "takes some minutes"]
async fn ten_thousand_rounds_through_a_tier_drop_nothing_and_take_the_time_they_should() {
    const MESSAGES: usize = 200;
    const ROUNDS: usize = 10_000;
    let place = Place::take().await;
    let worker = Running::start(&place, ROUNDS);
    let caller = worker.caller(&place).await;
    caller.queue("answers", FieldTable::default(), None).await;
    for number in 0..MESSAGES {
        let message =
            Message::new("prod.bulk", "list_groups", &json!({"limit": 1})).id(&format!("m{number}"));
        caller.send(&message.answer_to("answers").with(|it| it.with_delivery_mode(2))).await;
    }
    let mut answered = HashSet::new();
    let deadline = Instant::now() + Duration::from_secs(900);
    while answered.len() < MESSAGES {
        assert!(Instant::now() < deadline, "{} of {MESSAGES} came back", answered.len());
        let Some(reply) = caller.look("answers").await else {
            tokio::time::sleep(LOOK_AGAIN).await;
            continue;
        };
        assert_eq!(reply.body()["status"], "succeeded", "{}", reply.body());
        assert!(answered.insert(reply.body()["id"].to_string()), "answered twice: {}", reply.body());
    }
    let errors = worker.seen.errors.lock().unwrap().clone();
    assert_eq!(errors.len(), ROUNDS);
    let worst = errors.into_iter().max().unwrap();
    println!("scenario 19: {ROUNDS} rounds of {MESSAGES} messages, none dropped, at most {worst:#} late");
    assert!(worst < SignedDuration::from_millis(1100), "{worst:#}");
    worker.stop().await;
}

#[tokio::test]
#[ignore = "takes some minutes"]
async fn what_comes_out_of_a_tier_while_its_target_is_missing_arrives_when_it_is_back() {
    const MESSAGES: usize = 50;
    let place = Place::take().await;
    let worker = Running::start(&place, 0);
    let caller = worker.caller(&place).await;
    worker.stop().await; // everything is declared
    caller.queue("answers", FieldTable::default(), None).await;
    let fellow = Caller::new(&place.url(User::Worker)).await;
    for number in 0..MESSAGES {
        let mut copy =
            Message::new("prod.bulk", "list_groups", &json!({"limit": 1})).id(&format!("m{number}"));
        TIER.clone_into(&mut copy.exchange);
        let own = own_user(&place.url(User::Worker)).unwrap();
        let copy = copy.answer_to("answers").header("okta-caller", text("operator"));
        fellow.send(&copy.with(|it| it.with_delivery_mode(2).with_user_id(own.into()))).await;
    }
    let channel = caller.open_channel().await;
    channel.exchange_delete(INVOCATIONS.into(), ExchangeDeleteOptions::default()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await; // what is to be seen is that nothing is lost meanwhile
    let back = Instant::now();
    let worker = Running::start(&place, 0);
    let mut answered = HashSet::new();
    while answered.len() < MESSAGES {
        assert!(back.elapsed() < Duration::from_secs(300), "{} of {MESSAGES} came back", answered.len());
        let Some(reply) = caller.look("answers").await else {
            tokio::time::sleep(LOOK_AGAIN).await;
            continue;
        };
        assert_eq!(reply.body()["status"], "succeeded", "{}", reply.body());
        answered.insert(reply.body()["id"].to_string());
    }
    println!(
        "scenario 20: {MESSAGES} arrived, the last {:.0} s after the exchange was back",
        back.elapsed().as_secs_f64()
    );
    worker.stop().await;
}
