//! Whether a connection works, and why it does not: a bad credential, a lost scope, an org that is not
//! reached or takes no writes.
//!
//! What fails for all of a connection is nobody's own failure: its bulk lane is left alone until a probe
//! gets through. Invariant: a pause that began ends, by a probe or by new settings.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;
use tokio::time::Instant;

use crate::policy::pause::PauseReason;

/// A pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pause {
    pub reason: PauseReason,
    /// The scope whose loss it is about.
    pub(super) scope: &'static str,
    /// When Okta is tried next.
    pub next_probe: Instant,
}

impl Pause {
    /// Whether it stops an invocation of a tool with this scope that only reads, or writes.
    pub fn stops(&self, scope: &str, is_read: bool) -> bool {
        match self.reason {
            PauseReason::Unauthorized | PauseReason::Unreachable => true,
            PauseReason::Forbidden => self.scope == scope,
            PauseReason::ReadOnly => !is_read,
        }
    }
}

/// The pulse of a connection. It outlives its settings.
#[derive(Debug)]
pub struct Pulse {
    pause: watch::Sender<Option<Pause>>,
    /// Whether messages of the bulk lane are wanted.
    wants_bulk: watch::Sender<bool>,
    /// Good answers so far.
    beats: AtomicU64,
    /// Scopes that have worked.
    scopes: Mutex<HashSet<&'static str>>,
}

impl Default for Pulse {
    fn default() -> Self {
        Self {
            pause: watch::Sender::new(None),
            wants_bulk: watch::Sender::new(true),
            beats: AtomicU64::new(0),
            scopes: Mutex::default(),
        }
    }
}

impl Pulse {
    /// Whether messages of the bulk lane are wanted now.
    pub(super) fn wants_bulk(&self) -> watch::Receiver<bool> {
        self.wants_bulk.subscribe()
    }

    pub(super) fn pause(&self) -> Option<Pause> {
        *self.pause.borrow()
    }

    /// Begins a pause; false if there is one already.
    pub(super) fn begin(&self, pause: Pause) -> bool {
        let begins = self.pause.send_if_modified(|there| {
            let begins = there.is_none();
            if begins {
                *there = Some(pause);
            }
            begins
        });
        if begins {
            self.wants_bulk.send_replace(false);
        }
        begins
    }

    /// Replaces a pause, or ends it; false if it is no longer the one that goes on.
    pub(super) fn replace(&self, pause: Pause, next: Option<Pause>) -> bool {
        let is_there = self.pause.send_if_modified(|there| {
            let is_there = *there == Some(pause);
            if is_there {
                *there = next;
            }
            is_there
        });
        if is_there && next.is_none() {
            self.wants_bulk.send_replace(true);
        }
        is_there
    }

    /// Waits until a pause begins or ends, or its next probe is another one.
    pub(super) fn watch(&self) -> watch::Receiver<Option<Pause>> {
        self.pause.subscribe()
    }

    /// Okta has answered well.
    pub(super) fn beat(&self, scope: &'static str) {
        self.beats.fetch_add(1, Ordering::Relaxed);
        self.scopes.lock().unwrap_or_else(PoisonError::into_inner).insert(scope);
    }

    /// How often Okta has answered well.
    pub(super) fn beats(&self) -> u64 {
        self.beats.load(Ordering::Relaxed)
    }

    /// Whether a scope has ever worked.
    pub(super) fn has_worked(&self, scope: &str) -> bool {
        self.scopes.lock().unwrap_or_else(PoisonError::into_inner).contains(scope)
    }

    /// Ends any pause: the settings of the connection have changed, so that it may work now, with other scopes.
    pub fn resume(&self) {
        self.scopes.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.pause.send_replace(None);
        self.wants_bulk.send_replace(true);
    }
}
