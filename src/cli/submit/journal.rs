//! `FILE.journal`: the state of the rows before their results arrive, so that a run that ended at any moment can be
//! resumed.
//!
//! One JSON object per line, the id and terms of the job first. A row is recorded as sending before it is sent, with
//! the time, and as confirmed after the broker has it; a row sent and not confirmed is in doubt. Invariants: no row
//! is sent before its line is on the disk; the process that holds the journal holds the job.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::error::JobError;
use super::job::{Attempts, Begun, Difference, JobId, JobTerms, SubmitJob};
use super::line_file::{LineFile, LineFileKind, beside};
use super::row_set::{RowSet, ranges};

/// The line format of a journal. The longest line lists the failed rows, one by one in the worst case.
const KIND: LineFileKind = LineFileKind { name: "journal", begins: b"{\"", line_bytes_max: 16 * 1024 * 1024 };

/// The most ranges of failed rows: each takes at most 43 bytes of the line.
const RETRY_RANGES_MAX: usize = KIND.line_bytes_max / 43 - 10;

/// Ranges of rows, both ends included.
type Ranges = Vec<[u64; 2]>;

/// A line of the journal.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum JournalEntry {
    /// The id and terms of the job.
    Job(Begun),
    /// Every row has a result; these have failed and are sent once more under another id.
    Retry { id: JobId, rows: Ranges },
    /// These rows are sent for the first time.
    Sending {
        rows: Ranges,
        /// The time, in seconds since 1970: each of the messages carries it, also when it is sent again.
        at: u64,
    },
    /// The broker has these rows.
    Confirmed(Ranges),
    /// The results of these rows are in the results file.
    Answered(Ranges),
}

/// The state that earlier runs have reached in the current attempt.
#[derive(Debug, Default)]
pub(super) struct EarlierRuns {
    /// The first sending of each range of rows: its last row and the time, by its first row.
    sent: BTreeMap<u64, (u64, u64)>,
    /// The rows that the broker has confirmed.
    pub confirmed: RowSet,
    /// The rows whose results were written.
    pub answered: RowSet,
}

impl EarlierRuns {
    /// Returns true if no row was ever sent.
    pub fn is_untouched(&self) -> bool {
        self.sent.is_empty() && self.confirmed.len() == 0 && self.answered.len() == 0
    }

    /// Returns the time at which a row was first sent.
    pub fn first_sent(&self, row: u64) -> Option<u64> {
        let (_, (last, at)) = self.sent.range(..=row).next_back()?;
        (row <= *last).then_some(*at)
    }

    fn take(&mut self, entry: JournalEntry, attempts: &mut Attempts) {
        match entry {
            JournalEntry::Job(_) => {}
            JournalEntry::Retry { id, rows } => {
                let again = RowSet::of(&rows);
                *self = Self { answered: self.answered.without(&again), ..Self::default() };
                attempts.again(id, again);
            }
            JournalEntry::Sending { rows, at } => {
                self.sent.extend(rows.into_iter().map(|[first, last]| (first, (last, at))));
            }
            JournalEntry::Confirmed(rows) => self.confirmed.insert_all(&rows),
            JournalEntry::Answered(rows) => self.answered.insert_all(&rows),
        }
    }
}

/// The journal, open and locked.
#[derive(Debug)]
pub(super) struct Journal(LineFile);

/// The condition under which a new job may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Begin {
    /// If there is no journal.
    IfNew,
    /// Never: an existing job must be resumed.
    Never,
}

/// The result of opening a journal.
#[derive(Debug)]
pub(super) struct OpenedJournal {
    pub journal: Journal,
    pub past: EarlierRuns,
    /// A note for the user.
    pub note: Option<String>,
}

/// The content of a journal.
struct JournalContent {
    begun: Begun,
    attempts: Attempts,
    past: EarlierRuns,
}

impl JournalContent {
    /// Returns true if every row has its result.
    fn is_finished(&self) -> bool {
        self.past.answered.len() == self.begun.terms.rows
    }
}

