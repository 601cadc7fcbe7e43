//! Text from outside: how much of it an error may repeat, and how it is made safe to display.
//!
//! Does not recognize secrets by name: an error repeats no text that could be one, whatever its purpose.

use std::borrow::Cow;
use std::fmt::Write as _;

use super::secret::{CUT, MASK};

/// The longest name that an error repeats, in bytes; the longest of our own have 23.
const NAME_BYTES_MAX: usize = 40;

/// The most words in a name that an error repeats: `remove_user_from_group` has four.
const WORDS_MAX: usize = 4;

/// The longest word in a name that an error repeats, in bytes.
const WORD_BYTES_MAX: usize = 16;

/// The fewest bytes that two words of a name have on average: words of random letters have fewer.
const TWO_WORDS_BYTES_USUAL: usize = 5;

/// The length of an Okta id, in bytes.
const ID_BYTES: usize = 20;

/// The most characters of a login that an error repeats.
const EXCERPT_CHARS: usize = 64;

/// Returns the text if an error may repeat it: a name made of words, an Okta id or an e-mail address. Any other
/// text may be a secret and becomes [`MASK`].
pub fn excerpt(text: &str) -> String {
    if is_repeatable(text) { shortened(text) } else { MASK.to_owned() }
}

/// Returns the first characters of a text that surely holds no secret, on one line.
pub fn shortened(text: &str) -> String {
    let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    match clean.char_indices().nth(EXCERPT_CHARS) {
        Some((end, _)) => format!("{}{CUT}", &clean[..end]),
        None => clean,
    }
}

/// Returns true if the text has a form that no secret should have: a name made of words, an Okta id or an e-mail
/// address. A name with a digit or any other character may be a password, since Okta's default password policy
/// requires one.
pub fn is_repeatable(text: &str) -> bool {
    text.is_empty() || is_name(text) || is_okta_id(text) || is_address(text)
}

/// Returns true for words joined by `_`, `.` or capitals, such as `user_id`, `profile.department` or `OKTA_GROUP`.
fn is_name(text: &str) -> bool {
    if text.len() > NAME_BYTES_MAX {
        return false;
    }
    let words: Vec<&str> = text.split(['_', '.']).flat_map(humps).collect();
    let is_word = |word: &&str| {
        (1..=WORD_BYTES_MAX).contains(&word.len()) && word.bytes().all(|b| b.is_ascii_alphabetic())
    };
    let letters: usize = words.iter().map(|word| word.len()).sum();
    let is_usual = words.len() == 1 || 2 * letters >= TWO_WORDS_BYTES_USUAL * words.len();
    words.len() <= WORDS_MAX && words.iter().all(is_word) && is_usual
}

/// Splits `camelCase` or `CamelCase` into words; consecutive capitals are one word.
fn humps(text: &str) -> Vec<&str> {
    let bytes = text.as_bytes();
    let begins = |at: &usize| bytes[*at].is_ascii_uppercase() && !bytes[at - 1].is_ascii_uppercase();
    let mut borders: Vec<usize> = (1..text.len()).filter(begins).collect();
    borders.push(text.len());
    let mut from = 0;
    borders.into_iter().filter_map(|to| text.get(std::mem::replace(&mut from, to)..to)).collect()
}

/// Returns true for ids such as `00u1abCdEfGhIjKlMnOp`; ids in scrubbed data are shorter.
fn is_okta_id(text: &str) -> bool {
    let bytes = text.as_bytes();
    let [b'0', b'0' | b'o', kind, rest @ ..] = bytes else { return false };
    kind.is_ascii_lowercase() && bytes.len() <= ID_BYTES && rest.iter().all(u8::is_ascii_alphanumeric)
}

/// Returns true for e-mail addresses with plain characters and a domain that ends in letters.
fn is_address(text: &str) -> bool {
    let Some((local, domain)) = text.split_once('@') else { return false };
    let is_label =
        |label: &str| !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let is_local = !local.is_empty()
        && local.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'+' | b'/'));
    let ending = domain.rsplit('.').next().unwrap_or_default();
    is_local
        && domain.contains('.')
        && domain.split('.').all(is_label)
        && ending.len() > 1
        && ending.bytes().all(|b| b.is_ascii_alphabetic())
}

/// Returns true if a reader cannot see the character for what it is: controls, line separators, bidirectional
/// controls, zero-width characters (Unicode's `Default_Ignorable_Code_Point` and format characters, including tag
/// characters and variation selectors), and private use.
pub fn is_deceptive(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}'
            | '\u{890}'..='\u{891}' | '\u{8e2}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{e000}'..='\u{f8ff}' | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{110bd}' | '\u{110cd}'
            | '\u{13430}'..='\u{1343f}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}' | '\u{f0000}'..='\u{10ffff}')
}

/// Returns the text with every deceptive character written as `\u{202e}`; line feeds and tabs stay if `keeps` is
/// [`Keeps::Lines`].
pub fn escaped(text: &str, keeps: Keeps) -> Cow<'_, str> {
    replaced(text, keeps, |out, c| out.extend(c.escape_unicode()))
}

