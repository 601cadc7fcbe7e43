//! The whole worker in one process: an org, a queue, a clock that waits for nobody, and a tape.
//!
//! A story opens a world, sends messages, lets time pass and reads the tape. Invariant: a world ends only
//! by [`World::close`], which fails if any answer, parked message, fault on order or line of the tape was
//! left unread, or any message unsettled.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use http::HeaderValue;
use http::header::AUTHORIZATION;
use jiff::Timestamp;
use okta_worker::budget::gate::{Gate, GateSettings};
use okta_worker::budget::pure::window::QuotaShare;
use okta_worker::domain::bucket::Bucket;
use okta_worker::domain::http::{NoAnswer, Request, Response};
use okta_worker::domain::ids::{ConnectionName, Lane, UserKey};
use okta_worker::domain::message::{Delivery, Properties, Source};
use okta_worker::domain::topology::{DEAD, DELAY_TIERS, UNCLAIMED, UNROUTED, source_queue};
use okta_worker::embedded::broker::{Broker, Stored};
use okta_worker::embedded::okta::SimulatedOkta;
use okta_worker::event::Observer;
use okta_worker::policy::authorization::{AllowList, Callers};
use okta_worker::policy::backoff::RetryRules;
use okta_worker::policy::reply_to::ReplyPolicy;
use okta_worker::sandbox::{Handled, HttpCall, InjectedFault, Org, OrgSettings};
use okta_worker::worker::clock::Clock;
use okta_worker::worker::ports::{Inbox, Okta};
use okta_worker::worker::{Connection, Rules, Worker};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::app::{OrgWire, TestApp};
use crate::crowd::Crowd;
use crate::tape::Tape;

/// The user who is there in every org.
pub const SAM: &str = "sam.admin@example.com";

/// The worker's own broker user.
pub const WORKER: &str = "worker";

/// Where producers of these stories wait for their answers.
pub const REPLIES: &str = "answers";

/// When every story begins: not on a whole second, because Okta's windows never do.
pub const BEGIN: &str = "2026-03-02T09:00:00.4Z";

/// The longest a story runs until nothing happens any more.
const REST_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// What goes wrong between worker and Okta, where Okta does not know of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mishap {
    /// The request surely did not reach Okta.
    NotSent,
    /// The request reaches nobody, and after so long the worker gives it up.
    Hangs(Duration),
    /// Too many other requests are in flight.
    Crowded,
    /// The machine has no file to open.
    NoFiles,
    /// The answer is larger than any that is read.
    TooLarge,
    /// The port has a bug.
    Panic,
}

/// What of Okta's rate limit headers reaches the worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Headers {
    /// All of them as they are.
    Whole,
    /// None.
    Missing,
    /// All, and no number among them.
    Malformed,
}

impl Headers {
    fn pass(self, mut response: Response) -> Response {
        for name in ["x-rate-limit-limit", "x-rate-limit-remaining", "x-rate-limit-reset"] {
            match self {
                Self::Whole => {}
                Self::Missing => drop(response.headers.remove(name)),
                Self::Malformed => drop(response.headers.insert(name, HeaderValue::from_static("soon"))),
            }
        }
        response
    }
}

/// What a world is like.
pub struct Setup {
    /// The org.
    pub org: OrgSettings,
    /// The service app that the connection is opened by; without one, it has an API token.
    pub app: Option<TestApp>,
    /// What of the headers reaches the worker.
    pub headers: Headers,
    /// From sending to the whole answer.
    pub latency: Duration,
    /// Our share of each bucket.
    pub capacity_percent: u8,
    /// Messages of a lane in hand at once.
    pub prefetch: usize,
    /// What the connection enables.
    pub subtools: AllowList,
    /// Who may call.
    pub callers: Callers,
    /// How failures are retried.
    pub retry: RetryRules,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            org: OrgSettings::default(),
            app: None,
            headers: Headers::Whole,
            latency: Duration::from_millis(100),
            capacity_percent: 100,
            prefetch: 32,
            subtools: AllowList::all(),
            callers: Callers::default(),
            retry: RetryRules::default(),
        }
    }
}

