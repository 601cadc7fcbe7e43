//! The state of a worker: its rules and ports, and what its messages share.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::domain::ids::ConnectionName;
use crate::event::Observer;

use super::cancel::Cancelled;
use super::dedup::Dedup;
use super::lanes::Lanes;
use super::parking::Parking;
use super::ports::Outbox;
use super::probe;
use super::rules::Rules;

/// A worker that takes messages, executes their invocations and answers them.
pub struct Worker {
    pub(super) rules: ArcSwap<Rules>,
    pub(super) outbox: Arc<dyn Outbox>,
    pub(super) observer: Arc<dyn Observer>,
    /// Results of recent invocations, for deduplication.
    pub(super) dedup: Dedup,
    /// Cancelled invocations.
    pub(super) cancelled: Cancelled,
    /// True if the worker has reported that a policy on the broker drops messages.
    pub(super) is_drop_told: AtomicBool,
    /// The number of messages that each caller may still park.
    pub(super) parking: Parking,
    /// The state of each lane.
    pub(super) lanes: Lanes,
}

impl Worker {
    /// Creates a worker with these rules that answers through this outbox.
    pub fn new(rules: Rules, outbox: Arc<dyn Outbox>, observer: Arc<dyn Observer>) -> Self {
        let rules = ArcSwap::from_pointee(rules);
        let (dedup, cancelled, lanes) = (Dedup::default(), Cancelled::default(), Lanes::default());
        let (is_drop_told, parking) = (AtomicBool::new(false), Parking::default());
        Self { rules, outbox, observer, dedup, cancelled, is_drop_told, parking, lanes }
    }

    /// Sets the number of messages that `okta.dead` holds, and the time for which it holds them.
    #[must_use]
    pub fn parking_in(self, dead_max: u32, dead_ttl: Duration) -> Self {
        Self { parking: Parking::in_queue(dead_max, dead_ttl), ..self }
    }

    /// Asks Okta whether it accepts the credential of each of these connections that stays idle for a while.
    pub fn check_credentials<'a>(&self, names: impl IntoIterator<Item = &'a ConnectionName>) {
        let rules = self.rules.load();
        for connection in names.into_iter().filter_map(|name| rules.connections.get(name)) {
            tokio::spawn(probe::check_credential(Arc::downgrade(connection), Arc::clone(&self.observer)));
        }
    }

    /// Replaces the rules from now on. A message that was taken before is finished under the former rules.
    pub fn replace_rules(&self, rules: Rules) {
        self.rules.store(Arc::new(rules));
    }
}
