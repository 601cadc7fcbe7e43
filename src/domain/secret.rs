//! Texts that may be used and never shown.

use std::fmt;
use std::ops::Range;

use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use serde_json::value::RawValue;

use super::json;

/// What stands where a secret was.
pub const MASK: &str = "***";

/// The shortest secret that is masked inside other words; a shorter one is masked as a whole word only,
/// or a one-letter security answer would blank out the message around it.
const MASK_INSIDE_CHARS_MIN: usize = 4;

/// A token or password. It cannot be printed: `Debug` shows a mask, and there is no `Display`.
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// Keeps the text, without the white space around it: a trailing newline in a token makes Okta's
    /// front end answer with an HTML page (okta-sdk-python issue 44).
    pub fn new(text: &str) -> Self {
        Self(SecretString::from(text.trim().to_owned()))
    }

    /// The text, for the one place that sends it.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// Whether nothing is left after trimming.
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

/// The secrets of one invocation, to be masked in whatever is said about it.
#[derive(Debug, Clone, Default)]
pub struct Secrets(Vec<Secret>);

impl Secrets {
    /// Adds a text to hide.
    pub fn add(&mut self, text: &str) {
        let secret = Secret::new(text);
        if !secret.is_empty() && !self.0.contains(&secret) {
            self.0.push(secret);
        }
    }

    /// The text with every secret in it masked.
    pub fn mask(&self, text: &str) -> String {
        let mut places: Vec<Range<usize>> =
            self.0.iter().flat_map(|secret| places(text, secret.expose())).collect();
        // One mask for secrets that overlap: a part of one may be the whole of another.
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

    /// The JSON with every string and number in it masked; all else stays byte for byte.
    pub fn mask_json(&self, raw: &RawValue) -> Box<RawValue> {
        json::rewritten(raw, &mut |_, text| Some(self.mask(text)).filter(|masked| masked != text))
    }

    /// The value with every text and number in it masked; names stay.
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

/// Where a secret stands in a text; a tiny one only where it is not part of a longer word.
fn places(text: &str, secret: &str) -> Vec<Range<usize>> {
    let is_tiny = secret.chars().count() < MASK_INSIDE_CHARS_MIN;
    let step = secret.chars().next().map_or(1, char::len_utf8);
    let (mut places, mut from) = (Vec::new(), 0);
    while let Some(at) = text[from..].find(secret) {
        let place = from + at..from + at + secret.len();
        from = place.start + step;
        let is_part = text[..place.start].ends_with(char::is_alphanumeric)
            || text[place.end..].starts_with(char::is_alphanumeric);
        if !(is_tiny && is_part) {
            places.push(place);
        }
    }
    places
}

#[cfg(test)]
mod tests {
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
}
