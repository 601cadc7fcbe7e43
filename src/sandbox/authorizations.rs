//! The authorizations of an org: the tokens that it has issued, and the assertions that were used.

use std::collections::HashMap;

use http::Method;
use jiff::Timestamp;

use crate::domain::secret::Secret;

/// The path of the token endpoint.
pub(super) const TOKEN_PATH: &str = "/oauth2/v1/token";

/// The most tokens kept, and the most assertions: a caller that requests ever new ones must not fill the memory.
const REMEMBERED_MAX: usize = 1000;

/// The tokens issued, and the assertions used.
#[derive(Debug, Default)]
pub(super) struct Authorizations {
    tokens: Vec<(Secret, IssuedToken)>,
    /// The used assertions, by client and `jti`, until each expires.
    shown: HashMap<(String, String), i64>,
}

/// A token that was issued.
#[derive(Debug)]
pub(super) struct IssuedToken {
    pub(super) scopes: Vec<String>,
    pub(super) ends: Timestamp,
    /// The thumbprint of the key that the token is bound to.
    pub(super) bound_to: Option<String>,
}

/// The state of a token.
pub(super) enum TokenState<'a> {
    /// The token was not issued here.
    Unknown,
    /// The token has expired, or was revoked.
    Ended,
    /// The token is valid.
    Good(&'a IssuedToken),
}

impl Authorizations {
    /// Returns the current state of a token.
    pub(super) fn standing(&self, token: &str, now: Timestamp) -> TokenState<'_> {
        match self.tokens.iter().find(|(known, _)| known.expose() == token) {
            None => TokenState::Unknown,
            Some((_, token)) if now >= token.ends => TokenState::Ended,
            Some((_, token)) => TokenState::Good(token),
        }
    }

    /// Revokes every token, as an administrator does.
    pub(super) fn revoke(&mut self, now: Timestamp) {
        for (_, token) in &mut self.tokens {
            token.ends = token.ends.min(now);
        }
    }

    /// Records an assertion, and returns true if it is new.
    pub(super) fn is_new(&mut self, client: &str, jti: String, exp: i64, now: Timestamp) -> bool {
        self.shown.retain(|_, exp| *exp > now.as_second());
        self.shown.len() < REMEMBERED_MAX && self.shown.insert((client.to_owned(), jti), exp).is_none()
    }

    pub(super) fn remember(&mut self, secret: &str, token: IssuedToken) {
        if self.tokens.len() == REMEMBERED_MAX {
            self.tokens.remove(0);
        }
        self.tokens.push((Secret::new(secret), token));
    }
}

/// Returns the scope that an operation needs, and the wider one that also suffices.
pub(super) fn needed(method: &Method, route: &str) -> [String; 2] {
    let of_what = match route.trim_start_matches("/api/v1/").split('/').next() {
        Some("org") => "orgs",
        of_what => of_what.unwrap_or_default(),
    };
    let manage = format!("okta.{of_what}.manage");
    let least = if *method == Method::GET { format!("okta.{of_what}.read") } else { manage.clone() };
    [least, manage]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_tokens_nor_assertions_are_remembered_without_end() {
        let mut authorizations = Authorizations::default();
        for number in 0..2 * REMEMBERED_MAX {
            let token = IssuedToken { scopes: Vec::new(), ends: Timestamp::MAX, bound_to: None };
            authorizations.remember(&number.to_string(), token);
            authorizations.is_new("0oa1", number.to_string(), i64::MAX, Timestamp::UNIX_EPOCH);
        }
        assert_eq!(
            (authorizations.tokens.len(), authorizations.shown.len()),
            (REMEMBERED_MAX, REMEMBERED_MAX)
        );
        assert!(!format!("{authorizations:?}").contains("1999"), "a token is not printed");
    }
}
