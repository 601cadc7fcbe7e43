//! Taking up another configuration while the worker runs.
//!
//! SIGHUP asks for it, and so does a change in what is read: the configuration is read again every few
//! seconds, with every file that it names. What was found so is taken up when it was found twice, because
//! somebody may just be writing. Invariant: a configuration is taken up whole or not at all.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::Signal;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::config::{Change, Config, Loaded, Problems};
use crate::edge::metrics::Metrics;
use crate::edge::rabbit::Gossips;
use crate::worker::Worker;

use super::assembly::{self, Ground, Orgs};
use super::read;

/// How often the configuration is read again. Files of a few kilobytes cost nothing, and whoever replaces
/// a token gives the old one some minutes.
const LOOK_EVERY: Duration = Duration::from_secs(3);

/// What has been made of the configuration, and can be made otherwise.
pub(super) struct Running {
    /// Takes the messages.
    pub worker: Arc<Worker>,
    /// Told which connections are served.
    pub gossips: watch::Sender<Gossips>,
    /// The orgs behind them.
    pub orgs: Orgs,
    /// What stands behind all gates.
    pub ground: Ground,
    /// The worker's own broker user.
    pub own_user: String,
    /// Turns true when the worker is to stop.
    pub stopping: watch::Receiver<bool>,
    /// Counts.
    pub metrics: Arc<Metrics>,
}

/// The configuration in force, and the one that was read last.
pub(super) struct Reloading {
    source: Option<PathBuf>,
    running: Running,
    in_force: Config,
    /// What was taken up or refused last.
    judged: Result<Loaded, Problems>,
}

impl Reloading {
    /// What was read at the start is in force.
    pub fn new(source: Option<PathBuf>, loaded: Loaded, running: Running) -> Self {
        Self { source, running, in_force: loaded.config.clone(), judged: Ok(loaded) }
    }

    /// Takes up every change, for as long as it is polled.
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

    /// Takes up what was read, or says why not.
    fn judge(&mut self, read: Result<Loaded, Problems>) {
        self.judged = read.clone();
        match read {
            Ok(Loaded { config, .. }) if config.connections.is_empty() => {
                refuse(["no connection is configured".to_owned()]);
            }
            Ok(Loaded { config, warnings }) => {
                warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
                self.take_up(config);
            }
            Err(Problems(problems)) => refuse(problems.iter().map(ToString::to_string)),
        }
    }

    fn take_up(&mut self, config: Config) {
        let change = Change::between(&self.in_force, &config);
        let running = &mut self.running;
        let orgs = match assembly::orgs(&config, &running.ground, &running.orgs) {
            Ok(orgs) => orgs,
            Err(refusal) => return refuse([refusal.0]),
        };
        let Running { worker, gossips, ground, own_user, stopping, metrics, .. } = &*running;
        metrics.expect(change.added.iter());
        ground.callers.replace(assembly::ceilings(&config.callers));
        // Nothing is consumed that the worker does not know: what comes is known first, and of what has gone
        // the worker leaves to others what was still on its way.
        worker.go_by(assembly::rules(&config, &orgs, Some(own_user.clone()), stopping.clone()));
        for (name, org) in &orgs {
            org.take_effect(running.orgs.get(name));
        }
        gossips.send_replace(assembly::gossips(&orgs));
        running.orgs = orgs;
        say(&change);
        // What needs a restart is still as it was.
        let Config { broker, telemetry, answer_bytes_max, .. } = self.in_force.clone();
        self.in_force = Config { broker, telemetry, answer_bytes_max, ..config };
    }
}

fn refuse(problems: impl IntoIterator<Item = String>) {
    tracing::error!("the new configuration is refused, the one in force is kept");
    for problem in problems {
        tracing::error!("{problem}");
    }
}

/// One line for each connection, and one for each kind of other keys.
fn say(change: &Change) {
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
