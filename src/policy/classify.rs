//! What an answer means for the request: Okta said something, a limit was reached, or it failed for now.
//!
//! Invariant: a page of something in front of Okta never counts as what Okta said.

use std::time::Duration;

use crate::domain::bucket::RateHeaders;
use crate::domain::http::{NoAnswer, Request, Response};
use crate::domain::okta_error::OktaError;

/// What came of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// Okta spoke: a success or a refusal that will not change by itself. The subtool hears it.
    Said,
    /// Not executed: a limit was reached. Always repeated, and no attempt is spent.
    Limited(Limit),
    /// It failed for now.
    Failed(Trouble),
}

/// Which limit a 429 was about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Limit {
    /// The window of the bucket is spent.
    Window,
    /// Too many requests at once.
    Concurrency,
}

impl Limit {
    /// Both kinds.
    pub const ALL: [Self; 2] = [Self::Window, Self::Concurrency];

    /// The kind as it stands in labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Window => "window",
            Self::Concurrency => "concurrency",
        }
    }
}

/// Why a request failed for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Trouble {
    /// It surely did not reach Okta.
    NotSent,
    /// It may have reached Okta; no answer came.
    NoAnswer,
    /// 500 and its kin.
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
    /// 404 of what this worker has just created: not everywhere yet.
    Lag,
    /// The answer is larger than any that is read.
    TooLarge,
    /// This machine is short of something, and the request was not sent.
    Local,
}