impl Journal {
    /// Opens the journal of a job and reads it, or begins one. A resumed job keeps the ids that it was begun with.
    ///
    /// The journal of a finished job with other terms is renamed, and a new job begins.
    ///
    /// # Errors
    /// If the journal is of another unfinished job, another process holds it, or it cannot be read or written.
    pub fn open(job: &mut SubmitJob, begin: Begin) -> Result<OpenedJournal, JobError> {
        let path = job.journal();
        let refused = |why: String| JobError::Refused(format!("the journal `{}`: {why}", path.display()));
        let none = || refused("there is none, so no job was begun with this file".to_owned());
        if begin == Begin::Never && !path.exists() {
            return Err(none());
        }
        let (file, found) = Self::read(job)?;
        let found = match (found, begin) {
            (Some(found), _) => found,
            (None, Begin::IfNew) => return Self::begin(file, job, None),
            (None, Begin::Never) => return Err(none()),
        };
        match job.terms.difference(&found.begun.terms) {
            None => Ok(Self::go_on(file, found, job)),
            Some(difference) if begin == Begin::Never => {
                Err(refused(words(&difference, found.is_finished())))
            }
            // A job of which no row was sent, as when the broker could not be reached, may change its terms.
            Some(_) if found.past.is_untouched() && !found.attempts.is_later() => {
                Self::begin(file, job, None)
            }
            Some(Difference::Command(_)) if found.is_finished() => {
                let first = found.begun.id().map_err(refused)?;
                let aside = beside(&path, &format!(".{first}"));
                file.set_aside(&aside)?;
                let note = format!(
                    "the file was done before on other terms, and this is a new job; the earlier journal is kept as `{}`",
                    aside.display()
                );
                let (file, _) = Self::read(job)?;
                Self::begin(file, job, Some(note))
            }
            Some(difference) => Err(refused(words(&difference, found.is_finished()))),
        }
    }

    /// Opens the file and reads its content.
    fn read(job: &SubmitJob) -> Result<(LineFile, Option<JournalContent>), JobError> {
        let mut found: Option<JournalContent> = None;
        let file = LineFile::open(KIND, &job.journal(), |line| {
            let entry: JournalEntry = serde_json::from_slice(line)
                .map_err(|_| "it is not a line that this program writes".to_owned())?;
            match (entry, &mut found) {
                (JournalEntry::Job(begun), None) => {
                    let attempts = Attempts::new(begun.id()?);
                    found = Some(JournalContent { begun, attempts, past: EarlierRuns::default() });
                }
                (JournalEntry::Job(_), Some(_)) | (_, None) => {
                    return Err("it stands where it must not".to_owned());
                }
                (entry, Some(found)) => {
                    entry.check(&found.begun.terms)?;
                    found.past.take(entry, &mut found.attempts);
                }
            }
            Ok(())
        })?;
        Ok((file, found))
    }

    fn go_on(file: LineFile, found: JournalContent, job: &mut SubmitJob) -> OpenedJournal {
        let note = found
            .begun
            .is_of_version_0_1_0()
            .then(|| "version 0.1.0 began this job, and it goes on under the ids that it has".to_owned());
        job.attempts = found.attempts;
        OpenedJournal { journal: Self(file), past: found.past, note }
    }

    /// Writes the first line of the job into an empty file.
    fn begin(mut file: LineFile, job: &SubmitJob, note: Option<String>) -> Result<OpenedJournal, JobError> {
        file.clear()?;
        let mut journal = Self(file);
        let begun = Begun::new(job.attempts.current().clone(), job.terms.clone());
        journal.write(&[JournalEntry::Job(begun)])?;
        journal.0.sync()?;
        Ok(OpenedJournal { journal, past: EarlierRuns::default(), note })
    }

    /// Records that every row has a result and that these failed rows are sent once more under another id.
    pub fn retry(
        &mut self,
        id: JobId,
        failed: &RowSet,
        past: &mut EarlierRuns,
        attempts: &mut Attempts,
    ) -> Result<(), JobError> {
        let rows = ranges(&failed.iter().collect::<Vec<_>>());
        if rows.len() > RETRY_RANGES_MAX {
            let why = "the rows that failed are too many and too scattered to be sent again by one job";
            return Err(JobError::Refused(why.to_owned()));
        }
        let entry = JournalEntry::Retry { id, rows };
        self.write(std::slice::from_ref(&entry))?;
        self.0.sync()?;
        past.take(entry, attempts);
        Ok(())
    }

