//! A message broker inside the process: routing, redelivery, delay tiers and unroutable messages as in RabbitMQ, as far
//! as the worker sees them. Nothing survives the process.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::domain::ids::{ConnectionName, Lane};
use crate::domain::message::{
    Address, Delivery, Properties, Publish, Published, Receipt, Source, Unpublished,
};
use crate::domain::topology::{DEAD, DELAY_TIERS, INVOCATIONS, RESULTS, UNCLAIMED, source_queue, work_key};
use crate::worker::ports::{Inbox, Outbox, becomes};

use super::death::expired;

/// A message in a queue.
#[derive(Debug, Clone)]
pub struct Stored {
    /// The exchange of publication.
    pub exchange: String,
    /// The routing key of publication.
    pub routing_key: String,
    /// The properties.
    pub properties: Properties,
    /// The body.
    pub body: Bytes,
    redelivered: bool,
    since: Instant,
}

impl Stored {
    fn new(exchange: &str, routing_key: &str, properties: Properties, body: Bytes) -> Self {
        Self {
            exchange: exchange.to_owned(),
            routing_key: routing_key.to_owned(),
            properties,
            body,
            redelivered: false,
            since: Instant::now(),
        }
    }
}

/// The queues and the bindings of the lanes.
pub struct Broker {
    queues: Mutex<HashMap<String, VecDeque<Stored>>>,
    /// The lanes by routing key, sorted, so that the same messages always give the same sequence.
    lanes: BTreeMap<String, Source>,
    changed: Notify,
}

