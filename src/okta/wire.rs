//! The HTTPS transport: sends a request once and reads the whole answer.
//!
//! The only file with an HTTP client for Okta. The credential goes only to the configured host: redirects are not
//! followed and a link's host is never used. No error text holds a URL, because a path may hold a login.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use http::Method;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{RequestBuilder, Url};
use tokio::time::{Instant, timeout};

use super::dpop::DPOP;
use super::room::{AnswerRoom, ConnectionRoom, HeldRoom, NoRoom};
use super::transport::{OktaTransport, Presented};
use crate::domain::http::{NoAnswer, Request, Response, is_loopback};
use crate::domain::secret::Secret;
use crate::telemetry::descriptors;

/// The timeout for connecting, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The time that Okta may take to begin an answer, and again to finish it. Okta's own limit for a System Log query is
/// 30 s; the slowest recorded change took 5.4 s, and the deactivation of a user with many provisioned applications
/// takes longer.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// The timeout of a form post: it requests a token that other requests wait for, and Okta needs little time for it.
const FORM_TIMEOUT: Duration = Duration::from_secs(15);

/// A client for one org over HTTPS.
pub(super) struct Https {
    /// The base URL, parsed once: parsing the host for each request costs more than building the rest of the URL.
    base_url: Url,
    http: reqwest::Client,
    room: ConnectionRoom,
    /// The time for an answer to begin, and again for it to end.
    request_max: Duration,
}

