//! The signals by which workers share the state of Okta's windows: each consumes its own queue, and publishes to all.
//!
//! Nothing waits for a signal. A signal is transient, published without confirms, dropped while the broker does not
//! read, and expires soon if no worker receives it. Workers trust only signals published by their own broker user:
//! RabbitMQ verifies that property. This file does not know the meaning of a signal: the gossip does. A worker that
//! cannot receive signals retries in the background, and its work goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use lapin::options::{BasicConsumeOptions, BasicPublishOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Connection, Consumer};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::budget::gossip::Gossip;
use crate::budget::pure::signal::Signal;
use crate::domain::ids::ConnectionName;
use crate::domain::message::CANCEL;
use crate::domain::topology::{SIGNALS, Topology};
use crate::event::{Event, Observer};
use crate::worker::ports::Inbox;

use super::heartbeats::{HEARTBEAT, Heartbeats};
use super::served::{Gossips, Served};
use crate::rabbit::client::connect::{RECONNECT, explain};
use crate::rabbit::client::declare::declare;
use crate::rabbit::client::publisher::{NoLine, Publisher};

/// The shortest interval between a connection's signals: ten a second, because an answer of Okta's, the source of all
/// news, takes about as long.
const SIGNAL_EVERY: Duration = Duration::from_millis(100);

/// The TTL of a signal. The ages in it do not count the time in the broker, so it must be short.
const SIGNAL_WAIT_MAX: Duration = Duration::from_secs(2);

/// The most signals that wait for one worker, some 200 KiB; the oldest are dropped. A hundred workers that all have
/// news send this many in a second.
const SIGNALS_MAX: i64 = 1000;

/// The time in milliseconds after which a queue without a consumer is deleted: a slow broker may declare one when the
/// worker no longer waits for it.
const UNUSED_MAX: i64 = 20_000;

/// The timeout for handing one signal to the connection. If that takes longer, the socket's buffer is full.
const TELL_MAX: Duration = Duration::from_secs(1);

/// The time to wait for the worker's own signal queue before it begins to serve without signals.
const LISTEN_MAX: Duration = Duration::from_secs(5);

/// The AMQP `type` of a signal.
const KIND: &str = "okta.signal";

/// Signals do not survive a restart of the broker.
const TRANSIENT: u8 = 1;

/// The signals that one worker sends and receives.
pub(in crate::rabbit) struct Signals {
    /// The worker's own broker user.
    user: ShortString,
    roster: Served,
    /// The receiver of cancellations.
    inbox: Arc<dyn Inbox>,
    observer: Arc<dyn Observer>,
    publisher: Arc<Publisher>,
    /// The heartbeats of this worker and the other workers.
    pub heartbeats: Heartbeats,
    /// True if the exchange is only checked and not declared.
    passive: bool,
    /// True if it was reported that the broker does not let this worker receive signals.
    is_deaf: AtomicBool,
    /// True if it was reported that the broker does not let this worker send signals.
    is_mute: AtomicBool,
    /// True once the exchange was declared, or this worker's queue refused.
    has_listened: AtomicBool,
}

impl Signals {
    /// Creates the signals for the connections of this roster.
    pub fn new(
        (user, passive): (&str, bool),
        roster: Served,
        inbox: Arc<dyn Inbox>,
        observer: Arc<dyn Observer>,
        publisher: Arc<Publisher>,
    ) -> Self {
        // A longer user name does not fit into the property, so such a worker cannot send signals.
        let user = ShortString::try_new(user).unwrap_or_default();
        let (heartbeats, is_deaf, is_mute, has_listened) = Default::default();
        Self { user, roster, inbox, observer, publisher, heartbeats, passive, is_deaf, is_mute, has_listened }
    }

    /// Listens to the other workers until the returned set is dropped. If the broker refuses, work goes on without
    /// signals, and listening is retried.
    pub async fn listen(self: &Arc<Self>, connection: &Arc<Connection>) -> JoinSet<()> {
        let first = self.try_to_listen(connection).await;
        let (signals, connection) = (Arc::clone(self), Arc::clone(connection));
        let mut hearing = JoinSet::new();
        hearing.spawn(async move { signals.keep_listening(&connection, first).await });
        hearing
    }

    async fn keep_listening(&self, connection: &Connection, first: Option<Listening>) {
        let (mut listening, mut failures) = (first, 0);
        loop {
            match listening.take() {
                Some(heard) => {
                    self.hear(heard).await;
                    failures = 0; // it was there a moment ago
                }
                None => failures += 1,
            }
            sleep(RECONNECT.wait(failures.max(1), fastrand::f64())).await;
            listening = self.try_to_listen(connection).await;
        }
    }

