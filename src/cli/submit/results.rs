//! The results file: one line per row, the row number followed by the result. A row in it is done.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::domain::result::{Effect, ErrorCode, RateLimit, Status};

use super::error::JobError;
use super::job::{JobId, RowReference, SubmitJob};
use super::line_file::{LineFile, LineFileKind, beside};
use super::row_set::RowSet;

/// The beginning of every line.
const BEGINS: &str = "{\"row\":";

/// The line format of a results file. A result has at most 8 MiB, plus a small frame.
const KIND: LineFileKind =
    LineFileKind { name: "results file", begins: BEGINS.as_bytes(), line_bytes_max: 9 * 1024 * 1024 };

/// The part of a result that is read here.
#[derive(Debug, Deserialize)]
pub(super) struct Answered {
    /// The invocation's id.
    pub id: String,
    /// The connection; `null` if the worker does not serve it.
    #[serde(default)]
    pub connection: Option<String>,
    /// The subtool.
    #[serde(default)]
    pub subtool: Option<String>,
    /// The status of the invocation.
    pub status: Status,
    /// The effect of the invocation.
    pub effect: Effect,
    /// The number of requests sent to Okta.
    #[serde(default)]
    pub okta_calls: u32,
    /// The bucket's window, as of the last answer.
    #[serde(default)]
    pub rate_limit: Option<RateLimit>,
    /// The failure, if the invocation failed.
    #[serde(default)]
    pub error: Option<FailureHead>,
    /// The result, or the plan of a dry run.
    #[serde(default)]
    pub result: Option<Box<RawValue>>,
}

/// The part of a plan that is read here.
#[derive(Debug, Deserialize)]
struct PlanHead {
    predicted: PredictedHead,
}

/// The predicted outcome of a planned invocation.
#[derive(Debug, Deserialize)]
struct PredictedHead {
    error: Option<FailureHead>,
}

/// The part of a failure that is read here.
#[derive(Debug, Deserialize)]
pub(super) struct FailureHead {
    code: ErrorCode,
}

impl Answered {
    /// Parses a result.
    pub fn read(body: &[u8]) -> Option<Self> {
        serde_json::from_slice(body).ok().filter(|_| body.trim_ascii_start().starts_with(b"{"))
    }

    /// Returns the outcome of the row for the tally.
    pub fn row_status(&self) -> RowStatus {
        let code =
            |failed: Option<&FailureHead>| failed.map_or(ErrorCode::Internal, |failed| failed.code).as_str();
        match self.status {
            Status::Failed => RowStatus::Failed(code(self.error.as_ref())),
            Status::Succeeded => RowStatus::Succeeded(effect(self.effect)),
            Status::Planned => {
                let plan = self.result.as_ref().and_then(|plan| serde_json::from_str(plan.get()).ok());
                match plan.and_then(|PlanHead { predicted }| predicted.error) {
                    Some(failed) => RowStatus::WouldFail(code(Some(&failed))),
                    None => RowStatus::Planned,
                }
            }
        }
    }
}

