//! Keeps two connections alive: one takes messages, one publishes.
//!
//! lapin's own recovery stays off (it hands out stale deliveries and can wait for ever). On any doubt a
//! whole generation is torn down and built again: connect, declare, attach the publisher, consume. Acks
//! go on the consuming connection, because a broker short of memory stops reading the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt as _;
use lapin::options::{BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::tcp::OwnedTLSConfig;
use lapin::types::{FieldTable, ShortString};
use lapin::uri::AMQPUri;
use lapin::{Connection, ConnectionProperties, Consumer, ErrorKind};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{sleep, timeout};

use crate::domain::ids::{ConnectionName, Lane};
use crate::domain::mail::{Delivery, Receipt, Source};
use crate::domain::topology::{Topology, source_queue};
use crate::policy::retry::RetryRules;
use crate::worker::event::{Event, Observer};
use crate::worker::ports::Inbox;

use super::convert::properties_in;
use super::declare::{Undeclared, declare};
use super::publisher::Publisher;
use super::{Settings, turned};

/// How long reaching the broker may take, the AMQP handshake included: a peer that accepts and stays
/// silent would otherwise hold the worker for ever.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long declaring and consuming may take; a cluster without a majority does not answer at all.
const DECLARE_TIMEOUT: Duration = Duration::from_secs(30);

/// The waits between tries to reach the broker.
const RECONNECT: RetryRules =
    RetryRules { attempts_max: u32::MAX, base: Duration::from_millis(500), cap: Duration::from_secs(30) };

/// How long work in flight may go on after the worker is told to stop.
const DRAIN_MAX: Duration = Duration::from_secs(25);

/// Messages are counted against the memory limit in pieces of this size, a small one as one piece.
const HELD_PIECE_BYTES: usize = 1024;

/// Why the supervisor ended.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// The URI cannot be used.
    #[error("`broker.url` is not an AMQP URI: {0}")]
    Uri(String),
    /// The certificates cannot be read.
    #[error("failed to read `broker.ca_file`: {0}")]
    Ca(std::io::Error),
    /// The broker has something else than what the worker needs.
    #[error(transparent)]
    Topology(Undeclared),
    /// It was time to stop, and work was still going on.
    #[error("stopped with {0} messages in flight; the broker will deliver them again")]
    Abandoned(usize),
}

