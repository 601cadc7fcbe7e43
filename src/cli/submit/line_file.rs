//! An append-only file of whole lines, held by one process at a time: the journal and the results.
//!
//! Invariants: a torn last line is cut off before the next one is written; after a failed write nothing more is
//! appended; after a failed sync no later success is trusted (Linux reports such a failure once and forgets it).

use std::ffi::OsString;
use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufReader, BufWriter, Seek as _, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::error::JobError;
use super::lines::{self, Line};

/// The file mode: arguments and results hold data that only their owner may read.
const PRIVATE: u32 = 0o600;

/// The storage behind a [`LineFile`]: a file, or in tests a full one.
pub(super) trait Storage: Write + Send + fmt::Debug {
    /// Waits until the written data is on the disk.
    fn sync(&self) -> io::Result<()>;

    /// Cuts everything after this many bytes and goes on writing there.
    fn cut(&mut self, bytes: u64) -> io::Result<()>;
}

impl Storage for File {
    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn cut(&mut self, bytes: u64) -> io::Result<()> {
        self.set_len(bytes)?;
        self.seek(SeekFrom::Start(bytes)).map(|_| ())
    }
}

/// The outcome of the last write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WriteState {
    Good,
    /// A line could not be written. All lines before it are whole.
    Full,
    /// Written lines may not be on the disk.
    Lost,
}

/// The kind of a file, and its line format.
#[derive(Debug, Clone, Copy)]
pub(super) struct LineFileKind {
    /// The name in messages to people.
    pub name: &'static str,
    /// The beginning of every line.
    pub begins: &'static [u8],
    /// The longest line, in bytes.
    pub line_bytes_max: usize,
}

/// An open and locked file.
#[derive(Debug)]
pub(super) struct LineFile {
    storage: Box<dyn Storage>,
    kind: LineFileKind,
    path: PathBuf,
    /// The length of the file.
    bytes: u64,
    health: WriteState,
}

impl LineFile {
    /// Opens a file, creating it if necessary, locks it, passes each line to `take` and cuts off a torn last one.
    /// `take` returns an error for an invalid line.
    ///
    /// # Errors
    /// If another process holds the file, it has lines of another kind, or it cannot be opened.
    pub fn open(
        kind: LineFileKind,
        path: &Path,
        take: impl FnMut(&[u8]) -> Result<(), String>,
    ) -> Result<Self, JobError> {
        let refused =
            |why: String| JobError::Refused(format!("the {} `{}`: {why}", kind.name, path.display()));
        let failed = |error: io::Error| JobError::writing(kind.name, path, &error).at_start();
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create(true).truncate(false).mode(PRIVATE);
        let mut file = options.open(path).map_err(failed)?;
        if !file.metadata().map_err(failed)?.is_file() {
            return Err(refused("it is not a regular file".to_owned())); // a device would be read without an end
        }
        lock(&file, path).map_err(refused)?;
        let bytes = read(&mut file, kind, take).map_err(refused)?;
        let is_torn = file.metadata().map_err(failed)?.len() > bytes;
        if is_torn {
            file.set_len(bytes).map_err(failed)?;
        }
        file.seek(SeekFrom::End(0)).map_err(failed)?;
        file.set_permissions(std::fs::Permissions::from_mode(PRIVATE)).map_err(failed)?;
        sync_folder(path).map_err(failed)?;
        Ok(Self::over(Box::new(file), kind, path, bytes))
    }

    /// Creates a file over a storage of this length.
    pub fn over(storage: Box<dyn Storage>, kind: LineFileKind, path: &Path, bytes: u64) -> Self {
        Self { storage, kind, path: path.to_owned(), bytes, health: WriteState::Good }
    }

    /// Appends whole lines. If this fails, none of them is written.
    pub fn append(&mut self, lines: &[u8]) -> Result<(), JobError> {
        if self.health != WriteState::Good {
            let why = io::Error::other("an earlier line could not be written");
            return Err(JobError::writing(self.kind.name, &self.path, &why));
        }
        if let Err(error) = self.storage.write_all(lines).and_then(|()| self.storage.flush()) {
            self.health = WriteState::Full;
            // If this fails as well, the next run finds a torn line and cuts it off.
            let _ = self.storage.cut(self.bytes);
            return Err(JobError::writing(self.kind.name, &self.path, &error));
        }
        self.bytes += lines.len() as u64;
        Ok(())
    }

    /// Waits until the appended lines are on the disk.
    pub fn sync(&mut self) -> Result<(), JobError> {
        let synced = match self.health {
            WriteState::Lost => Err(io::Error::other("the disk has lost what was written")),
            WriteState::Good | WriteState::Full => self.storage.sync(),
        };
        synced.map_err(|error| {
            self.health = WriteState::Lost;
            JobError::writing(self.kind.name, &self.path, &error)
        })
    }

    /// Empties the file.
    pub fn clear(&mut self) -> Result<(), JobError> {
        let failed = |error: io::Error| JobError::writing(self.kind.name, &self.path, &error);
        self.storage.cut(0).map_err(failed)?;
        self.bytes = 0;
        Ok(())
    }

