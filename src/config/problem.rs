//! Faults of a configuration, collected until all of it has been read.
//!
//! A problem names the place and the fault, but never a value that could be a secret.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::path::PathBuf;

use super::spot::{Origin, Spot};

/// One fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigProblem {
    /// The file; `None` for the environment, and for a missing key without a place.
    pub file: Option<PathBuf>,
    /// The line in that file, counted from 1.
    pub line: Option<usize>,
    /// The dotted path of the setting, or the name of the environment variable. Empty if the whole file
    /// is at fault.
    pub path: String,
    /// The description of the fault.
    pub message: String,
}

impl fmt::Display for ConfigProblem {
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

/// All faults, sorted by place; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigProblems(pub Vec<ConfigProblem>);

impl fmt::Display for ConfigProblems {
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

impl std::error::Error for ConfigProblems {}

/// The problems and warnings found so far, shared by all readers, so that none stops at the first problem.
#[derive(Default)]
pub(super) struct Findings {
    problems: RefCell<Vec<ConfigProblem>>,
    warnings: RefCell<Vec<String>>,
    torn: Cell<bool>,
}

impl Findings {
    /// Adds a fault of the value at this spot.
    pub(super) fn fault(&self, spot: &Spot, message: impl Into<String>) {
        let (file, line, path) = match &spot.origin {
            Origin::Default => (None, None, spot.path.clone()),
            Origin::File(file, line) => (Some(file.to_path_buf()), Some(*line), spot.path.clone()),
            Origin::Variable(name) => (None, None, name.clone()),
        };
        self.push(ConfigProblem { file, line, path, message: message.into() });
    }

    /// Adds a missing key of the table at this spot.
    pub(super) fn missing(&self, table: &Spot, key: &str, message: &str) {
        let path = table.child(key);
        let (file, line) = match &table.origin {
            Origin::File(file, line) => (Some(file.to_path_buf()), Some(*line)),
            Origin::Default | Origin::Variable(_) => (None, None),
        };
        self.unless_torn(ConfigProblem { file, line, path, message: message.to_owned() });
    }

    /// Adds a reference to something undefined.
    pub(super) fn dangling(&self, spot: &Spot, message: String) {
        if !self.torn.get() {
            self.fault(spot, message);
        }
    }

    /// Adds a file that is not TOML, in which a seemingly missing key may be set.
    pub(super) fn tear(&self, problem: ConfigProblem) {
        self.torn.set(true);
        self.push(problem);
    }

    /// Adds a problem as it is.
    pub(super) fn push(&self, problem: ConfigProblem) {
        let mut problems = self.problems.borrow_mut();
        // Further problems of a torn line are not worth reporting.
        let known = |old: &ConfigProblem| {
            old.path.is_empty()
                && old.file.is_some()
                && (&old.file, old.line) == (&problem.file, problem.line)
        };
        if !problems.iter().any(known) {
            problems.push(problem);
        }
    }

    fn unless_torn(&self, problem: ConfigProblem) {
        if !self.torn.get() {
            self.push(problem);
        }
    }

    /// Adds a warning of something that is allowed but unwise.
    pub(super) fn warn(&self, message: String) {
        self.warnings.borrow_mut().push(message);
    }

    /// Returns the warnings, or every problem.
    pub(super) fn conclude(self) -> Result<Vec<String>, ConfigProblems> {
        let mut problems = self.problems.into_inner();
        if problems.is_empty() {
            return Ok(self.warnings.into_inner());
        }
        problems.sort_by(|a, b| {
            let place = |p: &ConfigProblem| (p.file.is_none(), p.file.clone(), p.line, p.path.clone());
            place(a).cmp(&place(b))
        });
        Err(ConfigProblems(problems))
    }
}
