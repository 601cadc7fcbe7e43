//! The definition of a job: its file, the operation on its rows, and all names derived from them.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::domain::ids::{ConnectionName, Lane};
use crate::domain::topology::REPLIES;

use super::line_file::beside;
use super::row_set::RowSet;

/// The number of hexadecimal digits of a job id.
const ID_CHARS: usize = 16;

/// The id of a job, or of a later attempt at its failed rows: 16 random hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct JobId(String);

impl JobId {
    /// Returns a new id.
    pub fn random() -> Self {
        Self(Uuid::new_v4().simple().to_string()[..ID_CHARS].to_owned())
    }

    /// Returns the id of a job that version 0.1.0 began: the beginning of the digest.
    fn of_version_0_1_0(sha256: &str) -> Result<Self, String> {
        sha256.get(..ID_CHARS).unwrap_or(sha256).to_owned().try_into()
    }

    /// Returns the job id in an invocation's id.
    pub fn of_invocation(id: &str) -> Option<Self> {
        id.split_once('.')?.0.to_owned().try_into().ok()
    }
}

impl TryFrom<String> for JobId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        let is_id = text.len() == ID_CHARS && text.bytes().all(is_digit);
        if is_id { Ok(Self(text)) } else { Err("it is not the id of a job".to_owned()) }
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A file, and the operation on its rows.
#[derive(Debug, Clone)]
pub(super) struct SubmitJob {
    /// The input file.
    pub file: PathBuf,
    /// The results file.
    pub results: PathBuf,
    /// The connection.
    pub connection: ConnectionName,
    /// The lane.
    pub lane: Lane,
    /// The terms, which must not change when the job is resumed.
    pub terms: JobTerms,
    /// The ids of its rows.
    pub attempts: Attempts,
}

/// The terms of a job that must not change when it is resumed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct JobTerms {
    /// The SHA-256 of the file, in hexadecimal digits.
    pub sha256: String,
    /// The number of rows.
    pub rows: u64,
    /// The subtool of all rows; `None` if each row names its own.
    pub subtool: Option<String>,
    /// The digest of the other options that determine the rows, such as `--set`; `None` if there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reading: Option<String>,
    /// The connection.
    pub connection: String,
    /// The lane.
    pub lane: String,
    /// True if this is a dry run.
    pub dry_run: bool,
    /// True if the worker runs inside the process, without a broker.
    pub embedded: bool,
}

/// The difference between the terms of a journal and those of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Difference {
    /// The file has changed.
    File,
    /// An option of the command, in words.
    Command(String),
}

impl JobTerms {
    /// Returns the first difference between a journal's terms and these; `None` if they are equal.
    pub fn difference(&self, journal: &Self) -> Option<Difference> {
        let Self { sha256, rows: _, subtool, reading, connection, lane, dry_run, embedded } = self;
        if *sha256 != journal.sha256 {
            return Some(Difference::File);
        }
        if *reading != journal.reading {
            return Some(Difference::Command("another `--set` or `--delimiter`".to_owned()));
        }
        let named = |subtool: &Option<String>| subtool.clone().unwrap_or_else(|| "each row's own".to_owned());
        let way = |embedded: bool| if embedded { "--embedded" } else { "by the broker" }.to_owned();
        let texts = [
            ("subtool", named(&journal.subtool), named(subtool)),
            ("connection", journal.connection.clone(), connection.clone()),
            ("lane", journal.lane.clone(), lane.clone()),
            ("dry run", journal.dry_run.to_string(), dry_run.to_string()),
            ("way", way(journal.embedded), way(*embedded)),
        ];
        let (what, was, is) = texts.into_iter().find(|(_, was, is)| was != is)?;
        Some(Difference::Command(format!("another {what} (`{was}`, not `{is}`)")))
    }
}

/// The first line of a journal. Version 0.1.0 wrote no id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Begun {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<JobId>,
    /// The terms.
    #[serde(flatten)]
    pub terms: JobTerms,
}

impl Begun {
    /// Creates the first line of a new job.
    pub fn new(id: JobId, terms: JobTerms) -> Self {
        Self { id: Some(id), terms }
    }

