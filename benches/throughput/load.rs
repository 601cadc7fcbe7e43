//! The callers: they publish invocations and count the answers.

use std::collections::HashSet;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use futures_util::StreamExt as _;
use lapin::options::{BasicConsumeOptions, QueueDeclareOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Connection, ConnectionProperties, Consumer};
use tokio::time::timeout;

use crate::support::messages::{Address, Answer, ask};
use crate::support::queues;

/// Where the answers go.
const REPLIES: &str = "bench.replies";

/// An answer that takes longer will not come.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// The callers' end of the broker.
pub struct Load {
    connection: Connection,
    out: Channel,
    replies: Consumer,
    ids: Vec<String>,
    rounds: usize,
}

impl Load {
    pub async fn open(url: &str, ids: Vec<String>) -> anyhow::Result<Self> {
        let connection = Connection::connect(url, ConnectionProperties::default())
            .await
            .context("failed to reach the broker")?;
        let out = connection.create_channel().await?;
        let channel = connection.create_channel().await?;
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        channel.queue_declare(REPLIES.into(), options, FieldTable::default()).await?;
        channel.queue_purge(REPLIES.into(), lapin::options::QueuePurgeOptions::default()).await?;
        let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
        let replies = channel
            .basic_consume(REPLIES.into(), ShortString::default(), options, FieldTable::default())
            .await?;
        Ok(Self { connection, out, replies, ids, rounds: 0 })
    }

    /// Declares a queue of the kind the worker's are.
    pub async fn declare(&self, queue: &str) -> anyhow::Result<()> {
        queues::declare(&self.out, queue).await
    }

    /// Waits until somebody consumes a queue.
    pub async fn await_consumer(&self, queue: &str) -> anyhow::Result<()> {
        queues::await_consumers(&self.connection, queue, 1).await
    }

    /// Publishes so many invocations and takes the answer of each.
    pub async fn run(&mut self, exchange: &str, key: &str, messages: usize) -> anyhow::Result<()> {
        self.rounds += 1;
        let (round, to) = (self.rounds, Address { exchange, key, replies: REPLIES });
        let publishing = async {
            for at in 0..messages {
                let user = &self.ids[at % self.ids.len()];
                ask(&self.out, to, format!("{round}-{at}"), user).await?;
            }
            anyhow::Ok(())
        };
        let taking = async {
            let mut answered = HashSet::new();
            while answered.len() < messages {
                let next = timeout(SILENCE_MAX, self.replies.next()).await;
                let next = next.with_context(|| format!("{} of {messages} answers", answered.len()))?;
                let delivery = next.context("the broker ended the consumer")??;
                let answer: Answer<'_> = serde_json::from_slice(&delivery.data)?;
                ensure!(answer.status == "succeeded", "{}", String::from_utf8_lossy(&delivery.data));
                ensure!(answer.id.starts_with(&format!("{round}-")), "an answer of another round");
                ensure!(answered.insert(answer.id.to_owned()), "answered twice: {}", answer.id);
            }
            anyhow::Ok(())
        };
        tokio::try_join!(publishing, taking)?;
        Ok(())
    }

    pub async fn close(self) {
        let _ = self.connection.close(200, "done".into()).await;
    }
}
