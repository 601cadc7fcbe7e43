//! The ceilings of callers: what one caller may send in a minute, on all connections together.
//!
//! Whoever is at its ceiling waits here, before it stands in any bucket's line, so it delays nobody else.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, sleep_until};

use crate::worker::ports::{NotNow, Patience};

use super::ceiling::PerMinute;

/// All callers that have a ceiling.
#[derive(Default)]
pub struct CallerCeilings {
    callers: HashMap<String, Caller>,
}

struct Caller {
    ceiling: Mutex<PerMinute>,
    /// Only the head of the line asks.
    turn: Semaphore,
    waiting: AtomicUsize,
    /// It was found to be full: whoever stands in line may know now that it is in vain.
    full: Notify,
}

impl CallerCeilings {
    /// The ceilings by caller, in requests per minute of all workers together.
    pub fn new(callers: impl IntoIterator<Item = (String, u32)>) -> Arc<Self> {
        let caller = |most| Caller {
            ceiling: Mutex::new(PerMinute::new(most)),
            turn: Semaphore::new(1),
            waiting: AtomicUsize::new(0),
            full: Notify::new(),
        };
        Arc::new(Self { callers: callers.into_iter().map(|(name, most)| (name, caller(most))).collect() })
    }

    /// The broker counted the workers: each has its part.
    pub(super) fn count(&self, workers: u32) {
        for caller in self.callers.values() {
            caller.ceiling().count(workers);
        }
    }

    /// Waits until the caller may send one more request.
    ///
    /// # Errors
    /// When that is too late, or the line is too long to wait in.
    pub(super) async fn admit(
        &self,
        name: Option<&str>,
        not_after: Option<Instant>,
        patience: Patience,
        line_max: usize,
    ) -> Result<(), NotNow> {
        let Some(caller) = name.and_then(|name| self.callers.get(name)) else { return Ok(()) };
        let _standing = Standing::new(&caller.waiting);
        let ahead = caller.waiting.load(Ordering::Relaxed) - 1;
        if ahead >= line_max && patience == Patience::ComeAgain {
            let ahead = u32::try_from(ahead).unwrap_or(u32::MAX);
            return Err(NotNow::ComeAgain(caller.ceiling().each().saturating_mul(ahead)));
        }
        let turn = caller.turn.acquire();
        tokio::pin!(turn);
        let _turn = loop {
            let full = caller.full.notified();
            check_hope(caller.ceiling().full_until(), not_after)?;
            tokio::select! {
                biased;
                turn = &mut turn => break turn.expect("the line is never closed"),
                () = full => {}
            }
        };
        loop {
            let asked = caller.ceiling().take();
            let Err(until) = asked else { return Ok(()) };
            caller.full.notify_waiters();
            check_hope(Some(until), not_after)?;
            sleep_until(until).await;
        }
    }
}

impl Caller {
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
