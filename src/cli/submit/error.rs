//! The errors that stop a job before or during a run.

use std::fmt;
use std::io;
use std::path::Path;

/// The end of a run before its job is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum JobError {
    /// The command, or a file that it names, is refused: nothing was begun.
    Refused(String),
    /// A file of the job cannot grow: the disk, the quota or the limit of this process is used up.
    NoRoom(String),
    /// Another failure stopped the run. The next run goes on from there.
    Failed(String),
}

/// The advice for a full disk.
const MAKE_ROOM: &str = "make room and run the same command again: it goes on from there, and no row is lost";

impl JobError {
    /// Creates the error for a failure to open or write a file of the job.
    pub fn writing(what: &str, path: &Path, error: &io::Error) -> Self {
        let said = format!("failed to write the {what} `{}`: {error}", path.display());
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                Self::NoRoom(format!("{said}; {MAKE_ROOM}"))
            }
            _ => Self::Failed(said),
        }
    }

    /// Converts an error before anything was begun: a failure that is not about space is a refusal.
    #[must_use]
    pub fn at_start(self) -> Self {
        match self {
            Self::Failed(said) => Self::Refused(said),
            other @ (Self::Refused(_) | Self::NoRoom(_)) => other,
        }
    }
}

impl fmt::Display for JobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Refused(said) | Self::NoRoom(said) | Self::Failed(said)) = self;
        f.write_str(said)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_a_used_up_quota_and_a_file_size_limit_say_what_to_do() {
        for kind in [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded, io::ErrorKind::FileTooLarge] {
            let error = JobError::writing("journal", Path::new("x.journal"), &kind.into());
            assert!(matches!(&error, JobError::NoRoom(said) if said.contains("`x.journal`")), "{error}");
            assert!(error.to_string().contains("make room and run the same command again"), "{error}");
            assert_eq!(error.clone().at_start(), error);
        }
        let other = JobError::writing("journal", Path::new("x"), &io::ErrorKind::PermissionDenied.into());
        assert!(matches!(other.clone(), JobError::Failed(_)));
        assert!(matches!(other.at_start(), JobError::Refused(_)));
    }
}
