//! Detection of rows that repeat an earlier one: most often a person occurs twice in a file. Such rows cause a
//! warning and are sent all the same, since only Okta can tell.
//!
//! Per row a hash and two numbers are kept, for a limited number of rows.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::cli::submit::rows::Row;
use crate::tools::ToolKind;
use crate::tools::catalogue;

/// The most rows compared: 24 MB.
const ROWS_MAX: usize = 1_000_000;

/// The most repeated rows named.
const NAMED_MAX: usize = 5;

/// The rows seen so far.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    hasher: RandomState,
    seen: Vec<SeenRow>,
    rows_max: usize,
    is_cut: bool,
}

/// The data kept of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct SeenRow {
    hash: u64,
    row: u64,
    line: u64,
}

/// The identity of a row.
#[derive(Debug, PartialEq, Eq, Hash)]
enum RowKey {
    /// A row that creates a user with this login.
    Login(String),
    /// A row that creates a group with this name.
    Name(String),
    /// A row with this subtool and these arguments.
    Whole(String, String),
}

#[derive(Deserialize)]
struct NamedBody<'a> {
    subtool: String,
    #[serde(borrow)]
    arguments: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct NamedArguments {
    name: Option<String>,
    profile: Option<NamedProfile>,
}

#[derive(Deserialize)]
struct NamedProfile {
    login: Option<String>,
}

impl RowKey {
    /// Returns the key of a body; `None` if it may be repeated.
    fn of(body: &[u8]) -> Option<Self> {
        let NamedBody { subtool, arguments } = serde_json::from_slice(body).ok()?;
        let arguments = arguments?.get();
        let named = || serde_json::from_str::<NamedArguments>(arguments).ok();
        match subtool.as_str() {
            // Okta's logins are case-insensitive.
            "create_user" => Some(Self::Login(named()?.profile?.login?.trim().to_lowercase())),
            "create_group" => Some(Self::Name(named()?.name?)),
            other => {
                let is_read =
                    catalogue::find(other).is_none_or(|entry| entry.manifest.kind == ToolKind::Read);
                (!is_read).then(|| Self::Whole(subtool.clone(), arguments.to_owned()))
            }
        }
    }
}

impl Repeats {
    /// Creates a set without rows.
    pub fn new() -> Self {
        Self { rows_max: ROWS_MAX, ..Self::default() }
    }

    /// Adds a valid row.
    pub fn note(&mut self, row: &Row) {
        let Some(key) = RowKey::of(&row.body) else { return };
        if self.seen.len() == self.rows_max {
            self.is_cut = true;
            return;
        }
        self.seen.push(SeenRow { hash: self.hasher.hash_one(key), row: row.number, line: row.line });
    }

    /// Returns the warning about rows that repeat an earlier one, if there are any.
    pub fn words(mut self) -> Option<String> {
        self.seen.sort_unstable();
        let same = self.seen.chunk_by(|one, other| one.hash == other.hash);
        let mut repeated: Vec<(SeenRow, SeenRow)> =
            same.flat_map(|rows| rows[1..].iter().map(|again| (*again, rows[0]))).collect();
        repeated.sort_unstable_by_key(|(again, _)| again.row);
        if repeated.is_empty() {
            return None;
        }
        let name = |(again, first): &(SeenRow, SeenRow)| {
            format!("row {} (line {}) as row {} (line {})", again.row, again.line, first.row, first.line)
        };
        let named: Vec<String> = repeated.iter().take(NAMED_MAX).map(name).collect();
        let more = repeated.len() - named.len();
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let cut = if self.is_cut { format!("; of the first {} rows", self.rows_max) } else { String::new() };
        let (count, verb) = match repeated.len() {
            1 => ("1 row".to_owned(), "is for the same as an earlier one"),
            count => (format!("{count} rows"), "are for the same as an earlier one"),
        };
        Some(format!("{count} {verb}: {}{more}{cut}", named.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(rows_max: usize, bodies: &[&str]) -> Option<String> {
        let mut repeats = Repeats { rows_max, ..Repeats::new() };
        for (number, body) in (1..).zip(bodies) {
            repeats.note(&Row { number, line: number + 1, body: body.as_bytes().to_vec() });
        }
        repeats.words()
    }

    #[test]
    fn who_is_created_twice_is_named_by_row_and_line() {
        let ana = r#"{"subtool":"create_user","arguments":{"profile":{"login":"ana@x.example","firstName":"Ana"}}}"#;
        let other = r#"{"subtool":"create_user","arguments":{"profile":{"login":" ANA@x.example"},"activate":false}}"#;
        let ben = r#"{"subtool":"create_user","arguments":{"profile":{"login":"ben@x.example","firstName":"Ana"}}}"#;
        let expected = "2 rows are for the same as an earlier one: row 3 (line 4) as row 1 (line 2), \
                        row 4 (line 5) as row 1 (line 2)";
        assert_eq!(words(9, &[ana, ben, other, ana]).as_deref(), Some(expected));
        assert_eq!(words(9, &[ana, ben]), None);
        let sales = r#"{"subtool":"create_group","arguments":{"name":"Sales"}}"#;
        let again = r#"{"subtool":"create_group","arguments":{"name":"Sales","description":"x"}}"#;
        let expected = "1 row is for the same as an earlier one: row 2 (line 3) as row 1 (line 2)";
        assert_eq!(words(9, &[sales, again]).as_deref(), Some(expected));
        let many = vec![ana; 9];
        assert!(words(99, &many).unwrap().ends_with(" and 3 more"));
        assert!(words(2, &many).unwrap().ends_with("; of the first 2 rows"));
    }

    #[test]
    fn the_same_write_twice_is_named_and_reads_and_other_changes_are_not() {
        let write = r#"{"subtool":"deactivate_user","arguments":{"user_id":"ana"}}"#;
        assert!(words(9, &[write, write]).is_some());
        for (one, other) in [
            (
                r#"{"subtool":"get_user","arguments":{"user_id":"ana"}}"#,
                r#"{"subtool":"get_user","arguments":{"user_id":"ana"}}"#,
            ),
            (write, r#"{"subtool":"activate_user","arguments":{"user_id":"ana"}}"#),
            (
                r#"{"subtool":"update_user","arguments":{"user_id":"ana","profile":{"title":"a"}}}"#,
                r#"{"subtool":"update_user","arguments":{"user_id":"ana","profile":{"title":"b"}}}"#,
            ),
            (
                r#"{"subtool":"create_group","arguments":{"name":"a"}}"#,
                r#"{"subtool":"create_user","arguments":{"profile":{"login":"a"}}}"#,
            ),
        ] {
            assert_eq!(words(9, &[one, other]), None, "{one} {other}");
        }
    }
}
