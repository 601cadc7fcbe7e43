//! The limit of open files, and the detection that the process has reached it.
//!
//! A process without a free descriptor cannot connect to anything, and each failing call words that differently.
//! Only this module names the cause.

use std::error::Error;
use std::fs::File;
use std::io;

/// The error text for a process that cannot open any more files.
pub const EXHAUSTED: &str = "too many open files: raise the limit of open files (`ulimit -n`, `LimitNOFILE=` in \
                             systemd)";

/// The number of files that a worker opens for itself: the telemetry port's connections, those to the broker,
/// and the files it reads.
pub const OWN: u64 = 128;

/// The error codes for "the process has too many open files" (`EMFILE`) and "the system has" (`ENFILE`): the same
/// numbers on Linux, macOS and the BSDs.
const CODES: [i32; 2] = [24, 23];

/// Raises the soft limit of open files to the hard one. Leaves the limit unchanged if that fails.
pub fn raise() {
    let _ = rlimit::increase_nofile_limit(u64::MAX);
}

/// Returns the warning that a process needs more files than it may open.
pub fn shortage(needed: u64) -> Option<String> {
    let (_, most) = rlimit::Resource::NOFILE.get().ok()?;
    (most < needed).then(|| {
        format!(
            "the process may open {most} files and may need {needed}: raise the limit of open files \
             (`ulimit -Hn`, `LimitNOFILE=` in systemd)"
        )
    })
}

/// Returns true if an error, or one of its causes, is that no file can be opened.
pub fn are_exhausted_by(error: &(dyn Error + 'static)) -> bool {
    let mut link = Some(error);
    while let Some(error) = link {
        let code = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error);
        if code.is_some_and(|code| CODES.contains(&code)) {
            return true;
        }
        link = error.source();
    }
    false
}

/// Returns true if no file can be opened at this moment. Name resolution fails without a free descriptor, but
/// does not report that cause.
pub fn are_exhausted() -> bool {
    File::open("/dev/null").is_err_and(|error| are_exhausted_by(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("failed to connect")]
    struct Outer(#[source] io::Error);

    #[test]
    fn running_out_of_files_is_found_below_other_errors() {
        for (code, is_it) in [(24, true), (23, true), (111, false), (2, false)] {
            assert_eq!(are_exhausted_by(&Outer(io::Error::from_raw_os_error(code))), is_it, "{code}");
        }
        let wrapped = io::Error::other(Outer(io::Error::from_raw_os_error(24)));
        assert!(are_exhausted_by(&Outer(wrapped)));
        assert!(!are_exhausted_by(&Outer(io::Error::other("too many open files"))), "by its code");
    }

    #[test]
    fn a_limit_that_suffices_is_no_shortage() {
        assert_eq!(shortage(0), None);
        let warning = shortage(u64::MAX - 1).expect("no system has so many");
        assert!(warning.contains("raise the limit of open files"), "{warning}");
    }
}
