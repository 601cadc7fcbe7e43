//! A producer: publishes invocations and reads what comes back.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::StreamExt as _;
use lapin::message::Delivery;
use lapin::options::{
    BasicConsumeOptions, BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, ExchangeDeleteOptions,
    QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, Consumer, Queue};
use okta_worker::domain::ids::ConnectionName;
use okta_worker::domain::topology::{DEAD, DEAD_MAX, INVOCATIONS, Topology};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use super::child::{LOOK_AGAIN, WAIT_MAX};

/// The name that stands for direct reply-to.
const DIRECT: &str = "amq.rabbitmq.reply-to";

/// One message to send.
#[derive(Clone)]
pub struct Message {
    /// The exchange.
    pub exchange: String,
    /// The routing key.
    pub key: String,
    /// The body.
    pub body: Vec<u8>,
    /// The properties.
    pub properties: BasicProperties,
}

impl Message {
    /// An invocation for a routing key.
    pub fn new(key: &str, subtool: &str, arguments: &Value) -> Self {
        Self::of(key, json!({ "subtool": subtool, "arguments": arguments }).to_string())
    }

    /// Any body for a routing key.
    pub fn of(key: &str, body: impl Into<Vec<u8>>) -> Self {
        let (exchange, properties) = (INVOCATIONS.to_owned(), BasicProperties::default());
        Self { exchange, key: key.to_owned(), body: body.into(), properties }
    }

    /// The same with other properties.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(BasicProperties) -> BasicProperties) -> Self {
        self.properties = change(self.properties);
        self
    }

    /// The same with this id.
    #[must_use]
    pub fn id(self, id: &str) -> Self {
        self.with(|properties| properties.with_message_id(id.into()))
    }

    /// The same with the answer going to a queue.
    #[must_use]
    pub fn answer_to(self, queue: &str) -> Self {
        self.with(|properties| properties.with_reply_to(queue.into()))
    }

    /// The same with one more header.
    #[must_use]
    pub fn header(self, name: &str, value: AMQPValue) -> Self {
        let mut headers = self.properties.headers().clone().unwrap_or_default();
        headers.insert(name.into(), value);
        self.with(|properties| properties.with_headers(headers))
    }

    /// The same with options in the body.
    #[must_use]
    pub fn options(mut self, options: Value) -> Self {
        let mut body: Value = serde_json::from_slice(&self.body).expect("the body is JSON");
        body["options"] = options;
        self.body = body.to_string().into_bytes();
        self
    }
}

/// A list of texts as a header's value, as `CC` and `BCC` have it.
pub fn texts(items: &[&str]) -> AMQPValue {
    AMQPValue::FieldArray(items.iter().map(|item| text(item)).collect::<Vec<_>>().into())
}

/// A text as a header's value.
pub fn text(item: &str) -> AMQPValue {
    AMQPValue::LongString(item.into())
}

/// One message that came.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The body as it is.
    pub bytes: Vec<u8>,
    /// The properties.
    pub properties: BasicProperties,
    /// The exchange it was published to.
    pub exchange: String,
    /// The key it was published with.
    pub key: String,
}

impl Reply {
    fn new(mut delivery: Delivery) -> Self {
        Self {
            bytes: std::mem::take(&mut delivery.data),
            properties: delivery.properties.clone(),
            exchange: delivery.exchange.to_string(),
            key: delivery.routing_key.to_string(),
        }
    }

    /// The result message.
    pub fn body(&self) -> Value {
        serde_json::from_slice(&self.bytes).expect("a result message is JSON")
    }

    /// `error.code` and `error.path` of a failure.
    pub fn error(&self) -> (String, Option<String>) {
        let body = self.body();
        let text = |name: &str| body["error"][name].as_str().map(str::to_owned);
        (text("code").unwrap_or_else(|| panic!("no failure: {body}")), text("path"))
    }

    /// A header, in the form of Rust's `Debug`, or nothing.
    pub fn header(&self, name: &str) -> Option<AMQPValue> {
        self.properties.headers().as_ref()?.inner().get(name).cloned()
    }

    /// A header's text.
    pub fn header_text(&self, name: &str) -> Option<String> {
        match self.header(name)? {
            AMQPValue::LongString(text) => Some(text.to_string()),
            other => panic!("`{name}` is no text: {other:?}"),
        }
    }
}

/// A producer with its connection and its direct replies.
pub struct Caller {
    connection: Connection,
    channel: Channel,
    replies: Consumer,
    early: HashMap<String, Reply>,
    next: u32,
}

/// Connects, as soon as the broker lets us.
pub async fn connect(url: &str) -> Connection {
    let deadline = Instant::now() + WAIT_MAX;
    loop {
        match Connection::connect(url, ConnectionProperties::default()).await {
            Ok(connection) => return connection,
            Err(error) => assert!(Instant::now() < deadline, "the broker does not answer: {error}"),
        }
        sleep(LOOK_AGAIN).await;
    }
}

impl Caller {
    /// A producer that connects with this URL.
    pub async fn new(url: &str) -> Self {
        let connection = connect(url).await;
        let channel = connection.create_channel().await.expect("a channel opens");
        channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms can be had");
        let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
        let replies = channel.basic_consume(DIRECT.into(), "".into(), options, FieldTable::default());
        let replies = replies.await.expect("direct replies can be had");
        Self { connection, channel, replies, early: HashMap::new(), next: 0 }
    }

