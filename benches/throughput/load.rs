//! The callers: they publish invocations and count the answers.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use futures_util::StreamExt as _;
use lapin::options::{BasicConsumeOptions, BasicPublishOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, Consumer};
use serde::Deserialize;
use tokio::time::timeout;

/// Where the answers go.
const REPLIES: &str = "bench.replies";

/// An answer that takes longer will not come.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// The parts of a reply that are checked, the thin loop's and the worker's alike.
#[derive(Deserialize)]
struct Reply<'a> {
    id: &'a str,
    status: &'a str,
}

#[derive(Deserialize)]
struct User {
    id: String,
}

/// The callers' end of the broker.
pub struct Load {
    connection: Connection,
    out: Channel,
    replies: Consumer,
    ids: Vec<String>,
    rounds: usize,
}

/// The ids of the org's first users.
pub async fn user_ids(base_url: &str, users: usize) -> anyhow::Result<Vec<String>> {
    let answer = reqwest::Client::new()
        .get(format!("{base_url}/api/v1/users?limit=200"))
        .header("authorization", "SSWS bench-token")
        .send()
        .await?;
    let body = answer.error_for_status()?.bytes().await?;
    let found: Vec<User> = serde_json::from_slice(&body)?;
    ensure!(!found.is_empty(), "the org has no users, of {users}");
    Ok(found.into_iter().map(|user| user.id).collect())
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
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        self.out.queue_declare(queue.into(), options, arguments).await?;
        Ok(())
    }

    /// Waits until somebody consumes a queue.
    pub async fn await_consumer(&self, queue: &str, ready_max: Duration) -> anyhow::Result<()> {
        let begun = Instant::now();
        while begun.elapsed() < ready_max {
            // Asking for a queue that is not there ends the channel, so each time has its own.
            let channel = self.connection.create_channel().await?;
            let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
            let found = channel.queue_declare(queue.into(), options, FieldTable::default()).await;
            if found.is_ok_and(|queue| queue.consumer_count() > 0) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        bail!("nobody consumed `{queue}` within {ready_max:?}")
    }

    /// Publishes so many invocations and takes the answer of each.
    pub async fn run(&mut self, exchange: &str, key: &str, messages: usize) -> anyhow::Result<()> {
        self.rounds += 1;
        let round = self.rounds;
        let publishing = async {
            for at in 0..messages {
                let user = &self.ids[at % self.ids.len()];
                let body = format!(r#"{{"subtool":"get_user","arguments":{{"user_id":"{user}"}}}}"#);
                let properties = BasicProperties::default()
                    .with_delivery_mode(2)
                    .with_message_id(format!("{round}-{at}").into())
                    .with_reply_to(REPLIES.into())
                    .with_content_type("application/json".into());
                let options = BasicPublishOptions::default();
                self.out
                    .basic_publish(exchange.into(), key.into(), options, body.as_bytes(), properties)
                    .await?;
            }
            anyhow::Ok(())
        };
        let taking = async {
            let mut answered = HashSet::new();
            while answered.len() < messages {
                let next = timeout(SILENCE_MAX, self.replies.next()).await;
                let next = next.with_context(|| format!("{} of {messages} answers", answered.len()))?;
                let delivery = next.context("the broker ended the consumer")??;
                let reply: Reply<'_> = serde_json::from_slice(&delivery.data)?;
                ensure!(reply.status == "succeeded", "{}", String::from_utf8_lossy(&delivery.data));
                ensure!(reply.id.starts_with(&format!("{round}-")), "an answer of another round");
                ensure!(answered.insert(reply.id.to_owned()), "answered twice: {}", reply.id);
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
