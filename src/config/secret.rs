//! The source of a secret: a variable, a file, or, with a warning, the settings themselves.

use std::path::Path;

use super::entry::ConfigValue;
use super::layers::{self, Variables};
use super::section::Section;
use super::spot::{Origin, Spot};
use super::tree::Value;
use crate::domain::secret::Secret;

/// Treatment of Okta's tokens and keys: looked up, or left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SecretLookup {
    Read,
    Leave,
}

/// A secret and its source.
pub(super) struct SecretSource {
    pub(super) secret: Secret,
    pub(super) written: Written,
    pub(super) spot: Spot,
}

/// The source of a secret.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    /// In a settings file, where backups and version control find it.
    Literally,
    /// Anywhere else.
    Elsewhere,
}

/// Reads a secret, trimmed and not empty.
pub(super) fn read(entry: ConfigValue<'_>, variables: &Variables) -> Option<SecretSource> {
    let spot = entry.spot.clone();
    let findings = entry.findings;
    let written = match (&entry.value, &spot.origin) {
        (Value::Text(_), Origin::File(..)) => Written::Literally,
        _ => Written::Elsewhere,
    };
    let secret = match entry.value {
        Value::Text(text) => Ok(Secret::new(&text)),
        Value::Table(_) => reference(entry.section()?, variables)?,
        Value::List(_) | Value::Integer(_) | Value::Flag(_) | Value::Other(_) => Err(SHAPE.to_owned()),
    };
    match secret {
        Ok(secret) if secret.is_empty() => findings.fault(&spot, "must not be empty"),
        Ok(secret) => return Some(SecretSource { secret, written, spot }),
        Err(message) => findings.fault(&spot, message),
    }
    None
}

const SHAPE: &str = "must be `{ env = \"NAME\" }`, `{ file = \"/path\" }` or a text";

/// Reads the secret that `{ env = … }` or `{ file = … }` names.
fn reference(mut section: Section<'_>, variables: &Variables) -> Option<Result<Secret, String>> {
    let (env, file) = (section.take("env"), section.take("file"));
    section.close();
    match (env, file) {
        (Some(entry), None) => Some(variable(entry.text()?, variables)),
        (None, Some(entry)) => Some(contents(Path::new(entry.text()?))),
        (None, None) | (Some(_), Some(_)) => Some(Err(SHAPE.to_owned())),
    }
}

fn variable(name: &str, variables: &Variables) -> Result<Secret, String> {
    let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !is_name {
        // Not repeated, since it may be the token itself.
        return Err("`env` must be the name of an environment variable".to_owned());
    }
    let text =
        variables.get(name).ok_or_else(|| format!("the environment variable {} is not set", shown(name)))?;
    let secret = Secret::new(text);
    if secret.is_empty() {
        return Err(format!("the environment variable {} is empty", shown(name)));
    }
    Ok(secret)
}

/// Returns the name of a variable for a message, unless it may be a token in the wrong place: names of
/// variables are in capitals, and shorter.
fn shown(name: &str) -> String {
    const NAME_BYTES_MAX: usize = 40;
    let is_usual = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_';
    match name.len() <= NAME_BYTES_MAX && name.bytes().all(is_usual) {
        true => format!("`{name}`"),
        false => "that `env` names".to_owned(),
    }
}

fn contents(file: &Path) -> Result<Secret, String> {
    let text = layers::read_text(file).map_err(|message| format!("`{}`: {message}", file.display()))?;
    let secret = Secret::new(&text);
    if secret.is_empty() {
        return Err(format!("`{}`: is empty", file.display()));
    }
    Ok(secret)
}