impl Setup {
    /// The same, with so many requests per window in a bucket.
    pub fn limit(mut self, bucket: Bucket, limit: u32) -> Self {
        self.org.limits.insert(bucket, limit);
        self
    }

    /// Begins the story.
    pub fn open(self) -> World {
        World::new(self)
    }
}

/// The simulated org behind a wire that can break.
struct Wire {
    okta: SimulatedOkta,
    org: Arc<Mutex<Org>>,
    clock: Clock,
    headers: Headers,
    mishaps: Mutex<VecDeque<Mishap>>,
    /// Pages of this size, and larger ones, are answered 504.
    too_large: AtomicUsize,
}

/// The request as other clients of the org would send it.
fn call(request: &Request) -> HttpCall {
    let headers = [(AUTHORIZATION, HeaderValue::from_static("SSWS another"))];
    HttpCall {
        method: request.method.clone(),
        target: request.path_and_query(),
        headers: headers.into_iter().collect(),
        body: bytes::Bytes::new(),
    }
}

#[async_trait]
impl Okta for Wire {
    async fn send(&self, request: &Request) -> Result<Response, NoAnswer> {
        let size = request.query_value("limit").and_then(|limit| limit.parse::<usize>().ok());
        if size.is_some_and(|size| size >= self.too_large.load(Ordering::Relaxed)) {
            return Ok(Response::new(504, http::HeaderMap::new(), ""));
        }
        let mishap = self.mishaps.lock().unwrap().pop_front();
        match mishap {
            None => self.okta.send(request).await.map(|response| self.headers.pass(response)),
            Some(Mishap::NotSent) => Err(NoAnswer::NotSent("connection refused".to_owned())),
            Some(Mishap::Hangs(time)) => {
                tokio::time::sleep(time).await;
                Err(NoAnswer::MaybeSent("timed out".to_owned()))
            }
            Some(Mishap::Crowded) => {
                let call = call(request);
                let answer = self.org.lock().unwrap().answer_with(&call, self.clock.now(), usize::MAX);
                let Handled::Said(response) = answer else { panic!("a 429 is an answer") };
                Ok(response)
            }
            Some(Mishap::NoFiles) => Err(NoAnswer::Local("too many open files".to_owned())),
            Some(Mishap::TooLarge) => Err(NoAnswer::TooLarge(1000)),
            Some(Mishap::Panic) => panic!("a bug in the port"),
        }
    }
}

/// The workers that take turns on one queue: messages go to the latest.
struct Door {
    workers: Mutex<Vec<Arc<Worker>>>,
    inside: AtomicUsize,
}

impl Inbox for Door {
    fn take(self: Arc<Self>, delivery: Delivery) -> BoxFuture<'static, ()> {
        let worker = self.workers.lock().unwrap().last().expect("there is a worker").clone();
        self.inside.fetch_add(1, Ordering::Relaxed);
        let taken = worker.take(delivery);
        Box::pin(async move {
            taken.await;
            self.inside.fetch_sub(1, Ordering::Relaxed);
        })
    }

    fn wants(&self, source: &Source) -> watch::Receiver<bool> {
        self.workers.lock().unwrap().last().expect("there is a worker").wants(source)
    }
}

/// A story's world.
pub struct World {
    setup: Setup,
    org: Arc<Mutex<Org>>,
    broker: Arc<Broker>,
    wire: Arc<Wire>,
    door: Arc<Door>,
    crowd: Arc<Crowd>,
    tape: Arc<Tape>,
    /// Okta's.
    clock: Clock,
    /// The worker's.
    machine: Clock,
    set: &'static AtomicI64,
    stop: CancellationToken,
    sent: u32,
    closed: bool,
    _consuming: JoinSet<()>,
}

