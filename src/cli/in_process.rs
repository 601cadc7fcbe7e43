//! A worker inside this process, between an in-process queue and its orgs.

use std::sync::Arc;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::domain::ids::ConnectionName;
use crate::embedded::broker::Broker;
use crate::event::Observer;
use crate::worker::Worker;
use crate::worker::ports::Inbox;

use super::assembly::{self, Orgs, Shared};
use super::configuration::unknown_connection;
use super::exit::NotBegun;

/// A worker that consumes the in-process queues of its connections until it is dropped.
pub(super) struct InProcessWorker {
    /// The broker inside the process.
    pub broker: Arc<Broker>,
    _consuming: JoinSet<()>,
}

impl InProcessWorker {
    /// Starts a worker of these orgs, with a queue for the results.
    pub fn start(
        config: &Config,
        orgs: &Orgs,
        (prefetch, replies): (usize, &str),
        observer: Arc<dyn Observer>,
    ) -> Self {
        let broker = Broker::new(orgs.keys());
        broker.declare(replies);
        let rules = assembly::own_rules(config, orgs, CancellationToken::new());
        let worker: Arc<dyn Inbox> = Arc::new(Worker::new(rules, Arc::<Broker>::clone(&broker), observer));
        let consuming = broker.consume(&worker, prefetch);
        Self { broker, _consuming: consuming }
    }

    /// Starts a worker of one configured org.
    ///
    /// # Errors
    /// If the configuration has no such connection, or no client can be made for it.
    pub fn of_connection(
        config: &Config,
        name: &ConnectionName,
        replies: &str,
        observer: Arc<dyn Observer>,
    ) -> Result<Self, NotBegun> {
        let shared = Shared::new(config, &observer);
        let mut orgs = assembly::orgs(config, &shared, &Orgs::new())?;
        orgs.retain(|known, _| known == name);
        if orgs.is_empty() {
            return Err(unknown_connection(config, name.as_str()));
        }
        Ok(Self::start(config, &orgs, (shared.prefetch, replies), observer))
    }
}
