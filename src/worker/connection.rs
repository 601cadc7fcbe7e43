//! One Okta org as the worker sees it.

use std::sync::Arc;

use jiff::SignedDuration;
use tokio::sync::Semaphore;

use crate::domain::ids::{ConnectionName, Lane};
use crate::policy::authorization::AllowList;

use super::breaker::Pulse;
use super::clock::Clock;
use super::okta_time::OktaTime;
use super::ports::Okta;
use super::recent_creations::Fresh;
use crate::budget::permit::Budget;

/// One org as the worker sees it.
pub struct Connection {
    /// Its name.
    pub name: ConnectionName,
    /// The client that sends requests to it.
    pub okta: Arc<dyn Okta>,
    /// The rate-limit budget that admits each request.
    pub budget: Arc<dyn Budget>,
    /// The subtools that it enables.
    pub subtools: AllowList,
    /// The circuit breaker.
    pub pulse: Arc<Pulse>,
    /// Ids of objects that were just created there.
    pub(super) fresh: Fresh,
    /// The difference between the machine's clock and Okta's.
    pub(super) okta_time: OktaTime,
    /// Room for one message in each lane that may be what brings workers down.
    pub(super) quarantine: [Semaphore; Lane::ALL.len()],
}

impl Connection {
    /// Makes a connection of which nothing is known yet.
    pub fn new(
        name: ConnectionName,
        okta: Arc<dyn Okta>,
        budget: Arc<dyn Budget>,
        subtools: AllowList,
    ) -> Self {
        let quarantine = [Semaphore::new(1), Semaphore::new(1)];
        let (pulse, fresh, okta_time) = (Arc::default(), Fresh::default(), OktaTime::default());
        Self { name, okta, budget, subtools, pulse, fresh, okta_time, quarantine }
    }

    /// Returns the time by which Okta's clock is ahead of the machine's; `None` if that is not known.
    pub(super) fn ahead(&self, clock: &Clock) -> Option<SignedDuration> {
        self.okta_time.ahead(clock)
    }
}