impl World {
    fn new(setup: Setup) -> Self {
        fastrand::seed(28);
        let begin = BEGIN.parse::<Timestamp>().unwrap();
        let clock = Clock::starting_at(begin);
        let set: &'static AtomicI64 = Box::leak(Box::default());
        let org = Arc::new(Mutex::new(Org::new(setup.org.clone())));
        let okta = SimulatedOkta::new(Arc::clone(&org), "token", clock, setup.latency);
        let headers = setup.headers;
        let wire = Wire {
            okta,
            org: Arc::clone(&org),
            clock,
            headers,
            mishaps: Mutex::default(),
            too_large: AtomicUsize::new(usize::MAX),
        };
        let broker = Broker::new([&prod()]);
        broker.declare(REPLIES);
        let door = Arc::new(Door { workers: Mutex::default(), inside: AtomicUsize::new(0) });
        let inbox: Arc<dyn Inbox> = Arc::<Door>::clone(&door);
        let consuming = broker.consume(&inbox, setup.prefetch);
        let mut world = Self {
            setup,
            org,
            broker,
            wire: Arc::new(wire),
            door,
            crowd: Arc::default(),
            tape: Arc::new(Tape::new()),
            clock,
            machine: Clock::set_by(begin, set),
            set,
            stop: CancellationToken::new(),
            sent: 0,
            closed: false,
            _consuming: consuming,
        };
        world.start_worker();
        world
    }

    /// A worker that has just started takes the messages from now on.
    fn start_worker(&mut self) {
        self.stop = CancellationToken::new();
        let observer: Arc<dyn Observer> = Arc::<Tape>::clone(&self.tape);
        let share =
            QuotaShare { capacity_percent: self.setup.capacity_percent, length: self.setup.org.window };
        let terms = GateSettings { prefetch: self.setup.prefetch, ..GateSettings::new(prod(), share) };
        let budget = Arc::new(self.crowd.before(Arc::new(Gate::new(terms, Arc::clone(&observer)))));
        let okta: Arc<dyn Okta> = match &self.setup.app {
            None => Arc::<Wire>::clone(&self.wire),
            Some(app) => Arc::new(app.client(OrgWire::new(&self.org, self.clock), self.machine)),
        };
        let subtools = self.setup.subtools.clone();
        let connection = Connection::new(prod(), okta, budget, subtools);
        let rules = Rules {
            connections: HashMap::from([(prod(), Arc::new(connection))]),
            callers: self.setup.callers.clone(),
            reply_to: ReplyPolicy::default(),
            own_user: Some(WORKER.to_owned()),
            interactive_deadline: Duration::from_secs(600),
            list_time_max: Duration::from_secs(600),
            retry: self.setup.retry,
            clock: self.machine,
            stopping: self.stop.clone(),
        };
        let worker = Worker::new(rules, Arc::<Broker>::clone(&self.broker), observer);
        self.door.workers.lock().unwrap().push(Arc::new(worker));
    }

    /// The worker is told to stop; what it hands back and what comes goes to a new one.
    pub fn replace_worker(&mut self) {
        let old = self.stop.clone();
        self.start_worker();
        old.cancel();
    }

    /// The same, and the clock of the new one's machine is so many seconds ahead.
    pub fn replace_worker_whose_clock_is_ahead(&mut self, seconds: i64) {
        let set: &'static AtomicI64 = Box::leak(Box::new(AtomicI64::new(seconds)));
        (self.machine, self.set) = (Clock::set_by(self.clock.now(), set), set);
        self.replace_worker();
    }

    /// The same, and the new one enables only these subtools.
    pub fn replace_worker_that_enables(&mut self, subtools: &[&str]) {
        self.setup.subtools = AllowList::parse(subtools).unwrap();
        self.replace_worker();
    }

