//! What a job is: which file, what is done with its rows, and every name that follows from that.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::domain::ids::{ConnectionName, Lane};
use crate::domain::topology::REPLIES;

/// How much of the digest is part of names: enough that no two files of an operator share it.
const DIGEST_CHARS: usize = 16;

/// What follows the row in the id of a dry run, which is another invocation than the real one.
const DRY: &str = ".dry";

/// One file, and what is to be done with its rows.
#[derive(Debug, Clone)]
pub(super) struct Job {
    /// The file.
    pub file: PathBuf,
    /// Where its results go.
    pub results: PathBuf,
    /// The connection.
    pub connection: ConnectionName,
    /// The lane.
    pub lane: Lane,
    /// What the journal says of it.
    pub identity: Identity,
}

/// What must be the same when a job is taken up again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Identity {
    /// The SHA-256 of the file, in hexadecimal digits.
    pub sha256: String,
    /// How many rows it has.
    pub rows: u64,
    /// The subtool of all rows; `None`: each row names its own.
    pub subtool: Option<String>,
    /// The connection.
    pub connection: String,
    /// The lane.
    pub lane: String,
    /// Whether nothing is written.
    pub dry_run: bool,
    /// Whether it runs inside the process, without a broker.
    pub embedded: bool,
}

impl Identity {
    fn digest(&self) -> &str {
        &self.sha256[..DIGEST_CHARS.min(self.sha256.len())]
    }

    fn suffix(&self) -> &'static str {
        if self.dry_run { DRY } else { "" }
    }

    /// The id of a row's invocation.
    pub fn id(&self, row: u64) -> String {
        format!("{}.{row}{}", self.digest(), self.suffix())
    }

    /// The row of an id, when it is one of this job's.
    pub fn row_of(&self, id: &str) -> Option<u64> {
        let row = id.strip_prefix(self.digest())?.strip_prefix('.')?.strip_suffix(self.suffix())?;
        let row = row.bytes().all(|byte| byte.is_ascii_digit()).then(|| row.parse().ok())??;
        (1..=self.rows).contains(&row).then_some(row)
    }

    /// The queue for the results.
    pub fn reply_queue(&self) -> String {
        format!("{REPLIES}submit.{}{}", self.digest(), self.suffix())
    }

    /// How the job of a journal differs from this one, in words; `None`: in nothing.
    pub fn difference(&self, journal: &Self) -> Option<String> {
        let Self { sha256, rows: _, subtool, connection, lane, dry_run, embedded } = self;
        if *sha256 != journal.sha256 {
            return Some(
                "the file has changed since: its rows would be taken for others and done again. Put the file back \
                 as it was, or give the changed one another name"
                    .to_owned(),
            );
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
        Some(format!("the file was begun with another {what} (`{was}`, not `{is}`). Go on as it was begun"))
    }
}

/// The file beside another whose name is longer by this.
pub(super) fn beside(file: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(file);
    name.push(ending);
    PathBuf::from(name)
}

impl Job {
    /// The journal. A dry run has one of its own.
    pub fn journal(&self) -> PathBuf {
        beside(&self.file, if self.identity.dry_run { ".dry.journal" } else { ".journal" })
    }
}

/// Where results go unless somebody says otherwise.
pub(super) fn default_results(file: &Path, dry_run: bool) -> PathBuf {
    beside(file, if dry_run { ".dry.results.jsonl" } else { ".results.jsonl" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity {
            sha256: "0123456789abcdef0123".to_owned(),
            rows: 20,
            subtool: Some("get_user".to_owned()),
            connection: "prod".to_owned(),
            lane: "bulk".to_owned(),
            dry_run: false,
            embedded: false,
        }
    }

    #[test]
    fn an_id_leads_back_to_its_row_and_no_other_id_does() {
        let real = identity();
        assert_eq!((real.id(7).as_str(), real.row_of("0123456789abcdef.7")), ("0123456789abcdef.7", Some(7)));
        let dry = Identity { dry_run: true, ..identity() };
        assert_eq!((dry.id(7).as_str(), dry.row_of(&dry.id(7))), ("0123456789abcdef.7.dry", Some(7)));
        assert_eq!((dry.row_of(&real.id(7)), real.row_of(&dry.id(7))), (None, None));
        assert_ne!(dry.reply_queue(), real.reply_queue());
        for foreign in ["0123456789abcdef.0", "0123456789abcdef.21", "0123456789abcdef.+7", "fedc.7", ""] {
            assert_eq!(real.row_of(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn what_is_not_the_same_job_is_named() {
        let other = [
            (Identity { sha256: "ff".to_owned(), rows: 3, ..identity() }, "has changed"),
            (Identity { subtool: None, ..identity() }, "subtool (`get_user`, not `each row's own`)"),
            (Identity { lane: "interactive".to_owned(), ..identity() }, "lane (`bulk`"),
            (Identity { embedded: true, ..identity() }, "way (`by the broker`, not `--embedded`)"),
        ];
        assert_eq!(identity().difference(&identity()), None);
        for (now, words) in other {
            let said = now.difference(&identity()).unwrap();
            assert!(said.contains(words), "{said}");
        }
    }
}
