//! The log on stderr: one line per invocation, plus the events that an operator must see.
//!
//! An observer that writes. Texts chosen by callers (ids, reasons, traces) are made single-line and truncated,
//! because a log is read line by line; no login, e-mail, token or body is written above debug.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::sync::OnceLock;
use std::time::Duration;

use serde::Deserialize;
use tracing::{Level, Metadata, Subscriber, debug, enabled, error, info, warn};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;

use crate::domain::ids::{ConnectionName, Lane};
use crate::domain::result::ErrorCode;
use crate::domain::text::is_deceptive;
use crate::event::{Event, InvocationEnded, Observer};

use super::log_queue::LogQueue;

/// The longest id, name or trace written, in characters; UUIDs and W3C traces have less than half of that.
const NAME_CHARS_MAX: usize = 128;

/// The longest `reason` written, in characters: the contract's limit.
const REASON_CHARS_MAX: usize = 1024;

/// The most Okta request ids written per invocation. A long list sends hundreds of requests; Okta's support asks
/// about the last ones.
const REQUEST_IDS_MAX: usize = 16;

/// The default log filter.
const FILTER: &str = "info";

/// The libraries that may log, and up to which level, whatever the filter asks for. Libraries know nothing of
/// secrets: lapin warns of a returned message with its body, at `info` and `error` it prints AMQP methods, and
/// rmcp prints notifications and errors of its peers. The supervisor and the server report those events in their
/// own words. A library that is not listed here is silent.
const FOREIGN: [(&str, Level); 5] = [
    ("axum", Level::WARN),
    ("hyper", Level::WARN),
    ("hyper_util", Level::WARN),
    ("reqwest", Level::WARN),
    ("rustls", Level::WARN),
];

/// The environment variables that hold a filter; the first one set wins.
const FILTER_VARIABLES: [&str; 2] = ["OKTA_WORKER_LOG", "RUST_LOG"];

/// The format of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object per line, its fields at the top.
    Json,
    /// For people.
    Text,
}

/// The colouring of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colour {
    /// Coloured, for a terminal.
    Ansi,
    /// Uncoloured, for a file or a collector, or because the user asked for that.
    Plain,
}

/// The time a flush waits for the reader of the log.
const FLUSH_MAX: Duration = Duration::from_secs(1);

/// The queue of this process's log, once it is set up.
static QUEUE: OnceLock<LogQueue> = OnceLock::new();

/// Sends the log of this process to stderr, filtered by `OKTA_WORKER_LOG` or `RUST_LOG`. Logging never waits for the
/// reader of the log: lines go through a queue, and [`flush`] empties it.
///
/// # Errors
/// If the filter cannot be parsed, or a log was set up before.
pub fn init(format: LogFormat) -> Result<(), String> {
    // https://no-color.org: set and not empty, whatever the value.
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let colour = if std::io::stderr().is_terminal() && !refused { Colour::Ansi } else { Colour::Plain };
    let filter = filter()?;
    let queue = LogQueue::start(std::io::stderr(), tell_of_dropped)
        .map_err(|error| format!("failed to set up the log: {error}"))?;
    tracing::subscriber::set_global_default(subscriber(format, colour, filter, queue.clone()))
        .map_err(|_| "failed to set up the log: it was set up before".to_owned())?;
    QUEUE.get_or_init(|| queue);
    Ok(())
}

/// Waits until the log is written, for at most a second.
pub fn flush() {
    if let Some(queue) = QUEUE.get() {
        queue.flush(FLUSH_MAX);
    }
}

/// Returns the number of lines dropped because they were not read in time or could not be written.
pub fn lines_dropped() -> u64 {
    QUEUE.get().map_or(0, LogQueue::dropped)
}

fn tell_of_dropped(lines: u64) {
    warn!(
        lines,
        "{lines} lines of the log were dropped: they were not read in time, or could not be written"
    );
}

/// Returns the filter set in the environment, or the default one.
fn filter() -> Result<EnvFilter, String> {
    let asked = FILTER_VARIABLES
        .into_iter()
        .find_map(|name| Some((name, std::env::var(name).ok().filter(|text| !text.trim().is_empty())?)));
    match asked {
        Some((name, text)) => EnvFilter::try_new(text)
            .map_err(|error| format!("failed to read the log filter `{name}`: {error}")),
        None => Ok(EnvFilter::new(FILTER)),
    }
}

