//! What a window goes by: the share of it that is ours, and what the end of a request says of it.

use std::time::{Duration, Instant};

use crate::domain::bucket::RateHeaders;
use crate::domain::http::{NoAnswer, Response};
use crate::policy::classify::{Limit, Meaning, Trouble};

use super::constants::SAME_WINDOW_SECONDS;

/// How the window of a bucket is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Percent of the announced limit that is ours; we stop while the rest is still left.
    pub capacity_percent: u8,
    /// The length of a window.
    pub length: Duration,
}

/// What became of one request, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heard {
    /// What it says about the window.
    pub told: Told,
    /// When the request was sent, not earlier.
    pub sent: Instant,
    /// When the answer came, or the hope of one ended.
    pub at: Instant,
}

/// What the end of a request says about the bucket's window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// What is left of it.
    Rate(RateHeaders),
    /// A 429 about this window, with its headers when it has them.
    Spent(Option<RateHeaders>),
    /// Okta answered without headers, or with malformed ones.
    Nothing,
    /// No answer of Okta's came: it may have counted the request.
    Lost,
    /// A 429 about too many requests at once: Okta has not counted it in the window.
    Crowded,
    /// Okta surely has not counted the request: it was not sent.
    Uncounted,
}

/// Returns how far apart the resets of one window of this length may be, in seconds.
pub fn tolerance(length: Duration) -> i64 {
    let fifth = i64::try_from(length.as_secs() / 5).unwrap_or(i64::MAX);
    (SAME_WINDOW_SECONDS - 1).min(fifth.saturating_sub(1)).max(0)
}

/// Returns the requests that a new window holds. Even of a limit of nothing one request finds out whether it still is.
pub(super) fn whole(limit: u32) -> u32 {
    limit.max(1)
}

/// Returns the requests that are left to the org's other clients; never a whole window, or nothing would ever go.
pub(super) fn floor(limit: u32, capacity_percent: u8) -> u32 {
    let left = u64::from(limit) * u64::from(100 - capacity_percent.min(100));
    u32::try_from(left.div_ceil(100)).unwrap_or(limit).min(limit.saturating_sub(1))
}

/// Returns the observation that the budget makes of an answer: its meaning, and its headers where they speak of the window.
pub fn told(answer: &Result<Response, NoAnswer>, meaning: Meaning) -> Told {
    let window = rate_of(answer, meaning).filter(|rate| !rate.is_concurrency());
    match (meaning, window) {
        (Meaning::Limited(Limit::Window), window) => Told::Spent(window),
        (Meaning::Limited(Limit::Concurrency), _) => Told::Crowded,
        (Meaning::Failed(Trouble::NotSent | Trouble::Local), _) => Told::Uncounted,
        (_, Some(window)) => Told::Rate(window),
        (Meaning::Said, None) => Told::Nothing,
        // A page of something in front of Okta says nothing of how Okta's own answers are.
        (Meaning::Failed(_), None) => Told::Lost,
    }
}

/// Returns the rate-limit headers of an answer; headers of an answer that is not Okta's mean nothing.
pub fn rate_of(answer: &Result<Response, NoAnswer>, meaning: Meaning) -> Option<RateHeaders> {
    match meaning {
        Meaning::Failed(Trouble::NotOkta) => None,
        Meaning::Said | Meaning::Limited(_) | Meaning::Failed(_) => {
            RateHeaders::read(&answer.as_ref().ok()?.headers)
        }
    }
}
