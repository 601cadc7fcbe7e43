//! The callers: a backlog of bulk invocations that never runs dry, and now and then an interactive one, whose
//! answer somebody waits for.

use std::collections::HashMap;
use std::convert::Infallible;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures_util::StreamExt as _;
use jiff::Timestamp;
use lapin::options::{BasicConsumeOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Connection, ConnectionProperties, Consumer};
use okta_worker::domain::ids::{ConnectionName, Lane};
use okta_worker::domain::topology::{presence_queue, work_queue};
use tokio::time::sleep_until;

use super::figures::Span;
use super::plan::LIMIT;
use super::support::messages::{Address, Answer, ask};
use super::support::queues;
use super::waits::Waits;

/// Bulk invocations without an answer: more than any controller gets done in four windows.
const BACKLOG: usize = 4 * LIMIT as usize;

/// Published at once, so that an interactive call is not late because of it.
const BATCH: usize = 100;

/// What an id of an interactive invocation begins with.
const INTERACTIVE: &str = "interactive-";

/// The work queue of a lane.
pub fn queue_of(connection: &str, lane: Lane) -> anyhow::Result<String> {
    Ok(work_queue(&name(connection)?, lane))
}

fn name(connection: &str) -> anyhow::Result<ConnectionName> {
    ConnectionName::parse(connection).map_err(anyhow::Error::msg)
}

/// An interactive invocation under way or answered.
struct Call {
    sent: Timestamp,
    began: Instant,
    wait: Option<Duration>,
}

/// The callers' end of the broker.
pub struct Load {
    connection: Connection,
    out: Channel,
    answers: Consumer,
    replies: String,
    interactive: String,
    bulk: String,
    presence: String,
    users: Vec<String>,
    published: usize,
    outstanding: usize,
    /// Answers other than `succeeded`.
    pub failed: usize,
    calls: HashMap<String, Call>,
}

impl Load {
    pub async fn open(url: &str, connection_name: &str, users: Vec<String>) -> anyhow::Result<Self> {
        let connection = Connection::connect(url, ConnectionProperties::default())
            .await
            .context("failed to reach the broker")?;
        let out = connection.create_channel().await?;
        let channel = connection.create_channel().await?;
        let replies = format!("{connection_name}.replies");
        let options =
            QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
        channel.queue_declare(replies.as_str().into(), options, FieldTable::default()).await?;
        let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
        let answers = channel
            .basic_consume(replies.as_str().into(), ShortString::default(), options, FieldTable::default())
            .await?;
        Ok(Self {
            connection,
            out,
            answers,
            replies,
            interactive: queue_of(connection_name, Lane::Interactive)?,
            bulk: queue_of(connection_name, Lane::Bulk)?,
            presence: presence_queue(&name(connection_name)?),
            users,
            published: 0,
            outstanding: 0,
            failed: 0,
            calls: HashMap::new(),
        })
    }

    /// Takes away the run's queues, at the end or left by one that was cut short. The exchanges are everybody's
    /// and stay.
    pub async fn clear(&self) -> anyhow::Result<()> {
        for queue in [&self.interactive, &self.bulk, &self.presence] {
            self.out.queue_delete(queue.as_str().into(), QueueDeleteOptions::default()).await?;
        }
        Ok(())
    }

    /// Declares the lanes' queues for workers who do not.
    pub async fn declare(&self) -> anyhow::Result<()> {
        for queue in [&self.interactive, &self.bulk] {
            queues::declare(&self.out, queue).await?;
        }
        Ok(())
    }

    /// Waits until so many workers consume both lanes.
    pub async fn await_workers(&self, workers: u32) -> anyhow::Result<()> {
        for queue in [&self.interactive, &self.bulk] {
            queues::await_consumers(&self.connection, queue, workers).await?;
        }
        Ok(())
    }

    /// Keeps the backlog and calls interactively at this interval, until it is dropped.
    pub async fn feed(&mut self, interval: Option<Duration>) -> anyhow::Result<Infallible> {
        let mut slot = tokio::time::Instant::now();
        let mut call_at = slot;
        loop {
            tokio::select! {
                answer = self.answers.next() => {
                    let delivery = answer.context("the broker ended the consumer")??;
                    self.take(&serde_json::from_slice(&delivery.data)?);
                }
                () = sleep_until(call_at), if interval.is_some() => {
                    self.call().await?;
                    // Somewhere in the next interval, so that calls fall into every part of a window.
                    let interval = interval.unwrap_or_default();
                    slot += interval;
                    call_at = slot + interval.mul_f64(fastrand::f64());
                }
                () = std::future::ready(()), if self.outstanding + BATCH <= BACKLOG => self.publish().await?,
            }
        }
    }

    async fn publish(&mut self) -> anyhow::Result<()> {
        for _ in 0..BATCH {
            self.ask(Lane::Bulk, format!("bulk-{}", self.published)).await?;
            self.outstanding += 1;
        }
        Ok(())
    }

    async fn call(&mut self) -> anyhow::Result<()> {
        let id = format!("{INTERACTIVE}{}", self.published);
        let call = Call { sent: Timestamp::now(), began: Instant::now(), wait: None };
        self.calls.insert(id.clone(), call);
        self.ask(Lane::Interactive, id).await
    }

    async fn ask(&mut self, lane: Lane, id: String) -> anyhow::Result<()> {
        let key = match lane {
            Lane::Interactive => &self.interactive,
            Lane::Bulk => &self.bulk,
        };
        let to = Address { exchange: "", key, replies: &self.replies };
        ask(&self.out, to, id, &self.users[self.published % self.users.len()]).await?;
        self.published += 1;
        Ok(())
    }

    fn take(&mut self, answer: &Answer<'_>) {
        if answer.status != "succeeded" {
            self.failed += 1;
        }
        if answer.id.starts_with(INTERACTIVE) {
            if let Some(call) = self.calls.get_mut(answer.id) {
                call.wait.get_or_insert(call.began.elapsed());
            }
        } else {
            self.outstanding = self.outstanding.saturating_sub(1);
        }
    }

    /// How long those waited who called in this time. One without an answer has waited until now, at least.
    pub fn waits(&self, span: Span) -> Waits {
        let asked = self.calls.values().filter(|call| call.sent >= span.from && call.sent <= span.until);
        Waits::of(asked.map(|call| call.wait.unwrap_or_else(|| call.began.elapsed())).collect())
    }

    /// Leaves nothing at the broker.
    pub async fn close(self) -> anyhow::Result<()> {
        self.clear().await?;
        self.connection.close(200, "done".into()).await?;
        Ok(())
    }
}
