//! Costs of one delivery: attempts, requests, and time spent waiting.

use std::time::Duration;

use crate::domain::bucket::{Bucket, RateHeaders};
use crate::domain::result::RateLimit;

/// The most ids of requests that are kept: enough to find an invocation in the System Log, and little for a model to read.
const REQUEST_IDS_MAX: usize = 10;

/// Costs of one delivery, known also when it failed.
#[derive(Debug, Clone, Default)]
pub(in crate::worker) struct Cost {
    /// Attempts, failed ones included.
    pub attempts: u32,
    /// Requests sent.
    pub okta_calls: u32,
    /// Time spent waiting for the budget.
    pub waited: Duration,
    /// The window of the last bucket asked.
    pub rate_limit: Option<RateLimit>,
    /// Okta's ids of the requests, the latest ones.
    pub okta_request_ids: Vec<String>,
}

impl Cost {
    /// Takes note of an answer: the window that it told of, and Okta's id of the request.
    pub(super) fn remember(
        &mut self,
        bucket: Bucket,
        told: Option<RateHeaders>,
        request_id: Option<&str>,
        is_counted_only: bool,
    ) {
        let window = |rate: RateHeaders| {
            let reset = jiff::Timestamp::from_second(rate.reset).ok()?;
            Some(RateLimit { bucket, limit: rate.limit, remaining: rate.remaining, reset })
        };
        self.rate_limit = told.and_then(window).or(self.rate_limit);
        self.okta_request_ids.extend(request_id.map(str::to_owned));
        let ids_max = if is_counted_only { 1 } else { REQUEST_IDS_MAX };
        if self.okta_request_ids.len() > ids_max {
            self.okta_request_ids.remove(0);
        }
    }
}
