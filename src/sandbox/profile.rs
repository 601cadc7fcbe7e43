//! The profile of a user: its attributes and their constraints.
//!
//! Okta's default user schema with its 31 attributes, plus those in the settings. Knows nothing of statuses or
//! credentials.

use serde_json::{Map, Value};

use super::refusal::OktaRefusal;
use super::settings::{Attribute, AttributeKind};

/// A profile as JSON, without attributes that have no value.
pub(super) type Profile = Map<String, Value>;

/// The longest text of an attribute for which Okta specifies no length; Okta's own limit is of that order.
const TEXT_CHARS_MAX: usize = 4096;

/// The attributes that every org has: name, least and greatest length.
const BASE: [(&str, usize, usize); 31] = [
    ("login", 5, 100),
    ("email", 5, 100),
    ("firstName", 1, 50),
    ("lastName", 1, 50),
    ("city", 0, 128),
    ("costCenter", 0, TEXT_CHARS_MAX),
    ("countryCode", 0, 2),
    ("department", 0, TEXT_CHARS_MAX),
    ("displayName", 0, TEXT_CHARS_MAX),
    ("division", 0, TEXT_CHARS_MAX),
    ("employeeNumber", 0, TEXT_CHARS_MAX),
    ("honorificPrefix", 0, TEXT_CHARS_MAX),
    ("honorificSuffix", 0, TEXT_CHARS_MAX),
    ("locale", 0, TEXT_CHARS_MAX),
    ("manager", 0, TEXT_CHARS_MAX),
    ("managerId", 0, TEXT_CHARS_MAX),
    ("middleName", 0, TEXT_CHARS_MAX),
    ("mobilePhone", 0, 100),
    ("nickName", 0, TEXT_CHARS_MAX),
    ("organization", 0, TEXT_CHARS_MAX),
    ("postalAddress", 0, 4096),
    ("preferredLanguage", 0, TEXT_CHARS_MAX),
    ("primaryPhone", 0, 100),
    ("profileUrl", 0, TEXT_CHARS_MAX),
    ("secondEmail", 0, 100),
    ("state", 0, 128),
    ("streetAddress", 0, 1024),
    ("timezone", 0, TEXT_CHARS_MAX),
    ("title", 0, TEXT_CHARS_MAX),
    ("userType", 0, TEXT_CHARS_MAX),
    ("zipCode", 0, 50),
];

/// The attributes that every user must have, in the order of Okta's complaints.
const REQUIRED: [&str; 4] = ["login", "email", "firstName", "lastName"];

/// The attributes that Okta shows even without a value.
pub(super) const SHOWN_EMPTY: [&str; 2] = ["mobilePhone", "secondEmail"];

/// Returns true if an attribute of that name exists.
pub(super) fn is_attribute(name: &str, custom: &[Attribute]) -> bool {
    BASE.iter().any(|(known, ..)| *known == name) || custom.iter().any(|known| known.name == name)
}

/// Refuses undefined attributes and values of the wrong type; `what` is Okta's name for the body.
pub(super) fn check_attributes(
    profile: &Profile,
    custom: &[Attribute],
    what: &str,
) -> Result<(), OktaRefusal> {
    let unknown: Vec<String> = profile
        .keys()
        .filter(|name| !is_attribute(name, custom))
        .map(|name| format!("Property name '{name}' is not defined in profile"))
        .collect();
    if !unknown.is_empty() {
        return Err(OktaRefusal::invalid(what, unknown));
    }
    match profile.iter().find(|(name, value)| !fits(name, value, custom)) {
        Some((name, _)) => Err(OktaRefusal::wrong_type(name)),
        None => Ok(()),
    }
}

fn fits(name: &str, value: &Value, custom: &[Attribute]) -> bool {
    let kind = custom.iter().find(|known| known.name == name).map_or(AttributeKind::Text, |known| known.kind);
    match kind {
        _ if value.is_null() => true,
        AttributeKind::Text => value.is_string(),
        AttributeKind::Number => value.is_number(),
        AttributeKind::Truth => value.is_boolean(),
        AttributeKind::List => value.is_array(),
    }
}

/// Merges attributes into a profile; `null` removes one.
pub(super) fn merge(profile: &mut Profile, changes: Profile) {
    for (name, value) in changes {
        if value.is_null() {
            profile.remove(&name);
        } else {
            profile.insert(name, value);
        }
    }
}

/// Refuses a whole profile that Okta would not accept.
pub(super) fn check(profile: &Profile) -> Result<(), OktaRefusal> {
    let text = |name: &str| profile.get(name).and_then(Value::as_str).unwrap_or_default();
    let mut failures: Vec<(&str, String)> = Vec::new();
    for name in REQUIRED {
        if text(name).trim().is_empty() {
            failures.push((name, format!("{name}: The field cannot be left blank")));
        }
    }
    for (name, least, most) in BASE {
        let length = text(name).chars().count();
        if length > 0 && (length < least || length > most) {
            let cause = format!("{name}: String is too long or too short: {least} to {most} characters");
            failures.push((name, cause));
        }
        if text(name).chars().any(|c| c > '\u{ffff}') {
            failures.push((name, format!("{name}: Contains characters outside the supported range")));
        }
    }
    if !text("login").is_empty() && !is_email(text("login")) {
        failures.push(("login", "login: Username must be in the form of an email address".to_owned()));
    }
    for name in ["email", "secondEmail"] {
        if !text(name).is_empty() && !is_email(text(name)) {
            failures.push((name, format!("{name}: Does not match required pattern")));
        }
    }
    match failures.first() {
        None => Ok(()),
        Some((first, _)) => {
            let first = (*first).to_owned();
            Err(OktaRefusal::invalid(&first, failures.into_iter().map(|(_, cause)| cause).collect()))
        }
    }
}

fn is_email(text: &str) -> bool {
    match text.rsplit_once('@') {
        Some((local, domain)) => {
            !local.is_empty()
                && !text.contains(char::is_whitespace)
                && domain.contains('.')
                && domain.split('.').all(|label| !label.is_empty())
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(json: Value) -> Profile {
        json.as_object().unwrap().clone()
    }

    #[test]
    fn blank_required_fields_are_named_one_by_one() {
        let refusal = check(&profile(serde_json::json!({ "mobilePhone": "1" }))).unwrap_err();
        assert_eq!(refusal.summary, "Api validation failed: login");
        assert_eq!(refusal.causes.len(), 4);
        assert_eq!(refusal.causes[2], "firstName: The field cannot be left blank");
    }

    #[test]
    fn a_login_has_the_form_of_an_email_address() {
        for (login, fine) in
            [("jane@example.com", true), ("jane", false), ("a b@example.com", false), ("j@e..c", false)]
        {
            let whole = profile(serde_json::json!({
                "login": login, "email": "jane@example.com", "firstName": "J", "lastName": "D"
            }));
            assert_eq!(check(&whole).is_ok(), fine, "{login}");
        }
    }
}
