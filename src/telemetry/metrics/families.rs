//! Construction of metric families on a registry.

use http::Method;
use prometheus::core::Collector;
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry};

/// The prefix of each metric name.
pub(super) const PREFIX: &str = "okta_worker";

/// The label value of something absent or not ours.
pub(super) const ABSENT: &str = "-";

/// Buckets for the seconds an invocation takes. Okta alone answers in 0.1 to 1; a rate-limit window lasts 60; an
/// interactive invocation gives up after 600, and so does one message of a list. Beyond that only `bulk` waits,
/// and 3600 separates an hour's backlog from a stuck one.
pub(super) const INVOCATION_SECONDS: &[f64] =
    &[0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0];

/// Buckets for the seconds a request waits for the budget. The first bound separates "did not wait" from "waited";
/// the rest are fractions and multiples of Okta's window of 60, up to the hour of a long backlog.
pub(super) const THROTTLE_SECONDS: &[f64] =
    &[0.001, 0.05, 0.25, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0];

/// Buckets for the seconds one request takes at Okta: fine around the usual 0.1 to 1, coarse up to the longest timeout.
pub(super) const REQUEST_SECONDS: &[f64] =
    &[0.025, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// Returns the label of one of the five methods that Okta knows: a closed set that no input can widen.
pub(super) fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        _ => ABSENT,
    }
}

pub(super) const WELL_FORMED: &str = "the names and labels in this file are well formed";

pub(super) fn opts(name: &str, help: &str) -> Opts {
    Opts::new(format!("{PREFIX}_{name}"), help)
}

/// A constructor of families on a registry.
pub(super) struct Families<'a>(pub &'a Registry);

impl Families<'_> {
    pub fn add<C: Collector + Clone + 'static>(&self, family: C) -> C {
        self.0.register(Box::new(family.clone())).expect("each name is registered once");
        family
    }

    pub fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.add(IntCounterVec::new(opts(name, help), labels).expect(WELL_FORMED))
    }

    pub fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.add(IntGaugeVec::new(opts(name, help), labels).expect(WELL_FORMED))
    }

    pub fn histograms(&self, name: &str, help: &str, labels: &[&str], seconds: &[f64]) -> HistogramVec {
        let opts = HistogramOpts::from(opts(name, help)).buckets(seconds.to_vec());
        self.add(HistogramVec::new(opts, labels).expect(WELL_FORMED))
    }
}
