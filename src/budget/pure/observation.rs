//! Input of a bucket's window: the share that is ours, and the information from finished requests.

use std::time::{Duration, Instant};

use crate::domain::bucket::RateHeaders;
use crate::domain::http::{NoAnswer, Response};
use crate::policy::classify::{FailureKind, LimitKind, Meaning};

use super::constants::SAME_WINDOW_SECONDS;

/// The share of a bucket's window that is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuotaShare {
    /// The percentage of the announced limit up to which we use a window; the rest is left to other clients.
    pub capacity_percent: u8,
    /// The length of a window.
    pub length: Duration,
}

/// The outcome of one request, and its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Observed {
    /// The information about the window.
    pub told: Observation,
    /// The earliest time at which the request was sent.
    pub sent: Instant,
    /// The time of the answer, or of giving up on one.
    pub at: Instant,
}

/// The rate-limit headers of an answer, with its times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateAnswer {
    /// The headers.
    pub rate: RateHeaders,
    /// The earliest time at which the request was sent.
    pub sent: Instant,
    /// The time of the answer.
    pub at: Instant,
}

/// The information about the bucket's window from a finished request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Observation {
    /// The requests left in the window.
    Rate(RateHeaders),
    /// A 429 about this window, with its headers if it has them.
    Spent(Option<RateHeaders>),
    /// Okta answered without headers, or with malformed ones.
    Nothing,
    /// No answer of Okta's came; it may have counted the request.
    Lost,
    /// A 429 about concurrent requests: Okta has not counted the request in the window.
    Crowded,
    /// The request was not sent, so Okta has not counted it.
    Uncounted,
}

/// Returns the largest difference between resets of one window of this length, in seconds.
pub fn tolerance(length: Duration) -> i64 {
    let fifth = i64::try_from(length.as_secs() / 5).unwrap_or(i64::MAX);
    (SAME_WINDOW_SECONDS - 1).min(fifth.saturating_sub(1)).max(0)
}

/// Returns the number of requests in a new window: at least one, even for a limit of 0, to find out whether that limit
/// still applies.
pub(super) fn whole(limit: u32) -> u32 {
    limit.max(1)
}

/// Returns the number of requests left to the org's other clients: less than a whole window, or the worker could never
/// send one.
pub(super) fn floor(limit: u32, capacity_percent: u8) -> u32 {
    let left = u64::from(limit) * u64::from(100 - capacity_percent.min(100));
    u32::try_from(left.div_ceil(100)).unwrap_or(limit).min(limit.saturating_sub(1))
}

/// Returns the information about the window in an answer: its meaning, and its headers if they are about the window.
pub fn told(rate: Option<RateHeaders>, meaning: Meaning) -> Observation {
    let window = rate.filter(|rate| !rate.is_concurrency());
    match (meaning, window) {
        (Meaning::Limited(LimitKind::Window), window) => Observation::Spent(window),
        (Meaning::Limited(LimitKind::Concurrency), _) => Observation::Crowded,
        (Meaning::Failed(FailureKind::NotSent | FailureKind::Local), _) => Observation::Uncounted,
        (_, Some(window)) => Observation::Rate(window),
        (Meaning::Answered | Meaning::Refused(_) | Meaning::Failed(FailureKind::Lag), None) => {
            Observation::Nothing
        }
        // An intermediary's page says nothing about the headers of Okta's own answers.
        (Meaning::Failed(_), None) => Observation::Lost,
    }
}

/// Returns the rate-limit headers of an answer; `None` if the answer is not Okta's.
pub fn rate_of(answer: &Result<Response, NoAnswer>, meaning: Meaning) -> Option<RateHeaders> {
    match meaning {
        Meaning::Failed(FailureKind::NotOkta) => None,
        Meaning::Answered | Meaning::Refused(_) | Meaning::Limited(_) | Meaning::Failed(_) => {
            RateHeaders::read(&answer.as_ref().ok()?.headers)
        }
    }
}
