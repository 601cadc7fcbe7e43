//! The worker's state of one Okta org.

use std::sync::Arc;

use jiff::SignedDuration;
use tokio::sync::Semaphore;

use crate::domain::ids::{ConnectionName, Lane};
use crate::policy::authorization::AllowList;

use super::breaker::Breaker;
use super::clock::Clock;
use super::okta_time::OktaTime;
use super::ports::Okta;
use super::recent_creations::RecentCreations;
use crate::budget::permit::Budget;

/// One Okta org, with the worker's state of it.
pub struct Connection {
    /// The name.
    pub name: ConnectionName,
    /// The client that sends requests to the org.
    pub okta: Arc<dyn Okta>,
    /// The rate-limit budget that admits each request.
    pub budget: Arc<dyn Budget>,
    /// The enabled subtools.
    pub subtools: AllowList,
    /// The circuit breaker.
    pub breaker: Arc<Breaker>,
    /// Ids of objects that were just created there.
    pub(super) recent_creations: RecentCreations,
    /// The difference between the machine's clock and Okta's.
    pub(super) okta_time: OktaTime,
    /// The permit of each lane to run one suspect of a crash loop.
    pub(super) crash_loop_slots: [Semaphore; Lane::ALL.len()],
}

impl Connection {
    /// Creates a connection without any observations.
    pub fn new(
        name: ConnectionName,
        okta: Arc<dyn Okta>,
        budget: Arc<dyn Budget>,
        subtools: AllowList,
    ) -> Self {
        let crash_loop_slots = [Semaphore::new(1), Semaphore::new(1)];
        let (breaker, recent_creations, okta_time) =
            (Arc::default(), RecentCreations::default(), OktaTime::default());
        Self { name, okta, budget, subtools, breaker, recent_creations, okta_time, crash_loop_slots }
    }

    /// Returns the time by which Okta's clock is ahead of the machine's; `None` if that is not known.
    pub(super) fn ahead(&self, clock: &Clock) -> Option<SignedDuration> {
        self.okta_time.ahead(clock)
    }
}
