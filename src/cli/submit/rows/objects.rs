//! The reader of a JSON Lines file: one object per line.

use std::io::BufReader;

use serde_json::value::RawValue;

use crate::cli::submit::lines::{self, Line};

use super::fixed::Fixed;
use super::opening::not_utf8;
use super::row::{FilePlace, RowProblem, Unreadable};
use super::source::DigestedFile;

/// A JSON Lines file being read.
pub(super) struct ObjectLines {
    reader: BufReader<DigestedFile>,
    line: Vec<u8>,
    number: u64,
    fixed: Fixed,
    bytes_max: usize,
}

/// The next item of the file.
pub(super) enum ObjectLine {
    /// An object, and its line.
    Row(Box<RawValue>, u64),
    /// A line without an object.
    Faulty(RowProblem),
    /// The end.
    End,
}

impl ObjectLines {
    /// Creates a reader of lines of at most `bytes_max` bytes; each object gets the fixed values.
    pub fn new(reader: BufReader<DigestedFile>, fixed: Fixed, bytes_max: usize) -> Self {
        Self { reader, line: Vec::new(), number: 0, fixed, bytes_max }
    }

    /// Reads the next line that is not blank.
    ///
    /// # Errors
    /// If reading the file fails.
    pub fn next(&mut self) -> Result<ObjectLine, Unreadable> {
        loop {
            let what = lines::next(&mut self.reader, &mut self.line, self.bytes_max)?;
            self.number += 1;
            match what {
                Line::End => return Ok(ObjectLine::End),
                Line::TooLong => {
                    let what = format!("the line has more than {} bytes", self.bytes_max);
                    return Ok(ObjectLine::Faulty(RowProblem { place: FilePlace::Line(self.number), what }));
                }
                Line::Whole | Line::Torn if self.line.trim_ascii().is_empty() => {}
                Line::Whole | Line::Torn => return Ok(self.object()),
            }
        }
    }

    fn object(&self) -> ObjectLine {
        let bare = self.line.trim_ascii();
        let faulty = |place: FilePlace, what: String| ObjectLine::Faulty(RowProblem { place, what });
        if std::str::from_utf8(bare).is_err() {
            return faulty(FilePlace::Line(self.number), format!("the line {}", not_utf8()));
        }
        let raw: Box<RawValue> = match serde_json::from_slice(bare) {
            Ok(raw) => raw,
            Err(error) => {
                let said = error.to_string();
                let said = said.rfind(" at line ").map_or(said.as_str(), |at| &said[..at]);
                let place = FilePlace::column(self.number, error.column().saturating_sub(1), None);
                return faulty(place, format!("it is not JSON: {said}"));
            }
        };
        if !raw.get().starts_with('{') {
            let hint =
                if raw.get().starts_with('[') { ": a list has each of its objects on a line" } else { "" };
            return faulty(FilePlace::column(self.number, 0, None), format!("it is not a JSON object{hint}"));
        }
        if self.fixed.is_empty() {
            return ObjectLine::Row(raw, self.number);
        }
        match self.fixed.add_to(&raw) {
            Ok(raw) => ObjectLine::Row(raw, self.number),
            Err(path) => {
                let name = self.fixed.at(&path).map_or("", |column| &column.name);
                let what = format!("it has a value of its own where `--set {name}` gives one to all rows");
                faulty(FilePlace::Line(self.number), what)
            }
        }
    }

    /// Returns the place of a path below `arguments`, if `--set` gives the value there.
    pub fn place_of(&self, path: &str) -> Option<FilePlace> {
        self.fixed.at(path).map(|column| FilePlace::Set(column.name.clone()))
    }

    /// Returns the underlying file.
    pub fn into_source(self) -> DigestedFile {
        self.reader.into_inner()
    }
}
