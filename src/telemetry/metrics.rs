//! Prometheus metrics: the families of the contract, counted from events.
//!
//! Knows no HTTP and makes no requests: an observer that counts. Every label value comes from a closed set or is
//! the name of a configured connection; an absent one is `-`. No login, e-mail or id is ever a label.

mod families;
mod series;

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::{Method, StatusCode};
use jiff::Timestamp;
use prometheus::process_collector::ProcessCollector;
use prometheus::{
    Encoder, GaugeVec, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder, proto,
};
use tokio::time::Instant;

use super::log;
use crate::domain::bucket::RateHeaders;
use crate::domain::ids::{ConnectionName, Lane};
use crate::domain::result::ErrorCode;
use crate::event::{Event, InvocationEnded, Observer};

use families::{
    ABSENT, Families, INVOCATION_SECONDS, REQUEST_SECONDS, THROTTLE_SECONDS, WELL_FORMED, method_label, opts,
};

/// The gauge whose value decreases over time.
const RESET_SECONDS: &str = "okta_worker_rate_limit_reset_seconds";

/// The gauge whose value increases over time.
const OLDEST_SECONDS: &str = "okta_worker_oldest_seconds";

/// The counters, gauges and histograms, on a registry of their own.
///
/// The order of labels below matters. The `prometheus` crate identifies a series by a hash of the concatenated
/// values, without separators: with the connection first, `deactivate_user` on `acme` would be counted as
/// `activate_user` on `acmede`. So the connection, the only free text, has to its left sets in which no value is a
/// prefix of another, and to its right sets in which no value is a suffix of another.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    started: Instant,
    invocations: IntCounterVec,
    invocation_duration: HistogramVec,
    throttle_wait: HistogramVec,
    requests: IntCounterVec,
    request_duration: HistogramVec,
    limit: IntGaugeVec,
    remaining: IntGaugeVec,
    /// The end of the window, in seconds since `started`; each scrape computes the time left.
    window_end: GaugeVec,
    rate_limited: IntCounterVec,
    retries: IntCounterVec,
    put_aside: IntCounterVec,
    in_flight: IntGaugeVec,
    backlog: IntGaugeVec,
    delayed: IntGaugeVec,
    /// The send time of the oldest message, in seconds since `started`; each scrape computes its age.
    oldest_sent: GaugeVec,
    parked: IntCounterVec,
    not_parked: IntCounterVec,
    deduplicated: IntCounterVec,
    redelivered: IntCounterVec,
    paused: IntGaugeVec,
    broker_connected: IntGauge,
    broker_blocked: IntGauge,
    configuration_refused: IntGauge,
    /// The connections that were removed: what ends late for them brings no gauge back.
    removed: Mutex<HashSet<ConnectionName>>,
    /// Lines that the log dropped, as of the last scrape.
    log_lines_dropped: Mutex<IntCounter>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Registers all families, with those without labels at zero.
    pub fn new() -> Self {
        let registry = Registry::new();
        let families = Families(&registry);
        registry.register(Box::new(ProcessCollector::for_self())).expect("nothing else is named process_*");
        families
            .gauges("build_info", "Always 1; the label is the version that runs.", &["version"])
            .with_label_values(&[env!("CARGO_PKG_VERSION")])
            .set(1);
        Self {
            started: Instant::now(),
            invocations: families.counters(
                "invocations_total",
                "Invocations answered.",
                &["subtool", "connection", "status", "effect", "error"],
            ),
            invocation_duration: families.histograms(
                "invocation_duration_seconds",
                "From the first receipt to settlement.",
                &["connection", "lane"],
                INVOCATION_SECONDS,
            ),
            throttle_wait: families.histograms(
                "throttle_wait_seconds",
                "Waiting for Okta's budget before one request, delays of its message included.",
                &["connection", "bucket", "lane"],
                THROTTLE_SECONDS,
            ),
            requests: families.counters(
                "okta_requests_total",
                "Requests sent to Okta; http_status is none when no answer came.",
                &["connection", "bucket", "method", "http_status"],
            ),
            request_duration: families.histograms(
                "okta_request_duration_seconds",
                "From sending a request to the whole answer.",
                &["connection", "bucket"],
                REQUEST_SECONDS,
            ),
            limit: families.gauges(
                "rate_limit_limit",
                "Requests per window, as Okta said last.",
                &["connection", "bucket"],
            ),
            remaining: families.gauges(
                "rate_limit_remaining",
                "Requests left in the window, as Okta said last.",
                &["connection", "bucket"],
            ),
            window_end: families.add(
                GaugeVec::new(
                    Opts::new(RESET_SECONDS, "Seconds until the window ends; 0 when it has."),
                    &["connection", "bucket"],
                )
                .expect(WELL_FORMED),
            ),
            rate_limited: families.counters(
                "rate_limited_total",
                "Answers 429; 0 is the goal.",
                &["connection", "bucket", "kind"],
            ),
            retries: families.counters(
                "retries_total",
                "Failed requests that are sent again.",
                &["connection", "reason"],
            ),
            put_aside: families.counters(
                "put_aside_total",
                "Messages that wait for their bucket in a delay tier, each time they do.",
                &["connection", "bucket"],
            ),
            in_flight: families.gauges(
                "in_flight",
                "Invocations being worked on, waiting ones included.",
                &["connection", "lane"],
            ),
            backlog: families.gauges(
                "backlog",
                "Messages in the lane's queue, and those that this worker has delayed.",
                &["connection", "lane"],
            ),
            delayed: families.gauges(
                "delayed",
                "Messages of the lane that this worker has delayed and that are not back.",
                &["connection", "lane"],
            ),
            oldest_sent: families.add(
                GaugeVec::new(
                    Opts::new(
                        OLDEST_SECONDS,
                        "About how old the lane's oldest message is; 0 when there is none.",
                    ),
                    &["connection", "lane"],
                )
                .expect(WELL_FORMED),
            ),
            parked: families.counters(
                "parked_total",
                "Messages parked in okta.dead.",
                &["connection", "reason"],
            ),
            not_parked: families.counters(
                "not_parked_total",
                "Messages dropped in place of being parked: their caller has parked too much.",
                &["connection", "reason"],
            ),
            deduplicated: families.counters(
                "deduplicated_total",
                "Invocations answered with the result of the same one before; nothing was run.",
                &["connection"],
            ),
            redelivered: families.counters(
                "redelivered_total",
                "Messages the broker had delivered before.",
                &["connection"],
            ),
            paused: families.gauges(
                "connection_paused",
                "1 while the connection is paused for this reason.",
                &["connection", "reason"],
            ),
            broker_connected: families.add(
                IntGauge::with_opts(opts(
                    "broker_connected",
                    "1 while the broker is reached and everything is consumed.",
                ))
                .expect(WELL_FORMED),
            ),
            broker_blocked: families.add(
                IntGauge::with_opts(opts(
                    "broker_blocked",
                    "1 while the broker takes no messages, being short of memory or disk.",
                ))
                .expect(WELL_FORMED),
            ),
            configuration_refused: families.add(
                IntGauge::with_opts(opts(
                    "configuration_refused",
                    "1 while the configuration on disk is refused and an earlier one is in force.",
                ))
                .expect(WELL_FORMED),
            ),
            removed: Mutex::default(),
            log_lines_dropped: Mutex::new(
                families.add(
                    IntCounter::with_opts(opts(
                        "log_lines_dropped_total",
                        "Lines of the log that were not read in time or could not be written.",
                    ))
                    .expect(WELL_FORMED),
                ),
            ),
            registry,
        }
    }

    /// Shows whether the configuration on disk is refused.
    pub fn configuration_is_refused(&self, is_refused: bool) {
        self.configuration_refused.set(i64::from(is_refused));
    }

    /// Renders every family in Prometheus' text format 0.0.4.
    pub fn render(&self) -> String {
        self.render_at(Instant::now())
    }

    /// Copies the log's own count, because the log is set up before anything else and cannot depend on metrics.
    fn count_dropped_lines(&self, total: u64) {
        let counted = self.log_lines_dropped.lock().unwrap_or_else(PoisonError::into_inner);
        counted.inc_by(total.saturating_sub(counted.get()));
    }

    fn render_at(&self, now: Instant) -> String {
        self.count_dropped_lines(log::lines_dropped());
        let mut families = self.registry.gather();
        let since_start = self.seconds(now);
        for family in &mut families {
            let sign = match family.name() {
                RESET_SECONDS => 1.0,
                OLDEST_SECONDS => -1.0,
                _ => continue,
            };
            for metric in family.mut_metric() {
                let mut gauge = proto::Gauge::default();
                gauge.set_value((sign * (metric.get_gauge().get_value() - since_start)).max(0.0));
                metric.set_gauge(gauge);
            }
        }
        let mut text = Vec::new();
        TextEncoder::new().encode(&families, &mut text).expect("a vector takes whatever is written");
        String::from_utf8(text).expect("the text format is UTF-8")
    }

    fn note_at(&self, event: &Event<'_>, now: Instant) {
        match *event {
            Event::Received { connection, lane, redelivered } => {
                self.in_flight.with_label_values(&[connection.as_str(), lane.as_str()]).inc();
                if redelivered {
                    self.redelivered.with_label_values(&[connection.as_str()]).inc();
                }
            }
            Event::Left { connection, lane } => {
                self.in_flight.with_label_values(&[connection.as_str(), lane.as_str()]).dec();
            }
            Event::Waited { connection, bucket, lane, waited, before } => self
                .throttle_wait
                .with_label_values(&[connection.as_str(), bucket.as_str(), lane.as_str()])
                .observe((waited + before).as_secs_f64()),
            Event::Requested { connection, bucket, method, http_status, took, rate } => {
                let labels = [connection.as_str(), bucket.as_str()];
                self.count_request(labels, method, http_status, took);
                if let Some(rate) = rate.filter(|rate| !rate.is_concurrency() && !self.is_removed(connection))
                {
                    self.tell_window(labels, rate, now);
                }
            }
            Event::RateLimited { connection, bucket, kind } => self
                .rate_limited
                .with_label_values(&[connection.as_str(), bucket.as_str(), kind.as_str()])
                .inc(),
            Event::Retried { connection, reason, .. } => {
                self.retries.with_label_values(&[connection.as_str(), reason.as_str()]).inc();
            }
            Event::Delayed { connection, bucket, .. } => {
                self.put_aside.with_label_values(&[connection.as_str(), bucket.as_str()]).inc();
            }
            Event::Paused { connection, reason, .. } if !self.is_removed(connection) => {
                self.paused.with_label_values(&[connection.as_str(), reason.as_str()]).set(1);
            }
            Event::Resumed { connection, reason } if !self.is_removed(connection) => {
                self.paused.with_label_values(&[connection.as_str(), reason.as_str()]).set(0);
            }
            Event::Answered(ref ending) => self.count_ending(ending),
            Event::Parked { connection, reason, .. } => {
                self.parked.with_label_values(&[named(connection), reason.as_str()]).inc();
            }
            Event::NotParked { connection, reason, .. } => {
                self.not_parked.with_label_values(&[named(connection), reason.as_str()]).inc();
            }
            Event::Deduplicated { connection, .. } => {
                self.deduplicated.with_label_values(&[connection.as_str()]).inc();
            }
            Event::Broker { connected, .. } => self.broker_connected.set(i64::from(connected)),
            Event::Blocked { blocked, .. } => self.broker_blocked.set(i64::from(blocked)),
            Event::Backlog { connection, lane, ready, delayed, oldest } if !self.is_removed(connection) => {
                let labels = [connection.as_str(), lane.as_str()];
                let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
                let delayed = delayed as u64;
                self.backlog.with_label_values(&labels).set(count(ready + delayed));
                self.delayed.with_label_values(&labels).set(count(delayed));
                self.tell_oldest(labels, oldest, now);
            }
            Event::Paused { .. }
            | Event::Resumed { .. }
            | Event::Backlog { .. }
            | Event::BucketExhausted { .. }
            | Event::DelayedForOrder { .. }
            | Event::BucketRecovered { .. }
            | Event::LimitLowered { .. }
            | Event::HandedBack { .. }
            | Event::Cancelled { .. }
            | Event::Suspected { .. }
            | Event::Undeliverable { .. }
            | Event::Stale { .. }
            | Event::Unserved { .. }
            | Event::Policy { .. }
            | Event::QueueDeleted { .. }
            | Event::Uncounted { .. }
            | Event::Removed { .. }
            | Event::SignalsRefused { .. } => {}
        }
    }

    fn count_request(
        &self,
        [connection, bucket]: [&str; 2],
        method: &Method,
        http_status: Option<u16>,
        took: Duration,
    ) {
        let code = http_status.map(StatusCode::from_u16);
        let code = match &code {
            Some(Ok(code)) => code.as_str(),
            Some(Err(_)) => ABSENT,
            None => "none",
        };
        self.requests.with_label_values(&[connection, bucket, method_label(method), code]).inc();
        self.request_duration.with_label_values(&[connection, bucket]).observe(took.as_secs_f64());
    }

    fn tell_window(&self, labels: [&str; 2], rate: RateHeaders, now: Instant) {
        self.limit.with_label_values(&labels).set(i64::from(rate.limit));
        self.remaining.with_label_values(&labels).set(i64::from(rate.remaining));
        // Okta's reset is relative to its own `Date`; our clock may be minutes off.
        let told = rate.date.unwrap_or_else(Timestamp::now).as_second();
        let left = u32::try_from(rate.reset.saturating_sub(told).max(0)).unwrap_or(u32::MAX);
        self.window_end.with_label_values(&labels).set(self.seconds(now) + f64::from(left));
    }

    fn tell_oldest(&self, labels: [&str; 2], age: Option<Duration>, now: Instant) {
        let sent = age.map_or(f64::INFINITY, |age| self.seconds(now) - age.as_secs_f64());
        self.oldest_sent.with_label_values(&labels).set(sent);
    }

    fn count_ending(&self, ending: &InvocationEnded<'_>) {
        let connection = named(ending.connection);
        self.invocations
            .with_label_values(&[
                ending.subtool.unwrap_or(ABSENT),
                connection,
                ending.status.as_str(),
                ending.effect.as_str(),
                ending.error.map_or(ABSENT, ErrorCode::as_str),
            ])
            .inc();
        self.invocation_duration
            .with_label_values(&[connection, ending.lane.map_or(ABSENT, Lane::as_str)])
            .observe(ending.took.as_secs_f64());
    }

    fn seconds(&self, now: Instant) -> f64 {
        now.saturating_duration_since(self.started).as_secs_f64()
    }
}