    /// The org, for a moment.
    pub fn org(&self) -> MutexGuard<'_, Org> {
        self.org.lock().unwrap()
    }

    /// The arguments that put Sam into the group Sales.
    pub fn sam_into_sales(&self) -> Value {
        let org = self.org();
        let (sales, sam) = (org.group_id("Sales").unwrap(), org.user_id(SAM).unwrap());
        json!({ "group_id": sales.to_string(), "user_id": sam.to_string() })
    }

    /// The next request that fits fails like this.
    pub fn fault(&self, fault: InjectedFault) {
        self.org().script(fault);
    }

    /// The next request goes wrong like this.
    pub fn mishap(&self, mishap: Mishap) {
        self.wire.mishaps.lock().unwrap().push_back(mishap);
    }

    /// Okta fails at pages of this size and larger ones.
    pub fn fails_at_pages_of(&self, size: usize) {
        self.wire.too_large.store(size, Ordering::Relaxed);
    }

    /// Whoever asks for this bucket next, and may come again, is told to do so after so long.
    pub fn delay_for_budget(&self, bucket: Bucket, wait: Duration) {
        self.crowd.expect(bucket, wait);
    }

    /// The oldest message in a delay tier, which stays there.
    pub fn lying_in(&self, tier: &str) -> Stored {
        self.broker.head(tier).expect("there is a message in the tier")
    }

    /// Other clients of the org read the user, so many times.
    pub fn others_read(&self, times: usize) {
        let sam: UserKey = serde_json::from_value(json!(SAM)).unwrap();
        let call = call(&Request::get("/api/v1/users/{userId}", &[&sam]));
        for _ in 0..times {
            drop(self.org().answer(&call, self.clock.now()));
        }
    }

    /// An attribute of Sam's profile, as another client of the org reads it.
    pub fn of_sam(&self, attribute: &str) -> Value {
        let sam: UserKey = serde_json::from_value(json!(SAM)).unwrap();
        let call = call(&Request::get("/api/v1/users/{userId}", &[&sam]));
        let Handled::Said(response) = self.org().answer(&call, self.clock.now()) else {
            panic!("Sam is there")
        };
        let user: Value = serde_json::from_slice(&response.body).unwrap();
        user["profile"][attribute].clone()
    }

    /// How many messages lie in delay tiers.
    pub fn delayed(&self) -> usize {
        DELAY_TIERS.into_iter().map(|(tier, _)| self.broker.waiting(tier)).sum()
    }

    /// How many messages are in the queue of the bulk lane.
    pub fn queued(&self) -> usize {
        self.broker.waiting(&source_queue(&Source::Work { connection: prod(), lane: Lane::Bulk }))
    }

    /// How many messages are in the worker's hands.
    pub fn in_hand(&self) -> usize {
        self.door.inside.load(Ordering::Relaxed)
    }

    /// Nobody else is told to come again.
    pub fn forget_crowd(&self) {
        self.crowd.clear();
    }

    /// Somebody sets the clock of the worker's machine forward by so many seconds, or back.
    pub fn set_clock(&self, seconds: i64) {
        self.set.fetch_add(seconds, Ordering::Relaxed);
    }

    /// The time of day, by Okta's clock.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Somebody asks and waits for the answer.
    pub fn ask(&mut self, subtool: &str, arguments: Value) {
        self.send("prod.interactive", json!({ "subtool": subtool, "arguments": arguments }));
    }

    /// Somebody asks with this deadline.
    pub fn ask_by(&mut self, deadline: Timestamp, subtool: &str, arguments: Value) {
        let options = json!({ "deadline": deadline });
        let body = json!({ "subtool": subtool, "arguments": arguments, "options": options });
        self.send("prod.interactive", body);
    }

    /// A bulk message.
    pub fn ask_bulk(&mut self, subtool: &str, arguments: Value) {
        self.send("prod.bulk", json!({ "subtool": subtool, "arguments": arguments }));
    }

    /// Publishes a body with this key, to be answered to [`REPLIES`].
    pub fn send(&mut self, key: &str, body: Value) {
        let reply_to = Some(REPLIES.to_owned());
        self.send_raw(key, Properties { reply_to, ..Properties::default() }, body.to_string());
    }

    /// Publishes anything; ids are `m1`, `m2`, …
    pub fn send_raw(&mut self, key: &str, properties: Properties, body: impl Into<bytes::Bytes>) {
        self.sent += 1;
        let message_id = properties.message_id.or_else(|| Some(format!("m{}", self.sent)));
        self.broker.publish(key, Properties { message_id, ..properties }, body);
    }

    /// Publishes anything as if it had been delivered before and not acknowledged.
    pub fn send_again(&mut self, key: &str, properties: Properties, body: impl Into<bytes::Bytes>) {
        self.sent += 1;
        let message_id = properties.message_id.or_else(|| Some(format!("m{}", self.sent)));
        self.broker.publish_again(key, Properties { message_id, ..properties }, body);
    }

    /// The broker delivers a message again that it had handed out before, whatever became of it.
    pub fn hand_out_again(&self, stored: &Stored) {
        self.broker.publish_again(&stored.routing_key, stored.properties.clone(), stored.body.clone());
    }

    /// Somebody empties a queue.
    pub fn forget(&self, queue: &str) {
        while self.broker.pop(queue).is_some() {}
    }

    /// Publishes a message without an id.
    pub fn send_nameless(&mut self, key: &str, properties: Properties, body: impl Into<bytes::Bytes>) {
        self.broker.publish(key, Properties { message_id: None, ..properties }, body);
    }

    /// Somebody deletes a queue.
    pub fn without_queue(&self, queue: &str) {
        self.broker.delete(queue);
    }

    /// Time passes.
    pub async fn run_for(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    /// Time passes until every message is settled.
    pub async fn rest(&self) {
        /// Fine enough not to be seen on the tape.
        const STEP: Duration = Duration::from_millis(50);
        let begun = tokio::time::Instant::now();
        loop {
            tokio::time::sleep(STEP).await;
            if self.unsettled() == 0 {
                return;
            }
            assert!(begun.elapsed() < REST_MAX, "messages are still unsettled after a day:\n{}", self.tape());
        }
    }

    fn unsettled(&self) -> usize {
        let lanes = Lane::ALL.map(|lane| source_queue(&Source::Work { connection: prod(), lane }));
        let waiting = lanes.iter().map(String::as_str).chain([UNROUTED]);
        let waiting = waiting.chain(DELAY_TIERS.into_iter().map(|(tier, _)| tier));
        waiting.map(|queue| self.broker.waiting(queue)).sum::<usize>()
            + self.door.inside.load(Ordering::Relaxed)
    }

    /// What happened since the tape was last read, a line each.
    pub fn tape(&self) -> String {
        self.tape.read()
    }

    /// The oldest unread answer, as it lies in the broker.
    pub fn reply(&self) -> Stored {
        self.broker.pop(REPLIES).expect("there is an unread answer")
    }

    /// The oldest unread answer.
    pub fn answer(&self) -> Value {
        body(&self.reply())
    }

    /// The oldest unread answers, so many, each cut down to its id, status, effect and error code.
    pub fn answers(&self, count: usize) -> Vec<String> {
        (0..count).map(|_| brief(&self.answer())).collect()
    }

    /// The oldest unread result of those who named no reply queue, as it lies in the broker.
    pub fn result(&self) -> Stored {
        self.broker.pop(UNCLAIMED).expect("there is an unread result")
    }

    /// The oldest unread parked message.
    pub fn parked(&self) -> Stored {
        self.broker.pop(DEAD).expect("there is an unread parked message")
    }

    /// What Okta did, in order: `user.created`, ….
    pub fn effects(&self) -> Vec<&'static str> {
        self.org().effects().iter().map(|effect| effect.kind).collect()
    }

    /// Ends the story.
    pub fn close(mut self) {
        self.closed = true;
        assert_eq!(self.unsettled(), 0, "messages are unsettled:\n{}", self.tape());
        for queue in [REPLIES, UNCLAIMED, DEAD] {
            assert_eq!(self.broker.waiting(queue), 0, "messages in `{queue}` were left unread");
        }
        assert_eq!(self.org().faults_pending(), 0, "faults on order did not strike");
        assert!(self.crowd.is_gone(), "nobody came who was to come again");
        assert!(self.wire.mishaps.lock().unwrap().is_empty(), "mishaps on order did not strike");
        let unread = self.tape();
        assert!(unread.is_empty(), "the tape was left unread:\n{unread}");
    }
}

impl Drop for World {
    fn drop(&mut self) {
        assert!(self.closed || std::thread::panicking(), "a story ends with `world.close()`");
    }
}

/// The connection of every story.
pub fn prod() -> ConnectionName {
    ConnectionName::parse("prod").unwrap()
}

/// The JSON of a message.
pub fn body(stored: &Stored) -> Value {
    serde_json::from_slice(&stored.body).unwrap()
}

/// An answer as `m1 failed not_found none`.
pub fn brief(answer: &Value) -> String {
    let texts = [&answer["id"], &answer["status"], &answer["error"]["code"], &answer["effect"]];
    texts.into_iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ")
}
