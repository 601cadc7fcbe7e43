//! The meaning of an answer: for the subtool, for the whole connection, a rate limit, or a failure that may pass.
//!
//! Invariant: a page of an intermediary in front of Okta never counts as Okta's answer.

use std::time::Duration;

use crate::domain::bucket::RateHeaders;
use crate::domain::http::{NoAnswer, Request, Response};
use crate::domain::okta_error::OktaError;

use super::pause::PauseReason;

/// The meaning of the answer to one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// Okta's answer for the subtool: a success, or a refusal that will not change by itself.
    Answered,
    /// A refusal of every request like this one on the connection.
    Refused(PauseReason),
    /// Not executed: a limit was reached. Always repeated, and no attempt is spent.
    Limited(LimitKind),
    /// A failure that may pass.
    Failed(FailureKind),
}

/// The limit that a 429 reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, strum::IntoStaticStr, strum::EnumCount)]
#[strum(serialize_all = "snake_case")]
pub enum LimitKind {
    /// The window of the bucket is spent.
    Window,
    /// Too many requests at once.
    Concurrency,
}

impl Meaning {
    /// Returns true if a smaller page may be answered.
    pub fn may_be_page_size(self) -> bool {
        match self {
            Self::Failed(kind) => kind.may_be_page_size(),
            Self::Answered | Self::Refused(_) | Self::Limited(_) => false,
        }
    }
}

impl LimitKind {
    /// Both kinds.
    pub const ALL: [Self; <Self as strum::EnumCount>::COUNT] = [Self::Window, Self::Concurrency];

    /// Returns the kind as a metric label.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// The kind of a failure that may pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, strum::IntoStaticStr, strum::EnumCount)]
#[strum(serialize_all = "snake_case")]
pub enum FailureKind {
    /// The request did not reach Okta.
    NotSent,
    /// No answer came; the request may have reached Okta.
    NoAnswer,
    /// Another 5xx, such as 500.
    ServerError,
    /// 502 or 504.
    Gateway,
    /// An answer that is not Okta's: a page, a redirect, JSON of another shape.
    NotOkta,
    /// 503.
    Unavailable,
    /// 503 E0000010: Okta is read-only for maintenance.
    ReadOnly,
    /// 409 or 423: something is still being set up.
    Busy,
    /// 404 about an object that this worker has just created: read-after-write lag.
    Lag,
    /// The answer is larger than the worker reads.
    TooLarge,
    /// The machine lacks a resource such as a file descriptor, and the request was not sent.
    Local,
}

impl FailureKind {
    /// Every kind.
    pub const ALL: [Self; <Self as strum::EnumCount>::COUNT] = [
        Self::NotSent,
        Self::NoAnswer,
        Self::ServerError,
        Self::Gateway,
        Self::NotOkta,
        Self::Unavailable,
        Self::ReadOnly,
        Self::Busy,
        Self::Lag,
        Self::TooLarge,
        Self::Local,
    ];

    /// Returns the kind as a metric label.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// Returns true if Okta may have executed the request. Okta refuses a write in read-only mode
    /// and while something is being set up before it does anything ("Error codes", E0000010, E0000112).
    pub fn may_have_happened(self) -> bool {
        match self {
            Self::NotSent | Self::ReadOnly | Self::Busy | Self::Lag | Self::Local => false,
            Self::NoAnswer
            | Self::ServerError
            | Self::Gateway
            | Self::NotOkta
            | Self::Unavailable
            | Self::TooLarge => true,
        }
    }

    /// Returns true if a smaller page may help: pages of 1,000 members of very large groups have been answered 500
    /// and 504 (Okta's release notes of 2026.05).
    pub fn may_be_page_size(self) -> bool {
        match self {
            Self::ServerError | Self::Gateway | Self::TooLarge => true,
            Self::NotSent
            | Self::NoAnswer
            | Self::NotOkta
            | Self::Unavailable
            | Self::ReadOnly
            | Self::Busy
            | Self::Lag
            | Self::Local => false,
        }
    }

    /// Returns true if the whole connection may fail, and not only this request: a probe decides.
    pub fn may_affect_connection(self) -> bool {
        match self {
            Self::Busy | Self::Lag | Self::TooLarge | Self::Local => false,
            Self::NotSent
            | Self::NoAnswer
            | Self::ServerError
            | Self::Gateway
            | Self::NotOkta
            | Self::Unavailable
            | Self::ReadOnly => true,
        }
    }
}

/// Facts about the connection that decide on the meaning of a refusal.
#[derive(Clone, Copy)]
pub struct ConnectionFacts<'a> {
    /// True if the scope that the request needs has worked.
    pub scope_has_worked: bool,
    /// A function that returns true if this worker has created an object with this id moments ago.
    pub is_recent: &'a dyn Fn(&str) -> bool,
}

