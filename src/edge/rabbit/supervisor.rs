//! Keeps two connections alive: one takes messages, one publishes.
//!
//! lapin's own recovery stays off (it hands out stale deliveries and can wait for ever). On any doubt a
//! whole generation is torn down and built again: connect, declare, attach the publisher, consume. Acks
//! go on the consuming connection, because a broker short of memory stops reading the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use lapin::options::{BasicConsumeOptions, BasicQosOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Connection, Consumer, ErrorKind};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::domain::ids::{ConnectionName, Lane};
use crate::domain::mail::Source;
use crate::domain::topology::{Topology, source_queue};
use crate::policy::retry::RetryRules;
use crate::worker::event::{Event, Observer};
use crate::worker::ports::Inbox;

use super::connecting::{Way, close, own_user};
use super::consuming::{Consuming, HELD_PIECE_BYTES, InFlight};
use super::declare::{Undeclared, declare};
use super::doubt::Doubt;
use super::presence::Presence;
use super::publisher::Publisher;
use super::signals::Signals;
use super::{Gossips, Settings, turned};

/// How long declaring and consuming may take; a cluster without a majority does not answer at all.
const DECLARE_TIMEOUT: Duration = Duration::from_secs(30);

/// The waits between tries to reach the broker.
const RECONNECT: RetryRules =
    RetryRules { attempts_max: u32::MAX, base: Duration::from_millis(500), cap: Duration::from_secs(30) };

/// The shortest of these waits.
const RECONNECT_MIN: Duration = Duration::from_millis(250);

/// How long queues are consumed apart after the last message that could not be read.
const QUARANTINE: Duration = Duration::from_secs(30);

/// How long work in flight may go on after the worker is told to stop.
const DRAIN_MAX: Duration = Duration::from_secs(25);

/// Why the supervisor ended.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// The URI cannot be used.
    #[error("`broker.url` is not an AMQP URI: {0}")]
    Uri(String),
    /// The certificates cannot be read.
    #[error("failed to read `broker.ca_file`: {0}")]
    Ca(std::io::Error),
    /// The broker cannot be reached.
    #[error("failed to reach the broker: {0}")]
    Unreachable(String),
    /// The broker has something else than what the worker needs.
    #[error(transparent)]
    Topology(Undeclared),
    /// It was time to stop, and work was still going on.
    #[error("stopped with {0} messages in flight; the broker will deliver them again")]
    Abandoned(usize),
}

/// What keeps this worker among the others, each part until it fails; dropped, the worker has left.
type Company = JoinSet<Doubt>;

/// What is said when a part of it panicked.
const BUG: &str = "what keeps this worker among the others has a bug";

/// A queue, the channel it is consumed on, and its deliveries.
type Consumed = (Source, Channel, Consumer);

/// Owns both connections.
pub struct Supervisor {
    settings: Settings,
    way: Way,
    topology: Topology,
    sources: Vec<Source>,
    gossips: Gossips,
    signals: Arc<Signals>,
    publisher: Arc<Publisher>,
    inbox: Arc<dyn Inbox>,
    observer: Arc<dyn Observer>,
    held: Arc<Semaphore>,
    in_flight: Arc<InFlight>,
    /// Whether a delivery could not be read by lapin.
    unreadable: Arc<AtomicBool>,
}

impl Supervisor {
    /// A supervisor that consumes the lanes of the connections that are gossiped about.
    ///
    /// # Errors
    /// When the settings cannot be used.
    pub fn new(
        settings: Settings,
        gossips: Gossips,
        publisher: Arc<Publisher>,
        inbox: Arc<dyn Inbox>,
        observer: Arc<dyn Observer>,
    ) -> Result<Self, Ended> {
        let mut connections: Vec<ConnectionName> = gossips.keys().cloned().collect();
        connections.sort();
        let lanes = connections.iter().flat_map(|connection| {
            Lane::ALL.map(|lane| Source::Work { connection: connection.clone(), lane })
        });
        let pieces = usize::try_from(settings.held_bytes_max).unwrap_or(usize::MAX) / HELD_PIECE_BYTES;
        Ok(Self {
            way: Way::new(&settings)?,
            signals: Arc::new(Signals::new(
                &own_user(settings.url.expose())?,
                gossips.clone(),
                Arc::clone(&observer),
            )),
            gossips,
            topology: Topology::of(connections.iter(), settings.dead_ttl),
            sources: lanes.chain([Source::Unrouted, Source::Undelivered]).collect(),
            held: Arc::new(Semaphore::new(pieces.clamp(1, Semaphore::MAX_PERMITS))),
            in_flight: Arc::default(),
            unreadable: Arc::default(),
            settings,
            publisher,
            inbox,
            observer,
        })
    }