/// Returns a subscriber that writes in this format to any writer; timestamps are RFC 3339 in UTC.
pub fn subscriber<W>(
    format: LogFormat,
    colour: Colour,
    filter: EnvFilter,
    writer: W,
) -> Box<dyn Subscriber + Send + Sync>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(colour == Colour::Ansi)
        // tracing reports a line that cannot be written, as on a full disk, with `eprintln!`, which panics there.
        .log_internal_errors(false)
        .with_writer(writer);
    let ceiling = filter_fn(may_speak);
    match format {
        LogFormat::Json => {
            let lines = lines.json().flatten_event(true).with_current_span(false).with_span_list(false);
            Box::new(lines.finish().with(ceiling))
        }
        LogFormat::Text => Box::new(lines.finish().with(ceiling)),
    }
}

/// Returns true if a line may be written at all, whatever the filter asks for.
fn may_speak(line: &Metadata<'_>) -> bool {
    let library = line.target().split("::").next().unwrap_or_default();
    let is_own = library == env!("CARGO_CRATE_NAME");
    is_own || FOREIGN.iter().any(|(name, most)| *name == library && line.level() <= most)
}

/// The observer that writes lines.
#[derive(Debug, Default)]
pub struct Log;

impl Log {
    /// Creates a log observer.
    pub fn new() -> Self {
        Self
    }

