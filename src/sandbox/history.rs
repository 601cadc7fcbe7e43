//! What went through the last windows of a bucket, client by client.
//!
//! It only remembers; who passes is decided in `limits`.

use std::collections::VecDeque;

use jiff::Timestamp;
use serde::Serialize;

/// Windows remembered: an hour of them at Okta's length.
const WINDOWS_MAX: usize = 60;

/// One window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Past {
    /// When its first request came.
    pub opened: Timestamp,
    /// Requests it had room for.
    pub limit: u32,
    /// What each client sent, by its number: 0 is the one that called this org first, whatever bucket.
    pub clients: Vec<Tally>,
}

/// What one client sent in one window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Tally {
    /// Requests let through, failed ones included.
    pub accepted: u32,
    /// Requests refused because the window was spent.
    pub refused: u32,
    /// Requests refused because too many were in flight.
    pub refused_concurrent: u32,
}

/// The last windows of a bucket, the oldest first.
#[derive(Debug, Clone, Default)]
pub(super) struct History(VecDeque<Past>);

impl History {
    /// A new window has opened.
    pub(super) fn open(&mut self, opened: Timestamp, limit: u32) {
        if self.0.len() == WINDOWS_MAX {
            self.0.pop_front();
        }
        self.0.push_back(Past { opened, limit, clients: Vec::new() });
    }

    /// What a client sent in the latest window. A refusal before the first one is in none.
    pub(super) fn note(&mut self, client: usize, note: impl FnOnce(&mut Tally)) {
        let Some(past) = self.0.back_mut() else { return };
        if past.clients.len() <= client {
            past.clients.resize(client + 1, Tally::default());
        }
        note(&mut past.clients[client]);
    }

    pub(super) fn windows(&self) -> Vec<Past> {
        self.0.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_windows_are_forgotten() {
        let mut history = History::default();
        for second in 0..100 {
            history.open(Timestamp::from_second(second).unwrap(), 5);
            history.note(1, |tally| tally.accepted += 1);
        }
        let windows = history.windows();
        assert_eq!((windows.len(), windows[0].opened.as_second()), (WINDOWS_MAX, 40));
        let once = Tally { accepted: 1, ..Tally::default() };
        assert_eq!(windows[0].clients, [Tally::default(), once]);
    }

    #[test]
    fn a_refusal_before_the_first_window_is_in_none() {
        let mut history = History::default();
        history.note(0, |tally| tally.refused_concurrent += 1);
        assert!(history.windows().is_empty());
    }
}
