//! The tape of a story: one short line per event, with the virtual time since the beginning.

use std::fmt::Write as _;
use std::sync::Mutex;

use okta_worker::event::{Event, InvocationEnded, Observer};
use tokio::time::Instant;

/// Everything that happened and was not read yet.
pub struct Tape {
    begun: Instant,
    lines: Mutex<String>,
}

impl Tape {
    /// An empty tape; time is counted from now.
    pub fn new() -> Self {
        Self { begun: Instant::now(), lines: Mutex::default() }
    }

    /// Takes what is on it.
    pub fn read(&self) -> String {
        std::mem::take(&mut *self.lines.lock().unwrap()).trim_end().to_owned()
    }
}

impl Observer for Tape {
    fn note(&self, event: &Event<'_>) {
        if let Some(line) = line(event) {
            let at = self.begun.elapsed().as_secs_f64();
            writeln!(self.lines.lock().unwrap(), "+{at:.3}s {line}").unwrap();
        }
    }
}

/// The event in a line; `None` where another event of the same moment says it.
fn line(event: &Event<'_>) -> Option<String> {
    Some(match event {
        Event::Received { connection, lane, redelivered } => {
            let again = if *redelivered { " again" } else { "" };
            format!("{connection} {lane} received{again}")
        }
        Event::Left { .. } | Event::Backlog { .. } => return None,
        Event::Waited { waited, .. } if waited.is_zero() => return None,
        Event::Waited { connection, bucket, lane, waited, .. } => {
            format!("{connection} {bucket} {lane} waited {:.3}s", waited.as_secs_f64())
        }
        Event::Requested { connection, bucket, method, http_status, .. } => {
            let status = http_status.map_or_else(|| "no answer".to_owned(), |status| status.to_string());
            format!("{connection} {bucket} asked {method}: {status}")
        }
        Event::RateLimited { connection, bucket, kind } => {
            format!("{connection} {bucket} limited: {}", kind.as_str())
        }
        Event::BucketExhausted { connection, bucket, wait } => {
            format!("{connection} {bucket} exhausted for {:.3}s", wait.as_secs_f64())
        }
        Event::BucketRecovered { connection, bucket } => format!("{connection} {bucket} recovered"),
        Event::LimitLowered { connection, bucket, from, to } => {
            format!("{connection} {bucket} lowered from {from} to {to}")
        }
        Event::Retried { connection, reason, attempt, wait } => {
            let (reason, wait) = (reason.as_str(), wait.as_secs_f64());
            format!("{connection} attempt {attempt} failed: {reason}, next in {wait:.3}s")
        }
        Event::DelayedForOrder { connection, lane, id, wait } => {
            format!("{connection} {lane} {id} put behind others for {}s", wait.as_secs())
        }
        Event::Delayed { connection, lane, bucket, wait } => {
            format!("{connection} {bucket} {lane} put aside for {}s", wait.as_secs())
        }
        Event::Answered(ending) => ended(ending),
        Event::Undeliverable { id, .. } => format!("{id} undeliverable"),
        Event::Parked { id, reason, .. } => format!("{id} parked: {}", reason.as_str()),
        Event::NotParked { id, reason, .. } => format!("{id} not parked: {}", reason.as_str()),
        Event::Deduplicated { id, status, .. } => format!("{id} deduplicated: {}", status.as_str()),
        Event::HandedBack { id, .. } => format!("{id} handed back"),
        Event::Cancelled { id, .. } => format!("{id} cancelled"),
        Event::Suspected { id, redeliveries, .. } => {
            format!("{id} runs alone after {redeliveries} redeliveries")
        }
        Event::Paused { connection, reason, .. } => format!("{connection} paused: {}", reason.as_str()),
        Event::Resumed { connection, reason } => format!("{connection} resumed: {}", reason.as_str()),
        Event::Stale { id } => format!("{id} stale"),
        Event::Broker { connected, why } => format!("broker connected={connected}: {why}"),
        Event::Blocked { blocked, why } => format!("blocked: {blocked}: {why}"),
        Event::Removed { connection } => format!("{connection} removed"),
        Event::Unserved { why, .. } => format!("not served: {why}"),
        Event::Policy { queue, what } => format!("policy on {queue}: {what}"),
        Event::QueueDeleted { queue, in_hand, waiting } => {
            format!("{queue} deleted, {in_hand} in hand, {waiting} waiting")
        }
        Event::Uncounted { why, .. } => format!("not counted: {why}"),
        Event::SignalsRefused { why } => format!("signals refused: {why}"),
    })
}

fn ended(ending: &InvocationEnded<'_>) -> String {
    let InvocationEnded { id, subtool, status, effect, error, attempts, okta_calls, .. } = ending;
    let subtool = subtool.unwrap_or("-");
    let (status, effect) = (status.as_str(), effect.as_str());
    let error = error.map_or_else(String::new, |code| format!(" {}", code.as_str()));
    format!("{id} {subtool} {status}{error}, effect {effect}, attempts {attempts}, calls {okta_calls}")
}
