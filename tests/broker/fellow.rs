//! A worker's edge inside the test: a real supervisor whose gossip and inbox write down what reaches them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use okta_worker::budget::gossip::{Census, Gossip};
use okta_worker::budget::pure::signal::Signal;
use okta_worker::domain::ids::{ConnectionName, Lane};
use okta_worker::domain::message::{Delivery, Publish, Published, Source, Unpublished};
use okta_worker::domain::secret::Secret;
use okta_worker::event::{Event, Observer};
use okta_worker::rabbit::{BrokerSettings, Gossips, Publisher, Supervisor, SupervisorEnd};
use okta_worker::worker::ports::{Inbox, Outbox as _};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The connections of every fellow, as those of every worker process.
pub const CONNECTIONS: [&str; 2] = ["prod", "other"];

/// One thing that reached a fellow.
#[derive(Debug, Clone, PartialEq)]
pub enum Note {
    /// The broker has counted for a connection.
    Counted(&'static str, Census),
    /// A signal of a connection came.
    Heard(&'static str, Signal),
    /// A message was taken.
    Taken,
    /// The broker does not let it hear or tell.
    Refused(String),
    /// What it has taken could no longer be acknowledged.
    Unsettled,
    /// A queue was deleted, with so many messages in hand and waiting.
    Deleted(String, usize, u32),
    /// Its presence queue of a connection cannot be used.
    Uncounted(String),
    /// It has found the broker, or lost it, and why.
    Broker(bool, String),
}

/// A running supervisor.
pub struct Fellow {
    notes: Notes,
    telling: [Arc<Telling>; 2],
    gossips: watch::Sender<Gossips>,
    publisher: Arc<Publisher>,
    stop: CancellationToken,
    running: JoinHandle<Result<(), SupervisorEnd>>,
}

#[derive(Clone)]
struct Notes {
    notes: Arc<Mutex<Vec<Note>>>,
    /// How often it said that it consumes.
    generations: Arc<AtomicUsize>,
    /// Whether it wants messages of `prod.bulk`.
    wants: watch::Sender<bool>,
    /// Whether it finishes what it has taken.
    finishes: watch::Sender<bool>,
}

impl Notes {
    fn all(&self) -> MutexGuard<'_, Vec<Note>> {
        locked(&self.notes)
    }
}

impl Default for Notes {
    fn default() -> Self {
        let yes = || watch::Sender::new(true);
        Self { notes: Arc::default(), generations: Arc::default(), wants: yes(), finishes: yes() }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The gossip of one connection: tells what the test wants it to.
struct Telling {
    connection: &'static str,
    notes: Notes,
    signals: Mutex<Vec<Signal>>,
    news: Notify,
}

#[async_trait]
impl Gossip for Telling {
    async fn news(&self) {
        self.news.notified().await;
    }

    fn tell(&self) -> Vec<Signal> {
        std::mem::take(&mut locked(&self.signals))
    }

    fn hear(&self, signal: &Signal) {
        self.notes.all().push(Note::Heard(self.connection, signal.clone()));
    }

    fn counted(&self, census: Census) {
        self.notes.all().push(Note::Counted(self.connection, census));
    }
}

impl Inbox for Notes {
    fn take(self: Arc<Self>, delivery: Delivery) -> BoxFuture<'static, ()> {
        self.all().push(Note::Taken);
        Box::pin(async move {
            let mut finishes = self.finishes.subscribe();
            finishes.wait_for(|finishes| *finishes).await.expect("the sender is held here");
            if !delivery.receipt.is_live() || !delivery.receipt.ack().await {
                self.all().push(Note::Unsettled);
            }
        })
    }

    fn wants(&self, source: &Source) -> watch::Receiver<bool> {
        match source {
            Source::Work { connection, lane: Lane::Bulk } if connection.as_str() == "prod" => {
                self.wants.subscribe()
            }
            Source::Work { .. } | Source::Removed { .. } | Source::Unrouted | Source::Undelivered => {
                watch::channel(true).1
            }
        }
    }
}

impl Observer for Notes {
    fn note(&self, event: &Event<'_>) {
        match event {
            Event::SignalsRefused { why } => self.all().push(Note::Refused((*why).to_owned())),
            Event::QueueDeleted { queue, in_hand, waiting } => {
                self.all().push(Note::Deleted((*queue).to_owned(), *in_hand, *waiting));
            }
            Event::Uncounted { why, .. } => self.all().push(Note::Uncounted((*why).to_owned())),
            Event::Broker { connected, why } => {
                self.generations.fetch_add(usize::from(*connected), Ordering::Relaxed);
                self.all().push(Note::Broker(*connected, (*why).to_owned()));
            }
            _ => {}
        }
    }
}

impl Fellow {
    /// Starts one that comes to the broker by this URL.
    pub fn start(url: &str) -> Self {
        let settings = BrokerSettings {
            url: Secret::new(url),
            other_urls: Vec::new(),
            management: None,
            ca_file: None,
            prefetch: 4,
            held_bytes_max: 1024 * 1024,
            declare: true,
            dead_ttl: Duration::from_secs(14 * 86_400),
            dead_max: okta_worker::domain::topology::DEAD_MAX,
        };
        let notes = Notes::default();
        let telling = CONNECTIONS.map(|connection| {
            let (notes, signals, news) = (notes.clone(), Mutex::default(), Notify::new());
            Arc::new(Telling { connection, notes, signals, news })
        });
        let gossips: Gossips = telling
            .iter()
            .map(|telling| {
                let name = ConnectionName::parse(telling.connection).expect("a good name");
                (name, Arc::clone(telling) as Arc<dyn Gossip>)
            })
            .collect();
        let stop = CancellationToken::new();
        let publisher = Arc::new(Publisher::new(stop.clone()));
        let (inbox, observer) = (Arc::new(notes.clone()), Arc::new(notes.clone()));
        let gossips = watch::Sender::new(gossips);
        let supervisor =
            Supervisor::new(settings, gossips.subscribe(), Arc::clone(&publisher), inbox, observer);
        let supervisor = supervisor.expect("the settings are good");
        let stopping = stop.clone();
        let running = tokio::spawn(async move { supervisor.run(stopping).await });
        Self { notes, telling, gossips, publisher, stop, running }
    }

