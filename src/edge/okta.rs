//! Okta over HTTPS: one request, one answer, nothing repeated here.
//!
//! The credential goes to the configured host alone: redirects are not followed and a link's host is
//! never taken. No error text holds a URL, because a path may hold a login.

use std::error::Error as _;
use std::time::Duration;

use async_trait::async_trait;
use bytes::BytesMut;
use http::Method;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::Url;

use crate::domain::http::{NoAnswer, Request, Response};
use crate::domain::secret::Secret;
use crate::worker::ports::Okta;

/// How long to wait for a connection, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long one request may take. Okta's own limit for a System Log query is 30 s; the slowest change
/// recorded took 5.4 s, and deactivating a user with many provisioned applications takes longer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// The largest answer taken, in bytes: a page of 1,000 users with large profiles has a few MiB.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What stands before the token in the `Authorization` header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenType {
    /// An API token made by an administrator.
    Ssws,
    /// An OAuth 2.0 access token of the org's own authorization server.
    Bearer,
}

impl TokenType {
    /// The scheme as it stands in the header.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ssws => "SSWS",
            Self::Bearer => "Bearer",
        }
    }
}

/// Where an org is and what opens it.
#[derive(Debug, Clone, PartialEq)]
pub struct Endpoint {
    /// Scheme, host and port, without a trailing slash: `https://acme.okta.com`.
    pub base_url: String,
    /// The scheme of the token.
    pub token_type: TokenType,
    /// The token.
    pub token: Secret,
}

/// One org over HTTPS.
pub struct OktaClient {
    /// Read once: reading a host anew for each request costs more than all the rest of its URL.
    base_url: Url,
    http: reqwest::Client,
}

impl OktaClient {
    /// A client for an org.
    ///
    /// # Errors
    /// When the token cannot stand in a header, or TLS cannot be set up.
    pub fn new(endpoint: &Endpoint) -> Result<Self, String> {
        let authorization = format!("{} {}", endpoint.token_type.as_str(), endpoint.token.expose());
        let mut authorization = HeaderValue::from_str(&authorization)
            .map_err(|_| "the token holds a character that cannot stand in a header".to_owned())?;
        authorization.set_sensitive(true);
        let json = HeaderValue::from_static("application/json");
        let headers = HeaderMap::from_iter([
            (AUTHORIZATION, authorization),
            (ACCEPT, json.clone()),
            (CONTENT_TYPE, json),
        ]);
        let http = reqwest::Client::builder()
            .default_headers(headers)
            .user_agent(concat!("okta-worker/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(REQUEST_TIMEOUT)
            .build()
            .map_err(describe)?;
        let base_url = Url::parse(&endpoint.base_url).map_err(|error| format!("the base URL: {error}"))?;
        Ok(Self { base_url, http })
    }

    fn url(&self, request: &Request) -> Url {
        let mut url = self.base_url.clone();
        url.set_path(&request.path);
        url.set_query(request.encoded_query().as_deref());
        url
    }
}

#[async_trait]
impl Okta for OktaClient {
    async fn send(&self, request: &Request) -> Result<Response, NoAnswer> {
        let mut building = self.http.request(request.method.clone(), self.url(request));
        building = match &request.body {
            Some(body) => building.body(body.clone()),
            // Without it Okta answers 411 ("Content-Length").
            None if request.method == Method::POST || request.method == Method::PUT => {
                building.header(CONTENT_LENGTH, 0)
            }
            None => building,
        };
        let mut answer = building.send().await.map_err(no_answer)?;
        let (status, headers) = (answer.status().as_u16(), std::mem::take(answer.headers_mut()));
        let mut body = BytesMut::new();
        while let Some(chunk) = answer.chunk().await.map_err(|error| NoAnswer::MaybeSent(describe(error)))? {
            if body.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Err(NoAnswer::MaybeSent(format!(
                    "the answer has more than {ANSWER_BYTES_MAX} bytes"
                )));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Response::new(status, headers, body))
    }
}

/// Whether the request may have been executed: only what failed before a connection stood surely was not.
fn no_answer(error: reqwest::Error) -> NoAnswer {
    if error.is_connect() || error.is_builder() {
        NoAnswer::NotSent(describe(error))
    } else {
        NoAnswer::MaybeSent(describe(error))
    }
}

/// The error and its causes without the URL.
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
    use super::*;
    use crate::domain::ids::UserKey;

    #[test]
    fn a_url_is_the_host_and_what_the_request_says_unchanged() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let endpoint = Endpoint {
            base_url: "https://acme.okta.com:8443".into(),
            token_type: TokenType::Ssws,
            token: Secret::new("t"),
        };
        let client = OktaClient::new(&endpoint).unwrap();
        let user = UserKey::try_from("a/b#c?d @x".to_owned()).unwrap();
        let plain = Request::get("/api/v1/users/{userId}/groups", &[&user]);
        let search = Request::get("/api/v1/users", &[]).query("search", "a eq \"x&y\"").query("limit", 2);
        for request in [plain, search] {
            let whole = format!("{}{}", endpoint.base_url, request.path_and_query());
            assert_eq!(client.url(&request).as_str(), whole);
            assert_eq!(client.url(&request), Url::parse(&whole).unwrap());
        }
    }
}
