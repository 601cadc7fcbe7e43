//! What is wrong with a configuration, collected until all of it has been read.
//!
//! A problem says where and what, never the value itself where that could be a secret.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::path::PathBuf;

use super::tree::{Origin, Spot};

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file it stands in; none for the environment, and for what stands nowhere.
    pub file: Option<PathBuf>,
    /// The line in that file, counted from 1.
    pub line: Option<usize>,
    /// The dotted path of the setting, or the name of the environment variable. Empty when a whole file
    /// is at fault.
    pub path: String,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{}:", file.display())?;
            if let Some(line) = self.line {
                write!(f, "{line}:")?;
            }
            f.write_str(" ")?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

/// Everything that is wrong, sorted by place; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// What has been found so far. Shared by all readers, so that none has to stop at the first problem.
#[derive(Default)]
pub(super) struct Findings {
    problems: RefCell<Vec<Problem>>,
    warnings: RefCell<Vec<String>>,
    torn: Cell<bool>,
}

impl Findings {
    /// Something is wrong with what stands at this spot.
    pub(super) fn fault(&self, spot: &Spot, message: impl Into<String>) {
        let (file, line, path) = match &spot.origin {
            Origin::Default => (None, None, spot.path.clone()),
            Origin::File(file, line) => (Some(file.to_path_buf()), Some(*line), spot.path.clone()),
            Origin::Variable(name) => (None, None, name.clone()),
        };
        self.push(Problem { file, line, path, message: message.into() });
    }

    /// A key that must stand in the table at this spot does not.
    pub(super) fn missing(&self, table: &Spot, key: &str, message: &str) {
        let path = table.child(key);
        let (file, line) = match &table.origin {
            Origin::File(file, line) => (Some(file.to_path_buf()), Some(*line)),
            Origin::Default | Origin::Variable(_) => (None, None),
        };
        self.unless_torn(Problem { file, line, path, message: message.to_owned() });
    }

    /// What stands at this spot names something that stands nowhere.
    pub(super) fn dangling(&self, spot: &Spot, message: String) {
        if !self.torn.get() {
            self.fault(spot, message);
        }
    }

    /// A file could not be read as TOML, so that what seems to be missing may stand there.
    pub(super) fn tear(&self, problem: Problem) {
        self.torn.set(true);
        self.push(problem);
    }

    /// Adds a problem as it is.
    pub(super) fn push(&self, problem: Problem) {
        let mut problems = self.problems.borrow_mut();
        // What a torn line seems to say is not worth a second complaint.
        let known = |old: &Problem| {
            old.path.is_empty()
                && old.file.is_some()
                && (&old.file, old.line) == (&problem.file, problem.line)
        };
        if !problems.iter().any(known) {
            problems.push(problem);
        }
    }

    fn unless_torn(&self, problem: Problem) {
        if !self.torn.get() {
            self.push(problem);
        }
    }

    /// Something is allowed and unwise.
    pub(super) fn warn(&self, message: String) {
        self.warnings.borrow_mut().push(message);
    }

    /// The warnings, or every problem.
    pub(super) fn conclude(self) -> Result<Vec<String>, Problems> {
        let mut problems = self.problems.into_inner();
        if problems.is_empty() {
            return Ok(self.warnings.into_inner());
        }
        problems.sort_by(|a, b| {
            let place = |p: &Problem| (p.file.is_none(), p.file.clone(), p.line, p.path.clone());
            place(a).cmp(&place(b))
        });
        Err(Problems(problems))
    }
}
