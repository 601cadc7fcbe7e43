//! HTTP endpoints for Kubernetes and Prometheus: `/healthz`, `/readyz`, `/metrics`.
//!
//! Alive means that the runtime makes progress, whatever the state of the broker or Okta: a restart cures neither.
//! Ready means that the worker takes messages. Nothing here changes what the worker does.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::time::{Instant, MissedTickBehavior};

use super::http_server;
use super::metrics::Metrics;
use crate::domain::ids::ConnectionName;
use crate::domain::text::shortened;
use crate::event::{Event, Observer, PauseReason};

/// The interval between heartbeats.
const BEAT_EVERY: Duration = Duration::from_secs(1);

/// The age at which a heartbeat counts as stopped. A busy moment does not explain thirty missed beats in a row.
const BEAT_AGE_MAX: Duration = Duration::from_secs(30);

/// The content type of Prometheus' text format.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// One of the two facts that determine readiness.
#[derive(Debug)]
struct Fact {
    holds: bool,
    why: String,
}

#[derive(Debug)]
struct Readiness {
    broker: Fact,
    worker: Fact,
    /// Paused connections, each with its reason.
    paused: BTreeMap<ConnectionName, PauseReason>,
}

/// The liveness and readiness of the process.
///
/// It is ready while the broker is connected ([`Event::Broker`]) and the worker has not reported otherwise
/// ([`Health::set_ready`]); it is alive while [`Health::beat`] is called.
#[derive(Debug)]
pub struct Health {
    started: Instant,
    /// The last beat, in milliseconds since `started`.
    beat: AtomicU64,
    readiness: Mutex<Readiness>,
}

impl Default for Health {
    fn default() -> Self {
        Self::new()
    }
}

impl Health {
    /// Creates a health that is alive from now on and not ready: no broker has been reached.
    pub fn new() -> Self {
        Self {
            started: Instant::now(),
            beat: AtomicU64::new(0),
            readiness: Mutex::new(Readiness {
                broker: Fact { holds: false, why: "not reached yet".into() },
                worker: Fact { holds: true, why: "running".into() },
                paused: BTreeMap::new(),
            }),
        }
    }

    /// Records that the process still makes progress.
    pub fn beat(&self) {
        self.beat_at(Instant::now());
    }

    /// Beats once a second for as long as it is polled; spawn it on the runtime whose progress is to be proven.
    pub async fn keep_beating(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(BEAT_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            self.beat();
        }
    }

    /// Sets whether the worker itself takes messages: `(false, "draining")` during shutdown. The broker's part comes
    /// from its events, so this alone never makes the process ready.
    pub fn set_ready(&self, ready: bool, why: &str) {
        self.lock().worker = Fact { holds: ready, why: shortened(why) };
    }

