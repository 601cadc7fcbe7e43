//! An RPC client: publishes invocations and returns their answers to the callers, by direct reply-to.
//!
//! The client needs no queue of its own and only the permission to publish. An answer in transit is lost when the
//! connection breaks, so the client then publishes each unanswered invocation again, marked as resent. This file knows
//! nothing of the content of messages.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use lapin::options::{BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Confirmation, Connection, Consumer};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::domain::message::{HeaderValue, PROGRESS, Properties, RESENT};
use crate::domain::topology::{DIRECT, INVOCATIONS};
use crate::event::Observer;

use crate::rabbit::BrokerSettings;
use crate::rabbit::client::connect::{BrokerNodes, close, explain};
use crate::rabbit::client::convert::{properties_in, properties_out};
use crate::rabbit::client::declare::DECLARE_TIMEOUT;
use crate::rabbit::client::publisher::is_refusal;

/// The capacity of the channel for outgoing requests.
const CALLS_MAX: usize = 256;

/// The capacity of each caller's channel for incoming messages.
const REPLIES_MAX: usize = 64;

/// The reason for reconnecting.
const LOST: &str = "the connection broke";

/// A message received for an invocation.
pub enum RpcReply {
    /// An answer, or progress; its AMQP `type` distinguishes them.
    Message {
        /// The AMQP `type`.
        kind: Option<String>,
        /// The body.
        body: Bytes,
    },
    /// The broker did not accept the invocation; in the broker's words.
    Refused(String),
}

/// An invocation to publish.
#[derive(Clone)]
pub struct Call {
    /// The routing key.
    pub key: String,
    /// The properties; `message_id` and `correlation_id` are the invocation's id.
    pub properties: Properties,
    /// The body.
    pub body: Vec<u8>,
}

/// A command from an [`RpcClient`].
enum RpcCommand {
    /// Publish the invocation, and return its answer.
    Answer(Call, mpsc::Sender<RpcReply>),
    /// Publish the message, and report when the broker has it.
    Nothing(Call, oneshot::Sender<()>),
    /// Drop further messages for an id.
    Forget(String),
}

/// A handle of the client. Each caller has a clone; the connection closes with the last one.
#[derive(Clone)]
pub struct RpcClient(mpsc::Sender<RpcCommand>);

impl RpcClient {
    /// Connects, and starts the task that keeps the connection.
    ///
    /// # Errors
    /// A description of the failure, if the broker cannot be reached now.
    pub async fn open(settings: &BrokerSettings, observer: Arc<dyn Observer>) -> Result<Self, String> {
        let nodes = BrokerNodes::new(settings).map_err(|ended| ended.to_string())?;
        let session = RpcSession::open(&nodes).await.map_err(|why| nodes.unreached(&why))?;
        let (commands, commands_in) = mpsc::channel(CALLS_MAX);
        tokio::spawn(PendingCalls { nodes, observer, commands_in, waiting: HashMap::new() }.keep(session));
        Ok(Self(commands))
    }

    /// Publishes an invocation and returns the messages received for it, the answer last.
    pub async fn ask(&self, call: Call) -> mpsc::Receiver<RpcReply> {
        let (replies, replies_in) = mpsc::channel(REPLIES_MAX);
        let _ = self.0.send(RpcCommand::Answer(call, replies)).await;
        replies_in
    }

    /// Publishes a message that has no answer, and waits until the broker has it or the connection breaks.
    pub async fn tell(&self, call: Call) {
        let (confirms, confirmed) = oneshot::channel();
        if self.0.send(RpcCommand::Nothing(call, confirms)).await.is_ok() {
            let _ = confirmed.await;
        }
    }

    /// Drops further messages for an id.
    pub async fn forget(&self, id: &str) {
        let _ = self.0.send(RpcCommand::Forget(id.to_owned())).await;
    }
}

/// The waiting callers, kept across reconnects.
struct PendingCalls {
    nodes: BrokerNodes,
    observer: Arc<dyn Observer>,
    commands_in: mpsc::Receiver<RpcCommand>,
    waiting: HashMap<String, (Call, mpsc::Sender<RpcReply>)>,
}

/// One connection with its channel and consumer.
struct RpcSession {
    connection: Connection,
    channel: Channel,
    consumer: Consumer,
}

