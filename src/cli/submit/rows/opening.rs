//! The first bytes of a file: other formats and encodings are reported before any row is read.

use super::delimiter::Delimiter;

/// The byte order mark that some editors put in front of UTF-8.
pub(super) const BOM: &[u8] = b"\xef\xbb\xbf";

/// The advice for converting a spreadsheet to UTF-8.
const SAVE_AS: &str = "save it as `CSV UTF-8`";

/// Describes the format of a file that is not UTF-8 text, by its first bytes, with advice.
pub(super) fn not_text(head: &[u8]) -> Option<String> {
    const MARKS: [(&[u8], &str); 4] = [
        (b"\xff\xfe\0\0", "UTF-32, little-endian"),
        (b"\0\0\xfe\xff", "UTF-32, big-endian"),
        (b"\xff\xfe", "UTF-16, little-endian"),
        (b"\xfe\xff", "UTF-16, big-endian"),
    ];
    const FORMATS: [(&[u8], &str); 3] = [
        (b"PK\x03\x04", "an Excel workbook or another ZIP archive: save the sheet as `CSV UTF-8`"),
        (b"\xd0\xcf\x11\xe0", "an Excel workbook of the old format: save the sheet as `CSV UTF-8`"),
        (b"\x1f\x8b", "compressed by gzip: unpack it first"),
    ];
    if let Some((_, name)) = MARKS.iter().find(|(mark, _)| head.starts_with(mark)) {
        let encoding = name.split(',').next().unwrap_or(name);
        return Some(format!(
            "{name}, by its byte order mark, and must be UTF-8: {SAVE_AS}, or run `iconv -f {encoding} -t UTF-8`"
        ));
    }
    if let Some((_, what)) = FORMATS.iter().find(|(mark, _)| head.starts_with(mark)) {
        return Some((*what).to_owned());
    }
    let (name, encoding) = unmarked(head)?;
    Some(format!("{name} without a byte order mark, and must be UTF-8: run `iconv -f {encoding} -t UTF-8`"))
}

/// Describes a text that is not CSV, by its first character.
pub(super) fn not_csv(head: &[u8]) -> Option<&'static str> {
    let is_json = matches!(first(head)?, b'{' | b'[');
    is_json.then_some("JSON by its content, and CSV by its name: give it a name that ends in `.jsonl`")
}

/// Describes a text that is not JSON Lines, by its first character.
pub(super) fn not_json_lines(head: &[u8]) -> Option<&'static str> {
    (first(head)? == b'[')
        .then_some("one JSON list, and must have one object a line: `jq -c '.[]'` makes it so")
}

/// Returns the first byte that is neither blank nor part of a byte order mark.
pub(super) fn first(head: &[u8]) -> Option<u8> {
    head.strip_prefix(BOM).unwrap_or(head).trim_ascii_start().first().copied()
}

/// Returns the encoding of a text that has a NUL in nearly every pair of bytes.
fn unmarked(head: &[u8]) -> Option<(&'static str, &'static str)> {
    let pairs = head.chunks_exact(2);
    let count = pairs.len();
    let halves = |at: usize| head.chunks_exact(2).filter(|pair| pair[at] == 0 && pair[1 - at] != 0).count();
    let is_most = |nuls: usize| count >= 2 && nuls * 4 >= count * 3;
    match (is_most(halves(1)), is_most(halves(0))) {
        (true, _) => Some(("UTF-16, little-endian,", "UTF-16LE")),
        (_, true) => Some(("UTF-16, big-endian,", "UTF-16BE")),
        (false, false) => None,
    }
}

/// Describes a text that is not UTF-8.
pub(super) fn not_utf8() -> String {
    format!(
        "is not UTF-8, but probably Windows-1252 or Latin-1: {SAVE_AS}, or run `iconv -f WINDOWS-1252 -t UTF-8`"
    )
}

/// A line before the heading that some programs write for themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Note {
    /// `sep=;`, which tells Excel the delimiter.
    Separator(Option<Delimiter>),
    /// `#TYPE …`, with which PowerShell names the type of the exported objects.
    Type,
}

impl Note {
    /// Recognizes a first line, without its line end.
    pub fn of(line: &[u8]) -> Option<Self> {
        let line = line.trim_ascii_end();
        let line = line.strip_prefix(b"\"").map_or(line, |bare| bare.strip_suffix(b"\"").unwrap_or(bare));
        let starts =
            |with: &[u8]| line.get(..with.len()).is_some_and(|start| start.eq_ignore_ascii_case(with));
        if starts(b"#TYPE ") {
            return Some(Self::Type);
        }
        if !starts(b"sep=") {
            return None;
        }
        // `trim_ascii_end` has removed a tab.
        let named = if line.len() == 4 { Ok("\t") } else { std::str::from_utf8(&line[4..]) };
        Some(Self::Separator(named.ok().and_then(|named| Delimiter::parse(named).ok())))
    }

