//! A connection's credential: an API token, an access token or a service app, and exactly one of them.

use super::entry::{ConfigValue, Word};
use super::host::Reach;
use super::layers::Variables;
use super::secret::{self, SecretLookup, SecretSource, Written};
use super::section::Section;
use super::spot::Spot;
use crate::domain::secret::Secret;
use crate::okta::{Credential, ServiceApp, SigningKey, TokenType};

const ONE_OF: &str = "exactly one of `api_token`, `access_token` and `service_app` is needed";

/// The longest name accepted, longer than that of any application, key or scope at Okta.
const NAME_CHARS_MAX: usize = 256;

/// Reads the credential from the keys of a connection.
pub(super) fn read(
    section: &mut Section<'_>,
    reach: Option<Reach>,
    tokens: SecretLookup,
    variables: &Variables,
) -> Option<Credential> {
    let given = section.take("token_type");
    let kinds = ["api_token", "access_token", "service_app"].map(|key| (key, section.take(key)));
    let mut there = kinds.into_iter().filter_map(|(key, entry)| Some((key, entry?)));
    let Some((key, entry)) = there.next() else {
        given.and_then(|entry| entry.parsed(token_type));
        // A command that sends nothing to Okta needs no credential.
        if tokens == SecretLookup::Leave {
            return Some(Credential::Token { kind: TokenType::Ssws, token: Secret::new("") });
        }
        section.findings.missing(&section.spot, "api_token", &format!("is missing, {ONE_OF}"));
        return None;
    };
    let others = there.map(|(_, other)| other.fault(format!("stands beside `{key}`, {ONE_OF}"))).count();
    let credential = match key {
        "service_app" => {
            if let Some(given) = &given {
                given.fault("is for a token: that of a service app is always `Bearer`");
            }
            service_app(entry, reach, tokens, variables).map(Credential::ServiceApp)
        }
        key => {
            let usual = if key == "api_token" { TokenType::Ssws } else { TokenType::Bearer };
            let kind = given.map_or(Some(usual), |entry| entry.parsed(token_type));
            let token = token(entry, kind.unwrap_or(usual), reach, (tokens, variables));
            kind.zip(token).map(|(kind, token)| Credential::Token { kind, token })
        }
    };
    credential.filter(|_| others == 0)
}

fn token_type(text: &str) -> Result<TokenType, String> {
    match text {
        "SSWS" => Ok(TokenType::Ssws),
        "Bearer" => Ok(TokenType::Bearer),
        _ => Err("must be `SSWS` or `Bearer`".to_owned()),
    }
}

fn token(
    entry: ConfigValue<'_>,
    kind: TokenType,
    reach: Option<Reach>,
    (tokens, variables): (SecretLookup, &Variables),
) -> Option<Secret> {
    let findings = entry.findings;
    let SecretSource { secret, spot, .. } = secret(entry, reach, tokens, variables)?;
    let secret = match without_scheme(secret.expose(), kind) {
        Ok(token) => Secret::new(token),
        Err(fault) => {
            findings.fault(&spot, fault);
            return None;
        }
    };
    if !secret.expose().bytes().all(|b| b.is_ascii_graphic()) {
        findings.fault(&spot, "must hold visible ASCII characters only: it travels in a header");
        return None;
    }
    Some(secret)
}

/// Returns a token that was copied out of an `Authorization` header without the scheme before it.
fn without_scheme(text: &str, kind: TokenType) -> Result<&str, String> {
    let Some((scheme, token)) = text.split_once(char::is_whitespace) else { return Ok(text) };
    let written = [TokenType::Ssws, TokenType::Bearer].into_iter();
    match written.into_iter().find(|known| scheme.eq_ignore_ascii_case(known.as_str())) {
        Some(written) if written == kind => Ok(token),
        Some(written) => {
            let (written, kind) = (written.as_str(), kind.as_str());
            Err(format!("begins with `{written}`, and its `token_type` is `{kind}`: one of them is wrong"))
        }
        None => Ok(text),
    }
}

fn service_app(
    entry: ConfigValue<'_>,
    reach: Option<Reach>,
    tokens: SecretLookup,
    variables: &Variables,
) -> Option<ServiceApp> {
    let mut section = entry.section()?;
    let client_id = section.need("client_id").and_then(|entry| entry.parsed(name));
    let key_id = match section.take("key_id") {
        Some(entry) => entry.parsed(name).map(Some),
        None => Some(None),
    };
    let scopes = section.need("scopes").and_then(scopes);
    let private_key = match (section.take("private_key"), tokens) {
        (Some(entry), _) => private_key(entry, reach, tokens, variables),
        (None, SecretLookup::Leave) => Some(Secret::new("")),
        (None, SecretLookup::Read) => {
            section.findings.missing(&section.spot, "private_key", "is missing");
            None
        }
    };
    section.close();
    Some(ServiceApp { client_id: client_id?, private_key: private_key?, key_id: key_id?, scopes: scopes? })
}

fn private_key(
    entry: ConfigValue<'_>,
    reach: Option<Reach>,
    tokens: SecretLookup,
    variables: &Variables,
) -> Option<Secret> {
    let findings = entry.findings;
    let SecretSource { secret, spot, .. } = secret(entry, reach, tokens, variables)?;
    if tokens == SecretLookup::Read
        && let Err(fault) = SigningKey::parse(secret.expose())
    {
        findings.fault(&spot, fault);
        return None;
    }
    Some(secret)
}

/// Reads a secret, unless it is to be left alone; warns of a literal one that may not be in a file.
fn secret(
    entry: ConfigValue<'_>,
    reach: Option<Reach>,
    tokens: SecretLookup,
    variables: &Variables,
) -> Option<SecretSource> {
    if tokens == SecretLookup::Leave {
        return Some(SecretSource { secret: Secret::new(""), written: Written::Elsewhere, spot: entry.spot });
    }
    let findings = entry.findings;
    let found = secret::read(entry, variables)?;
    if found.written == Written::Literally && reach != Some(Reach::Loopback) {
        findings.warn(literal(&found.spot));
    }
    Some(found)
}

fn literal(spot: &Spot) -> String {
    format!(
        "{} is a literal: `{{ env = \"NAME\" }}` or `{{ file = \"/path\" }}` keeps it out of the file",
        spot.path
    )
}

/// Parses the name of an application, a key or a scope at Okta. The characters are those of a scope (RFC 6749,
/// section 3.3).
fn name(text: &str) -> Result<String, String> {
    let is_fine = |b: u8| b.is_ascii_graphic() && b != b'"' && b != b'\\';
    match text.len() {
        1..=NAME_CHARS_MAX if text.bytes().all(is_fine) => Ok(text.to_owned()),
        _ => Err(format!("must be a name of 1 to {NAME_CHARS_MAX} visible ASCII characters without blanks")),
    }
}

fn scopes(entry: ConfigValue<'_>) -> Option<Vec<String>> {
    let (spot, findings) = (entry.spot.clone(), entry.findings);
    let words = entry.words()?;
    if words.is_empty() {
        findings.fault(&spot, "must name at least one scope, such as `okta.users.manage`");
        return None;
    }
    let scope = |Word { text, spot }: &Word| name(text).map_err(|message| findings.fault(spot, message)).ok();
    // Collected twice, so that the first faulty one does not hide the rest.
    let scopes: Vec<_> = words.iter().map(scope).collect();
    scopes.into_iter().collect()
}
