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

/// The characters to percent-encode: all but RFC 3986's unreserved ones. An unencoded `#` cut a login short
/// (okta-sdk-java issue 580).
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The capacity that fits most filled paths: two ids of twenty characters and the words between them.
const PATH_BYTES_USUAL: usize = 96;

/// One request, without host and credential, which belong to the adapter of Okta.
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
    /// The wait before sending, for reads after a write that allow for read-after-write lag.
    pub pause: Duration,
    /// The smallest page to ask for if Okta fails at a larger one; `None` if the page size must not change.
    pub page_min: Option<u32>,
    /// The answer that proves a success to be Okta's.
    pub expected: Expected,
}

/// The query parameter for the page size.
const PAGE_SIZE: &str = "limit";

impl Request {
    /// Creates a request for a route and fills its placeholders in order.
    ///
    /// # Panics
    /// If the number of segments differs from the number of placeholders: a mistake in the catalogue, which
    /// a test excludes.
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

    /// Creates a GET.
    pub fn get(route: &'static str, segments: &[&dyn PathSegment]) -> Self {
        Self::new(Method::GET, route, segments)
    }

    /// Creates a POST.
    pub fn post(route: &'static str, segments: &[&dyn PathSegment]) -> Self {
        Self::new(Method::POST, route, segments)
    }

    /// Creates a PUT.
    pub fn put(route: &'static str, segments: &[&dyn PathSegment]) -> Self {
        Self::new(Method::PUT, route, segments)
    }

    /// Creates a DELETE.
    pub fn delete(route: &'static str, segments: &[&dyn PathSegment]) -> Self {
        Self::new(Method::DELETE, route, segments)
    }

    /// Adds a query parameter.
    pub fn query(mut self, name: &str, value: impl ToString) -> Self {
        self.query.push((name.to_owned(), value.to_string()));
        self
    }

    /// Adds a query parameter if there is a value.
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

    /// Sets the page size, replacing an earlier one.
    pub fn set_page_size(&mut self, size: u32) {
        self.query.retain(|(name, _)| name != PAGE_SIZE);
        self.query.push((PAGE_SIZE.to_owned(), size.to_string()));
    }

    /// Halves the page size down to its minimum, and returns true if it shrank.
    pub fn shrink_page(&mut self) -> bool {
        let size = self.query_value(PAGE_SIZE).and_then(|size| size.parse::<u32>().ok());
        let Some((size, least)) = size.zip(self.page_min).filter(|(size, least)| size > least) else {
            return false;
        };
        self.set_page_size((size / 2).max(least));
        true
    }

    /// Sets the wait before sending.
    pub fn after(mut self, pause: Duration) -> Self {
        self.pause = pause;
        self
    }

    /// Replaces the route's usual expected answer.
    pub fn expecting(mut self, expected: Expected) -> Self {
        self.expected = expected;
        self
    }

    /// Returns the request for the page behind a link, with the parameters that the link lacks restored.
    ///
    /// Okta drops parameters from its links (`expand` on app users, okta-sdk-nodejs issue 439;
    /// `sortOrder` on users, recorded), so the original query fills the gaps, except for the parameters
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

    /// Returns the value of a query parameter.
    pub fn query_value(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Returns the path with its query, percent-encoded as sent.
    pub fn path_and_query(&self) -> String {
        match self.encoded_query() {
            Some(query) => format!("{}?{query}", self.path),
            None => self.path.clone(),
        }
    }

    /// Returns the query, percent-encoded; `None` if there is none.
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

    /// Returns the bucket that counts this request.
    pub fn bucket(&self) -> Bucket {
        Bucket::of(&self.method, self.route)
    }

    /// Returns true for a read.
    pub fn is_read(&self) -> bool {
        self.method == Method::GET
    }
}

/// Shows only method and route: path, query and body may hold logins and passwords.
impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.route)
    }
}

/// An answer of Okta's.
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
    /// Creates an answer from its parts.
    pub fn new(status: u16, headers: HeaderMap, body: impl Into<Bytes>) -> Self {
        Self { status, headers, body: body.into() }
    }

    /// Returns true if the status is 2xx.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Returns the body as JSON, exactly as Okta sent it; `None` if it is not one JSON document.
    pub fn raw(&self) -> Option<&serde_json::value::RawValue> {
        serde_json::from_slice(&self.body).ok()
    }

    /// Parses the body into `T`, ignoring unknown fields; `None` if it does not fit.
    pub fn read<T: DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_slice(&self.body).ok()
    }

    /// Returns Okta's id of the request, as in the System Log; `None` if the header is too long for one.
    pub fn request_id(&self) -> Option<&str> {
        /// The longest id accepted: recorded ids have 27 and 32 characters.
        const BYTES_MAX: usize = 128;
        self.headers.get("x-okta-request-id")?.to_str().ok().filter(|id| id.len() <= BYTES_MAX)
    }
}

/// Shows only status and size.
impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} bytes)", self.status, self.body.len())
    }
}

/// A request and its answer.
#[derive(Debug, Clone)]
pub struct Exchange {
    /// The request.
    pub request: Request,
    /// The answer.
    pub response: Response,
}

/// The reason why there is no answer. The texts name no URL, since a path may hold a login.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoAnswer {
    /// The request surely did not reach Okta (name resolution, connect, TLS).
    #[error("failed to reach Okta: {0}")]
    NotSent(String),
    /// Okta may have executed the request (timeout after sending, connection lost).
    #[error("failed to get an answer from Okta: {0}")]
    MaybeSent(String),
    /// The answer is larger than this many bytes and was not read; Okta may have executed the request.
    #[error("failed to read Okta's answer: it has more than {0} bytes")]
    TooLarge(usize),
    /// The request was not sent, because this machine lacks a resource.
    #[error("failed to ask Okta: {0}")]
    Local(String),
}

impl NoAnswer {
    /// Returns true if Okta surely has not received the request.
    pub fn was_not_sent(&self) -> bool {
        match self {
            Self::NotSent(_) | Self::Local(_) => true,
            Self::MaybeSent(_) | Self::TooLarge(_) => false,
        }
    }
}

/// Returns true if a host of a URL is this machine.
pub fn is_loopback(host: &str) -> bool {
    let address = host.trim_matches(['[', ']']); // of an IPv6 address
    host == "localhost" || address.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback())
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
