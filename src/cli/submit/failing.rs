//! The first failed rows at the end of a job, each with its line in the file and the reason.
//!
//! Okta's reasons repeat data from the row. This module masks the row's values, so that a screen and a log show none:
//! the results file has the whole answer.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::domain::result::ErrorCode;

use super::lines::{self, Line};
use super::row_set::RowSet;
use super::rows::{Next, Row, RowReader, Rows};

/// The most rows shown.
const SHOWN_MAX: usize = 20;

/// The longest line of results that is parsed: a failed one is far shorter.
const LINE_BYTES_MAX: usize = 9 * 1024 * 1024;

/// The most characters shown of a reason.
const REASON_CHARS_MAX: usize = 300;

/// The shortest value that is masked anywhere in a reason; a shorter one is masked only between quotes.
const VALUE_CHARS_MIN: usize = 3;

/// The replacement of a value.
const HIDDEN: &str = "…";

/// The reason that a row failed.
#[derive(Debug, PartialEq, Eq, Deserialize)]
struct Reason {
    code: ErrorCode,
    message: String,
}

/// The part of a line of results that is read here.
#[derive(Deserialize)]
struct RowAnswer {
    row: u64,
    error: Option<Reason>,
    result: Option<Box<RawValue>>,
}

/// The part of a plan that is read here.
#[derive(Deserialize)]
struct RowPlan {
    predicted: Foreseen,
}

#[derive(Deserialize)]
struct Foreseen {
    error: Option<Reason>,
}

impl RowAnswer {
    /// Returns the reason that the row failed, or would fail.
    fn reason(self) -> Option<Reason> {
        self.error.or_else(|| serde_json::from_str::<RowPlan>(self.result?.get()).ok()?.predicted.error)
    }
}

/// Returns a line for each of the first failed rows, and one with the number of further ones.
pub(super) fn lines(plan: &RowReader, results: &Path, failed: &RowSet) -> Vec<String> {
    let wanted: BTreeSet<u64> = failed.iter().take(SHOWN_MAX).collect();
    if wanted.is_empty() {
        return Vec::new();
    }
    let reasons = File::open(results).map(|file| reasons(BufReader::new(file), &wanted)).unwrap_or_default();
    let sources = sources(plan, &wanted);
    let mut lines: Vec<String> =
        reasons.iter().map(|(row, reason)| shown(*row, reason, sources.get(row))).collect();
    let more = failed.len().saturating_sub(SHOWN_MAX as u64);
    if more > 0 {
        lines.push(format!("and {more} more, all of them in the results"));
    }
    lines
}

fn shown(row: u64, Reason { code, message }: &Reason, source: Option<&Row>) -> String {
    let code = code.as_str();
    let Some(source) = source else { return format!("row {row}: {code}") };
    let reason = one_line(&without_values(message, &values(&source.body)));
    format!("row {row} (line {}): {code}: {reason}", source.line)
}

/// Returns the reasons of these rows from their results; the last line of a row counts.
fn reasons(mut results: impl BufRead, wanted: &BTreeSet<u64>) -> BTreeMap<u64, Reason> {
    let (mut line, mut found) = (Vec::new(), BTreeMap::new());
    loop {
        match lines::next(&mut results, &mut line, LINE_BYTES_MAX) {
            Ok(Line::Whole) => {}
            Ok(Line::TooLong) => continue,
            Ok(Line::Torn | Line::End) | Err(_) => return found,
        }
        // Nearly all lines are of other rows, and parsing them all would take long.
        if !row_of(&line).is_some_and(|row| wanted.contains(&row)) {
            continue;
        }
        let Ok(answer) = serde_json::from_slice::<RowAnswer>(&line) else { continue };
        let row = answer.row;
        match answer.reason() {
            Some(reason) => drop(found.insert(row, reason)),
            None => drop(found.remove(&row)),
        }
    }
}

/// Returns the row at the beginning of a line of results.
fn row_of(line: &[u8]) -> Option<u64> {
    let rest = line.strip_prefix(b"{\"row\":")?;
    let digits = rest.iter().position(|byte| !byte.is_ascii_digit())?;
    std::str::from_utf8(&rest[..digits]).ok()?.parse().ok()
}

/// Returns these rows of the file, if it is unchanged since it was sent.
fn sources(plan: &RowReader, wanted: &BTreeSet<u64>) -> BTreeMap<u64, Row> {
    let mut found = BTreeMap::new();
    let Some(last) = wanted.last().filter(|_| plan.is_unchanged()) else { return found };
    let Ok((mut rows, _)) = Rows::open(plan) else { return found };
    while rows.count() < *last {
        match rows.next() {
            Ok(Next::Row(row)) if wanted.contains(&row.number) => drop(found.insert(row.number, row)),
            Ok(Next::Row(_) | Next::Faulty(_)) => {}
            Ok(Next::End) | Err(_) => break,
        }
    }
    // Rows read from a file that changes meanwhile are not the rows that were sent.
    if plan.is_unchanged() { found } else { BTreeMap::new() }
}

