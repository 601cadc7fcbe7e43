//! The org over HTTP/1.1: the only file of the sandbox with a socket and a clock.
//!
//! It adds what only a network has: requests in flight, latency, a body that is too long, a broken connection. The org
//! gives every answer under `/api`. Tests control the org under `/sandbox`.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use axum::routing::{get, post};
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};
use http::{Method, StatusCode};
use jiff::Timestamp;
use tokio::net::TcpListener;

use super::call::{Handled, HttpCall};
use super::faults::InjectedFault;
use super::org::Org;

/// The longest body accepted; Okta's own limit is of that order, and no request of ours comes near.
const BODY_BYTES_MAX: usize = 1024 * 1024;

#[derive(Clone)]
struct Skin {
    org: Arc<Mutex<Org>>,
    in_flight: Arc<AtomicUsize>,
    latency: Duration,
}

impl Skin {
    /// Locks the org for one expression. A panic elsewhere leaves it consistent: it changes in small steps.
    fn org(&self) -> MutexGuard<'_, Org> {
        self.org.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A guard that counts a request as in flight until it is dropped.
struct RequestGuard(Arc<AtomicUsize>);

impl RequestGuard {
    fn enter(count: &Arc<AtomicUsize>) -> (Self, usize) {
        let before = count.fetch_add(1, Ordering::AcqRel);
        (Self(Arc::clone(count)), before + 1)
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Serves an org until `shutdown` completes. Each answer takes at least `latency`.
///
/// # Errors
/// If the listener fails.
pub async fn serve(
    listener: TcpListener,
    org: Arc<Mutex<Org>>,
    latency: Duration,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let skin = Skin { org, in_flight: Arc::new(AtomicUsize::new(0)), latency };
    let router = Router::new()
        .route("/sandbox/effects", get(effects))
        .route("/sandbox/counters", get(counters))
        .route("/sandbox/faults", post(order_fault))
        .route("/sandbox/lock_out/{user}", post(lock_out))
        .fallback(answer)
        .with_state(skin);
    axum::serve(listener, router).with_graceful_shutdown(shutdown).await
}

async fn answer(State(skin): State<Skin>, request: Request) -> Result<Response, Infallible> {
    let (_in_flight, in_flight) = RequestGuard::enter(&skin.in_flight);
    let (parts, body) = request.into_parts();
    let measured =
        parts.headers.contains_key(CONTENT_LENGTH) || parts.headers.contains_key(TRANSFER_ENCODING);
    if !measured && matches!(parts.method, Method::POST | Method::PUT) {
        return Ok(bare(StatusCode::LENGTH_REQUIRED));
    }
    let Ok(body) = axum::body::to_bytes(body, BODY_BYTES_MAX).await else {
        return Ok(bare(StatusCode::PAYLOAD_TOO_LARGE));
    };
    let target = parts.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str).to_owned();
    let call = HttpCall { method: parts.method, target, headers: parts.headers, body };
    let answer = skin.org().answer_with(&call, Timestamp::now(), in_flight);
    // The effect comes first: a caller that disconnects early does not undo it.
    if !skin.latency.is_zero() {
        tokio::time::sleep(skin.latency).await;
    }
    Ok(match answer {
        Handled::Said(said) => {
            let mut response = Response::new(Body::from(said.body));
            *response.status_mut() =
                StatusCode::from_u16(said.status).expect("the org answers real statuses");
            *response.headers_mut() = said.headers;
            response
        }
        Handled::Lost => lost(),
    })
}

/// Returns an answer whose body fails before its head is sent, so that the connection closes without an answer.
fn lost() -> Response {
    let failure =
        futures_util::stream::iter([Err::<Bytes, io::Error>(io::ErrorKind::ConnectionReset.into())]);
    Response::new(Body::from_stream(failure))
}

fn bare(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

fn json(body: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(body));
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    response
}

async fn effects(State(skin): State<Skin>) -> Response {
    json(serde_json::to_vec(skin.org().effects()).expect("effects are JSON"))
}

async fn counters(State(skin): State<Skin>) -> Response {
    json(serde_json::to_vec(&skin.org().counters()).expect("counters are JSON"))
}

/// Locks a user out, named by id or login, as too many wrong passwords do: Okta has no request for it.
async fn lock_out(State(skin): State<Skin>, Path(user): Path<String>) -> Response {
    let mut org = skin.org();
    match org.user_id(&user) {
        Some(user) if org.lock_out(user) => bare(StatusCode::NO_CONTENT),
        Some(_) | None => bare(StatusCode::NOT_FOUND),
    }
}

async fn order_fault(State(skin): State<Skin>, body: Bytes) -> Response {
    match serde_json::from_slice::<InjectedFault>(&body) {
        Ok(fault) => {
            skin.org().script(fault);
            bare(StatusCode::NO_CONTENT)
        }
        Err(error) => {
            let mut response = Response::new(Body::from(format!("failed to read the fault: {error}\n")));
            *response.status_mut() = StatusCode::BAD_REQUEST;
            response
        }
    }
}
