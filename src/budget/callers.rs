//! The ceilings of callers: the requests of one caller per minute, on all connections together.
//!
//! The requests of a caller at its ceiling wait here, before any bucket gate: no head-of-line blocking of other
//! callers.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, sleep_until};

use super::permit::{Ask, NotNow, WhenBusy};
use crate::domain::ids::Lane;

use super::ceiling::PerMinute;

/// All callers that have a ceiling.
pub struct CallerCeilings {
    callers: ArcSwap<HashMap<String, Arc<CallerCeiling>>>,
    /// The number of workers at the last count.
    workers: AtomicU32,
}

pub(super) struct CallerCeiling {
    ceiling: Mutex<PerMinute>,
    /// One turn per lane: only the head of a lane asks.
    turns: [Semaphore; Lane::ALL.len()],
    waiting: [AtomicUsize; Lane::ALL.len()],
    /// A notification that a request waits no longer.
    left: Notify,
    /// A notification that the ceiling is reached: waiting requests check if they are now too late.
    full: Notify,
}

impl CallerCeilings {
    /// Creates the ceilings by caller, in requests per minute of all workers together.
    pub fn new(callers: impl IntoIterator<Item = (String, u32)>) -> Arc<Self> {
        let ceilings = Self { callers: ArcSwap::default(), workers: AtomicU32::new(1) };
        ceilings.replace(callers);
        Arc::new(ceilings)
    }

    /// Replaces the ceilings. The requests that a caller's former ceiling let pass still count.
    pub fn replace(&self, callers: impl IntoIterator<Item = (String, u32)>) {
        let before = self.callers.load();
        let workers = self.workers.load(Ordering::Relaxed);
        let caller = |(name, most): (String, u32)| {
            let caller = before.get(&name).cloned().unwrap_or_else(|| CallerCeiling::new(most, workers));
            caller.ceiling().allow(most);
            (name, caller)
        };
        self.callers.store(Arc::new(callers.into_iter().map(caller).collect()));
    }

    /// Sets the number of workers that the broker counted: each has its part.
    pub(super) fn count(&self, workers: u32) {
        self.workers.store(workers, Ordering::Relaxed);
        for caller in self.callers.load().values() {
            caller.ceiling().count(workers);
        }
    }

    /// Returns the ceiling of a caller, if it has one.
    pub(super) fn of(&self, name: &str) -> Option<Arc<CallerCeiling>> {
        self.callers.load().get(name).cloned()
    }
}

/// A guard that notifies the bulk lane when a request that it may yield to has left.
pub(super) struct Leaving<'a>(pub &'a Notify);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.notify_waiters();
    }
}

impl CallerCeiling {
    fn new(most: u32, workers: u32) -> Arc<Self> {
        let mut ceiling = PerMinute::new(most);
        ceiling.count(workers);
        Arc::new(Self {
            ceiling: Mutex::new(ceiling),
            turns: [Semaphore::new(1), Semaphore::new(1)],
            waiting: Default::default(),
            left: Notify::new(),
            full: Notify::new(),
        })
    }

    /// Waits until the caller may send one more request; a bulk one only while no interactive one waits.
    ///
    /// # Errors
    /// If that is too late, or too many requests wait.
    pub async fn admit(&self, ask: &Ask<'_>, waiting_max: usize) -> Result<(), NotNow> {
        let waiting = &self.waiting[ask.lane as usize];
        let _leaving = Leaving(&self.left);
        let _waiting = WaitingGuard::new(waiting);
        let ahead = waiting.load(Ordering::Relaxed) - 1;
        if ahead >= waiting_max && ask.when_busy == WhenBusy::Delay {
            let ahead = u32::try_from(ahead).unwrap_or(u32::MAX);
            return Err(NotNow::Delay(self.ceiling().each().saturating_mul(ahead)));
        }
        let turn = self.turns[ask.lane as usize].acquire();
        tokio::pin!(turn);
        let _turn = loop {
            let full = self.full.notified();
            fail_if_too_late(self.ceiling().full_until(), ask.not_after)?;
            tokio::select! {
                biased;
                turn = &mut turn => break turn.expect("the semaphore is never closed"),
                () = full => {}
            }
        };
        loop {
            let left = self.left.notified();
            if ask.lane == Lane::Bulk && self.is_waited_for() {
                left.await;
                continue;
            }
            let asked = self.ceiling().take();
            let Err(until) = asked else { return Ok(()) };
            self.full.notify_waiters();
            fail_if_too_late(Some(until), ask.not_after)?;
            sleep_until(until).await;
        }
    }

    /// Returns true if an interactive request waits.
    fn is_waited_for(&self) -> bool {
        self.waiting[Lane::Interactive as usize].load(Ordering::Relaxed) > 0
    }

    fn ceiling(&self) -> MutexGuard<'_, PerMinute> {
        self.ceiling.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Refuses a request that would wait past its deadline.
pub(super) fn fail_if_too_late(
    not_before: Option<Instant>,
    not_after: Option<Instant>,
) -> Result<(), NotNow> {
    match (not_before, not_after) {
        (Some(not_before), Some(not_after)) if not_after < not_before => Err(NotNow::NotBefore(not_before)),
        _ => Ok(()),
    }
}

/// A guard that counts one waiting request while it lives.
pub(super) struct WaitingGuard<'a>(&'a AtomicUsize);

impl<'a> WaitingGuard<'a> {
    pub fn new(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, Ordering::Relaxed);
        Self(waiting)
    }
}

impl Drop for WaitingGuard<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::Method;

    use super::*;

    /// Returns the number of requests of a caller that pass in the next minute, up to a hundred.
    async fn passed(ceilings: &CallerCeilings, caller: &str) -> usize {
        let until = Instant::now() + Duration::from_secs(60) - Duration::from_millis(1);
        let mut passed = 0;
        let ask = Ask {
            method: &Method::GET,
            route: "/api/v1/users",
            lane: Lane::Bulk,
            caller: Some(caller),
            not_after: Some(until),
            leave_at: None,
            emits: false,
            when_busy: WhenBusy::Wait,
        };
        while passed < 100
            && match ceilings.of(caller) {
                Some(it) => it.admit(&ask, 16).await.is_ok(),
                None => true,
            }
        {
            passed += 1;
        }
        sleep_until(until).await;
        passed
    }

    #[tokio::test(start_paused = true)]
    async fn a_callers_new_ceiling_holds_at_once_and_grants_nothing_twice() {
        let of = |most| [("hr".to_owned(), most)];
        let ceilings = CallerCeilings::new(of(6));
        assert_eq!(passed(&ceilings, "hr").await, 5, "one is taken off the rate for what may go at once");
        for _ in 0..20 {
            ceilings.replace(of(6));
        }
        assert_eq!(passed(&ceilings, "hr").await, 5, "nothing is granted again");
        ceilings.replace(of(60));
        let more = passed(&ceilings, "hr").await;
        assert!((55..=60).contains(&more), "{more}");
        ceilings.replace([]);
        assert_eq!(passed(&ceilings, "hr").await, 100, "no ceiling");
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_caller_shares_with_as_many_workers_as_were_counted() {
        let ceilings = CallerCeilings::new([]);
        ceilings.count(10);
        ceilings.replace([("hr".to_owned(), 60)]);
        let ours = passed(&ceilings, "hr").await;
        assert!((5..=6).contains(&ours), "{ours}");
    }
}
