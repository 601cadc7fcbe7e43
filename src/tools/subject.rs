//! The subject of an invocation: its user, group or application.
//!
//! Writes of one subject run in order, in a worker and in `submit`. The subject is derived from the arguments alone,
//! without asking Okta: an id and the login of the same user are two subjects.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use crate::domain::ids::UserKey;

/// The subtools with a user's `profile`, whose `login` names the user. A group's profile may have an attribute with
/// that name, too.
const WITH_USER_PROFILE: [&str; 2] = ["create_user", "update_user"];

/// A subject, as a digest of constant size that reveals no login.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Subject([u8; 16]);

impl Subject {
    /// Returns the subject for a user's id or login. Logins are case-insensitive, ids are not.
    pub fn user(key: &str) -> Self {
        let is_id = UserKey::try_from(key.to_owned()).is_ok_and(|key| key.is_id_shaped());
        let name = if is_id { Cow::Borrowed(key) } else { Cow::Owned(key.to_lowercase()) };
        Self::new("user", &name)
    }

    fn new(kind: &str, name: &str) -> Self {
        let mut digest = Sha256::new();
        for part in [kind, "\0", name] {
            digest.update(part);
        }
        let digest: [u8; 32] = digest.finalize().into();
        Self(*digest.first_chunk().expect("a digest has 32 bytes"))
    }
}

/// The arguments that may name a subject. All others are ignored, and so are values of a wrong type, which the subtool
/// refuses.
#[derive(Deserialize)]
struct Arguments<'a> {
    #[serde(borrow)]
    user_id: Option<&'a RawValue>,
    profile: Option<&'a RawValue>,
    group_id: Option<&'a RawValue>,
    name: Option<&'a RawValue>,
    app_id: Option<&'a RawValue>,
}

/// Returns the subject of an invocation; `None` if its arguments name none, as for most lists.
pub fn subject(subtool: &str, arguments: &RawValue) -> Option<Subject> {
    let Arguments { user_id, profile, group_id, name, app_id } =
        serde_json::from_str(arguments.get()).ok()?;
    let login = || profile.filter(|_| WITH_USER_PROFILE.contains(&subtool)).and_then(login);
    if let Some(user) = text(user_id).or_else(login) {
        return Some(Subject::user(&user));
    }
    let named = |kind: &'static str, value| text(value).map(|text| Subject::new(kind, &text));
    named("group", group_id).or_else(|| named("group name", name)).or_else(|| named("app", app_id))
}

/// Returns a text that is present and not empty.
fn text(value: Option<&RawValue>) -> Option<String> {
    let text: String = serde_json::from_str(value?.get()).ok()?;
    (!text.is_empty()).then_some(text)
}

/// Returns the login in a profile, which may also be sent as JSON text.
fn login(profile: &RawValue) -> Option<String> {
    let within: Cow<'_, str> = match serde_json::from_str::<String>(profile.get()) {
        Ok(within) => within.into(),
        Err(_) => profile.get().into(),
    };
    let attributes: BTreeMap<String, &RawValue> = serde_json::from_str(&within).ok()?;
    text(attributes.get("login").copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(subtool: &str, arguments: &str) -> Option<Subject> {
        subject(subtool, serde_json::from_str(arguments).unwrap())
    }

    #[test]
    fn the_same_subject_is_found_in_whatever_names_it() {
        let rows = [
            // A login in any case, in either argument.
            (
                "get_user",
                r#"{"user_id":"Jane@Example.com"}"#,
                "suspend_user",
                r#"{"user_id":"jane@example.com"}"#,
            ),
            (
                "create_user",
                r#"{"profile":{"login":"JANE@example.com","email":"x"},"activate":false}"#,
                "add_user_to_group",
                r#"{"group_id":"00g1emaKYZTWRYYRRTSK","user_id":"jane@example.com"}"#,
            ),
            (
                "get_user",
                r#"{"user_id":"ÄNNE@example.com"}"#,
                "get_user",
                r#"{"user_id":"änne@example.com"}"#,
            ),
            ("get_user", r#"{"user_id":"j\u0061ne"}"#, "get_user", r#"{"user_id":"jane"}"#),
            // The user takes precedence over the group, the application and a new login.
            (
                "update_user",
                r#"{"user_id":"jane","profile":{"login":"janet"}}"#,
                "assign_user_to_app",
                r#"{"app_id":"0oa1","user_id":"jane","profile":{"login":"other"}}"#,
            ),
            // Of two equal names the last one counts, as at Okta.
            (
                "create_user",
                r#"{"profile":{"login":"joe","login":"jane"}}"#,
                "get_user",
                r#"{"user_id":"jane"}"#,
            ),
            (
                "create_user",
                r#"{"profile":"{\"login\":\"jane\"}"}"#,
                "create_user",
                r#"{"profile":{"login":"jane"}}"#,
            ),
            // A group by its id, whatever its new name.
            (
                "update_group",
                r#"{"group_id":"00g1","name":"Sales"}"#,
                "list_group_members",
                r#"{"group_id":"00g1","limit":3}"#,
            ),
            (
                "create_group",
                r#"{"name":"Sales","profile":{"login":"jane"}}"#,
                "create_group",
                r#"{"name":"Sales","description":"x"}"#,
            ),
            ("get_app", r#"{"app_id":"0oa1"}"#, "list_app_users", r#"{"app_id":"0oa1","q":"j"}"#),
        ];
        for (a, with, b, with_b) in rows {
            assert!(of(a, with).is_some(), "{a} {with}");
            assert_eq!(of(a, with), of(b, with_b), "{a} {with} and {b} {with_b}");
        }
    }

    #[test]
    fn other_subjects_are_other_subjects() {
        let rows = [
            ("get_user", r#"{"user_id":"00u1abCdEfGhIjKlMnOp"}"#),
            ("get_user", r#"{"user_id":"00u1ABCdEfGhIjKlMnOp"}"#),
            ("get_user", r#"{"user_id":"jane@example.com"}"#),
            ("get_user", r#"{"user_id":"0oa1"}"#),
            ("get_app", r#"{"app_id":"0oa1"}"#),
            ("get_app", r#"{"app_id":"0OA1"}"#),
            ("get_group", r#"{"group_id":"0oa1"}"#),
            ("create_group", r#"{"name":"0oa1"}"#),
        ];
        let subjects: std::collections::HashSet<_> =
            rows.iter().map(|(subtool, arguments)| of(subtool, arguments).unwrap()).collect();
        assert_eq!(subjects.len(), rows.len());
    }

    #[test]
    fn most_lists_and_what_is_refused_anyway_have_no_subject() {
        let rows = [
            ("list_users", r#"{"search":"profile.login eq \"jane\""}"#),
            ("list_users", "{}"),
            ("get_user", r#"{"user_id":7}"#),
            ("get_user", r#"{"user_id":""}"#),
            ("get_user", r#"{"user_id":null}"#),
            ("create_user", r#"{"profile":{"email":"jane@example.com"}}"#),
            ("create_user", r#"{"profile":"jane"}"#),
            ("get_user", "[]"),
        ];
        for (subtool, arguments) in rows {
            assert_eq!(of(subtool, arguments), None, "{subtool} {arguments}");
        }
    }
}
