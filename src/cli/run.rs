//! `okta-worker run`: consumes until told to stop, then finishes what has begun.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::domain::ids::Lane;
use crate::event::{Observer, Observers};
use crate::rabbit::{Publisher, Supervisor, own_user};
use crate::telemetry::descriptors;
use crate::telemetry::health;
use crate::telemetry::health::Health;
use crate::telemetry::log;
use crate::telemetry::log::Log;
use crate::telemetry::metrics::Metrics;
use crate::worker::Worker;

use super::assembly::{self, Orgs, Shared};
use super::configuration::{read, refused};
use super::exit::{DONE, FAILED, NotBegun};
use super::reload::{Reloadable, Reloading};
use super::signals::{StopRequests, hangup};

pub(super) async fn run(source: Option<PathBuf>) -> Result<u8, NotBegun> {
    let loaded = read(source.as_deref()).map_err(refused)?;
    let config = &loaded.config;
    if config.connections.is_empty() {
        return Err(no_connection(source.is_some()));
    }
    log::init(config.telemetry.log_format).map_err(NotBegun)?;
    loaded.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    raise_open_files(config);
    let names: Vec<_> = config.connections.iter().map(|connection| connection.name.clone()).collect();
    let (metrics, health) = (Arc::new(Metrics::new()), Arc::new(Health::new()));
    metrics.expect(names.iter());
    let watching: Vec<Arc<dyn Observer>> =
        vec![Arc::<Metrics>::clone(&metrics), Arc::<Health>::clone(&health), Arc::new(Log::new())];
    let observer: Arc<dyn Observer> = Arc::new(Observers(watching));

    let listen = config.telemetry.listen;
    let listener = TcpListener::bind(listen)
        .await
        .map_err(|error| NotBegun(format!("failed to listen on `telemetry.listen` {listen}: {error}")))?;
    tokio::spawn(Arc::clone(&health).keep_beating());
    tokio::spawn(health::serve(listener, Arc::clone(&metrics), Arc::clone(&health), std::future::pending()));

    let stopping = CancellationToken::new();
    let publisher = Arc::new(Publisher::new(stopping.clone()));
    let own_user = own_user(config.broker.url.expose()).map_err(|ended| NotBegun(ended.to_string()))?;
    let ground = Shared::new(config, &observer);
    let orgs = assembly::orgs(config, &ground, &Orgs::new())?;
    let rules = assembly::rules(config, &orgs, Some(own_user.clone()), stopping.clone());
    let worker = Worker::new(rules, Arc::<Publisher>::clone(&publisher), Arc::clone(&observer));
    let worker = Arc::new(worker.parking_in(config.broker.dead_max, config.broker.dead_ttl));
    let gossips = watch::Sender::new(assembly::gossips(&orgs));
    let inbox = Arc::<Worker>::clone(&worker);
    let supervisor = Supervisor::new(config.broker.clone(), gossips.subscribe(), publisher, inbox, observer)
        .map_err(|ended| NotBegun(ended.to_string()))?;

    tracing::info!(version = env!("CARGO_PKG_VERSION"), "starting");
    tokio::spawn(drain_when_told(StopRequests::listen()?, stopping.clone(), health));
    worker.check_credentials(&names);
    let hangup = hangup()?;
    let running = Reloadable { worker, gossips, orgs, ground, own_user, stopping: stopping.clone(), metrics };
    tokio::spawn(Reloading::new(source, loaded, running).keep(hangup));
    let code = match supervisor.run(stopping).await {
        Ok(()) => {
            tracing::info!("stopped with nothing in flight");
            DONE
        }
        Err(ended) => {
            tracing::error!("{ended}");
            FAILED
        }
    };
    log::flush();
    Ok(code)
}

/// Builds the refusal to run without a connection; `has_file`: a configuration was named.
fn no_connection(has_file: bool) -> NotBegun {
    NotBegun(match has_file {
        true => "no connection is configured: add a section `[connections.<name>]`".to_owned(),
        false => {
            "no connection is configured: name the configuration by `--config FILE` or OKTA_WORKER_CONFIG"
                .to_owned()
        }
    })
}

/// Raises the limit of open files as far as the system allows, and warns if that is too low.
fn raise_open_files(config: &Config) {
    descriptors::raise();
    if let Some(shortage) = descriptors::shortage(needed_files(config)) {
        tracing::warn!("{shortage}");
    }
}

/// Returns the number of files that the worker may need open at once: its own, and a connection to Okta for each
/// message in hand.
pub(super) fn needed_files(config: &Config) -> u64 {
    let in_hand = u64::from(config.broker.prefetch) * Lane::ALL.len() as u64;
    descriptors::OWN + in_hand * config.connections.len() as u64
}

/// Begins the drain on the first SIGTERM or SIGINT, and ends the process on the second.
async fn drain_when_told(mut requests: StopRequests, stopping: CancellationToken, health: Arc<Health>) {
    requests.reach(1).await;
    tracing::info!("draining: finishing what has begun");
    health.set_ready(false, "draining");
    stopping.cancel();
    requests.reach(2).await;
    tracing::warn!("told to stop again: leaving now, the broker will deliver again what was in flight");
    log::flush();
    std::process::exit(i32::from(FAILED));
}
