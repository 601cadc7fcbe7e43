//! Secrets: texts that may be used but never shown, and the masking of them in other texts.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use serde_json::value::RawValue;

use super::encodings::{self, Unescaped};
use super::json;

/// The text that replaces a secret.
pub const MASK: &str = "***";

/// The mark at the end of a truncated text.
pub const CUT: char = '…';

/// The shortest secret that is masked inside other words; a shorter one is masked only as a whole word,
/// or a one-letter security answer would blank out the message around it.
const MASK_INSIDE_CHARS_MIN: usize = 4;

/// A token or password. It cannot be printed: `Debug` shows a mask, and there is no `Display`.
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// Keeps the text without surrounding white space: a trailing newline in a token makes Okta's
    /// front end answer with an HTML page (okta-sdk-python issue 44).
    pub fn new(text: &str) -> Self {
        Self(SecretString::from(text.trim().to_owned()))
    }

    /// Returns the text, for the one place that sends it.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// Returns true if nothing is left after trimming.
    pub fn is_empty(&self) -> bool {
        self.expose().is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.expose() == other.expose()
    }
}

/// The secrets of one invocation, to be masked in every text about it.
#[derive(Clone, Default)]
pub struct Secrets {
    texts: Vec<Secret>,
    /// Built on first use: most invocations produce no text that could hold a secret.
    matcher: OnceLock<Arc<Matcher>>,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} secrets", self.texts.len())
    }
}

/// The layers of escapes that are undone in search of a secret: an error that quotes JSON in JSON has three.
const UNESCAPED_MAX: usize = 3;

impl Secrets {
    /// Adds a text to mask.
    pub fn add(&mut self, text: &str) {
        let secret = Secret::new(text);
        if !secret.is_empty() && !self.texts.contains(&secret) {
            self.texts.push(secret);
            self.matcher = OnceLock::new();
        }
    }

    /// Returns the text with every secret in it masked, in every form: plain, escaped or encoded.
    pub fn mask(&self, text: &str) -> String {
        if self.texts.is_empty() {
            return text.to_owned();
        }
        let matcher = self.matcher.get_or_init(|| Arc::new(Matcher::new(&self.texts)));
        let mut places = matcher.places(text);
        let mut view = Unescaped::of(text);
        for _ in 0..UNESCAPED_MAX {
            let Some(unescaped) = view else { break };
            places.extend(matcher.places(&unescaped.text).iter().map(|place| unescaped.origin(place)));
            view = unescaped.again();
        }
        places.extend(self.texts.iter().filter_map(|secret| cut_off(text, secret.expose())));
        // Overlapping secrets get one mask: a part of one may be the whole of another.
        places.sort_by_key(|place| (place.start, place.end));
        places.dedup_by(|next, place| {
            let overlaps = next.start < place.end;
            place.end = if overlaps { place.end.max(next.end) } else { place.end };
            overlaps
        });
        let mut masked = text.to_owned();
        places.into_iter().rev().for_each(|place| masked.replace_range(place, MASK));
        masked
    }

    /// Returns the JSON with every string, number and name masked; all other bytes stay.
    pub fn mask_json(&self, raw: &RawValue) -> Box<RawValue> {
        let changed = |text: &str| Some(self.mask(text)).filter(|masked| masked != text);
        json::renamed(&json::rewritten(raw, &mut |_, text| changed(text)), &mut |name| changed(name))
    }

    /// Returns the value with every string and number masked; names stay.
    pub fn mask_value(&self, value: Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.mask(&text)),
            Value::Number(number) => {
                let text = number.to_string();
                let masked = self.mask(&text);
                if masked == text { Value::Number(number) } else { Value::String(masked) }
            }
            Value::Array(items) => items.into_iter().map(|item| self.mask_value(item)).collect(),
            Value::Object(entries) => {
                entries.into_iter().map(|(name, value)| (name, self.mask_value(value))).collect()
            }
            Value::Null | Value::Bool(_) => value,
        }
    }
}

/// Returns the range of a truncated secret at the end of a truncated text.
fn cut_off(text: &str, secret: &str) -> Option<Range<usize>> {
    let text = text.strip_suffix(CUT)?;
    let beginnings = secret.char_indices().skip(MASK_INSIDE_CHARS_MIN).map(|(at, _)| &secret[..at]);
    let longest = beginnings.filter(|beginning| text.ends_with(beginning)).last()?;
    Some(text.len() - longest.len()..text.len())
}

/// The texts of an error, in every layer of their escapes.
pub struct ErrorTexts(Vec<String>);

