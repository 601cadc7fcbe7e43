//! One request to Okta and its answer, as plain values.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::bucket::Bucket;
use super::expected::Expected;
use super::ids::PathSegment;
use super::json;
use super::link::Link;

/// Everything outside RFC 3986's unreserved characters is encoded: a `#` left alone cut a login short
/// (okta-sdk-java issue 580).
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Most filled paths fit into this: two ids of twenty characters and the words between.
const PATH_BYTES_USUAL: usize = 96;

/// One request, without host and credential: those belong to the edge.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    /// The HTTP method.
    pub method: Method,
    /// The path template, such as `/api/v1/users/{userId}`; decides bucket and labels.
    pub route: &'static str,
    /// The filled, percent-encoded path.
    pub path: String,
    /// Names and values of the query, not yet encoded.
    pub query: Vec<(String, String)>,
    /// The JSON body. Without one, a POST or PUT still carries `Content-Length: 0` or Okta answers 411.
    pub body: Option<Bytes>,
    /// How long to wait before sending: for reads that follow a write whose effect may lag.
    pub pause: Duration,
    /// The smallest page to ask for when Okta fails at a larger one; `None` where the page size matters.
    pub page_min: Option<u32>,
    /// The answer by which a success is known to be Okta's.
    pub expected: Expected,
}

/// The query parameter that says how large a page may be.
const PAGE_SIZE: &str = "limit";

impl Request {
    /// A request for a route, its placeholders filled in order.
    ///
    /// # Panics
    /// When the number of segments is not the number of placeholders: a mistake in the catalogue, which
    /// a test walks through.
    pub fn new(method: Method, route: &'static str, segments: &[&dyn PathSegment]) -> Self {
        let expected = Expected::of(&method, route, segments.last().map(|last| last.segment()));
        let mut segments = segments.iter();
        let mut path = String::with_capacity(PATH_BYTES_USUAL);
        for part in route.trim_start_matches('/').split('/') {
            path.push('/');
            if part.starts_with('{') {
                let segment = segments.next().expect("a segment for each placeholder of the route");
                path.extend(utf8_percent_encode(segment.segment(), RESERVED));
            } else {
                path.push_str(part);
            }
        }
        assert!(segments.next().is_none(), "a placeholder for each segment of {route}");
        Self {
            method,
            route,
            path,
            query: Vec::new(),
            body: None,
            pause: Duration::ZERO,
            page_min: None,
            expected,
        }
    }

    /// A GET.
    pub fn get(route: &'static str, segments: &[&dyn PathSegment]) -> Self {
        Self::new(Method::GET, route, segments)
    }

    /// A POST.
    pub fn post(route: &'static str, segments: &[&dyn PathSegment]) -> Self {
        Self::new(Method::POST, route, segments)
    }

    /// A PUT.
    pub fn put(route: &'static str, segments: &[&dyn PathSegment]) -> Self {
        Self::new(Method::PUT, route, segments)
    }

    /// A DELETE.
    pub fn delete(route: &'static str, segments: &[&dyn PathSegment]) -> Self {
        Self::new(Method::DELETE, route, segments)
    }

    /// Adds a query parameter.
    pub fn query(mut self, name: &str, value: impl ToString) -> Self {
        self.query.push((name.to_owned(), value.to_string()));
        self
    }

    /// Adds a query parameter when there is a value.
    pub fn query_opt(self, name: &str, value: Option<impl ToString>) -> Self {
        match value {
            Some(value) => self.query(name, value),
            None => self,
        }
    }

    /// Sets the JSON body.
    pub fn json(mut self, body: &impl Serialize) -> Self {
        self.body = Some(Bytes::from(json::to_vec(body)));
        self
    }

    /// Asks for pages of this size, whatever was asked before.
    pub fn set_page_size(&mut self, size: u32) {
        self.query.retain(|(name, _)| name != PAGE_SIZE);
        self.query.push((PAGE_SIZE.to_owned(), size.to_string()));
    }

    /// Halves the page size where it may be smaller, and returns whether it did.
    pub fn shrink_page(&mut self) -> bool {
        let size = self.query_value(PAGE_SIZE).and_then(|size| size.parse::<u32>().ok());
        let Some((size, least)) = size.zip(self.page_min).filter(|(size, least)| size > least) else {
            return false;
        };
        self.set_page_size((size / 2).max(least));
        true
    }

    /// Waits before sending.
    pub fn after(mut self, pause: Duration) -> Self {
        self.pause = pause;
        self
    }

    /// Knows a success by another answer than the usual one of such a route.
    pub fn expecting(mut self, expected: Expected) -> Self {
        self.expected = expected;
        self
    }

    /// The request for the page behind a link, with what the link forgot put back.
    ///
    /// Okta drops parameters from its links (`expand` on app users, okta-sdk-nodejs issue 439;
    /// `sortOrder` on users, recorded), so the original query stays underneath, except the parameters
    /// `not_kept`.
    pub fn follow(&self, link: Link, not_kept: &[&str]) -> Self {
        let mut query = link.query;
        for (name, value) in &self.query {
            if !not_kept.contains(&name.as_str()) && !query.iter().any(|(known, _)| known == name) {
                query.push((name.clone(), value.clone()));
            }
        }
        Self { path: link.path, query, ..self.clone() }
    }