    /// Consumes until `stopping` turns true, then lets work in flight finish.
    ///
    /// # Errors
    /// When the broker has other queues than the worker needs, or work had to be abandoned.
    pub async fn run(&self, mut stopping: watch::Receiver<bool>) -> Result<(), Ended> {
        let _telling = self.signals.go_on_telling(&self.publisher);
        let mut failures = 0;
        loop {
            let mut doubt = self.generation(&mut stopping).await;
            if self.unreadable.swap(false, Ordering::AcqRel) && !matches!(doubt, Doubt::Stopping) {
                match self.quarantine(&mut stopping).await {
                    Ok(()) => continue,
                    Err(ended) => doubt = ended,
                }
            }
            let why = match doubt {
                Doubt::Stopping => break,
                Doubt::Undeclared(Undeclared::Wrong(why)) if failures == 0 => {
                    return Err(Ended::Topology(Undeclared::Wrong(why)));
                }
                Doubt::Undeclared(undeclared) => undeclared.to_string(),
                Doubt::Unreachable(why) => why,
                Doubt::Lost(why) => {
                    failures = 0; // it was there a moment ago
                    why.to_owned()
                }
            };
            failures += 1;
            self.observer.note(&Event::Broker { connected: false, why: &why });
            let wait = RECONNECT.wait(failures, fastrand::f64()).max(RECONNECT_MIN);
            tokio::select! {
                () = sleep(wait) => {}
                () = turned(&mut stopping) => break,
            }
        }
        self.observer.note(&Event::Broker { connected: false, why: "stopping" });
        match self.in_flight.count() {
            0 => Ok(()),
            left => Err(Ended::Abandoned(left)),
        }
    }

    /// One life of the two connections.
    async fn generation(&self, stopping: &mut watch::Receiver<bool>) -> Doubt {
        let connected = tokio::select! {
            connected = self.connect() => connected,
            () = turned(stopping) => return Doubt::Stopping,
        };
        let (consuming, publishing) = match connected {
            Ok(connections) => connections,
            Err(doubt) => return doubt,
        };
        let doubt = Arc::new(Notify::new());
        self.publisher.attach(publishing, Arc::clone(&doubt));
        let mut company = Company::new();
        let consumed = match timeout(DECLARE_TIMEOUT, self.consume(&consuming, &mut company)).await {
            Ok(consumed) => consumed,
            Err(_) => Err(silent()),
        };
        let ended = match consumed {
            Ok(consumers) => {
                self.observer.note(&Event::Broker { connected: true, why: "declared and consuming" });
                self.attend(consumers, &mut company, &doubt, stopping).await
            }
            Err(doubt) => doubt,
        };
        self.publisher.detach().await;
        drop(company); // last: as long as anything was in flight, the others had to count this worker
        // What is not acknowledged by now goes back to its queue.
        close(&consuming).await;
        ended
    }

    /// Opens one connection. An unreadable delivery on it is remembered: lapin reports it to whatever
    /// happens to be going on.
    async fn open(&self, role: &str) -> Result<Connection, Doubt> {
        let connection = self.way.connect(role).await.map_err(Doubt::Unreachable)?;
        let (mut events, unreadable) = (connection.events_listener(), Arc::clone(&self.unreadable));
        tokio::spawn(async move {
            while let Some(event) = events.next().await {
                if matches!(&event, lapin::Event::Error(error) if matches!(error.kind(), ErrorKind::ParsingError(_)))
                {
                    unreadable.store(true, Ordering::Release);
                }
            }
        });
        Ok(connection)
    }

    async fn connect(&self) -> Result<(Connection, Connection), Doubt> {
        Ok((self.open("consuming").await?, self.open("publishing").await?))
    }

    /// Declares everything, joins the other workers, and only then starts the consumers.
    async fn consume(&self, connection: &Connection, company: &mut Company) -> Result<Vec<Consumed>, Doubt> {
        let channel = connection.create_channel().await.map_err(Doubt::unreachable)?;
        declare(&channel, &self.topology, !self.settings.declare).await.map_err(Doubt::Undeclared)?;
        self.join(connection, company).await?;
        let mut consumers = Vec::new();
        for source in &self.sources {
            consumers.push(consume(connection, source, self.settings.prefetch).await?);
        }
        Ok(consumers)
    }

    /// Takes this worker's place among the others: it hears them, and then is counted.
    async fn join(&self, connection: &Connection, company: &mut Company) -> Result<(), Doubt> {
        if let Some(listening) = self.signals.listen(connection).await? {
            company.spawn(listening.keep());
        }
        let channel = connection.create_channel().await.map_err(Doubt::unreachable)?;
        for (connection, gossip) in &self.gossips {
            company.spawn(Presence::announce(&channel, connection, Arc::clone(gossip)).await?.keep());
        }
        Ok(())
    }

