//! What a probe and a scraper see over real sockets.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use okta_worker::domain::ids::ConnectionName;
use okta_worker::event::{Event, Observer};
use okta_worker::telemetry::health;
use okta_worker::telemetry::health::Health;
use okta_worker::telemetry::metrics::Metrics;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// A server on a free port, and what it reports on.
struct Served {
    port: u16,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<std::io::Result<()>>,
}

async fn served() -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (metrics, health) = (Arc::new(Metrics::new()), Arc::new(Health::new()));
    let (stop, stopped) = oneshot::channel();
    let shutdown = async { drop(stopped.await) };
    let ended = tokio::spawn(health::serve(listener, Arc::clone(&metrics), Arc::clone(&health), shutdown));
    Served { port, metrics, health, stop, ended }
}

impl Served {
    /// The whole answer: status line, headers and body.
    async fn ask(&self, method: &str, path: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        let request = format!("{method} {path} HTTP/1.1\r\nhost: worker\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let answer = self.ask("GET", path).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }
}

#[tokio::test]
async fn a_scrape_gets_the_text_format_with_what_was_counted() {
    let served = served().await;
    let prod = ConnectionName::parse("prod").unwrap();
    served.metrics.expect([&prod].into_iter());
    served.metrics.note(&Event::Broker { connected: true, why: "" });
    let answer = served.ask("GET", "/metrics").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("\r\ncontent-type: text/plain; version=0.0.4"), "{answer}");
    assert!(answer.contains("\nokta_worker_broker_connected 1\n"), "{answer}");
    let limited = "okta_worker_rate_limited_total{bucket=\"users\",connection=\"prod\",kind=\"window\"} 0\n";
    assert!(answer.contains(limited), "{answer}");
}

#[tokio::test]
async fn a_fresh_worker_is_alive_but_not_ready_until_the_broker_is_reached() {
    let served = served().await;
    assert_eq!(served.get("/healthz").await.0, 200);
    let (code, body) = served.get("/readyz").await;
    assert_eq!((code, body.lines().next().unwrap()), (503, "broker: not connected (not reached yet)"));
    served.health.note(&Event::Broker { connected: true, why: "" });
    let (code, body) = served.get("/readyz").await;
    assert_eq!((code, body.lines().next().unwrap()), (200, "broker: connected"));
}

#[tokio::test]
async fn another_path_is_told_where_to_look() {
    let served = served().await;
    assert_eq!(served.get("/").await, (404, "try /metrics, /healthz or /readyz\n".to_owned()));
    assert!(served.ask("POST", "/metrics").await.starts_with("HTTP/1.1 405 "));
}

/// An hour: longer than any connection lives.
const LONG: Duration = Duration::from_secs(3600);

/// What is read until the other side closes, `None` when it does not.
async fn read_to_end(stream: &mut TcpStream) -> Option<String> {
    let mut text = String::new();
    let read = timeout(LONG, stream.read_to_string(&mut text)).await;
    read.ok().map(|_| text)
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_says_nothing_or_too_little_is_closed() {
    let served = served().await;
    for said in ["", "GET /healthz HTT", "GET /healthz HTTP/1.1\r\nhost: worker\r\n\r\n"] {
        let mut stream = TcpStream::connect(("127.0.0.1", served.port)).await.unwrap();
        stream.write_all(said.as_bytes()).await.unwrap();
        let answer = read_to_end(&mut stream).await;
        assert!(answer.is_some(), "{said:?} is kept");
    }
}

#[tokio::test]
async fn who_holds_connections_keeps_nobody_from_asking() {
    const CONNECTIONS: usize = 200;
    let served = served().await;
    let mut idle = Vec::new();
    for _ in 0..CONNECTIONS {
        idle.push(TcpStream::connect(("127.0.0.1", served.port)).await.unwrap());
        assert_eq!(served.get("/healthz").await.0, 200);
    }
    for stream in &mut idle[..CONNECTIONS - 64] {
        assert_eq!(read_to_end(stream).await.as_deref(), Some(""), "the oldest give way");
    }
    let mut nothing = [0];
    let last = idle.last_mut().unwrap().try_read(&mut nothing).unwrap_err();
    assert_eq!(last.kind(), std::io::ErrorKind::WouldBlock, "the latest is kept");
}

#[tokio::test]
async fn a_request_without_end_is_refused() {
    let served = served().await;
    let mut stream = TcpStream::connect(("127.0.0.1", served.port)).await.unwrap();
    let head = format!("GET /metrics HTTP/1.1\r\nx: {}", "x".repeat(64 * 1024));
    let _ = stream.write_all(head.as_bytes()).await; // it may be closed meanwhile
    let answer = read_to_end(&mut stream).await.unwrap();
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431 "), "{answer}");
}

#[tokio::test]
async fn the_server_ends_when_told() {
    let served = served().await;
    served.stop.send(()).unwrap();
    served.ended.await.unwrap().unwrap();
}
