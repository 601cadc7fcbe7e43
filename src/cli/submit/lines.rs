//! Lines of files that are read as a stream: each of bounded length, and the last one whole or torn.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek as _, SeekFrom};

/// What the next line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Line {
    /// A whole one.
    Whole,
    /// The last one, without its end.
    Torn,
    /// One with more bytes than are read; what is there is its beginning.
    TooLong,
    /// There is none.
    End,
}

/// Reads the next line without its end into `line`, of which at most `max` bytes are kept.
pub(super) fn next(from: &mut impl BufRead, line: &mut Vec<u8>, max: usize) -> io::Result<Line> {
    line.clear();
    let (mut is_empty, mut is_long) = (true, false);
    loop {
        let chunk = from.fill_buf()?;
        if chunk.is_empty() {
            return Ok(match (is_empty, is_long) {
                (true, _) => Line::End,
                (false, true) => Line::TooLong,
                (false, false) => Line::Torn,
            });
        }
        is_empty = false;
        let end = chunk.iter().position(|byte| *byte == b'\n');
        let part = &chunk[..end.unwrap_or(chunk.len())];
        let room = max.saturating_sub(line.len());
        is_long |= part.len() > room;
        line.extend_from_slice(&part[..part.len().min(room)]);
        let used = end.map_or(part.len(), |end| end + 1);
        from.consume(used);
        if end.is_some() {
            return Ok(if is_long { Line::TooLong } else { Line::Whole });
        }
    }
}

/// Reads every line of a file that only grows by lines of ours, and cuts off the last one when it is torn; the
/// next line is then written where it began. What is torn and does not begin as ours does stays, and is a
/// fault. `take` says what is wrong with a line.
pub(super) fn mend(
    file: &mut File,
    begins: &[u8],
    max: usize,
    mut take: impl FnMut(&[u8]) -> Result<(), String>,
) -> Result<(), String> {
    let failed = |error: io::Error| format!("failed to read it: {error}");
    file.seek(SeekFrom::Start(0)).map_err(failed)?;
    let mut reader = BufReader::new(&*file);
    let (mut line, mut number, mut whole_bytes) = (Vec::new(), 0_u64, 0_u64);
    loop {
        number += 1;
        let at = |what: String| format!("line {number}: {what}");
        match next(&mut reader, &mut line, max).map_err(failed)? {
            Line::End => break,
            Line::Whole => {
                take(&line).map_err(at)?;
                whole_bytes += line.len() as u64 + 1;
            }
            Line::TooLong => return Err(at("it is too long to be ours".to_owned())),
            Line::Torn => {
                let common = line.len().min(begins.len());
                if line[..common] != begins[..common] {
                    return Err(at("it is none of ours".to_owned()));
                }
                break;
            }
        }
    }
    drop(reader);
    let failed = |error: io::Error| format!("failed to mend it: {error}");
    file.set_len(whole_bytes).map_err(failed)?;
    file.seek(SeekFrom::End(0)).map_err(failed)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    #[test]
    fn lines_are_whole_torn_or_too_long_and_what_is_too_long_is_passed_over() {
        let mut text = &b"ab\n\nabcdef\nxy"[..];
        let mut line = Vec::new();
        let mut read = || {
            let what = next(&mut text, &mut line, 4).unwrap();
            (what, String::from_utf8(line.clone()).unwrap())
        };
        let expected = [
            (Line::Whole, "ab"),
            (Line::Whole, ""),
            (Line::TooLong, "abcd"),
            (Line::Torn, "xy"),
            (Line::End, ""),
        ];
        for (what, text) in expected {
            assert_eq!(read(), (what, text.to_owned()));
        }
    }

    #[test]
    fn a_torn_last_line_is_cut_off_when_it_is_ours() {
        let mended = |text: &str| {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(text.as_bytes()).unwrap();
            let mut seen = Vec::new();
            let ended = mend(&mut file, b"{\"row\":", 100, |line| {
                seen.push(String::from_utf8(line.to_vec()).unwrap());
                Ok(())
            });
            file.write_all(b"next\n").unwrap();
            file.seek(SeekFrom::Start(0)).unwrap();
            let mut left = String::new();
            file.read_to_string(&mut left).unwrap();
            (ended, seen.len(), left)
        };
        let kept = "{\"row\":1}\n";
        for torn in ["", "{", "{\"row\":", "{\"row\":2,\"id\":\"x"] {
            assert_eq!(mended(&format!("{kept}{torn}")), (Ok(()), 1, format!("{kept}next\n")), "{torn}");
        }
        assert_eq!(mended("dear diary").0, Err("line 1: it is none of ours".to_owned()));
    }
}
