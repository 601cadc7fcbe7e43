//! The delimiter of a CSV file: the character between two cells.

/// The character between two cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli::submit) struct Delimiter(u8);

/// The characters that argument names and quoted cells are made of, so they cannot separate cells.
const RESERVED: &[u8] = b"\"'._:-$\\";

impl Delimiter {
    /// The default delimiter, from RFC 4180.
    pub const COMMA: Self = Self(b',');

    /// The delimiters that spreadsheets and exports write.
    const COMMON: [Self; 4] = [Self::COMMA, Self(b';'), Self(b'\t'), Self(b'|')];

    /// Parses a delimiter as a user types it: the character itself, or its name.
    ///
    /// # Errors
    /// A description, if the text is not a valid delimiter.
    pub fn parse(text: &str) -> Result<Self, String> {
        let byte = match (text.to_ascii_lowercase().as_str(), text.as_bytes()) {
            ("comma", _) => b',',
            ("semicolon", _) => b';',
            ("tab" | "\\t", _) => b'\t',
            ("pipe" | "bar", _) => b'|',
            (_, [byte]) if *byte == b'\t' || byte.is_ascii_punctuation() && !RESERVED.contains(byte) => *byte,
            _ => return Err("must be one character such as `;` or `|`, or `tab`".to_owned()),
        };
        Ok(Self(byte))
    }

    /// Returns the byte in the file.
    pub fn byte(self) -> u8 {
        self.0
    }

    /// Returns the plural name of the character.
    pub fn plural(self) -> String {
        match self.0 {
            b',' => "commas".to_owned(),
            b';' => "semicolons".to_owned(),
            b'\t' => "tabs".to_owned(),
            b'|' => "vertical bars".to_owned(),
            other => format!("`{}`", char::from(other)),
        }
    }

    /// Returns the option that sets this delimiter, as typed in a shell.
    pub fn option(self) -> String {
        match self.0 {
            b'\t' => "--delimiter tab".to_owned(),
            other => format!("--delimiter '{}'", char::from(other)),
        }
    }

    /// Returns the common delimiter that seems to separate a heading read with this one.
    pub fn instead(self, heading: &[&str]) -> Option<Self> {
        let count =
            |it: Self| heading.iter().map(|name| name.matches(char::from(it.0)).count()).sum::<usize>();
        let others = Self::COMMON.into_iter().filter(|other| *other != self && count(*other) > 0);
        others.max_by_key(|other| count(*other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delimiter_is_a_character_or_its_name() {
        for (text, byte) in [
            (";", b';'),
            ("semicolon", b';'),
            ("tab", b'\t'),
            ("TAB", b'\t'),
            ("\\t", b'\t'),
            ("\t", b'\t'),
            ("|", b'|'),
            ("pipe", b'|'),
            (",", b','),
            ("comma", b','),
            ("^", b'^'),
            ("~", b'~'),
        ] {
            assert_eq!(Delimiter::parse(text).map(Delimiter::byte), Ok(byte), "{text}");
        }
        for text in
            ["", ";;", "x", "7", " ", "\"", "'", ".", ":", "_", "-", "\\", "\n", "\r", "ä", "§", "tabs"]
        {
            assert!(Delimiter::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn what_separates_a_heading_instead_is_found_out() {
        let instead = |delimiter: &str, heading: &[&str]| {
            let delimiter = Delimiter::parse(delimiter).unwrap();
            delimiter.instead(heading).map(Delimiter::option)
        };
        assert_eq!(instead(",", &["user_id", "profile.title"]), None);
        assert_eq!(instead(",", &["user_id;profile.title"]).as_deref(), Some("--delimiter ';'"));
        assert_eq!(instead(",", &["user_id\tprofile.title"]).as_deref(), Some("--delimiter tab"));
        assert_eq!(instead(",", &["user_id|a|b;c"]).as_deref(), Some("--delimiter '|'"));
        assert_eq!(instead(";", &["user_id,profile.title"]).as_deref(), Some("--delimiter ','"));
    }
}