    /// Records that rows are sent for the first time, and which rows are confirmed. All of it is on the disk when
    /// this returns.
    pub fn sending(&mut self, rows: &[u64], at: u64, confirmed: &[u64]) -> Result<(), JobError> {
        let mut entries = Vec::new();
        if !confirmed.is_empty() {
            entries.push(JournalEntry::Confirmed(ranges(confirmed)));
        }
        if !rows.is_empty() {
            entries.push(JournalEntry::Sending { rows: ranges(rows), at });
        }
        self.write(&entries)?;
        self.0.sync()
    }

    /// Records the rows that are confirmed, and those whose results are in their file. If the machine fails this may
    /// be lost: then the rows are in doubt, or found in the results.
    pub fn note(&mut self, confirmed: &[u64], answered: &[u64]) -> Result<(), JobError> {
        let mut entries = Vec::new();
        if !confirmed.is_empty() {
            entries.push(JournalEntry::Confirmed(ranges(confirmed)));
        }
        if !answered.is_empty() {
            entries.push(JournalEntry::Answered(ranges(answered)));
        }
        if entries.is_empty() { Ok(()) } else { self.write(&entries) }
    }

    fn write(&mut self, entries: &[JournalEntry]) -> Result<(), JobError> {
        let mut text = Vec::new();
        for entry in entries {
            serde_json::to_writer(&mut text, entry).expect("our own types have string keys");
            text.push(b'\n');
        }
        self.0.append(&text)
    }
}

/// Explains why the journal of another job prevents this one.
fn words(difference: &Difference, is_finished: bool) -> String {
    match (difference, is_finished) {
        (Difference::File, false) => {
            "the file has changed since: its rows would be taken for others and done again. \
             Put the file back as it was, or give the changed one another name"
                .to_owned()
        }
        (Difference::File, true) => {
            "the file has changed since its job was done: all of its rows would be done \
             again. If that is meant, give the file another name or remove the journal"
                .to_owned()
        }
        (Difference::Command(what), _) => {
            format!("the file was begun with {what}. Go on as it was begun, or give it up with `--cancel`")
        }
    }
}

impl JournalEntry {
    /// Checks that the rows of the entry exist in the job.
    fn check(&self, terms: &JobTerms) -> Result<(), String> {
        let (Self::Sending { rows: ranges, .. }
        | Self::Retry { rows: ranges, .. }
        | Self::Confirmed(ranges)
        | Self::Answered(ranges)) = self
        else {
            return Ok(());
        };
        let fits = |[first, last]: &[u64; 2]| 1 <= *first && first <= last && *last <= terms.rows;
        ranges.iter().all(fits).then_some(()).ok_or_else(|| "it names rows that are not there".to_owned())
    }
}

