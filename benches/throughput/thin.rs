//! The thinnest loop: consume, GET, confirmed reply, ack. It checks nothing, retries nothing and tells nobody.
//!
//! What it shares with the worker, because without it the work would be another: the crates, the prefetch,
//! the bound on requests at once, keep-alive, a task per message, persistent replies that are confirmed
//! before the ack, and a user's JSON passed on without being taken apart. Its confirms are pipelined on one
//! channel and its messages are not mandatory, which is less than the worker needs.

use std::sync::Arc;

use futures_util::StreamExt as _;
use lapin::message::Delivery;
use lapin::options::{BasicConsumeOptions, BasicQosOptions, ConfirmSelectOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Connection, ConnectionProperties};
use tokio::sync::Semaphore;

use crate::support::messages::{Invocation, answer};

/// The argument that makes this program the thin loop.
pub const COMMAND: &str = "thin-loop";

/// Messages in work at once: the worker's default.
const PREFETCH: u16 = 32;

/// Requests at once: the worker's bound.
const CONCURRENT_MAX: usize = 30;

struct Loop {
    http: reqwest::Client,
    base_url: String,
    slots: Semaphore,
    replies: Channel,
}

/// Runs until the process is ended. The arguments are the broker's URL, the org's URL and the queue.
pub async fn run(arguments: &[String]) -> anyhow::Result<()> {
    let [url, base_url, queue] = arguments else { anyhow::bail!("takes three arguments") };
    let connection = Connection::connect(url, ConnectionProperties::default()).await?;
    let replies = connection.create_channel().await?;
    replies.confirm_select(ConfirmSelectOptions::default()).await?;
    let deliveries = connection.create_channel().await?;
    deliveries.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
    let (queue, tag) = (ShortString::from(queue.as_str()), ShortString::default());
    let mut consumer =
        deliveries.basic_consume(queue, tag, BasicConsumeOptions::default(), FieldTable::default()).await?;
    let authorization = http::HeaderMap::from_iter([(
        http::header::AUTHORIZATION,
        http::HeaderValue::from_static("SSWS bench-token"),
    )]);
    let http = reqwest::Client::builder().default_headers(authorization).build()?;
    let (base_url, slots) = (base_url.clone(), Semaphore::new(CONCURRENT_MAX));
    let this = Arc::new(Loop { http, base_url, slots, replies });
    while let Some(delivery) = consumer.next().await {
        let (this, delivery) = (Arc::clone(&this), delivery?);
        tokio::spawn(async move {
            if let Err(error) = this.take(&delivery).await {
                eprintln!("thin loop: {error:#}");
            }
        });
    }
    Ok(())
}

impl Loop {
    async fn take(&self, delivery: &Delivery) -> anyhow::Result<()> {
        let invocation: Invocation<'_> = serde_json::from_slice(&delivery.data)?;
        let body = {
            let _slot = self.slots.acquire().await?;
            let url = format!("{}/api/v1/users/{}", self.base_url, invocation.arguments.user_id);
            self.http.get(url).send().await?.error_for_status()?.bytes().await?
        };
        answer(&self.replies, delivery, &body).await
    }
}
