//! A worker's edge inside the test: a real supervisor whose gossip and inbox write down what reaches them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use okta_worker::domain::ids::ConnectionName;
use okta_worker::domain::mail::Delivery;
use okta_worker::domain::secret::Secret;
use okta_worker::edge::rabbit::{Ended, Gossips, Publisher, Settings, Supervisor};
use okta_worker::policy::budget::signal::Signal;
use okta_worker::worker::event::Observers;
use okta_worker::worker::ports::{Census, Gossip, Inbox};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The connections of every fellow, as those of every worker process.
pub const CONNECTIONS: [&str; 2] = ["prod", "other"];

/// One thing that reached a fellow.
#[derive(Debug, Clone, PartialEq)]
pub enum Note {
    /// The broker has counted for a connection.
    Counted(&'static str, Census),
    /// A message was taken.
    Taken,
}

/// A running supervisor.
pub struct Fellow {
    notes: Notes,
    stop: watch::Sender<bool>,
    running: JoinHandle<Result<(), Ended>>,
}

#[derive(Clone, Default)]
struct Notes(Arc<Mutex<Vec<Note>>>);

impl Notes {
    fn all(&self) -> MutexGuard<'_, Vec<Note>> {
        locked(&self.0)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The gossip of one connection, with nothing to tell.
struct Counting {
    connection: &'static str,
    notes: Notes,
}

#[async_trait]
impl Gossip for Counting {
    async fn news(&self) {
        std::future::pending().await
    }

    fn tell(&self) -> Vec<Signal> {
        Vec::new()
    }

    fn hear(&self, _: &Signal) {}

    fn counted(&self, census: Census) {
        self.notes.all().push(Note::Counted(self.connection, census));
    }
}

#[async_trait]
impl Inbox for Notes {
    async fn take(&self, delivery: Delivery) {
        self.all().push(Note::Taken);
        delivery.receipt.ack().await;
    }
}

impl Fellow {
    /// Starts one that comes to the broker by this URL.
    pub fn start(url: &str) -> Self {
        let settings = Settings {
            url: Secret::new(url),
            ca_file: None,
            prefetch: 4,
            held_bytes_max: 1024 * 1024,
            declare: true,
            dead_ttl: Duration::from_secs(14 * 86_400),
        };
        let notes = Notes::default();
        let gossips: Gossips = CONNECTIONS
            .map(|connection| {
                let name = ConnectionName::parse(connection).expect("a good name");
                (name, Arc::new(Counting { connection, notes: notes.clone() }) as Arc<dyn Gossip>)
            })
            .into();
        let (stop, stopping) = watch::channel(false);
        let publisher = Arc::new(Publisher::new(stopping.clone()));
        let (inbox, observer) = (Arc::new(notes.clone()), Arc::new(Observers(Vec::new())));
        let supervisor = Supervisor::new(settings, gossips, publisher, inbox, observer);
        let supervisor = supervisor.expect("the settings are good");
        let running = tokio::spawn(async move { supervisor.run(stopping).await });
        Self { notes, stop, running }
    }

    /// What has reached it so far.
    pub fn notes(&self) -> Vec<Note> {
        self.notes.all().clone()
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

    /// Tells it to stop and waits until it has.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        self.running.await.expect("it does not panic").expect("nothing is left undone");
    }
}
