//! Proofs of possession (DPoP, RFC 9449): a token is bound to a key, and each request proves that its sender has it.
//!
//! The key is generated for this process and never leaves it. Okta asks for proofs by refusing a token request; for new
//! applications of type "API Services", DPoP is required by default.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{HeaderMap, HeaderName, HeaderValue, WWW_AUTHENTICATE};
use jiff::Timestamp;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::key::{PublicJwk, SigningKey};

/// The header that carries a proof.
pub(super) const DPOP: HeaderName = HeaderName::from_static("dpop");

/// The header in which a server sends the nonce for later proofs.
const DPOP_NONCE: HeaderName = HeaderName::from_static("dpop-nonce");

/// The error code with which a server asks for a nonce (RFC 9449, sections 8 and 9).
pub(super) const USE_NONCE: &str = "use_dpop_nonce";

/// The error code of a missing or unsuitable proof (RFC 9449, section 5).
pub(super) const INVALID_PROOF: &str = "invalid_dpop_proof";

/// The longest nonce that is stored; RFC 9449 names no bound, and a longer one could not be sent back.
const NONCE_BYTES_MAX: usize = 2048;

/// The request that a proof is for.
pub(super) struct ProvenRequest<'a> {
    /// The HTTP method.
    pub method: &'a str,
    /// The URL without query and fragment.
    pub url: &'a str,
    /// The time, by Okta's clock.
    pub at: Timestamp,
    /// The server's nonce, once it has asked for one.
    pub nonce: Option<&'a str>,
    /// The hash of the access token that the request carries.
    pub token_hash: Option<&'a str>,
}

#[derive(Serialize)]
struct ProofHeader<'a> {
    typ: &'a str,
    alg: &'a str,
    jwk: &'a PublicJwk,
}

#[derive(Serialize)]
struct ProofClaims<'a> {
    jti: &'a str,
    htm: &'a str,
    htu: &'a str,
    iat: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    nonce: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ath: Option<&'a str>,
}

/// A key that proves possession of the tokens bound to it.
pub(super) struct ProofKey {
    key: SigningKey,
    public: PublicJwk,
}

impl ProofKey {
    /// Generates a key.
    ///
    /// # Errors
    /// If the machine has no randomness.
    pub fn generate() -> Result<Self, String> {
        let (key, public) = SigningKey::generate()?;
        Ok(Self { key, public })
    }

    /// Returns the proof for one attempt of one request: a server accepts each proof once.
    ///
    /// # Errors
    /// If signing fails.
    pub fn proof(&self, request: &ProvenRequest<'_>) -> Result<HeaderValue, String> {
        let ProvenRequest { method, url, at, nonce, token_hash } = *request;
        let header = ProofHeader { typ: "dpop+jwt", alg: self.key.algorithm(), jwk: &self.public };
        let jti = Uuid::new_v4().to_string();
        let claims =
            ProofClaims { jti: &jti, htm: method, htu: url, iat: at.as_second(), nonce, ath: token_hash };
        let proof = self.key.jwt(&header, &claims)?;
        let mut proof =
            HeaderValue::try_from(proof).map_err(|_| "a proof cannot stand in a header".to_owned())?;
        proof.set_sensitive(true);
        Ok(proof)
    }
}

/// Returns the hash of an access token that proofs carry (`ath`).
pub(super) fn token_hash(token: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(token))
}

/// Returns the nonce that an answer sends for later proofs.
pub(super) fn nonce(headers: &HeaderMap) -> Option<&str> {
    let nonce = headers.get(DPOP_NONCE)?.to_str().ok()?;
    (1..=NONCE_BYTES_MAX).contains(&nonce.len()).then_some(nonce)
}

/// Returns true if a server refuses a request only for want of a nonce.
pub(super) fn asks_for_nonce(status: u16, headers: &HeaderMap) -> bool {
    let asks = |value: &HeaderValue| {
        value.to_str().is_ok_and(|text| {
            let scheme = text.split_whitespace().next().unwrap_or_default();
            scheme.eq_ignore_ascii_case("DPoP") && text.contains(&format!("error=\"{USE_NONCE}\""))
        })
    };
    status == 401 && headers.get_all(WWW_AUTHENTICATE).iter().any(asks)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::PublicKey;
    use serde_json::{Value, json};

    fn parts(proof: &HeaderValue) -> [Value; 2] {
        let mut parts = proof.to_str().unwrap().split('.');
        [(); 2].map(|()| {
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(parts.next().unwrap()).unwrap()).unwrap()
        })
    }

    #[test]
    fn a_proof_says_what_it_is_for_and_carries_the_key_that_verifies_it() {
        let key = ProofKey::generate().unwrap();
        let at = Timestamp::from_second(1_700_000_000).unwrap();
        let url = "https://acme.okta.com/api/v1/users/a%40b.c";
        // RFC 9449, section 7.1 shows this token with this hash.
        let hash = token_hash("Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU");
        assert_eq!(hash, "fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo");
        let request = ProvenRequest { method: "GET", url, at, nonce: Some("n1"), token_hash: Some(&hash) };
        let proof = key.proof(&request).unwrap();
        assert!(proof.is_sensitive());
        let [header, claims] = parts(&proof);
        assert_eq!((&header["typ"], &header["alg"]), (&json!("dpop+jwt"), &json!("ES256")));
        let public = PublicKey::parse(&header["jwk"].to_string()).unwrap();
        let (signed, signature) = proof.to_str().unwrap().rsplit_once('.').unwrap();
        assert!(public.has_signed("ES256", signed.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).unwrap()));
        let members: Vec<&String> = header["jwk"].as_object().unwrap().keys().collect();
        assert_eq!(members, ["crv", "kty", "x", "y"], "the public half alone");
        let mut claims = claims;
        let first = claims["jti"].take();
        let expected = json!({
            "jti": null, "htm": "GET", "htu": url, "iat": 1_700_000_000, "nonce": "n1", "ath": hash
        });
        assert_eq!(claims, expected);
        let [_, again] = parts(&key.proof(&request).unwrap());
        assert_ne!(again["jti"], first, "each proof is used once");
        let bare = ProvenRequest { nonce: None, token_hash: None, ..request };
        let [_, claims] = parts(&key.proof(&bare).unwrap());
        assert_eq!(claims.as_object().unwrap().len(), 4, "{claims}");
    }

    #[test]
    fn only_a_challenge_by_this_scheme_asks_for_a_nonce() {
        for (status, challenge, asks) in [
            (401, r#"DPoP error="use_dpop_nonce", error_description="Resource server requires nonce""#, true),
            (401, r#"DPoP realm="x", algs="ES256", error="use_dpop_nonce""#, true),
            (401, r#"DPoP error="invalid_token""#, false),
            (401, r#"Bearer error="use_dpop_nonce""#, false),
            (403, r#"DPoP error="use_dpop_nonce""#, false),
        ] {
            let headers = HeaderMap::from_iter([(WWW_AUTHENTICATE, challenge.parse().unwrap())]);
            assert_eq!(asks_for_nonce(status, &headers), asks, "{status} {challenge}");
        }
    }

    #[test]
    fn a_nonce_has_a_bound() {
        let with = |text: &str| HeaderMap::from_iter([(DPOP_NONCE, text.parse().unwrap())]);
        assert_eq!(nonce(&with("n1")), Some("n1"));
        assert_eq!(nonce(&with(&"n".repeat(NONCE_BYTES_MAX + 1))), None);
        assert_eq!(nonce(&with("")), None);
    }
}
