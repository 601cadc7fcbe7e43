//! The rows of a file, one after the other: each is the body of an invocation, or says what is wrong with it.
//!
//! The file is read as a stream, by the same code before the first row is sent and when it is; so what was found
//! good is what is sent. Nothing longer than a row is held.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read};
use std::path::{Path, PathBuf};

use csv::ByteRecord;
use serde::Serialize;
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use crate::domain::envelope::BODY_BYTES_MAX;
use crate::domain::ids::excerpt;
use crate::domain::json::{self, Object};
use crate::tools::catalogue::Entry;

use super::columns::Columns;
use super::lines::{self, Line};

/// The longest row: what is longer cannot be a body, and an unclosed quotation mark would swallow the whole file.
const ROW_BYTES_MAX: usize = 2 * BODY_BYTES_MAX;

/// How a file is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// A header, and then a row of cells for each invocation.
    Csv,
    /// One JSON object a line.
    JsonLines,
}

impl Form {
    /// The form of a file: by its name, else by its first character.
    pub fn of(file: &Path) -> io::Result<Self> {
        let ending = file.extension().map(|ending| ending.to_string_lossy().to_ascii_lowercase());
        match ending.as_deref() {
            Some("csv") => Ok(Self::Csv),
            Some("jsonl" | "ndjson" | "json") => Ok(Self::JsonLines),
            _ => {
                let mut reader = BufReader::new(File::open(file)?);
                let start = reader.fill_buf()?;
                let start = start.strip_prefix(BOM).unwrap_or(start).trim_ascii_start();
                Ok(if start.starts_with(b"{") { Self::JsonLines } else { Self::Csv })
            }
        }
    }
}

/// What some editors put in front of UTF-8.
const BOM: &[u8] = b"\xef\xbb\xbf";

/// A file, and what its rows are.
#[derive(Clone)]
pub(super) struct Plan {
    /// The file.
    pub file: PathBuf,
    /// How it is read.
    pub form: Form,
    /// The subtool of all rows; `None`: each row is a whole body.
    pub entry: Option<&'static Entry>,
}

/// One row.
#[derive(Debug)]
pub(super) struct Row {
    /// Its number, from 1.
    pub number: u64,
    /// The line it begins at.
    pub line: u64,
    /// The body of its invocation.
    pub body: Vec<u8>,
}

/// Something wrong with the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    /// At which line.
    pub line: u64,
    /// In which column: its number from 1 and, in a CSV file, its name.
    pub column: Option<(usize, Option<String>)>,
    /// What.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}", self.line)?;
        match &self.column {
            Some((number, Some(name))) => write!(f, ", column {number} (`{}`)", excerpt(name))?,
            Some((number, None)) => write!(f, ", column {number}")?,
            None => {}
        }
        write!(f, ": {}", self.what)
    }
}

/// What comes next in a file.
pub(super) enum Next {
    /// A row.
    Row(Row),
    /// Something that is no good row.
    Faulty(Vec<Problem>),
    /// The end.
    End,
}

/// A file being read, row by row.
pub(super) struct Rows {
    reader: Reader,
    entry: Option<&'static Entry>,
    number: u64,
}

enum Reader {
    Csv { reader: csv::Reader<Source>, columns: Columns, record: ByteRecord },
    Lines { reader: BufReader<Source>, line: Vec<u8>, number: u64 },
}

#[derive(Serialize)]
struct Body<'a, T: Serialize> {
    subtool: &'static str,
    arguments: &'a T,
}

