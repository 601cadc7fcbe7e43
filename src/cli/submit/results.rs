//! The results file: one line for each row, the result with the row before it. What is in it is done.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;

use serde::Deserialize;

use crate::domain::answer::{Effect, ErrorCode, RateLimit, Status};

use super::job::Job;
use super::journal::{make_private, open_private, sync_folder};
use super::lines;
use super::row_set::RowSet;

/// What every line begins with.
const BEGINS: &str = "{\"row\":";

/// The longest line: a result has 8 MiB at most, and a little is around it.
const LINE_BYTES_MAX: usize = 9 * 1024 * 1024;

/// The part of a result that is looked at.
#[derive(Debug, Deserialize)]
pub(super) struct Answered {
    /// The invocation's id.
    pub id: String,
    /// On which connection; `null` when it is none of the worker's.
    #[serde(default)]
    pub connection: Option<String>,
    /// Which subtool.
    #[serde(default)]
    pub subtool: Option<String>,
    /// How it ended.
    pub status: Status,
    /// What it changed.
    pub effect: Effect,
    /// Requests sent to Okta.
    #[serde(default)]
    pub okta_calls: u32,
    /// The bucket's window as the last answer told it.
    #[serde(default)]
    pub rate_limit: Option<RateLimit>,
    /// Why it failed.
    #[serde(default)]
    pub error: Option<Failed>,
}

/// The part of a failure that is looked at.
#[derive(Debug, Deserialize)]
pub(super) struct Failed {
    code: ErrorCode,
}

impl Answered {
    /// Reads a result.
    pub fn read(body: &[u8]) -> Option<Self> {
        serde_json::from_slice(body).ok().filter(|_| body.trim_ascii_start().starts_with(b"{"))
    }
}

/// How many rows ended how.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// All of them.
    pub rows: u64,
    /// Those that failed.
    pub failed: u64,
    /// Those that are only planned.
    pub planned: u64,
    /// Those that did not fail, by what they changed.
    pub effects: BTreeMap<&'static str, u64>,
    /// Those that failed, by why.
    pub errors: BTreeMap<&'static str, u64>,
}

impl Tally {
    fn count(&mut self, answered: &Answered) {
        self.rows += 1;
        match answered.status {
            Status::Failed => {
                self.failed += 1;
                let code = answered.error.as_ref().map_or(ErrorCode::Internal, |failed| failed.code);
                *self.errors.entry(code.as_str()).or_default() += 1;
            }
            Status::Planned => self.planned += 1,
            Status::Succeeded => *self.effects.entry(effect(answered.effect)).or_default() += 1,
        }
    }

    /// The counts as words: `12 applied, 3 failed`.
    pub fn words(&self) -> String {
        let planned = (self.planned > 0).then_some(("planned", self.planned));
        let failed = (self.failed > 0).then_some(("failed", self.failed));
        let effects = self.effects.iter().map(|(effect, count)| (*effect, *count));
        let parts = effects.chain(planned).chain(failed).map(|(what, count)| format!("{count} {what}"));
        parts.collect::<Vec<_>>().join(", ")
    }
}

fn effect(effect: Effect) -> &'static str {
    match effect {
        Effect::None => "read",
        Effect::Applied => "applied",
        Effect::Unchanged => "unchanged",
        Effect::Unknown => "unknown",
    }
}

/// The results file, open.
pub(super) struct Results {
    file: File,
    path: PathBuf,
    /// The rows that have a result in it.
    pub done: RowSet,
    /// How they ended.
    pub tally: Tally,
}

impl Results {
    /// Opens the results of a job and reads what is there.
    ///
    /// # Errors
    /// When what is there is not of this job, or cannot be read, in words.
    pub fn open(job: &Job) -> Result<Self, String> {
        let path = job.results.clone();
        let named = |why: String| format!("the results file `{}`: {why}", path.display());
        let mut file = open_private(&path).map_err(|error| named(format!("failed to open it: {error}")))?;
        let (mut done, mut tally) = (RowSet::default(), Tally::default());
        let mended = lines::mend(&mut file, BEGINS.as_bytes(), LINE_BYTES_MAX, |line| {
            let answered = Answered::read(line).ok_or_else(|| "it is no result".to_owned())?;
            let row = job.identity.row_of(&answered.id);
            let row = row.ok_or_else(|| "it is the result of another file or run".to_owned())?;
            if done.insert(row) {
                tally.count(&answered);
            }
            Ok(())
        });
        mended.and_then(|()| make_private(&file)).and_then(|()| sync_folder(&path)).map_err(named)?;
        Ok(Self { file, path, done, tally })
    }