    /// What has reached it so far.
    pub fn notes(&self) -> Vec<Note> {
        self.notes.all().clone()
    }

    /// Whether it has found the broker and not lost it since.
    pub fn is_connected(&self) -> bool {
        let is_connected = |note: &Note| match note {
            Note::Broker(connected, _) => Some(*connected),
            _ => None,
        };
        self.notes().iter().rev().find_map(is_connected) == Some(true)
    }

    /// Has it publish a message; what became of it.
    pub fn post(&self, post: Publish) -> JoinHandle<Result<Published, Unpublished>> {
        let publisher = Arc::clone(&self.publisher);
        tokio::spawn(async move { publisher.post(&post).await })
    }

    /// The last count of `prod`.
    pub fn census(&self) -> Option<Census> {
        self.notes().iter().rev().find_map(|note| match note {
            Note::Counted("prod", census) => Some(*census),
            _ => None,
        })
    }

    /// How many workers of `prod` it knows of.
    pub fn workers(&self) -> u32 {
        self.census().map_or(0, |census| census.workers)
    }

    /// Whether it has heard this signal of a connection.
    pub fn has_heard(&self, connection: &'static str, signal: &Signal) -> bool {
        self.notes().contains(&Note::Heard(connection, signal.clone()))
    }

    /// Has it tell a signal of a connection. It may be lost.
    pub fn tell(&self, connection: &str, signal: &Signal) {
        let telling = self.telling.iter().find(|telling| telling.connection == connection);
        let telling = telling.expect("it is a connection of all fellows");
        locked(&telling.signals).push(signal.clone());
        telling.news.notify_one();
    }

    /// Whether it has taken away everything that it was to tell.
    pub fn has_told(&self) -> bool {
        self.telling.iter().all(|telling| locked(&telling.signals).is_empty())
    }

    /// How many messages it has taken.
    pub fn taken(&self) -> usize {
        self.notes.all().iter().filter(|note| **note == Note::Taken).count()
    }

    /// How often it has said that it consumes.
    pub fn generations(&self) -> usize {
        self.notes.generations.load(Ordering::Relaxed)
    }

    /// Whether it wants messages of `prod.bulk` from now on.
    pub fn want(&self, wants: bool) {
        self.notes.wants.send_replace(wants);
    }

    /// Whether it finishes what it takes, from now on.
    pub fn finish(&self, finishes: bool) {
        self.notes.finishes.send_replace(finishes);
    }

    /// The connections that it serves, which the test may change.
    pub fn gossips(&self) -> &watch::Sender<Gossips> {
        &self.gossips
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&self) -> bool {
        self.running.is_finished()
    }

    /// Tells it to stop.
    pub fn tell_to_stop(&self) {
        self.stop.cancel();
    }

    /// Tells it to stop and waits until it has.
    pub async fn stop(self) {
        self.tell_to_stop();
        self.running.await.expect("it does not panic").expect("nothing is left undone");
    }
}
