//! Publishing with confirms: a message counts as published only after the broker has confirmed it.
//!
//! lapin assigns a returned message to the confirm that completes first (12 of 2,800 were wrong), so a channel has one
//! mandatory message in flight, and there are several channels. Direct replies are never mandatory and share one
//! channel. A missing confirm proves nothing: the publisher sends the same message again under the same id. Messages
//! that may be lost use a channel without confirms. While the broker does not read, lapin gets no message.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::ShortString;
use lapin::{Channel, Confirmation, Connection, ErrorKind};
use tokio::sync::{Mutex, Notify, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::domain::message::{Address, Publish, Published, Unpublished};
use crate::domain::topology::{DEAD, RESULTS};
use crate::policy::backoff::RetryRules;
use crate::worker::failpoint::{Point, reached};
use crate::worker::ports::Outbox;

use super::blocked::Blocked;
use super::connect::{close, explain};
use super::convert::properties_out;
use super::declare::{ACCESS_REFUSED, NOT_FOUND, PRECONDITION_FAILED};

/// The number of channels for mandatory messages, each with one message at a time. It equals the default prefetch per
/// lane, so that answers do not wait for each other when the broker confirms slowly.
const CHANNELS: usize = 32;

/// The time to wait for a confirm before the message is sent again: the broker writes to disk first, and a quorum
/// queue may be electing its leader.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(30);

/// The number of refusals (a full queue with `reject-publish`, or an exchange) after which the publisher gives up.
const REFUSALS_MAX: u32 = 8;

/// The waits between such attempts, and between attempts without a limit.
const AGAIN: RetryRules =
    RetryRules { attempts_max: u32::MAX, base: Duration::from_millis(100), cap: Duration::from_secs(5) };

/// The channels of one generation of the publishing connection.
struct PublishChannels {
    connection: Connection,
    /// The blocked state; nothing is published while it is set.
    blocked: Blocked,
    mandatory: Vec<Mutex<Option<Channel>>>,
    direct: Mutex<Option<Channel>>,
    /// The channel for messages that may be lost.
    aside: Mutex<LossyChannel>,
    turn: std::sync::atomic::AtomicUsize,
    /// Notified when a channel cannot be opened, which means that the connection has failed.
    fault: Arc<Notify>,
}

/// A publisher over the current generation of the publishing connection.
pub struct Publisher {
    lines: watch::Sender<Option<Arc<PublishChannels>>>,
    leaving: CancellationToken,
}

/// The reason that there is no channel for messages that may be lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::rabbit) enum NoLine {
    /// There is no connection, or the broker does not read from it.
    Now,
    /// The broker has refused an earlier message.
    Refused,
}

/// The outcome of one attempt.
enum Try {
    Posted(Published),
    /// The broker has refused the message, for this reason.
    Refused(String),
    /// The message exceeds the broker's limit; in the broker's words.
    TooLarge(String),
    Unknown,
}

/// The outcome of publishing a message that may only be repeated if the repetition is marked as one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Offered {
    /// The broker has the message.
    Confirmed,
    /// The broker refused every attempt; in the broker's words.
    Refused(String),
    /// The outcome is unknown: the broker may have the message.
    Unclear,
}

/// The time after a refusal for which the channel without confirms is not tried again. The broker closes it for a
/// missing permission, and for an exchange that is not there yet.
const REFUSED_FOR: Duration = Duration::from_secs(10);

/// The channel without confirms, for messages that may be lost.
#[derive(Default)]
struct LossyChannel {
    channel: Option<Channel>,
    /// The moment at which the broker was found to have closed the last one.
    refused_at: Option<Instant>,
}

impl Publisher {
    /// Creates a publisher without a connection. When `leaving` is cancelled, it no longer waits for one.
    pub fn new(leaving: CancellationToken) -> Self {
        Self { lines: watch::Sender::new(None), leaving }
    }

    /// Uses the connection of a new generation. Notifies `fault` when that connection fails.
    pub(in crate::rabbit) fn attach(&self, connection: Connection, blocked: Blocked, fault: Arc<Notify>) {
        let lines = PublishChannels {
            connection,
            blocked,
            mandatory: (0..CHANNELS).map(|_| Mutex::new(None)).collect(),
            direct: Mutex::new(None),
            aside: Mutex::default(),
            turn: std::sync::atomic::AtomicUsize::new(0),
            fault,
        };
        self.lines.send_replace(Some(Arc::new(lines)));
    }

    /// Closes the connection.
    pub(in crate::rabbit) async fn detach(&self) {
        if let Some(lines) = self.lines.send_replace(None) {
            close(&lines.connection).await;
            lines.blocked.give_up();
        }
    }

