//! The sequence that keeps the rows of one subject in file order: a row is sent after the result of the one before.
//!
//! Rows of other subjects, and rows without one, overtake waiting rows. At most a fixed number of rows waits here;
//! then the file is read no further until one of them may be sent. Pure: it knows no file, no broker and no clock.

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::tools::subject::{Subject, subject};

/// The most rows that wait here, and so how far the file is read ahead: ten windows of rows in the broker.
const ROWS_MAX: usize = 10_000;

/// The same limit in bytes: rows may be large.
const BYTES_MAX: usize = 8 * 1024 * 1024;

/// A row that has not been sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unsent {
    /// The row number.
    pub number: u64,
    /// The body of its invocation.
    pub body: Vec<u8>,
}

/// The rows of one subject.
#[derive(Debug, Default)]
struct SubjectQueue {
    /// The number of rows without a result that were sent or may be sent.
    out: usize,
    /// The rows behind them.
    waiting: VecDeque<Unsent>,
}

/// The rows in the order in which they may be sent.
#[derive(Debug, Default)]
pub(super) struct Sequence {
    subjects: HashMap<Subject, SubjectQueue>,
    /// The subjects of rows without a result that were sent or may be sent.
    subject_of: HashMap<u64, Subject>,
    /// The rows that may be sent.
    ready: VecDeque<Unsent>,
    /// The number of rows here, and their size.
    rows: usize,
    bytes: usize,
}

/// The part of a body that determines its subject.
#[derive(Deserialize)]
struct SubjectFields<'a> {
    #[serde(borrow)]
    subtool: Cow<'a, str>,
    #[serde(borrow)]
    arguments: Option<&'a RawValue>,
}

/// Returns the subject of a row.
pub(super) fn subject_of(body: &[u8]) -> Option<Subject> {
    let SubjectFields { subtool, arguments } = serde_json::from_slice(body).ok()?;
    subject(&subtool, arguments?)
}

impl Sequence {
    /// Adds the next row of the file.
    pub fn add(&mut self, row: Unsent) {
        self.rows += 1;
        self.bytes += row.body.len();
        let Some(subject) = subject_of(&row.body) else { return self.ready.push_back(row) };
        let queue = self.subjects.entry(subject).or_default();
        if queue.out == 0 && queue.waiting.is_empty() {
            queue.out = 1;
            self.subject_of.insert(row.number, subject);
            self.ready.push_back(row);
        } else {
            queue.waiting.push_back(row);
        }
    }

    /// Adds the next row of the file, which an earlier run has sent and which has no result yet.
    pub fn add_sent(&mut self, number: u64, body: &[u8]) {
        if let Some(subject) = subject_of(body) {
            self.subjects.entry(subject).or_default().out += 1;
            self.subject_of.insert(number, subject);
        }
    }

    /// Records that a row has its result, so that the next one of its subject may be sent.
    pub fn answered(&mut self, number: u64) {
        let Some(subject) = self.subject_of.remove(&number) else { return };
        let Some(queue) = self.subjects.get_mut(&subject) else { return };
        queue.out -= 1;
        if queue.out > 0 {
            return;
        }
        match queue.waiting.pop_front() {
            Some(next) => {
                queue.out = 1;
                self.subject_of.insert(next.number, subject);
                self.ready.push_back(next);
            }
            None => {
                self.subjects.remove(&subject);
            }
        }
    }

    /// Returns a row that may be sent.
    pub fn next(&mut self) -> Option<Unsent> {
        let row = self.ready.pop_front()?;
        self.rows -= 1;
        self.bytes -= row.body.len();
        Some(row)
    }

    /// Returns true if no further row may be added.
    pub fn is_full(&self) -> bool {
        self.rows >= ROWS_MAX || self.bytes >= BYTES_MAX
    }

    /// Returns true if every added row was sent.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(number: u64, subtool: &str, arguments: &str) -> Unsent {
        let body = format!(r#"{{"subtool":"{subtool}","arguments":{arguments}}}"#).into_bytes();
        Unsent { number, body }
    }

    fn of(number: u64, user: &str) -> Unsent {
        row(number, "get_user", &format!(r#"{{"user_id":"{user}"}}"#))
    }

    fn leaving(sequence: &mut Sequence) -> Vec<u64> {
        std::iter::from_fn(|| sequence.next()).map(|row| row.number).collect()
    }

    #[test]
    fn a_row_waits_for_the_result_of_the_one_before_it_and_others_overtake_it() {
        let mut sequence = Sequence::default();
        sequence.add(row(1, "create_user", r#"{"profile":{"login":"Ana@x.example"}}"#));
        sequence.add(row(2, "add_user_to_group", r#"{"group_id":"00g1","user_id":"ana@x.example"}"#));
        sequence.add(of(3, "bo@x.example"));
        sequence.add(row(4, "list_users", "{}"));
        sequence.add(row(5, "update_user", r#"{"user_id":"ANA@x.example","profile":{"title":"x"}}"#));
        sequence.add(row(6, "list_users", "{}"));
        assert_eq!(leaving(&mut sequence), [1, 3, 4, 6]);
        sequence.answered(3);
        sequence.answered(4);
        assert_eq!(leaving(&mut sequence), Vec::<u64>::new());
        sequence.answered(1);
        assert_eq!(leaving(&mut sequence), [2]);
        sequence.answered(2);
        assert_eq!((leaving(&mut sequence), sequence.is_empty()), (vec![5], true));
        sequence.answered(5);
        assert!(
            sequence.subjects.is_empty() && sequence.subject_of.is_empty(),
            "nothing is kept of what is done"
        );
    }

    #[test]
    fn a_row_waits_for_those_that_an_earlier_run_has_sent() {
        let mut sequence = Sequence::default();
        // Version 0.1.0 sent both at once.
        sequence.add_sent(1, &of(1, "ana").body);
        sequence.add_sent(2, &of(2, "ana").body);
        sequence.add(of(3, "ana"));
        assert_eq!((leaving(&mut sequence), sequence.is_empty()), (Vec::new(), false));
        sequence.answered(2);
        assert_eq!(leaving(&mut sequence), Vec::<u64>::new());
        sequence.answered(1);
        assert_eq!(leaving(&mut sequence), [3]);
    }

    #[test]
    fn no_more_rows_wait_than_are_allowed() {
        let mut sequence = Sequence::default();
        let mut number = 0;
        while !sequence.is_full() {
            number += 1;
            sequence.add(of(number, "ana"));
        }
        assert_eq!((number, leaving(&mut sequence)), (ROWS_MAX as u64, vec![1]));
        assert!(!sequence.is_full());
        let mut sequence = Sequence::default();
        while !sequence.is_full() {
            sequence.add(Unsent { number: 1, body: vec![b'x'; 1024 * 1024] });
        }
        assert_eq!(sequence.rows, 8);
    }
}
