//! The ceilings of callers: what one caller may send in a minute, on all connections together.
//!
//! Whoever is at its ceiling waits here, before it stands in any bucket's line, so it delays nobody else.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, sleep_until};

use super::permit::{Ask, NotNow, Patience};
use crate::domain::ids::Lane;

use super::ceiling::PerMinute;

/// All callers that have a ceiling.
pub struct CallerCeilings {
    callers: ArcSwap<HashMap<String, Arc<Caller>>>,
    /// How many workers were counted last.
    workers: AtomicU32,
}

pub(super) struct Caller {
    ceiling: Mutex<PerMinute>,
    /// Only the head of a lane asks.
    turns: [Semaphore; Lane::ALL.len()],
    waiting: [AtomicUsize; Lane::ALL.len()],
    /// Somebody waits no longer.
    left: Notify,
    /// It was found to be full: whoever stands in line may know now that it is in vain.
    full: Notify,
}

impl CallerCeilings {
    /// The ceilings by caller, in requests per minute of all workers together.
    pub fn new(callers: impl IntoIterator<Item = (String, u32)>) -> Arc<Self> {
        let ceilings = Self { callers: ArcSwap::default(), workers: AtomicU32::new(1) };
        ceilings.replace(callers);
        Arc::new(ceilings)
    }

    /// Puts others in their place. Who had a ceiling before still owes what it owed.
    pub fn replace(&self, callers: impl IntoIterator<Item = (String, u32)>) {
        let before = self.callers.load();
        let workers = self.workers.load(Ordering::Relaxed);
        let caller = |(name, most): (String, u32)| {
            let caller = before.get(&name).cloned().unwrap_or_else(|| Caller::new(most, workers));
            caller.ceiling().allow(most);
            (name, caller)
        };
        self.callers.store(Arc::new(callers.into_iter().map(caller).collect()));
    }

    /// The broker counted the workers: each has its part.
    pub(super) fn count(&self, workers: u32) {
        self.workers.store(workers, Ordering::Relaxed);
        for caller in self.callers.load().values() {
            caller.ceiling().count(workers);
        }
    }

    /// One that has a ceiling.
    pub(super) fn of(&self, name: &str) -> Option<Arc<Caller>> {
        self.callers.load().get(name).cloned()
    }
}

/// Tells the bulk lane that somebody it yields to has gone, one way or the other.
pub(super) struct Leaving<'a>(pub &'a Notify);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.notify_waiters();
    }
}

impl Caller {
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

    /// Waits until it may send one more request; in its bulk lane only while nobody waits in the other.
    ///
    /// # Errors
    /// When that is too late, or the line is too long to wait in.
    pub async fn admit(&self, ask: &Ask<'_>, line_max: usize) -> Result<(), NotNow> {
        let waiting = &self.waiting[ask.lane as usize];
        let _leaving = Leaving(&self.left);
        let _standing = Standing::new(waiting);
        let ahead = waiting.load(Ordering::Relaxed) - 1;
        if ahead >= line_max && ask.patience == Patience::ComeAgain {
            let ahead = u32::try_from(ahead).unwrap_or(u32::MAX);
            return Err(NotNow::ComeAgain(self.ceiling().each().saturating_mul(ahead)));
        }
        let turn = self.turns[ask.lane as usize].acquire();
        tokio::pin!(turn);
        let _turn = loop {
            let full = self.full.notified();
            check_hope(self.ceiling().full_until(), ask.not_after)?;
            tokio::select! {
                biased;
                turn = &mut turn => break turn.expect("the line is never closed"),
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
            check_hope(Some(until), ask.not_after)?;
            sleep_until(until).await;
        }
    }

    /// Whether somebody is waiting for an answer.
    fn is_waited_for(&self) -> bool {
        self.waiting[Lane::Interactive as usize].load(Ordering::Relaxed) > 0
    }

    fn ceiling(&self) -> MutexGuard<'_, PerMinute> {
        self.ceiling.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Refuses who would wait in vain.
pub(super) fn check_hope(not_before: Option<Instant>, not_after: Option<Instant>) -> Result<(), NotNow> {
    match (not_before, not_after) {
        (Some(not_before), Some(not_after)) if not_after < not_before => Err(NotNow::NotBefore(not_before)),
        _ => Ok(()),
    }
}

/// Counts itself among those who wait, for as long as it lives.
pub(super) struct Standing<'a>(&'a AtomicUsize);

impl<'a> Standing<'a> {
    pub fn new(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, Ordering::Relaxed);
        Self(waiting)
    }
}

impl Drop for Standing<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::Method;

    use super::*;

    /// How many requests of a caller pass in the next minute, counting no further than a hundred.
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
            patience: Patience::Wait,
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