    /// Publishes, and waits until the broker has it.
    pub async fn send(&self, message: &Message) {
        let Message { exchange, key, body, properties } = message;
        let options = BasicPublishOptions::default();
        let properties = properties.clone();
        let published = self
            .channel
            .basic_publish(exchange.as_str().into(), key.as_str().into(), options, body, properties)
            .await
            .expect("it can be published");
        let confirmed = published.await.expect("the broker confirms");
        assert!(matches!(confirmed, Confirmation::Ack(None)), "{confirmed:?}");
    }

    /// Publishes without a place for the answer other than direct reply-to; returns what it is known by.
    pub async fn begin(&mut self, message: &Message) -> String {
        self.next += 1;
        let correlation = message.properties.correlation_id().as_ref().map(ToString::to_string);
        let correlation = correlation.unwrap_or_else(|| format!("c{}", self.next));
        let message = message.clone().with(|properties| {
            properties.with_reply_to(DIRECT.into()).with_correlation_id(correlation.as_str().into())
        });
        self.send(&message).await;
        correlation
    }

    /// Waits for the answer to what was begun.
    pub async fn end(&mut self, correlation: &str) -> Reply {
        if let Some(reply) = self.early.remove(correlation) {
            return reply;
        }
        let waiting = async {
            loop {
                let delivery = self.replies.next().await.expect("replies go on").expect("a reply is read");
                let reply = Reply::new(delivery);
                let known = reply.properties.correlation_id().as_ref().map(ToString::to_string);
                match known {
                    Some(known) if known == correlation => return reply,
                    Some(known) => drop(self.early.insert(known, reply)),
                    None => panic!("a result without correlation: {reply:?}"),
                }
            }
        };
        timeout(WAIT_MAX, waiting).await.unwrap_or_else(|_| panic!("no answer for `{correlation}`"))
    }

    /// Publishes with direct reply-to and waits for the answer.
    pub async fn call(&mut self, message: &Message) -> Reply {
        let correlation = self.begin(message).await;
        self.end(&correlation).await
    }

    /// Calls, and expects a success: its `result`.
    pub async fn ask(&mut self, key: &str, subtool: &str, arguments: &Value) -> Value {
        let body = self.call(&Message::new(key, subtool, arguments)).await.body();
        assert_eq!(body["status"], "succeeded", "{subtool} {arguments}: {body}");
        body["result"].clone()
    }

    /// Declares a durable queue, and binds it when told to what.
    pub async fn queue(&self, name: &str, arguments: FieldTable, binding: Option<(&str, &str)>) {
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        self.channel.queue_declare(name.into(), options, arguments).await.expect("a queue can be declared");
        if let Some((exchange, key)) = binding {
            let options = QueueBindOptions::default();
            let bound = self.channel.queue_bind(
                name.into(),
                exchange.into(),
                key.into(),
                options,
                FieldTable::default(),
            );
            bound.await.expect("a queue can be bound");
        }
    }

    /// How many messages wait in a queue; nothing when there is no such queue.
    pub async fn count(&self, queue: &str) -> Option<u32> {
        self.look_at(queue).await.map(|queue| queue.message_count())
    }

    /// How many consumers a queue has; nothing when there is no such queue.
    pub async fn consumers(&self, queue: &str) -> Option<u32> {
        self.look_at(queue).await.map(|queue| queue.consumer_count())
    }

    async fn look_at(&self, queue: &str) -> Option<Queue> {
        let channel = self.connection.create_channel().await.expect("a channel opens");
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        channel.queue_declare(queue.into(), options, FieldTable::default()).await.ok()
    }

    /// Waits for the next message in a queue and takes it out.
    pub async fn take(&self, queue: &str) -> Reply {
        let deadline = Instant::now() + WAIT_MAX;
        loop {
            if let Some(reply) = self.look(queue).await {
                return reply;
            }
            assert!(Instant::now() < deadline, "nothing came into `{queue}`");
            sleep(LOOK_AGAIN).await;
        }
    }

    /// Takes the next message out of a queue, if there is one.
    pub async fn look(&self, queue: &str) -> Option<Reply> {
        let options = BasicGetOptions { no_ack: true };
        let got = self.channel.basic_get(queue.into(), options).await.expect("a queue can be read");
        got.map(|message| Reply::new(message.delivery))
    }

    /// A channel of its own, for what the other methods do not do.
    pub async fn open_channel(&self) -> Channel {
        self.connection.create_channel().await.expect("a channel opens")
    }
}

/// Waits until something holds.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + WAIT_MAX;
    while !holds().await {
        assert!(Instant::now() < deadline, "{what}: not within {WAIT_MAX:?}");
        sleep(LOOK_AGAIN).await;
    }
}

/// Deletes whatever a test may have left in the virtual host of a broker that is not ours.
pub async fn wipe(url: &str) {
    let connection = connect(url).await;
    let names = ["prod", "other"].map(|name| ConnectionName::parse(name).expect("a good name"));
    let topology = Topology::of(names.iter(), Duration::from_secs(60), DEAD_MAX);
    let own = topology.queues.iter().map(|queue| queue.name.as_str());
    for queue in own.chain([DEAD, "answers", "watch", "mine"]) {
        let channel = connection.create_channel().await.expect("a channel opens");
        let _ = channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await;
    }
    for exchange in &topology.exchanges {
        let channel = connection.create_channel().await.expect("a channel opens");
        let _ =
            channel.exchange_delete(exchange.name.as_str().into(), ExchangeDeleteOptions::default()).await;
    }
}