    /// Returns the channel without confirms, for messages that may be lost. There is none while the broker does not
    /// read: lapin would buffer all published messages, without a limit.
    pub(in crate::rabbit) async fn aside(&self) -> Result<Channel, NoLine> {
        let lines = self.lines.borrow().clone().ok_or(NoLine::Now)?;
        lines.aside().await
    }

    /// Opens a channel for another purpose, if the broker reads from the connection now.
    pub(in crate::rabbit) async fn other_channel(&self) -> Option<Channel> {
        let lines = self.lines.borrow().clone()?;
        let status = lines.connection.status();
        if status.blocked() {
            return None;
        }
        timeout(CONFIRM_TIMEOUT, lines.connection.create_channel()).await.ok()?.ok()
    }

    /// Publishes an invocation, and repeats it only while the broker has certainly not taken it: a caller that sends an
    /// invocation again after an unknown outcome must mark it as resent.
    pub async fn offer(&self, post: &Publish) -> Offered {
        let mut refusals = 0;
        loop {
            let Ok(lines) = self.lines().await else { return Offered::Unclear };
            let why = match lines.publish(post).await {
                Try::Posted(Published::Confirmed) => return Offered::Confirmed,
                Try::Posted(Published::Unroutable | Published::Refused | Published::TooLarge) => {
                    "no queue takes it".to_owned()
                }
                Try::Refused(why) | Try::TooLarge(why) => why,
                Try::Unknown => return Offered::Unclear,
            };
            refusals += 1;
            if refusals >= REFUSALS_MAX {
                return Offered::Refused(why);
            }
            sleep(AGAIN.wait(refusals, fastrand::f64())).await;
        }
    }

    /// Waits for the channels of the current generation.
    async fn lines(&self) -> Result<Arc<PublishChannels>, Unpublished> {
        let mut lines = self.lines.subscribe();
        let attached = async { lines.wait_for(Option::is_some).await.map(drop) };
        tokio::select! {
            _ = attached => {}
            () = self.leaving.cancelled() => {}
        }
        self.lines.borrow().clone().ok_or(Unpublished)
    }
}

#[async_trait]
impl Outbox for Publisher {
    async fn post(&self, post: &Publish) -> Result<Published, Unpublished> {
        // Results always have a queue (by the alternate exchange), and so do parked messages: if that queue is missing,
        // the topology must be declared again, and the message waits for that. All other messages have an alternative.
        let must_be_routed = match &post.to {
            Address::Exchange(exchange, _) => *exchange == RESULTS,
            Address::Queue(queue) => queue == DEAD,
            Address::DirectReply(_) => false,
        };
        let (mut refusals, mut tries) = (0, 0);
        loop {
            let lines = self.lines().await?;
            reached(Point::Publishing, post.properties.message_id.as_deref()).await;
            match lines.publish(post).await {
                Try::Posted(Published::Unroutable) if must_be_routed && tries >= REFUSALS_MAX => {
                    lines.fault.notify_one()
                }
                Try::Posted(Published::Unroutable) if must_be_routed => {}
                Try::Posted(posted) => {
                    reached(Point::Confirmed, post.properties.message_id.as_deref()).await;
                    return Ok(posted);
                }
                Try::TooLarge(_) => return Ok(Published::TooLarge),
                Try::Refused(_) => {
                    refusals += 1;
                    if refusals >= REFUSALS_MAX && !must_be_routed {
                        return Ok(Published::Refused);
                    }
                }
                Try::Unknown => {}
            }
            tries += 1;
            sleep(AGAIN.wait(tries, fastrand::f64())).await;
        }
    }
}

impl PublishChannels {
    async fn publish(&self, post: &Publish) -> Try {
        match &post.to {
            Address::DirectReply(name) => {
                // Several messages may be in flight on this channel: the lock is held while the channel is opened, not
                // while the confirm is awaited.
                let channel = { self.open(&mut *self.direct.lock().await).await.cloned() };
                let Some(channel) = channel else { return Try::Unknown };
                let tried = self.once(&channel, "", name, false, post).await;
                if matches!(tried, Try::Unknown) {
                    self.direct.lock().await.take();
                }
                tried
            }
            Address::Queue(name) => self.publish_mandatory("", name, post).await,
            Address::Exchange(exchange, key) => self.publish_mandatory(exchange, key, post).await,
        }
    }

