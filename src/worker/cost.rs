//! Costs of one delivery: attempts, requests, and time spent waiting.

use std::time::Duration;

use crate::domain::bucket::{Bucket, RateHeaders};
use crate::domain::result::RateLimit;

/// The most request ids that are kept: enough to find an invocation in the System Log, and little to read for a model.
const REQUEST_IDS_MAX: usize = 10;

/// Costs of one delivery, known also when it failed.
#[derive(Debug, Clone, Default)]
pub(super) struct DeliveryCost {
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

impl DeliveryCost {
    /// Records the window that an answer announced, and Okta's id of the request.
    pub fn remember(
        &mut self,
        bucket: Bucket,
        announced: Option<RateHeaders>,
        request_id: Option<&str>,
        is_counted_only: bool,
    ) {
        let window = |rate: RateHeaders| {
            let reset = jiff::Timestamp::from_second(rate.reset).ok()?;
            Some(RateLimit { bucket, limit: rate.limit, remaining: rate.remaining, reset })
        };
        self.rate_limit = announced.and_then(window).or(self.rate_limit);
        self.okta_request_ids.extend(request_id.map(str::to_owned));
        let ids_max = if is_counted_only { 1 } else { REQUEST_IDS_MAX };
        if self.okta_request_ids.len() > ids_max {
            self.okta_request_ids.remove(0);
        }
    }
}
