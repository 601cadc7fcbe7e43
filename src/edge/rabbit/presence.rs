//! Being counted: a consumer on the presence queue of each connection, and how many there are.
//!
//! RabbitMQ counts a queue's consumers and forgets one with its connection, so workers need no store to know
//! their number. The queue never holds a message. It is classic, because a quorum queue that does not answer
//! its own broker within 250 ms counts as one without consumers.

use std::time::Duration;

use futures_util::StreamExt as _;
use lapin::options::{BasicCancelOptions, BasicConsumeOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Consumer};
use tokio::time::timeout;

use crate::domain::ids::{ConnectionName, Lane};
use crate::domain::topology::{presence_queue, work_queue};
use crate::worker::ports::Census;

use super::declare::look;
use super::doubt::Doubt;
use super::roster::Roster;

/// How often a connection's workers are counted, on average. Two calls of less than a millisecond; a worker
/// that has just come keeps back until it was counted three times.
const COUNT_EVERY: Duration = Duration::from_secs(2);

/// By how much a wait may be shorter or longer, so that workers started together do not ask in step.
const JITTER: f64 = 0.2;

/// How long a count may take before the connection is doubted: as long as a confirm, because the same busy
/// broker answers both.
const COUNT_MAX: Duration = Duration::from_secs(30);

/// One worker's presence on one connection, for as long as it is kept.
pub(super) struct Presence {
    channel: Channel,
    consumer: Consumer,
    connection: ConnectionName,
    roster: Roster,
}

impl Presence {
    /// Becomes one of those who are counted, and counts for the first time.
    pub async fn announce(
        channel: &Channel,
        connection: &ConnectionName,
        roster: &Roster,
    ) -> Result<Self, Doubt> {
        // Whatever somebody puts there is gone when it comes.
        let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
        let (queue, tag) = (ShortString::from(presence_queue(connection)), ShortString::default());
        let consumer = channel.basic_consume(queue, tag, options, FieldTable::default()).await;
        let consumer = consumer.map_err(Doubt::unreachable)?;
        let (connection, roster) = (connection.clone(), roster.clone());
        let announced = Self { channel: channel.clone(), consumer, connection, roster };
        announced.count().await.map_err(Doubt::unreachable)?;
        Ok(announced)
    }

    /// Counts again and again, until that or being counted fails.
    pub async fn keep(&mut self) -> Doubt {
        let consumer = self.consumer.clone();
        tokio::select! {
            doubt = self.go_on_counting() => doubt,
            () = ended(consumer) => Doubt::Lost("this worker is no longer counted"),
        }
    }

    /// Is counted no more. What cannot be told to the broker now, the end of the connection tells it.
    pub async fn leave(self) {
        let cancelled = self.channel.basic_cancel(self.consumer.tag(), BasicCancelOptions::default());
        let _ = timeout(COUNT_MAX, cancelled).await;
    }

    async fn go_on_counting(&mut self) -> Doubt {
        loop {
            let wait = COUNT_EVERY.mul_f64(1.0 - JITTER + 2.0 * JITTER * fastrand::f64());
            // Another gossip knows nothing yet.
            let _ = timeout(wait, self.roster.changed()).await;
            match timeout(COUNT_MAX, self.count()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Doubt::Lost("the workers cannot be counted"),
                Err(_) => return Doubt::Lost("the broker does not count the workers"),
            }
        }
    }

    async fn count(&self) -> lapin::Result<()> {
        // A connection that is no longer served is counted by others alone.
        let Some(gossip) = self.roster.gossip(self.connection.as_str()) else { return Ok(()) };
        let there = look(&self.channel, &presence_queue(&self.connection)).await?;
        let bulk = look(&self.channel, &work_queue(&self.connection, Lane::Bulk)).await?;
        // This worker is there, whatever the count says.
        let census =
            Census { workers: there.consumer_count().max(1), queued: u64::from(bulk.message_count()) };
        gossip.counted(census);
        Ok(())
    }
}

/// Waits until a consumer of a queue without messages has ended.
async fn ended(mut consumer: Consumer) {
    while let Some(Ok(_)) = consumer.next().await {}
}
