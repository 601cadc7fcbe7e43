//! The forms in which a text may occur in another one: encoded as a whole, or with characters escaped.

use std::fmt::Write as _;
use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// The shortest text whose encodings are searched for: those of a shorter one occur by chance.
const ENCODED_BYTES_MIN: usize = 6;

/// The bytes that become four characters in base64.
const BASE64_GROUP: usize = 3;

/// The characters to percent-encode: RFC 3986's unreserved ones need no escape, and most encoders leave them.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Returns the text in base64, in both alphabets and at every offset within a longer encoded text, in
/// hexadecimal and as a list of bytes. The base64 forms are the groups that encode nothing but this text.
pub(super) fn encoded(text: &str) -> Vec<String> {
    let bytes = text.as_bytes();
    if bytes.len() < ENCODED_BYTES_MIN {
        return Vec::new();
    }
    let mut forms = Vec::new();
    for skipped in 0..BASE64_GROUP {
        let whole = &bytes[skipped..];
        let whole = &whole[..whole.len() / BASE64_GROUP * BASE64_GROUP];
        forms.push(STANDARD_NO_PAD.encode(whole));
        forms.push(URL_SAFE_NO_PAD.encode(whole));
    }
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    forms.push(hex.to_ascii_uppercase());
    forms.push(hex);
    let numbers: Vec<String> = bytes.iter().map(u8::to_string).collect();
    forms.extend([numbers.join(","), numbers.join(", ")]);
    forms.sort_unstable();
    forms.dedup();
    forms
}

/// Returns the text with characters escaped as in JSON, URLs and HTML.
pub(super) fn escaped(text: &str) -> Vec<String> {
    let json_of = |text: &str| {
        let quoted = serde_json::to_string(text).expect("a string serializes");
        quoted[1..quoted.len() - 1].to_owned()
    };
    let json = json_of(text);
    let mut units = String::new();
    for unit in text.encode_utf16() {
        let _ = write!(units, "\\u{unit:04x}"); // writing to a string does not fail
    }
    let html = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;");
    // JSON that quotes JSON escapes once more.
    let mut forms = vec![json.replace('/', "\\/"), json_of(&json), json, upper(&units, "\\u", 4), units];
    forms.extend([html.replace('\'', "&#39;"), html]);
    for set in [RESERVED, NON_ALPHANUMERIC] {
        let percent = utf8_percent_encode(text, set).to_string();
        forms.push(percent.replace("%20", "+"));
        forms.push(lower(&percent));
        forms.push(percent);
    }
    forms.retain(|form| form != text);
    forms.sort_unstable();
    forms.dedup();
    forms
}

/// Returns the text with the digits after each mark in upper case.
fn upper(text: &str, mark: &str, digits: usize) -> String {
    let mut parts = text.split(mark);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        out.push_str(mark);
        out.push_str(&part[..digits].to_ascii_uppercase());
        out.push_str(&part[digits..]);
    }
    out
}

/// Returns a percent-encoded text with its digits in lower case.
fn lower(percent: &str) -> String {
    let mut parts = percent.split('%');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        out.push('%');
        out.push_str(&part[..2].to_ascii_lowercase());
        out.push_str(&part[2..]);
    }
    out
}

/// A text with its escapes undone, and the original range of each byte.
pub(super) struct Unescaped {
    pub text: String,
    origins: Vec<Range<usize>>,
}

impl Unescaped {
    /// Undoes escapes of JSON, Rust, URLs and HTML once; `None` if there are none.
    pub fn of(text: &str) -> Option<Self> {
        if !text.contains(['\\', '%', '&']) {
            return None;
        }
        let mut unescaped = Self { text: String::with_capacity(text.len()), origins: Vec::new() };
        let mut at = 0;
        while let Some(next) = text[at..].chars().next() {
            let (c, len) = escape(&text[at..]).unwrap_or((next, next.len_utf8()));
            let whole = at..at + len;
            for byte in 0..c.len_utf8() {
                // Each byte of an unescaped character keeps its own position.
                let is_itself = len == c.len_utf8();
                unescaped.origins.push(if is_itself { at + byte..at + byte + 1 } else { whole.clone() });
            }
            unescaped.text.push(c);
            at = whole.end;
        }
        (unescaped.text.len() < text.len()).then_some(unescaped)
    }

    /// Undoes another layer of escapes.
    pub fn again(&self) -> Option<Self> {
        let inner = Self::of(&self.text)?;
        let origins = inner.origins.iter().map(|place| self.origin(place)).collect();
        Some(Self { text: inner.text, origins })
    }

    /// Returns the range in the original text that a range of this text comes from.
    pub fn origin(&self, place: &Range<usize>) -> Range<usize> {
        match self.origins.get(place.clone()) {
            Some([first, .., last]) => first.start..last.end,
            Some([only]) => only.clone(),
            Some([]) | None => 0..0,
        }
    }
}