impl Https {
    /// Creates a transport to the org at this URL, whose answers use this memory budget.
    ///
    /// # Errors
    /// If TLS cannot be set up.
    pub(super) fn new(base_url: &str, room: &Arc<AnswerRoom>, request_max: Duration) -> Result<Self, String> {
        let json = HeaderValue::from_static("application/json");
        let base_url = Url::parse(base_url).map_err(|error| format!("the base URL: {error}"))?;
        let mut builder = reqwest::Client::builder();
        if base_url.host_str().is_some_and(is_loopback) {
            builder = builder.no_proxy(); // a proxy does not reach a server on this machine
        }
        let http = builder
            .default_headers(HeaderMap::from_iter([(ACCEPT, json)]))
            .user_agent(concat!("okta-worker/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .build()
            .map_err(describe)?;
        Ok(Self { base_url, http, room: room.share(), request_max })
    }

    fn url(&self, request: &Request) -> Url {
        let mut url = self.base_url.clone();
        url.set_path(&request.path);
        url.set_query(request.encoded_query().as_deref());
        url
    }
}

#[async_trait]
impl OktaTransport for Https {
    async fn send(&self, request: &Request, presented: Presented<'_>) -> Result<Response, NoAnswer> {
        let mut builder = self
            .http
            .request(request.method.clone(), self.url(request))
            .header(AUTHORIZATION, presented.authorization)
            .header(CONTENT_TYPE, "application/json");
        if let Some(proof) = presented.proof {
            builder = builder.header(DPOP, proof);
        }
        builder = match &request.body {
            Some(body) => builder.body(body.clone()),
            // Without this header Okta answers 411 ("Content-Length").
            None if request.method == Method::POST || request.method == Method::PUT => {
                builder.header(CONTENT_LENGTH, 0)
            }
            None => builder,
        };
        self.answer_to(builder, self.request_max).await
    }

    async fn post_form(
        &self,
        path: &str,
        form: Secret,
        proof: Option<&HeaderValue>,
    ) -> Result<Response, NoAnswer> {
        let mut url = self.base_url.clone();
        url.set_path(path);
        let mut builder = self
            .http
            .post(url)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(form.expose().to_owned());
        if let Some(proof) = proof {
            builder = builder.header(DPOP, proof);
        }
        self.answer_to(builder, FORM_TIMEOUT).await
    }
}

impl Https {
    /// Sends a request once and reads the whole answer. The answer may take `time_max` to begin and as long again to
    /// end; the wait for memory does not count.
    async fn answer_to(&self, request: RequestBuilder, time_max: Duration) -> Result<Response, NoAnswer> {
        let late = |_| NoAnswer::MaybeSent(format!("no answer within {} s", time_max.as_secs()));
        let sent = timeout(time_max, request.send()).await.map_err(late)?;
        let mut answer = sent.map_err(|error| no_answer(error, self.base_url.authority()))?;
        let (status, headers) = (answer.status().as_u16(), std::mem::take(answer.headers_mut()));
        let length = answer.content_length();
        let mut held = self.room.reserve(length).await.map_err(no_room)?;
        let mut body = match length {
            Some(_) => BytesMut::with_capacity(held.bytes()),
            None => BytesMut::new(),
        };
        let mut left = time_max;
        while let Some(chunk) = next_chunk(&mut answer, &mut left).await? {
            let needed = body.len() + chunk.len();
            if needed > held.bytes() {
                self.room.grow(&mut held, needed).await.map_err(no_room)?;
            }
            body.extend_from_slice(&chunk);
        }
        held.shrink_to(body.len());
        Ok(Response::new(status, headers, Bytes::from_owner(AnswerBody { bytes: body, _held: held })))
    }
}

/// Returns the next chunk of a body, within the time left for the whole body.
async fn next_chunk(answer: &mut reqwest::Response, left: &mut Duration) -> Result<Option<Bytes>, NoAnswer> {
    let begun = Instant::now();
    let late = |_| NoAnswer::MaybeSent("the answer did not end in time".to_owned());
    let chunk = timeout(*left, answer.chunk()).await.map_err(late)?;
    *left = left.saturating_sub(begun.elapsed());
    chunk.map_err(|error| NoAnswer::MaybeSent(describe(error)))
}

/// The body of an answer, which holds its reserved memory until it is dropped.
struct AnswerBody {
    bytes: BytesMut,
    _held: HeldRoom,
}

impl AsRef<[u8]> for AnswerBody {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

fn no_room(why: NoRoom) -> NoAnswer {
    match why {
        NoRoom::TooLarge(bytes_max) => NoAnswer::TooLarge(bytes_max),
        NoRoom::NotInTime => {
            NoAnswer::MaybeSent("there was no room for the answer (`okta.answer_bytes_max`)".to_owned())
        }
    }
}

/// Classifies a transport error: only a request that failed before the connection was up was certainly not executed.
fn no_answer(error: reqwest::Error, host: &str) -> NoAnswer {
    if !error.is_connect() && !error.is_builder() {
        return NoAnswer::MaybeSent(describe(error));
    }
    if descriptors::are_exhausted_by(&error) || descriptors::are_exhausted() {
        return NoAnswer::Local(descriptors::EXHAUSTED.to_owned());
    }
    NoAnswer::NotSent(format!("`{host}`: {}", describe(error)))
}

/// Formats the error and its causes without the URL.
fn describe(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(deeper) = cause {
        text = format!("{text}: {deeper}");
        cause = deeper.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::future::join_all;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::domain::ids::UserKey;
    use crate::okta::ROOM_BYTES_MIN;

    /// The framing by which a server announces the length of an answer.
    #[derive(Debug, Clone, Copy)]
    enum Length {
        Told,
        Chunked,
    }

    /// Starts a server whose answers all have this many bytes, each on a connection of its own.
    async fn server(bytes: usize, length: Length) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base_url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, bytes, length));
            }
        });
        base_url
    }

    async fn answer(mut stream: TcpStream, bytes: usize, length: Length) -> std::io::Result<()> {
        static PIECE: [u8; 64 * 1024] = [b' '; 64 * 1024];
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_buf(&mut head).await?;
        }
        let said = match length {
            Length::Told => format!("content-length: {bytes}"),
            Length::Chunked => "transfer-encoding: chunked".to_owned(),
        };
        stream
            .write_all(format!("HTTP/1.1 200 OK\r\nconnection: close\r\n{said}\r\n\r\n").as_bytes())
            .await?;
        let mut left = bytes;
        while left > 0 {
            let piece = &PIECE[..left.min(PIECE.len())];
            left -= piece.len();
            match length {
                Length::Told => stream.write_all(piece).await?,
                Length::Chunked => {
                    stream.write_all(format!("{:x}\r\n", piece.len()).as_bytes()).await?;
                    stream.write_all(piece).await?;
                    stream.write_all(b"\r\n").await?;
                }
            }
        }
        match length {
            Length::Told => stream.flush().await,
            Length::Chunked => stream.write_all(b"0\r\n\r\n").await,
        }
    }

    async fn asked(https: &Https) -> Result<Response, NoAnswer> {
        let authorization = HeaderValue::from_static("SSWS t");
        let presented = Presented { authorization: &authorization, proof: None };
        https.send(&Request::get("/api/v1/users", &[]), presented).await
    }

    #[tokio::test]
    async fn many_large_answers_at_once_keep_within_the_room_and_all_come() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        const BYTES: usize = 7 << 20;
        for length in [Length::Told, Length::Chunked] {
            let room = AnswerRoom::new(ROOM_BYTES_MIN);
            let https = Https::new(&server(BYTES, length).await, &room, REQUEST_TIMEOUT).unwrap();
            let (live, peak) = (AtomicUsize::new(0), AtomicUsize::new(0));
            let asking = (0..24).map(|_| async {
                let response = asked(&https).await.unwrap();
                let now = live.fetch_add(response.body.len(), Ordering::SeqCst) + response.body.len();
                peak.fetch_max(now.max(room.held_bytes()), Ordering::SeqCst);
                tokio::task::yield_now().await;
                live.fetch_sub(response.body.len(), Ordering::SeqCst);
                response.body.len()
            });
            assert_eq!(join_all(asking).await, [BYTES; 24], "{length:?}");
            let peak = peak.into_inner();
            assert!(peak as u64 <= ROOM_BYTES_MIN, "{peak} {length:?}");
            assert_eq!(room.held_bytes(), 0, "{length:?}");
        }
    }

    #[tokio::test]
    async fn a_body_holds_its_room_until_nobody_has_it() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        for length in [Length::Told, Length::Chunked] {
            let room = AnswerRoom::new(ROOM_BYTES_MIN);
            let https = Https::new(&server(3000, length).await, &room, REQUEST_TIMEOUT).unwrap();
            let response = asked(&https).await.unwrap();
            let body = response.body.clone();
            drop(response);
            assert_eq!((body.len(), room.held_bytes()), (3000, 3 * 1024), "{length:?}");
            drop(body);
            assert_eq!(room.held_bytes(), 0, "{length:?}");
        }
    }

    #[tokio::test]
    async fn an_answer_that_is_too_large_is_named_as_such() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        for length in [Length::Told, Length::Chunked] {
            let room = AnswerRoom::new(ROOM_BYTES_MIN);
            let https = Https::new(&server((8 << 20) + 1, length).await, &room, REQUEST_TIMEOUT).unwrap();
            assert_eq!(asked(&https).await.unwrap_err(), NoAnswer::TooLarge(8 << 20), "{length:?}");
            assert_eq!(room.held_bytes(), 0, "{length:?}");
        }
    }

    #[test]
    fn a_url_is_the_host_and_what_the_request_says_unchanged() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let base_url = "https://acme.okta.com:8443";
        let https = Https::new(base_url, &AnswerRoom::new(0), REQUEST_TIMEOUT).unwrap();
        let user = UserKey::try_from("a/b#c?d @x".to_owned()).unwrap();
        let plain = Request::get("/api/v1/users/{userId}/groups", &[&user]);
        let search = Request::get("/api/v1/users", &[]).query("search", "a eq \"x&y\"").query("limit", 2);
        for request in [plain, search] {
            let whole = format!("{base_url}{}", request.path_and_query());
            assert_eq!(https.url(&request).as_str(), whole);
            assert_eq!(https.url(&request), Url::parse(&whole).unwrap());
        }
    }
}
