//! What the org counted, window by window: who was let through, and who was refused.

use std::iter::Sum;

use anyhow::Context as _;
use jiff::Timestamp;
use serde::Deserialize;

use super::figures::percent;

/// The bucket of `get_user`.
const BUCKET: &str = "user_read";

/// The number of whoever is measured: its token called first.
const OWN: usize = 0;

#[derive(Deserialize)]
struct Counter {
    bucket: String,
    windows: Vec<Window>,
}

/// One window of the org.
#[derive(Debug, Clone, Deserialize)]
pub struct Window {
    pub opened: Timestamp,
    pub limit: u32,
    clients: Vec<Tally>,
}

/// What was sent in a window.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
pub struct Tally {
    pub accepted: u32,
    pub refused: u32,
    pub refused_concurrent: u32,
}

impl Tally {
    /// All of it.
    pub fn offered(self) -> u32 {
        self.accepted + self.refused + self.refused_concurrent
    }
}

impl Sum for Tally {
    fn sum<I: Iterator<Item = Self>>(tallies: I) -> Self {
        tallies.fold(Self::default(), |sum, tally| Self {
            accepted: sum.accepted + tally.accepted,
            refused: sum.refused + tally.refused,
            refused_concurrent: sum.refused_concurrent + tally.refused_concurrent,
        })
    }
}

impl Window {
    /// What the measured workers sent.
    pub fn own(&self) -> Tally {
        self.clients.get(OWN).copied().unwrap_or_default()
    }

    /// What everybody else sent.
    pub fn others(&self) -> Tally {
        self.clients.iter().skip(OWN + 1).copied().sum()
    }

    /// How much was let through of what the others did not ask for. More than 100 took their part.
    pub fn use_percent(&self) -> f64 {
        percent(self.own().accepted, f64::from(self.limit) - f64::from(self.others().offered()))
    }
}

/// All windows of the bucket so far, the one that is open too.
pub async fn look(http: &reqwest::Client, base_url: &str) -> anyhow::Result<Vec<Window>> {
    let answer = http.get(format!("{base_url}/sandbox/counters")).send().await?.error_for_status()?;
    let counters: Vec<Counter> = serde_json::from_slice(&answer.bytes().await?)?;
    let bucket = counters.into_iter().find(|counter| counter.bucket == BUCKET);
    Ok(bucket.with_context(|| format!("the org has no bucket `{BUCKET}`"))?.windows)
}
