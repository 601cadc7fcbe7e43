//! RabbitMQ through lapin: one supervisor, two connections, both rebuilt on any doubt.

mod asking;
mod blocked;
mod connecting;
mod consuming;
mod convert;
mod declare;
mod doubt;
mod generation;
mod governed;
mod heartbeats;
mod inspection;
mod management;
mod mending;
mod presence;
mod probe;
mod producing;
mod publisher;
mod quarantine;
mod restoring;
mod removed;
mod roster;
mod serving;
mod shelf;
mod signals;
mod site;
mod stream;
mod supervisor;

use std::path::PathBuf;
use std::time::Duration;

use crate::domain::secret::Secret;

pub use asking::{Asked, Asker, Heard};
pub use connecting::{own_user, user_and_vhost};
pub use declare::Undeclared;
pub use inspection::{Found, inspect, observed};
pub use management::{Orphan, orphans, policies};
pub use producing::{Counter, Reply, Unopened};
pub use publisher::{Offered, Publisher};
pub use roster::Gossips;
pub use shelf::{Found as Parked, Shelf, Slip};
pub use supervisor::{Ended, Supervisor};

/// The settings for reaching and using the broker.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The AMQP URI that is tried first; a secret because it holds a password.
    pub url: Secret,
    /// The URIs of other nodes, tried in turn. Virtual host and user are the same in all.
    pub other_urls: Vec<Secret>,
    /// The file of certificates (PEM) to trust instead of the system's, for `amqps`.
    pub ca_file: Option<PathBuf>,
    /// The limit of unacknowledged messages per connection and lane.
    pub prefetch: u16,
    /// The limit of message bytes held in memory, all lanes together.
    pub held_bytes_max: u64,
    /// The management API, queried as the worker's own user for policies at start.
    pub management: Option<String>,
    /// True if the worker declares exchanges and queues; otherwise it only checks that they exist.
    pub declare: bool,
    /// The time for which parked messages are kept.
    pub dead_ttl: Duration,
    /// The most parked messages kept.
    pub dead_max: u32,
}

/// Waits until a signal turns true, or its sender is dropped.
async fn turned(signal: &mut tokio::sync::watch::Receiver<bool>) {
    let _ = signal.wait_for(|is_on| *is_on).await;
}