    /// Declares the worker's own signal queue, and asks which workers exist.
    async fn try_to_listen(&self, connection: &Connection) -> Option<Listening> {
        let own_queue = timeout(LISTEN_MAX, self.own_queue(connection)).await;
        self.has_listened.store(true, Ordering::Relaxed);
        let why = match own_queue {
            Ok(Ok(listening)) => {
                self.is_deaf.store(false, Ordering::Relaxed);
                self.beat(true).await;
                return Some(listening);
            }
            Ok(Err(refusal)) => refusal,
            Err(_) => "the broker does not answer".to_owned(),
        };
        // If the connection is gone, other code reports that.
        if connection.status().connected() {
            self.say_once(&self.is_deaf, &why);
        }
        None
    }

    async fn own_queue(&self, connection: &Connection) -> Result<Listening, String> {
        let channel = connection.create_channel().await.map_err(|error| explain(&error))?; // a refusal closes it
        declare(&channel, &Topology::signals(), self.passive).await.map_err(|error| error.to_string())?;
        let consumer = own_queue(&channel).await.map_err(|error| explain(&error))?;
        Ok(Listening { consumer, _channel: channel })
    }

    /// Receives signals until that fails.
    async fn hear(&self, mut listening: Listening) {
        while let Some(Ok(delivery)) = listening.consumer.next().await {
            let (properties, key) = (&delivery.properties, delivery.routing_key.as_str());
            if !self.is_ours(properties) {
                continue;
            }
            match properties.kind().as_ref().map(ShortString::as_str) {
                Some(CANCEL) => self.inbox.hear(&delivery.data),
                Some(HEARTBEAT) => self.heartbeats.hear(&delivery.data),
                Some(KIND) => {
                    if let Some((gossip, signal)) = self.read(properties, key, &delivery.data) {
                        gossip.hear(&signal);
                    }
                }
                Some(_) | None => {}
            }
        }
    }

    /// Sends the news of every connection and this worker's heartbeats, until the returned set is dropped.
    pub fn spawn_broadcast(self: &Arc<Self>) -> JoinSet<()> {
        let signals = Arc::clone(self);
        let mut telling = JoinSet::new();
        let beating = Arc::clone(self);
        telling.spawn(async move {
            loop {
                beating.heartbeats.due().await;
                beating.beat(false).await;
            }
        });
        telling.spawn(async move {
            let mut roster = signals.roster.clone();
            loop {
                let each = signals.tell_of_each(roster.gossips());
                roster.changed().await;
                drop(each);
            }
        });
        telling
    }

    fn tell_of_each(self: &Arc<Self>, gossips: Gossips) -> JoinSet<()> {
        let mut telling = JoinSet::new();
        for (connection, gossip) in gossips {
            let signals = Arc::clone(self);
            telling.spawn(async move {
                loop {
                    gossip.news().await;
                    signals.tell(&connection, gossip.as_ref()).await;
                    sleep(SIGNAL_EVERY).await;
                }
            });
        }
        telling
    }

    /// Sends the signals of a connection, or drops them.
    async fn tell(&self, connection: &ConnectionName, gossip: &dyn Gossip) {
        let channel = self.channel().await;
        let signals = gossip.tell();
        let Some(channel) = channel else { return };
        for signal in signals {
            let signal = signal.encode();
            let told = self.publish(&channel, connection.as_str(), KIND, &signal);
            if !matches!(timeout(TELL_MAX, told).await, Ok(Ok(_))) {
                return;
            }
        }
    }

    /// Sends one heartbeat. With `asks`, the other workers answer with theirs.
    pub async fn beat(&self, asks: bool) {
        if let Some(channel) = self.channel().await {
            let heartbeat = self.heartbeats.next(asks).encode();
            let _ = timeout(TELL_MAX, self.publish(&channel, "", HEARTBEAT, &heartbeat)).await;
        }
    }

    /// Returns the channel for messages that may be lost, if the broker reads from it now.
    async fn channel(&self) -> Option<Channel> {
        if !self.has_listened.load(Ordering::Relaxed) {
            return None; // the exchange may not be there yet
        }
        match self.publisher.aside().await {
            Ok(channel) => Some(channel),
            Err(NoLine::Now) => None,
            Err(NoLine::Refused) => {
                let needed =
                    format!("the user of `broker.url` needs to write to `{SIGNALS}` in its own name");
                self.say_once(&self.is_mute, &needed);
                None
            }
        }
    }

    /// Publishes a message that may be lost to all workers.
    async fn publish(&self, channel: &Channel, key: &str, kind: &str, body: &[u8]) -> lapin::Result<()> {
        let wait_max = SIGNAL_WAIT_MAX.as_millis().to_string();
        let properties = BasicProperties::default()
            .with_delivery_mode(TRANSIENT)
            .with_type(kind.into())
            .with_user_id(self.user.clone())
            .with_expiration(wait_max.into());
        let (key, options) = (ShortString::from(key), BasicPublishOptions::default());
        channel.basic_publish(SIGNALS.into(), key, options, body, properties).await.map(drop)
    }

