//! `FILE.journal`: what was done with the rows before their results came, so that a run that ended at any moment
//! is taken up where it was.
//!
//! One JSON object a line, the identity of the job first. A row is said to be sent before it is, with the time,
//! and to be confirmed after the broker has; what is sent and not confirmed is in doubt. Invariant: no row
//! leaves before its line is on the disk.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Seek as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::job::{Identity, Job};
use super::lines;
use super::row_set::{RowSet, ranges};

/// What every journal begins with.
const BEGINS: &[u8] = b"{\"";

/// The longest line: what is flushed at once has a few hundred rows.
const LINE_BYTES_MAX: usize = 1024 * 1024;

/// Rows as ranges, both ends included.
type Ranges = Vec<[u64; 2]>;

/// One line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Entry {
    /// What the job is.
    Job(Identity),
    /// These rows leave for the first time.
    Sending {
        rows: Ranges,
        /// When, in seconds since 1970: what each of them carries as its time, also when it is sent again.
        at: u64,
    },
    /// The broker has these.
    Confirmed(Ranges),
    /// The results of these are in the results file.
    Answered(Ranges),
}

/// What earlier runs did.
#[derive(Debug, Default)]
pub(super) struct Past {
    /// When each range of rows left for the first time. Rows leave in the order of the file and are written down
    /// once, so the ranges ascend.
    sent: Vec<([u64; 2], u64)>,
    /// What the broker has confirmed.
    pub confirmed: RowSet,
    /// Rows whose results were written.
    pub answered: RowSet,
}

impl Past {
    /// Whether no row has ever left.
    fn is_untouched(&self) -> bool {
        self.sent.is_empty() && self.confirmed.len() == 0 && self.answered.len() == 0
    }

    /// When a row left for the first time, if it has.
    pub fn first_sent(&self, row: u64) -> Option<u64> {
        let at = self.sent.partition_point(|([_, last], _)| *last < row);
        self.sent.get(at).filter(|([first, _], _)| *first <= row).map(|(_, at)| *at)
    }

    fn take(&mut self, entry: Entry) {
        let insert = |into: &mut RowSet, ranges: Ranges| {
            for row in ranges.into_iter().flat_map(|[first, last]| first..=last) {
                into.insert(row);
            }
        };
        match entry {
            Entry::Job(_) => {}
            Entry::Sending { rows, at } => self.sent.extend(rows.into_iter().map(|range| (range, at))),
            Entry::Confirmed(rows) => insert(&mut self.confirmed, rows),
            Entry::Answered(rows) => insert(&mut self.answered, rows),
        }
    }
}

/// The journal, open and locked.
#[derive(Debug)]
pub(super) struct Journal {
    file: File,
    path: PathBuf,
}

impl Journal {
    /// Opens the journal of a job and reads what is there, or begins one.
    ///
    /// # Errors
    /// When it is of another job, somebody else holds it, or it cannot be read, in words.
    pub fn open(job: &Job) -> Result<(Self, Past), String> {
        let path = job.journal();
        let named = |why: String| format!("the journal `{}`: {why}", path.display());
        let mut file = open_private(&path).map_err(|error| named(format!("failed to open it: {error}")))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(named("another `submit` is at work on this file".to_owned()));
            }
            Err(TryLockError::Error(error)) => return Err(named(format!("failed to lock it: {error}"))),
        }
        let (mut past, mut begun) = (Past::default(), None);
        let mended = lines::mend(&mut file, BEGINS, LINE_BYTES_MAX, |line| {
            let entry: Entry = serde_json::from_slice(line).map_err(|_| "it is none of ours".to_owned())?;
            match (entry, &begun) {
                (Entry::Job(identity), None) => begun = Some(identity),
                (Entry::Job(_), Some(_)) | (_, None) => return Err("it stands where it must not".to_owned()),
                (entry, Some(identity)) => {
                    entry.check(identity.rows)?;
                    past.take(entry);
                }
            }
            Ok(())
        });
        mended.and_then(|()| make_private(&file)).map_err(named)?;
        let is_new = begun.is_none();
        let mut journal = Self { file, path: path.clone() };
        match begun.and_then(|begun| job.identity.difference(&begun)) {
            // What nothing has left of, as when the broker could not be reached, binds nobody.
            Some(_) if past.is_untouched() => journal.begin(job).map_err(named)?,
            Some(why) => return Err(named(why)),
            None if is_new => journal.begin(job).map_err(named)?,
            None => {}
        }
        Ok((journal, past))
    }

    /// Writes down what the job is, in an empty file.
    fn begin(&mut self, job: &Job) -> Result<(), String> {
        let emptied = self.file.set_len(0).and_then(|()| self.file.rewind());
        emptied.map_err(|error| self.failed(&error))?;
        self.write(&[Entry::Job(job.identity.clone())])?;
        self.sync()?;
        sync_folder(&self.path)
    }

    /// Writes down that rows leave for the first time, and what else is known by now. When it returns all of it is
    /// on the disk.
    pub fn sending(&mut self, rows: &[u64], at: u64, confirmed: &[u64]) -> Result<(), String> {
        let mut entries = Vec::new();
        if !confirmed.is_empty() {
            entries.push(Entry::Confirmed(ranges(confirmed)));
        }
        if !rows.is_empty() {
            entries.push(Entry::Sending { rows: ranges(rows), at });
        }
        self.write(&entries)?;
        self.sync()
    }

    /// Writes down what the broker has confirmed and whose results are in their file. A machine that fails may
    /// forget it: then the rows are in doubt, or found in the results.
    pub fn note(&mut self, confirmed: &[u64], answered: &[u64]) -> Result<(), String> {
        let mut entries = Vec::new();
        if !confirmed.is_empty() {
            entries.push(Entry::Confirmed(ranges(confirmed)));
        }
        if !answered.is_empty() {
            entries.push(Entry::Answered(ranges(answered)));
        }
        self.write(&entries)
    }

    fn write(&mut self, entries: &[Entry]) -> Result<(), String> {
        let mut text = Vec::new();
        for entry in entries {
            serde_json::to_writer(&mut text, entry).expect("our own types have string keys");
            text.push(b'\n');
        }
        self.file.write_all(&text).map_err(|error| self.failed(&error))
    }

    fn sync(&self) -> Result<(), String> {
        self.file.sync_data().map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &io::Error) -> String {
        format!("failed to write the journal `{}`: {error}", self.path.display())
    }
}

