//! The records of a CSV file, parsed strictly by RFC 4180: a file whose cells cannot be separated is refused.
//!
//! Lenient parsers (the crate `csv` among them) read on after an unclosed quotation mark and so take many rows for
//! one cell. This parser is stricter than usual: a quotation mark may only enclose a cell, or occur doubled within a
//! quoted one, and lines end in LF or CR LF. At most one record is held in memory.

use std::io::{self, BufRead};

use super::delimiter::Delimiter;

/// The most cells of a record: the number of columns in spreadsheets.
const CELLS_MAX: usize = 16_384;

/// A record: its cells, and the line at which it begins.
#[derive(Debug, Default)]
pub(super) struct Record {
    text: Vec<u8>,
    /// The end of each cell in `text`.
    ends: Vec<usize>,
    /// The line at which the record begins.
    pub line: u64,
}

impl Record {
    /// Returns the number of cells.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Returns the cells in order.
    pub fn cells(&self) -> impl Iterator<Item = &[u8]> {
        let begins = std::iter::once(0).chain(self.ends.iter().copied());
        begins.zip(&self.ends).map(|(begin, end)| &self.text[begin..*end])
    }

    fn clear(&mut self, line: u64) {
        self.text.clear();
        self.ends.clear();
        self.line = line;
    }
}

/// A place in a CSV file that is not well-formed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Malformed {
    /// The line, from 1; for a quoted cell, the line of its opening quotation mark.
    pub line: u64,
    /// The column, from 0.
    pub column: usize,
    /// The description of the problem.
    pub what: String,
}

/// The reason that no further record can be read.
#[derive(Debug)]
pub(super) enum Broken {
    /// The file could not be read.
    Io(io::Error),
    /// The file is not well-formed.
    Malformed(Malformed),
}

/// The state of the parser between two bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RecordState {
    /// At the beginning of a cell.
    Begin,
    /// Within an unquoted cell.
    Plain,
    /// Within a quoted cell.
    Quoted,
    /// After a quotation mark within a quoted cell: the closing one, or the first of two.
    Closed,
    /// After a carriage return that ends a record.
    Return,
    /// After the record.
    End,
}

/// A reader of records.
pub(super) struct Records<R> {
    from: R,
    delimiter: u8,
    bytes_max: usize,
    line: u64,
}

impl<R: BufRead> Records<R> {
    /// Creates a reader of records of at most `bytes_max` bytes each. The first record begins at `line`.
    pub fn new(from: R, delimiter: Delimiter, bytes_max: usize, line: u64) -> Self {
        Self { from, delimiter: delimiter.byte(), bytes_max, line }
    }

    /// Returns the underlying reader.
    pub fn into_inner(self) -> R {
        self.from
    }

    /// Reads the next record; returns false at the end of the file. An empty line counts as a record with one empty cell.
    ///
    /// # Errors
    /// If the file cannot be read, or is not well-formed.
    pub fn read(&mut self, record: &mut Record) -> Result<bool, Broken> {
        record.clear(self.line);
        let mut cell = Cell { state: RecordState::Begin, opened: self.line, bytes: 0, last: 0 };
        loop {
            let chunk = self.from.fill_buf().map_err(Broken::Io)?;
            if chunk.is_empty() {
                return cell.end(record, self.line).map_err(Broken::Malformed);
            }
            let mut used = 0;
            let mut taken = Ok(());
            while used < chunk.len() && cell.state != RecordState::End && taken.is_ok() {
                let byte = chunk[used];
                used += 1;
                cell.bytes += 1;
                taken = cell.take(byte, self.delimiter, record, self.line);
                self.line += u64::from(byte == b'\n');
                if taken.is_ok() && cell.bytes > self.bytes_max {
                    taken = Err(cell.too_long(record, self.bytes_max));
                }
            }
            self.from.consume(used);
            taken.map_err(Broken::Malformed)?;
            if cell.state == RecordState::End {
                return Ok(true);
            }
        }
    }
}

/// The cell being read.
struct Cell {
    state: RecordState,
    /// The line of the opening quotation mark.
    opened: u64,
    /// The bytes of the record so far.
    bytes: usize,
    /// The previous byte.
    last: u8,
}

