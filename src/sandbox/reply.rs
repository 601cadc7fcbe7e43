//! The org's answers: JSON, with the headers that every Okta answer has.

use std::fmt;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use jiff::Timestamp;
use serde::{Serialize, Serializer};

use crate::domain::http::Response;

use super::limits::RateValues;
use super::refusal::OktaRefusal;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-okta-request-id");

/// An answer without its common headers.
#[derive(Debug)]
pub(super) struct OrgReply {
    status: u16,
    body: Bytes,
    headers: Vec<(HeaderName, String)>,
}

impl OrgReply {
    /// Creates a 200 with a JSON body.
    pub(super) fn json(body: &impl Serialize) -> Self {
        let body = serde_json::to_vec(body).expect("what the org says is JSON");
        Self { status: 200, body: body.into(), headers: Vec::new() }
    }

    /// Creates a 200 `{}`, as lifecycle calls answer.
    pub(super) fn done() -> Self {
        Self { status: 200, body: Bytes::from_static(b"{}"), headers: Vec::new() }
    }

    /// Creates a 204 without a body.
    pub(super) fn empty() -> Self {
        Self { status: 204, body: Bytes::new(), headers: Vec::new() }
    }

    /// Creates an error object.
    pub(super) fn refusal(refusal: &OktaRefusal, error_id: &str) -> Self {
        let mut headers = Vec::new();
        if refusal.status == 401 {
            headers.push((header::WWW_AUTHENTICATE, "SSWS".to_owned()));
        }
        Self { status: refusal.status, body: refusal.body(error_id).into(), headers }
    }

    /// Creates an HTML page, as the proxy in front of Okta answers.
    pub(super) fn html(status: u16) -> Self {
        let page = format!("<html><head><title>{status}</title></head><body>{status}</body></html>");
        Self {
            status,
            body: page.into(),
            headers: vec![(header::CONTENT_TYPE, "text/html; charset=UTF-8".to_owned())],
        }
    }

    /// Creates a 403 without a body: the token lacks a scope, and only a header says so.
    pub(super) fn insufficient_scope(host: &str, scope: &str, path: &str) -> Self {
        let challenge = format!(
            "Bearer authorization_uri=\"{host}/oauth2/v1/authorize\", realm=\"{host}\", scope=\"{scope}\", \
             error=\"insufficient_scope\", error_description=\"The access token provided does not contain the \
             required scopes.\", resource=\"{path}\""
        );
        Self { status: 403, body: Bytes::new(), headers: vec![(header::WWW_AUTHENTICATE, challenge)] }
    }

    /// Creates a 401 without a body: the access token has expired, and only a header says so.
    pub(super) fn invalid_token(host: &str) -> Self {
        let challenge = format!(
            "Bearer authorization_uri=\"{host}/oauth2/v1/authorize\", realm=\"{host}\", scope=\"openid\", \
             error=\"invalid_token\", error_description=\"The access token is invalid.\""
        );
        Self { status: 401, body: Bytes::new(), headers: vec![(header::WWW_AUTHENTICATE, challenge)] }
    }

    /// Creates a 401 without a body: a proof of possession is missing or unsuitable (RFC 9449, section 7.1).
    pub(super) fn dpop_challenge(host: &str, (error, description): (&str, &str)) -> Self {
        let challenge = format!(
            "DPoP authorization_uri=\"{host}/oauth2/v1/authorize\", realm=\"{host}\", error=\"{error}\", \
             error_description=\"{description}\", algs=\"RS256 ES256\""
        );
        Self { status: 401, body: Bytes::new(), headers: vec![(header::WWW_AUTHENTICATE, challenge)] }
    }

    /// Creates an OAuth 2.0 error (RFC 6749, section 5.2).
    pub(super) fn oauth(status: u16, error: &str, description: &str) -> Self {
        let body = serde_json::json!({ "error": error, "error_description": description });
        Self { status, ..Self::json(&body) }
    }

    /// Creates an error status and nothing else.
    pub(super) fn bare(status: u16) -> Self {
        Self { status, body: Bytes::new(), headers: Vec::new() }
    }

    /// Adds a header.
    pub(super) fn with(mut self, name: HeaderName, value: String) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Completes the answer with the common headers.
    pub(super) fn finish(self, now: Timestamp, request_id: &str, rate: Option<RateValues>) -> Response {
        let mut headers = HeaderMap::with_capacity(8);
        if !self.body.is_empty() {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        for (name, value) in self.headers {
            let value = HeaderValue::try_from(value).expect("links and challenges are visible ASCII");
            if name == header::CONTENT_TYPE {
                headers.insert(name, value);
            } else {
                headers.append(name, value);
            }
        }
        let date = jiff::fmt::rfc2822::DateTimePrinter::new()
            .timestamp_to_rfc9110_string(&now)
            .expect("the time of a simulation is in our era");
        headers.insert(header::DATE, HeaderValue::try_from(date).expect("a date is ASCII"));
        headers.insert(REQUEST_ID, HeaderValue::try_from(request_id).expect("a request id is hexadecimal"));
        if let Some(rate) = rate {
            rate.write(&mut headers);
        }
        Response::new(self.status, headers, self.body)
    }
}

/// A time in Okta's format: `YYYY-MM-DDTHH:mm:ss.SSSZ`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Stamp(pub(super) Timestamp);

impl Stamp {
    /// Truncates a time to whole seconds, which Okta uses everywhere except in log events.
    pub(super) fn seconds(now: Timestamp) -> Self {
        Self(Timestamp::from_second(now.as_second()).expect("the seconds of a time are a time"))
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const PRINTER: jiff::fmt::temporal::DateTimePrinter =
            jiff::fmt::temporal::DateTimePrinter::new().precision(Some(3));
        PRINTER.print_timestamp(&self.0, jiff::fmt::StdFmtWrite(f)).map_err(|_| fmt::Error)
    }
}

impl Serialize for Stamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A link within the org.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Href<U: Serialize> {
    pub(super) href: U,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) method: Option<&'static str>,
}

/// A URL that is serialized without an intermediate string.
#[derive(Debug, Clone, Copy)]
pub(super) struct Url<'a>(pub(super) fmt::Arguments<'a>);

impl Serialize for Url<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}
