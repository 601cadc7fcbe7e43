//! One parked message, formatted for people and for programs. Shows no body unless asked for.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};

use super::parked::{Content, Parked};
use crate::domain::json::to_vec;
use crate::domain::text::{Keeps, escaped};
use crate::rabbit::{DeadLetter, DeadLetterHandle};

/// A parked message.
pub(super) struct ParkedEntry {
    /// The data from its properties.
    pub parked: Parked,
    /// The data from its body.
    pub content: Content,
    /// The body.
    pub body: bytes::Bytes,
    /// The right to remove the message from the queue.
    pub slip: DeadLetterHandle,
}

/// A list entry.
#[derive(Serialize)]
struct EntryLine<'a> {
    id: Option<&'a str>,
    parked: Option<Timestamp>,
    sent: Option<Timestamp>,
    connection: Option<&'a str>,
    lane: Option<&'a str>,
    subtool: Option<&'a str>,
    caller: Option<&'a str>,
    reason: Option<&'a str>,
    attempts: u32,
    redeliveries: u32,
    bytes: usize,
}

/// The column names of the table.
pub(super) const HEAD: [&str; 7] =
    ["ID", "PARKED", "CONNECTION.LANE", "SUBTOOL", "CALLER", "REASON", "ATTEMPTS"];

/// The width of each column but the last: ids are mostly UUIDs. Longer texts are not cut.
const WIDTHS: [usize; 6] = [36, 20, 20, 22, 16, 10];

impl ParkedEntry {
    /// Reads a found message.
    pub fn new(found: DeadLetter, own_user: &str) -> Self {
        let DeadLetter { properties, body, slip } = found;
        Self { parked: Parked::new(properties, own_user), content: Content::read(&body), body, slip }
    }

    /// Returns the list entry as JSON, for programs.
    pub fn json(&self) -> Map<String, Value> {
        serde_json::from_slice(&to_vec(&self.line())).expect("what was written is read")
    }

    /// Returns the list entry.
    fn line(&self) -> EntryLine<'_> {
        let Parked { id, caller, reason, attempts, redeliveries, sent, parked, .. } = &self.parked;
        let address = self.parked.address.as_ref().ok();
        let whole_seconds = |at: Timestamp| Timestamp::from_second(at.as_second()).unwrap_or(at);
        EntryLine {
            id: id.as_deref(),
            parked: parked.map(whole_seconds),
            sent: sent.map(whole_seconds),
            connection: address.map(|(name, _)| name.as_str()),
            lane: address.map(|(_, lane)| lane.as_str()),
            subtool: self.content.subtool.as_deref(),
            caller: caller.as_deref(),
            reason: reason.as_deref(),
            attempts: *attempts,
            redeliveries: *redeliveries,
            bytes: self.body.len(),
        }
    }

    /// Returns the list entry as a row of a table.
    pub fn row(&self) -> String {
        let EntryLine { id, parked, sent, connection, lane, subtool, caller, reason, attempts, .. } =
            self.line();
        let text = |text: Option<&str>| text.map_or_else(|| "-".to_owned(), plain);
        let place = connection.zip(lane).map(|(connection, lane)| format!("{connection}.{lane}"));
        let at = parked.or(sent).map(|at| at.to_string());
        let cells = [id, at.as_deref(), place.as_deref(), subtool, caller, reason].map(text);
        row(&cells, &attempts.to_string())
    }

    /// Adds the raw body to a JSON entry.
    pub fn add_raw_body(&self, line: &mut Map<String, Value>) {
        match std::str::from_utf8(&self.body) {
            Ok(text) => line.insert("body_text".into(), text.into()),
            Err(_) => line.insert("body_base64".into(), BASE64_STANDARD.encode(&self.body).into()),
        };
    }

    /// Returns the raw body for people.
    pub fn raw_body_shown(&self) -> String {
        indented(&String::from_utf8_lossy(&self.body))
    }

    /// Returns the id for use in a sentence.
    pub fn name(&self) -> String {
        self.parked.id.as_deref().map_or_else(|| "(no id)".to_owned(), plain)
    }
}

/// Returns the head of the table.
pub(super) fn head() -> String {
    let [cells @ .., last] = HEAD;
    row(&cells.map(str::to_owned), last)
}

fn row(cells: &[String; 6], last: &str) -> String {
    let mut row = String::new();
    for (cell, width) in cells.iter().zip(WIDTHS) {
        let _ = write!(row, "{cell:<width$}  "); // writing to a text does not fail
    }
    row + last
}

/// Indents an external text, and makes each line of it harmless to a terminal.
pub(super) fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {}", plain(line))).collect::<Vec<_>>().join("\n")
}

/// Makes an external text harmless to a terminal, on one line.
pub(super) fn plain(text: &str) -> String {
    escaped(text, Keeps::Nothing).into_owned()
}
