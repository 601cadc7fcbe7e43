//! The form of answer that proves a success to be Okta's.
//!
//! A proxy, a captive portal or the sign-in page of a deleted org answers every path with a success
//! status. Recordings show what Okta itself answers to each operation; no other answer is a success.
//! Invariant: every [`Request`](super::http::Request) has an expectation, taken from its method and route.

use std::fmt;

use http::Method;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::json::is_deeper_than;

/// The expected body of a success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// No body. Deletions and membership changes answer 204 (recorded), one deletion 202 with `{}` (group rules).
    Nothing,
    /// `{}`, or an object with a link, a token or a password: lifecycle steps (recorded).
    Step,
    /// An object with this `id`, or with any `id`.
    Object {
        /// The id in the request's path.
        id: Option<String>,
    },
    /// A user with this id, login or short name.
    User {
        /// The id, login or short name in the request's path.
        key: String,
    },
    /// An array of objects.
    List,
}

/// The deepest nesting accepted in an answer: Okta's objects have less than a dozen levels, and
/// `serde_json` reads no more than 128.
const DEPTH_MAX: usize = 100;

/// The names of the links, tokens and passwords that lifecycle steps return (recorded).
const STEP_NAMES: [&str; 4] = ["activationUrl", "activationToken", "resetPasswordUrl", "tempPassword"];

/// The part of an object that identifies it. An object with a repeated name fits no expectation.
#[derive(serde::Deserialize)]
struct ObjectIdentity {
    id: String,
    #[serde(default)]
    profile: Option<Box<RawValue>>,
}

#[derive(serde::Deserialize)]
struct Named {
    login: String,
}

impl Expected {
    /// Returns the expected answer of an operation. `last` is the last filled placeholder of the route.
    pub fn of(method: &Method, route: &str, last: Option<&str>) -> Self {
        let is_of_one = route.ends_with('}');
        match (method, route) {
            (&Method::DELETE, _) | (&Method::PUT, "/api/v1/groups/{groupId}/users/{userId}") => Self::Nothing,
            (_, "/api/v1/users/{userId}/lifecycle/expire_password") => Self::Object { id: None },
            (_, route) if route.contains("/lifecycle/") => Self::Step,
            (&Method::GET, "/api/v1/users/{userId}") => {
                Self::User { key: last.unwrap_or_default().to_owned() }
            }
            // An update addressed by login may change that login.
            (_, "/api/v1/users/{userId}") => {
                Self::Object { id: last.filter(|last| is_user_id(last)).map(str::to_owned) }
            }
            _ if is_of_one => Self::Object { id: last.map(str::to_owned) },
            (&Method::GET, _) => Self::List,
            _ => Self::Object { id: None },
        }
    }

    /// Returns true if an answer with this success status and this body is the expected one.
    pub fn fits(&self, status: u16, body: &[u8]) -> bool {
        match (self, status) {
            (Self::Nothing, 204) => body.is_empty(),
            (_, 200..=203) if is_deeper_than(body, DEPTH_MAX) => false,
            (Self::Nothing, 200..=202) => names(body).is_some_and(|names| names.is_empty()),
            (Self::Step, 200..=203) => names(body).is_some_and(|names| {
                names.is_empty() || names.iter().any(|name| STEP_NAMES.contains(&name.as_str()))
            }),
            (Self::Object { id: asked }, 200..=203) => identity(body)
                .is_some_and(|ObjectIdentity { id, .. }| asked.as_ref().is_none_or(|asked| *asked == id)),
            (Self::User { key }, 200..=203) => identity(body).is_some_and(|user| user.is_called(key)),
            (Self::List, 200..=203) => serde_json::from_slice::<Vec<&RawValue>>(body)
                .is_ok_and(|items| items.iter().all(|item| item.get().starts_with('{'))),
            _ => false,
        }
    }
}

impl ObjectIdentity {
    /// Returns true unless this surely is another user than the one requested by this key. Okta also accepts a
    /// short name for a login, and ignores case and diacritics, so some differences prove nothing.
    fn is_called(&self, key: &str) -> bool {
        if self.id == key {
            return true;
        }
        let profile = self.profile.as_ref();
        let login = profile.and_then(|profile| serde_json::from_str::<Named>(profile.get()).ok());
        let Some(Named { login }) = login else { return !is_user_id(key) };
        let short_name = login.split('@').next().unwrap_or_default();
        let may_be_folded = !(is_user_id(key) || login.is_ascii() && key.is_ascii());
        may_be_folded || [login.as_str(), short_name].iter().any(|name| name.eq_ignore_ascii_case(key))
    }
}

/// Returns true if a text has the shape of a user id.
fn is_user_id(text: &str) -> bool {
    text.len() == 20 && text.starts_with("00u") && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// Parses the identity of an object; `None` for an error object.
fn identity(body: &[u8]) -> Option<ObjectIdentity> {
    names(body)?;
    serde_json::from_slice(body).ok()
}

/// Returns the member names of an object, in order; `None` if the body is no object, or an error object.
fn names(body: &[u8]) -> Option<Vec<String>> {
    let MemberNames(names) = serde_json::from_str(std::str::from_utf8(body).ok()?).ok()?;
    (!names.iter().any(|name| name == "errorCode")).then_some(names)
}

/// The member names of an object, without the values.
struct MemberNames(Vec<String>);

impl<'de> Deserialize<'de> for MemberNames {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reading;
        impl<'de> Visitor<'de> for Reading {
            type Value = MemberNames;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<MemberNames, A::Error> {
                let mut names = Vec::new();
                while let Some((name, IgnoredAny)) = map.next_entry()? {
                    names.push(name);
                }
                Ok(MemberNames(names))
            }
        }
        deserializer.deserialize_map(Reading)
    }
}