impl ErrorTexts {
    /// Collects the texts.
    pub fn new<'a>(texts: impl Iterator<Item = &'a str>) -> Self {
        let mut views: Vec<String> = Vec::new();
        for text in texts {
            let layers = std::iter::successors(Unescaped::of(text), Unescaped::again);
            views.extend(layers.take(UNESCAPED_MAX).map(|unescaped| unescaped.text));
            views.push(text.to_owned());
        }
        Self(views)
    }

    /// Returns true if a text, or its beginning at a truncation, occurs in one of them.
    pub fn holds(&self, text: &str) -> bool {
        let text = text.trim();
        self.0.iter().any(|said| said.contains(text) || cut_off(said, text).is_some())
    }
}

/// A form of a secret.
#[derive(Clone, Copy, PartialEq, Eq)]
enum SecretForm {
    /// The secret itself.
    Plain,
    /// The secret itself, so short that it counts only as a whole word.
    Tiny,
    /// An encoding of the secret; the characters around it were encoded with it.
    Encoded,
}

/// Finds all secrets in all forms, overlapping ones included.
struct Matcher {
    automaton: AhoCorasick,
    forms: Vec<SecretForm>,
}

impl Matcher {
    fn new(texts: &[Secret]) -> Self {
        let (mut patterns, mut forms) = (Vec::new(), Vec::new());
        for text in texts.iter().map(Secret::expose) {
            let is_tiny = text.chars().count() < MASK_INSIDE_CHARS_MIN;
            forms.push(if is_tiny { SecretForm::Tiny } else { SecretForm::Plain });
            patterns.push(text.to_owned());
            let encoded = encodings::encoded(text);
            forms.extend(encoded.iter().map(|_| SecretForm::Encoded));
            patterns.extend(encoded);
        }
        Self { automaton: automaton(MatchKind::Standard, &patterns), forms }
    }

    fn places(&self, text: &str) -> Vec<Range<usize>> {
        let place = |found: aho_corasick::Match| {
            let place = found.range();
            match self.forms[found.pattern().as_usize()] {
                SecretForm::Plain => Some(place),
                SecretForm::Tiny => (!is_part(text, &place)).then_some(place),
                SecretForm::Encoded => Some(around(text.as_bytes(), place)),
            }
        };
        self.automaton.find_overlapping_iter(text).filter_map(place).collect()
    }
}

/// Returns true if the range is part of a longer word.
fn is_part(text: &str, place: &Range<usize>) -> bool {
    text[..place.start].ends_with(char::is_alphanumeric)
        || text[place.end..].starts_with(char::is_alphanumeric)
}

/// Returns the whole range of an encoded text of which a part is known.
fn around(text: &[u8], place: Range<usize>) -> Range<usize> {
    let is_digit =
        |byte: &&u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_' | b'=');
    let before = text[..place.start].iter().rev().take_while(is_digit).count();
    let behind = text[place.end..].iter().take_while(is_digit).count();
    place.start - before..place.end + behind
}

fn automaton(kind: MatchKind, patterns: &[String]) -> AhoCorasick {
    // A DFA would take megabytes for the forms of one access token.
    let small = Some(AhoCorasickKind::ContiguousNFA);
    let built = AhoCorasick::builder().match_kind(kind).kind(small).build(patterns);
    built.expect("an automaton holds a few patterns of some kilobytes")
}

/// Masks a few secrets in large texts. Its patterns are fixed, so that one scan finds them; unlike
/// [`Secrets`] it knows only the usual escapes.
pub struct Redactor {
    automaton: AhoCorasick,
    /// The index of the first pattern that is an encoded form.
    encoded_from: usize,
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} forms", self.automaton.patterns_len())
    }
}

