//! The last windows of a bucket, with the requests of each client.
//!
//! Only records; `limits` decides which requests pass.

use std::collections::VecDeque;

use jiff::Timestamp;
use serde::Serialize;

/// The number of windows kept: an hour of them at Okta's length.
const WINDOWS_MAX: usize = 60;

/// A past window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PastWindow {
    /// The time of its first request.
    pub opened: Timestamp,
    /// The number of requests it allowed.
    pub limit: u32,
    /// The requests of each client, by its number: 0 is the client that called this org first, in any bucket.
    pub clients: Vec<ClientRequests>,
}

/// The requests of one client in one window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct ClientRequests {
    /// Requests accepted, failed ones included.
    pub accepted: u32,
    /// Requests refused because the window was spent.
    pub refused: u32,
    /// Requests refused because too many were in flight.
    pub refused_concurrent: u32,
}

/// The last windows of a bucket, oldest first.
#[derive(Debug, Clone, Default)]
pub(super) struct TrafficHistory(VecDeque<PastWindow>);

impl TrafficHistory {
    /// Opens a new window.
    pub(super) fn open(&mut self, opened: Timestamp, limit: u32) {
        if self.0.len() == WINDOWS_MAX {
            self.0.pop_front();
        }
        self.0.push_back(PastWindow { opened, limit, clients: Vec::new() });
    }

    /// Records a client's request in the latest window. A refusal before the first window is not recorded.
    pub(super) fn note(&mut self, client: usize, note: impl FnOnce(&mut ClientRequests)) {
        let Some(past) = self.0.back_mut() else { return };
        if past.clients.len() <= client {
            past.clients.resize(client + 1, ClientRequests::default());
        }
        note(&mut past.clients[client]);
    }

    pub(super) fn windows(&self) -> Vec<PastWindow> {
        self.0.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_windows_are_forgotten() {
        let mut history = TrafficHistory::default();
        for second in 0..100 {
            history.open(Timestamp::from_second(second).unwrap(), 5);
            history.note(1, |tally| tally.accepted += 1);
        }
        let windows = history.windows();
        assert_eq!((windows.len(), windows[0].opened.as_second()), (WINDOWS_MAX, 40));
        let once = ClientRequests { accepted: 1, ..ClientRequests::default() };
        assert_eq!(windows[0].clients, [ClientRequests::default(), once]);
    }

    #[test]
    fn a_refusal_before_the_first_window_is_in_none() {
        let mut history = TrafficHistory::default();
        history.note(0, |tally| tally.refused_concurrent += 1);
        assert!(history.windows().is_empty());
    }
}