impl Broker {
    /// Creates a broker with the lanes of these connections.
    pub fn new<'a>(connections: impl IntoIterator<Item = &'a ConnectionName>) -> Arc<Self> {
        let mut lanes = BTreeMap::new();
        for connection in connections {
            for lane in Lane::ALL {
                let source = Source::Work { connection: connection.clone(), lane };
                lanes.insert(work_key(connection, lane), source.clone());
                if lane == Lane::Interactive {
                    lanes.insert(connection.to_string(), source);
                }
            }
        }
        let sources = lanes.values().map(source_queue).chain([source_queue(&Source::Unrouted)]);
        let tiers = DELAY_TIERS.map(|(tier, _)| tier.to_owned());
        let queues = sources.chain([DEAD.to_owned(), UNCLAIMED.to_owned()]).chain(tiers);
        let queues = queues.map(|name| (name, VecDeque::new())).collect();
        Arc::new(Self { queues: Mutex::new(queues), lanes, changed: Notify::new() })
    }

    /// Declares a queue for replies.
    pub fn declare(&self, queue: &str) {
        self.queues().entry(queue.to_owned()).or_default();
    }

    /// Deletes a queue with its messages.
    pub fn delete(&self, queue: &str) {
        self.queues().remove(queue);
    }

    /// Publishes an invocation as a producer does.
    pub fn publish(&self, routing_key: &str, properties: Properties, body: impl Into<Bytes>) {
        self.route(Stored::new(INVOCATIONS, routing_key, properties, body.into()));
    }

    /// Publishes an invocation as redelivered: delivered before and not acknowledged.
    pub fn publish_again(&self, routing_key: &str, properties: Properties, body: impl Into<Bytes>) {
        let stored = Stored::new(INVOCATIONS, routing_key, properties, body.into());
        self.route(Stored { redelivered: true, ..stored });
    }

    /// Routes a message by its key.
    fn route(&self, stored: Stored) {
        let source = self.lanes.get(&stored.routing_key).unwrap_or(&Source::Unrouted);
        self.put(&source_queue(source), stored);
    }

    /// Takes the oldest message of a queue, and waits for one if necessary.
    pub async fn take(&self, queue: &str) -> Stored {
        loop {
            let changed = self.changed.notified();
            if let Some(stored) = self.pop(queue) {
                return stored;
            }
            changed.await;
        }
    }

    /// Takes the oldest message of a queue, if there is one.
    pub fn pop(&self, queue: &str) -> Option<Stored> {
        self.queues().get_mut(queue)?.pop_front()
    }

    /// Returns the oldest message of a queue, which stays there.
    pub fn head(&self, queue: &str) -> Option<Stored> {
        self.queues().get(queue)?.front().cloned()
    }

    /// Returns the number of messages in a queue.
    pub fn waiting(&self, queue: &str) -> usize {
        self.queues().get(queue).map_or(0, VecDeque::len)
    }

    /// Hands every delivery to the inbox, at most `prefetch` of a queue at once, and releases messages from a delay
    /// tier when their time is up. Ends when the returned set is dropped.
    pub fn consume(self: &Arc<Self>, inbox: &Arc<dyn Inbox>, prefetch: usize) -> JoinSet<()> {
        let mut sources: Vec<Source> = vec![Source::Unrouted];
        for source in self.lanes.values() {
            if !sources.contains(source) {
                sources.push(source.clone());
            }
        }
        let mut consumers = JoinSet::new();
        for (tier, time) in DELAY_TIERS {
            consumers.spawn(Arc::clone(self).let_go(tier, time));
        }
        for source in sources {
            consumers.spawn(Arc::clone(self).hand_over(source, Arc::clone(inbox), prefetch));
        }
        consumers
    }

    async fn hand_over(self: Arc<Self>, source: Source, inbox: Arc<dyn Inbox>, prefetch: usize) {
        let queue = source_queue(&source);
        let window = Arc::new(Semaphore::new(prefetch));
        let mut wanted = inbox.wants(&source);
        let mut taken = JoinSet::new();
        loop {
            let room = Arc::clone(&window).acquire_owned().await.expect("the window is never closed");
            let stored = self.take_wanted(&queue, &mut wanted).await;
            while taken.try_join_next().is_some() {}
            let delivery = self.delivery(stored, &source, room);
            taken.spawn(Arc::clone(&inbox).take(delivery));
        }
    }

    /// Takes the oldest message of a queue as soon as there is one and messages are wanted.
    async fn take_wanted(&self, queue: &str, wanted: &mut watch::Receiver<bool>) -> Stored {
        loop {
            becomes(wanted, true).await;
            tokio::select! {
                biased;
                () = becomes(wanted, false) => {}
                stored = self.take(queue) => return stored,
            }
        }
    }

    /// Sends each message of a tier back to the lanes after the tier's time, the oldest first.
    async fn let_go(self: Arc<Self>, tier: &'static str, time: Duration) {
        loop {
            let changed = self.changed.notified();
            let Some(head) = self.head(tier) else {
                changed.await;
                continue;
            };
            sleep_until(head.since + time).await;
            if let Some(stored) = self.pop(tier) {
                let properties = expired(stored.properties, tier, &stored.routing_key);
                self.route(Stored::new(INVOCATIONS, &stored.routing_key, properties, stored.body));
            }
        }
    }

    fn delivery(self: &Arc<Self>, stored: Stored, source: &Source, room: OwnedSemaphorePermit) -> Delivery {
        Delivery {
            body: stored.body.clone(),
            properties: stored.properties.clone(),
            exchange: stored.exchange.clone(),
            routing_key: stored.routing_key.clone(),
            source: source.clone(),
            redelivered: stored.redelivered,
            receipt: Box::new(Tag {
                broker: Arc::clone(self),
                queue: source_queue(source),
                stored: Some(stored),
                _room: room,
            }),
        }
    }

    fn put(&self, queue: &str, stored: Stored) -> bool {
        let is_there = match self.queues().get_mut(queue) {
            Some(messages) => {
                messages.push_back(stored);
                true
            }
            None => false,
        };
        self.changed.notify_waiters();
        is_there
    }

    fn queues(&self) -> MutexGuard<'_, HashMap<String, VecDeque<Stored>>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Outbox for Broker {
    async fn post(&self, post: &Publish) -> Result<Published, Unpublished> {
        let (exchange, key, queue) = match &post.to {
            Address::Queue(name) | Address::DirectReply(name) => ("", name, name.as_str()),
            // There are no bindings for results here, so they wait with the unclaimed ones.
            Address::Exchange(RESULTS, key) => (RESULTS, key, UNCLAIMED),
            Address::Exchange(INVOCATIONS, key) => {
                self.publish(key, post.properties.clone(), post.body.clone());
                return Ok(Published::Confirmed);
            }
            // The delay tiers: each exchange has one queue, of the same name.
            Address::Exchange(exchange, key) => (*exchange, key, *exchange),
        };
        let stored = Stored::new(exchange, key, post.properties.clone(), post.body.clone());
        let is_there = self.put(queue, stored);
        let is_direct = matches!(post.to, Address::DirectReply(_));
        Ok(if is_there || is_direct { Published::Confirmed } else { Published::Unroutable })
    }
}

