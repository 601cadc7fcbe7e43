//! Okta-shaped ids, and the only source of randomness.
//!
//! Ids increase with each one created, so that ordering by id is ordering by age and a page cursor stays valid when its
//! item is gone. The same seed gives the same ids.

use std::fmt;

use fastrand::Rng;
use serde::{Serialize, Serializer};

/// The digits in ASCII order, so that texts sort like the numbers they represent.
const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The number of digits of an id that count upwards: 62⁷ is enough for any simulation.
const COUNTING_DIGITS: usize = 7;

/// The end of all ids of this org, as those of a real org share their last four characters.
const ORG_SUFFIX: &[u8; 4] = b"Sb5d";

/// The id of a user, group, app or anything else: 20 characters.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id([u8; 20]);

impl Id {
    /// Parses an id, if the text has the shape of one.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes: [u8; 20] = text.as_bytes().try_into().ok()?;
        bytes.iter().all(u8::is_ascii_alphanumeric).then_some(Self(bytes))
    }

    /// Returns the id as text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("an id is made of ASCII letters and digits")
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// A generator of ids, tokens and everything else that looks random.
#[derive(Debug)]
pub(super) struct Ids {
    rng: Rng,
    made: u64,
}

impl Ids {
    pub(super) fn new(seed: u64) -> Self {
        // A first id of all zeros would look like a placeholder.
        Self { rng: Rng::with_seed(seed), made: 62_u64.pow(6) }
    }

    /// Returns a new id with a prefix of three characters, such as `00u`.
    pub(super) fn mint(&mut self, prefix: &str) -> Id {
        self.made += 1;
        let mut bytes = [b'0'; 20];
        bytes[..3].copy_from_slice(prefix.as_bytes());
        let mut rest = self.made;
        for at in (3..3 + COUNTING_DIGITS).rev() {
            bytes[at] = DIGITS[usize::try_from(rest % 62).expect("a digit is below 62")];
            rest /= 62;
        }
        for byte in &mut bytes[3 + COUNTING_DIGITS..16] {
            *byte = DIGITS[self.rng.usize(..62)];
        }
        bytes[16..].copy_from_slice(ORG_SUFFIX);
        Id(bytes)
    }

    /// Returns a new request id: 32 hexadecimal digits, as seen since 2022.
    pub(super) fn request(&mut self) -> String {
        format!("{:032x}", self.rng.u128(..))
    }

    /// Returns a new error id.
    pub(super) fn error(&mut self) -> String {
        format!("oae{}", self.text(22))
    }

    /// Returns a new secret for a mailed link.
    pub(super) fn token(&mut self) -> String {
        self.text(20)
    }

    /// Returns a new temporary password that satisfies the password policy.
    pub(super) fn password(&mut self) -> String {
        format!("Aa1{}", self.text(8))
    }

    /// Returns a new UUID of version 4.
    pub(super) fn uuid(&mut self) -> uuid::Uuid {
        uuid::Builder::from_random_bytes(self.rng.u128(..).to_be_bytes()).into_uuid()
    }

    /// Returns the random generator itself, for seeding other data.
    pub(super) fn rng(&mut self) -> &mut Rng {
        &mut self.rng
    }

    fn text(&mut self, chars: usize) -> String {
        (0..chars).map(|_| char::from(DIGITS[self.rng.usize(..62)])).collect()
    }
}

/// Folds a text as Okta compares logins: without regard to case and diacritics.
///
/// Covers the Latin letters of Western and Central Europe; other letters only lose their case.
pub(super) fn fold(text: &str) -> String {
    let mut folded = String::with_capacity(text.len());
    for c in text.chars() {
        let c = match c {
            'À'..='Å' | 'à'..='å' | 'Ā'..='ą' => 'a',
            'Ç' | 'ç' | 'Ć'..='č' => 'c',
            'Ď'..='đ' => 'd',
            'È'..='Ë' | 'è'..='ë' | 'Ē'..='ě' => 'e',
            'Ĝ'..='ģ' => 'g',
            'Ì'..='Ï' | 'ì'..='ï' | 'Ĩ'..='ı' => 'i',
            'Ĺ'..='ł' => 'l',
            'Ñ' | 'ñ' | 'Ń'..='ň' => 'n',
            'Ò'..='Ö' | 'Ø' | 'ò'..='ö' | 'ø' | 'Ō'..='ő' => 'o',
            'Ŕ'..='ř' => 'r',
            'Ś'..='š' => 's',
            'Ţ'..='ŧ' => 't',
            'Ù'..='Ü' | 'ù'..='ü' | 'Ũ'..='ų' => 'u',
            'Ý' | 'ý' | 'ÿ' | 'Ŷ'..='Ÿ' => 'y',
            'Ź'..='ž' => 'z',
            // U+0300 to U+036F combine with the letter before them.
            '\u{300}'..='\u{36f}' => continue,
            other => {
                folded.extend(other.to_lowercase());
                continue;
            }
        };
        folded.push(c);
    }
    folded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_ids_sort_after_earlier_ones() {
        let mut ids = Ids::new(1);
        let made: Vec<Id> = (0..1000).map(|_| ids.mint("00u")).collect();
        assert!(made.is_sorted());
        assert_eq!(Id::parse(made[7].as_str()), Some(made[7]));
    }

    #[test]
    fn folding_forgets_case_and_diacritics() {
        assert_eq!(fold("Zoë.MÜLLER@Example.com"), "zoe.muller@example.com");
        assert_eq!(fold("Zoe\u{308}.Muller@example.com"), fold("Zoë.Muller@example.com"));
    }
}