    /// The value of a query parameter.
    pub fn query_value(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The path with its query, percent-encoded, as it goes on the wire.
    pub fn path_and_query(&self) -> String {
        match self.encoded_query() {
            Some(query) => format!("{}?{query}", self.path),
            None => self.path.clone(),
        }
    }

    /// The query, percent-encoded; `None` when there is none.
    pub fn encoded_query(&self) -> Option<String> {
        let mut text = String::new();
        for (name, value) in &self.query {
            if !text.is_empty() {
                text.push('&');
            }
            text.extend(utf8_percent_encode(name, RESERVED));
            text.push('=');
            text.extend(utf8_percent_encode(value, RESERVED));
        }
        (!self.query.is_empty()).then_some(text)
    }

    /// The bucket this request is counted in.
    pub fn bucket(&self) -> Bucket {
        Bucket::of(&self.method, self.route)
    }

    /// Whether the request only reads.
    pub fn is_read(&self) -> bool {
        self.method == Method::GET
    }
}

/// Shows method and route only: path, query and body may hold logins and passwords.
impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.route)
    }
}

/// What Okta answered.
#[derive(Clone)]
pub struct Response {
    /// The HTTP status.
    pub status: u16,
    /// All headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

impl Response {
    /// An answer of these parts.
    pub fn new(status: u16, headers: HeaderMap, body: impl Into<Bytes>) -> Self {
        Self { status, headers, body: body.into() }
    }

    /// Whether the status is 2xx.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The body as JSON, exactly as Okta sent it; `None` when it is not one JSON document.
    pub fn raw(&self) -> Option<&serde_json::value::RawValue> {
        serde_json::from_slice(&self.body).ok()
    }

    /// The part of the body that `T` knows, unknown fields ignored; `None` when it does not fit.
    pub fn read<T: DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_slice(&self.body).ok()
    }

    /// Okta's id for the request, as the System Log shows it; `None` for a header that is too long for one.
    pub fn request_id(&self) -> Option<&str> {
        /// Recorded ids have 27 and 32 characters.
        const BYTES_MAX: usize = 128;
        self.headers.get("x-okta-request-id")?.to_str().ok().filter(|id| id.len() <= BYTES_MAX)
    }
}

/// Shows status and size only.
impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} bytes)", self.status, self.body.len())
    }
}

/// A request and its answer.
#[derive(Debug, Clone)]
pub struct Exchange {
    /// What was asked.
    pub request: Request,
    /// What Okta said.
    pub response: Response,
}

/// Why there is no answer. The texts name no URL: a path may hold a login.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoAnswer {
    /// The request surely did not reach Okta (name resolution, connect, TLS).
    #[error("failed to reach Okta: {0}")]
    NotSent(String),
    /// The request may have been executed (timeout after sending, connection lost).
    #[error("failed to get an answer from Okta: {0}")]
    MaybeSent(String),
    /// The answer has more bytes than this and was not read; the request may have been executed.
    #[error("failed to read Okta's answer: it has more than {0} bytes")]
    TooLarge(usize),
    /// The request was not sent, because this machine is short of something.
    #[error("failed to ask Okta: {0}")]
    Local(String),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::UserKey;

    #[test]
    fn a_login_is_encoded_into_one_segment() {
        let user = UserKey::try_from("a/b#c d@example.com".to_owned()).unwrap();
        let request = Request::get("/api/v1/users/{userId}/groups", &[&user]);
        assert_eq!(request.path_and_query(), "/api/v1/users/a%2Fb%23c%20d%40example.com/groups");
        assert_eq!(request.bucket(), Bucket::Users);
    }

    #[test]
    fn a_page_is_halved_down_to_its_least_size() {
        let mut request = Request::get("/api/v1/users", &[]).query("limit", 45).query("q", "a");
        assert!(!request.shrink_page(), "where nothing is said its size matters");
        request.page_min = Some(10);
        let mut sizes = Vec::new();
        while request.shrink_page() {
            sizes.push(request.path_and_query());
        }
        assert_eq!(sizes, [22, 11, 10].map(|size| format!("/api/v1/users?q=a&limit={size}")));
    }

    #[test]
    fn what_the_link_forgot_is_put_back() {
        let first = Request::get("/api/v1/users", &[]).query("limit", 200).query("sortOrder", "desc");
        let link = Link {
            path: "/api/v1/users".into(),
            query: vec![("after".into(), "c 1".into()), ("limit".into(), "200".into())],
        };
        let second = first.follow(link, &[]);
        assert_eq!(second.path_and_query(), "/api/v1/users?after=c%201&limit=200&sortOrder=desc");
    }

    #[test]
    fn debug_shows_neither_path_nor_body() {
        let user = UserKey::try_from("jane@example.com".to_owned()).unwrap();
        let request = Request::post("/api/v1/users/{userId}", &[&user]).json(&"hunter2");
        assert_eq!(format!("{request:?}"), "POST /api/v1/users/{userId}");
    }
}
