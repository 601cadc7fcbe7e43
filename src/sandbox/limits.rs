//! Rate limits: one window per bucket, and the number of requests in flight.
//!
//! A window opens with the first request after the last one ended and lasts its whole length, so windows are aligned
//! neither to each other nor to the clock. A refused request is not counted; a failed one is.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use jiff::Timestamp;
use serde::Serialize;

use crate::domain::bucket::Bucket;

use super::history::{PastWindow, TrafficHistory};
use super::settings::OrgSettings;

/// The distances of the reset of a concurrency 429: 111, 127 and 140 s were recorded in one second, although slots
/// were free again at once.
const CONCURRENCY_RESETS: [i64; 3] = [111, 127, 140];

const LIMIT: HeaderName = HeaderName::from_static("x-rate-limit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-rate-limit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-rate-limit-reset");

/// Token requests per window, as seen on a developer's org.
const TOKENS: u32 = 150;

/// The counts of one bucket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BucketCounter {
    /// The name of the bucket, as in labels.
    pub bucket: &'static str,
    /// Requests per window.
    pub limit: u32,
    /// Requests accepted, failed ones included.
    pub accepted: u64,
    /// Requests refused because the window was spent.
    pub refused: u64,
    /// Requests refused because too many were in flight.
    pub refused_concurrent: u64,
    /// The most requests accepted in one window.
    pub accepted_max: u32,
    /// The last windows, oldest first.
    pub windows: Vec<PastWindow>,
}

/// The values of the three rate-limit headers of one answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RateValues {
    limit: u32,
    remaining: u32,
    reset: i64,
}

impl RateValues {
    pub(super) fn write(self, headers: &mut HeaderMap) {
        headers.insert(LIMIT, HeaderValue::from(self.limit));
        headers.insert(REMAINING, HeaderValue::from(self.remaining));
        headers.insert(RESET, HeaderValue::from(self.reset));
    }
}

/// A bucket's window and its counts.
#[derive(Debug)]
struct SimulatedWindow {
    limit: u32,
    opened: Option<Timestamp>,
    used: u32,
    accepted: u64,
    refused: u64,
    refused_concurrent: u64,
    accepted_max: u32,
    history: TrafficHistory,
}

/// All buckets of the org.
#[derive(Debug)]
pub(super) struct Limits {
    length: Duration,
    windows: [SimulatedWindow; Bucket::ALL.len()],
    /// Token requests, which are counted separately.
    tokens: SimulatedWindow,
    lies: usize,
}

impl SimulatedWindow {
    fn of(limit: u32) -> Self {
        Self {
            limit,
            opened: None,
            used: 0,
            accepted: 0,
            refused: 0,
            refused_concurrent: 0,
            accepted_max: 0,
            history: TrafficHistory::default(),
        }
    }

    /// Counts a client's request, or refuses it if the window of this length is spent.
    fn take(&mut self, length: Duration, client: usize, now: Timestamp) -> Result<RateValues, RateValues> {
        let opened = match self.opened {
            Some(opened) if now.duration_since(opened).unsigned_abs() < length => opened,
            Some(_) | None => {
                self.used = 0;
                now
            }
        };
        // Whole seconds: a client that trusts only the header may come up to a second too early.
        let seconds = i64::try_from(length.as_secs_f64().ceil() as u64).unwrap_or(i64::MAX);
        let reset = opened.as_second().saturating_add(seconds);
        if self.used >= self.limit {
            self.refused += 1;
            self.history.note(client, |tally| tally.refused += 1);
            return Err(RateValues { limit: self.limit, remaining: 0, reset });
        }
        if self.used == 0 {
            self.history.open(opened, self.limit);
        }
        self.history.note(client, |tally| tally.accepted += 1);
        self.opened = Some(opened);
        self.used += 1;
        self.accepted += 1;
        self.accepted_max = self.accepted_max.max(self.used);
        Ok(RateValues { limit: self.limit, remaining: self.limit - self.used, reset })
    }
}

impl Limits {
    pub(super) fn new(settings: &OrgSettings) -> Self {
        let windows = Bucket::ALL.map(|bucket| SimulatedWindow::of(settings.limit(bucket)));
        Self { length: settings.window, windows, tokens: SimulatedWindow::of(TOKENS), lies: 0 }
    }

    /// Counts a client's request, or refuses it if the window of its bucket is spent.
    pub(super) fn take(
        &mut self,
        bucket: Bucket,
        client: usize,
        now: Timestamp,
    ) -> Result<RateValues, RateValues> {
        self.windows[position(bucket)].take(self.length, client, now)
    }

    /// Counts a token request of any client, or refuses it.
    pub(super) fn take_token(&mut self, now: Timestamp) -> Result<RateValues, RateValues> {
        self.tokens.take(self.length, 0, now)
    }

    /// Refuses a client's request because too many are in flight: limit and remaining are 0 and the reset is wrong.
    pub(super) fn crowded(&mut self, bucket: Bucket, client: usize, now: Timestamp) -> RateValues {
        let window = &mut self.windows[position(bucket)];
        window.refused_concurrent += 1;
        window.history.note(client, |tally| tally.refused_concurrent += 1);
        self.crowd(now)
    }

    /// Returns the same rate for a request that belongs to no bucket.
    pub(super) fn crowd(&mut self, now: Timestamp) -> RateValues {
        self.lies += 1;
        let ahead = CONCURRENCY_RESETS[self.lies % CONCURRENCY_RESETS.len()];
        RateValues { limit: 0, remaining: 0, reset: now.as_second() + ahead }
    }

    pub(super) fn counters(&self) -> Vec<BucketCounter> {
        Bucket::ALL
            .into_iter()
            .zip(&self.windows)
            .map(|(bucket, window)| BucketCounter {
                bucket: bucket.as_str(),
                limit: window.limit,
                accepted: window.accepted,
                refused: window.refused,
                refused_concurrent: window.refused_concurrent,
                accepted_max: window.accepted_max,
                windows: window.history.windows(),
            })
            .collect()
    }
}

fn position(bucket: Bucket) -> usize {
    Bucket::ALL.iter().position(|known| *known == bucket).expect("every bucket is among all of them")
}