    /// Appends the result of a row that has none yet.
    pub fn add(&mut self, row: u64, body: &[u8], answered: &Answered) -> Result<(), String> {
        let body = body.trim_ascii();
        let mut line = Vec::with_capacity(body.len() + 32);
        line.extend_from_slice(BEGINS.as_bytes());
        line.extend_from_slice(row.to_string().as_bytes());
        // Between brackets JSON may hold line ends; within its strings they are escaped.
        let rest = body.get(1..).unwrap_or_default();
        line.push(b',');
        line.extend(rest.iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }));
        line.push(b'\n');
        self.file.write_all(&line).map_err(|error| self.failed(&error))?;
        self.done.insert(row);
        self.tally.count(answered);
        Ok(())
    }

    /// Makes sure that what was added is on the disk.
    pub fn sync(&self) -> Result<(), String> {
        self.file.sync_data().map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &std::io::Error) -> String {
        format!("failed to write the results file `{}`: {error}", self.path.display())
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::cli::submit::job::Identity;
    use crate::domain::ids::{ConnectionName, Lane};

    fn job(dir: &TempDir) -> Job {
        Job {
            file: dir.path().join("people.csv"),
            results: dir.path().join("results.jsonl"),
            connection: ConnectionName::parse("prod").unwrap(),
            lane: Lane::Bulk,
            identity: Identity {
                sha256: "aa".to_owned(),
                rows: 9,
                subtool: None,
                connection: "prod".to_owned(),
                lane: "bulk".to_owned(),
                dry_run: false,
                embedded: false,
            },
        }
    }

    fn result(row: u64, status: &str, effect: &str) -> String {
        format!("{{\"id\":\"aa.{row}\",\"status\":\"{status}\",\"effect\":\"{effect}\",\n\"result\":{{}}}}")
    }

    fn add(results: &mut Results, row: u64, body: &str) {
        results.add(row, body.as_bytes(), &Answered::read(body.as_bytes()).unwrap()).unwrap();
    }

    #[test]
    fn each_result_is_one_line_with_its_row_and_known_to_the_next_run() {
        let dir = tempfile::tempdir().unwrap();
        let mut results = Results::open(&job(&dir)).unwrap();
        add(&mut results, 2, &result(2, "succeeded", "applied"));
        add(&mut results, 1, &result(1, "failed", "none"));
        let text = std::fs::read_to_string(&job(&dir).results).unwrap();
        let rows: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((&rows[0]["row"], &rows[0]["id"], rows.len()), (&2.into(), &"aa.2".into(), 2));

        let again = Results::open(&job(&dir)).unwrap();
        assert_eq!((again.done.len(), again.tally.clone()), (2, results.tally));
        assert_eq!(again.tally.words(), "1 applied, 1 failed");
    }

    #[test]
    fn a_torn_last_line_is_mended_and_a_strangers_file_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let mut results = Results::open(&job(&dir)).unwrap();
        add(&mut results, 1, &result(1, "succeeded", "none"));
        let whole = std::fs::read_to_string(&job(&dir).results).unwrap();
        std::fs::write(&job(&dir).results, format!("{whole}{{\"row\":2,\"id\":\"aa.2\",\"stat")).unwrap();
        let mut mended = Results::open(&job(&dir)).unwrap();
        assert_eq!(mended.done.len(), 1);
        add(&mut mended, 3, &result(3, "planned", "none"));
        assert_eq!(Results::open(&job(&dir)).unwrap().tally.words(), "1 read, 1 planned");

        for text in [
            "dear diary",
            "name\nana\n",
            "{\"row\":1,\"id\":\"bb.1\",\"status\":\"failed\",\"effect\":\"none\"}\n",
        ] {
            std::fs::write(&job(&dir).results, text).unwrap();
            assert!(Results::open(&job(&dir)).is_err(), "{text}");
            assert_eq!(std::fs::read_to_string(&job(&dir).results).unwrap(), text);
        }
    }
}
