//! A worker with the real client, over a socket, and the callers who ask it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use okta_worker::budget::gate::{Gate, GateSettings};
use okta_worker::budget::pure::window::QuotaShare;
use okta_worker::domain::ids::ConnectionName;
use okta_worker::domain::message::Properties;
use okta_worker::domain::secret::Secret;
use okta_worker::embedded::broker::Broker;
use okta_worker::event::{Event, Observer};
use okta_worker::okta::{AnswerRoom, Credential, Endpoint, OktaClient, ROOM_BYTES_MIN, TokenType};
use okta_worker::policy::authorization::{AllowList, Callers};
use okta_worker::policy::backoff::RetryRules;
use okta_worker::policy::reply_to::ReplyPolicy;
use okta_worker::worker::clock::Clock;
use okta_worker::worker::ports::Inbox;
use okta_worker::worker::{Connection, Rules, Worker};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::server::Server;

/// What opens the org, and must not come out again.
pub const TOKEN: &str = "00planted-token-of-the-worker";

/// The user of the org.
pub const JANE: &str = "00u1abCdEfGhIjKlMnOp";

/// How often a request is tried here.
pub const ATTEMPTS: u32 = 2;

/// The largest answer taken with the least room, in bytes.
pub const ANSWER_BYTES_MAX: usize = 8 << 20;

/// How long a request may take here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// Longer than a slow machine takes.
    Usual,
    /// For servers that never end.
    Short,
}

const REPLIES: &str = "answers";

#[derive(Default)]
struct Seen {
    is_paused: AtomicBool,
    statuses: Mutex<Vec<Option<u16>>>,
}

impl Observer for Seen {
    fn note(&self, event: &Event<'_>) {
        match event {
            Event::Paused { .. } => self.is_paused.store(true, Ordering::Relaxed),
            Event::Requested { http_status, .. } => self.statuses.lock().unwrap().push(*http_status),
            _ => {}
        }
    }
}

/// A worker on a server's org.
pub struct World {
    pub server: Server,
    broker: Arc<Broker>,
    seen: Arc<Seen>,
    _consuming: JoinSet<()>,
}

impl World {
    pub fn open(server: Server, when_busy: Patience) -> Self {
        let name = ConnectionName::parse("prod").unwrap();
        let credential = Credential::Token { kind: TokenType::Ssws, token: Secret::new(TOKEN) };
        let request_max = match when_busy {
            Patience::Usual => Duration::from_secs(60),
            Patience::Short => Duration::from_millis(250),
        };
        let room = AnswerRoom::new(ROOM_BYTES_MIN);
        let endpoint = Endpoint { base_url: server.url(), credential };
        let client = OktaClient::within(&endpoint, &room, request_max).unwrap();
        let seen = Arc::<Seen>::default();
        let observer: Arc<dyn Observer> = Arc::<Seen>::clone(&seen);
        let share = QuotaShare { capacity_percent: 100, length: Duration::from_secs(60) };
        let budget = Arc::new(Gate::new(GateSettings::new(name.clone(), share), Arc::clone(&observer)));
        let connection = Connection::new(name.clone(), Arc::new(client), budget, AllowList::all());
        let broker = Broker::new([&name]);
        broker.declare(REPLIES);
        let rules = Rules {
            connections: HashMap::from([(name, Arc::new(connection))]),
            callers: Callers::default(),
            reply_to: ReplyPolicy::default(),
            own_user: Some("worker".to_owned()),
            interactive_deadline: Duration::from_secs(600),
            list_time_max: Duration::from_millis(500),
            retry: RetryRules {
                attempts_max: ATTEMPTS,
                base: Duration::from_millis(1),
                cap: Duration::from_millis(1),
            },
            clock: Clock::Machine,
            stopping: CancellationToken::new(),
        };
        let worker = Worker::new(rules, Arc::<Broker>::clone(&broker), observer);
        let inbox: Arc<dyn Inbox> = Arc::new(worker);
        let consuming = broker.consume(&inbox, 8);
        Self { server, broker, seen, _consuming: consuming }
    }

    /// Asks and waits for the answer.
    pub async fn ask(&self, subtool: &str, arguments: Value, options: Value) -> Value {
        let body = json!({ "subtool": subtool, "arguments": arguments, "options": options });
        let properties = Properties { reply_to: Some(REPLIES.to_owned()), ..Properties::default() };
        self.broker.publish("prod.interactive", properties, body.to_string());
        // Numbers beyond floating point are passed on as they came, and are more than `Value` holds.
        let body = String::from_utf8(self.broker.take(REPLIES).await.body.to_vec()).unwrap();
        serde_json::from_str(&body.replace("1e999999", "1e9").replace(&"9".repeat(400), "9")).unwrap()
    }

    /// Whether the connection was paused.
    pub fn is_paused(&self) -> bool {
        self.seen.is_paused.load(Ordering::Relaxed)
    }

    /// The statuses of the requests, as they are counted.
    pub fn statuses(&self) -> Vec<Option<u16>> {
        self.seen.statuses.lock().unwrap().clone()
    }
}