    /// Decodes a message to its gossip and signal; `None` if it is to be ignored.
    fn read(
        &self,
        properties: &BasicProperties,
        key: &str,
        body: &[u8],
    ) -> Option<(Arc<dyn Gossip>, Signal)> {
        if !self.is_ours(properties) || !is(properties.kind(), KIND) {
            return None;
        }
        let gossip = self.roster.gossip(key)?;
        Some((gossip, Signal::decode(body)?))
    }

    /// Returns true if a worker sent the message: RabbitMQ has verified the user.
    fn is_ours(&self, properties: &BasicProperties) -> bool {
        is(properties.user_id(), self.user.as_str())
    }

    fn say_once(&self, said: &AtomicBool, why: &str) {
        if !said.swap(true, Ordering::Relaxed) {
            self.observer.note(&Event::SignalsRefused { why });
        }
    }
}

/// The worker's own signal queue, being consumed.
struct Listening {
    consumer: Consumer,
    _channel: Channel,
}

fn is(property: &Option<ShortString>, text: &str) -> bool {
    property.as_ref().is_some_and(|property| property.as_str() == text)
}

/// Declares and consumes an exclusive queue, which is deleted with this connection.
async fn own_queue(channel: &Channel) -> lapin::Result<Consumer> {
    let wait_max = i64::try_from(SIGNAL_WAIT_MAX.as_millis()).expect("it is seconds");
    let mut arguments = FieldTable::default();
    // Set although it is the default: a virtual host may have another default, which cannot be exclusive.
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("classic".into()));
    arguments.insert("x-message-ttl".into(), AMQPValue::LongLongInt(wait_max));
    arguments.insert("x-max-length".into(), AMQPValue::LongLongInt(SIGNALS_MAX));
    arguments.insert("x-expires".into(), AMQPValue::LongLongInt(UNUSED_MAX));
    let options =
        QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
    let queue = channel.queue_declare(ShortString::default(), options, arguments).await?.name().clone();
    let (none, options) = (FieldTable::default(), QueueBindOptions::default());
    channel.queue_bind(queue.clone(), SIGNALS.into(), ShortString::default(), options, none).await?;
    let options = BasicConsumeOptions { no_ack: true, exclusive: true, ..BasicConsumeOptions::default() };
    channel.basic_consume(queue, ShortString::default(), options, FieldTable::default()).await
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use futures_util::future::BoxFuture;
    use tokio::sync::watch;

    use super::*;
    use crate::budget::gossip::Census;
    use crate::domain::message::Delivery;
    use crate::event::Observers;

    /// An inbox that takes nothing.
    struct Nobody;

    impl Inbox for Nobody {
        fn take(self: Arc<Self>, _: Delivery) -> BoxFuture<'static, ()> {
            Box::pin(async {})
        }
    }

    /// A gossip without news.
    struct Silent;

    #[async_trait]
    impl Gossip for Silent {
        async fn news(&self) {
            std::future::pending().await
        }
        fn tell(&self) -> Vec<Signal> {
            Vec::new()
        }
        fn hear(&self, _: &Signal) {}
        fn counted(&self, _: Census) {}
    }

    fn signal() -> Signal {
        Signal {
            worker: 7,
            ledger: "users".to_owned(),
            reset: 1_772_442_060,
            limit: 600,
            remaining: 12,
            age: Duration::from_millis(150),
            to_end: Duration::from_secs(20),
            in_flight: 2,
            rate: 1.5,
            at_work: true,
        }
    }

    #[test]
    fn only_signals_of_the_workers_own_user_for_a_known_connection_are_read() {
        let gossips: Gossips =
            [(ConnectionName::parse("prod").unwrap(), Arc::new(Silent) as Arc<dyn Gossip>)].into();
        let roster = Served::new(watch::channel(gossips).1);
        let (observer, publisher) =
            (Arc::new(Observers(Vec::new())), Publisher::new(tokio_util::sync::CancellationToken::new()));
        let signals =
            Signals::new(("worker", false), roster, Arc::new(Nobody), observer, Arc::new(publisher));
        let by = |user: &str| BasicProperties::default().with_user_id(user.into()).with_type(KIND.into());
        let nameless = BasicProperties::default().with_type(KIND.into());
        let body = signal().encode();
        let heard = signals.read(&by("worker"), "prod", &body);
        assert_eq!(heard.map(|(_, signal)| signal), Some(signal()));
        for (properties, key, body) in [
            (by("caller"), "prod", &body[..]),
            (nameless, "prod", &body),
            (by("worker"), "acme", &body),
            (by("worker"), "", &body),
            (by("worker"), "prod", b"{}"),
            (by("worker").with_type("okta.result".into()), "prod", &body),
        ] {
            assert!(signals.read(&properties, key, body).is_none(), "{properties:?} {key}");
        }
    }
}
