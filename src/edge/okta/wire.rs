//! Requests over HTTPS: out once, the whole answer in.
//!
//! The only file with an HTTP client for Okta. What opens the org goes to the configured host alone: redirects
//! are not followed and a link's host is never taken. No error text holds a URL, because a path may hold a
//! login.

use std::error::Error as _;
use std::time::Duration;

use async_trait::async_trait;
use bytes::BytesMut;
use http::Method;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{RequestBuilder, Url};

use super::Wire;
use crate::domain::http::{NoAnswer, Request, Response};
use crate::domain::secret::Secret;

/// How long to wait for a connection, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long one request may take. Okta's own limit for a System Log query is 30 s; the slowest change
/// recorded took 5.4 s, and deactivating a user with many provisioned applications takes longer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a form may take: it asks for a token that others wait for, and looks nothing up.
const FORM_TIMEOUT: Duration = Duration::from_secs(15);

/// The largest answer taken, in bytes: a page of 1,000 users with large profiles has a few MiB.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// One org over HTTPS.
pub(super) struct Https {
    /// Read once: reading a host anew for each request costs more than all the rest of its URL.
    base_url: Url,
    http: reqwest::Client,
}

impl Https {
    /// The way to the org at this URL.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub(super) fn new(base_url: &str) -> Result<Self, String> {
        let json = HeaderValue::from_static("application/json");
        let http = reqwest::Client::builder()
            .default_headers(HeaderMap::from_iter([(ACCEPT, json)]))
            .user_agent(concat!("okta-worker/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(REQUEST_TIMEOUT)
            .build()
            .map_err(describe)?;
        let base_url = Url::parse(base_url).map_err(|error| format!("the base URL: {error}"))?;
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
impl Wire for Https {
    async fn send(&self, request: &Request, authorization: &HeaderValue) -> Result<Response, NoAnswer> {
        let mut building = self
            .http
            .request(request.method.clone(), self.url(request))
            .header(AUTHORIZATION, authorization)
            .header(CONTENT_TYPE, "application/json");
        building = match &request.body {
            Some(body) => building.body(body.clone()),
            // Without it Okta answers 411 ("Content-Length").
            None if request.method == Method::POST || request.method == Method::PUT => {
                building.header(CONTENT_LENGTH, 0)
            }
            None => building,
        };
        answer_to(building).await
    }

    async fn post_form(&self, path: &str, form: Secret) -> Result<Response, NoAnswer> {
        let mut url = self.base_url.clone();
        url.set_path(path);
        let building = self
            .http
            .post(url)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .timeout(FORM_TIMEOUT)
            .body(form.expose().to_owned());
        answer_to(building).await
    }
}

/// Sends once and reads the whole answer.
async fn answer_to(request: RequestBuilder) -> Result<Response, NoAnswer> {
    let mut answer = request.send().await.map_err(no_answer)?;
    let (status, headers) = (answer.status().as_u16(), std::mem::take(answer.headers_mut()));
    let mut body = BytesMut::new();
    while let Some(chunk) = answer.chunk().await.map_err(|error| NoAnswer::MaybeSent(describe(error)))? {
        if body.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err(NoAnswer::MaybeSent(format!("the answer has more than {ANSWER_BYTES_MAX} bytes")));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Response::new(status, headers, body))
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
        let base_url = "https://acme.okta.com:8443";
        let https = Https::new(base_url).unwrap();
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
