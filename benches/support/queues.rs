//! Queues of the kind the worker's are, and who consumes them.

use std::time::{Duration, Instant};

use anyhow::bail;
use lapin::options::QueueDeclareOptions;
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection};

/// How long processes may take until they consume: two cores start a broker's clients one after another.
const READY_MAX: Duration = Duration::from_secs(60);

/// Declares a quorum queue.
pub async fn declare(channel: &Channel, queue: &str) -> anyhow::Result<()> {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(queue.into(), options, arguments).await?;
    Ok(())
}

/// Waits until so many consume a queue.
pub async fn await_consumers(connection: &Connection, queue: &str, consumers: u32) -> anyhow::Result<()> {
    let begun = Instant::now();
    while begun.elapsed() < READY_MAX {
        // Asking for a queue that is not there ends the channel, so each time has its own.
        let channel = connection.create_channel().await?;
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let found = channel.queue_declare(queue.into(), options, FieldTable::default()).await;
        if let Ok(found) = found {
            let _ = channel.close(200, "seen".into()).await;
            if found.consumer_count() >= consumers {
                return Ok(());
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    bail!("fewer than {consumers} consumed `{queue}` within {READY_MAX:?}")
}