    fn write(event: &Event<'_>) {
        match *event {
            Event::Answered(ref ending) => {
                if enabled!(Level::INFO) {
                    answered(ending);
                }
            }
            Event::BucketExhausted { connection, bucket, wait } => {
                if enabled!(Level::INFO) {
                    let wait_ms = millis(wait);
                    info!(
                        connection = connection.as_str(),
                        bucket = bucket.as_str(),
                        wait_ms,
                        "the budget of `{bucket}` on `{connection}` is used up for {wait_ms} ms"
                    );
                }
            }
            Event::BucketRecovered { connection, bucket } => info!(
                connection = connection.as_str(),
                bucket = bucket.as_str(),
                "the budget of `{bucket}` on `{connection}` has something left again"
            ),
            Event::LimitLowered { connection, bucket, from, to } => warn!(
                connection = connection.as_str(),
                bucket = bucket.as_str(),
                from,
                to,
                "okta lowered the limit of `{bucket}` on `{connection}` from {from} to {to}"
            ),
            Event::RateLimited { connection, bucket, kind } => warn!(
                connection = connection.as_str(),
                bucket = bucket.as_str(),
                kind = kind.as_str(),
                "okta answered 429 ({}) for `{bucket}` on `{connection}`",
                kind.as_str()
            ),
            Event::Retried { connection, reason, attempt, wait } => warn!(
                connection = connection.as_str(),
                reason = reason.as_str(),
                attempt,
                wait_ms = millis(wait),
                "attempt {attempt} on `{connection}` failed ({}) and will be repeated",
                reason.as_str()
            ),
            Event::Paused { connection, reason, why } => error!(
                connection = connection.as_str(),
                reason = reason.as_str(),
                "`{connection}` is paused: {} ({}); bulk messages wait in their queue until a probe gets through",
                reason.in_words(),
                text(why, REASON_CHARS_MAX)
            ),
            Event::Resumed { connection, reason } => info!(
                connection = connection.as_str(),
                reason = reason.as_str(),
                "`{connection}` goes on, it was paused because {}",
                reason.in_words()
            ),
            Event::HandedBack { connection, lane, id } => {
                let id = name(id);
                debug!(
                    id = &*id,
                    connection = connection.as_str(),
                    lane = lane.as_str(),
                    "gave `{id}` back to its queue"
                );
            }
            Event::Cancelled { connection, lane, id } => {
                let id = name(id);
                info!(
                    id = &*id,
                    connection = connection.as_str(),
                    lane = lane.as_str(),
                    "dropped `{id}`, which its caller has cancelled"
                );
            }
            Event::Suspected { connection, lane, id, redeliveries } => {
                let id = name(id);
                warn!(
                    id = &*id,
                    connection = connection.as_str(),
                    lane = lane.as_str(),
                    redeliveries,
                    "`{id}` was delivered {redeliveries} times before without an end, and runs alone"
                );
            }
            Event::Undeliverable { id, connection } => {
                let id = name(id);
                warn!(
                    id = &*id,
                    connection = connection.map(ConnectionName::as_str),
                    "the result of `{id}` found no reply queue and went to `okta.results`"
                );
            }
            Event::Parked { id, connection, reason } => {
                let id = name(id);
                error!(
                    id = &*id,
                    connection = connection.map(ConnectionName::as_str),
                    reason = reason.as_str(),
                    "`{id}` was parked in `okta.dead` ({})",
                    reason.as_str()
                );
            }
            Event::Deduplicated { connection, lane, id, subtool, caller, status } => {
                let id = name(id);
                info!(
                    id = &*id,
                    connection = connection.as_str(),
                    lane = lane.as_str(),
                    subtool,
                    caller = caller.map(name).as_deref(),
                    status = status.as_str(),
                    "answered `{id}` with the result of the same invocation before: nothing was run"
                );
            }
            Event::NotParked { id, connection, caller, reason } => {
                let id = name(id);
                error!(
                    id = &*id,
                    connection = connection.map(ConnectionName::as_str),
                    caller = caller.map(name).as_deref(),
                    reason = reason.as_str(),
                    "`{id}` was not parked in `okta.dead` ({}) and is gone: its caller has parked too much",
                    reason.as_str()
                );
            }
            Event::Stale { id } => {
                let id = name(id);
                warn!(id = &*id, "`{id}` came by a connection that is gone; the broker delivers it again");
            }
            Event::Broker { connected: true, why } => {
                info!("connected to the broker: {}", text(why, REASON_CHARS_MAX))
            }
            Event::Broker { connected: false, why: crate::event::STOPPING } => {
                info!("left the broker: stopping")
            }
            Event::Broker { connected: false, why } => {
                warn!("lost the broker: {}", text(why, REASON_CHARS_MAX))
            }
            Event::Blocked { blocked: true, why } => {
                warn!("the broker takes no messages, so results wait: {}", text(why, REASON_CHARS_MAX))
            }
            Event::Blocked { blocked: false, why } => {
                info!("the broker takes messages again: {}", text(why, REASON_CHARS_MAX))
            }
            Event::Unserved { connection, why } => error!(
                connection = connection.as_str(),
                "`{connection}` is not served: {}",
                text(why, REASON_CHARS_MAX)
            ),
            Event::Policy { queue, what } => warn!(
                "RabbitMQ may lose or refuse messages of `{}`: {}",
                name(queue),
                text(what, REASON_CHARS_MAX)
            ),
            Event::QueueDeleted { queue, in_hand, waiting } => error!(
                in_hand,
                waiting,
                "the queue `{}` was deleted: the {in_hand} messages in hand are finished and answered, the {waiting} \
                 that waited there when they were last counted are lost",
                name(queue)
            ),
            Event::Uncounted { connection, why } => warn!(
                connection = connection.as_str(),
                "the workers of `{connection}` cannot be counted by their presence queue, so what they tell each other \
                 must do: {}",
                text(why, REASON_CHARS_MAX)
            ),
            Event::Removed { connection } => warn!(
                connection = connection.as_str(),
                "no worker serves `{connection}` any more: what is in its queues is answered `unknown_connection`"
            ),
            Event::SignalsRefused { why } => warn!(
                "workers cannot tell each other what is left of a window, so their number must do: {}",
                text(why, REASON_CHARS_MAX)
            ),
            Event::Requested { connection, bucket, method, http_status, took, rate: _ } => debug!(
                connection = connection.as_str(),
                bucket = bucket.as_str(),
                method = method.as_str(),
                http_status,
                took_ms = millis(took),
                "asked `{bucket}` on `{connection}`"
            ),
            Event::Delayed { connection, lane, bucket, wait } => debug!(
                connection = connection.as_str(),
                lane = lane.as_str(),
                bucket = bucket.as_str(),
                wait_ms = millis(wait),
                "put a message for `{bucket}` on `{connection}` aside for {} ms",
                millis(wait)
            ),
            Event::DelayedForOrder { connection, lane, id, wait } => debug!(
                connection = connection.as_str(),
                lane = lane.as_str(),
                id = &*name(id),
                wait_ms = millis(wait),
                "put `{}` on `{connection}` aside for {} ms behind others of its subject",
                name(id),
                millis(wait)
            ),
            // The metrics count these; a line for each would add nothing to the `answered` line.
            Event::Received { .. } | Event::Left { .. } | Event::Waited { .. } | Event::Backlog { .. } => {}
        }
    }
}