/// Returns the texts in a body's arguments, the longest first.
fn values(body: &[u8]) -> Vec<String> {
    fn collect(value: &Value, into: &mut Vec<String>) {
        match value {
            Value::String(text) => into.push(text.trim().to_owned()),
            Value::Array(items) => items.iter().for_each(|item| collect(item, into)),
            Value::Object(members) => members.values().for_each(|member| collect(member, into)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
    let mut values = Vec::new();
    if let Ok(body) = serde_json::from_slice::<Value>(body) {
        collect(&body["arguments"], &mut values);
    }
    values.retain(|value| !value.is_empty());
    values.sort_unstable_by_key(|value| std::cmp::Reverse(value.len()));
    values.dedup();
    values
}

/// Masks every value that occurs as a word in a text.
fn without_values(text: &str, values: &[String]) -> String {
    values.iter().fold(text.to_owned(), |text, value| without(&text, value))
}

fn without(text: &str, value: &str) -> String {
    let (lower, wanted) = (text.to_ascii_lowercase(), value.to_ascii_lowercase());
    let is_short = value.chars().count() < VALUE_CHARS_MIN;
    let (mut out, mut from) = (String::new(), 0);
    for (at, _) in lower.match_indices(&wanted) {
        let (before, after) = (text[..at].chars().next_back(), text[at + wanted.len()..].chars().next());
        let is_border = |c: Option<char>| match c {
            Some(c) if is_short => matches!(c, '`' | '"' | '\''),
            Some(c) => !c.is_alphanumeric() && c != '_',
            None => !is_short,
        };
        if at >= from && is_border(before) && is_border(after) {
            out.push_str(&text[from..at]);
            out.push_str(HIDDEN);
            from = at + wanted.len();
        }
    }
    out.push_str(&text[from..]);
    out
}

/// Returns a reason on one line of limited length, without characters that a terminal interprets.
fn one_line(text: &str) -> String {
    let mut line = String::new();
    for c in text.chars().take(REASON_CHARS_MAX) {
        if is_harmless(c) { line.push(c) } else { line.extend(c.escape_unicode()) }
    }
    if text.chars().nth(REASON_CHARS_MAX).is_some() {
        line.push_str(HIDDEN);
    }
    line
}

/// Returns true if a terminal shows a character literally: no control, no change of text direction, no tag.
fn is_harmless(c: char) -> bool {
    !c.is_control()
        && !matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::catalogue::find;

    #[test]
    fn the_first_rows_that_failed_are_shown_with_their_lines_and_without_their_values() {
        let dir = tempfile::tempdir().unwrap();
        let (file, results) = (dir.path().join("people.csv"), dir.path().join("results"));
        let rows: String = (1..=30).map(|row| format!("ana{row}@x.example,VP\n,\n")).collect();
        std::fs::write(&file, format!("user_id,profile.title\n{rows}")).unwrap();
        let mut text = String::from("{\"row\":1,\"status\":\"succeeded\"}\n");
        let mut failed = RowSet::default();
        for row in (2..=30).rev() {
            failed.insert(row);
            let error = format!(
                "{{\"code\":\"not_found\",\"message\":\"failed to find user `ANA{row}@x.example`, a \\u202e`VP`\"}}"
            );
            text.push_str(&match row % 2 {
                0 => format!("{{\"row\":{row},\"status\":\"failed\",\"error\":{error}}}\n"),
                _ => format!("{{\"row\":{row},\"result\":{{\"predicted\":{{\"error\":{error}}}}}}}\n"),
            });
        }
        std::fs::write(&results, text).unwrap();
        let plan = RowReader::new(file.clone(), find("update_user"), None, &[]).unwrap();
        let said = lines(&plan, &results, &failed);
        assert_eq!(said.len(), SHOWN_MAX + 1);
        assert_eq!(said[0], "row 2 (line 4): not_found: failed to find user `…`, a \\u{202e}`…`");
        assert_eq!(said[1], "row 3 (line 6): not_found: failed to find user `…`, a \\u{202e}`…`");
        assert_eq!(said[SHOWN_MAX], "and 9 more, all of them in the results");
        // Unknown values cannot be masked, so the reason is not shown.
        std::fs::write(&file, "user_id\nsomebody else\n").unwrap();
        assert_eq!(lines(&plan, &results, &failed)[0], "row 2: not_found");
        assert_eq!(lines(&plan, &results, &RowSet::default()), Vec::<String>::new());
    }

    #[test]
    fn values_are_taken_out_where_they_stand_as_words() {
        let body =
            br#"{"subtool":"create_user","arguments":{"profile":{"login":"ana@x.example","a":"ana","n":"x"},
                       "group_ids":["00g1"],"activate":true}}"#;
        let values = values(body);
        for (text, expected) in [
            ("login: ana@x.example is taken", "login: … is taken"),
            ("Ana and `x` and x", "… and `…` and x"),
            ("analysis of banana", "analysis of banana"),
            ("group 00g1.", "group …."),
            ("activate: true", "activate: true"),
        ] {
            assert_eq!(without_values(text, &values), expected);
        }
        assert_eq!(one_line(&"x".repeat(400)).chars().count(), REASON_CHARS_MAX + 1);
    }
}
