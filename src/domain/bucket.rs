//! Okta's rate-limit buckets: the bucket that counts a request, and the rate-limit headers of an answer.

use std::fmt;

use http::{HeaderMap, Method};
use jiff::Timestamp;

/// A group of endpoints that share one rate limit.
///
/// The table is Okta's last published one ("Rate limits", before 2025-12-16), confirmed by shared reset
/// times and falling `remaining` values in recordings. Method and route template decide, not the filled
/// path: a login in the path must not create a bucket of its own.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, strum::IntoStaticStr, strum::EnumCount,
)]
#[strum(serialize_all = "snake_case")]
pub enum Bucket {
    /// `/api/v1/users` and everything under `/api/v1/users/{id}/`.
    Users,
    /// GET `/api/v1/users/{id}`.
    UserRead,
    /// POST, PUT and DELETE `/api/v1/users/{id}`.
    UserWrite,
    /// `/api/v1/groups` and everything under `/api/v1/groups/{id}/`.
    Groups,
    /// `/api/v1/groups/{id}`.
    Group,
    /// `/api/v1/apps` and everything under `/api/v1/apps/{id}/`.
    Apps,
    /// `/api/v1/apps/{id}`.
    App,
    /// `/api/v1/logs`.
    Logs,
    /// Anything else below `/api/v1`.
    Other,
}

impl Bucket {
    /// Every bucket, in the order of the tables.
    pub const ALL: [Self; <Self as strum::EnumCount>::COUNT] = [
        Self::Users,
        Self::UserRead,
        Self::UserWrite,
        Self::Groups,
        Self::Group,
        Self::Apps,
        Self::App,
        Self::Logs,
        Self::Other,
    ];

    /// Returns the bucket that counts a request with this method and route (or path).
    pub fn of(method: &Method, route: &str) -> Self {
        let mut parts = route.trim_start_matches("/api/v1/").trim_end_matches('/').split('/');
        let (collection, id, below) = (parts.next(), parts.next(), parts.next());
        match (collection, id, below) {
            (Some("users"), Some(_), None) if *method == Method::GET => Self::UserRead,
            (Some("users"), Some(_), None) => Self::UserWrite,
            (Some("users"), _, _) => Self::Users,
            (Some("groups"), Some(_), None) => Self::Group,
            (Some("groups"), _, _) => Self::Groups,
            (Some("apps"), Some(_), None) => Self::App,
            (Some("apps"), _, _) => Self::Apps,
            (Some("logs"), None, None) => Self::Logs,
            _ => Self::Other,
        }
    }

    /// Returns the name of the bucket in labels, results and `sandbox --limit`.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// Returns the bucket with this name, if there is one.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|bucket| bucket.as_str() == text)
    }
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A bucket's rate-limit window as announced by the headers of one answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateHeaders {
    /// `X-Rate-Limit-Limit`: requests per window; 0 on a 429 about concurrent requests.
    pub limit: u32,
    /// `X-Rate-Limit-Remaining`: requests left in the window.
    pub remaining: u32,
    /// `X-Rate-Limit-Reset`: when the window ends, in whole seconds since 1970.
    pub reset: i64,
    /// `Date` of the same response, in whole seconds: the clock that `reset` refers to.
    pub date: Option<Timestamp>,
}

impl RateHeaders {
    /// Reads the three headers; `None` if one is missing or not a number.
    ///
    /// If a header is repeated, the smallest value counts, as in Okta's Python SDK (repeated
    /// `X-Rate-Limit-Reset` was seen on 429s, okta-sdk-java issue 259).
    pub fn read(headers: &HeaderMap) -> Option<Self> {
        let least = |name: &str| -> Option<i64> {
            headers.get_all(name).iter().filter_map(|value| value.to_str().ok()?.trim().parse().ok()).min()
        };
        Some(Self {
            limit: u32::try_from(least("x-rate-limit-limit")?).ok()?,
            remaining: u32::try_from(least("x-rate-limit-remaining")?).ok()?,
            reset: least("x-rate-limit-reset").filter(|reset| *reset >= 0)?,
            date: date(headers),
        })
    }

    /// Returns true if a 429 with these headers is about concurrent requests, not about a spent window: limit
    /// and remaining are then both 0, and the reset is wrong by minutes (okta-sdk-python issue 270).
    pub fn is_concurrency(&self) -> bool {
        self.limit == 0 && self.remaining == 0
    }
}

/// Parses the `Date` header of a response.
pub fn date(headers: &HeaderMap) -> Option<Timestamp> {
    let text = headers.get(http::header::DATE)?.to_str().ok()?;
    jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn method_and_route_decide_the_bucket() {
        let rows = [
            ("GET", "/api/v1/users", Bucket::Users),
            ("POST", "/api/v1/users", Bucket::Users),
            ("GET", "/api/v1/users/{userId}", Bucket::UserRead),
            ("POST", "/api/v1/users/{userId}", Bucket::UserWrite),
            ("DELETE", "/api/v1/users/{userId}", Bucket::UserWrite),
            ("POST", "/api/v1/users/{userId}/lifecycle/suspend", Bucket::Users),
            ("GET", "/api/v1/users/{userId}/appLinks", Bucket::Users),
            ("GET", "/api/v1/groups", Bucket::Groups),
            ("PUT", "/api/v1/groups/{groupId}/users/{userId}", Bucket::Groups),
            ("DELETE", "/api/v1/groups/{groupId}", Bucket::Group),
            ("GET", "/api/v1/apps/{appId}/users", Bucket::Apps),
            ("GET", "/api/v1/apps/{appId}", Bucket::App),
            ("GET", "/api/v1/logs", Bucket::Logs),
            ("GET", "/api/v1/policies", Bucket::Other),
        ];
        for (method, route, bucket) in rows {
            assert_eq!(Bucket::of(&method.parse().unwrap(), route), bucket, "{method} {route}");
        }
    }

    #[test]
    fn the_smallest_of_repeated_resets_counts() {
        let mut headers = HeaderMap::new();
        headers.append("x-rate-limit-limit", "600".parse().unwrap());
        headers.append("x-rate-limit-remaining", "0".parse().unwrap());
        headers.append("x-rate-limit-reset", "1700000060".parse().unwrap());
        headers.append("x-rate-limit-reset", "1700000030".parse().unwrap());
        headers.append("date", "Tue, 14 Nov 2023 22:13:20 GMT".parse().unwrap());
        let read = RateHeaders::read(&headers).unwrap();
        assert_eq!(read.reset, 1_700_000_030);
        assert_eq!(read.date.unwrap().as_second(), 1_700_000_000);
    }

    #[test]
    fn malformed_headers_are_no_headers() {
        let mut headers = HeaderMap::new();
        for name in ["x-rate-limit-limit", "x-rate-limit-remaining", "x-rate-limit-reset"] {
            headers.insert(http::HeaderName::from_static(name), "-1".parse().unwrap());
        }
        assert_eq!(RateHeaders::read(&headers), None);
    }
}
