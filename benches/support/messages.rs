//! The one invocation the benches send, and as much of its messages as a loop that only gets users needs.

use anyhow::Context as _;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicPublishOptions};
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// An invocation of `get_user`.
#[derive(Deserialize)]
pub struct Invocation<'a> {
    #[serde(borrow)]
    pub arguments: Arguments<'a>,
}

#[derive(Deserialize)]
pub struct Arguments<'a> {
    pub user_id: &'a str,
}

/// The parts of an answer that callers check, whoever wrote it.
#[derive(Deserialize)]
pub struct Answer<'a> {
    pub id: &'a str,
    pub status: &'a str,
}

#[derive(Serialize)]
struct Success<'a> {
    id: &'a str,
    status: &'a str,
    result: &'a RawValue,
}

/// Where and how a caller publishes, and where it wants its answers.
#[derive(Clone, Copy)]
pub struct Address<'a> {
    pub exchange: &'a str,
    pub key: &'a str,
    pub replies: &'a str,
}

/// Publishes an invocation of `get_user`, persistent as callers' are.
pub async fn ask(out: &Channel, to: Address<'_>, id: String, user: &str) -> anyhow::Result<()> {
    let body = format!(r#"{{"subtool":"get_user","arguments":{{"user_id":"{user}"}}}}"#);
    let properties = BasicProperties::default()
        .with_delivery_mode(2)
        .with_message_id(id.into())
        .with_reply_to(to.replies.into())
        .with_content_type("application/json".into());
    let options = BasicPublishOptions::default();
    out.basic_publish(to.exchange.into(), to.key.into(), options, body.as_bytes(), properties).await?;
    Ok(())
}

/// Answers an invocation with a user's JSON, waits for the broker's confirm, and acknowledges it.
pub async fn answer(replies: &Channel, delivery: &Delivery, user: &[u8]) -> anyhow::Result<()> {
    let came = &delivery.properties;
    let id = came.message_id().clone().context("no message_id")?;
    let reply_to = came.reply_to().clone().context("no reply_to")?;
    let success = Success { id: id.as_str(), status: "succeeded", result: serde_json::from_slice(user)? };
    let properties = BasicProperties::default()
        .with_delivery_mode(2)
        .with_correlation_id(id.clone())
        .with_content_type("application/json".into());
    let (body, options) = (serde_json::to_vec(&success)?, BasicPublishOptions::default());
    let posted = replies.basic_publish(ShortString::default(), reply_to, options, &body, properties).await?;
    anyhow::ensure!(posted.await?.is_ack(), "the broker refused a reply");
    delivery.ack(BasicAckOptions::default()).await?;
    Ok(())
}