impl ConnectionFacts<'static> {
    /// A connection of which nothing is known.
    pub const NOTHING: Self = Self { scope_has_worked: false, is_recent: &|_| false };
}

/// Returns the meaning of an answer to a request.
pub fn classify(
    request: &Request,
    answer: Result<&Response, &NoAnswer>,
    facts: ConnectionFacts<'_>,
) -> Meaning {
    let response = match answer {
        Err(NoAnswer::NotSent(_)) => return Meaning::Failed(FailureKind::NotSent),
        Err(NoAnswer::MaybeSent(_)) => return Meaning::Failed(FailureKind::NoAnswer),
        Err(NoAnswer::TooLarge(_)) => return Meaning::Failed(FailureKind::TooLarge),
        Err(NoAnswer::Local(_)) => return Meaning::Failed(FailureKind::Local),
        Ok(response) => response,
    };
    if response.is_success() {
        return match request.expected.fits(response.status, &response.body) {
            true => Meaning::Answered,
            false => Meaning::Failed(FailureKind::NotOkta),
        };
    }
    refused(response, facts)
}

/// Returns the meaning of an answer that is no success.
fn refused(response: &Response, facts: ConnectionFacts<'_>) -> Meaning {
    let is_oktas = OktaError::is_in(response);
    match response.status {
        429 => limited(response, is_oktas),
        502 | 504 => Meaning::Failed(FailureKind::Gateway),
        503 if OktaError::read(response).is("E0000010") => Meaning::Failed(FailureKind::ReadOnly),
        503 => Meaning::Failed(FailureKind::Unavailable),
        // "Unsupported operation" about the built-in group: once 501, now 403 (release 2026.04.0).
        501 if is_oktas => Meaning::Answered,
        // Read by status: the System Log's own 500 has the code of a 400 ("System Log", timeouts).
        500..=599 => Meaning::Failed(FailureKind::ServerError),
        409 | 423 if is_busy(&OktaError::read(response)) => Meaning::Failed(FailureKind::Busy),
        // "Feature not enabled": the credential is good (75 recordings).
        401 if is_oktas && !OktaError::read(response).is("E0000015") => {
            Meaning::Refused(PauseReason::Unauthorized)
        }
        403 if is_oktas && facts.scope_has_worked && lacks_scope(response) => {
            Meaning::Refused(PauseReason::Forbidden)
        }
        404 if is_oktas && is_lag(response, facts) => Meaning::Failed(FailureKind::Lag),
        400..=499 if is_oktas => Meaning::Answered,
        // A redirect, or the page of a proxy, of a captive portal, of an org that no longer exists: it says nothing
        // about the requested user or group.
        _ => Meaning::Failed(FailureKind::NotOkta),
    }
}

/// Returns true if Okta does not find an object that was created moments ago.
fn is_lag(response: &Response, facts: ConnectionFacts<'_>) -> bool {
    OktaError::read(response).missing().is_some_and(|(id, _)| (facts.is_recent)(id))
}

/// Returns the meaning of a 429. Okta's own 429 has its error object (recorded) or its headers; the 429 of a gateway in
/// between says nothing about Okta's windows.
fn limited(response: &Response, is_oktas: bool) -> Meaning {
    match RateHeaders::read(&response.headers) {
        Some(headers) if headers.is_concurrency() => Meaning::Limited(LimitKind::Concurrency),
        Some(_) => Meaning::Limited(LimitKind::Window),
        None if is_oktas => Meaning::Limited(LimitKind::Window),
        None => Meaning::Failed(FailureKind::NotOkta),
    }
}

/// Returns true if a conflict passes by itself: a user still being activated, a policy, rule or user type still
/// being set up ("Error codes"; 423 recorded on group rules).
fn is_busy(error: &OktaError) -> bool {
    (error.status == 423 && error.error_code.is_some())
        || ["E0000112", "E0000239", "E0000249", "E0000253"].iter().any(|code| error.is(code))
}