impl RpcSession {
    async fn open(nodes: &BrokerNodes) -> Result<Self, String> {
        let opened = timeout(DECLARE_TIMEOUT, async {
            let connection = nodes.connect("asking").await?;
            let opened = async {
                let channel = connection.create_channel().await?;
                channel.confirm_select(ConfirmSelectOptions::default()).await?;
                let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
                let (queue, tag) = (ShortString::from(DIRECT), ShortString::default());
                let consumer = channel.basic_consume(queue, tag, options, FieldTable::default()).await?;
                lapin::Result::Ok((channel, consumer))
            };
            let (channel, consumer) = opened.await.map_err(|error| explain(&error))?;
            Ok(Self { connection, channel, consumer })
        });
        opened.await.unwrap_or_else(|_| Err("it does not answer".to_owned()))
    }

    /// Publishes a message; the future yields the broker's confirmation.
    fn publish(
        &self,
        call: &Call,
        is_again: bool,
        confirms: Option<oneshot::Sender<()>>,
    ) -> impl Future<Output = (Option<String>, Result<(), String>)> + use<> {
        let mut properties = call.properties.clone();
        if is_again {
            properties.headers.insert(RESENT.to_owned(), HeaderValue::Bool(true));
        }
        let (id, channel) = (properties.message_id.clone(), self.channel.clone());
        let (properties, body) = (properties_out(&properties), call.body.clone());
        let key = ShortString::try_new(call.key.as_str());
        async move {
            let Ok(key) = key else { return (id, Err("the routing key is too long".to_owned())) };
            let published = async {
                let options = BasicPublishOptions::default();
                channel.basic_publish(INVOCATIONS.into(), key, options, &body, properties).await?.await
            };
            // If the connection breaks, the outcome is unknown and the message is published again.
            let refused = match published.await {
                Ok(Confirmation::Nack(_)) => Err("the queue accepts no messages now".to_owned()),
                Err(error) if is_refusal(&error) => Err(explain(&error)),
                Ok(Confirmation::Ack(_) | Confirmation::NotRequested) | Err(_) => Ok(()),
            };
            drop(confirms); // wakes the waiting caller
            (id, refused)
        }
    }
}

impl PendingCalls {
    async fn keep(mut self, mut session: RpcSession) {
        let mut is_again = false;
        loop {
            let ended = self.serve(&mut session, is_again).await;
            close(&session.connection).await;
            let Err(why) = ended else { return };
            is_again = true;
            session = self.nodes.reconnect(why, &self.observer, || RpcSession::open(&self.nodes)).await;
        }
    }

    /// Serves until all handles are dropped. The error is the reason for which the connection broke.
    async fn serve(&mut self, session: &mut RpcSession, is_again: bool) -> Result<(), String> {
        let mut confirms = FuturesUnordered::new();
        if is_again {
            self.waiting.retain(|_, (_, replies)| !replies.is_closed());
            for (call, _) in self.waiting.values() {
                confirms.push(session.publish(call, true, None));
            }
        }
        loop {
            tokio::select! {
                command = self.commands_in.recv() => match command {
                    None => return Ok(()),
                    Some(RpcCommand::Nothing(call, notice)) => {
                        confirms.push(session.publish(&call, false, Some(notice)));
                    }
                    Some(RpcCommand::Forget(id)) => drop(self.waiting.remove(&id)),
                    Some(RpcCommand::Answer(call, replies)) => {
                        confirms.push(session.publish(&call, false, None));
                        let id = call.properties.message_id.clone().unwrap_or_default();
                        self.waiting.insert(id, (call, replies));
                    }
                },
                Some((id, refused)) = confirms.next() => {
                    if let Err(why) = refused
                        && let Some((_, replies)) = id.and_then(|id| self.waiting.remove(&id))
                    {
                        let _ = replies.try_send(RpcReply::Refused(why));
                    } else if !session.channel.status().connected() {
                        return Err(LOST.to_owned());
                    }
                },
                delivery = session.consumer.next() => match delivery {
                    Some(Ok(delivery)) => {
                        self.dispatch(&properties_in(&delivery.properties), delivery.data.into());
                    }
                    Some(Err(_)) | None => return Err(LOST.to_owned()),
                },
            }
        }
    }

    fn dispatch(&mut self, properties: &Properties, body: Bytes) {
        let Some(id) = &properties.correlation_id else { return };
        let kind = properties.kind.clone();
        let is_progress = kind.as_deref() == Some(PROGRESS);
        let message = RpcReply::Message { kind, body };
        if is_progress {
            if let Some((_, replies)) = self.waiting.get(id) {
                let _ = replies.try_send(message); // if the channel is full: the next one replaces it
            }
        } else if let Some((_, replies)) = self.waiting.remove(id) {
            let _ = replies.try_send(message);
        }
    }
}
