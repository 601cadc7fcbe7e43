//! The rows of a file, one after the other: each is the body of an invocation, or a list of its problems.
//!
//! The file is read as a stream, by the same code for checking and for sending; so the rows sent are the rows
//! checked. At most one row is held in memory.

mod cells;
mod column;
mod columns;
mod delimiter;
mod fixed;
mod hints;
mod objects;
mod opening;
mod records;
mod row;
mod source;
mod table;

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::domain::invocation::BODY_BYTES_MAX;
use crate::domain::json::{self, Object};
use crate::tools::catalogue::CatalogueEntry;

use column::SubtoolArguments;
use fixed::Fixed;
use objects::{ObjectLine, ObjectLines};
use source::{DigestedFile, hexadecimal};
use table::{Cells, CsvTable};

pub(super) use column::shown;
pub(super) use delimiter::Delimiter;
pub(super) use row::{FilePlace, Next, Row, RowProblem, Unreadable};

/// The longest row: a longer one cannot be a body, and an unclosed quotation mark would swallow the whole file.
const ROW_BYTES_MAX: usize = 2 * BODY_BYTES_MAX;

/// The number of bytes read to determine the format of a file.
const HEAD_BYTES: u64 = 4096;

const NO_SUBTOOL: &str = "a CSV file needs `--subtool`: its columns are the arguments of one subtool. A row of JSON \
                          Lines may name its own";

const NO_SUBTOOL_TO_SET: &str = "`--set` needs `--subtool`: it gives an argument of that subtool to all rows";

/// The format of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileFormat {
    /// CSV: a heading, and then a row of cells for each invocation.
    Csv,
    /// JSON Lines: one JSON object per line.
    JsonLines,
}

impl FileFormat {
    /// Returns the format of a file: by its name, else by its first character.
    fn of(file: &Path, head: &[u8]) -> Self {
        let ending = file.extension().map(|ending| ending.to_string_lossy().to_ascii_lowercase());
        match ending.as_deref() {
            Some("csv") => Self::Csv,
            Some("jsonl" | "ndjson" | "json") => Self::JsonLines,
            _ => match opening::first(head) {
                Some(b'{' | b'[') => Self::JsonLines,
                Some(_) | None => Self::Csv,
            },
        }
    }
}

/// A file, and the way to read its rows.
#[derive(Clone)]
pub(super) struct RowReader {
    /// The input file.
    pub file: PathBuf,
    /// The subtool of all rows; `None` if each row is a whole body.
    pub entry: Option<&'static CatalogueEntry>,
    form: FileFormat,
    delimiter: Delimiter,
    fixed: Fixed,
    seen: Version,
}

/// A version of a file, by its size and modification time.
type Version = (u64, Option<SystemTime>);

fn version(file: &Path) -> io::Result<Version> {
    std::fs::metadata(file).map(|metadata| (metadata.len(), metadata.modified().ok()))
}

impl RowReader {
    /// Inspects the beginning of a file whose rows are for one subtool; with `None`, each row is a whole body. `set`
    /// gives values to all rows, each as `PATH=VALUE`.
    ///
    /// # Errors
    /// A description of the problem, if the file has no supported format, or an option does not fit it.
    pub fn new(
        file: PathBuf,
        entry: Option<&'static CatalogueEntry>,
        delimiter: Option<Delimiter>,
        set: &[String],
    ) -> Result<Self, String> {
        let name = file.display();
        let mut head = Vec::new();
        let read = File::open(&file).and_then(|file| file.take(HEAD_BYTES).read_to_end(&mut head));
        let seen = read.and_then(|_| version(&file));
        let seen = seen.map_err(|error| format!("failed to read `{name}`: {error}"))?;
        if let Some(what) = opening::not_text(&head) {
            return Err(format!("`{name}` is {what}"));
        }
        let form = FileFormat::of(&file, &head);
        let other = match form {
            FileFormat::Csv => opening::not_csv(&head),
            FileFormat::JsonLines => opening::not_json_lines(&head),
        };
        if let Some(what) = other {
            return Err(format!("`{name}` is {what}"));
        }
        let fixed = match (form, entry) {
            (FileFormat::Csv, None) => return Err(NO_SUBTOOL.to_owned()),
            (FileFormat::JsonLines, None) if !set.is_empty() => return Err(NO_SUBTOOL_TO_SET.to_owned()),
            (FileFormat::JsonLines, _) if delimiter.is_some() => {
                return Err(format!("`--delimiter` is for CSV, and `{name}` is JSON Lines"));
            }
            (FileFormat::Csv | FileFormat::JsonLines, Some(entry)) => {
                Fixed::read(set, &SubtoolArguments::of(entry))?
            }
            (FileFormat::JsonLines, None) => Fixed::default(),
        };
        Ok(Self { file, form, entry, delimiter: delimiter.unwrap_or(Delimiter::COMMA), fixed, seen })
    }