impl Cell {
    /// Processes the next byte, which is in `line`.
    fn take(&mut self, byte: u8, delimiter: u8, record: &mut Record, line: u64) -> Result<(), Malformed> {
        use RecordState::{Begin, Closed, End, Plain, Quoted, Return};
        let column = record.ends.len() - usize::from(self.state == Return);
        let at = |line: u64, what: String| Err(Malformed { line, column, what });
        self.state = match (self.state, byte) {
            (_, 0) => return at(line, "a NUL byte: this is not text, or not UTF-8".to_owned()),
            (Quoted, b'"') => Closed,
            (Quoted, _) => Self::keep(byte, Quoted, record),
            (Closed, b'"') => Self::keep(byte, Quoted, record),
            (Begin, b'"') => {
                self.opened = line;
                Quoted
            }
            (Return, b'\n') | (End, _) => End,
            (Return, _) => return at(line, BARE_RETURN.to_owned()),
            (Begin | Plain | Closed, _) if byte == delimiter || matches!(byte, b'\n' | b'\r') => {
                record.ends.push(record.text.len());
                match byte {
                    b'\n' => End,
                    b'\r' => Return,
                    _ if record.ends.len() < CELLS_MAX => Begin,
                    _ => return at(line, format!("the row has more than {CELLS_MAX} cells")),
                }
            }
            (Plain, b'"') => return at(line, Self::stray(record)),
            (Closed, _) => return at(self.opened, self.continued(line)),
            (Begin | Plain, _) => Self::keep(byte, Plain, record),
        };
        // After `""`, a backslash cannot have been meant for the next quotation mark.
        self.last = if self.state == Closed { self.last } else { byte };
        Ok(())
    }

    fn keep(byte: u8, then: RecordState, record: &mut Record) -> RecordState {
        record.text.push(byte);
        then
    }

    /// Ends the file; returns false if no record has begun.
    fn end(&self, record: &mut Record, line: u64) -> Result<bool, Malformed> {
        let column = record.ends.len();
        match self.state {
            RecordState::Quoted => {
                let what = "the quotation mark that opens here is never closed".to_owned();
                Err(Malformed { line: self.opened, column, what })
            }
            RecordState::Return => Err(Malformed { line, column: column - 1, what: BARE_RETURN.to_owned() }),
            RecordState::Begin if record.ends.is_empty() => Ok(false),
            RecordState::Begin | RecordState::Plain | RecordState::Closed => {
                record.ends.push(record.text.len());
                Ok(true)
            }
            RecordState::End => Ok(true),
        }
    }

    fn too_long(&self, record: &Record, bytes_max: usize) -> Malformed {
        let column = record.ends.len();
        match self.state {
            RecordState::Quoted | RecordState::Closed => Malformed {
                line: self.opened,
                column,
                what: format!("the quotation mark that opens here is not closed within {bytes_max} bytes"),
            },
            RecordState::Begin | RecordState::Plain | RecordState::Return | RecordState::End => Malformed {
                line: record.line,
                column,
                what: format!("the row has more than {bytes_max} bytes"),
            },
        }
    }

    /// Describes text after a closing quotation mark, found at `line`.
    fn continued(&self, line: u64) -> String {
        let there = if line == self.opened { String::new() } else { format!(" at line {line}") };
        let meant = if self.last == b'\\' { ", not with a backslash" } else { "" };
        format!(
            "text follows the closing quotation mark{there} of the cell that opens here: within quotes a quotation \
             mark is written twice{meant}"
        )
    }

    /// Describes a quotation mark within an unquoted cell.
    fn stray(record: &Record) -> String {
        let begin = record.ends.last().copied().unwrap_or(0);
        if record.text[begin..].trim_ascii().is_empty() {
            return "blanks stand before a quotation mark: it must be the first character of its cell"
                .to_owned();
        }
        "a quotation mark stands within a cell that does not begin with one: quote the whole cell, and write the \
         quotation mark in it twice"
            .to_owned()
    }
}