    /// Returns the job id.
    ///
    /// # Errors
    /// If version 0.1.0 began the job and it cannot be resumed.
    pub fn id(&self) -> Result<JobId, String> {
        match &self.id {
            Some(id) => Ok(id.clone()),
            None if self.terms.dry_run => Err(
                "it is of a dry run that version 0.1.0 began: remove it and its results, and plan the rows anew"
                    .to_owned(),
            ),
            None => JobId::of_version_0_1_0(&self.terms.sha256),
        }
    }

    /// Returns true if version 0.1.0 began the job.
    pub fn is_of_version_0_1_0(&self) -> bool {
        self.id.is_none()
    }
}

/// The ids of a job's rows: the first attempt covers all rows, each later one the rows that had failed by then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Attempts {
    first: JobId,
    later: Vec<(JobId, RowSet)>,
}

/// The row that an invocation's id refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RowReference {
    /// A row, in its last attempt.
    Row(u64),
    /// A row that was attempted again later.
    Superseded,
    /// No row of this job.
    Stranger,
}

impl Attempts {
    /// Creates the attempts of a job with one attempt.
    pub fn new(first: JobId) -> Self {
        Self { first, later: Vec::new() }
    }

    /// Adds another attempt, at these rows.
    pub fn again(&mut self, id: JobId, rows: RowSet) {
        self.later.push((id, rows));
    }

    /// Returns the id of the current attempt.
    pub fn current(&self) -> &JobId {
        self.later.last().map_or(&self.first, |(id, _)| id)
    }

    /// Returns true if the current attempt is not the first.
    pub fn is_later(&self) -> bool {
        !self.later.is_empty()
    }

    /// Returns the id of a row's invocation.
    pub fn id(&self, row: u64) -> String {
        format!("{}.{row}", self.current())
    }

    /// Returns the row that an id refers to, in a file with this many rows.
    pub fn row_of(&self, id: &str, rows: u64) -> RowReference {
        let Some((job, row)) = id.split_once('.') else { return RowReference::Stranger };
        let is_number = !row.is_empty() && row.bytes().all(|byte| byte.is_ascii_digit());
        let row = row.parse().ok().filter(|row| is_number && (1..=rows).contains(row));
        let Some(row) = row else { return RowReference::Stranger };
        let at = match self.later.iter().position(|(id, _)| id.0 == job) {
            Some(at) if self.later[at].1.contains(row) => at + 1,
            None if self.first.0 == job => 0,
            Some(_) | None => return RowReference::Stranger,
        };
        let is_superseded = self.later[at..].iter().any(|(_, rows)| rows.contains(row));
        if is_superseded { RowReference::Superseded } else { RowReference::Row(row) }
    }
}

impl SubmitJob {
    /// Returns the path of the journal. A dry run has its own.
    pub fn journal(&self) -> PathBuf {
        beside(&self.file, if self.terms.dry_run { ".dry.journal" } else { ".journal" })
    }

    /// Returns the name of the queue for the results.
    pub fn reply_queue(&self) -> String {
        format!("{REPLIES}submit.{}", self.attempts.current())
    }

    /// Returns the row that an invocation's id refers to.
    pub fn row_of(&self, id: &str) -> RowReference {
        self.attempts.row_of(id, self.terms.rows)
    }
}

/// Returns the default path of the results.
pub(super) fn default_results(file: &Path, dry_run: bool) -> PathBuf {
    beside(file, if dry_run { ".dry.results.jsonl" } else { ".results.jsonl" })
}

