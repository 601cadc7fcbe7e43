//! The System Log: its events, oldest first.

use std::collections::VecDeque;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::effects::ChangeKind;
use super::ids::Id;

/// The most events kept; Okta keeps 90 days, a simulation about this many changes.
const EVENTS_MAX: usize = 500_000;

/// The subject of an event.
#[derive(Debug, Clone)]
pub(super) struct Target {
    id: Id,
    kind: &'static str,
    alternate: String,
    name: String,
}

impl Target {
    pub(super) fn new(id: Id, kind: &'static str, alternate: &str, name: &str) -> Self {
        Self { id, kind, alternate: alternate.to_owned(), name: name.to_owned() }
    }

    pub(super) fn view(&self) -> Value {
        json!({
            "id": self.id,
            "type": self.kind,
            "alternateId": self.alternate,
            "displayName": self.name,
            "detailEntry": null,
        })
    }
}

/// A log event.
#[derive(Debug)]
pub(super) struct LogEvent {
    pub(super) uuid: uuid::Uuid,
    pub(super) published: Timestamp,
    pub(super) change: ChangeKind,
    pub(super) request_id: String,
    pub(super) path: String,
    pub(super) targets: Vec<Target>,
}

/// All events, oldest first.
#[derive(Debug, Default)]
pub(super) struct SystemLog {
    events: VecDeque<LogEvent>,
    /// The number of the first event kept.
    pub(super) first: u64,
}

impl SystemLog {
    pub(super) fn add(&mut self, event: LogEvent) {
        if self.events.len() == EVENTS_MAX {
            self.events.pop_front();
            self.first += 1;
        }
        self.events.push_back(event);
    }

    /// Returns the number that the next event will have.
    pub(super) fn end(&self) -> u64 {
        self.first + self.events.len() as u64
    }

    /// Returns the events with their numbers.
    pub(super) fn numbered(&self) -> impl DoubleEndedIterator<Item = (u64, &LogEvent)> {
        self.events.iter().enumerate().map(|(at, event)| (self.first + at as u64, event))
    }
}