impl Trouble {
    /// Every kind.
    pub const ALL: [Self; 11] = [
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

    /// The kind as it stands in labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotSent => "not_sent",
            Self::NoAnswer => "no_answer",
            Self::ServerError => "server_error",
            Self::Gateway => "gateway",
            Self::NotOkta => "not_okta",
            Self::Unavailable => "unavailable",
            Self::ReadOnly => "read_only",
            Self::Busy => "busy",
            Self::Lag => "lag",
            Self::TooLarge => "too_large",
            Self::Local => "local",
        }
    }

    /// Whether the request may have been executed all the same. Okta refuses a write in read-only mode
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

    /// Tells whether a smaller page may help: pages of 1,000 members of very large groups have been answered 500
    /// and 504 (Okta's release notes of 2026.05).
    pub fn may_be_its_size(self) -> bool {
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

    /// Whether it may be the whole connection that fails, and not this one request: a probe tells.
    pub fn may_be_everywhere(self) -> bool {
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

/// Whether Okta refuses the credential as such. "Feature not enabled" is no such refusal (75 recordings).
pub fn is_unauthorized(response: &Response) -> bool {
    response.status == 401 && OktaError::is_in(response) && !OktaError::read(response).is("E0000015")
}

/// Says what the answer to a request means.
pub fn classify(request: &Request, answer: Result<&Response, &NoAnswer>) -> Meaning {
    let response = match answer {
        Err(NoAnswer::NotSent(_)) => return Meaning::Failed(Trouble::NotSent),
        Err(NoAnswer::MaybeSent(_)) => return Meaning::Failed(Trouble::NoAnswer),
        Err(NoAnswer::TooLarge(_)) => return Meaning::Failed(Trouble::TooLarge),
        Err(NoAnswer::Local(_)) => return Meaning::Failed(Trouble::Local),
        Ok(response) => response,
    };
    if response.is_success() {
        return match request.expected.fits(response.status, &response.body) {
            true => Meaning::Said,
            false => Meaning::Failed(Trouble::NotOkta),
        };
    }
    refused(response)
}

/// Says what an answer means that is no success.
fn refused(response: &Response) -> Meaning {
    let is_own = OktaError::is_in(response);
    match response.status {
        429 => limited(response, is_own),
        502 | 504 => Meaning::Failed(Trouble::Gateway),
        503 if OktaError::read(response).is("E0000010") => Meaning::Failed(Trouble::ReadOnly),
        503 => Meaning::Failed(Trouble::Unavailable),
        // "Unsupported operation" about the built-in group: once 501, now 403 (release 2026.04.0).
        501 if is_own => Meaning::Said,
        // Read by status: the System Log's own 500 has the code of a 400 ("System Log", timeouts).
        500..=599 => Meaning::Failed(Trouble::ServerError),
        409 | 423 if is_busy(&OktaError::read(response)) => Meaning::Failed(Trouble::Busy),
        400..=499 if is_own => Meaning::Said,
        // A redirect, or the page of a proxy, of a captive portal, of an org that is gone: it says nothing
        // about the one user or group that was asked for.
        _ => Meaning::Failed(Trouble::NotOkta),
    }
}

/// Says what a 429 means. Okta's own has its error object (recorded) or its headers; that of a gateway in
/// between says nothing of Okta's windows.
fn limited(response: &Response, is_own: bool) -> Meaning {
    match RateHeaders::read(&response.headers) {
        Some(headers) if headers.is_concurrency() => Meaning::Limited(Limit::Concurrency),
        Some(_) => Meaning::Limited(Limit::Window),
        None if is_own => Meaning::Limited(Limit::Window),
        None => Meaning::Failed(Trouble::NotOkta),
    }
}

/// Whether a conflict passes by itself: a user still being activated, a policy, rule or user type still
/// being set up ("Error codes"; 423 recorded on group rules).
fn is_busy(error: &OktaError) -> bool {
    (error.status == 423 && error.error_code.is_some())
        || ["E0000112", "E0000239", "E0000249", "E0000253"].iter().any(|code| error.is(code))
}

/// How long to leave Okta alone after a 429 about concurrency: its own reset is a minute off while slots
/// free within a second (okta-sdk-python issue 270). Grows with the number of such answers in a row.
pub fn concurrency_wait(in_a_row: u32, jitter: f64) -> Duration {
    const LEAST: Duration = Duration::from_millis(200);
    /// With half as much again by jitter nobody waits 5 s for what is free within a second.
    const MOST: Duration = Duration::from_secs(3);
    let interval = (LEAST * 2_u32.saturating_pow(in_a_row.clamp(1, 8) - 1)).min(MOST);
    interval.mul_f64(0.5 + jitter.clamp(0.0, 1.0))
}

/// Returns true if Okta says that the credential lacks a scope (`WWW-Authenticate`, "insufficient_scope").
pub fn lacks_scope(response: &Response) -> bool {
    let said =
        |value: &http::HeaderValue| value.to_str().is_ok_and(|text| text.contains("insufficient_scope"));
    response.status == 403 && response.headers.get(http::header::WWW_AUTHENTICATE).is_some_and(said)
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
        use Meaning::{Failed, Limited, Said};
        let rows = [
            (404, "E0000007", None, Said),
            (401, "E0000011", None, Said),
            (429, "E0000047", Some("600"), Limited(Limit::Window)),
            (429, "E0000047", Some("0"), Limited(Limit::Concurrency)),
            (429, "E0000047", None, Limited(Limit::Window)),
            (429, "", Some("600"), Limited(Limit::Window)),
            (429, "", None, Failed(Trouble::NotOkta)),
            (302, "", None, Failed(Trouble::NotOkta)),
            (400, "", None, Failed(Trouble::NotOkta)),
            (401, "", None, Failed(Trouble::NotOkta)),
            (404, "", None, Failed(Trouble::NotOkta)),
            (407, "", None, Failed(Trouble::NotOkta)),
            (409, "", None, Failed(Trouble::NotOkta)),
            (423, "", None, Failed(Trouble::NotOkta)),
            (200, "", None, Failed(Trouble::NotOkta)),
            (200, "E0000009", None, Failed(Trouble::NotOkta)),
            (204, "", None, Failed(Trouble::NotOkta)),
            (500, "E0000009", None, Failed(Trouble::ServerError)),
            (500, "E0000053", None, Failed(Trouble::ServerError)),
            (501, "E0000060", None, Said),
            (501, "", None, Failed(Trouble::ServerError)),
            (502, "", None, Failed(Trouble::Gateway)),
            (503, "E0000010", None, Failed(Trouble::ReadOnly)),
            (503, "", None, Failed(Trouble::Unavailable)),
            (504, "", None, Failed(Trouble::Gateway)),
            (409, "E0000112", None, Failed(Trouble::Busy)),
            (409, "E0000062", None, Said),
            (423, "E0000239", None, Failed(Trouble::Busy)),
        ];
        let read = Request::get("/api/v1/groups", &[]);
        for (status, code, limit, meaning) in rows {
            assert_eq!(classify(&read, Ok(&response(status, code, limit))), meaning, "{status} {code}");
        }
        let good = Response::new(200, HeaderMap::new(), "[]");
        assert_eq!(classify(&read, Ok(&good)), Said);
        let lost = NoAnswer::MaybeSent("timeout".into());
        assert_eq!(classify(&read, Err(&lost)), Failed(Trouble::NoAnswer));
    }

    #[test]
    fn the_wait_after_a_concurrency_429_grows_and_ends() {
        assert_eq!(concurrency_wait(1, 0.0), Duration::from_millis(100));
        assert_eq!(concurrency_wait(1, 1.0), Duration::from_millis(300));
        assert_eq!(concurrency_wait(40, 0.5), Duration::from_secs(3));
        assert_eq!(concurrency_wait(u32::MAX, 1.0), Duration::from_millis(4500));
    }
}