/// Why one generation ended.
enum Doubt {
    Unreachable(String),
    Undeclared(Undeclared),
    Lost(&'static str),
    Stopping,
}

/// The broker user in the URI: the worker's own.
///
/// # Errors
/// When the text is no AMQP URI.
pub fn own_user(url: &str) -> Result<String, Ended> {
    uri(url).map(|uri| uri.authority.userinfo.username)
}

fn uri(url: &str) -> Result<AMQPUri, Ended> {
    // The parser's error may quote the URI with its password.
    url.parse::<AMQPUri>().map_err(|_| Ended::Uri("it does not parse".to_owned()))
}

/// Owns both connections.
pub struct Supervisor {
    settings: Settings,
    uri: AMQPUri,
    tls: OwnedTLSConfig,
    topology: Topology,
    sources: Vec<Source>,
    publisher: Arc<Publisher>,
    inbox: Arc<dyn Inbox>,
    observer: Arc<dyn Observer>,
    held: Arc<Semaphore>,
    in_flight: Arc<InFlight>,
}

/// Messages being worked on.
#[derive(Default)]
struct InFlight {
    count: AtomicUsize,
    changed: Notify,
}

impl Supervisor {
    /// A supervisor that consumes the lanes of these connections.
    ///
    /// # Errors
    /// When the settings cannot be used.
    pub fn new(
        settings: Settings,
        connections: &[ConnectionName],
        publisher: Arc<Publisher>,
        inbox: Arc<dyn Inbox>,
        observer: Arc<dyn Observer>,
    ) -> Result<Self, Ended> {
        let cert_chain =
            settings.ca_file.as_ref().map(std::fs::read_to_string).transpose().map_err(Ended::Ca)?;
        let lanes = connections.iter().flat_map(|connection| {
            Lane::ALL.map(|lane| Source::Work { connection: connection.clone(), lane })
        });
        let pieces = usize::try_from(settings.held_bytes_max).unwrap_or(usize::MAX) / HELD_PIECE_BYTES;
        Ok(Self {
            uri: uri(settings.url.expose())?,
            tls: OwnedTLSConfig { cert_chain, identity: None },
            topology: Topology::of(connections.iter(), settings.dead_ttl),
            sources: lanes.chain([Source::Unrouted, Source::Undelivered]).collect(),
            held: Arc::new(Semaphore::new(pieces.clamp(1, Semaphore::MAX_PERMITS))),
            in_flight: Arc::default(),
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
        let mut failures = 0;
        loop {
            let doubt = self.generation(&mut stopping).await;
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
            let wait = RECONNECT.wait(failures, fastrand::f64()).max(Duration::from_millis(250));
            tokio::select! {
                () = sleep(wait) => {}
                () = turned(&mut stopping) => break,
            }
        }
        self.observer.note(&Event::Broker { connected: false, why: "stopping" });
        match self.in_flight.count.load(Ordering::Acquire) {
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
        let consumed = match timeout(DECLARE_TIMEOUT, self.consume(&consuming)).await {
            Ok(consumed) => consumed,
            Err(_) => Err(Doubt::Unreachable("the broker does not answer".to_owned())),
        };
        let ended = match consumed {
            Ok(consumers) => {
                self.observer.note(&Event::Broker { connected: true, why: "declared and consuming" });
                self.attend(consumers, &doubt, stopping).await
            }
            Err(doubt) => doubt,
        };
        self.publisher.detach().await;
        // What is not acknowledged by now goes back to its queue.
        let _ = timeout(Duration::from_secs(1), consuming.close(200, "done".into())).await;
        ended
    }

    async fn connect(&self) -> Result<(Connection, Connection), Doubt> {
        let open = |role: &str| {
            let name = format!("okta-worker {role}");
            let options = ConnectionProperties::default().with_connection_name(name.into());
            let connecting = async move {
                let runtime = lapin::runtime::default_runtime()?;
                Connection::connect_uri_with_config(self.uri.clone(), options, self.tls.clone(), runtime)
                    .await
            };
            async move {
                match timeout(CONNECT_TIMEOUT, connecting).await {
                    Ok(Ok(connection)) => Ok(connection),
                    Ok(Err(error)) => Err(Doubt::Unreachable(explain(&error))),
                    Err(_) => Err(Doubt::Unreachable(format!("no answer within {CONNECT_TIMEOUT:?}"))),
                }
            }
        };
        let consuming = open("consuming").await?;
        let publishing = open("publishing").await?;
        Ok((consuming, publishing))
    }

    /// Declares everything and starts the consumers.
    async fn consume(
        &self,
        connection: &Connection,
    ) -> Result<Vec<(Source, lapin::Channel, Consumer)>, Doubt> {
        let failed = |error: lapin::Error| Doubt::Unreachable(explain(&error));
        let channel = connection.create_channel().await.map_err(failed)?;
        declare(&channel, &self.topology, !self.settings.declare).await.map_err(Doubt::Undeclared)?;
        let mut consumers = Vec::new();
        for source in &self.sources {
            let channel = connection.create_channel().await.map_err(failed)?;
            channel.basic_qos(self.settings.prefetch, BasicQosOptions::default()).await.map_err(failed)?;
            let queue = ShortString::from(source_queue(source));
            let options = BasicConsumeOptions::default();
            let consumer = channel
                .basic_consume(queue, ShortString::default(), options, FieldTable::default())
                .await
                .map_err(failed)?;
            consumers.push((source.clone(), channel, consumer));
        }
        Ok(consumers)
    }

    /// Hands deliveries over until something ends.
    async fn attend(
        &self,
        consumers: Vec<(Source, lapin::Channel, Consumer)>,
        doubt: &Arc<Notify>,
        stopping: &mut watch::Receiver<bool>,
    ) -> Doubt {
        let halt = watch::Sender::new(false);
        let mut lanes = tokio::task::JoinSet::new();
        for (source, channel, consumer) in consumers {
            let lane = Consuming {
                source,
                channel,
                inbox: Arc::clone(&self.inbox),
                held: Arc::clone(&self.held),
                in_flight: Arc::clone(&self.in_flight),
                halt: halt.subscribe(),
            };
            lanes.spawn(lane.run(consumer));
        }
        let ended = tokio::select! {
            _ = lanes.join_next() => Doubt::Lost("a consumer ended"),
            () = doubt.notified() => Doubt::Lost("the publishing connection failed"),
            () = turned(stopping) => Doubt::Stopping,
        };
        halt.send_replace(true);
        if matches!(ended, Doubt::Stopping) {
            while lanes.join_next().await.is_some() {}
            self.drain().await;
        } else {
            lanes.abort_all();
        }
        ended
    }

    /// Waits for the work in flight.
    async fn drain(&self) {
        let finished = async {
            loop {
                let changed = self.in_flight.changed.notified();
                if self.in_flight.count.load(Ordering::Acquire) == 0 {
                    return;
                }
                changed.await;
            }
        };
        let _ = timeout(DRAIN_MAX, finished).await;
    }
}

/// One queue being consumed.
struct Consuming {
    source: Source,
    channel: lapin::Channel,
    inbox: Arc<dyn Inbox>,
    held: Arc<Semaphore>,
    in_flight: Arc<InFlight>,
    halt: watch::Receiver<bool>,
}

impl Consuming {
    /// Hands each delivery to a task of its own, as long as there is room in memory.
    async fn run(mut self, mut consumer: Consumer) {
        let generation = Arc::new(AtomicBool::new(true));
        loop {
            let next = tokio::select! {
                next = consumer.next() => next,
                () = turned(&mut self.halt) => {
                    // No new deliveries; those that came and were not started go back when the channel closes.
                    let _ = self.channel.basic_cancel(consumer.tag(), BasicCancelOptions::default()).await;
                    return;
                }
            };
            let Some(Ok(delivery)) = next else {
                generation.store(false, Ordering::Release);
                return;
            };
            let pieces = (delivery.data.len() / HELD_PIECE_BYTES + 1).min(HELD_PIECES_MAX);
            let room = Arc::clone(&self.held)
                .acquire_many_owned(u32::try_from(pieces).expect("bounded above"))
                .await
                .expect("the room is never closed");
            let (inbox, in_flight) = (Arc::clone(&self.inbox), Arc::clone(&self.in_flight));
            let delivery = self.delivery(delivery, &generation);
            in_flight.count.fetch_add(1, Ordering::AcqRel);
            let leaving = Leaving(in_flight);
            tokio::spawn(async move {
                inbox.take(delivery).await;
                drop((room, leaving));
            });
        }
    }

    fn delivery(&self, mut delivery: lapin::message::Delivery, generation: &Arc<AtomicBool>) -> Delivery {
        Delivery {
            properties: properties_in(&delivery.properties),
            body: Bytes::from(std::mem::take(&mut delivery.data)),
            exchange: delivery.exchange.to_string(),
            routing_key: delivery.routing_key.to_string(),
            source: self.source.clone(),
            redelivered: delivery.redelivered,
            receipt: Box::new(Tag { delivery, generation: Arc::clone(generation) }),
        }
    }
}

/// One message takes at most this many pieces of the memory limit, so that a huge one cannot wait for
/// ever: it is refused by its size as soon as it is looked at.
const HELD_PIECES_MAX: usize = 1024;

/// Counts a message out when it is done, or its task panicked.
struct Leaving(Arc<InFlight>);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::AcqRel);
        self.0.changed.notify_waiters();
    }
}

/// The right to acknowledge one delivery.
struct Tag {
    /// The delivery without its body: it holds lapin's acker, which has no public name.
    delivery: lapin::message::Delivery,
    generation: Arc<AtomicBool>,
}

#[async_trait]
impl Receipt for Tag {
    fn is_live(&self) -> bool {
        self.generation.load(Ordering::Acquire) && self.delivery.usable()
    }

    async fn ack(self: Box<Self>) -> bool {
        // `Ok(false)` is not an error to lapin: the channel is gone and the message will come again.
        matches!(self.delivery.ack(BasicAckOptions::default()).await, Ok(true))
    }
}

/// A connection error in words, without the URI.
fn explain(error: &lapin::Error) -> String {
    match error.kind() {
        ErrorKind::ProtocolError(refusal) => refusal.get_message().to_string(),
        _ => error.to_string(),
    }
}