/// The outcome of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RowStatus {
    /// It succeeded with this effect.
    Succeeded(&'static str),
    /// It was planned, and no failure is predicted.
    Planned,
    /// It was planned, and would fail with this code.
    WouldFail(&'static str),
    /// It failed with this code.
    Failed(&'static str),
}

impl RowStatus {
    /// Returns true if the row counts as failed.
    pub fn is_failure(self) -> bool {
        match self {
            Self::Succeeded(_) | Self::Planned => false,
            Self::WouldFail(_) | Self::Failed(_) => true,
        }
    }
}

/// The number of rows per outcome.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct RowCounts {
    /// All rows.
    pub rows: u64,
    /// Failed rows.
    failed: u64,
    /// Rows that are only planned.
    planned: u64,
    /// Rows whose plan predicts a failure.
    would_fail: u64,
    /// Successful rows, by effect.
    effects: BTreeMap<&'static str, u64>,
    /// Rows that failed or would fail, by error code.
    pub errors: BTreeMap<&'static str, u64>,
}

impl RowCounts {
    fn count(&mut self, status: RowStatus) {
        self.rows += 1;
        match status {
            RowStatus::Succeeded(effect) => *self.effects.entry(effect).or_default() += 1,
            RowStatus::Planned => self.planned += 1,
            RowStatus::WouldFail(code) => {
                self.would_fail += 1;
                *self.errors.entry(code).or_default() += 1;
            }
            RowStatus::Failed(code) => {
                self.failed += 1;
                *self.errors.entry(code).or_default() += 1;
            }
        }
    }

    /// Returns the number of failures, including the predicted ones of a dry run.
    pub fn failures(&self) -> u64 {
        self.failed + self.would_fail
    }

    /// Formats the counts: `12 applied, 3 failed`.
    pub fn words(&self) -> String {
        let effects = self.effects.iter().map(|(effect, count)| (*effect, *count));
        let others = [("planned", self.planned), ("would fail", self.would_fail), ("failed", self.failed)];
        let parts = effects.chain(others).filter(|(_, count)| *count > 0);
        parts.map(|(what, count)| format!("{count} {what}")).collect::<Vec<_>>().join(", ")
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

/// The open results file.
#[derive(Debug)]
pub(super) struct Results {
    file: LineFile,
    /// The outcomes of the rows.
    pub rows: RowsDone,
}

/// The outcomes of the rows that have a result.
#[derive(Debug, Default)]
pub(super) struct RowsDone {
    /// The rows with a result.
    pub done: RowSet,
    /// The failed rows among them.
    pub failed: RowSet,
    /// The number of rows per outcome.
    pub tally: RowCounts,
}

impl RowsDone {
    fn note(&mut self, row: u64, status: RowStatus) {
        if self.done.insert(row) {
            self.tally.count(status);
            if status.is_failure() {
                self.failed.insert(row);
            }
        }
    }
}

/// The lines of a file, classified.
#[derive(Debug, Default)]
struct ResultLines {
    rows: RowsDone,
    /// The number of results of rows that were attempted again later.
    superseded: u64,
    /// The job of the first line, if it is another job.
    stranger: Option<JobId>,
}

impl ResultLines {
    fn take(&mut self, line: &[u8], job: &SubmitJob) -> Result<(), String> {
        let answered = Answered::read(line).ok_or_else(|| "it is no result".to_owned())?;
        match job.row_of(&answered.id) {
            RowReference::Row(row) if self.stranger.is_none() => self.rows.note(row, answered.row_status()),
            RowReference::Superseded if self.stranger.is_none() => self.superseded += 1,
            RowReference::Row(_) | RowReference::Superseded => {
                return Err("it is the result of another job".to_owned());
            }
            RowReference::Stranger => {
                let stranger = JobId::of_invocation(&answered.id);
                let is_begun = self.rows.done.len() > 0 || self.superseded > 0;
                match stranger.filter(|_| !is_begun) {
                    Some(stranger) => self.stranger = self.stranger.take().or(Some(stranger)),
                    None => return Err("it is the result of another job".to_owned()),
                }
            }
        }
        Ok(())
    }
}

/// The result of opening a results file.
#[derive(Debug)]
pub(super) struct OpenedResults {
    pub results: Results,
    /// A note for the user.
    pub note: Option<String>,
}

impl Results {
    /// Opens the results of a job and reads them. With `is_new` the job has no result yet: a file with another job's
    /// results is renamed. Results of rows that were attempted again later are removed.
    ///
    /// # Errors
    /// If the content is not of this job, or cannot be read or written.
    pub fn open(job: &SubmitJob, is_new: bool) -> Result<OpenedResults, JobError> {
        let path = &job.results;
        let (mut file, mut lines) = Self::read(job)?;
        let mut note = None;
        if let Some(stranger) = lines.stranger.take() {
            if !is_new {
                let why = format!("the results file `{}` is of another job", path.display());
                return Err(JobError::Refused(why));
            }
            let aside = beside(path, &format!(".{stranger}"));
            file.set_aside(&aside)?;
            note = Some(format!("the results of an earlier job are kept as `{}`", aside.display()));
            (file, lines) = Self::read(job)?;
        }
        if lines.superseded > 0 {
            let is_current = |line: &[u8]| {
                let answered = Answered::read(line);
                answered.is_some_and(|answered| matches!(job.row_of(&answered.id), RowReference::Row(_)))
            };
            file = file.rewrite(is_current)?;
        }
        Ok(OpenedResults { results: Self { file, rows: lines.rows }, note })
    }

    fn read(job: &SubmitJob) -> Result<(LineFile, ResultLines), JobError> {
        let mut lines = ResultLines::default();
        let file = LineFile::open(KIND, &job.results, |line| lines.take(line, job))?;
        Ok((file, lines))
    }

    /// Appends the result of a row that has none yet. If this fails, the row still has none.
    pub fn add(&mut self, row: u64, body: &[u8], status: RowStatus) -> Result<(), JobError> {
        let body = body.trim_ascii();
        let mut line = Vec::with_capacity(body.len() + 32);
        line.extend_from_slice(BEGINS.as_bytes());
        line.extend_from_slice(row.to_string().as_bytes());
        // JSON may hold line ends between its tokens; within strings they are escaped.
        let rest = body.get(1..).unwrap_or_default();
        line.push(b',');
        line.extend(rest.iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }));
        line.push(b'\n');
        self.file.append(&line)?;
        self.rows.note(row, status);
        Ok(())
    }

    /// Waits until the added results are on the disk.
    pub fn sync(&mut self) -> Result<(), JobError> {
        self.file.sync()
    }
}

/// Creates a results file for tests over a storage.
#[cfg(test)]
pub(super) fn over(storage: Box<dyn super::line_file::Storage>) -> Results {
    let file = LineFile::over(storage, KIND, std::path::Path::new("results.jsonl"), 0);
    Results { file, rows: RowsDone::default() }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::cli::submit::job::example;
    use crate::cli::submit::line_file::failing::Disk;

    fn result(job: &str, row: u64, status: &str, effect: &str) -> String {
        format!(
            "{{\"id\":\"{job}.{row}\",\"status\":\"{status}\",\"effect\":\"{effect}\",\n\"result\":{{}}}}"
        )
    }

    const JOB: &str = "00000000000000aa";

    fn add(results: &mut Results, row: u64, body: &str) -> Result<(), JobError> {
        results.add(row, body.as_bytes(), Answered::read(body.as_bytes()).unwrap().row_status())
    }

    fn open(job: &SubmitJob, is_new: bool) -> Results {
        Results::open(job, is_new).unwrap().results
    }

    fn read(path: &Path) -> String {
        std::fs::read_to_string(path).unwrap()
    }

    #[test]
    fn each_result_is_one_line_with_its_row_and_known_to_the_next_run() {
        let dir = tempfile::tempdir().unwrap();
        let job = example(dir.path(), 9);
        let mut results = open(&job, true);
        add(&mut results, 2, &result(JOB, 2, "succeeded", "applied")).unwrap();
        add(&mut results, 1, &result(JOB, 1, "failed", "none")).unwrap();
        let rows: Vec<serde_json::Value> =
            read(&job.results).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((&rows[0]["row"], &rows[0]["id"], rows.len()), (&2.into(), &format!("{JOB}.2").into(), 2));
        let tally = results.rows.tally.clone();
        drop(results);
        let again = open(&job, false).rows;
        assert_eq!((again.done.len(), again.failed.iter().collect(), &again.tally), (2, vec![1], &tally));
        assert_eq!(tally.words(), "1 applied, 1 failed");
    }

    #[test]
    fn a_torn_last_line_is_mended_and_a_strangers_file_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let job = example(dir.path(), 9);
        add(&mut open(&job, true), 1, &result(JOB, 1, "succeeded", "none")).unwrap();
        std::fs::write(&job.results, format!("{}{{\"row\":2,\"id\":\"{JOB}.2\",\"stat", read(&job.results)))
            .unwrap();
        let mut mended = open(&job, false);
        assert_eq!(mended.rows.done.len(), 1);
        add(&mut mended, 3, &result(JOB, 3, "planned", "none")).unwrap();
        drop(mended);
        assert_eq!(open(&job, false).rows.tally.words(), "1 read, 1 planned");

        for text in [
            "dear diary",
            "name\nana\n",
            "{\"row\":1,\"id\":\"x\",\"status\":\"failed\",\"effect\":\"none\"}\n",
        ] {
            std::fs::write(&job.results, text).unwrap();
            for is_new in [true, false] {
                assert!(matches!(Results::open(&job, is_new), Err(JobError::Refused(_))), "{text}");
                assert_eq!(read(&job.results), text);
            }
        }
    }

    #[test]
    fn results_of_another_job_are_kept_under_another_name_when_a_job_begins() {
        let dir = tempfile::tempdir().unwrap();
        let job = example(dir.path(), 9);
        let theirs = format!(
            "{{\"row\":1,{}\n",
            &result("00000000000000bb", 1, "failed", "none").replace('\n', "")[1..]
        );
        std::fs::write(&job.results, &theirs).unwrap();
        assert!(matches!(Results::open(&job, false), Err(JobError::Refused(_))));
        let OpenedResults { results, note } = Results::open(&job, true).unwrap();
        let aside = format!("{}.00000000000000bb", job.results.display());
        assert_eq!((results.rows.done.len(), read(Path::new(&aside))), (0, theirs.clone()));
        assert!(note.unwrap().contains(&aside));
        drop(results);
        // Never onto an existing file, and never if the file mixes lines of several jobs.
        std::fs::write(&job.results, &theirs).unwrap();
        assert!(matches!(Results::open(&job, true), Err(JobError::Refused(_))));
        let ours = theirs.replace("00000000000000bb", JOB);
        for text in [format!("{ours}{theirs}"), format!("{theirs}{ours}")] {
            std::fs::write(&job.results, &text).unwrap();
            assert!(matches!(Results::open(&job, true), Err(JobError::Refused(_))));
            assert_eq!(read(&job.results), text);
        }
    }

    #[test]
    fn a_row_that_is_attempted_again_has_no_result_until_the_new_one_comes() {
        let dir = tempfile::tempdir().unwrap();
        let mut job = example(dir.path(), 3);
        let mut results = open(&job, true);
        for (row, status) in [(1, "succeeded"), (2, "failed"), (3, "failed")] {
            add(&mut results, row, &result(JOB, row, status, "none")).unwrap();
        }
        let failed = results.rows.failed.clone();
        drop(results);
        job.attempts.again(JobId::random(), failed);
        let mut results = open(&job, false);
        assert_eq!((results.rows.tally.words().as_str(), read(&job.results).lines().count()), ("1 read", 1));
        let id = job.attempts.current().to_string();
        add(&mut results, 2, &result(&id, 2, "succeeded", "applied")).unwrap();
        drop(results);
        assert_eq!(open(&job, false).rows.tally.words(), "1 applied, 1 read");
    }

    #[test]
    fn a_plan_that_predicts_a_failure_counts_as_one() {
        let plan = |predicted: &str| {
            let body = format!(
                r#"{{"id":"{JOB}.1","status":"planned","effect":"none","result":{{"requests":[],"predicted":{predicted}}}}}"#
            );
            Answered::read(body.as_bytes()).unwrap().row_status()
        };
        let rows = [
            (r#"{"effect":"applied","error":null}"#, RowStatus::Planned),
            (
                r#"{"effect":"none","error":{"code":"not_found","message":"x"}}"#,
                RowStatus::WouldFail("not_found"),
            ),
            ("{}", RowStatus::Planned),
        ];
        let mut tally = RowCounts::default();
        for (predicted, status) in rows {
            assert_eq!(plan(predicted), status);
            tally.count(status);
        }
        assert_eq!((tally.words().as_str(), tally.failures()), ("2 planned, 1 would fail", 1));
    }

    #[test]
    fn a_result_without_room_is_none_and_those_before_it_are_whole() {
        let disk = Disk::with_room(120);
        let mut results = over(Box::new(disk.clone()));
        add(&mut results, 1, &result(JOB, 1, "succeeded", "applied")).unwrap();
        let whole = disk.text();
        let failed = add(&mut results, 2, &result(JOB, 2, "succeeded", "applied"));
        assert!(matches!(failed, Err(JobError::NoRoom(_))), "{failed:?}");
        assert_eq!((disk.text(), results.rows.done.len()), (whole, 1));
    }
}
