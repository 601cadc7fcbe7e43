//! The output of the demo: a progress bar on a terminal, plain lines elsewhere, and the summary.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::sync::watch;

use crate::domain::bucket::Bucket;
use crate::domain::result::{Effect, Status};
use crate::event::{Event, InvocationEnded, Observer};

/// The shortest wait that a person notices.
const NOTICEABLE: Duration = Duration::from_millis(200);

/// The screen, with the counts for the summary.
pub(super) struct Screen {
    began: Instant,
    window: Duration,
    is_terminal: bool,
    seen: Mutex<DemoCounts>,
    /// The number of messages that the worker has taken and not finished.
    in_hand: watch::Sender<usize>,
    bar: Mutex<ProgressBar>,
}

/// The counts so far.
#[derive(Default)]
struct DemoCounts {
    invocations: u32,
    failed_as_asked: u32,
    effects: BTreeMap<&'static str, u32>,
    requests: u32,
    waits: BTreeMap<Bucket, (u32, Duration)>,
    announced: BTreeMap<Bucket, u32>,
    refused: u32,
}

impl Screen {
    /// Creates an empty screen. `window` is the length of the org's windows.
    pub fn new(window: Duration) -> Self {
        Self {
            began: Instant::now(),
            window,
            is_terminal: std::io::stdout().is_terminal(),
            seen: Mutex::default(),
            in_hand: watch::Sender::new(0),
            bar: Mutex::new(ProgressBar::hidden()),
        }
    }

    /// Prints the introduction.
    pub fn welcome(&self) {
        tell!("okta-worker demo: the real worker, a queue inside this process, a simulated Okta org.");
        tell!(
            "The org has the rate limits of a Workforce org, in windows of {} s in place of 60 s.\n",
            self.window.as_secs()
        );
    }

    /// Begins a part of the demo.
    pub fn begin(&self, part: &'static str, what: &str, steps: usize) {
        self.end();
        if !self.is_terminal {
            return tell!("{part:<13} {what}");
        }
        let style = ProgressStyle::with_template("{prefix:<13} {msg:<58} {bar:24} {pos:>3}/{len}")
            .expect("the template is well-formed");
        let bar = ProgressBar::with_draw_target(Some(steps as u64), ProgressDrawTarget::stdout());
        bar.set_style(style);
        bar.set_prefix(part);
        bar.set_message(what.to_owned());
        *self.bar() = bar;
    }

    /// Counts one step of the part as done.
    pub fn step(&self) {
        self.bar().inc(1);
    }

    /// Ends the part.
    pub fn end(&self) {
        self.bar().finish();
    }

    /// Waits until the worker has finished every message. A caller gets its answer a moment before the worker counts
    /// it, so a summary without this wait could miss the last one.
    pub async fn settled(&self) {
        let mut in_hand = self.in_hand.subscribe();
        in_hand.wait_for(|in_hand| *in_hand == 0).await.expect("the sender is part of the screen");
    }

    /// Prints the summary, and suggestions for further steps.
    pub fn farewell(&self) {
        let seen = self.seen();
        tell!("\ndone in {:.1} s", self.began.elapsed().as_secs_f64());
        let succeeded = seen.invocations - seen.failed_as_asked;
        tell!(
            "  invocations   {}: {succeeded} succeeded, {} answered `not_found` to prove a deletion",
            seen.invocations,
            seen.failed_as_asked
        );
        let effects: Vec<_> =
            seen.effects.iter().map(|(effect, count)| format!("{count} {effect}")).collect();
        tell!("  effects       {}", effects.join(", "));
        tell!("  requests      {} to the simulated Okta", seen.requests);
        for (bucket, (count, longest)) in &seen.waits {
            tell!(
                "  waited        {count} requests for bucket `{bucket}`, {:.1} s at most; other buckets went on",
                longest.as_secs_f64()
            );
        }
        tell!("  429s          {}", seen.refused);
        tell!("\nNext:");
        tell!("  cargo run --release -- sandbox      the same org over HTTP; config/sandbox.toml fits it");
        tell!("  cargo run --release -- --help       every command");
        tell!("  README.md                           your RabbitMQ, your org");
    }

    /// Reports a failure of the demo.
    pub fn failed(&self, why: &str) {
        self.end();
        complain!("\nokta-worker: the demo failed: {why}");
    }

    fn say(&self, line: &str) {
        if self.is_terminal {
            self.bar().println(line);
        } else {
            tell!("{line}");
        }
    }

    fn seen(&self) -> MutexGuard<'_, DemoCounts> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bar(&self) -> MutexGuard<'_, ProgressBar> {
        self.bar.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answered(&self, ending: &InvocationEnded<'_>) {
        let mut seen = self.seen();
        seen.invocations += 1;
        seen.failed_as_asked += u32::from(ending.status == Status::Failed);
        let effect = match ending.effect {
            Effect::None => "reads",
            Effect::Applied => "applied",
            Effect::Unchanged => "unchanged",
            Effect::Unknown => "unknown",
        };
        *seen.effects.entry(effect).or_default() += 1;
    }
}

impl Observer for Screen {
    fn note(&self, event: &Event<'_>) {
        match event {
            Event::Received { .. } => self.in_hand.send_modify(|in_hand| *in_hand += 1),
            Event::Left { .. } => self.in_hand.send_modify(|in_hand| *in_hand -= 1),
            Event::Answered(ending) => self.answered(ending),
            Event::Waited { bucket, waited, .. } if *waited > NOTICEABLE => {
                let mut seen = self.seen();
                let (count, longest) = seen.waits.entry(*bucket).or_default();
                *count += 1;
                *longest = (*longest).max(*waited);
            }
            Event::Requested { bucket, rate, .. } => {
                let mut seen = self.seen();
                seen.requests += 1;
                if let Some(rate) = rate {
                    seen.announced.insert(*bucket, rate.limit);
                }
            }
            Event::RateLimited { .. } => self.seen().refused += 1,
            Event::BucketExhausted { bucket, wait, .. } => {
                let limit = self.seen().announced.get(bucket).copied().unwrap_or_default();
                self.say(&format!(
                    "              bucket `{bucket}` is used up (90 % of {limit} a window are ours): waiting {:.1} s, \
                     the others go on",
                    wait.as_secs_f64()
                ));
            }
            Event::Waited { .. }
            | Event::BucketRecovered { .. }
            | Event::LimitLowered { .. }
            | Event::Retried { .. }
            | Event::Delayed { .. }
            | Event::DelayedForOrder { .. }
            | Event::Backlog { .. }
            | Event::HandedBack { .. }
            | Event::Cancelled { .. }
            | Event::Suspected { .. }
            | Event::Paused { .. }
            | Event::Resumed { .. }
            | Event::Undeliverable { .. }
            | Event::Parked { .. }
            | Event::Stale { .. }
            | Event::Broker { .. }
            | Event::Blocked { .. }
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

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::domain::ids::{ConnectionName, Lane};

    #[test]
    fn a_summary_waits_for_messages_that_are_answered_and_not_yet_counted() {
        let screen = Screen::new(Duration::from_secs(5));
        let (connection, lane) = (&ConnectionName::parse("demo").unwrap(), Lane::Interactive);
        assert!(screen.settled().now_or_never().is_some());
        screen.note(&Event::Received { connection, lane, redelivered: false });
        assert!(screen.settled().now_or_never().is_none());
        screen.note(&Event::Left { connection, lane });
        assert!(screen.settled().now_or_never().is_some());
    }
}
