//! Read-only inspection of the broker.

use std::time::Duration;

use lapin::options::QueueDeclareOptions;
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Connection};
use tokio::time::timeout;

use crate::domain::ids::{ConnectionName, Lane};
use crate::domain::topology::{Topology, work_queue};

use crate::rabbit::BrokerSettings;
use crate::rabbit::client::connect::{BrokerNodes, close, explain};
use crate::rabbit::client::declare::{Undeclared, declare, is_missing, look};
use crate::rabbit::client::probe::probe;
use crate::rabbit::client::supervisor_end::SupervisorEnd;

/// The timeout of the whole inspection.
const LOOK_MAX: Duration = Duration::from_secs(30);

/// The time for which the probe watches its messages: a user waits for the result.
const WATCHED: Duration = Duration::from_secs(3);

/// The state of one queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueueStatus {
    /// The queue exists, with the right arguments.
    Right {
        /// The number of messages waiting.
        messages: u32,
        /// The number of consumers.
        consumers: u32,
    },
    /// The queue does not exist.
    Missing,
    /// The node of the queue is down; the text is the broker's.
    Away(String),
    /// The queue has other arguments, or the user may not inspect it.
    Wrong(String),
}

/// Connects and inspects every queue that these connections need, by name.
///
/// # Errors
/// If the broker cannot be reached.
pub async fn inspect(
    settings: &BrokerSettings,
    connections: &[ConnectionName],
) -> Result<Vec<(String, QueueStatus)>, String> {
    let look = async {
        let nodes = BrokerNodes::new(settings).map_err(|ended| ended.to_string())?;
        let connection =
            nodes.connect("checking").await.map_err(|why| SupervisorEnd::Unreachable(why).to_string())?;
        let topology = Topology::of(connections.iter(), settings.dead_ttl, settings.dead_max);
        let mut found = Vec::new();
        for queue in topology.queues {
            let name = queue.name.clone();
            let one = Topology { exchanges: Vec::new(), queues: vec![queue] };
            found.push((name.clone(), look_at(&connection, &name, one).await?));
        }
        close(&connection).await;
        Ok(found)
    };
    timeout(LOOK_MAX, look).await.unwrap_or_else(|_| Err("the broker does not answer".to_owned()))
}

/// Returns the number of consumers of a queue; 0 if it does not exist. A passive declaration needs no permission.
///
/// # Errors
/// If the broker cannot be reached, or refuses to answer.
pub async fn consumers(settings: &BrokerSettings, queue: &str) -> Result<u32, String> {
    let look = async {
        let nodes = BrokerNodes::new(settings).map_err(|ended| ended.to_string())?;
        let connection = nodes.connect("looking").await?;
        let found = look(&channel(&connection).await?, queue).await;
        close(&connection).await;
        match found {
            Ok(queue) => Ok(queue.consumer_count()),
            Err(error) if is_missing(&error) => Ok(0),
            Err(error) => Err(explain(&error)),
        }
    };
    timeout(LOOK_MAX, look).await.unwrap_or_else(|_| Err("the broker does not answer".to_owned()))
}

/// Declares this many temporary queues, to find out whether the broker lets the worker declare its own queues: a
/// missing permission or a limit of the virtual host (`max-queues`) may prevent that.
///
/// # Errors
/// The broker's refusal.
pub async fn try_declaring(settings: &BrokerSettings, count: usize) -> Result<(), String> {
    let declare = async {
        let nodes = BrokerNodes::new(settings).map_err(|ended| ended.to_string())?;
        let connection = nodes.connect("checking").await?;
        let channel = channel(&connection).await?;
        let run = fastrand::u32(..);
        for number in 0..count {
            // Deleted with the connection.
            let options = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
            let name = ShortString::from(format!("okta.check-{run:08x}-{number}"));
            let declared = channel.queue_declare(name, options, FieldTable::default()).await;
            declared.map_err(|error| explain(&error))?;
        }
        close(&connection).await;
        Ok(())
    };
    timeout(LOOK_MAX, declare).await.unwrap_or_else(|_| Err("the broker does not answer".to_owned()))
}

/// Probes a queue named like a work queue of this connection, and returns the effects of policies that show in a
/// moment.
///
/// # Errors
/// A description of the failure, if the probe fails.
pub async fn observed(settings: &BrokerSettings, connection: &ConnectionName) -> Result<Vec<String>, String> {
    let nodes = BrokerNodes::new(settings).map_err(|ended| ended.to_string())?;
    let amqp = nodes.connect("probing").await?;
    let found = probe(&channel(&amqp).await?, &work_queue(connection, Lane::Bulk), WATCHED).await;
    close(&amqp).await;
    found
}

/// Checks that a queue exists, and only then declares it again, which compares the arguments.
async fn look_at(connection: &Connection, name: &str, mut one: Topology) -> Result<QueueStatus, String> {
    let channel = channel(connection).await?; // a refusal closes it, so each look has its own
    let queue = match look(&channel, name).await {
        Ok(queue) => queue,
        Err(error) if explain(&error).contains("home node") => return Ok(QueueStatus::Away(explain(&error))),
        Err(_) => return Ok(QueueStatus::Missing),
    };
    one.queues.iter_mut().for_each(|queue| queue.bindings.clear());
    match declare(&channel, &one, false).await {
        Ok(()) => {
            Ok(QueueStatus::Right { messages: queue.message_count(), consumers: queue.consumer_count() })
        }
        Err(Undeclared::Wrong(why)) => Ok(QueueStatus::Wrong(why)),
        Err(failed) => Err(failed.to_string()),
    }
}

async fn channel(connection: &Connection) -> Result<Channel, String> {
    connection.create_channel().await.map_err(|error| error.to_string())
}
