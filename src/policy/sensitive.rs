//! Secrets of a message, and values of its caller that an error may not repeat.
//!
//! Names and positions in the JSON decide. Invariant: a text below a name that suggests secrets is a secret, unless it
//! is known not to be one.

use jiff::Timestamp;
use serde_json::value::RawValue;

use crate::domain::invocation;
use crate::domain::json;
use crate::domain::result::Failure;
use crate::domain::secret::Secrets;
use crate::domain::text::is_repeatable;

/// The extent to which a message was understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    /// The arguments fit the subtool.
    Fully,
    /// Something does not fit, and error messages may quote it: the meaning of its parts is unknown.
    InPart,
}

/// Returns the secrets in a message or its arguments: every text below a name that suggests secrets, at any depth,
/// unless it is known not to be one. A text that is itself JSON is searched as well: models send objects as text.
pub fn secrets(raw: &RawValue, read: Read) -> Secrets {
    let mut secrets = Secrets::default();
    // Most arguments hold no secret and are not parsed; names with escapes have to be parsed.
    if raw.get().contains('\\') || speaks_of_secrets(raw.get()) {
        each_text(raw, &[], JSON_LAYERS_MAX, &mut |path, text| {
            let is_plain = read == Read::Fully && is_plain(path);
            if !is_plain && path.iter().any(|name| speaks_of_secrets(name)) {
                secrets.add(text);
            }
        });
    }
    secrets
}

/// The layers of JSON inside JSON texts that are searched.
const JSON_LAYERS_MAX: usize = 3;

/// Calls `visit` for every text and number, including those in texts that are JSON, with the names on the path.
fn each_text(raw: &RawValue, above: &[String], layers: usize, visit: &mut dyn FnMut(&[String], &str)) {
    json::rewritten(raw, &mut |path, text| {
        let path = [above, path].concat();
        visit(&path, text);
        let is_json = layers > 0 && text.trim_start().starts_with(['{', '[']);
        if is_json && let Some(inner) = invocation::raw(text.as_bytes()) {
            each_text(inner, &path, layers - 1, visit);
        }
        None
    });
}

/// Returns the texts of a body that an error may not repeat: all that are not numbers, times, names, ids or
/// addresses. They are the caller's values, and one in a wrong place may be a password.
pub fn unrepeatable(body: &[u8], failure: &Failure) -> Secrets {
    let mut values = Secrets::default();
    let Some(raw) = invocation::raw(body) else { return values };
    let quoted = failure.said();
    let mut add = |text: &str| {
        let is_number = text.parse::<f64>().is_ok() || text.parse::<Timestamp>().is_ok();
        let is_value = text.chars().count() >= VALUE_CHARS_MIN && !is_number;
        if is_value && !is_repeatable(text) && quoted.holds(text) {
            values.add(text);
        }
    };
    each_text(raw, &[], JSON_LAYERS_MAX, &mut |_, text| add(text));
    json::renamed(raw, &mut |name| {
        add(name);
        None
    });
    values
}

/// The shortest value that is masked in an error: a shorter one is part of too many words.
const VALUE_CHARS_MIN: usize = 4;

/// Words in the names of things that are secret.
const SENSITIVE: [&str; 5] = ["credential", "password", "secret", "token", "answer"];

/// The beginning of the word for a person, which contains one of the words above.
const SECRETARY: &str = "secretar";

/// Returns true if a name suggests a secret.
pub fn speaks_of_secrets(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    let has_sensitive_word = |text: &str| SENSITIVE.iter().any(|word| text.contains(word));
    has_sensitive_word(&text)
        && (!text.contains(SECRETARY) || has_sensitive_word(&text.replace(SECRETARY, "-")))
}

/// Plain members of `credentials` (Okta's `UserCredentials` and `AppUserCredentials`), by the last two names.
const PLAIN: [[&str; 2]; 11] = [
    ["credentials", "userName"],
    ["provider", "type"],
    ["provider", "name"],
    ["recovery_question", "question"],
    ["hook", "type"],
    ["hash", "algorithm"],
    ["hash", "digestAlgorithm"],
    ["hash", "workFactor"],
    ["hash", "iterationCount"],
    ["hash", "keySize"],
    ["hash", "saltOrder"],
];

fn is_plain(path: &[String]) -> bool {
    path.iter().any(|name| name == "credentials")
        && matches!(path, [.., around, name] if PLAIN.contains(&[around.as_str(), name.as_str()]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_known_by_where_they_stand() {
        let masked = |arguments: &str, read| {
            let raw: Box<RawValue> = serde_json::from_str(arguments).unwrap();
            secrets(&raw, read).mask_json(&raw).get().to_owned()
        };
        let rows = [
            (
                r#"{"profile":{"login":"jane","secretary":"Sam","manager":"Sam","apiToken":"abcde"},"credentials":{"password":{"value":"hunter22"},"recovery_question":{"question":"Which?","answer":1e3},"provider":{"type":"OKTA","name":"okta"}}}"#,
                r#"{"profile":{"login":"jane","secretary":"Sam","manager":"Sam","apiToken":"***"},"credentials":{"password":{"value":"***"},"recovery_question":{"question":"Which?","answer":"***"},"provider":{"type":"OKTA","name":"okta"}}}"#,
            ),
            (
                r#"{"credentials":{"password":{"hash":{"algorithm":"BCRYPT","workFactor":10,"salt":"rosebud","value":"hunter22"},"hook":{"type":"default"}}}}"#,
                r#"{"credentials":{"password":{"hash":{"algorithm":"BCRYPT","workFactor":10,"salt":"***","value":"***"},"hook":{"type":"default"}}}}"#,
            ),
            (
                r#"{"credentials":{"userName":"jane","password":{"value":"hunter22","x":"rosebud"},"y":"boat"}}"#,
                r#"{"credentials":{"userName":"jane","password":{"value":"***","x":"***"},"y":"***"}}"#,
            ),
            // Neither a similar name is an exception, nor one at a deeper level.
            (
                r#"{"profile":{"mySecretAboutASecretary":"boat","hash":{"passwords":{"hash":{"algorithm":"rosebud"}}}},"credentials":{"userName":{"z":"hunter22"}}}"#,
                r#"{"profile":{"mySecretAboutASecretary":"***","hash":{"passwords":{"hash":{"algorithm":"***"}}}},"credentials":{"userName":{"z":"***"}}}"#,
            ),
        ];
        for (arguments, expected) in rows {
            assert_eq!(masked(arguments, Read::Fully), expected);
        }
        // If something does not fit, everything below such a name is hidden.
        let unfit = r#"{"credentials":{"userName":"jane","provider":{"name":"okta"}}}"#;
        assert_eq!(
            masked(unfit, Read::InPart),
            r#"{"credentials":{"userName":"***","provider":{"name":"***"}}}"#
        );
    }
}