/// Returns a job for tests with this many rows, whose file is in this folder.
#[cfg(test)]
pub(super) fn example(dir: &Path, rows: u64) -> SubmitJob {
    let connection = ConnectionName::parse("prod").unwrap();
    let terms = JobTerms {
        sha256: "0123456789abcdef0123".to_owned(),
        rows,
        subtool: None,
        reading: None,
        connection: "prod".to_owned(),
        lane: "bulk".to_owned(),
        dry_run: false,
        embedded: false,
    };
    SubmitJob {
        file: dir.join("people.csv"),
        results: dir.join("results.jsonl"),
        connection,
        lane: Lane::Bulk,
        terms,
        attempts: Attempts::new("00000000000000aa".to_owned().try_into().unwrap()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> JobId {
        text.to_owned().try_into().unwrap()
    }

    fn rows(of: &[u64]) -> RowSet {
        let mut rows = RowSet::default();
        for row in of {
            rows.insert(*row);
        }
        rows
    }

    #[test]
    fn the_id_of_a_job_is_16_random_digits() {
        let (one, other) = (JobId::random(), JobId::random());
        assert_ne!(one, other);
        assert_eq!(JobId::try_from(one.to_string()), Ok(one));
        for text in ["", "0123", "0123456789abcdeg", "0123456789ABCDEF", "0123456789abcdef0"] {
            assert!(JobId::try_from(text.to_owned()).is_err(), "{text}");
        }
    }

    #[test]
    fn an_id_leads_back_to_its_row_and_no_other_id_does() {
        let job = example(Path::new("."), 20);
        assert_eq!(job.attempts.id(7), "00000000000000aa.7");
        assert_eq!(job.row_of("00000000000000aa.7"), RowReference::Row(7));
        assert_eq!(job.reply_queue(), "okta.replies.submit.00000000000000aa");
        let foreign = ["aa.7", "00000000000000aa.0", "00000000000000aa.21", "00000000000000aa.+7"];
        for id in foreign.into_iter().chain(["00000000000000aa.", "00000000000000bb.7", "", "."]) {
            assert_eq!(job.row_of(id), RowReference::Stranger, "{id}");
        }
    }

    #[test]
    fn the_last_attempt_at_a_row_counts() {
        let mut attempts = Attempts::new(id("00000000000000aa"));
        attempts.again(id("00000000000000bb"), rows(&[2, 3]));
        attempts.again(id("00000000000000cc"), rows(&[3]));
        assert_eq!((attempts.id(3).as_str(), attempts.is_later()), ("00000000000000cc.3", true));
        let named = [
            ("00000000000000aa.1", RowReference::Row(1)),
            ("00000000000000aa.2", RowReference::Superseded),
            ("00000000000000bb.2", RowReference::Row(2)),
            ("00000000000000bb.3", RowReference::Superseded),
            ("00000000000000cc.3", RowReference::Row(3)),
            ("00000000000000bb.1", RowReference::Stranger),
            ("00000000000000cc.2", RowReference::Stranger),
        ];
        for (id, is) in named {
            assert_eq!(attempts.row_of(id, 3), is, "{id}");
        }
    }

    #[test]
    fn what_is_not_the_same_job_is_named() {
        let terms = example(Path::new("."), 20).terms;
        let command = |words: &str| Some(Difference::Command(words.to_owned()));
        let other = [
            (JobTerms { sha256: "ff".to_owned(), rows: 3, ..terms.clone() }, Some(Difference::File)),
            (
                JobTerms { subtool: Some("get_user".to_owned()), ..terms.clone() },
                command("another subtool (`each row's own`, not `get_user`)"),
            ),
            (
                JobTerms { reading: Some("aa".to_owned()), ..terms.clone() },
                command("another `--set` or `--delimiter`"),
            ),
            (
                JobTerms { connection: "other".to_owned(), ..terms.clone() },
                command("another connection (`prod`, not `other`)"),
            ),
            (
                JobTerms { lane: "interactive".to_owned(), ..terms.clone() },
                command("another lane (`bulk`, not `interactive`)"),
            ),
            (
                JobTerms { embedded: true, ..terms.clone() },
                command("another way (`by the broker`, not `--embedded`)"),
            ),
        ];
        assert_eq!(terms.difference(&terms), None);
        for (now, is) in other {
            assert_eq!(now.difference(&terms), is);
        }
    }

    #[test]
    fn a_job_that_version_0_1_0_began_goes_on_under_its_ids_and_its_dry_run_does_not() {
        let line = |dry_run: bool| {
            format!(
                r#"{{"sha256":"0123456789abcdef0123","rows":3,"subtool":null,"connection":"prod",
                    "lane":"bulk","dry_run":{dry_run},"embedded":false}}"#
            )
        };
        let begun: Begun = serde_json::from_str(&line(false)).unwrap();
        assert_eq!((begun.id(), begun.is_of_version_0_1_0()), (Ok(id("0123456789abcdef")), true));
        let dry: Begun = serde_json::from_str(&line(true)).unwrap();
        assert!(dry.id().unwrap_err().contains("version 0.1.0"));
    }
}
