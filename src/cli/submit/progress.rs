//! Progress of a running job: a bar on a terminal, otherwise a line now and then, all on standard error.

use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use jiff::Timestamp;
use tokio::time::Instant;

use crate::domain::text::json_escaped;
use crate::event::{Event, Observer};

use super::eta::{Outlook, words};
use super::results::{Answered, RowCounts};

/// The interval of progress lines when there is no terminal: a log is read later.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// The progress display of a job.
pub(super) struct ProgressDisplay {
    output: ProgressOutput,
    rows: u64,
    eta: Outlook,
    began: Instant,
    said: Instant,
}

/// A printer of lines that leaves the bar intact.
#[derive(Clone)]
pub(super) struct ProgressOutput(ProgressBar);

impl ProgressOutput {
    /// Prints a line about the job.
    pub fn say(&self, line: &str) {
        if self.0.is_hidden() {
            complain!("submit: {line}");
        } else {
            self.0.println(json_escaped(line));
        }
    }
}

impl ProgressDisplay {
    /// Creates the display of a job with this many rows.
    pub fn new(rows: u64, eta: Outlook) -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        let target = if is_terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let is_plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let bar = if is_plain { "{bar:28}" } else { "{bar:28.green}" };
        let style = ProgressStyle::with_template(&format!("{bar} {{pos}}/{{len}} {{msg}}"))
            .expect("the template is well-formed");
        let now = Instant::now();
        let bar = ProgressBar::with_draw_target(Some(rows), target).with_style(style);
        Self { output: ProgressOutput(bar), rows, eta, began: now, said: now }
    }

    /// Returns a printer for other parts of the program.
    pub fn output(&self) -> ProgressOutput {
        self.output.clone()
    }

    /// Records the result of a row.
    pub fn note(&mut self, answered: &Answered) {
        self.eta.note(answered);
    }

    /// Shows the progress of the job.
    pub fn show(&mut self, tally: &RowCounts) {
        let ProgressOutput(bar) = &self.output;
        if bar.is_hidden() && self.said.elapsed() < LINE_EVERY {
            return;
        }
        let elapsed = self.began.elapsed();
        let rate = self.eta.rate(elapsed).map(|rate| format!("{rate:.1} rows/s"));
        let left = self.eta.left(self.rows.saturating_sub(tally.rows), Timestamp::now(), elapsed);
        let left = left.filter(|left| !left.is_zero()).map(|left| format!("about {} left", words(left)));
        let counts = Some(tally.words()).filter(|counts| !counts.is_empty());
        let parts: Vec<_> = [rate, left, counts].into_iter().flatten().collect();
        if bar.is_hidden() {
            self.said = Instant::now();
            self.output.say(&format!("{} of {} rows, {}", tally.rows, self.rows, parts.join(", ")));
        } else {
            bar.set_message(parts.join(", "));
            bar.set_position(tally.rows);
        }
    }

    /// Removes the bar when the job ends.
    pub fn end(&self) {
        self.output.0.finish_and_clear();
    }

    /// Returns the time since the job began.
    pub fn took(&self) -> Duration {
        self.began.elapsed()
    }
}

/// Reports what delays a job.
impl Observer for ProgressOutput {
    fn note(&self, event: &Event<'_>) {
        match event {
            Event::Broker { connected: false, why } => {
                self.say(&format!("lost the broker ({why}), trying again"));
            }
            Event::Broker { connected: true, .. } => self.say("the broker is there again"),
            Event::Blocked { blocked: true, why } => {
                self.say(&format!("the broker takes nothing now ({why})"))
            }
            Event::Blocked { blocked: false, .. } => self.say("the broker takes messages again"),
            Event::Paused { connection, reason, why } => {
                self.say(&format!("connection `{connection}` is paused: {} ({why})", reason.in_words()));
            }
            Event::Resumed { connection, .. } => self.say(&format!("connection `{connection}` goes on")),
            Event::Received { .. }
            | Event::Left { .. }
            | Event::Waited { .. }
            | Event::Requested { .. }
            | Event::RateLimited { .. }
            | Event::BucketExhausted { .. }
            | Event::BucketRecovered { .. }
            | Event::LimitLowered { .. }
            | Event::Retried { .. }
            | Event::Delayed { .. }
            | Event::DelayedForOrder { .. }
            | Event::Backlog { .. }
            | Event::HandedBack { .. }
            | Event::Cancelled { .. }
            | Event::Suspected { .. }
            | Event::Answered(_)
            | Event::Undeliverable { .. }
            | Event::Parked { .. }
            | Event::Stale { .. }
            | Event::Unserved { .. }
            | Event::Policy { .. }
            | Event::QueueDeleted { .. }
            | Event::Uncounted { .. }
            | Event::Deduplicated { .. }
            | Event::NotParked { .. }
            | Event::Removed { .. }
            | Event::SignalsRefused { .. } => {}
        }
    }
}
