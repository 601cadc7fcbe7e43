//! RabbitMQ through lapin: one supervisor and two connections, both rebuilt on any sign of a failure.

mod client;
mod consumer;
mod operator;
mod producer;

use std::path::PathBuf;
use std::time::Duration;

use crate::domain::secret::Secret;

pub use client::connect::{own_user, user_and_vhost};
pub use client::declare::Undeclared;
pub use client::management::{Orphan, orphans, policies};
pub use client::publisher::{Offered, Publisher};
pub use client::supervisor_end::SupervisorEnd;
pub use client::utf8_repair::SUBSTITUTE;
pub use consumer::served::Gossips;
pub use consumer::supervisor::Supervisor;
pub use operator::dead_letters::{DeadLetter, DeadLetterHandle, DeadLetters};
pub use operator::inspection::{QueueStatus, consumers, inspect, observed, try_declaring};
pub use producer::handle::{Producer, ReceivedResult, Unopened};
pub use producer::rpc::{Call, RpcClient, RpcReply};

/// The settings for reaching and using the broker.
#[derive(Debug, Clone, PartialEq)]
pub struct BrokerSettings {
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