#[cfg(test)]
mod tests {
    use crate::domain::http::Request;
    use crate::domain::ids::{GroupId, UserKey};

    const ID: &str = "00u1abCdEfGhIjKlMnOp";

    fn user(key: &str) -> Request {
        let key = UserKey::try_from(key.to_owned()).unwrap();
        Request::get("/api/v1/users/{userId}", &[&key])
    }

    fn step(name: &'static str) -> Request {
        Request::post(name, &[&UserKey::try_from(ID.to_owned()).unwrap()])
    }

    #[test]
    fn a_user_is_the_one_that_was_asked_for() {
        let jane = r#"{"id":"00u1abCdEfGhIjKlMnOp","profile":{"login":"Jane@example.com"}}"#;
        let rows = [
            (ID, jane, true),
            ("00u2abCdEfGhIjKlMnOp", jane, false),
            ("jane@EXAMPLE.com", jane, true),
            ("jane", jane, true),
            ("joe@example.com", jane, false),
            ("joe", jane, false),
            // Okta ignores diacritics, so this may be the same user.
            ("jané@example.com", jane, true),
            ("jane@example.com", r#"{"id":"00u1abCdEfGhIjKlMnOp","profile":null}"#, true),
            (ID, r#"{"id":"00u1abCdEfGhIjKlMnOp","profile":null}"#, true),
            (ID, r#"{"id":1}"#, false),
            (ID, r#"{"id":"00u1abCdEfGhIjKlMnOp","id":"00u1abCdEfGhIjKlMnOp"}"#, false),
            (ID, r#"{"id":"00u1abCdEfGhIjKlMnOp","errorCode":"E0000009"}"#, false),
            (ID, r#"{"id":"00u1abCdEfGhIjKlMnOp""#, false),
            (ID, "[]", false),
            (ID, "null", false),
            (ID, "", false),
            (ID, "<html>", false),
        ];
        for (key, body, fits) in rows {
            assert_eq!(user(key).expected.fits(200, body.as_bytes()), fits, "{key} {body}");
        }
    }

    #[test]
    fn each_operation_has_an_answer_of_its_own() {
        let group = GroupId::try_from("00g1emaKYZTWRYYRRTSK".to_owned()).unwrap();
        let member: [&dyn crate::domain::ids::PathSegment; 2] =
            [&group, &UserKey::try_from(ID.to_owned()).unwrap()];
        let put = Request::put("/api/v1/groups/{groupId}/users/{userId}", &member);
        let delete = Request::delete("/api/v1/groups/{groupId}", &[&group]);
        let list = Request::get("/api/v1/groups", &[]);
        let create = Request::post("/api/v1/users", &[]);
        let deactivate = step("/api/v1/users/{userId}/lifecycle/deactivate");
        let expire = step("/api/v1/users/{userId}/lifecycle/expire_password");
        let rows = [
            (&put, 204, "", true),
            (&put, 200, "", false),
            (&put, 200, "{}", true),
            (&put, 200, "<html>", false),
            (&put, 200, "[]", false),
            (&delete, 204, "", true),
            (&delete, 202, "{}", true),
            (&delete, 204, "<html>", false),
            (&list, 200, "[]", true),
            (&list, 200, r#"[{"id":"x"}]"#, true),
            (&list, 200, "[null]", false),
            (&list, 200, "[1]", false),
            (&list, 200, "{}", false),
            (&list, 204, "", false),
            (&list, 206, "[]", false),
            (&create, 200, r#"{"id":"x"}"#, true),
            (&create, 201, r#"{"id":"x"}"#, true),
            (&create, 200, "{}", false),
            (&deactivate, 200, "{}", true),
            (&deactivate, 200, " { } \n", true),
            (&deactivate, 200, r#"{"activationUrl":null}"#, true),
            (&deactivate, 200, r#"{"message":"welcome"}"#, false),
            (&deactivate, 200, r#"{"id":"00u1abCdEfGhIjKlMnOp"}"#, false),
            (&deactivate, 200, r#"{"errorCode":"E0000009"}"#, false),
            (&deactivate, 200, "", false),
            (&deactivate, 204, "", false),
            (&deactivate, 200, "null", false),
            (&expire, 200, r#"{"id":"x"}"#, true),
            (&expire, 200, "{}", false),
        ];
        for (request, status, body, fits) in rows {
            assert_eq!(request.expected.fits(status, body.as_bytes()), fits, "{request:?} {status} {body}");
        }
        let deep = format!("[{}]", "[".repeat(1_000_000));
        assert!(!list.expected.fits(200, deep.as_bytes()));
        assert!(!list.expected.fits(200, b"[\"\xff\"]") && !list.expected.fits(200, b"[{\"a\":\"\xff\"}]"));
        assert!(!list.expected.fits(200, "\u{feff}[]".as_bytes()));
    }
}