/// Creates a journal for tests over a storage.
#[cfg(test)]
pub(super) fn over(storage: Box<dyn super::line_file::Storage>) -> Journal {
    Journal(LineFile::over(storage, KIND, std::path::Path::new("x.journal"), 0))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::cli::submit::job::example;
    use crate::cli::submit::line_file::failing::Disk;

    fn open(job: &mut SubmitJob) -> (Journal, EarlierRuns) {
        let OpenedJournal { journal, past, .. } = Journal::open(job, Begin::IfNew).unwrap();
        (journal, past)
    }

    fn refusal(job: &mut SubmitJob) -> String {
        match Journal::open(job, Begin::IfNew).unwrap_err() {
            JobError::Refused(why) => why,
            error => panic!("{error:?}"),
        }
    }

    #[test]
    fn what_was_written_is_known_to_the_next_run() {
        let dir = tempfile::tempdir().unwrap();
        let mut job = example(dir.path(), 100);
        let (mut journal, past) = open(&mut job);
        assert!(past.is_untouched());
        journal.sending(&[1, 2, 3, 5], 1000, &[]).unwrap();
        journal.sending(&[7], 1001, &[1, 3]).unwrap();
        // A row whose user also occurs in an earlier row is sent later than the rows after it.
        journal.sending(&[4, 6], 1002, &[]).unwrap();
        journal.note(&[2], &[1, 2]).unwrap();
        drop(journal);
        let mode = std::fs::metadata(job.journal()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);

        let mut again = SubmitJob { attempts: Attempts::new(JobId::random()), ..job.clone() };
        let (_journal, past) = open(&mut again);
        assert_eq!(again.attempts, job.attempts, "it goes on under the same id");
        let sent = [4, 5, 6, 7, 8].map(|row| past.first_sent(row));
        assert_eq!(sent, [Some(1002), Some(1000), Some(1002), Some(1001), None]);
        assert_eq!((past.confirmed.len(), past.answered.len()), (3, 2));
    }

    #[test]
    fn the_same_rows_begun_anew_have_another_id() {
        let dir = tempfile::tempdir().unwrap();
        let mut job = example(dir.path(), 2);
        open(&mut job).0.sending(&[1, 2], 1000, &[]).unwrap();
        let first = job.attempts.current().clone();
        std::fs::remove_file(job.journal()).unwrap();
        job.attempts = Attempts::new(JobId::random());
        open(&mut job);
        let mut later = SubmitJob { attempts: Attempts::new(JobId::random()), ..job.clone() };
        open(&mut later);
        assert_ne!(*job.attempts.current(), first);
        assert_eq!(later.attempts, job.attempts);
    }

    #[test]
    fn a_journal_of_which_nothing_has_left_is_anybodys() {
        let dir = tempfile::tempdir().unwrap();
        let mut job = example(dir.path(), 9);
        open(&mut job);
        let mut inside = job.clone();
        inside.terms.embedded = true;
        open(&mut inside).0.sending(&[1], 1000, &[]).unwrap();
        assert!(refusal(&mut job).contains("another way"));
        assert_eq!(open(&mut inside).1.first_sent(1), Some(1000));
    }

    #[test]
    fn a_finished_job_makes_room_for_one_on_other_terms_and_an_unfinished_one_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let mut job = example(dir.path(), 2);
        let (mut journal, _) = open(&mut job);
        journal.sending(&[1, 2], 1000, &[]).unwrap();
        journal.note(&[1, 2], &[1]).unwrap();
        let mut other = SubmitJob { attempts: Attempts::new(JobId::random()), ..job.clone() };
        other.terms.connection = "other".to_owned();
        assert!(refusal(&mut other).contains("another `submit`"));
        drop(journal);
        let said = refusal(&mut other);
        assert!(said.contains("another connection (`prod`, not `other`)"), "{said}");
        open(&mut job).0.note(&[], &[2]).unwrap();

        let before = std::fs::read(job.journal()).unwrap();
        let OpenedJournal { journal, past, note } = Journal::open(&mut other, Begin::IfNew).unwrap();
        let aside = format!("{}.{}", job.journal().display(), job.attempts.current());
        assert!(past.is_untouched() && note.unwrap().contains(&aside));
        assert_eq!(std::fs::read(&aside).unwrap(), before);
        drop(journal);
        let changed = JobTerms { sha256: "ff".to_owned(), ..other.terms.clone() };
        open(&mut other).0.note(&[], &[1, 2]).unwrap();
        let said = refusal(&mut SubmitJob { terms: changed, ..other });
        assert!(said.contains("has changed since its job was done"), "{said}");
    }

    #[test]
    fn a_torn_last_line_is_as_if_it_had_not_been_written() {
        let dir = tempfile::tempdir().unwrap();
        let mut job = example(dir.path(), 100);
        open(&mut job).0.sending(&[1], 1000, &[]).unwrap();
        let whole = std::fs::read(job.journal()).unwrap();
        for torn in ["{\"confir", "{\"confirmed\":[[1,1]]}"] {
            std::fs::write(job.journal(), [&whole, torn.as_bytes()].concat()).unwrap();
            let (_journal, past) = open(&mut job);
            assert_eq!((past.confirmed.len(), past.first_sent(1)), (0, Some(1000)), "{torn}");
        }
        // Including the very first row.
        std::fs::write(job.journal(), &whole[..20]).unwrap();
        assert_eq!(open(&mut job).1.first_sent(1), None);
    }

    #[test]
    fn nobody_else_may_hold_it_and_what_is_not_a_journal_stays_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let mut job = example(dir.path(), 100);
        let held = open(&mut job);
        assert!(refusal(&mut job).contains("another `submit`"));
        drop(held);
        open(&mut job).0.sending(&[1], 1000, &[]).unwrap();
        let mut changed = job.clone();
        changed.terms.sha256 = "bb".to_owned();
        assert!(refusal(&mut changed).contains("has changed since"));
        for text in ["dear diary", "{\"sending\":{\"rows\":[[1,1]],\"at\":1}}\n", "{\"row\":1}\n"] {
            std::fs::write(job.journal(), text).unwrap();
            refusal(&mut job);
            assert_eq!(std::fs::read_to_string(job.journal()).unwrap(), text);
        }
    }

    #[test]
    fn another_attempt_at_some_rows_has_an_id_of_its_own_and_knows_nothing_of_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let mut job = example(dir.path(), 3);
        let (mut journal, mut past) = open(&mut job);
        journal.sending(&[1, 2, 3], 1000, &[]).unwrap();
        journal.note(&[1, 2, 3], &[1, 2, 3]).unwrap();
        let failed = RowSet::of(&[[2, 2]]);
        journal.retry(JobId::random(), &failed, &mut past, &mut job.attempts).unwrap();
        journal.sending(&[2], 2000, &[]).unwrap();
        drop(journal);
        let mut again = SubmitJob { attempts: Attempts::new(JobId::random()), ..job.clone() };
        let (_journal, past) = open(&mut again);
        assert_eq!(again.attempts, job.attempts);
        assert_eq!((past.first_sent(1), past.first_sent(2), past.confirmed.len()), (None, Some(2000), 0));
        assert_eq!(past.answered.iter().collect::<Vec<_>>(), [1, 3]);
    }

    #[test]
    fn what_is_to_go_on_does_not_begin() {
        let dir = tempfile::tempdir().unwrap();
        let mut job = example(dir.path(), 3);
        assert!(matches!(Journal::open(&mut job, Begin::Never), Err(JobError::Refused(_))));
        assert!(!job.journal().exists(), "nothing is left behind");
        drop(open(&mut job));
        Journal::open(&mut job, Begin::Never).unwrap();
        let mut other = job.clone();
        other.terms.lane = "interactive".to_owned();
        assert!(matches!(Journal::open(&mut other, Begin::Never), Err(JobError::Refused(_))));
    }

    #[test]
    fn the_journal_of_version_0_1_0_goes_on_under_its_ids() {
        let dir = tempfile::tempdir().unwrap();
        let mut job = example(dir.path(), 3);
        let begun = r#"{"job":{"sha256":"0123456789abcdef0123","rows":3,"subtool":null,"connection":"prod",
            "lane":"bulk","dry_run":false,"embedded":false}}"#;
        let rest = "{\"sending\":{\"rows\":[[1,2]],\"at\":7}}\n{\"confirmed\":[[1,1]]}\n";
        std::fs::write(job.journal(), format!("{}\n{rest}", begun.replace('\n', ""))).unwrap();
        let OpenedJournal { past, note, .. } = Journal::open(&mut job, Begin::IfNew).unwrap();
        assert_eq!((job.attempts.id(2).as_str(), past.first_sent(2)), ("0123456789abcdef.2", Some(7)));
        assert!(note.unwrap().contains("version 0.1.0"));
    }

    #[test]
    fn a_full_disk_is_said_and_what_was_written_before_is_whole() {
        let disk = Disk::with_room(60);
        let mut journal = over(Box::new(disk.clone()));
        journal.sending(&[1], 1000, &[]).unwrap();
        let whole = disk.text();
        assert!(matches!(journal.sending(&[2], 1000, &[]), Err(JobError::NoRoom(_))));
        assert!(journal.note(&[1], &[]).is_err(), "nothing is written behind half a line");
        assert_eq!(disk.text(), whole);
    }
}