    /// Returns true if the file is unchanged since this plan was made.
    pub fn is_unchanged(&self) -> bool {
        version(&self.file).is_ok_and(|now| now == self.seen)
    }

    /// Returns the digest of the options that change the rows of the same file; `None` if there are none.
    pub fn reading(&self) -> Option<String> {
        if self.delimiter == Delimiter::COMMA && self.fixed.is_empty() {
            return None;
        }
        let mut hasher = Sha256::new();
        hasher.update([self.delimiter.byte()]);
        self.fixed.digest(&mut hasher);
        Some(hexadecimal(hasher))
    }
}

/// A file being read, row by row.
pub(super) struct Rows {
    reader: Reader,
    entry: Option<&'static CatalogueEntry>,
    number: u64,
}

enum Reader {
    Csv(Box<CsvTable>),
    Lines(Box<ObjectLines>),
}

#[derive(Serialize)]
struct RowBody<'a, T: Serialize> {
    subtool: &'static str,
    arguments: &'a T,
}

impl Rows {
    /// Opens a file, and returns the problems of its heading.
    ///
    /// # Errors
    /// If the file cannot be read, or its cells cannot be separated.
    pub fn open(plan: &RowReader) -> Result<(Self, Vec<RowProblem>), Unreadable> {
        let source = DigestedFile::open(&plan.file)?;
        let fixed = plan.fixed.clone();
        let (reader, problems) = match (plan.form, plan.entry) {
            (FileFormat::Csv, Some(entry)) => {
                let known = SubtoolArguments::of(entry);
                let (table, problems) = CsvTable::open(source, plan.delimiter, &known, fixed, ROW_BYTES_MAX)?;
                (Reader::Csv(Box::new(table)), problems)
            }
            (FileFormat::JsonLines, _) | (_, None) => {
                (Reader::Lines(Box::new(ObjectLines::new(source, fixed, ROW_BYTES_MAX))), Vec::new())
            }
        };
        Ok((Self { reader, entry: plan.entry, number: 0 }, problems))
    }

    /// Returns the next row.
    ///
    /// # Errors
    /// If reading the file fails.
    pub fn next(&mut self) -> Result<Next, Unreadable> {
        let entry = self.entry;
        let next = match &mut self.reader {
            Reader::Csv(table) => match table.next()? {
                Cells::Row(arguments, line) => {
                    let entry = entry.expect("a CSV file is read for one subtool");
                    let body = json::to_vec(&RowBody { subtool: entry.manifest.name, arguments: &arguments });
                    Next::Row(Row { number: self.number + 1, line, body })
                }
                Cells::Faulty(problems) => Next::Faulty(problems),
                Cells::End => Next::End,
            },
            Reader::Lines(objects) => match objects.next()? {
                ObjectLine::Row(raw, line) => {
                    let body = match entry {
                        Some(entry) => {
                            json::to_vec(&RowBody { subtool: entry.manifest.name, arguments: &raw })
                        }
                        None => raw.get().as_bytes().to_vec(),
                    };
                    Next::Row(Row { number: self.number + 1, line, body })
                }
                ObjectLine::Faulty(problem) => Next::Faulty(vec![problem]),
                ObjectLine::End => Next::End,
            },
        };
        match &next {
            Next::Row(_) | Next::Faulty(_) => self.number += 1,
            Next::End => {}
        }
        Ok(next)
    }

    /// Returns the number of rows so far.
    pub fn count(&self) -> u64 {
        self.number
    }

    /// Returns the place of a path in a row's body, if the file has a column for it or `--set` gives it.
    pub fn place_of(&self, line: u64, path: &str) -> Option<FilePlace> {
        let path = path.strip_prefix("arguments.")?;
        match &self.reader {
            Reader::Csv(table) => table.place_of(line, path),
            Reader::Lines(objects) => objects.place_of(path),
        }
    }

    /// Returns false if the heading is so wrong that no row can be read as intended.
    pub fn is_readable(&self) -> bool {
        match &self.reader {
            Reader::Csv(table) => table.is_readable(),
            Reader::Lines(_) => true,
        }
    }