    async fn publish_mandatory(&self, exchange: &str, key: &str, post: &Publish) -> Try {
        let turn = self.turn.fetch_add(1, std::sync::atomic::Ordering::Relaxed) % self.mandatory.len();
        let free = self.mandatory.iter().find_map(|line| line.try_lock().ok());
        let mut line = match free {
            Some(line) => line,
            None => self.mandatory[turn].lock().await,
        };
        if self.open(&mut line).await.is_none() {
            return Try::Unknown;
        }
        // A cancelled or unknown attempt drops its channel, so that late confirms are not mixed up with those of
        // later messages.
        let Some(channel) = line.take() else { return Try::Unknown };
        let tried = self.once(&channel, exchange, key, true, post).await;
        if !matches!(tried, Try::Unknown) {
            *line = Some(channel);
        }
        tried
    }

    async fn aside(&self) -> Result<Channel, NoLine> {
        let status = self.connection.status();
        if status.connected() && status.blocked() {
            return Err(NoLine::Now);
        }
        let mut aside = self.aside.lock().await;
        if aside.refused_at.is_some_and(|at| at.elapsed() < REFUSED_FOR) {
            return Err(NoLine::Refused);
        }
        let channel = match aside.channel.take() {
            Some(channel) => channel,
            None => match timeout(CONFIRM_TIMEOUT, self.connection.create_channel()).await {
                Ok(Ok(channel)) => channel,
                Ok(Err(_)) | Err(_) => {
                    self.fault.notify_one();
                    return Err(NoLine::Now);
                }
            },
        };
        if channel.status().connected() {
            *aside = LossyChannel { channel: Some(channel.clone()), refused_at: None };
            return Ok(channel);
        }
        if status.connected() {
            aside.refused_at = Some(Instant::now());
            return Err(NoLine::Refused);
        }
        self.fault.notify_one();
        Err(NoLine::Now)
    }

    /// Returns a channel once the broker reads from the connection. Opens the channel if it is missing or closed.
    async fn open<'a>(&self, line: &'a mut Option<Channel>) -> Option<&'a Channel> {
        self.blocked.passes().await;
        if !line.as_ref().is_some_and(|channel| channel.status().connected()) {
            *line = self.opened().await;
        }
        if line.is_none() {
            self.fault.notify_one();
        }
        line.as_ref()
    }

    /// Publishes once and waits for the confirm.
    async fn once(
        &self,
        channel: &Channel,
        exchange: &str,
        key: &str,
        mandatory: bool,
        post: &Publish,
    ) -> Try {
        let (Ok(exchange), Ok(key)) = (ShortString::try_new(exchange), ShortString::try_new(key)) else {
            return Try::Posted(Published::Unroutable); // no queue has such a long name
        };
        let options = BasicPublishOptions { mandatory, ..BasicPublishOptions::default() };
        let published = async {
            channel
                .basic_publish(exchange, key, options, &post.body, properties_out(&post.properties))
                .await?
                .await
        };
        match self.blocked.within(CONFIRM_TIMEOUT, published).await {
            Some(Ok(Confirmation::Ack(None))) => Try::Posted(Published::Confirmed),
            Some(Ok(Confirmation::Ack(Some(_)))) => Try::Posted(Published::Unroutable),
            Some(Ok(Confirmation::Nack(_))) => Try::Refused("the queue is full".to_owned()),
            Some(Err(error)) if is_too_large(&error) => Try::TooLarge(explain(&error)),
            Some(Err(error)) if is_refusal(&error) => Try::Refused(explain(&error)),
            // `NotRequested`: without confirms the outcome is unknown too; confirms are on, so this is a fault.
            Some(Ok(Confirmation::NotRequested) | Err(_)) | None => Try::Unknown,
        }
    }

    /// Opens a channel with confirms; `None` if the connection does not provide one.
    async fn opened(&self) -> Option<Channel> {
        let opened = async {
            let channel = self.connection.create_channel().await?;
            channel.confirm_select(ConfirmSelectOptions::default()).await?;
            lapin::Result::Ok(channel)
        };
        self.blocked.within(CONFIRM_TIMEOUT, opened).await?.ok()
    }
}

/// Returns true if the broker has closed the channel because the message exceeds its size limit.
fn is_too_large(error: &lapin::Error) -> bool {
    let ErrorKind::ProtocolError(refusal) = error.kind() else { return false };
    refusal.get_id() == PRECONDITION_FAILED && refusal.get_message().as_str().contains("message size")
}

/// Returns true if the broker has closed the channel over this message: its exchange does not exist, the user may
/// not write to it, or a property is invalid.
pub(in crate::rabbit) fn is_refusal(error: &lapin::Error) -> bool {
    let ErrorKind::ProtocolError(refusal) = error.kind() else { return false };
    [ACCESS_REFUSED, NOT_FOUND, PRECONDITION_FAILED].contains(&refusal.get_id())
}