    /// Describes the remedy, unless the note names the delimiter in use.
    pub fn words(self, delimiter: Delimiter) -> Option<String> {
        match self {
            Self::Separator(Some(named)) if named == delimiter => None,
            Self::Separator(Some(named)) => Some(format!(
                "is `sep=`, by which Excel is told that the cells are separated by {}: say `{}`",
                named.plural(),
                named.option()
            )),
            Self::Separator(None) => {
                Some("is `sep=`, a note for Excel: take the line out, and name the delimiter by `--delimiter`".to_owned())
            }
            Self::Type => Some(
                "is the `#TYPE` line of PowerShell and not the heading: take it out, or export with `-NoTypeInformation`"
                    .to_owned(),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn utf16(text: &str, mark: &[u8], order: fn(u16) -> [u8; 2]) -> Vec<u8> {
        mark.iter().copied().chain(text.encode_utf16().flat_map(order)).collect()
    }

    #[test]
    fn other_encodings_and_formats_are_named() {
        let text = "user_id,profile.title\r\nana@x.example,Gesch\u{e4}ftsf\u{fc}hrerin\r\n";
        let rows: [(Vec<u8>, &str); 9] = [
            (utf16(text, b"\xff\xfe", u16::to_le_bytes), "UTF-16, little-endian, by its byte order mark"),
            (utf16(text, b"\xfe\xff", u16::to_be_bytes), "UTF-16, big-endian, by its byte order mark"),
            (utf16(text, b"", u16::to_le_bytes), "UTF-16, little-endian, without"),
            (utf16(text, b"", u16::to_be_bytes), "UTF-16, big-endian, without"),
            (b"\xff\xfe\0\0u\0\0\0".to_vec(), "UTF-32, little-endian"),
            (b"\0\0\xfe\xff\0\0\0u".to_vec(), "UTF-32, big-endian"),
            (b"PK\x03\x04\x14\0".to_vec(), "Excel workbook"),
            (b"\xd0\xcf\x11\xe0\xa1".to_vec(), "Excel workbook of the old format"),
            (b"\x1f\x8b\x08".to_vec(), "gzip"),
        ];
        for (head, words) in rows {
            let said = not_text(&head).expect(words);
            assert!(said.contains(words), "{said}");
        }
        for head in
            [&b""[..], b"a", b"user_id\n", "\u{feff}user_id\n".as_bytes(), b"caf\xe9\n", b"a\0", b"PK,x"]
        {
            assert_eq!(not_text(head), None, "{head:?}");
        }
    }

    #[test]
    fn json_is_told_from_csv_by_its_first_character() {
        for head in [&b"{\"user_id\":1}"[..], b"\xef\xbb\xbf \n[", b"["] {
            assert!(not_csv(head).is_some(), "{head:?}");
        }
        assert!(not_json_lines(b" [\n{}").is_some_and(|said| said.contains("jq")));
        for head in [&b""[..], b"user_id\n", b"\"user_id\""] {
            assert_eq!((not_csv(head), not_json_lines(head)), (None, None), "{head:?}");
        }
        assert_eq!(not_json_lines(b"{}"), None);
    }

    #[test]
    fn notes_of_other_programs_are_recognised() {
        let semicolon = Delimiter::parse(";").unwrap();
        for line in ["sep=;", "SEP=;", "Sep=;\r", "\"sep=;\""] {
            let note = Note::of(line.as_bytes()).expect(line);
            assert_eq!(note.words(semicolon), None, "{line}");
            let said = note.words(Delimiter::COMMA).expect(line);
            assert!(said.contains("`sep=`") && said.contains("--delimiter ';'"), "{said}");
        }
        let said = Note::of(b"sep=\t\r").unwrap().words(Delimiter::COMMA).unwrap();
        assert!(said.contains("--delimiter tab"), "{said}");
        assert!(Note::of(b"sep=xyz").unwrap().words(semicolon).unwrap().contains("take the line out"));
        let note = Note::of(b"#TYPE System.Management.Automation.PSCustomObject").unwrap();
        assert!(note.words(Delimiter::COMMA).unwrap().contains("-NoTypeInformation"));
        for line in ["user_id", "separator", "#types", "", "\""] {
            assert_eq!(Note::of(line.as_bytes()), None, "{line}");
        }
    }
}
