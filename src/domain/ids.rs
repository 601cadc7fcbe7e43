//! Ids and logins from outside, parsed once and safe from then on.
//!
//! No URL path is built from a `String`: a path segment is one of the types here, and each refuses
//! texts that Okta would interpret differently (`me`, `.`, `..`, the empty text).

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use super::text::excerpt;

/// The longest id or login accepted, in characters: an e-mail address has at most 254 (RFC 5321).
pub const KEY_CHARS_MAX: usize = 254;

/// The longest name of a connection, in bytes.
pub const CONNECTION_NAME_MAX: usize = 32;

/// The name of a saved set of credentials for one Okta org: `[a-z][a-z0-9-]{0,31}`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct ConnectionName(String);

impl ConnectionName {
    /// Parses a name.
    ///
    /// # Errors
    /// If the text does not match `[a-z][a-z0-9-]{0,31}`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let well_formed = text.len() <= CONNECTION_NAME_MAX
            && text.starts_with(|c: char| c.is_ascii_lowercase())
            && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
        if well_formed {
            Ok(Self(text.to_owned()))
        } else {
            Err(format!("`{}` is not a connection name: [a-z][a-z0-9-]{{0,31}}", excerpt(text)))
        }
    }

    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for ConnectionName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ConnectionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The priority of an invocation: somebody waits for it (`interactive`) or nobody does (`bulk`).
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, strum::IntoStaticStr, strum::EnumCount,
)]
#[strum(serialize_all = "snake_case")]
pub enum Lane {
    /// Somebody waits for the answer; served first.
    Interactive,
    /// Nobody waits; gets the budget that the interactive lane leaves.
    Bulk,
}

impl Lane {
    /// Both lanes, in order of priority.
    pub const ALL: [Self; <Self as strum::EnumCount>::COUNT] = [Self::Interactive, Self::Bulk];

    /// Returns the name of the lane in routing keys, queue names and labels.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// Returns the lane with this name, if there is one.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|lane| lane.as_str() == text)
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A value that may form one segment of a URL path.
pub trait PathSegment {
    /// Returns the raw text, not yet percent-encoded.
    fn segment(&self) -> &str;
}

/// Refuses texts that no Okta path may hold, for every kind of id.
fn check_key(text: &str) -> Result<(), String> {
    let bare = text.trim();
    if bare.is_empty() {
        return Err("must not be empty".into());
    }
    if bare == "." || bare == ".." || bare.eq_ignore_ascii_case("me") {
        return Err(format!("must be an id, not `{bare}`"));
    }
    if text.chars().any(char::is_control) {
        return Err("must not hold control characters".into());
    }
    if text.chars().count() > KEY_CHARS_MAX {
        return Err(format!("must not be longer than {KEY_CHARS_MAX} characters"));
    }
    Ok(())
}

/// Checks an id that is never a login, where a slash or a question mark would name another resource.
fn check_id(text: &str) -> Result<(), String> {
    check_key(text)?;
    if text.contains(['/', '?']) {
        return Err("must be an id, without `/` or `?`".into());
    }
    Ok(())
}

macro_rules! key {
    ($(#[$doc:meta])* $name:ident, $check:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String")]
        pub struct $name(String);

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "minLength": 1, "maxLength": KEY_CHARS_MAX })
            }
        }

        impl $name {
            /// Returns the text as the caller wrote it.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = String;
            fn try_from(text: String) -> Result<Self, String> {
                $check(&text).map(|()| Self(text))
            }
        }

        impl PathSegment for $name {
            fn segment(&self) -> &str {
                &self.0
            }
        }
    };
}

key!(
    /// The id (`00u…`) or login of a user. A login may hold `/`; such a user is found by search.
    UserKey,
    check_key
);
key!(
    /// The id of a group (`00g…`).
    GroupId,
    check_id
);
key!(
    /// The id of an application instance (`0oa…`).
    AppId,
    check_id
);

impl UserKey {
    /// Returns true if the text has the shape of an Okta user id: twenty letters and digits that begin with
    /// `00u` (seen in every recording; scrubbed data deviates, so a mismatch proves nothing).
    pub fn is_id_shaped(&self) -> bool {
        self.0.len() == 20 && self.0.starts_with("00u") && self.0.bytes().all(|b| b.is_ascii_alphanumeric())
    }
}

/// The id of a user as Okta returned it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserId(UserKey);

impl UserId {
    /// Takes an id from one of Okta's answers.
    ///
    /// # Errors
    /// If Okta's text cannot form a path segment.
    pub fn from_okta(text: &str) -> Result<Self, String> {
        check_id(text)?;
        UserKey::try_from(text.to_owned()).map(Self)
    }

    /// Takes a key that the caller gave and that needs no look-up.
    pub fn given(key: &UserKey) -> Self {
        Self(key.clone())
    }

    /// Returns the id as text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl PathSegment for UserId {
    fn segment(&self) -> &str {
        self.0.as_str()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_okta_would_read_as_something_else_is_refused() {
        for bad in ["", " ", ".", "..", "me", "ME", " me ", "a\nb", "a\0"] {
            assert!(UserKey::try_from(bad.to_owned()).is_err(), "{bad:?}");
            assert!(GroupId::try_from(bad.to_owned()).is_err(), "{bad:?}");
        }
        for bad in ["../groups/x", "a/b", "a?b"] {
            assert!(AppId::try_from(bad.to_owned()).is_err(), "{bad:?}");
        }
        assert!(UserKey::try_from("team/jane@example.com".to_owned()).is_ok());
        assert!(UserKey::try_from("x".repeat(255)).is_err());
    }

    #[test]
    fn connection_names_follow_their_pattern() {
        assert!(ConnectionName::parse("acme-eu1").is_ok());
        for bad in ["", "Acme", "1acme", "-a", "a_b", &"a".repeat(33)] {
            assert!(ConnectionName::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn only_twenty_characters_that_begin_with_00u_look_like_an_id() {
        let shaped = |text: &str| UserKey::try_from(text.to_owned()).unwrap().is_id_shaped();
        assert!(shaped("00u6o0w6tyuPVEeZr0h7"));
        assert!(!shaped("00u6o0w6tyuPVEeZr0h"));
        assert!(!shaped("jane@example.com"));
    }
}