const BARE_RETURN: &str =
    "a carriage return without a line feed: save the file with lines that end in LF or CR LF";

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use proptest::prelude::*;

    use super::*;

    /// An expected record: its line and its cells.
    type Expected<'a> = (u64, &'a [&'a str]);

    fn read(text: &[u8], delimiter: &str, capacity: usize) -> Result<Vec<(u64, Vec<String>)>, Malformed> {
        let from = BufReader::with_capacity(capacity, text);
        let mut records = Records::new(from, Delimiter::parse(delimiter).unwrap(), 200, 1);
        let (mut record, mut found) = (Record::default(), Vec::new());
        loop {
            match records.read(&mut record) {
                Ok(true) => {
                    let cells = record.cells().map(|cell| String::from_utf8_lossy(cell).into_owned());
                    found.push((record.line, cells.collect()));
                }
                Ok(false) => return Ok(found),
                Err(Broken::Malformed(malformed)) => return Err(malformed),
                Err(Broken::Io(error)) => panic!("{error}"),
            }
        }
    }

    #[test]
    fn well_formed_records_keep_their_cells_and_lines() {
        let rows: [(&str, &[Expected<'_>]); 14] = [
            ("", &[]),
            ("a", &[(1, &["a"])]),
            ("a,b\nc,d\n", &[(1, &["a", "b"]), (2, &["c", "d"])]),
            ("a,b\r\nc,d\r\n", &[(1, &["a", "b"]), (2, &["c", "d"])]),
            ("a,b\nc,d", &[(1, &["a", "b"]), (2, &["c", "d"])]),
            ("\n\na\n", &[(1, &[""]), (2, &[""]), (3, &["a"])]),
            (",\n", &[(1, &["", ""])]),
            ("a,", &[(1, &["a", ""])]),
            ("\"\",\"a\"\"b\"", &[(1, &["", "a\"b"])]),
            ("\"a\nb\",c\nd,e\n", &[(1, &["a\nb", "c"]), (3, &["d", "e"])]),
            ("\"a\r\nb\"\r\nd\r\n", &[(1, &["a\r\nb"]), (3, &["d"])]),
            ("\"a\rb\"\n", &[(1, &["a\rb"])]), // within quotes RFC 4180 allows a lone CR
            ("\"C:\\\",x\n", &[(1, &["C:\\", "x"])]),
            ("\"a,b;c\",d\n", &[(1, &["a,b;c", "d"])]),
        ];
        for (text, expected) in rows {
            let expected: Vec<(u64, Vec<String>)> = expected
                .iter()
                .map(|(line, cells)| (*line, cells.iter().map(|cell| (*cell).to_owned()).collect()))
                .collect();
            for capacity in [1, 3, 64] {
                assert_eq!(read(text.as_bytes(), ",", capacity), Ok(expected.clone()), "{text:?}");
            }
        }
        assert_eq!(read(b"a,b;\"c;d\"\n", ";", 8).unwrap()[0].1, ["a,b", "c;d"]);
        assert_eq!(read(b"a\tb c\t\n", "tab", 8).unwrap()[0].1, ["a", "b c", ""]);
    }

    #[test]
    fn what_is_not_well_formed_is_refused_at_the_line_where_its_quote_opened() {
        let (open, follows, stray) = ("never closed", "text follows", "does not begin with one");
        let rows: [(&str, u64, usize, &str); 30] = [
            ("id,t\na,\"VP\nb,M\nc,D\n", 2, 1, open),
            ("id,t\r\na,\"VP\r\nb,M\r\n", 2, 1, open),
            ("\u{feff}id,t\na,\"VP\nb,M", 2, 1, open),
            ("id,t\na,\"VP\nb,\"M\"\n", 2, 1, "text follows the closing quotation mark at line 3"),
            ("id,t\na,b\nc,\"", 3, 1, open),
            ("id,t\na,b\nc,\"d\"\"", 3, 1, open),
            ("\"id,t\na,b\n", 1, 0, open),
            ("id,\"t\na,b\n", 1, 1, open),
            ("\"", 1, 0, open),
            ("id,t\na,\"\"\"", 2, 1, open),
            ("id,t\na,\"x\ny\nz\"w\n", 2, 1, "text follows the closing quotation mark at line 4"),
            ("id,t\na,\"VP\"x\n", 2, 1, follows),
            ("id,t\na,\"VP\" \n", 2, 1, follows),
            ("id,t\n\"a\" ,VP\n", 2, 0, follows),
            ("id,\"t\"x\na,VP\n", 1, 1, follows),
            ("id,t\na,\"say \\\"hi\\\" now\"\n", 2, 1, "not with a backslash"),
            ("id,t\na,\"\\\"hi\\\"\"\n", 2, 1, "not with a backslash"),
            ("id,t\na,\"5\\\"\"\nb,\"6\\\"\"\n", 2, 1, "text follows the closing quotation mark at line 3"),
            ("id,t\na,\"5\\\"\"\nb,6\n", 2, 1, open),
            ("id,t\na,say \"hi\"\n", 2, 1, stray),
            ("id,t\na,5\"\n", 2, 1, stray),
            ("id,t\na\"b\",c\n", 2, 0, stray),
            ("id,t\na, \"b\"\n", 2, 1, "blanks stand before a quotation mark"),
            ("id,t\n\t\"b\",c\n", 2, 0, "blanks stand before a quotation mark"),
            ("i\"d,t\na,b\n", 1, 0, stray),
            ("id,t\ra,b\r", 1, 1, "a carriage return"),
            ("id,t\na,b\rc,d\n", 2, 1, "a carriage return"),
            ("id,t\na,b\r", 2, 1, "a carriage return"),
            ("id,t\na\0,b\n", 2, 0, "a NUL byte"),
            ("id,t\na,\"b\n\0\"\n", 3, 1, "a NUL byte"),
        ];
        for (text, line, column, what) in rows {
            for capacity in [1, 5, 64] {
                let malformed = read(text.as_bytes(), ",", capacity).expect_err(text);
                assert_eq!((malformed.line, malformed.column), (line, column), "{text:?}: {malformed:?}");
                assert!(malformed.what.contains(what), "{text:?}: {malformed:?}");
            }
        }
    }

    #[test]
    fn no_record_grows_without_a_limit() {
        let open = format!("id,t\na,b\nc,\"{}", "x\n".repeat(500));
        let malformed = read(open.as_bytes(), ",", 16).unwrap_err();
        assert_eq!((malformed.line, malformed.column), (3, 1));
        assert!(malformed.what.contains("is not closed within 200 bytes"), "{malformed:?}");
        let malformed = read(format!("id\n{}\n", "x".repeat(500)).as_bytes(), ",", 16).unwrap_err();
        assert_eq!((malformed.line, malformed.what.as_str()), (2, "the row has more than 200 bytes"));
        let mut records = Records::new(&[b','; 2 * CELLS_MAX][..], Delimiter::COMMA, usize::MAX, 1);
        assert!(matches!(records.read(&mut Record::default()), Err(Broken::Malformed(_))));
    }

    proptest! {
        /// Checks against another writer and reader: well-formed CSV has one meaning.
        #[test]
        fn well_formed_files_read_as_others_read_them(
            rows in prop::collection::vec(prop::collection::vec("[ab,;\"\\\\\r\n \u{e4}]{0,6}", 2..4), 0..6),
            end in prop::sample::select(vec!["\n", "\r\n"]),
            capacity in 1_usize..40,
        ) {
            let terminator = if end == "\n" { csv::Terminator::Any(b'\n') } else { csv::Terminator::CRLF };
            let mut writer = csv::WriterBuilder::new().flexible(true).terminator(terminator).from_writer(Vec::new());
            for row in &rows {
                writer.write_record(row).unwrap();
            }
            let text = writer.into_inner().unwrap();
            let found = read(&text, ",", capacity).unwrap();
            let cells: Vec<Vec<String>> = found.into_iter().map(|(_, cells)| cells).collect();
            prop_assert_eq!(cells, rows);
        }

        /// Checks that any bytes are read as by the lenient parser, or refused.
        #[test]
        fn what_is_accepted_is_what_a_lenient_parser_reads_too(
            text in "[ab,\"\\\\\r\n ]{0,24}",
            capacity in 1_usize..9,
        ) {
            let Ok(found) = read(text.as_bytes(), ",", capacity) else { return Ok(()) };
            let filled = found.into_iter().map(|(_, cells)| cells);
            let filled: Vec<Vec<String>> = filled.filter(|cells| *cells != [""]).collect();
            let mut lenient = csv::ReaderBuilder::new().flexible(true).has_headers(false).from_reader(text.as_bytes());
            let others: Vec<Vec<String>> = lenient
                .records()
                .map(|record| record.unwrap().iter().map(str::to_owned).collect::<Vec<_>>())
                .filter(|cells| *cells != [""])
                .collect();
            prop_assert_eq!(filled, others);
        }
    }
}
