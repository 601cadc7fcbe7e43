//! An HTTP/1.1 server for untrusted clients: few connections, short-lived ones, small requests.
//!
//! Invariant: a new connection is always served. If all places are taken, the server closes the oldest one, so
//! that a client holding connections cannot block a health check.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::descriptors;

/// The most connections at once. Prometheus and Kubernetes have one or two each.
const CONNECTIONS_MAX: usize = 64;

/// The time a connection may take to send the head of a request, or stay idle after an answer.
const HEAD_MAX: Duration = Duration::from_secs(10);

/// The maximum lifetime of a connection; Prometheus silently opens another.
const CONNECTION_MAX: Duration = Duration::from_secs(300);

/// The time for an answer in progress when its connection is to be closed.
const LAST_ANSWER_MAX: Duration = Duration::from_secs(10);

/// The largest head of a request, in bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// The most headers of a request.
const HEADERS_MAX: usize = 64;

/// The delay before accepting again after a failure.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Serves connections until `shutdown`, then finishes the answers in progress.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    shutdown: impl Future<Output = ()> + Send + 'static,
) {
    let stopping = CancellationToken::new();
    let mut open = OpenConnections {
        router,
        stopping: stopping.clone(),
        tasks: JoinSet::new(),
        by_age: VecDeque::new(),
    };
    let mut has_failed = false;
    tokio::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            Some(_) = open.tasks.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                has_failed = false;
                open.add(stream);
            }
            Err(error) if is_of_one_connection(error.kind()) => {}
            Err(error) => {
                if !has_failed {
                    let exhausted = descriptors::are_exhausted_by(&error);
                    let why = if exhausted { descriptors::EXHAUSTED.to_owned() } else { error.to_string() };
                    tracing::error!("the telemetry port accepts no connections for now: {why}");
                }
                has_failed = true;
                sleep(ACCEPT_AGAIN_AFTER).await;
            }
        }
    }
    drop(listener);
    stopping.cancel();
    while open.tasks.join_next().await.is_some() {}
}

/// Returns true if the error concerns one peer that left before it was accepted, and the listener still works.
fn is_of_one_connection(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::ConnectionRefused | ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset)
}

/// The open connections.
struct OpenConnections {
    router: Router,
    stopping: CancellationToken,
    tasks: JoinSet<()>,
    /// The tasks of the connections, oldest first.
    by_age: VecDeque<AbortHandle>,
}

impl OpenConnections {
    fn add(&mut self, stream: TcpStream) {
        self.by_age.retain(|connection| !connection.is_finished());
        while self.by_age.len() >= CONNECTIONS_MAX {
            if let Some(oldest) = self.by_age.pop_front() {
                oldest.abort();
            }
        }
        let serving = serve_one(stream, self.router.clone(), self.stopping.clone());
        self.by_age.push_back(self.tasks.spawn(serving));
    }
}

/// Serves the requests of one connection, until it closes or reaches its maximum lifetime.
async fn serve_one(stream: TcpStream, router: Router, stopping: CancellationToken) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(connection);
    tokio::select! {
        _ = &mut connection => return,
        () = sleep(CONNECTION_MAX) => {}
        () = stopping.cancelled() => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = timeout(LAST_ANSWER_MAX, connection).await;
}
