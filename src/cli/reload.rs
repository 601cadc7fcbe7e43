//! Reloading of the configuration while the worker runs.
//!
//! SIGHUP triggers a reload, and so does a change of its input: the worker reads the configuration again every few
//! seconds, with every file that it names. A change takes effect when it is read twice, because a file may still be
//! being written. Invariant: a configuration takes effect whole or not at all.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::Signal;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, ConfigChange, ConfigProblems, Loaded};
use crate::rabbit::Gossips;
use crate::telemetry::metrics::Metrics;
use crate::worker::Worker;

use super::assembly::{self, Orgs, Shared};
use super::configuration::read;

/// The interval of reading the configuration. Files of a few kilobytes cost nothing, and an operator who replaces a
/// token keeps the old one valid for some minutes.
const LOOK_EVERY: Duration = Duration::from_secs(3);

/// The parts of the running worker that a reload can change.
pub(super) struct Reloadable {
    /// The worker, which takes the messages.
    pub worker: Arc<Worker>,
    /// The sender of the served connections.
    pub gossips: watch::Sender<Gossips>,
    /// The orgs behind the connections.
    pub orgs: Orgs,
    /// The resources that all gates share.
    pub ground: Shared,
    /// The worker's own broker user.
    pub own_user: String,
    /// Cancelled when the worker is to stop.
    pub stopping: CancellationToken,
    /// The metrics.
    pub metrics: Arc<Metrics>,
}

/// The configuration in force, and the one that was read last.
pub(super) struct Reloading {
    source: Option<PathBuf>,
    running: Reloadable,
    in_force: Config,
    /// The last configuration that took effect or was refused.
    judged: Result<Loaded, ConfigProblems>,
}

impl Reloading {
    /// Starts with the initial configuration in force.
    pub fn new(source: Option<PathBuf>, loaded: Loaded, running: Reloadable) -> Self {
        Self { source, running, in_force: loaded.config.clone(), judged: Ok(loaded) }
    }

    /// Applies every change, for as long as it is polled.
    pub async fn keep(mut self, mut hangup: Signal) {
        let mut found = None;
        loop {
            let was_asked = tokio::select! {
                () = sleep(LOOK_EVERY) => false,
                Some(()) = hangup.recv() => true,
            };
            let source = self.source.clone();
            let Ok(now) = tokio::task::spawn_blocking(move || read(source.as_deref())).await else {
                tracing::error!("reading the configuration has a bug; the one in force is kept");
                continue;
            };
            if was_asked || (now != self.judged && found.as_ref() == Some(&now)) {
                self.judge(now);
                found = None;
            } else {
                found = Some(now);
            }
        }
    }

    /// Applies a configuration, or logs why it is refused.
    fn judge(&mut self, read: Result<Loaded, ConfigProblems>) {
        self.judged = read.clone();
        match read {
            Ok(Loaded { config, .. }) if config.connections.is_empty() => {
                self.refuse(["no connection is configured".to_owned()]);
            }
            Ok(Loaded { config, warnings }) => {
                warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
                self.take_up(config);
            }
            Err(ConfigProblems(problems)) => self.refuse(problems.iter().map(ToString::to_string)),
        }
    }

    /// Keeps the configuration in force, and says why.
    fn refuse(&self, problems: impl IntoIterator<Item = String>) {
        self.running.metrics.configuration_is_refused(true);
        tracing::error!("the new configuration is refused, the one in force is kept");
        for problem in problems {
            tracing::error!("{problem}");
        }
    }

    fn take_up(&mut self, config: Config) {
        let change = ConfigChange::between(&self.in_force, &config);
        let running = &mut self.running;
        let orgs = match assembly::orgs(&config, &running.ground, &running.orgs) {
            Ok(orgs) => orgs,
            Err(refusal) => return self.refuse([refusal.0]),
        };
        let Reloadable { worker, gossips, ground, own_user, stopping, metrics, .. } = &*running;
        metrics.expect(change.added.iter());
        ground.callers.replace(assembly::ceilings(&config.callers));
        // A connection is consumed only while the worker knows it: new ones are announced to the worker first, and it
        // leaves late messages of removed ones to other workers.
        worker.replace_rules(assembly::rules(&config, &orgs, Some(own_user.clone()), stopping.clone()));
        for (name, org) in &orgs {
            org.take_effect(running.orgs.get(name));
        }
        gossips.send_replace(assembly::gossips(&orgs));
        for name in &change.removed {
            metrics.forget(name);
        }
        metrics.configuration_is_refused(false);
        worker.check_credentials(change.added.iter().chain(change.changed.iter().map(|(name, _)| name)));
        running.orgs = orgs;
        say(&change);
        // Settings that need a restart keep their values.
        let Config { broker, telemetry, answer_bytes_max, .. } = self.in_force.clone();
        self.in_force = Config { broker, telemetry, answer_bytes_max, ..config };
    }
}

/// Logs one line for each connection, and one for each kind of other key.
fn say(change: &ConfigChange) {
    if change.is_empty() {
        return tracing::info!("the configuration was read again: nothing has changed");
    }
    for name in &change.added {
        tracing::info!(connection = name.as_str(), "connection `{name}` was added");
    }
    for (name, keys) in &change.changed {
        let keys = keys.join(", ");
        tracing::info!(connection = name.as_str(), "connection `{name}` has changed: {keys}");
    }
    for name in &change.removed {
        tracing::info!(connection = name.as_str(), "connection `{name}` was removed");
    }
    if !change.live.is_empty() {
        tracing::info!("the configuration has changed: {}", change.live.join(", "));
    }
    if !change.at_restart.is_empty() {
        let keys = change.at_restart.join(", ");
        tracing::warn!("the configuration has changed in what holds only after a restart: {keys}");
    }
}