impl Redactor {
    /// Creates a redactor of these texts, plain, escaped and encoded.
    pub fn new<'a>(texts: impl IntoIterator<Item = &'a str> + Clone) -> Self {
        let texts = texts.into_iter().filter(|text| !text.is_empty());
        let mut patterns = Vec::new();
        let mut encoded = Vec::new();
        for text in texts {
            patterns.push(text.to_owned());
            patterns.extend(encodings::escaped(text));
            encoded.extend(encodings::encoded(text));
        }
        let encoded_from = patterns.len();
        patterns.extend(encoded);
        Self { automaton: automaton(MatchKind::LeftmostLongest, &patterns), encoded_from }
    }

    /// Returns the bytes with every secret masked; `None` if they hold none.
    pub fn bytes(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        let mut kept = 0;
        for found in self.automaton.find_iter(bytes) {
            let is_encoded = found.pattern().as_usize() >= self.encoded_from;
            let place = if is_encoded { around(bytes, found.range()) } else { found.range() };
            if place.end <= kept {
                continue; // a second part of one encoded text
            }
            out.extend_from_slice(bytes.get(kept..place.start).unwrap_or_default());
            out.extend_from_slice(MASK.as_bytes());
            kept = place.end;
        }
        if kept == 0 {
            return None;
        }
        out.extend_from_slice(&bytes[kept..]);
        Some(out)
    }

    /// Returns the text with every secret masked.
    pub fn text(&self, text: String) -> String {
        match self.bytes(text.as_bytes()) {
            Some(masked) => String::from_utf8_lossy(&masked).into_owned(),
            None => text,
        }
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

    use super::*;

    #[test]
    fn debug_shows_a_mask() {
        let mut secrets = Secrets::default();
        secrets.add("00TopSecret");
        assert!(!format!("{:?} {secrets:?}", Secret::new("00TopSecret")).contains("00Top"));
    }

    #[test]
    fn secrets_are_masked_inside_words_unless_they_are_tiny() {
        let mut secrets = Secrets::default();
        secrets.add("hunter2");
        secrets.add("a");
        assert_eq!(secrets.mask("bad password xhunter2y, answer `a`"), "bad password x***y, answer `***`");
    }

    #[test]
    fn a_secret_that_is_part_of_another_leaves_nothing_of_it() {
        for texts in [["hunter2", "hunter2000"], ["hunter2000", "hunter2"]] {
            let mut secrets = Secrets::default();
            texts.iter().for_each(|text| secrets.add(text));
            assert_eq!(secrets.mask("hunter2000, hunter2hunter2"), "***, ******");
        }
        let mut secrets = Secrets::default();
        ["rose", "rosebud", "budget", "aaaa"].iter().for_each(|text| secrets.add(text));
        assert_eq!(secrets.mask("a rosebudget in aaaaaa é"), "a *** in *** é");
    }

    #[test]
    fn white_space_around_a_secret_is_trimmed() {
        assert_eq!(Secret::new(" 00T\n").expose(), "00T");
    }

    /// Returns the forms in which a secret may reappear in a text.
    fn forms(secret: &str) -> Vec<String> {
        let mut forms = [vec![secret.to_owned()], encodings::escaped(secret)].concat();
        for around in [("", ""), ("a", "b"), ("ab", "cd"), ("SSWS ", "\n")] {
            let text = format!("{}{secret}{}", around.0, around.1);
            forms.push(STANDARD.encode(&text));
            forms.push(URL_SAFE_NO_PAD.encode(&text));
            forms.push(text.bytes().map(|byte| format!("{byte:02X}")).collect());
        }
        forms.push(format!("{:?}", secret.as_bytes()));
        forms
    }

    #[test]
    fn a_secret_is_masked_in_every_form() {
        for secret in ["hunter2", "Pa\"ss\\wörd/+", "00aBcDeFgH_iJ-kLmNoPqRsTuVwXyZ0123456789abcd"] {
            let mut secrets = Secrets::default();
            secrets.add(secret);
            let redactor = Redactor::new([secret]);
            for form in forms(secret) {
                let text = format!("bad value {form}, sorry");
                let masked = secrets.mask(&text);
                assert!(masked.starts_with("bad value ") && masked.ends_with(", sorry"), "{masked}");
                assert!(masked.contains(MASK) && !masked.contains(form.trim_matches(['[', ']'])), "{masked}");
                assert_eq!(redactor.text(text), masked, "{form}");
            }
            assert_eq!(redactor.bytes(b"nothing of it"), None);
        }
    }

    #[test]
    fn a_secret_is_masked_below_layers_of_escapes() {
        let mut secrets = Secrets::default();
        secrets.add("Pa\"ss");
        let mut text = "Pa\"ss".to_owned();
        for _ in 0..3 {
            text = serde_json::to_string(&text).unwrap();
            assert!(!secrets.mask(&text).contains("ss"), "{text}");
        }
        let name: Box<RawValue> = serde_json::from_str(r#"{"a":{"Pa\"ss":[1e3,"Pa\u0022ss"]}}"#).unwrap();
        assert_eq!(secrets.mask_json(&name).get(), r#"{"a":{"***":[1e3,"***"]}}"#);
    }

    #[test]
    fn the_beginning_of_a_secret_is_masked_where_a_text_was_cut() {
        let mut secrets = Secrets::default();
        secrets.add("hunter2");
        assert_eq!(secrets.mask("it is hunter…"), "it is ***…");
        assert_eq!(secrets.mask("it is hunter"), "it is hunter");
        assert!(ErrorTexts::new(["it is hunter…"].into_iter()).holds("hunter2"));
    }

    #[test]
    fn an_encoded_text_that_holds_a_secret_is_masked_as_a_whole_and_once() {
        let redactor = Redactor::new(["hunter2hunter2"]);
        let text = format!("{{\"a\":\"{}\"}}", STANDARD.encode("x:hunter2hunter2, hunter2hunter2!"));
        assert_eq!(redactor.text(text), "{\"a\":\"***\"}");
    }
}