    /// Renames the file and closes it. An existing file of the new name is left alone.
    pub fn set_aside(self, name: &Path) -> Result<(), JobError> {
        let failed = |error: io::Error| JobError::writing(self.kind.name, &self.path, &error).at_start();
        if name.symlink_metadata().is_ok() {
            return Err(JobError::Refused(format!(
                "the {} `{}` is of another job and cannot be kept as `{}`, which is there already: move one of them",
                self.kind.name,
                self.path.display(),
                name.display()
            )));
        }
        std::fs::rename(&self.path, name).and_then(|()| sync_folder(name)).map_err(failed)
    }

    /// Rewrites the file with only the lines that `keeps` accepts. The old file stays until all of them are on the
    /// disk.
    pub fn rewrite(self, mut keeps: impl FnMut(&[u8]) -> bool) -> Result<Self, JobError> {
        let Self { kind, path, storage, .. } = self;
        let failed = |error: io::Error| JobError::writing(kind.name, &path, &error);
        let temporary = beside(&path, ".tmp");
        let written = copy(&path, &temporary, kind, &mut keeps).and_then(|copied| {
            std::fs::rename(&temporary, &path)?;
            sync_folder(&path)?;
            Ok(copied)
        });
        drop(storage); // and its lock: whoever gets it finds that the file has another name
        match written {
            Ok((file, bytes)) => Ok(Self::over(Box::new(file), kind, &path, bytes)),
            Err(error) => {
                let _ = std::fs::remove_file(&temporary);
                Err(failed(error))
            }
        }
    }
}

/// Copies the lines that `keeps` accepts into a new, locked file; returns the file and its length.
fn copy(
    from: &Path,
    to: &Path,
    kind: LineFileKind,
    keeps: &mut impl FnMut(&[u8]) -> bool,
) -> io::Result<(File, u64)> {
    let mut reader = BufReader::new(File::open(from)?);
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create(true).truncate(true).mode(PRIVATE).open(to)?;
    file.try_lock().map_err(io::Error::from)?;
    let (mut writer, mut line, mut bytes) = (BufWriter::new(file), Vec::new(), 0);
    while lines::next(&mut reader, &mut line, kind.line_bytes_max)? == Line::Whole {
        if keeps(&line) {
            line.push(b'\n');
            writer.write_all(&line)?;
            bytes += line.len() as u64;
        }
    }
    let file = writer.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.sync_all()?;
    Ok((file, bytes))
}

/// Locks a file for this process alone.
fn lock(file: &File, path: &Path) -> Result<(), String> {
    const HELD: &str = "another `submit` is at work on it";
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(HELD.to_owned()),
        Err(TryLockError::Error(error)) => return Err(format!("failed to lock it: {error}")),
    }
    // The previous holder may have renamed the file meanwhile.
    let same = |one: &std::fs::Metadata, other: &std::fs::Metadata| {
        (one.dev(), one.ino()) == (other.dev(), other.ino())
    };
    let is_there = match (file.metadata(), path.metadata()) {
        (Ok(held), Ok(named)) => same(&held, &named),
        (Err(_), _) | (_, Err(_)) => false,
    };
    if is_there { Ok(()) } else { Err(HELD.to_owned()) }
}

/// Reads every whole line and returns their total length in bytes. A torn last line whose beginning does not match
/// its kind is an error.
fn read(
    file: &mut File,
    kind: LineFileKind,
    mut take: impl FnMut(&[u8]) -> Result<(), String>,
) -> Result<u64, String> {
    let failed = |error: io::Error| format!("failed to read it: {error}");
    file.seek(SeekFrom::Start(0)).map_err(failed)?;
    let mut reader = BufReader::new(&*file);
    let (mut line, mut number, mut whole_bytes) = (Vec::new(), 0_u64, 0_u64);
    loop {
        number += 1;
        let at = |what: String| format!("line {number}: {what}");
        match lines::next(&mut reader, &mut line, kind.line_bytes_max).map_err(failed)? {
            Line::End => return Ok(whole_bytes),
            Line::Whole => {
                take(&line).map_err(at)?;
                whole_bytes += line.len() as u64 + 1;
            }
            Line::TooLong => return Err(at("it is too long to be ours".to_owned())),
            Line::Torn => {
                let common = line.len().min(kind.begins.len());
                if line[..common] != kind.begins[..common] {
                    return Err(at("it is not a line that this program writes".to_owned()));
                }
                return Ok(whole_bytes);
            }
        }
    }
}

/// Syncs the folder, so that a new file still exists after the machine fails.
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

/// Returns the path of a file with this text appended.
pub(super) fn beside(file: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(file);
    name.push(ending);
    PathBuf::from(name)
}

