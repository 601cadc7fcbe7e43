//! A probe for the effects of the broker's policies on a queue named like one of ours, as far as they show in a moment.
//!
//! AMQP does not reveal policies. So the probe declares, fills, watches and deletes an exclusive queue, which shows a
//! short time to live, a small length and a short expiry. Only the management API reveals longer ones.

use std::time::Duration;

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation};
use tokio::time::{sleep, timeout};

use super::connect::explain;
use super::declare::look;

/// The number of messages that the probe publishes: it detects a smaller `max-length`.
const MESSAGES: u32 = 1000;

/// The size of each message: together with their number, it detects a smaller `max-length-bytes`.
const MESSAGE_BYTES: usize = 100;

/// The timeout for the broker's answers.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// AMQP's transient delivery mode: messages are not written to disk.
const TRANSIENT: u8 = 1;

/// Returns the effects of policies on messages in a queue whose name begins with this one. Detects a `message-ttl` or
/// `expires` shorter than the time for which the messages are watched.
///
/// # Errors
/// A description of the failure, if the probe fails.
pub(in crate::rabbit) async fn probe(
    channel: &Channel,
    like: &str,
    watched: Duration,
) -> Result<Vec<String>, String> {
    let name = format!("{like}.probe-{:08x}", fastrand::u32(..));
    let probed = timeout(ANSWER_MAX + watched, watch(channel, &name, watched)).await;
    probed
        .unwrap_or_else(|_| Err("the broker does not answer".to_owned()))
        .map_err(|why| format!("`{name}`: {why}"))
}

async fn watch(channel: &Channel, name: &str, watched: Duration) -> Result<Vec<String>, String> {
    let explained = |error: lapin::Error| explain(&error);
    channel.confirm_select(ConfirmSelectOptions::default()).await.map_err(explained)?;
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("classic".into()));
    let options =
        QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(ShortString::from(name), options, arguments).await.map_err(explained)?;
    let refused = fill(channel, name).await.map_err(explained)?;
    let kept = look(channel, name).await.map_err(explained)?.message_count();
    sleep(watched).await;
    let left = look(channel, name).await.map(|queue| queue.message_count());
    let still_exists = left.is_ok();
    let mut found = Vec::new();
    if refused > 0 {
        found.push(format!("beyond {kept} messages (`max-length`) further ones are refused"));
    }
    if kept + refused < MESSAGES {
        found.push(format!("beyond {kept} messages (`max-length`, `drop-head`) the oldest are dropped"));
    }
    match left {
        Err(_) => found.push(format!("a queue that nobody used for {watched:?} was deleted (`expires`)")),
        Ok(left) if left < kept => {
            found.push(format!("messages were dropped that waited for {watched:?} (`message-ttl`)"));
        }
        Ok(_) => {}
    }
    if still_exists {
        channel.queue_delete(name.into(), QueueDeleteOptions::default()).await.map_err(explained)?;
    }
    Ok(found)
}

/// Publishes messages to the queue and returns the number that it refuses.
async fn fill(channel: &Channel, name: &str) -> lapin::Result<u32> {
    let properties = BasicProperties::default().with_delivery_mode(TRANSIENT);
    let mut confirms = Vec::new();
    for _ in 0..MESSAGES {
        let (name, options) = (ShortString::from(name), BasicPublishOptions::default());
        let sent = channel.basic_publish(
            ShortString::default(),
            name,
            options,
            &[0; MESSAGE_BYTES],
            properties.clone(),
        );
        confirms.push(sent.await?);
    }
    let mut refused = 0;
    for confirm in confirms {
        refused += u32::from(matches!(confirm.await?, Confirmation::Nack(_)));
    }
    Ok(refused)
}