impl Rows {
    /// Opens a file, and says what is wrong with its header.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn open(plan: &Plan) -> io::Result<(Self, Vec<Problem>)> {
        let source = Source::new(File::open(&plan.file)?);
        let (reader, problems) = match (plan.form, plan.entry) {
            (Form::Csv, Some(entry)) => Reader::csv(source, entry)?,
            (Form::JsonLines, _) | (_, None) => {
                (Reader::Lines { reader: BufReader::new(source), line: Vec::new(), number: 0 }, Vec::new())
            }
        };
        Ok((Self { reader, entry: plan.entry, number: 0 }, problems))
    }

    /// The next row.
    ///
    /// # Errors
    /// When the file cannot be read on.
    pub fn next(&mut self) -> io::Result<Next> {
        let next = match &mut self.reader {
            Reader::Csv { reader, columns, record } => {
                let entry = self.entry.expect("a CSV file is read for one subtool");
                next_record(reader, columns, record, entry)?
            }
            Reader::Lines { reader, line, number } => next_line(reader, line, number, self.entry)?,
        };
        Ok(match next {
            Next::Row(row) => {
                self.number += 1;
                Next::Row(Row { number: self.number, ..row })
            }
            Next::Faulty(problems) => {
                self.number += 1;
                Next::Faulty(problems)
            }
            Next::End => Next::End,
        })
    }

    /// How many rows there were so far.
    pub fn count(&self) -> u64 {
        self.number
    }

    /// In a CSV file the column that a path of the body leads to: its number and name.
    pub fn column(&self, path: &str) -> Option<(usize, Option<String>)> {
        let Reader::Csv { columns, .. } = &self.reader else { return None };
        let at = columns.of_path(path.strip_prefix("arguments.")?)?;
        Some((at + 1, columns.name(at).map(str::to_owned)))
    }

    /// Whether rows can be read as they are meant at all.
    pub fn is_readable(&self) -> bool {
        match &self.reader {
            Reader::Csv { columns, .. } => columns.are_good,
            Reader::Lines { .. } => true,
        }
    }

    /// The SHA-256 of the whole file, in hexadecimal digits.
    ///
    /// # Errors
    /// When the rest of it cannot be read.
    pub fn digest(self) -> io::Result<String> {
        let mut source = match self.reader {
            Reader::Csv { reader, .. } => reader.into_inner(),
            Reader::Lines { reader, .. } => reader.into_inner(),
        };
        source.allowance = u64::MAX;
        io::copy(&mut source, &mut io::sink())?;
        Ok(source.hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

impl Reader {
    fn csv(source: Source, entry: &'static Entry) -> io::Result<(Self, Vec<Problem>)> {
        let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(source);
        let header = reader.byte_headers().map_err(io::Error::from)?.clone();
        let name = |cell: &[u8]| String::from_utf8_lossy(cell).into_owned();
        let names: Vec<String> = header.iter().map(name).collect();
        let (columns, faults) = Columns::read(&names.iter().map(String::as_str).collect::<Vec<_>>(), entry);
        let line = header.position().map_or(1, csv::Position::line);
        let problem = |(at, what): (usize, String)| {
            let column = names.get(at).map(|name| (at + 1, Some(name.clone())));
            Problem { line, column, what }
        };
        let problems = faults.into_iter().map(problem).collect();
        Ok((Self::Csv { reader, columns, record: ByteRecord::new() }, problems))
    }
}

fn next_record(
    reader: &mut csv::Reader<Source>,
    columns: &Columns,
    record: &mut ByteRecord,
    entry: &'static Entry,
) -> io::Result<Next> {
    reader.get_mut().allowance = ROW_BYTES_MAX as u64;
    if !reader.read_byte_record(record).map_err(io::Error::from)? {
        return Ok(Next::End);
    }
    let line = line_of(record, reader);
    if !columns.fit(record.len()) {
        let what = format!("it has {} cells, and the header has {}", record.len(), columns.count);
        return Ok(Next::Faulty(vec![Problem { line, column: None, what }]));
    }
    let problem = |(at, what): (usize, String)| {
        let column = Some((at + 1, columns.name(at).map(str::to_owned)));
        Problem { line, column, what }
    };
    Ok(match columns.arguments(record.iter()) {
        Ok(arguments) => {
            let body = json::to_vec(&Body { subtool: entry.manifest.name, arguments: &arguments });
            Next::Row(Row { number: 0, line, body })
        }
        Err(faults) => Next::Faulty(faults.into_iter().map(problem).collect()),
    })
}

/// The line at which a record begins that was just read. The parser's own count is behind where lines end in CR LF
/// or empty ones stand between: it is right after a record, but for the LF.
fn line_of(record: &ByteRecord, reader: &csv::Reader<Source>) -> u64 {
    let inside = record.as_slice().iter().filter(|byte| **byte == b'\n').count() as u64;
    let end = reader.position();
    let is_ended = reader.get_ref().byte_before(end.byte()) == Some(b'\n');
    end.line().saturating_sub(inside + u64::from(is_ended))
}

fn next_line(
    reader: &mut BufReader<Source>,
    text: &mut Vec<u8>,
    number: &mut u64,
    entry: Option<&'static Entry>,
) -> io::Result<Next> {
    loop {
        reader.get_mut().allowance = u64::MAX; // a line that is too long is passed over
        let what = lines::next(reader, text, ROW_BYTES_MAX)?;
        *number += 1;
        let line = *number;
        let faulty = |column: Option<usize>, what: String| {
            Next::Faulty(vec![Problem { line, column: column.map(|column| (column, None)), what }])
        };
        match what {
            Line::End => return Ok(Next::End),
            Line::TooLong => {
                return Ok(faulty(None, format!("the line has more than {ROW_BYTES_MAX} bytes")));
            }
            Line::Whole | Line::Torn => {}
        }
        let bare = text.strip_prefix(BOM).filter(|_| line == 1).unwrap_or(text).trim_ascii();
        if bare.is_empty() {
            continue;
        }
        let raw: &RawValue = match serde_json::from_slice(bare) {
            Ok(raw) => raw,
            Err(error) => {
                let said = error.to_string();
                let said = said.rfind(" at line ").map_or(said.as_str(), |at| &said[..at]).to_owned();
                return Ok(faulty(Some(error.column().max(1)), format!("it is not JSON: {said}")));
            }
        };
        if !raw.get().starts_with('{') {
            return Ok(faulty(Some(1), "it is not a JSON object".to_owned()));
        }
        let body = match entry {
            Some(entry) => json::to_vec(&Body { subtool: entry.manifest.name, arguments: &raw }),
            None => bare.to_vec(),
        };
        return Ok(Next::Row(Row { number: 0, line, body }));
    }
}

/// The same body with `options.dry_run`.
pub(super) fn dry(body: &[u8]) -> Vec<u8> {
    let mut object: Object = serde_json::from_slice(body).expect("a checked body is an object");
    let options = object.get("options").map(|options| serde_json::from_str(options.get()));
    let mut options: Object = options.and_then(Result::ok).unwrap_or_default();
    options.set("dry_run", json::to_raw(&true));
    object.set("options", json::to_raw(&options));
    json::to_vec(&object)
}

/// A file that is digested while it is read.
struct Source {
    file: File,
    hasher: Sha256,
    /// How many bytes may be read on, so that no row grows without a limit.
    allowance: u64,
    /// What was read last, and where in the file it ends.
    chunk: Vec<u8>,
    end: u64,
}

impl Source {
    fn new(file: File) -> Self {
        Self { file, hasher: Sha256::new(), allowance: ROW_BYTES_MAX as u64, chunk: Vec::new(), end: 0 }
    }

    /// The byte before a place in what was read last.
    fn byte_before(&self, place: u64) -> Option<u8> {
        let behind = usize::try_from(self.end.checked_sub(place)?).ok()?;
        self.chunk.get(self.chunk.len().checked_sub(behind + 1)?).copied()
    }
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.allowance == 0 {
            let why = format!("a row has more than {ROW_BYTES_MAX} bytes: is a quotation mark not closed?");
            return Err(io::Error::other(why));
        }
        let read = self.file.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        self.allowance = self.allowance.saturating_sub(read as u64);
        if read > 0 {
            self.chunk.clear();
            self.chunk.extend_from_slice(&buffer[..read]);
            self.end += read as u64;
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::catalogue::find;

    fn read(form: Form, subtool: Option<&str>, text: &[u8]) -> (Vec<String>, Vec<String>, String) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("rows");
        std::fs::write(&file, text).unwrap();
        let entry = subtool.map(|name| find(name).unwrap());
        let (mut rows, problems) = Rows::open(&Plan { file, form, entry }).unwrap();
        let (mut bodies, mut said) = (Vec::new(), problems);
        loop {
            match rows.next().unwrap() {
                Next::Row(row) => {
                    bodies.push(format!(
                        "{} {} {}",
                        row.number,
                        row.line,
                        String::from_utf8(row.body).unwrap()
                    ));
                }
                Next::Faulty(problems) => said.extend(problems),
                Next::End => break,
            }
        }
        (bodies, said.iter().map(ToString::to_string).collect(), rows.digest().unwrap())
    }

    #[test]
    fn rows_of_a_csv_file_have_the_line_they_begin_at() {
        let text = "\u{feff}user_id,profile.title\r\na,\"two\nlines\"\r\n\r\nb,\\null\nc\nd,\u{e4}\n";
        let (bodies, problems, digest) = read(Form::Csv, Some("update_user"), text.as_bytes());
        let expected = [
            r#"1 2 {"subtool":"update_user","arguments":{"profile":{"title":"two\nlines"},"user_id":"a"}}"#,
            r#"2 5 {"subtool":"update_user","arguments":{"profile":{"title":null},"user_id":"b"}}"#,
            r#"4 7 {"subtool":"update_user","arguments":{"profile":{"title":"ä"},"user_id":"d"}}"#,
        ];
        assert_eq!(bodies, expected);
        assert_eq!(problems, ["line 6: it has 1 cells, and the header has 2"]);
        let whole: String = Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(digest, whole);
    }

    #[test]
    fn lines_are_counted_right_however_the_file_is_read_and_whatever_ends_them() {
        for end in ["\n", "\r\n"] {
            let mut text = format!("user_id,profile.title{end}");
            let mut expected = Vec::new();
            let mut line = 2;
            for row in 0..3_000 {
                expected.push(line);
                let title = if row % 7 == 0 { format!("\"a{end}b\"") } else { "x".repeat(row % 13) };
                text.push_str(&format!("u{row},{title}{end}"));
                line += if row % 7 == 0 { 2 } else { 1 };
                if row % 5 == 0 {
                    text.push_str(end);
                    line += 1;
                }
            }
            let (bodies, problems, _) = read(Form::Csv, Some("update_user"), text.as_bytes());
            let lines: Vec<u64> =
                bodies.iter().map(|body| body.split(' ').nth(1).unwrap().parse().unwrap()).collect();
            assert_eq!((lines, problems), (expected, Vec::new()));
        }
    }

    #[test]
    fn json_lines_are_arguments_or_whole_bodies() {
        let text =
            b"\xef\xbb\xbf{\"user_id\":1e3}\n\n  {\"user_id\":\"b\"}  \r\n{\"user_id\" \"c\"}\n[]\n{\"x\":0}";
        let (bodies, problems, _) = read(Form::JsonLines, Some("get_user"), text);
        let expected = [
            r#"1 1 {"subtool":"get_user","arguments":{"user_id":1e3}}"#,
            r#"2 3 {"subtool":"get_user","arguments":{"user_id":"b"}}"#,
            r#"5 6 {"subtool":"get_user","arguments":{"x":0}}"#,
        ];
        assert_eq!(bodies, expected);
        let expected =
            ["line 4, column 12: it is not JSON: expected `:`", "line 5, column 1: it is not a JSON object"];
        assert_eq!(problems, expected);
        let (bodies, _, _) = read(Form::JsonLines, None, b"{\"subtool\":\"get_user\" }\n");
        assert_eq!(bodies, [r#"1 1 {"subtool":"get_user" }"#]);
    }

    #[test]
    fn nothing_longer_than_a_row_is_held() {
        let long = format!("user_id\n\"{}", "x\n".repeat(2 * ROW_BYTES_MAX));
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("rows.csv");
        std::fs::write(&file, long).unwrap();
        let plan = Plan { form: Form::of(&file).unwrap(), file, entry: find("get_user") };
        let mut rows = Rows::open(&plan).unwrap().0;
        let error = rows.next().err().unwrap().to_string();
        assert!(error.contains("a quotation mark"), "{error}");
        let text = format!("{{\"user_id\":\"{}\"}}\n{{\"user_id\":\"b\"}}\n", "x".repeat(ROW_BYTES_MAX));
        let (bodies, problems, _) = read(Form::JsonLines, Some("get_user"), text.as_bytes());
        assert_eq!((bodies.len(), problems.len()), (1, 1), "{problems:?}");
    }

    #[test]
    fn a_dry_body_says_so_and_nothing_else_of_it_changes() {
        let rows = [
            (r#"{"subtool":"x"}"#, r#"{"subtool":"x","options":{"dry_run":true}}"#),
            (
                r#"{"options":{"reason":"T-1","dry_run":false},"arguments":{"n":1e3}}"#,
                r#"{"options":{"reason":"T-1","dry_run":true},"arguments":{"n":1e3}}"#,
            ),
        ];
        for (body, expected) in rows {
            assert_eq!(String::from_utf8(dry(body.as_bytes())).unwrap(), expected);
        }
    }
}