    /// Returns the warnings about the heading.
    pub fn doubts(&self) -> &[RowProblem] {
        match &self.reader {
            Reader::Csv(table) => table.doubts(),
            Reader::Lines(_) => &[],
        }
    }

    /// Returns the SHA-256 of the whole file, in hexadecimal digits.
    ///
    /// # Errors
    /// If the rest of the file cannot be read.
    pub fn digest(self) -> io::Result<String> {
        match self.reader {
            Reader::Csv(table) => table.into_source().digest(),
            Reader::Lines(objects) => objects.into_source().digest(),
        }
    }
}

/// Returns the same body with `options.dry_run`.
pub(super) fn dry(body: &[u8]) -> Vec<u8> {
    let mut object: Object = serde_json::from_slice(body).expect("a checked body is an object");
    let options = object.get("options").map(|options| serde_json::from_str(options.get()));
    let mut options: Object = options.and_then(Result::ok).unwrap_or_default();
    options.set("dry_run", json::to_raw(&true));
    object.set("options", json::to_raw(&options));
    json::to_vec(&object)
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::tools::catalogue::find;

    /// The rows and problems read from a file.
    #[derive(Debug, PartialEq, Eq)]
    struct Read {
        /// The number, line and body of each row.
        rows: Vec<String>,
        /// The problems, in words.
        problems: Vec<String>,
        digest: String,
    }

    /// The value of `--delimiter`, if any, and those of `--set`.
    type Said<'a> = (&'a str, &'a [&'a str]);

    /// Returns a plan, and the folder of its file.
    type Planned = (RowReader, TempDir);

    fn plan(name: &str, subtool: Option<&str>, text: &[u8], options: Said<'_>) -> Result<Planned, String> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(name);
        std::fs::write(&file, text).unwrap();
        let delimiter = Some(options.0).filter(|text| !text.is_empty());
        let delimiter = delimiter.map(|text| Delimiter::parse(text).unwrap());
        let set: Vec<String> = options.1.iter().map(|text| (*text).to_owned()).collect();
        RowReader::new(file, subtool.map(|name| find(name).unwrap()), delimiter, &set).map(|plan| (plan, dir))
    }

    fn read_plan((plan, _): &Planned) -> Result<Read, String> {
        let (mut rows, problems) = Rows::open(plan).map_err(|error| error.to_string())?;
        let (mut bodies, mut said) = (Vec::new(), problems);
        loop {
            match rows.next().map_err(|error| error.to_string())? {
                Next::Row(Row { number, line, body }) => {
                    bodies.push(format!("{number} {line} {}", String::from_utf8(body).unwrap()));
                }
                Next::Faulty(problems) => said.extend(problems),
                Next::End => break,
            }
        }
        let problems = said.iter().map(ToString::to_string).collect();
        Ok(Read { rows: bodies, problems, digest: rows.digest().unwrap() })
    }

    fn read(name: &str, subtool: Option<&str>, text: &[u8]) -> Read {
        read_plan(&plan(name, subtool, text, ("", &[])).unwrap()).unwrap()
    }

    fn refused(subtool: &str, text: &[u8], delimiter: &str) -> String {
        match plan("rows.csv", Some(subtool), text, (delimiter, &[])) {
            Ok(plan) => read_plan(&plan).expect_err("the file is refused"),
            Err(said) => said,
        }
    }

    #[test]
    fn rows_of_a_csv_file_have_the_line_they_begin_at() {
        let text = "\u{feff}user_id,profile.title\r\na,\"two\nlines\"\r\n\r\nb,\\null\nc\nd,\u{e4}\n";
        let read = read("rows.csv", Some("update_user"), text.as_bytes());
        let expected = [
            r#"1 2 {"subtool":"update_user","arguments":{"profile":{"title":"two\nlines"},"user_id":"a"}}"#,
            r#"2 5 {"subtool":"update_user","arguments":{"profile":{"title":null},"user_id":"b"}}"#,
            r#"4 7 {"subtool":"update_user","arguments":{"profile":{"title":"ä"},"user_id":"d"}}"#,
        ];
        assert_eq!(read.rows, expected);
        assert_eq!(read.problems, ["line 6: it has 1 cell, and the header has 2"]);
        let whole: String = Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(read.digest, whole);
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
            let Read { rows, problems, .. } = read("rows.csv", Some("update_user"), text.as_bytes());
            let lines: Vec<u64> =
                rows.iter().map(|body| body.split(' ').nth(1).unwrap().parse().unwrap()).collect();
            assert_eq!((lines, problems), (expected, Vec::new()));
        }
    }

    #[test]
    fn blank_rows_are_passed_over_and_not_counted() {
        let text = "\n , \nuser_id,profile.department\nana@x.example,Sales\n,\n , \n\u{a0}\n,,,\n\"\",\" \"\n\
                    \u{a0}ben@x.example ,Support\n,\n";
        let read = read("rows.csv", Some("update_user"), text.as_bytes());
        let expected = [
            r#"1 4 {"subtool":"update_user","arguments":{"profile":{"department":"Sales"},"user_id":"ana@x.example"}}"#,
            r#"2 10 {"subtool":"update_user","arguments":{"profile":{"department":"Support"},"user_id":"ben@x.example"}}"#,
        ];
        assert_eq!((read.rows, read.problems), (expected.map(str::to_owned).to_vec(), Vec::new()));
    }

    #[test]
    fn a_file_that_is_no_table_is_refused_and_says_why() {
        let rows: [(&[u8], &str, &str); 22] = [
            (
                b"user_id,profile.title\na,\"VP\nb,M\n",
                "",
                "line 2, column 2 (`profile.title`): the quotation mark that opens here",
            ),
            (
                b"user_id,profile.title\na,\"say \\\"hi\\\"\"\n",
                "",
                "line 2, column 2 (`profile.title`): text follows",
            ),
            (
                b"user_id,\"profile.title\na,VP\n",
                "",
                "line 1, column 2: the quotation mark that opens here is never closed",
            ),
            (b"user_id,profile.title\ra,VP\r", "", "line 1, column 2: a carriage return without a line feed"),
            (b"user_id,profile.title\na,V\0P\n", "", "line 2, column 2 (`profile.title`): a NUL byte"),
            (
                b"user_id;profile.title\na;VP\n",
                "",
                "line 1: the separator is commas, and the cells of this line are separated by semicolons: say `--delimiter ';'`",
            ),
            (b"user_id\tprofile.title\na\tVP\n", "", "separated by tabs: say `--delimiter tab`"),
            (b"user_id|profile.title\na|VP\n", "", "separated by vertical bars: say `--delimiter '|'`"),
            (b"user_id,profile.title\na,VP\n", ";", "separated by commas: say `--delimiter ','`"),
            (
                b"sep=;\nuser_id;profile.title\na;VP\n",
                "",
                "line 1: is `sep=`, by which Excel is told that the cells are separated by semicolons: say `--delimiter ';'`",
            ),
            (b"\xef\xbb\xbfsep=;\r\nuser_id;profile.title\r\n", "", "line 1: is `sep=`"),
            (
                b"sep=\t\nuser_id\tprofile.title\n",
                "",
                "line 1: is `sep=`, by which Excel is told that the cells are separated by tabs",
            ),
            (b"sep=,\nuser_id;profile.title\n", ";", "separated by commas: say `--delimiter ','`"),
            (
                b"#TYPE System.Management.Automation.PSCustomObject\n\"user_id\"\n\"a\"\n",
                "",
                "line 1: is the `#TYPE` line of PowerShell",
            ),
            (
                b"#TYPE Selected.Microsoft.ActiveDirectory.Management.ADUser\r\nuser_id;x\r\n",
                ";",
                "line 1: is the `#TYPE` line of PowerShell",
            ),
            (b"\xff\xfeu\0s\0e\0r\0", "", "is UTF-16, little-endian"),
            (b"\xfe\xff\0u\0s\0e\0r", "", "is UTF-16, big-endian"),
            (b"u\0s\0e\0r\0_\0i\0d\0", "", "is UTF-16, little-endian, without a byte order mark"),
            (b"PK\x03\x04rest", "", "is an Excel workbook"),
            (b"user_id,Stra\xdfe\na,b\n", "", "line 1, column 2: is not UTF-8, but probably Windows-1252"),
            (b"", "", "line 1: no column `user_id`"),
            (b",\n", "", "line 2: no column `user_id`"),
        ];
        for (text, delimiter, words) in rows {
            let said = match plan("rows.csv", Some("update_user"), text, (delimiter, &[])) {
                Ok(plan) => match read_plan(&plan) {
                    Ok(read) => read.problems.join("\n"),
                    Err(said) => said,
                },
                Err(said) => said,
            };
            assert!(said.contains(words), "{words}: {said}");
        }
    }

    #[test]
    fn another_delimiter_is_as_good_as_a_comma() {
        let expected =
            [r#"1 2 {"subtool":"update_user","arguments":{"profile":{"title":"a;b,c\td"},"user_id":"x"}}"#];
        for (delimiter, between) in [(";", ';'), ("tab", '\t'), ("|", '|'), ("comma", ',')] {
            let text = format!("user_id{between}profile.title\nx{between}\"a;b,c\td\"\n");
            let plan = plan("rows.csv", Some("update_user"), text.as_bytes(), (delimiter, &[])).unwrap();
            assert_eq!(read_plan(&plan).unwrap().rows, expected, "{delimiter}");
        }
        // Excel's note is skipped if it names the delimiter in use anyway.
        for (delimiter, text) in
            [(";", "sep=;\r\nuser_id;send_email\r\nx;\r\n"), ("", "sep=,\nuser_id,send_email\nx,\n")]
        {
            let plan = plan("rows.csv", Some("activate_user"), text.as_bytes(), (delimiter, &[])).unwrap();
            let row = r#"1 3 {"subtool":"activate_user","arguments":{"user_id":"x"}}"#;
            assert_eq!(read_plan(&plan).unwrap().rows, [row], "{text}");
        }
        assert!(
            refused("get_user", b"user_id\n\"x\"y\n", ";")
                .starts_with("line 2, column 1 (`user_id`): text follows")
        );
    }

    #[test]
    fn cells_and_headings_that_are_not_right_are_named_and_not_repeated() {
        let rows: [(&str, &[u8], &str); 8] = [
            (
                "update_user",
                b"user_id,profile.title\na,caf\xe9\n",
                "line 2, column 2 (`profile.title`): is not UTF-8",
            ),
            (
                "update_user",
                b"user_id,profile.a:boolean\na,hunter2\n",
                "line 2, column 2 (`profile.a:boolean`): is no boolean",
            ),
            ("update_user", b"user_id,profile.a\na\n", "line 2: it has 1 cell, and the header has 2"),
            ("update_user", b"user_id,profile.a\na,b,c\n", "line 2: it has 3 cells, and the header has 2"),
            (
                "update_user",
                b"user_id,profile.a\na,b\nuser_id,profile.a\n",
                "line 3: it is the heading of line 1 once more",
            ),
            (
                "create_user",
                b"ana@x.example,Tr0ub4dor&3\nben@x.example,Hunter2!\n",
                "line 1, column 1: is a value and no heading",
            ),
            (
                "update_user",
                b"user_id,First Name\n",
                "line 1, column 2: is not the path of an argument, such as `profile.department`, did you mean `profile.firstName`?",
            ),
            ("get_user", b"user_id,user_id\na,b\n", "line 1, column 2 (`user_id`): stands there twice"),
        ];
        for (subtool, text, words) in rows {
            let problems = read("rows.csv", Some(subtool), text).problems.join("\n");
            assert!(problems.starts_with(words), "{words}: {problems}");
            assert!(
                !problems.to_lowercase().contains("hunter2") && !problems.contains("ub4dor"),
                "{problems}"
            );
        }
    }

    #[test]
    fn json_lines_are_arguments_or_whole_bodies() {
        let text =
            b"\xef\xbb\xbf{\"user_id\":1e3}\n\n  {\"user_id\":\"b\"}  \r\n{\"user_id\" \"c\"}\n[]\n{\"x\":0}";
        let found = read("rows.jsonl", Some("get_user"), text);
        let expected = [
            r#"1 1 {"subtool":"get_user","arguments":{"user_id":1e3}}"#,
            r#"2 3 {"subtool":"get_user","arguments":{"user_id":"b"}}"#,
            r#"5 6 {"subtool":"get_user","arguments":{"x":0}}"#,
        ];
        assert_eq!(found.rows, expected);
        let expected = [
            "line 4, column 12: it is not JSON: expected `:`",
            "line 5, column 1: it is not a JSON object: a list has each of its objects on a line",
        ];
        assert_eq!(found.problems, expected);
        let found = read("rows", None, b"{\"subtool\":\"get_user\" }\n{\"x\":\"caf\xe9\"}\n");
        assert_eq!(found.rows, [r#"1 1 {"subtool":"get_user" }"#]);
        assert!(found.problems[0].starts_with("line 2: the line is not UTF-8"), "{:?}", found.problems);
    }

    #[test]
    fn what_all_rows_have_is_added_to_each() {
        let set: &[&str] = &["group_id=00g1emaKYZTWRYYRRTSK"];
        for (name, text) in [("rows.csv", "user_id\nana\n"), ("rows.jsonl", "\n{\"user_id\":\"ana\"}\n")] {
            let plan = plan(name, Some("add_user_to_group"), text.as_bytes(), ("", set)).unwrap();
            let Read { rows, problems, .. } = read_plan(&plan).unwrap();
            assert!(
                rows[0].contains("\"user_id\":\"ana\"")
                    && rows[0].contains("\"group_id\":\"00g1emaKYZTWRYYRRTSK\""),
                "{rows:?}"
            );
            assert_eq!((rows.len(), problems.len()), (1, 0));
        }
        let text = b"{\"user_id\":\"ana\",\"group_id\":\"00g2\"}\n";
        let both = plan("rows.jsonl", Some("add_user_to_group"), text, ("", set)).unwrap();
        let expected = "line 1: it has a value of its own where `--set group_id` gives one to all rows";
        assert_eq!(read_plan(&both).unwrap().problems, [expected]);
        let text = b"user_id,group_id\nana,00g2\n";
        let both = plan("rows.csv", Some("add_user_to_group"), text, ("", set)).unwrap();
        let expected =
            "line 1, column 2 (`group_id`): is given to all rows by `--set`: leave one of the two out";
        assert_eq!(read_plan(&both).unwrap().problems, [expected]);
    }

    #[test]
    fn what_was_said_must_fit_the_file() {
        let rows: [(&str, Option<&str>, Said<'_>, &str); 7] = [
            ("rows.csv", None, ("", &[]), "a CSV file needs `--subtool`"),
            ("rows.jsonl", None, ("", &["user_id=x"]), "`--set` needs `--subtool`"),
            ("rows.jsonl", Some("get_user"), (";", &[]), "`--delimiter` is for CSV"),
            ("list.csv", Some("get_user"), ("", &[]), "JSON by its content"),
            ("list.json", Some("get_user"), ("", &[]), "one JSON list"),
            ("rows.csv", Some("get_user"), ("", &["usr_id=x"]), "did you mean `--set user_id=…`?"),
            ("none/rows.csv", Some("get_user"), ("", &[]), "failed to read"),
        ];
        for (name, subtool, options, words) in rows {
            let said = match name.strip_prefix("none/") {
                Some(name) => RowReader::new(PathBuf::from("/none").join(name), None, None, &[]).err(),
                None => {
                    let text: &[u8] = if name.starts_with("list") { b"[\n{}\n]" } else { b"user_id\n" };
                    plan(name, subtool, text, options).err()
                }
            };
            assert!(said.as_ref().is_some_and(|said| said.contains(words)), "{words}: {said:?}");
        }
    }

    #[test]
    fn what_makes_other_rows_of_the_same_file_is_another_reading() {
        let reading = |delimiter: &str, set: &[&str]| {
            plan("rows.csv", Some("update_user"), b"user_id\na\n", (delimiter, set)).unwrap().0.reading()
        };
        assert_eq!((reading("", &[]), reading("comma", &[])), (None, None));
        let readings = [
            reading(";", &[]),
            reading("", &["profile.a=1"]),
            reading("", &["profile.a=2"]),
            reading("", &["profile.a:integer=1"]),
            reading(";", &["profile.a=1"]),
            reading("", &["profile.a=1", "profile.b=2"]),
        ];
        for (at, one) in readings.iter().enumerate() {
            assert!(one.is_some() && readings[at + 1..].iter().all(|other| other != one), "{at}");
        }
        assert_eq!(reading("", &["profile.b=2", "profile.a=1"]), readings[5]);
    }

    #[test]
    fn nothing_longer_than_a_row_is_held() {
        let long = format!("user_id\n\"{}", "x\n".repeat(2 * ROW_BYTES_MAX));
        let said = refused("get_user", long.as_bytes(), "");
        assert!(
            said.starts_with("line 2, column 1 (`user_id`): the quotation mark that opens here"),
            "{said}"
        );
        let text = format!("{{\"user_id\":\"{}\"}}\n{{\"user_id\":\"b\"}}\n", "x".repeat(ROW_BYTES_MAX));
        let Read { rows, problems, .. } = read("rows.jsonl", Some("get_user"), text.as_bytes());
        assert_eq!((rows.len(), problems.len()), (1, 1), "{problems:?}");
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
