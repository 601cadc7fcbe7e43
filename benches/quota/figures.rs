//! What the windows of a run say about a controller.

use anyhow::Context as _;
use jiff::Timestamp;

use super::plan::WINDOW;
use super::windows::{Tally, Window};

/// From a moment to a later one.
#[derive(Debug, Clone, Copy)]
pub struct Span {
    pub from: Timestamp,
    pub until: Timestamp,
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
        self.windows.iter().map(Window::own).sum()
    }

    pub fn others(&self) -> Tally {
        self.windows.iter().map(Window::others).sum()
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

/// A part in percent of what may be nothing, or less.
pub fn percent(part: u32, whole: f64) -> f64 {
    100.0 * f64::from(part) / whole.max(1.0)
}