/// The right to acknowledge one delivery; if it is dropped, the message returns to the front of its queue.
struct Tag {
    broker: Arc<Broker>,
    queue: String,
    stored: Option<Stored>,
    _room: OwnedSemaphorePermit,
}

#[async_trait]
impl Receipt for Tag {
    fn is_live(&self) -> bool {
        true
    }

    async fn ack(mut self: Box<Self>) -> bool {
        self.stored = None;
        true
    }
}

impl Drop for Tag {
    fn drop(&mut self) {
        if let Some(mut stored) = self.stored.take() {
            stored.redelivered = true;
            if let Some(messages) = self.broker.queues().get_mut(&self.queue) {
                messages.push_front(stored);
            }
            self.broker.changed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::BoxFuture;

    use super::*;
    use crate::domain::message::{HeaderValue, Headers};
    use crate::policy::origin;

    /// An inbox that keeps all messages for ever, with a settable demand.
    struct Kept(Mutex<Vec<(Delivery, Instant)>>, watch::Sender<bool>);

    impl Default for Kept {
        fn default() -> Self {
            Self(Mutex::default(), watch::Sender::new(true))
        }
    }

    impl Inbox for Kept {
        fn take(self: Arc<Self>, delivery: Delivery) -> BoxFuture<'static, ()> {
            self.0.lock().unwrap().push((delivery, Instant::now()));
            Box::pin(async {})
        }

        fn wants(&self, source: &Source) -> watch::Receiver<bool> {
            match source {
                Source::Work { lane: Lane::Bulk, .. } => self.1.subscribe(),
                _ => watch::channel(true).1,
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_lies_in_a_tier_comes_back_after_its_time_by_a_way_of_our_own() {
        let prod = ConnectionName::parse("prod").unwrap();
        let broker = Broker::new([&prod]);
        let kept = Arc::new(Kept::default());
        let inbox: Arc<dyn Inbox> = Arc::<Kept>::clone(&kept);
        let _consuming = broker.consume(&inbox, 8);
        let begun = Instant::now();
        for (tier, key) in [("okta.delay.5s", "prod.bulk"), ("okta.delay.1s", "prod.interactive")] {
            let to = Address::Exchange(tier, key.to_owned());
            let post = Publish { to, properties: Properties::default(), body: Bytes::from_static(b"{}") };
            assert_eq!(broker.post(&post).await, Ok(Published::Confirmed));
        }
        tokio::time::sleep(Duration::from_secs(10)).await;
        let kept = kept.0.lock().unwrap();
        let came = kept.iter().map(|(delivery, at)| {
            let Delivery { source, exchange, routing_key, properties, .. } = delivery;
            let headers: &Headers = &properties.headers;
            assert!(origin::check(source, exchange, routing_key, headers).is_ok(), "{headers:?}");
            let first = headers["x-first-death-queue"].as_text();
            ((*at - begun).as_secs(), routing_key.as_str(), first)
        });
        let expected =
            [(1, "prod.interactive", Some("okta.delay.1s")), (5, "prod.bulk", Some("okta.delay.5s"))];
        assert_eq!(came.collect::<Vec<_>>(), expected);
        assert!(
            matches!(&kept[0].0.properties.headers["x-death"], HeaderValue::List(deaths) if deaths.len() == 1)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_wanted_waits_in_its_queue_until_it_is() {
        let prod = ConnectionName::parse("prod").unwrap();
        let broker = Broker::new([&prod]);
        let kept = Arc::new(Kept::default());
        let inbox: Arc<dyn Inbox> = Arc::<Kept>::clone(&kept);
        let _consuming = broker.consume(&inbox, 8);
        let taken = async |wanted: bool, key: &str| {
            kept.1.send_replace(wanted);
            broker.publish(key, Properties::default(), "{}");
            tokio::time::sleep(Duration::from_secs(1)).await;
            kept.0.lock().unwrap().len()
        };
        assert_eq!(taken(true, "prod.bulk").await, 1);
        assert_eq!(taken(false, "prod.bulk").await, 1);
        assert_eq!(taken(false, "prod.interactive").await, 2, "the other lane goes on");
        assert_eq!(taken(true, "prod.bulk").await, 4);
    }
}
