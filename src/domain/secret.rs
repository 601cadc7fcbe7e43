//! Texts that may be used and never shown.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

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
        let mut masked = text.to_owned();
        for secret in &self.0 {
            let secret = secret.expose();
            if secret.chars().count() >= MASK_INSIDE_CHARS_MIN {
                masked = masked.replace(secret, MASK);
            } else if masked.contains(secret) {
                masked = mask_word(&masked, secret);
            }
        }
        masked
    }
}

impl Secrets {
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

/// Masks `secret` where it is not part of a longer word.
fn mask_word(text: &str, secret: &str) -> String {
    let mut masked = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(secret) {
        let (before, from) = rest.split_at(at);
        let after = &from[secret.len()..];
        let alone = !before.ends_with(char::is_alphanumeric) && !after.starts_with(char::is_alphanumeric);
        masked.push_str(before);
        masked.push_str(if alone { MASK } else { secret });
        rest = after;
    }
    masked.push_str(rest);
    masked
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
    fn white_space_around_a_secret_is_trimmed() {
        assert_eq!(Secret::new(" 00T\n").expose(), "00T");
    }
}
