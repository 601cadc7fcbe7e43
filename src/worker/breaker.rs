//! The circuit breaker of a connection: it opens for a bad credential, a lost scope, or an org that cannot be
//! reached or takes no writes.
//!
//! A failure of the whole connection is not the failure of one invocation: the bulk lane is not consumed until a probe
//! succeeds. Invariant: a pause that has begun ends, by a probe or by new settings.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;
use tokio::time::Instant;

use crate::policy::pause::PauseReason;

/// A pause of a connection: its breaker is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pause {
    pub reason: PauseReason,
    /// The scope whose loss caused the pause.
    pub(super) scope: &'static str,
    /// The moment of the next probe.
    pub next_probe: Instant,
}

impl Pause {
    /// Returns true if the pause stops every invocation and the other one does not.
    fn is_wider_than(&self, other: Self) -> bool {
        let stops_all = |reason| match reason {
            PauseReason::Unauthorized | PauseReason::Unreachable => true,
            PauseReason::Forbidden | PauseReason::ReadOnly => false,
        };
        stops_all(self.reason) && !stops_all(other.reason)
    }

    /// Returns true if the pause stops an invocation of a tool with this scope that only reads, or writes.
    pub fn stops(&self, scope: &str, is_read: bool) -> bool {
        match self.reason {
            PauseReason::Unauthorized | PauseReason::Unreachable => true,
            PauseReason::Forbidden => self.scope == scope,
            PauseReason::ReadOnly => !is_read,
        }
    }
}

/// The circuit breaker of a connection. A reload keeps it.
#[derive(Debug)]
pub struct Breaker {
    pause: watch::Sender<Option<Pause>>,
    /// True if messages of the bulk lane are wanted.
    wants_bulk: watch::Sender<bool>,
    /// Good answers so far.
    good_answers: AtomicU64,
    /// Scopes that have worked.
    scopes: Mutex<HashSet<&'static str>>,
    /// The failure that caused the latest pause, in words.
    cause: Mutex<String>,
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            pause: watch::Sender::new(None),
            wants_bulk: watch::Sender::new(true),
            good_answers: AtomicU64::new(0),
            scopes: Mutex::default(),
            cause: Mutex::default(),
        }
    }
}

impl Breaker {
    /// Returns the signal that is true while messages of the bulk lane are wanted.
    pub(super) fn wants_bulk(&self) -> watch::Receiver<bool> {
        self.wants_bulk.subscribe()
    }

    pub(super) fn pause(&self) -> Option<Pause> {
        *self.pause.borrow()
    }

    /// Begins a pause, in place of a narrower one; returns false if there is another one already.
    pub(super) fn begin(&self, pause: Pause) -> bool {
        self.change(|current| {
            current.is_none_or(|current| pause.is_wider_than(current)).then_some(Some(pause))
        })
    }

    /// Replaces a pause, or ends it; returns false if it is no longer the current one.
    pub(super) fn replace(&self, pause: Pause, next: Option<Pause>) -> bool {
        self.change(|current| (current == Some(pause)).then_some(next))
    }

    /// Changes the pause; returns false if there is nothing to change. Both signals change under one lock, so that the
    /// bulk lane is never wanted during a pause.
    fn change(&self, next: impl FnOnce(Option<Pause>) -> Option<Option<Pause>>) -> bool {
        self.pause.send_if_modified(|current| match next(*current) {
            Some(next) => {
                *current = next;
                self.wants_bulk.send_replace(next.is_none());
                true
            }
            None => false,
        })
    }

    /// Returns a receiver that changes when a pause begins or ends, or gets another next probe.
    pub(super) fn watch(&self) -> watch::Receiver<Option<Pause>> {
        self.pause.subscribe()
    }

    /// Records a good answer of Okta's.
    pub(super) fn record_success(&self, scope: &'static str) {
        self.good_answers.fetch_add(1, Ordering::Relaxed);
        self.scopes.lock().unwrap_or_else(PoisonError::into_inner).insert(scope);
    }

    /// Records the failure that caused a pause.
    pub(super) fn record_cause(&self, why: &str) {
        why.clone_into(&mut self.cause.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Returns the failure that caused the latest pause, in words.
    pub(super) fn cause(&self) -> String {
        self.cause.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the number of Okta's good answers so far.
    pub(super) fn good_answers(&self) -> u64 {
        self.good_answers.load(Ordering::Relaxed)
    }

    /// Returns true if a scope has ever worked.
    pub(super) fn has_worked(&self, scope: &str) -> bool {
        self.scopes.lock().unwrap_or_else(PoisonError::into_inner).contains(scope)
    }

    /// Ends any pause: the settings of the connection have changed, so that it may work now, with other scopes.
    pub fn resume(&self) {
        self.scopes.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.change(|_| Some(None));
    }
}