    fn beat_at(&self, now: Instant) {
        let since_start = now.saturating_duration_since(self.started).as_millis();
        self.beat.store(u64::try_from(since_start).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn beat_age(&self, now: Instant) -> Duration {
        let last = Duration::from_millis(self.beat.load(Ordering::Relaxed));
        now.saturating_duration_since(self.started).saturating_sub(last)
    }

    /// Returns the answer to `/healthz`.
    fn alive(&self, now: Instant) -> (StatusCode, String) {
        let age = self.beat_age(now);
        let code = if age < BEAT_AGE_MAX { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        (code, format!("heartbeat: {} s ago\n", age.as_secs()))
    }

    /// Returns the answer to `/readyz`: one fact per line.
    fn ready(&self) -> (StatusCode, String) {
        let readiness = self.lock();
        let Readiness { broker, worker, paused } = &*readiness;
        let code =
            if broker.holds && worker.holds { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        let mut body = String::new();
        let reached = if broker.holds { "connected" } else { "not connected" };
        let _ = write!(body, "broker: {reached}");
        if !broker.holds && !broker.why.is_empty() {
            let _ = write!(body, " ({})", broker.why);
        }
        let takes = if worker.holds { "ready" } else { "not ready" };
        let _ = writeln!(body, "\nworker: {takes} ({})", worker.why);
        for (connection, reason) in paused {
            let _ = writeln!(body, "connection {connection}: paused ({})", reason.as_str());
        }
        (code, body)
    }

    /// Locks the facts. A panic cannot leave them half written, so a poisoned lock is safe to use.
    fn lock(&self) -> MutexGuard<'_, Readiness> {
        self.readiness.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observer for Health {
    fn note(&self, event: &Event<'_>) {
        match *event {
            Event::Broker { connected, why } => {
                self.lock().broker = Fact { holds: connected, why: shortened(why) };
            }
            Event::Paused { connection, reason, .. } => {
                self.lock().paused.insert(connection.clone(), reason);
            }
            // A wider pause may have taken the place of the one that is over.
            Event::Resumed { connection, reason } => {
                let mut state = self.lock();
                if state.paused.get(connection) == Some(&reason) {
                    state.paused.remove(connection);
                }
            }
            _ => {}
        }
    }
}

/// The state shared by the routes: metrics and health.
#[derive(Clone)]
struct Watched {
    metrics: Arc<Metrics>,
    health: Arc<Health>,
}

/// Serves requests until `shutdown`, then finishes those in progress.
///
/// # Errors
/// None so far: a failed accept is retried.
pub async fn serve(
    listener: TcpListener,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let router = Router::new()
        .route(
            "/metrics",
            get(|State(watched): State<Watched>| async move {
                ([(header::CONTENT_TYPE, METRICS_TYPE)], watched.metrics.render())
            }),
        )
        .route(
            "/healthz",
            get(|State(watched): State<Watched>| async move { watched.health.alive(Instant::now()) }),
        )
        .route("/readyz", get(|State(watched): State<Watched>| async move { watched.health.ready() }))
        .fallback(|| async { (StatusCode::NOT_FOUND, "try /metrics, /healthz or /readyz\n").into_response() })
        .with_state(Watched { metrics, health });
    http_server::serve(listener, router, shutdown).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broker(health: &Health, connected: bool, why: &str) {
        health.note(&Event::Broker { connected, why });
    }

    #[test]
    fn alive_while_the_last_beat_is_less_than_thirty_seconds_old() {
        let health = Health::new();
        let beat = health.started + Duration::from_secs(100);
        health.beat_at(beat);
        assert_eq!(health.alive(beat + Duration::from_millis(29_999)).0, StatusCode::OK);
        let late = beat + BEAT_AGE_MAX;
        assert_eq!(health.alive(late), (StatusCode::SERVICE_UNAVAILABLE, "heartbeat: 30 s ago\n".to_owned()));
        health.beat_at(late);
        assert_eq!(health.alive(late), (StatusCode::OK, "heartbeat: 0 s ago\n".to_owned()));
    }

    #[test]
    fn alive_whatever_the_broker_does() {
        let health = Health::new();
        broker(&health, false, "connection refused");
        assert_eq!(health.alive(health.started).0, StatusCode::OK);
    }

    #[test]
    fn not_ready_before_the_broker_is_reached() {
        let (code, body) = Health::new().ready();
        assert_eq!(code, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(body, "broker: not connected (not reached yet)\nworker: ready (running)\n");
    }

    #[test]
    fn ready_while_the_broker_is_reached_and_not_when_it_is_lost() {
        let health = Health::new();
        broker(&health, true, "everything declared");
        let ready = "broker: connected\nworker: ready (running)\n";
        assert_eq!(health.ready(), (StatusCode::OK, ready.to_owned()));
        broker(&health, false, "reset by\npeer");
        let (code, body) = health.ready();
        assert_eq!(code, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(body, "broker: not connected (reset by peer)\nworker: ready (running)\n");
    }

    #[test]
    fn a_worker_that_drains_is_not_ready_even_if_the_broker_comes_back() {
        let health = Health::new();
        health.set_ready(false, "draining");
        broker(&health, true, "");
        let drains = "broker: connected\nworker: not ready (draining)\n";
        assert_eq!(health.ready(), (StatusCode::SERVICE_UNAVAILABLE, drains.to_owned()));
    }

    #[tokio::test(start_paused = true)]
    async fn the_heart_beats_for_as_long_as_it_is_polled() {
        let health = Arc::new(Health::new());
        let beating = tokio::time::timeout(Duration::from_secs(90), Arc::clone(&health).keep_beating());
        assert!(beating.await.is_err());
        assert!(health.beat_age(Instant::now()) <= BEAT_EVERY);
    }
}