    fn consuming(&self, source: Source, channel: Channel, halt: watch::Receiver<bool>) -> Consuming {
        Consuming {
            source,
            channel,
            inbox: Arc::clone(&self.inbox),
            held: Arc::clone(&self.held),
            in_flight: Arc::clone(&self.in_flight),
            halt,
        }
    }

    /// Consumes each queue by a connection of its own, one message at a time.
    ///
    /// A message whose properties are not UTF-8 breaks lapin's connection as often as it is delivered,
    /// and all that came with it go back to their queues, each time one delivery nearer to their limit.
    /// Kept apart, it breaks only its own queue's connection until the broker gives it up.
    async fn quarantine(&self, stopping: &mut watch::Receiver<bool>) -> Result<(), Doubt> {
        self.observer
            .note(&Event::Broker { connected: true, why: "a message cannot be read: consuming one by one" });
        let (presence, publishing) = (self.open("presence").await?, self.open("publishing").await?);
        let mut company = Company::new();
        timeout(DECLARE_TIMEOUT, self.join(&presence, &mut company)).await.map_err(|_| silent())??;
        let doubt = Arc::new(Notify::new());
        self.publisher.attach(publishing, Arc::clone(&doubt));
        let halt = watch::Sender::new(false);
        let broken = Arc::new(Notify::new());
        let lanes = self.sources.iter().map(|source| self.keep_apart(source, &halt, &broken));
        let quiet = async { while timeout(QUARANTINE, broken.notified()).await.is_ok() {} };
        let ended = tokio::select! {
            _ = futures_util::future::join_all(lanes) => Ok(()),
            () = quiet => Ok(()),
            () = doubt.notified() => Err(Doubt::Lost("the publishing connection failed")),
            Some(left) = company.join_next() => Err(left.unwrap_or(Doubt::Lost(BUG))),
            () = turned(stopping) => Err(Doubt::Stopping),
        };
        halt.send_replace(true);
        let _ = timeout(DRAIN_MAX, self.in_flight.finished()).await;
        self.publisher.detach().await;
        drop(company);
        close(&presence).await;
        ended
    }

    /// Consumes one queue through one connection after the other.
    async fn keep_apart(&self, source: &Source, halt: &watch::Sender<bool>, broken: &Notify) {
        while !*halt.borrow() {
            let consumed = async {
                let connection = self.open("consuming apart").await?;
                let consumed = timeout(DECLARE_TIMEOUT, consume(&connection, source, 1)).await;
                let (source, channel, consumer) = consumed.map_err(|_| Doubt::Lost("no answer"))??;
                self.consuming(source, channel, halt.subscribe()).run(consumer).await;
                Result::<_, Doubt>::Ok(connection)
            };
            let _ = consumed.await;
            broken.notify_one();
            sleep(RECONNECT_MIN).await;
        }
    }

    /// Hands deliveries over until something ends.
    async fn attend(
        &self,
        consumers: Vec<Consumed>,
        company: &mut Company,
        doubt: &Arc<Notify>,
        stopping: &mut watch::Receiver<bool>,
    ) -> Doubt {
        let halt = watch::Sender::new(false);
        let mut lanes = JoinSet::new();
        for (source, channel, consumer) in consumers {
            lanes.spawn(self.consuming(source, channel, halt.subscribe()).run(consumer));
        }
        let ended = tokio::select! {
            _ = lanes.join_next() => Doubt::Lost("a consumer ended"),
            () = doubt.notified() => Doubt::Lost("the publishing connection failed"),
            Some(left) = company.join_next() => left.unwrap_or(Doubt::Lost(BUG)),
            () = turned(stopping) => Doubt::Stopping,
        };
        halt.send_replace(true);
        if matches!(ended, Doubt::Stopping) {
            while lanes.join_next().await.is_some() {}
            let _ = timeout(DRAIN_MAX, self.in_flight.finished()).await;
        } else {
            lanes.abort_all();
        }
        ended
    }
}

fn silent() -> Doubt {
    Doubt::Unreachable("the broker does not answer".to_owned())
}

/// Starts consuming a queue on a channel of its own.
async fn consume(connection: &Connection, source: &Source, prefetch: u16) -> Result<Consumed, Doubt> {
    let channel = connection.create_channel().await.map_err(Doubt::unreachable)?;
    channel.basic_qos(prefetch, BasicQosOptions::default()).await.map_err(Doubt::unreachable)?;
    let (queue, tag) = (ShortString::from(source_queue(source)), ShortString::default());
    let options = BasicConsumeOptions::default();
    let consumer = channel
        .basic_consume(queue, tag, options, FieldTable::default())
        .await
        .map_err(Doubt::unreachable)?;
    Ok((source.clone(), channel, consumer))
}