/// Failing storages for tests.
#[cfg(test)]
pub(super) mod failing {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex};

    use super::*;

    /// A disk with space for this many bytes.
    #[derive(Debug, Clone, Default)]
    pub struct Disk {
        pub kept: Arc<Mutex<Vec<u8>>>,
        pub room: Arc<AtomicUsize>,
        /// If set, the next sync fails, once, as on Linux.
        pub fails_to_sync: Arc<AtomicBool>,
    }

    impl Disk {
        pub fn with_room(bytes: usize) -> Self {
            let disk = Self::default();
            disk.room.store(bytes, Ordering::Relaxed);
            disk
        }

        pub fn text(&self) -> String {
            String::from_utf8(self.kept.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let room = self.room.load(Ordering::Relaxed).min(bytes.len());
            if room == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.kept.lock().unwrap().extend_from_slice(&bytes[..room]);
            self.room.fetch_sub(room, Ordering::Relaxed);
            Ok(room)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Storage for Disk {
        fn sync(&self) -> io::Result<()> {
            match self.fails_to_sync.swap(false, Ordering::Relaxed) {
                true => Err(io::ErrorKind::StorageFull.into()),
                false => Ok(()),
            }
        }

        fn cut(&mut self, bytes: u64) -> io::Result<()> {
            self.kept.lock().unwrap().truncate(usize::try_from(bytes).unwrap());
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::failing::Disk;
    use super::*;

    const KIND: LineFileKind = LineFileKind { name: "test file", begins: b"{\"row\":", line_bytes_max: 100 };

    #[test]
    fn a_torn_last_line_is_cut_off_when_it_is_of_its_kind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let kept = "{\"row\":1}\n";
        for torn in ["", "{", "{\"row\":", "{\"row\":2,\"id\":\"x"] {
            std::fs::write(&path, format!("{kept}{torn}")).unwrap();
            let mut seen = 0;
            let mut file = LineFile::open(KIND, &path, |_| {
                seen += 1;
                Ok(())
            })
            .unwrap();
            file.append(b"next\n").unwrap();
            assert_eq!(
                (seen, std::fs::read_to_string(&path).unwrap()),
                (1, format!("{kept}next\n")),
                "{torn}"
            );
        }
        std::fs::write(&path, "dear diary").unwrap();
        let error = LineFile::open(KIND, &path, |_| Ok(())).unwrap_err().to_string();
        assert!(error.ends_with("line 1: it is not a line that this program writes"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "dear diary");
    }

    #[test]
    fn a_line_without_room_leaves_no_half_of_it_and_nothing_is_written_behind_it() {
        let disk = Disk::with_room(16);
        let mut file = LineFile::over(Box::new(disk.clone()), KIND, Path::new("x"), 0);
        file.append(b"{\"row\":1}\n").unwrap();
        assert!(matches!(file.append(b"{\"row\":2}\n"), Err(JobError::NoRoom(_))));
        assert_eq!(disk.text(), "{\"row\":1}\n");
        disk.room.store(1000, Ordering::Relaxed);
        assert!(file.append(b"{\"row\":3}\n").is_err(), "the row before it has no line");
        assert_eq!(disk.text(), "{\"row\":1}\n");
        file.sync().unwrap();
    }

    #[test]
    fn what_the_disk_has_lost_once_is_never_believed_to_be_there() {
        let disk = Disk::with_room(1000);
        let mut file = LineFile::over(Box::new(disk.clone()), KIND, Path::new("x"), 0);
        file.append(b"{\"row\":1}\n").unwrap();
        disk.fails_to_sync.store(true, Ordering::Relaxed);
        assert!(matches!(file.sync(), Err(JobError::NoRoom(_))));
        assert!(file.sync().is_err() && file.append(b"{\"row\":2}\n").is_err());
    }

    #[test]
    fn one_process_holds_it_and_whoever_comes_after_it_was_renamed_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let (path, aside) = (dir.path().join("file"), dir.path().join("aside"));
        let file = LineFile::open(KIND, &path, |_| Ok(())).unwrap();
        let error = LineFile::open(KIND, &path, |_| Ok(())).unwrap_err().to_string();
        assert!(error.contains("another `submit` is at work on it"), "{error}");
        let late = File::open(&path).unwrap();
        file.set_aside(&aside).unwrap();
        assert!(lock(&late, &path).is_err());
        let again = LineFile::open(KIND, &path, |_| Ok(())).unwrap();
        assert!(matches!(again.set_aside(&aside), Err(JobError::Refused(_))), "nothing is written over");
    }

    #[test]
    fn a_rewritten_file_has_the_lines_that_are_wanted_and_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, "{\"row\":1}\n{\"row\":2}\n{\"row\":3}\n").unwrap();
        let file = LineFile::open(KIND, &path, |_| Ok(())).unwrap();
        let mut file = file.rewrite(|line| line != b"{\"row\":2}").unwrap();
        assert!(LineFile::open(KIND, &path, |_| Ok(())).is_err(), "it is still held");
        file.append(b"{\"row\":2}\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"row\":1}\n{\"row\":3}\n{\"row\":2}\n");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
    }
}