/// Returns the wait after a concurrency 429: its own reset is a minute off while slots
/// free within a second (okta-sdk-python issue 270). Grows with the number of such answers in a row.
pub fn concurrency_wait(in_a_row: u32, jitter: f64) -> Duration {
    const WAIT_MIN: Duration = Duration::from_millis(200);
    /// The longest wait without jitter. Jitter adds up to half of it, so no request waits 5 s for a slot that is free
    /// within a second.
    const WAIT_MAX: Duration = Duration::from_secs(3);
    let interval = (WAIT_MIN * 2_u32.saturating_pow(in_a_row.clamp(1, 8) - 1)).min(WAIT_MAX);
    interval.mul_f64(0.5 + jitter.clamp(0.0, 1.0))
}

/// Returns true if Okta says that the credential lacks a scope (`WWW-Authenticate`, "insufficient_scope").
fn lacks_scope(response: &Response) -> bool {
    let names_it =
        |value: &http::HeaderValue| value.to_str().is_ok_and(|text| text.contains("insufficient_scope"));
    response.status == 403 && response.headers.get(http::header::WWW_AUTHENTICATE).is_some_and(names_it)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderMap;

    fn response(status: u16, code: &str, limit: Option<&str>) -> Response {
        let mut headers = HeaderMap::new();
        if let Some(limit) = limit {
            headers.insert("x-rate-limit-limit", limit.parse().unwrap());
            headers.insert("x-rate-limit-remaining", "0".parse().unwrap());
            headers.insert("x-rate-limit-reset", "1700000000".parse().unwrap());
        }
        let body = if code.is_empty() { String::new() } else { format!(r#"{{"errorCode":"{code}"}}"#) };
        Response::new(status, headers, body)
    }

    #[test]
    fn status_code_and_headers_decide() {
        use Meaning::{Answered, Failed, Limited, Refused};
        let rows = [
            (404, "E0000007", None, Answered),
            (401, "E0000011", None, Refused(PauseReason::Unauthorized)),
            (401, "E0000015", None, Answered),
            (429, "E0000047", Some("600"), Limited(LimitKind::Window)),
            (429, "E0000047", Some("0"), Limited(LimitKind::Concurrency)),
            (429, "E0000047", None, Limited(LimitKind::Window)),
            (429, "", Some("600"), Limited(LimitKind::Window)),
            (429, "", None, Failed(FailureKind::NotOkta)),
            (302, "", None, Failed(FailureKind::NotOkta)),
            (400, "", None, Failed(FailureKind::NotOkta)),
            (401, "", None, Failed(FailureKind::NotOkta)),
            (404, "", None, Failed(FailureKind::NotOkta)),
            (407, "", None, Failed(FailureKind::NotOkta)),
            (409, "", None, Failed(FailureKind::NotOkta)),
            (423, "", None, Failed(FailureKind::NotOkta)),
            (200, "", None, Failed(FailureKind::NotOkta)),
            (200, "E0000009", None, Failed(FailureKind::NotOkta)),
            (204, "", None, Failed(FailureKind::NotOkta)),
            (500, "E0000009", None, Failed(FailureKind::ServerError)),
            (500, "E0000053", None, Failed(FailureKind::ServerError)),
            (501, "E0000060", None, Answered),
            (501, "", None, Failed(FailureKind::ServerError)),
            (502, "", None, Failed(FailureKind::Gateway)),
            (503, "E0000010", None, Failed(FailureKind::ReadOnly)),
            (503, "", None, Failed(FailureKind::Unavailable)),
            (504, "", None, Failed(FailureKind::Gateway)),
            (409, "E0000112", None, Failed(FailureKind::Busy)),
            (409, "E0000062", None, Answered),
            (423, "E0000239", None, Failed(FailureKind::Busy)),
        ];
        let read = Request::get("/api/v1/groups", &[]);
        for (status, code, limit, meaning) in rows {
            assert_eq!(
                classify(&read, Ok(&response(status, code, limit)), ConnectionFacts::NOTHING),
                meaning,
                "{status} {code}"
            );
        }
        let good = Response::new(200, HeaderMap::new(), "[]");
        assert_eq!(classify(&read, Ok(&good), ConnectionFacts::NOTHING), Answered);
        let lost = NoAnswer::MaybeSent("timeout".into());
        assert_eq!(classify(&read, Err(&lost), ConnectionFacts::NOTHING), Failed(FailureKind::NoAnswer));
    }

    #[test]
    fn the_wait_after_a_concurrency_429_grows_and_ends() {
        assert_eq!(concurrency_wait(1, 0.0), Duration::from_millis(100));
        assert_eq!(concurrency_wait(1, 1.0), Duration::from_millis(300));
        assert_eq!(concurrency_wait(40, 0.5), Duration::from_secs(3));
        assert_eq!(concurrency_wait(u32::MAX, 1.0), Duration::from_millis(4500));
    }
}
