//! Lines of files that are read as a stream: each of limited length, and the last one whole or torn.

use std::io::{self, BufRead};

/// The kind of the next line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Line {
    /// A whole line.
    Whole,
    /// The last line, without its line end.
    Torn,
    /// A line longer than the limit; the buffer holds its beginning.
    TooLong,
    /// The end of the file.
    End,
}

/// Reads the next line without its line end into `line`, which keeps at most `max` bytes.
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

#[cfg(test)]
mod tests {
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
}
