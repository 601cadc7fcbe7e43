//! A row of a file, and what is wrong with one.

use std::fmt;
use std::io;

/// One row.
#[derive(Debug)]
pub(in crate::cli::submit) struct Row {
    /// Its number, from 1. Blank rows are not counted.
    pub number: u64,
    /// The line it begins at.
    pub line: u64,
    /// The body of its invocation.
    pub body: Vec<u8>,
}

/// A place in what a job is made of.
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
        /// The heading, where it has one that may be repeated.
        name: Option<String>,
    },
    /// A value that `--set` gives to all rows.
    Set(String),
}

impl FilePlace {
    /// A column by its number from 0 and the name that may be repeated.
    pub fn column(line: u64, at: usize, name: Option<String>) -> Self {
        Self::Column { line, number: at + 1, name }
    }
}

/// Something wrong with the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli::submit) struct Problem {
    /// Where.
    pub place: FilePlace,
    /// What; never a cell's text.
    pub what: String,
}

impl fmt::Display for Problem {
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

/// What comes next in a file.
pub(in crate::cli::submit) enum Next {
    /// A row.
    Row(Row),
    /// Something that is no good row.
    Faulty(Vec<Problem>),
    /// The end.
    End,
}

/// A reason why a file cannot be read on.
#[derive(Debug)]
pub(in crate::cli::submit) enum Unreadable {
    /// The system says no.
    Io(io::Error),
    /// The rows cannot be told apart, or not the cells.
    Malformed(Problem),
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