/// Returns the text with every deceptive character escaped as in JSON, such as `\u202e`. A JSON document keeps
/// its meaning, since such characters occur only inside its strings.
pub fn json_escaped(text: &str) -> Cow<'_, str> {
    replaced(text, Keeps::Lines, |out, c| {
        for unit in c.encode_utf16(&mut [0; 2]) {
            let _ = write!(out, "\\u{unit:04x}"); // writing to a string does not fail
        }
    })
}

/// Line structure that escaping keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keeps {
    /// Line feeds and tabs stay as they are.
    Lines,
    /// The result is one line.
    Nothing,
}

fn replaced(text: &str, keeps: Keeps, write: impl Fn(&mut String, char)) -> Cow<'_, str> {
    let is_kept = |c: char| !is_deceptive(c) || (keeps == Keeps::Lines && matches!(c, '\n' | '\t'));
    let Some(first) = text.find(|c: char| !is_kept(c)) else { return Cow::Borrowed(text) };
    let mut out = String::with_capacity(text.len() + 16);
    out.push_str(&text[..first]);
    for c in text[first..].chars() {
        if is_kept(c) { out.push(c) } else { write(&mut out, c) }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_ids_and_addresses_are_repeated_and_nothing_else() {
        for text in [
            "",
            "q",
            "nonsense",
            "user_id",
            "userId",
            "userID",
            "get_usr",
            "remove_user_from_group",
            "OKTA_GROUP",
            "PASSWORD_EXPIRED",
            "DEPROVISIONED",
            "profile.department",
            "okta.dead",
            "helpdesk",
            "00g1",
            "00u1abCdEfGhIjKlMnOp",
            "0oa1gjh63g214q0Hq0g4",
            "jane@example.com",
            "jane.o-doe+x@mail.example.com",
            "team/jane@example.com",
        ] {
            assert_eq!(excerpt(text), text);
        }
        for text in [
            "hunter2",
            "Pa\"ss",
            "P@ssw0rd",
            "P@ss",
            "correct horse",
            "correct-horse-battery",
            "00TopSecret",
            "00aBcDeFgHiJkLmNoPqRsTuVwXyZ01234567890abc",
            "xKqWzRtYpL",
            "PaSsWoRd",
            "a_b_c_d_e",
            "correcthorsebattery",
            "{\"password\":{}}",
            "a\u{202e}b",
            "schön",
            "__",
            ".",
            "..",
            "a..b",
            "jane@",
            "@example.com",
            "a@b.c0",
            "jane doe@example.com",
            "\n",
            "1",
            &"word_".repeat(9),
        ] {
            assert_eq!(excerpt(text), MASK, "{text:?}");
        }
    }

    #[test]
    fn a_long_address_is_cut() {
        let long = format!("{}@example.com", "a".repeat(70));
        assert_eq!(excerpt(&long), format!("{}…", "a".repeat(64)));
    }

    #[test]
    fn what_a_reader_does_not_see_is_escaped() {
        // One of each kind: controls, direction, no width, tags, variation selectors, private use, separators.
        let hidden = "\0\u{7}\u{1b}\u{7f}\u{9b}\u{ad}\u{200b}\u{200d}\u{200e}\u{200f}\u{2028}\u{2029}\u{202a}\u{202e}\
            \u{2060}\u{2066}\u{2069}\u{feff}\u{fff9}\u{fe0f}\u{e000}\u{e0001}\u{e0020}\u{e007f}\u{e0100}\u{f0000}\
            \u{10fffd}\u{180e}\u{3164}";
        for c in hidden.chars() {
            let text = format!("a{c}b\n\tc");
            let told = escaped(&text, Keeps::Lines);
            assert_eq!(told, format!("a\\u{{{:x}}}b\n\tc", u32::from(c)));
            assert_eq!(
                escaped(&text, Keeps::Nothing),
                format!("a\\u{{{:x}}}b\\u{{a}}\\u{{9}}c", u32::from(c))
            );
            assert!(!json_escaped(&text).contains(c));
        }
        let plain = "Zoë Ångström, 李小龙, مريم, 👩 „quoted“ – ½ €\n\t";
        assert!(matches!(escaped(plain, Keeps::Lines), Cow::Borrowed(text) if text == plain));
    }

    #[test]
    fn escaped_json_is_the_same_json() {
        let value =
            serde_json::json!({ "a\u{202e}": "tag \u{e0041} and \u{7f} and \u{200d}\n\u{1b}", "b": ["é"] });
        for text in [value.to_string(), format!("{value:#}")] {
            let told = json_escaped(&text);
            assert!(!told.chars().any(|c| is_deceptive(c) && c != '\n'), "{told}");
            assert_eq!(serde_json::from_str::<serde_json::Value>(&told).unwrap(), value);
        }
    }
}
