//! The cost of an invocation: requests to Okta and the buckets that count them, if nothing goes wrong.
//!
//! A subtool states its cost next to its name, because callers choose by cost too. Tests run each
//! subtool against the simulated org and compare.

use std::fmt;

use crate::domain::bucket::Bucket;

/// The additional cost of a user given by login if Okta accepts only an id.
pub(super) const A_LOGIN: &str = "1 more in `user_read` for a login";

/// The cost of one invocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    /// The requests by bucket; for a list, those for its first page.
    pub calls: &'static [(Bucket, u32)],
    /// The number of list items per request, and their name.
    pub page: Option<(u32, &'static str)>,
    /// Additional costs and their condition, or other advice.
    pub note: Option<&'static str>,
}

impl Cost {
    /// No requests.
    pub(super) const NONE: Self = Self { calls: &[], page: None, note: None };

    /// Returns the cost of one request.
    pub(super) const fn one(bucket: Bucket) -> Self {
        let calls: &'static [(Bucket, u32)] = match bucket {
            Bucket::Users => &[(Bucket::Users, 1)],
            Bucket::UserRead => &[(Bucket::UserRead, 1)],
            Bucket::UserWrite => &[(Bucket::UserWrite, 1)],
            Bucket::Groups => &[(Bucket::Groups, 1)],
            Bucket::Group => &[(Bucket::Group, 1)],
            Bucket::Apps => &[(Bucket::Apps, 1)],
            Bucket::App => &[(Bucket::App, 1)],
            Bucket::Logs => &[(Bucket::Logs, 1)],
            Bucket::Other => &[(Bucket::Other, 1)],
        };
        Self { calls, ..Self::NONE }
    }

    /// Adds the number of items per request.
    pub(super) const fn per(self, items: u32, what: &'static str) -> Self {
        Self { page: Some((items, what)), ..self }
    }

    /// Adds a note.
    pub(super) const fn and(self, note: &'static str) -> Self {
        Self { note: Some(note), ..self }
    }
}

/// Formats the cost for descriptions: ``2 calls in `user_read` and 1 in `user_write` ``.
impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (bucket, calls)) in self.calls.iter().enumerate() {
            let (before, what) = match (at, calls) {
                (0, 1) => ("", " call"),
                (0, _) => ("", " calls"),
                _ => (" and ", ""),
            };
            write!(f, "{before}{calls}{what} in `{bucket}`")?;
        }
        if let Some((items, what)) = self.page {
            write!(f, " per {items} {what}")?;
        }
        self.note.map_or(Ok(()), |note| write!(f, "; {note}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_read_like_sentences() {
        let delete = Cost { calls: &[(Bucket::UserRead, 2), (Bucket::UserWrite, 1)], ..Cost::NONE };
        assert_eq!(delete.to_string(), "2 calls in `user_read` and 1 in `user_write`");
        let list = Cost::one(Bucket::Logs).per(1000, "events").and("it is small");
        assert_eq!(list.to_string(), "1 call in `logs` per 1000 events; it is small");
    }
}