impl Observer for Metrics {
    fn note(&self, event: &Event<'_>) {
        self.note_at(event, Instant::now());
    }
}

fn named(connection: Option<&ConnectionName>) -> &str {
    connection.map_or(ABSENT, ConnectionName::as_str)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::families::PREFIX;
    use super::*;
    use crate::domain::bucket::Bucket;
    use crate::domain::result::{Effect, Status};
    use crate::event::{FailureKind, LimitKind, ParkReason, PauseReason};
    use crate::tools::ToolKind;
    use crate::tools::catalogue::CATALOGUE;

    fn connection(name: &str) -> ConnectionName {
        ConnectionName::parse(name).unwrap()
    }

    fn ending<'a>(
        connection: Option<&'a ConnectionName>,
        subtool: Option<&'static str>,
    ) -> InvocationEnded<'a> {
        InvocationEnded {
            id: "jane@example.com",
            connection,
            lane: connection.map(|_| Lane::Bulk),
            subtool,
            caller: Some("helpdesk"),
            reason: Some("for jane@example.com"),
            traceparent: None,
            status: Status::Succeeded,
            effect: Effect::Applied,
            error: None,
            path: None,
            okta_error_code: None,
            okta_request_ids: &[],
            attempts: 1,
            okta_calls: 1,
            waited: Duration::ZERO,
            took: Duration::from_millis(412),
        }
    }

    fn requested<'a>(
        connection: &'a ConnectionName,
        http_status: Option<u16>,
        rate: Option<RateHeaders>,
    ) -> Event<'a> {
        let took = Duration::from_millis(120);
        Event::Requested { connection, bucket: Bucket::Users, method: &Method::POST, http_status, took, rate }
    }

    /// 571 of 600 left, 20 seconds to the end of the window by Okta's clock.
    fn headers() -> RateHeaders {
        let date = Timestamp::from_second(1_700_000_000).ok();
        RateHeaders { limit: 600, remaining: 571, reset: 1_700_000_020, date }
    }

    fn note_one_of_each(metrics: &Metrics, connection: &ConnectionName) {
        let (bucket, lane) = (Bucket::Users, Lane::Bulk);
        let (id, some) = ("jane@example.com", Some(connection));
        for event in [
            Event::Received { connection, lane, redelivered: true },
            Event::Left { connection, lane },
            Event::Waited {
                connection,
                bucket,
                lane,
                waited: Duration::from_secs(2),
                before: Duration::ZERO,
            },
            requested(connection, Some(200), Some(headers())),
            Event::RateLimited { connection, bucket, kind: LimitKind::Window },
            Event::BucketExhausted { connection, bucket, wait: Duration::from_secs(9) },
            Event::Retried { connection, reason: FailureKind::Busy, attempt: 1, wait: Duration::ZERO },
            Event::Delayed { connection, lane, bucket, wait: Duration::from_secs(15) },
            Event::DelayedForOrder { connection, lane, id, wait: Duration::from_secs(1) },
            Event::Backlog { connection, lane, ready: 5, delayed: 2, oldest: None },
            Event::Answered(ending(some, Some("add_user_to_group"))),
            Event::Undeliverable { id, connection: some },
            Event::Parked { id, connection: some, reason: ParkReason::Internal },
            Event::Stale { id },
            Event::Broker { connected: true, why: "amqp://jane@example.com" },
            Event::SignalsRefused { why: "amqp://jane@example.com" },
        ] {
            metrics.note(&event);
        }
    }

    /// Returns the lines of our own families that contain this text.
    fn lines(text: &str, part: &str) -> Vec<String> {
        text.lines().filter(|line| line.starts_with(PREFIX) && line.contains(part)).map(Into::into).collect()
    }

    /// Returns for each family its type and the names of its labels, parsed from the text as Prometheus would.
    fn shape(text: &str) -> Vec<String> {
        let mut shape = BTreeMap::<String, (String, BTreeSet<String>)>::new();
        for line in text.lines() {
            if let Some(line) = line.strip_prefix("# TYPE ") {
                let (name, kind) = line.split_once(' ').unwrap();
                shape.insert(name.to_owned(), (kind.to_owned(), BTreeSet::new()));
            } else if !line.starts_with('#') {
                let name = line.split(['{', ' ']).next().unwrap();
                let family = ["_bucket", "_sum", "_count"].iter().find_map(|end| {
                    name.strip_suffix(end)
                        .filter(|name| shape.get(*name).is_some_and(|it| it.0 == "histogram"))
                });
                let labels = &mut shape.get_mut(family.unwrap_or(name)).expect("TYPE comes before samples").1;
                let inside = line.split_once('{').and_then(|(_, rest)| rest.split_once('}'));
                let pairs = inside.map_or("", |(inside, _)| inside).split("\",");
                labels.extend(pairs.filter_map(|pair| Some(pair.split_once('=')?.0.to_owned())));
            }
        }
        let own = shape.into_iter().filter(|(name, _)| name.starts_with(PREFIX));
        own.map(|(name, (kind, labels))| {
            let labels: Vec<_> = labels.into_iter().filter(|label| label != "le").collect();
            format!("{} {kind} {}", name.trim_start_matches("okta_worker_"), labels.join(" "))
                .trim()
                .to_owned()
        })
        .collect()
    }

    #[test]
    fn names_types_and_labels_are_those_of_the_contract() {
        let metrics = Metrics::new();
        metrics.expect([connection("prod")].iter());
        note_one_of_each(&metrics, &connection("prod"));
        assert_eq!(
            shape(&metrics.render()),
            [
                "backlog gauge connection lane",
                "broker_blocked gauge",
                "broker_connected gauge",
                "build_info gauge version",
                "configuration_refused gauge",
                "connection_paused gauge connection reason",
                "deduplicated_total counter connection",
                "delayed gauge connection lane",
                "in_flight gauge connection lane",
                "invocation_duration_seconds histogram connection lane",
                "invocations_total counter connection effect error status subtool",
                "log_lines_dropped_total counter",
                "not_parked_total counter connection reason",
                "okta_request_duration_seconds histogram bucket connection",
                "okta_requests_total counter bucket connection http_status method",
                "oldest_seconds gauge connection lane",
                "parked_total counter connection reason",
                "put_aside_total counter bucket connection",
                "rate_limit_limit gauge bucket connection",
                "rate_limit_remaining gauge bucket connection",
                "rate_limit_reset_seconds gauge bucket connection",
                "rate_limited_total counter bucket connection kind",
                "redelivered_total counter connection",
                "retries_total counter connection reason",
                "throttle_wait_seconds histogram bucket connection lane",
            ]
        );
    }

    #[test]
    fn every_family_has_its_help_and_the_process_is_among_them() {
        let metrics = Metrics::new();
        note_one_of_each(&metrics, &connection("prod"));
        let text = metrics.render();
        for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
            let name = line.split(' ').next().unwrap();
            assert!(text.contains(&format!("# HELP {name} ")), "{name}");
        }
        assert!(text.contains("process_resident_memory_bytes "));
        assert!(text.contains(concat!(
            "okta_worker_build_info{version=\"",
            env!("CARGO_PKG_VERSION"),
            "\"} 1\n"
        )));
    }

    #[test]
    fn nothing_a_caller_wrote_becomes_a_label() {
        let metrics = Metrics::new();
        note_one_of_each(&metrics, &connection("prod"));
        let text = metrics.render();
        for planted in ["jane", "example.com", "helpdesk"] {
            assert!(!text.contains(planted), "{planted}");
        }
    }

    #[test]
    fn what_is_absent_or_not_ours_is_a_dash() {
        let metrics = Metrics::new();
        let failed = InvocationEnded {
            status: Status::Failed,
            effect: Effect::None,
            error: Some(ErrorCode::UnknownConnection),
            ..ending(None, None)
        };
        metrics.note(&Event::Answered(failed));
        metrics.note(&Event::Parked { id: "1", connection: None, reason: ParkReason::Unreadable });
        let brew = Method::from_bytes(b"BREW").unwrap();
        let prod = connection("prod");
        let (bucket, took) = (Bucket::Other, Duration::ZERO);
        let (http_status, rate) = (Some(7), None);
        let odd = Event::Requested { connection: &prod, bucket, method: &brew, http_status, took, rate };
        metrics.note(&odd);
        metrics.note(&requested(&prod, None, None));
        let text = metrics.render();
        for line in [
            r#"invocations_total{connection="-",effect="none",error="unknown_connection",status="failed",subtool="-"} 1"#,
            r#"invocation_duration_seconds_count{connection="-",lane="-"} 1"#,
            r#"parked_total{connection="-",reason="unreadable"} 1"#,
            r#"okta_requests_total{bucket="other",connection="prod",http_status="-",method="-"} 1"#,
            r#"okta_requests_total{bucket="users",connection="prod",http_status="none",method="POST"} 1"#,
        ] {
            assert!(text.lines().any(|it| it == format!("okta_worker_{line}")), "{line}\n{text}");
        }
    }

    #[test]
    fn an_expected_connection_shows_the_zeros_that_alerts_need() {
        let metrics = Metrics::new();
        metrics.expect([connection("prod"), connection("acme-eu")].iter());
        let text = metrics.render();
        let zeros = |part: &str| lines(&text, part).iter().filter(|line| line.ends_with(" 0")).count();
        assert_eq!(zeros("rate_limited_total"), 2 * Bucket::ALL.len() * LimitKind::ALL.len());
        assert_eq!(zeros("worker_parked_total"), 3 * ParkReason::ALL.len());
        assert_eq!(zeros("not_parked_total"), 3 * ParkReason::ALL.len());
        assert_eq!(zeros("deduplicated_total"), 2);
        assert_eq!(zeros("retries_total"), 2 * FailureKind::ALL.len());
        assert_eq!(zeros("put_aside_total"), 2 * Bucket::ALL.len());
        assert_eq!(zeros("in_flight"), 2 * Lane::ALL.len());
        assert_eq!(zeros("connection_paused"), 2 * PauseReason::ALL.len());
        assert_eq!(zeros("redelivered_total"), 2);
        let writes = CATALOGUE.iter().filter(|entry| entry.manifest.kind != ToolKind::Read).count();
        assert_eq!(zeros(r#"error="outcome_unknown""#), 2 * writes);
        assert_eq!(zeros("broker_connected"), 1);
        assert_eq!(zeros("broker_blocked"), 1);
    }

    #[test]
    fn what_was_answered_from_memory_is_no_invocation_and_took_no_time() {
        let metrics = Metrics::new();
        let prod = connection("prod");
        metrics.note(&Event::Deduplicated {
            connection: &prod,
            lane: Lane::Bulk,
            id: "1",
            subtool: Some("suspend_user"),
            caller: None,
            status: Status::Succeeded,
        });
        let text = metrics.render();
        assert_eq!(
            lines(&text, "deduplicated_total"),
            [r#"okta_worker_deduplicated_total{connection="prod"} 1"#]
        );
        for other in ["invocations_total", "invocation_duration_seconds", "throttle_wait_seconds"] {
            assert_eq!(lines(&text, other), [""; 0], "{other}");
        }
    }

    #[test]
    fn a_broker_that_takes_nothing_is_seen_until_it_takes_something() {
        let metrics = Metrics::new();
        let shown = |blocked| {
            metrics.note(&Event::Blocked { blocked, why: "low on memory" });
            lines(&metrics.render(), "broker_blocked")[0].to_owned()
        };
        assert!(shown(true).ends_with(" 1"));
        assert!(shown(false).ends_with(" 0"));
    }

    #[test]
    fn expecting_again_after_a_reload_counts_on() {
        let metrics = Metrics::new();
        let prod = connection("prod");
        note_one_of_each(&metrics, &prod);
        metrics.expect([prod].iter());
        let text = metrics.render();
        assert!(lines(&text, "redelivered_total")[0].ends_with(" 1"));
    }

    #[test]
    fn a_message_in_flight_is_counted_until_it_leaves() {
        let metrics = Metrics::new();
        let prod = connection("prod");
        let (connection, lane) = (&prod, Lane::Interactive);
        metrics.note(&Event::Received { connection, lane, redelivered: false });
        assert!(lines(&metrics.render(), "in_flight")[0].ends_with(" 1"));
        metrics.note(&Event::Left { connection, lane });
        assert!(lines(&metrics.render(), "in_flight")[0].ends_with(" 0"));
    }

    #[test]
    fn the_window_runs_down_by_itself_and_never_below_zero() {
        let metrics = Metrics::new();
        let prod = connection("prod");
        let told = metrics.started + Duration::from_secs(100);
        metrics.note_at(&requested(&prod, Some(200), Some(headers())), told);
        let left = |seconds| {
            let text = metrics.render_at(told + Duration::from_secs(seconds));
            lines(&text, "rate_limit_reset_seconds{")[0].rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()
        };
        assert_eq!([left(0), left(5), left(20), left(3600)], [20.0, 15.0, 0.0, 0.0]);
    }

    #[test]
    fn a_backlog_is_what_is_in_the_queue_and_what_lies_delayed_and_its_oldest_message_grows_older() {
        let metrics = Metrics::new();
        let prod = connection("prod");
        metrics.expect([&prod].into_iter());
        let told = metrics.started + Duration::from_secs(100);
        let shown = |name: &str, seconds| {
            let text = metrics.render_at(told + Duration::from_secs(seconds));
            let of_bulk = lines(&text, name).into_iter().find(|line| line.contains("lane=\"bulk\"")).unwrap();
            of_bulk.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()
        };
        assert_eq!(
            [shown("backlog{", 0), shown("oldest_seconds{", 0)],
            [0.0, 0.0],
            "nothing was counted yet"
        );
        let counted =
            |oldest| Event::Backlog { connection: &prod, lane: Lane::Bulk, ready: 700, delayed: 64, oldest };
        // The message was sent before this worker started.
        metrics.note_at(&counted(Some(Duration::from_secs(3600))), told);
        assert_eq!([shown("backlog{", 0), shown("delayed{", 0)], [764.0, 64.0]);
        assert_eq!([shown("oldest_seconds{", 0), shown("oldest_seconds{", 60)], [3600.0, 3660.0]);
        metrics.note_at(&counted(None), told);
        assert_eq!(shown("oldest_seconds{", 60), 0.0);
    }

    #[test]
    fn a_removed_connection_has_no_gauges_and_gets_them_again_when_it_is_back() {
        let metrics = Metrics::new();
        let (prod, other) = (connection("prod"), connection("other"));
        metrics.expect([&prod, &other].into_iter());
        let backlog =
            |connection| Event::Backlog { connection, lane: Lane::Bulk, ready: 7, delayed: 0, oldest: None };
        let paused = |connection| Event::Paused { connection, reason: PauseReason::Unauthorized, why: "" };
        let gauges = || {
            let text = metrics.render();
            let of = |name: &str| {
                lines(&text, name).into_iter().filter(|line| line.contains("connection=\"prod\"")).count()
            };
            ["backlog{", "delayed{", "oldest_seconds{", "connection_paused{"].map(of)
        };
        assert!(gauges().iter().all(|count| *count > 0), "{:?}", gauges());
        metrics.forget(&prod);
        for event in [backlog(&prod), paused(&prod)] {
            metrics.note_at(&event, metrics.started); // what ends late
        }
        assert_eq!(gauges(), [0; 4]);
        assert!(metrics.render().contains("okta_worker_backlog{connection=\"other\""));
        metrics.expect([&prod].into_iter());
        metrics.note_at(&backlog(&prod), metrics.started);
        assert!(gauges().iter().all(|count| *count > 0), "{:?}", gauges());
    }

    #[test]
    fn a_wait_for_the_budget_includes_the_delays_before() {
        let metrics = Metrics::new();
        let prod = connection("prod");
        let (bucket, lane, waited) = (Bucket::Users, Lane::Bulk, Duration::from_secs(2));
        let before = Duration::from_secs(300);
        metrics.note(&Event::Waited { connection: &prod, bucket, lane, waited, before });
        assert!(lines(&metrics.render(), "throttle_wait_seconds_sum{")[0].ends_with(" 302"));
    }

    #[test]
    fn a_reset_in_the_past_is_no_time_left() {
        let metrics = Metrics::new();
        let late = RateHeaders { reset: 0, ..headers() };
        metrics.note_at(&requested(&connection("prod"), Some(200), Some(late)), metrics.started);
        let text = metrics.render_at(metrics.started);
        assert!(lines(&text, "rate_limit_reset_seconds{")[0].ends_with(" 0"), "{text}");
    }

    #[test]
    fn a_429_for_concurrency_says_nothing_about_the_window() {
        let metrics = Metrics::new();
        let prod = connection("prod");
        metrics.note_at(&requested(&prod, Some(200), Some(headers())), metrics.started);
        let lies = RateHeaders { limit: 0, remaining: 0, reset: 1_700_009_999, date: headers().date };
        metrics.note_at(&requested(&prod, Some(429), Some(lies)), metrics.started);
        let text = metrics.render_at(metrics.started);
        assert!(lines(&text, "rate_limit_limit{")[0].ends_with(" 600"));
        assert!(lines(&text, "rate_limit_remaining{")[0].ends_with(" 571"));
        assert!(lines(&text, "rate_limit_reset_seconds{")[0].ends_with(" 20"));
    }

    #[test]
    fn series_whose_labels_run_together_alike_stay_apart() {
        let metrics = Metrics::new();
        metrics.note(&Event::Answered(ending(Some(&connection("acme")), Some("deactivate_user"))));
        metrics.note(&Event::Answered(ending(Some(&connection("acmede")), Some("activate_user"))));
        let text = metrics.render();
        assert_eq!(lines(&text, "invocations_total{").len(), 2, "{text}");
    }

    #[test]
    fn the_sets_around_the_connection_keep_series_apart() {
        let apart = |set: &[&str], runs_into: fn(&str, &str) -> bool| {
            for (a, b) in set.iter().flat_map(|a| set.iter().map(move |b| (*a, *b))) {
                assert!(a == b || !runs_into(a, b), "`{a}` and `{b}`");
            }
        };
        let subtools: Vec<_> = CATALOGUE.iter().map(|entry| entry.manifest.name).chain([ABSENT]).collect();
        apart(&subtools, |a, b| a.starts_with(b));
        for right in [
            Bucket::ALL.map(Bucket::as_str).to_vec(),
            Lane::ALL.map(Lane::as_str).into_iter().chain([ABSENT]).collect(),
            LimitKind::ALL.map(LimitKind::as_str).to_vec(),
            FailureKind::ALL.map(FailureKind::as_str).to_vec(),
            ParkReason::ALL.map(ParkReason::as_str).to_vec(),
            ErrorCode::ALL.iter().map(|code| code.as_str()).chain([ABSENT]).collect(),
            vec!["none", "applied", "unchanged", "unknown"],
            vec!["succeeded", "failed", "planned"],
            vec!["GET", "POST", "PUT", "PATCH", "DELETE", ABSENT],
        ] {
            apart(&right, |a, b| a.ends_with(b));
        }
    }
}
