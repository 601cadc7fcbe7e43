//! The series of a connection: those that alerts need from its beginning, and those that end with it.

use std::sync::PoisonError;

use super::Metrics;
use super::families::ABSENT;
use crate::domain::bucket::Bucket;
use crate::domain::ids::{ConnectionName, Lane};
use crate::domain::result::{Effect, ErrorCode, Status};
use crate::event::{FailureKind, LimitKind, ParkReason, PauseReason};
use crate::tools::ToolKind;
use crate::tools::catalogue::CATALOGUE;

impl Metrics {
    /// Creates the zero series that alerts need: a series that first appears at 1 never increases.
    pub fn expect<'a>(&self, connections: impl Iterator<Item = &'a ConnectionName>) {
        for connection in connections {
            self.removed.lock().unwrap_or_else(PoisonError::into_inner).remove(connection);
            self.expect_one(connection.as_str());
        }
        for reason in ParkReason::ALL {
            self.parked.with_label_values(&[ABSENT, reason.as_str()]);
            self.not_parked.with_label_values(&[ABSENT, reason.as_str()]);
        }
    }

    /// Removes the gauges of a connection that was removed, whose values nothing would bring up to date. The counters
    /// stay, and so do the invocations in hand.
    pub fn forget(&self, connection: &ConnectionName) {
        let mut removed = self.removed.lock().unwrap_or_else(PoisonError::into_inner);
        removed.insert(connection.clone());
        let connection = connection.as_str();
        for lane in Lane::ALL {
            let labels = [connection, lane.as_str()];
            // A series that was never written cannot be removed, which is as good.
            let _ = self.backlog.remove_label_values(&labels);
            let _ = self.delayed.remove_label_values(&labels);
            let _ = self.oldest_sent.remove_label_values(&labels);
        }
        for bucket in Bucket::ALL {
            let labels = [connection, bucket.as_str()];
            let _ = self.limit.remove_label_values(&labels);
            let _ = self.remaining.remove_label_values(&labels);
            let _ = self.window_end.remove_label_values(&labels);
        }
        for reason in PauseReason::ALL {
            let _ = self.paused.remove_label_values(&[connection, reason.as_str()]);
        }
    }

    /// Returns true if a connection was removed.
    pub(super) fn is_removed(&self, connection: &ConnectionName) -> bool {
        self.removed.lock().unwrap_or_else(PoisonError::into_inner).contains(connection)
    }

    fn expect_one(&self, connection: &str) {
        for (bucket, kind) in Bucket::ALL.iter().flat_map(|b| LimitKind::ALL.map(|kind| (b, kind))) {
            self.rate_limited.with_label_values(&[connection, bucket.as_str(), kind.as_str()]);
        }
        for entry in CATALOGUE.iter().filter(|entry| entry.manifest.kind != ToolKind::Read) {
            let (status, effect) = (Status::Failed.as_str(), Effect::Unknown.as_str());
            let error = ErrorCode::OutcomeUnknown.as_str();
            self.invocations.with_label_values(&[entry.manifest.name, connection, status, effect, error]);
        }
        for bucket in Bucket::ALL {
            self.put_aside.with_label_values(&[connection, bucket.as_str()]);
        }
        for reason in FailureKind::ALL {
            self.retries.with_label_values(&[connection, reason.as_str()]);
        }
        for reason in ParkReason::ALL {
            self.parked.with_label_values(&[connection, reason.as_str()]);
            self.not_parked.with_label_values(&[connection, reason.as_str()]);
        }
        self.deduplicated.with_label_values(&[connection]);
        for reason in PauseReason::ALL {
            self.paused.with_label_values(&[connection, reason.as_str()]);
        }
        for lane in Lane::ALL {
            let labels = [connection, lane.as_str()];
            for gauge in [&self.in_flight, &self.backlog, &self.delayed] {
                gauge.with_label_values(&labels);
            }
            self.tell_oldest(labels, None, self.started);
        }
        self.redelivered.with_label_values(&[connection]);
    }
}