impl Observer for Log {
    fn note(&self, event: &Event<'_>) {
        Self::write(event);
    }
}

/// Writes the line of one invocation.
fn answered(ending: &InvocationEnded<'_>) {
    let id = name(ending.id);
    let subtool = ending.subtool.unwrap_or("-");
    let status = ending.status.as_str();
    let okta_request_ids = joined(ending.okta_request_ids);
    info!(
        id = &*id,
        connection = ending.connection.map(ConnectionName::as_str),
        lane = ending.lane.map(Lane::as_str),
        subtool = ending.subtool,
        caller = ending.caller.map(name).as_deref(),
        status,
        effect = ending.effect.as_str(),
        error = ending.error.map(ErrorCode::as_str),
        path = ending.path.map(|path| free_text(path, NAME_CHARS_MAX)).as_deref(),
        okta_error_code = ending.okta_error_code.map(name).as_deref(),
        attempts = ending.attempts,
        okta_calls = ending.okta_calls,
        waited_ms = millis(ending.waited),
        took_ms = millis(ending.took),
        okta_request_ids = okta_request_ids.as_deref(),
        reason = ending.reason.map(|reason| free_text(reason, REASON_CHARS_MAX)).as_deref(),
        traceparent = ending.traceparent.map(name).as_deref(),
        "answered `{id}`: {subtool} {status}"
    );
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// Returns an external name in a form that is safe in a log line.
fn name(raw: &str) -> Cow<'_, str> {
    text(raw, NAME_CHARS_MAX)
}

/// Returns text that callers wrote for people (`path` may end in an argument name they made up), with e-mail
/// addresses and logins masked: every word that holds an `@`.
fn free_text(raw: &str, chars_max: usize) -> Cow<'_, str> {
    if !raw.contains('@') {
        return text(raw, chars_max);
    }
    let mut struck = String::with_capacity(raw.len());
    for word in raw.split_inclusive(char::is_whitespace) {
        if word.contains('@') {
            struck.push_str("***");
            struck.extend(word.chars().last().filter(|c| c.is_whitespace()));
        } else {
            struck.push_str(word);
        }
    }
    Cow::Owned(text(&struck, chars_max).into_owned())
}

