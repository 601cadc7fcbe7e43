//! What the org counted, window by window, and what that says about a controller.

use std::time::Duration;

use anyhow::Context as _;
use jiff::Timestamp;
use serde::Deserialize;

use super::plan::WINDOW;

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

    fn plus(self, other: Self) -> Self {
        Self {
            accepted: self.accepted + other.accepted,
            refused: self.refused + other.refused,
            refused_concurrent: self.refused_concurrent + other.refused_concurrent,
        }
    }
}

impl Window {
    /// What the measured workers sent.
    pub fn own(&self) -> Tally {
        self.clients.get(OWN).copied().unwrap_or_default()
    }

    /// What everybody else sent.
    pub fn others(&self) -> Tally {
        self.clients.iter().skip(OWN + 1).fold(Tally::default(), |sum, tally| sum.plus(*tally))
    }

    /// How much was let through of what the others did not ask for. More than 100 took their part.
    pub fn use_percent(&self) -> f64 {
        percent(self.own().accepted, f64::from(self.limit) - f64::from(self.others().offered()))
    }
}

fn percent(part: u32, whole: f64) -> f64 {
    100.0 * f64::from(part) / whole.max(1.0)
}

/// From a moment to a later one.
#[derive(Debug, Clone, Copy)]
pub struct Span {
    pub from: Timestamp,
    pub until: Timestamp,
}

/// All windows of the bucket so far, the one that is open too.
pub async fn windows(http: &reqwest::Client, base_url: &str) -> anyhow::Result<Vec<Window>> {
    let answer = http.get(format!("{base_url}/sandbox/counters")).send().await?.error_for_status()?;
    let counters: Vec<Counter> = serde_json::from_slice(&answer.bytes().await?)?;
    let bucket = counters.into_iter().find(|counter| counter.bucket == BUCKET);
    Ok(bucket.with_context(|| format!("the org has no bucket `{BUCKET}`"))?.windows)
}

/// The windows of a run.
#[derive(Debug, Clone)]
pub struct Figures {
    /// Those before the measured ones.
    pub warm_up: Vec<Window>,
    /// The measured ones, of which all figures are.
    pub windows: Vec<Window>,
    /// From the opening of the first to the opening of the one after the last.
    pub span: Span,
}

impl Figures {
    /// What so many windows of a warm-up and all after them say, without the last, which is not over.
    pub fn of(mut all: Vec<Window>, warm_up: usize) -> anyhow::Result<Self> {
        let next = all.pop().context("no window has opened")?;
        let windows = all.split_off(warm_up.min(all.len()));
        let from = windows.first().context("no window is over")?.opened;
        Ok(Self { warm_up: all, windows, span: Span { from, until: next.opened } })
    }

    /// How much of each window was used, on average.
    pub fn use_mean(&self) -> f64 {
        self.windows.iter().map(Window::use_percent).sum::<f64>() / self.windows.len() as f64
    }

    /// How much of the window that was used least.
    pub fn use_min(&self) -> f64 {
        self.windows.iter().map(Window::use_percent).fold(f64::INFINITY, f64::min)
    }

    /// How much of what the time was good for: a moment in which no window is open is lost.
    pub fn use_of_time(&self) -> f64 {
        let length = self.span.until.duration_since(self.span.from).as_secs_f64() / WINDOW.as_secs_f64();
        let limit = self.windows.iter().map(|window| window.limit).max().unwrap_or(0);
        percent(self.own().accepted, f64::from(limit) * length - f64::from(self.others().offered()))
    }

    pub fn own(&self) -> Tally {
        self.windows.iter().fold(Tally::default(), |sum, window| sum.plus(window.own()))
    }

    pub fn others(&self) -> Tally {
        self.windows.iter().fold(Tally::default(), |sum, window| sum.plus(window.others()))
    }

    /// Refusals of ours in 1,000 requests of ours, because the window was spent.
    pub fn refused_per_1000(&self) -> f64 {
        per_1000(self.own().refused, self.own())
    }

    /// The same, because too many were in flight.
    pub fn crowded_per_1000(&self) -> f64 {
        per_1000(self.own().refused_concurrent, self.own())
    }

    /// Refusals of the others in 1,000 requests of theirs, of either kind; none, where there are no others.
    pub fn others_refused_per_1000(&self) -> Option<f64> {
        let others = self.others();
        (others.offered() > 0).then(|| per_1000(others.refused + others.refused_concurrent, others))
    }
}

fn per_1000(part: u32, of: Tally) -> f64 {
    10.0 * percent(part, f64::from(of.offered()))
}

/// How long callers waited, the shortest first.
#[derive(Debug, Clone, Default)]
pub struct Waits(Vec<Duration>);

impl Waits {
    pub fn of(mut waits: Vec<Duration>) -> Self {
        waits.sort_unstable();
        Self(waits)
    }

    /// The wait that so many percent did not exceed: the nearest rank.
    pub fn percentile(&self, percent: usize) -> Option<Duration> {
        let rank = (self.0.len() * percent).div_ceil(100);
        self.0.get(rank.checked_sub(1)?).copied()
    }

    pub fn max(&self) -> Option<Duration> {
        self.0.last().copied()
    }
}
