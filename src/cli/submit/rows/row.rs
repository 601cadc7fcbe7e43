//! A row of a file, and its problems.

use std::fmt;
use std::io;

/// A row of a file.
#[derive(Debug)]
pub(in crate::cli::submit) struct Row {
    /// The row number, from 1. Blank rows are not counted.
    pub number: u64,
    /// The line at which the row begins.
    pub line: u64,
    /// The body of the invocation.
    pub body: Vec<u8>,
}

/// A place in a file or in the options of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli::submit) enum FilePlace {
    /// A line of the file.
    Line(u64),
    /// A column in a line.
    Column {
        /// The line, from 1.
        line: u64,
        /// The column, from 1.
        number: usize,
        /// The heading, if there is one and an error may repeat it.
        name: Option<String>,
    },
    /// A value that `--set` gives to all rows.
    Set(String),
}

impl FilePlace {
    /// Creates a column place from its number from 0 and the name that may be repeated.
    pub fn column(line: u64, at: usize, name: Option<String>) -> Self {
        Self::Column { line, number: at + 1, name }
    }
}

/// A problem of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli::submit) struct RowProblem {
    /// The place of the problem.
    pub place: FilePlace,
    /// The description; never a cell's text.
    pub what: String,
}

impl fmt::Display for RowProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            FilePlace::Line(line) => write!(f, "line {line}")?,
            FilePlace::Column { line, number, name: Some(name) } => {
                write!(f, "line {line}, column {number} (`{name}`)")?;
            }
            FilePlace::Column { line, number, name: None } => write!(f, "line {line}, column {number}")?,
            FilePlace::Set(path) => write!(f, "`--set {path}`")?,
        }
        write!(f, ": {}", self.what)
    }
}

/// The next item of a file.
pub(in crate::cli::submit) enum Next {
    /// A row.
    Row(Row),
    /// An invalid row, with its problems.
    Faulty(Vec<RowProblem>),
    /// The end.
    End,
}

/// The reason that a file cannot be read further.
#[derive(Debug)]
pub(in crate::cli::submit) enum Unreadable {
    /// The operating system reports an error.
    Io(io::Error),
    /// The rows or cells cannot be separated.
    Malformed(RowProblem),
}

impl From<io::Error> for Unreadable {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Malformed(problem) => problem.fmt(f),
        }
    }
}
