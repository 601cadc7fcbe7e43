//! The client assertion of a service app: a JWT signed with its private key (RFC 7523).

use jiff::Timestamp;
use serde::Serialize;

use super::key::SigningKey;
use crate::domain::secret::Secret;

/// The lifetime of an assertion, in seconds: it is used at once and only once. Okta accepts up to an hour.
const LIFETIME_SECONDS: i64 = 300;

/// The claims of one assertion.
pub(super) struct Claim<'a> {
    /// The client id of the app.
    pub client_id: &'a str,
    /// The id of its key.
    pub key_id: Option<&'a str>,
    /// The URL that the assertion is sent to.
    pub audience: &'a str,
    /// The time of issue, by Okta's clock.
    pub at: Timestamp,
    /// The unique id of this assertion: Okta accepts each one once.
    pub unique: &'a str,
}

#[derive(Serialize)]
struct AssertionHeader<'a> {
    alg: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    kid: Option<&'a str>,
    typ: &'a str,
}

#[derive(Serialize)]
struct AssertionClaims<'a> {
    iss: &'a str,
    sub: &'a str,
    aud: &'a str,
    iat: i64,
    exp: i64,
    jti: &'a str,
}

/// Returns the signed assertion.
///
/// # Errors
/// If signing fails.
pub(super) fn assertion(claim: &Claim<'_>, key: &SigningKey) -> Result<Secret, String> {
    let Claim { client_id, key_id, audience, at, unique } = *claim;
    let header = AssertionHeader { alg: key.algorithm(), kid: key_id, typ: "JWT" };
    let iat = at.as_second();
    let exp = iat.saturating_add(LIFETIME_SECONDS);
    let claims = AssertionClaims { iss: client_id, sub: client_id, aud: audience, iat, exp, jti: unique };
    Ok(Secret::new(&key.jwt(&header, &claims)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use serde_json::{Value, json};

    #[test]
    fn an_assertion_says_who_when_to_whom_and_how_it_is_signed() {
        let key = SigningKey::parse(include_str!("../../tests/fixtures/test-only-ec-key.pem")).unwrap();
        let claim = Claim {
            client_id: "0oa1",
            key_id: Some("k1"),
            audience: "https://acme.okta.com/oauth2/v1/token",
            at: Timestamp::from_second(1_700_000_000).unwrap(),
            unique: "u1",
        };
        let whole = assertion(&claim, &key).unwrap();
        let parts: Vec<Value> = whole
            .expose()
            .split('.')
            .take(2)
            .map(|part| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap())
            .collect();
        let claims = json!({
            "iss": "0oa1", "sub": "0oa1", "aud": "https://acme.okta.com/oauth2/v1/token",
            "iat": 1_700_000_000, "exp": 1_700_000_300, "jti": "u1",
        });
        assert_eq!(parts, [json!({"alg": "ES256", "kid": "k1", "typ": "JWT"}), claims]);
    }
}