/// Returns a text as one line of limited length; borrowed if it already is.
fn text(raw: &str, chars_max: usize) -> Cow<'_, str> {
    // A text has at most as many characters as bytes, so the usual short one is not counted.
    let short = raw.len() <= chars_max;
    if short && !raw.chars().any(is_deceptive) {
        return Cow::Borrowed(raw);
    }
    let mut line = String::with_capacity(raw.len().min(chars_max) + '…'.len_utf8());
    let mut chars = raw.chars();
    for c in chars.by_ref().take(chars_max) {
        if is_deceptive(c) {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    if chars.next().is_some() {
        line.push('…');
    }
    Cow::Owned(line)
}

/// Joins ids with commas; `None` if there are none.
fn joined(ids: &[String]) -> Option<String> {
    let earlier = ids.len().saturating_sub(REQUEST_IDS_MAX);
    let mut ids = ids[earlier..].iter().map(|id| name(id));
    let mut line = match earlier {
        0 => ids.next()?.into_owned(),
        _ => format!("({earlier} earlier)"),
    };
    for id in ids {
        // Writing to a string cannot fail.
        let _ = write!(line, ",{id}");
    }
    Some(line)
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use serde_json::Value;

    use super::*;
    use crate::domain::bucket::Bucket;
    use crate::domain::result::{Effect, Status};
    use crate::event::{LimitKind, ParkReason};

    /// A shared buffer that a subscriber writes to.
    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Returns the log output for these events.
    fn written(format: LogFormat, filter: &str, events: &[Event<'_>]) -> String {
        let written = Written::default();
        let writer = written.clone();
        let lines = subscriber(format, Colour::Plain, EnvFilter::new(filter), move || writer.clone());
        tracing::subscriber::with_default(lines, || {
            events.iter().for_each(Log::write);
        });
        let bytes = written.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    /// Emits the same message at every level.
    macro_rules! for_all_levels {
        ($target:literal, $text:literal) => {
            tracing::error!(target: $target, $text);
            tracing::warn!(target: $target, $text);
            tracing::info!(target: $target, $text);
            tracing::debug!(target: $target, $text);
            tracing::trace!(target: $target, $text);
        };
    }

    #[test]
    fn no_filter_lets_a_library_say_more_than_it_may() {
        let filters = [
            "error",
            "warn",
            "info",
            "debug",
            "trace",
            "lapin=trace",
            "lapin=error,info",
            "trace,lapin=trace,rmcp=trace",
            "off,lapin=trace",
            "lapin::returned_messages=trace",
            "[span]=trace",
            "[span{field=1}]=trace",
            "lapin[span{field=1}]=trace",
            "okta_worker::x[span]=trace,lapin=trace",
            "l=trace,la=trace,=trace",
        ];
        for filter in filters {
            let written = Written::default();
            let writer = written.clone();
            let Ok(filter) = EnvFilter::try_new(filter) else { continue };
            let lines = subscriber(LogFormat::Text, Colour::Plain, filter, move || writer.clone());
            tracing::subscriber::with_default(lines, || {
                let _ours = tracing::trace_span!(target: "okta_worker::x", "span", field = 1).entered();
                let _theirs =
                    tracing::error_span!(target: "lapin", "span", field = 1, body = "a password").entered();
                for_all_levels!("lapin", "a password");
                for_all_levels!("lapin::returned_messages", "a password");
                for_all_levels!("rmcp::service", "a password");
                for_all_levels!("async_rs", "a password");
                for_all_levels!("okta_worker_of_somebody_else", "a password");
                for_all_levels!("somebody::okta_worker", "a password");
                tracing::info!(target: "hyper::client", "a password");
                tracing::debug!(target: "rustls", "a password");
                tracing::trace!(target: "reqwest", "a password");
            });
            let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
            assert_eq!(text, "");
        }
    }

    #[test]
    fn ours_are_heard_as_the_filter_says_and_warnings_of_some_libraries() {
        let heard = |filter: &str| {
            let written = Written::default();
            let writer = written.clone();
            let lines =
                subscriber(LogFormat::Text, Colour::Plain, EnvFilter::new(filter), move || writer.clone());
            tracing::subscriber::with_default(lines, || {
                tracing::trace!(target: "okta_worker::edge", "trace");
                tracing::info!(target: "okta_worker", "info");
                tracing::warn!(target: "hyper::client", "hyper");
                tracing::error!(target: "rustls", "rustls");
            });
            let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
            text.lines().map(|line| line.rsplit(": ").next().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(heard(FILTER), ["info", "hyper", "rustls"]);
        assert_eq!(heard("okta_worker=trace"), ["trace", "info"]);
        assert_eq!(heard("error"), ["rustls"]);
    }

    fn json(events: &[Event<'_>]) -> Vec<Value> {
        let text = written(LogFormat::Json, FILTER, events);
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn prod() -> ConnectionName {
        ConnectionName::parse("prod").unwrap()
    }

    /// Returns an ending with only the required fields set.
    fn bare(id: &str) -> InvocationEnded<'_> {
        InvocationEnded {
            id,
            connection: None,
            lane: None,
            subtool: None,
            caller: None,
            reason: None,
            traceparent: None,
            status: Status::Failed,
            effect: Effect::None,
            error: Some(ErrorCode::InvalidMessage),
            path: None,
            okta_error_code: None,
            okta_request_ids: &[],
            attempts: 0,
            okta_calls: 0,
            waited: Duration::ZERO,
            took: Duration::from_millis(3),
        }
    }

    fn without_time_and_target(mut line: Value) -> Value {
        let fields = line.as_object_mut().unwrap();
        let time = fields.remove("timestamp").unwrap();
        assert!(time.as_str().unwrap().parse::<jiff::Timestamp>().is_ok(), "{time} is not RFC 3339");
        assert_eq!(fields.remove("target").unwrap(), "okta_worker::telemetry::log");
        line
    }

    #[test]
    fn an_invocation_is_one_line_with_everything_known() {
        let prod = prod();
        let ids = ["req1".to_owned(), "req2".to_owned()];
        let ending = InvocationEnded {
            connection: Some(&prod),
            lane: Some(Lane::Interactive),
            subtool: Some("get_user"),
            caller: Some("helpdesk"),
            reason: Some("TICKET-7"),
            traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
            error: Some(ErrorCode::NotFound),
            path: Some("arguments.user_id"),
            okta_error_code: Some("E0000007"),
            okta_request_ids: &ids,
            attempts: 1,
            okta_calls: 2,
            waited: Duration::from_millis(20),
            ..bare("7d0c")
        };
        let lines = json(&[Event::Answered(ending)]);
        assert_eq!(lines.len(), 1);
        assert_eq!(
            without_time_and_target(lines[0].clone()),
            serde_json::json!({
                "level": "INFO", "message": "answered `7d0c`: get_user failed",
                "id": "7d0c", "connection": "prod", "lane": "interactive", "subtool": "get_user",
                "caller": "helpdesk", "status": "failed", "effect": "none", "error": "not_found",
                "path": "arguments.user_id", "okta_error_code": "E0000007", "attempts": 1, "okta_calls": 2,
                "waited_ms": 20, "took_ms": 3, "okta_request_ids": "req1,req2", "reason": "TICKET-7",
                "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            })
        );
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        let lines = json(&[Event::Answered(bare("7d0c"))]);
        assert_eq!(
            without_time_and_target(lines[0].clone()),
            serde_json::json!({
                "level": "INFO", "message": "answered `7d0c`: - failed", "id": "7d0c", "status": "failed",
                "effect": "none", "error": "invalid_message", "attempts": 0, "okta_calls": 0,
                "waited_ms": 0, "took_ms": 3,
            })
        );
    }

    #[test]
    fn texts_of_callers_stay_on_their_line_and_forge_nothing() {
        let forged = "7d0c\n{\"level\":\"ERROR\"}\r\u{1b}[31m\u{2028}\u{202e}\0";
        let ending = InvocationEnded {
            caller: Some(forged),
            reason: Some(forged),
            traceparent: Some(forged),
            path: Some(forged),
            okta_error_code: Some(forged),
            ..bare(forged)
        };
        let events = [
            Event::Answered(ending),
            Event::Stale { id: forged },
            Event::Parked { id: forged, connection: None, reason: ParkReason::Unreadable },
            Event::Undeliverable { id: forged, connection: None },
            Event::Broker { connected: false, why: forged },
            Event::SignalsRefused { why: forged },
        ];
        for format in [LogFormat::Json, LogFormat::Text] {
            let text = written(format, FILTER, &events);
            assert_eq!(text.lines().count(), events.len(), "{text}");
            assert!(!text.trim_end().replace('\n', "").chars().any(is_deceptive), "{text}");
        }
    }

    #[test]
    fn addresses_in_reason_and_path_are_struck_out() {
        let ending = InvocationEnded {
            reason: Some("HR-12: jane@example.com\tleaves, cc <bo@example.com>"),
            path: Some("arguments.jane@example.com"),
            ..bare("7d0c")
        };
        let line = &json(&[Event::Answered(ending)])[0];
        assert_eq!(line["reason"], "HR-12: ***\\tleaves, cc ***");
        assert_eq!(line["path"], "***");
    }

    #[test]
    fn ids_are_cut_at_128_characters() {
        let exact = "é".repeat(NAME_CHARS_MAX);
        assert_eq!(name(&exact), exact);
        assert_eq!(name(&format!("{exact}é")), format!("{exact}…"));
        assert!(matches!(name("7d0c"), Cow::Borrowed("7d0c")));
    }

    #[test]
    fn only_the_last_request_ids_of_a_long_list_are_written() {
        let ids: Vec<_> = (1..=18).map(|id| id.to_string()).collect();
        assert_eq!(joined(&[]), None);
        assert_eq!(joined(&ids[..2]).unwrap(), "1,2");
        assert_eq!(joined(&ids).unwrap(), "(2 earlier),3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18");
    }

    #[test]
    fn each_event_has_its_level() {
        let prod = prod();
        let (connection, bucket) = (&prod, Bucket::Users);
        let reason = crate::event::FailureKind::Gateway;
        let events = [
            Event::Received { connection, lane: Lane::Bulk, redelivered: false },
            Event::BucketExhausted { connection, bucket, wait: Duration::from_secs(9) },
            Event::BucketRecovered { connection, bucket },
            Event::LimitLowered { connection, bucket, from: 600, to: 300 },
            Event::RateLimited { connection, bucket, kind: LimitKind::Concurrency },
            Event::RateLimited { connection, bucket, kind: LimitKind::Window },
            Event::Retried { connection, reason, attempt: 2, wait: Duration::from_secs(1) },
            Event::Delayed { connection, lane: Lane::Bulk, bucket, wait: Duration::from_secs(15) },
            Event::DelayedForOrder { connection, lane: Lane::Bulk, id: "7d0c", wait: Duration::from_secs(1) },
            Event::Backlog { connection, lane: Lane::Bulk, ready: 5, delayed: 2, oldest: None },
            Event::Answered(bare("7d0c")),
            Event::Undeliverable { id: "7d0c", connection: None },
            Event::Parked { id: "7d0c", connection: Some(&prod), reason: ParkReason::CrashLoop },
            Event::Stale { id: "7d0c" },
            Event::Broker { connected: true, why: "everything is consumed" },
            Event::Broker { connected: false, why: "reset by peer" },
            Event::SignalsRefused { why: "access refused" },
            Event::Uncounted { connection, why: "its node is down" },
            Event::Policy { queue: "q", what: "a policy" },
            Event::QueueDeleted { queue: "q", in_hand: 2, waiting: 3 },
        ];
        let told: Vec<_> = json(&events)
            .iter()
            .map(|line| format!("{} {}", line["level"].as_str().unwrap(), line["message"].as_str().unwrap()))
            .collect();
        assert_eq!(
            told,
            [
                "INFO the budget of `users` on `prod` is used up for 9000 ms",
                "INFO the budget of `users` on `prod` has something left again",
                "WARN okta lowered the limit of `users` on `prod` from 600 to 300",
                "WARN okta answered 429 (concurrency) for `users` on `prod`",
                "WARN okta answered 429 (window) for `users` on `prod`",
                "WARN attempt 2 on `prod` failed (gateway) and will be repeated",
                "INFO answered `7d0c`: - failed",
                "WARN the result of `7d0c` found no reply queue and went to `okta.results`",
                "ERROR `7d0c` was parked in `okta.dead` (crash_loop)",
                "WARN `7d0c` came by a connection that is gone; the broker delivers it again",
                "INFO connected to the broker: everything is consumed",
                "WARN lost the broker: reset by peer",
                "WARN workers cannot tell each other what is left of a window, so their number must do: access refused",
                "WARN the workers of `prod` cannot be counted by their presence queue, so what they tell each other must \
                 do: its node is down",
                "WARN RabbitMQ may lose or refuse messages of `q`: a policy",
                "ERROR the queue `q` was deleted: the 2 messages in hand are finished and answered, the 3 that waited \
                 there when they were last counted are lost",
            ]
        );
    }

    #[test]
    fn a_level_that_is_off_writes_nothing() {
        assert_eq!(written(LogFormat::Json, "error", &[Event::Answered(bare("7d0c"))]), "");
    }
}
