//! The thinnest loop: consume, GET, confirmed reply, ack. It checks nothing, retries nothing and tells nobody.
//!
//! What it shares with the worker, because without it the work would be another: the crates, the prefetch,
//! the bound on requests at once, keep-alive, a task per message, persistent replies that are confirmed
//! before the ack, and a user's JSON passed on without being taken apart. Its confirms are pipelined on one
//! channel and its messages are not mandatory, which is less than the worker needs.

use std::sync::Arc;

use anyhow::Context as _;
use futures_util::StreamExt as _;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
};
use lapin::types::{FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::Semaphore;

/// The argument that makes this program the thin loop.
pub const COMMAND: &str = "thin-loop";

/// Messages in work at once: the worker's default.
const PREFETCH: u16 = 32;

/// Requests at once: the worker's bound.
const CONCURRENT_MAX: usize = 30;

#[derive(Deserialize)]
struct Invocation<'a> {
    #[serde(borrow)]
    arguments: Arguments<'a>,
}

#[derive(Deserialize)]
struct Arguments<'a> {
    user_id: &'a str,
}

#[derive(Serialize)]
struct Reply<'a> {
    id: &'a str,
    status: &'a str,
    result: &'a RawValue,
}

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
    async fn take(&self, delivery: &lapin::message::Delivery) -> anyhow::Result<()> {
        let invocation: Invocation<'_> = serde_json::from_slice(&delivery.data)?;
        let body = {
            let _slot = self.slots.acquire().await?;
            let url = format!("{}/api/v1/users/{}", self.base_url, invocation.arguments.user_id);
            self.http.get(url).send().await?.error_for_status()?.bytes().await?
        };
        let came = &delivery.properties;
        let id = came.message_id().clone().context("no message_id")?;
        let reply_to = came.reply_to().clone().context("no reply_to")?;
        let reply = Reply { id: id.as_str(), status: "succeeded", result: serde_json::from_slice(&body)? };
        let properties = BasicProperties::default()
            .with_delivery_mode(2)
            .with_correlation_id(id.clone())
            .with_content_type("application/json".into());
        let body = serde_json::to_vec(&reply)?;
        let options = BasicPublishOptions::default();
        let posted =
            self.replies.basic_publish(ShortString::default(), reply_to, options, &body, properties).await?;
        anyhow::ensure!(posted.await?.is_ack(), "the broker refused a reply");
        delivery.ack(BasicAckOptions::default()).await?;
        Ok(())
    }
}