impl Entry {
    /// Whether it speaks of rows that the job has.
    fn check(&self, rows: u64) -> Result<(), String> {
        let (Self::Sending { rows: ranges, .. } | Self::Confirmed(ranges) | Self::Answered(ranges)) = self
        else {
            return Ok(());
        };
        let fits = |[first, last]: &[u64; 2]| 1 <= *first && first <= last && *last <= rows;
        ranges.iter().all(fits).then_some(()).ok_or_else(|| "it names rows that are not there".to_owned())
    }
}

/// Opens a file for reading and writing; a new one is for its owner alone.
pub(super) fn open_private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(PRIVATE).open(path)
}

/// Makes a file that has proved to be ours one for its owner alone.
pub(super) fn make_private(file: &File) -> Result<(), String> {
    let private = std::fs::Permissions::from_mode(PRIVATE);
    file.set_permissions(private).map_err(|error| format!("failed to keep it from others: {error}"))
}

/// Arguments and results hold what only their owner may read.
const PRIVATE: u32 = 0o600;

/// Makes sure that a new file is found again after the machine failed.
pub(super) fn sync_folder(path: &Path) -> Result<(), String> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(|error| format!("failed to write `{}`: {error}", folder.display()))
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::domain::ids::{ConnectionName, Lane};

    fn job(dir: &TempDir, sha256: &str) -> Job {
        let file = dir.path().join("people.csv");
        Job {
            results: dir.path().join("results"),
            connection: ConnectionName::parse("prod").unwrap(),
            lane: Lane::Bulk,
            identity: Identity {
                sha256: sha256.to_owned(),
                rows: 100,
                subtool: None,
                connection: "prod".to_owned(),
                lane: "bulk".to_owned(),
                dry_run: false,
                embedded: false,
            },
            file,
        }
    }

    #[test]
    fn what_was_written_is_known_to_the_next_run() {
        let dir = tempfile::tempdir().unwrap();
        let job = job(&dir, "aa");
        let (mut journal, past) = Journal::open(&job).unwrap();
        assert_eq!((past.first_sent(1), past.confirmed.len()), (None, 0));
        journal.sending(&[1, 2, 3, 5], 1000, &[]).unwrap();
        journal.sending(&[7], 1001, &[1, 3]).unwrap();
        journal.note(&[2], &[1, 2]).unwrap();
        drop(journal);
        let mode = std::fs::metadata(job.journal()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);

        let (_journal, past) = Journal::open(&job).unwrap();
        let sent = [1, 4, 5, 7, 8].map(|row| past.first_sent(row));
        assert_eq!(sent, [Some(1000), None, Some(1000), Some(1001), None]);
        assert_eq!((past.confirmed.len(), past.answered.len()), (3, 2));
    }

    #[test]
    fn a_journal_of_which_nothing_has_left_is_anybodys() {
        let dir = tempfile::tempdir().unwrap();
        let job = job(&dir, "aa");
        drop(Journal::open(&job).unwrap());
        let mut inside = job.clone();
        inside.identity.embedded = true;
        Journal::open(&inside).unwrap().0.sending(&[1], 1000, &[]).unwrap();
        assert!(Journal::open(&job).unwrap_err().contains("another way"));
        assert_eq!(Journal::open(&inside).unwrap().1.first_sent(1), Some(1000));
    }

    #[test]
    fn a_torn_last_line_is_as_if_it_had_not_been_written() {
        let dir = tempfile::tempdir().unwrap();
        let job = job(&dir, "aa");
        Journal::open(&job).unwrap().0.sending(&[1], 1000, &[]).unwrap();
        let whole = std::fs::read(job.journal()).unwrap();
        for torn in ["{\"confir", "{\"confirmed\":[[1,1]]}"] {
            std::fs::write(job.journal(), [&whole, torn.as_bytes()].concat()).unwrap();
            let (_journal, past) = Journal::open(&job).unwrap();
            assert_eq!((past.confirmed.len(), past.first_sent(1)), (0, Some(1000)), "{torn}");
        }
        // The very first one, too.
        std::fs::write(job.journal(), &whole[..20]).unwrap();
        assert_eq!(Journal::open(&job).unwrap().1.first_sent(1), None);
    }

    #[test]
    fn nobody_else_may_hold_it_and_what_is_not_a_journal_stays_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let job = job(&dir, "aa");
        let held = Journal::open(&job).unwrap();
        assert!(Journal::open(&job).unwrap_err().contains("another `submit`"));
        drop(held);
        Journal::open(&job).unwrap().0.sending(&[1], 1000, &[]).unwrap();
        assert!(Journal::open(&self::job(&dir, "bb")).unwrap_err().contains("has changed"));
        for text in ["dear diary", "{\"sending\":{\"rows\":[[1,1]],\"at\":1}}\n", "{\"row\":1}\n"] {
            std::fs::write(job.journal(), text).unwrap();
            assert!(Journal::open(&job).is_err(), "{text}");
            assert_eq!(std::fs::read_to_string(job.journal()).unwrap(), text);
        }
    }
}