/// Parses an escaped character at the beginning of a text; returns it with its length in bytes.
fn escape(text: &str) -> Option<(char, usize)> {
    match text.as_bytes().first()? {
        b'\\' => backslash(text),
        b'%' => percent(text),
        b'&' => entity(text),
        _ => None,
    }
}

fn backslash(text: &str) -> Option<(char, usize)> {
    let simple = |c: char| Some((c, 2));
    match text.as_bytes().get(1)? {
        b'n' => simple('\n'),
        b'r' => simple('\r'),
        b't' => simple('\t'),
        b'b' => simple('\u{8}'),
        b'f' => simple('\u{c}'),
        b'0' => simple('\0'),
        sign @ (b'"' | b'\'' | b'\\' | b'/') => simple(char::from(*sign)),
        b'x' => char::from_u32(digits(text.get(2..4)?)?).map(|c| (c, 4)),
        b'u' if text.as_bytes().get(2) == Some(&b'{') => {
            let end = text.find('}')?;
            char::from_u32(digits(text.get(3..end)?)?).map(|c| (c, end + 1))
        }
        b'u' => {
            let high = digits(text.get(2..6)?)?;
            if let Some(c) = char::from_u32(high) {
                return Some((c, 6));
            }
            let low = digits(text.get(6..12)?.strip_prefix("\\u")?)?;
            let units = [u16::try_from(high).ok()?, u16::try_from(low).ok()?];
            char::decode_utf16(units).next()?.ok().map(|c| (c, 12))
        }
        _ => None,
    }
}

fn percent(text: &str) -> Option<(char, usize)> {
    /// The most bytes of a UTF-8 character.
    const BYTES_MAX: usize = 4;
    let mut bytes = Vec::with_capacity(BYTES_MAX);
    while bytes.len() < BYTES_MAX {
        let at = 3 * bytes.len();
        let byte = digits(text.get(at..at + 3)?.strip_prefix('%')?)?;
        bytes.push(u8::try_from(byte).ok()?);
        if let Ok(read) = std::str::from_utf8(&bytes) {
            return read.chars().next().map(|c| (c, at + 3));
        }
    }
    None
}

fn entity(text: &str) -> Option<(char, usize)> {
    /// The longest entity of interest, in bytes: `&#x10ffff;`.
    const BYTES_MAX: usize = 10;
    let end = text.bytes().take(BYTES_MAX).position(|byte| byte == b';')?;
    let c = match &text[1..end] {
        "amp" => '&',
        "lt" => '<',
        "gt" => '>',
        "quot" => '"',
        "apos" => '\'',
        number => match number.strip_prefix('#')? {
            hex if hex.starts_with(['x', 'X']) => char::from_u32(digits(&hex[1..])?)?,
            decimal => char::from_u32(decimal.parse().ok()?)?,
        },
    };
    Some((c, end + 1))
}

/// Parses a text that holds only hexadecimal digits.
fn digits(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_hexdigit()).then(|| u32::from_str_radix(text, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_of_every_kind_are_undone_and_their_places_known() {
        for (text, plain) in [
            (r#"Pa\"ss"#, "Pa\"ss"),
            (r"Pa\u0022s\u0073", "Pa\"ss"),
            (r"\ud83d\ude00\/\n", "😀/\n"),
            (r"\u{202e}\x41", "\u{202e}A"),
            ("Pa%22ss%C3%a9", "Pa\"ssé"),
            ("Pa&quot;ss&#39;&#x26;&amp;", "Pa\"ss'&&"),
            (r"é\\u0041", r"é\u0041"),
        ] {
            let unescaped = Unescaped::of(text).unwrap();
            assert_eq!(unescaped.text, plain);
            assert_eq!(unescaped.origin(&(0..plain.len())), 0..text.len());
        }
        for text in
            ["plain", "100 %", "a & b;", r"C:\qed", r"\u12", r"\ud800x", "%zz", "%c3", "&#xffffffff;", "&#;"]
        {
            assert!(Unescaped::of(text).is_none(), "{text}");
        }
        let twice = Unescaped::of(r#"x {\"value\":\"Pa\\\"ss\"} y"#).unwrap().again().unwrap();
        let at = twice.text.find("Pa\"ss").unwrap();
        assert_eq!(&r#"x {\"value\":\"Pa\\\"ss\"} y"#[twice.origin(&(at..at + 5))], r#"Pa\\\"ss"#);
    }

    #[test]
    fn a_text_is_found_in_base64_wherever_it_begins() {
        for before in ["", "a", "ab", "abc"] {
            for (engine, after) in [(STANDARD_NO_PAD, "?>"), (URL_SAFE_NO_PAD, "")] {
                let whole = engine.encode(format!("{before}hunter2?~{after}"));
                let found = encoded("hunter2?~").iter().any(|form| whole.contains(form.as_str()));
                assert!(found, "{whole}");
            }
        }
        assert!(encoded("pin42").is_empty());
    }
}
