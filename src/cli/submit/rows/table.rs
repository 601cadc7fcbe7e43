//! The reader of a CSV file: a heading, and then a row of cells for each invocation.

use std::io::{BufRead as _, BufReader};

use serde_json::{Map, Value};

use super::cells::trimmed;
use super::column::{SubtoolArguments, shown};
use super::columns::Columns;
use super::delimiter::Delimiter;
use super::fixed::Fixed;
use super::opening::{Note, not_utf8};
use super::records::{Broken, Malformed, Record, Records};
use super::row::{FilePlace, RowProblem, Unreadable};
use super::source::DigestedFile;

/// A CSV file whose heading was read.
pub(super) struct CsvTable {
    records: Records<BufReader<DigestedFile>>,
    record: Record,
    heading: Vec<String>,
    heading_line: u64,
    columns: Columns,
    fixed: Fixed,
    doubts: Vec<RowProblem>,
}

/// The next item of a table.
pub(super) enum Cells {
    /// The arguments of a row, and the line at which it begins.
    Row(Map<String, Value>, u64),
    /// An invalid row, with its problems.
    Faulty(Vec<RowProblem>),
    /// The end.
    End,
}

impl CsvTable {
    /// Reads the heading for a subtool; also returns its problems.
    ///
    /// # Errors
    /// If the file cannot be read, or is not a table with this delimiter.
    pub fn open(
        mut source: BufReader<DigestedFile>,
        delimiter: Delimiter,
        known: &SubtoolArguments,
        fixed: Fixed,
        bytes_max: usize,
    ) -> Result<(Self, Vec<RowProblem>), Unreadable> {
        let begins_at = pass_note(&mut source, delimiter)?;
        let mut records = Records::new(source, delimiter, bytes_max, begins_at);
        let mut record = Record::default();
        while records.read(&mut record).map_err(|broken| unreadable(broken, None))? && is_blank(&record) {}
        let line = record.line;
        let heading = heading(&record, delimiter)?;
        let names: Vec<&str> = heading.iter().map(String::as_str).collect();
        let (columns, faults) = Columns::read(&names, known, &fixed);
        let place = |at: usize| match names.get(at) {
            Some(name) => {
                let name = columns.name(at).map(str::to_owned).or_else(|| shown(trimmed(name)));
                FilePlace::column(line, at, name)
            }
            None => FilePlace::Line(line),
        };
        let problems = faults.into_iter().map(|(at, what)| RowProblem { place: place(at), what }).collect();
        let doubt = |(at, name)| RowProblem {
            place: place(at),
            what: format!("every org has `profile.{name}`; is it another attribute?"),
        };
        let doubts = columns.doubtful(known).into_iter().map(doubt).collect();
        Ok((Self { records, record, heading, heading_line: line, columns, fixed, doubts }, problems))
    }

    /// Reads the next row that is not blank.
    ///
    /// # Errors
    /// If the file cannot be read further, or is not well-formed.
    pub fn next(&mut self) -> Result<Cells, Unreadable> {
        loop {
            let columns = &self.columns;
            if !self.records.read(&mut self.record).map_err(|broken| unreadable(broken, Some(columns)))? {
                return Ok(Cells::End);
            }
            if !is_blank(&self.record) {
                return Ok(self.cells());
            }
        }
    }

    fn cells(&self) -> Cells {
        let (record, columns) = (&self.record, &self.columns);
        let line = record.line;
        let whole = |what: String| Cells::Faulty(vec![RowProblem { place: FilePlace::Line(line), what }]);
        if !columns.fit(record.len()) {
            let cells = if record.len() == 1 { "cell" } else { "cells" };
            return whole(format!("it has {} {cells}, and the header has {}", record.len(), columns.count));
        }
        if record.cells().eq(self.heading.iter().map(String::as_bytes)) {
            return whole(format!("it is the heading of line {} once more: take it out", self.heading_line));
        }
        match columns.arguments(record.cells(), &self.fixed) {
            Ok(arguments) => Cells::Row(arguments, line),
            Err(faults) => {
                let problem = |(at, what): (usize, String)| RowProblem { place: self.place(line, at), what };
                Cells::Faulty(faults.into_iter().map(problem).collect())
            }
        }
    }

    /// Returns the place of a path below `arguments` in a row; `None` if neither a column nor `--set` holds it.
    pub fn place_of(&self, line: u64, path: &str) -> Option<FilePlace> {
        match self.columns.of_path(path) {
            Some(at) => Some(self.place(line, at)),
            None => self.fixed.at(path).map(|column| FilePlace::Set(column.name.clone())),
        }
    }

    fn place(&self, line: u64, at: usize) -> FilePlace {
        FilePlace::column(line, at, self.columns.name(at).map(str::to_owned))
    }

    /// Returns false if the heading is so wrong that no row can be read as intended.
    pub fn is_readable(&self) -> bool {
        self.columns.are_good
    }

    /// Returns the warnings about the heading.
    pub fn doubts(&self) -> &[RowProblem] {
        &self.doubts
    }

    /// Returns the underlying file.
    pub fn into_source(self) -> DigestedFile {
        self.records.into_inner().into_inner()
    }
}

/// Skips a first line that only names the delimiter in use; returns the number of the next line.
fn pass_note(source: &mut BufReader<DigestedFile>, delimiter: Delimiter) -> Result<u64, Unreadable> {
    let start = source.fill_buf()?;
    let end = start.iter().position(|byte| *byte == b'\n');
    let Some(note) = Note::of(&start[..end.unwrap_or(start.len())]) else { return Ok(1) };
    if let Some(what) = note.words(delimiter) {
        return Err(Unreadable::Malformed(RowProblem { place: FilePlace::Line(1), what }));
    }
    let used = end.map_or(start.len(), |end| end + 1);
    source.consume(used);
    Ok(2)
}

/// Converts an error of the parser; names the column of a malformed place.
fn unreadable(broken: Broken, columns: Option<&Columns>) -> Unreadable {
    match broken {
        Broken::Io(error) => Unreadable::Io(error),
        Broken::Malformed(Malformed { line, column, what }) => {
            let name = columns.and_then(|columns| columns.name(column)).map(str::to_owned);
            Unreadable::Malformed(RowProblem { place: FilePlace::column(line, column, name), what })
        }
    }
}

/// Returns the names in a heading; refuses one that another delimiter seems to separate.
fn heading(record: &Record, delimiter: Delimiter) -> Result<Vec<String>, Unreadable> {
    let line = record.line;
    let name = |(at, cell): (usize, &[u8])| {
        let name = String::from_utf8(cell.to_vec());
        name.map_err(|_| RowProblem { place: FilePlace::column(line, at, None), what: not_utf8() })
    };
    let names = record.cells().enumerate().map(name).collect::<Result<Vec<_>, _>>();
    let names = names.map_err(Unreadable::Malformed)?;
    if let Some(other) = delimiter.instead(&names.iter().map(String::as_str).collect::<Vec<_>>()) {
        let what = format!(
            "the separator is {}, and the cells of this line are separated by {}: say `{}`",
            delimiter.plural(),
            other.plural(),
            other.option()
        );
        return Err(Unreadable::Malformed(RowProblem { place: FilePlace::Line(line), what }));
    }
    Ok(names)
}

/// Returns true if a record holds only blanks.
fn is_blank(record: &Record) -> bool {
    record.cells().all(|cell| std::str::from_utf8(cell).is_ok_and(|text| trimmed(text).is_empty()))
}
