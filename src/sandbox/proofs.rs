//! Proofs of possession (DPoP, RFC 9449): their content and signature, those seen, and the nonces handed out.
//!
//! Of Okta's texts those for a missing proof and for a missing nonce are known. The other texts, and the age up to
//! which a proof is accepted, are guesses.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use super::call::HttpCall;
use super::public_key::PublicKey;

/// The largest accepted difference between a proof's time and ours, in seconds.
pub(super) const AGE_MAX: i64 = 300;

/// The time after which a new nonce is handed out, and the time for which each is accepted (Okta's DPoP guide).
const NONCE_CURRENT: Duration = Duration::from_secs(24 * 3600);
const NONCE_ACCEPTED: Duration = Duration::from_secs(72 * 3600);

/// The most proofs remembered: a caller that sends ever new ones must not fill the memory.
const SHOWN_MAX: usize = 100_000;

/// The reason that a proof is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ProofFlaw {
    /// The proof is missing, or unsuitable for this reason.
    Invalid(&'static str),
    /// The proof lacks a nonce of ours.
    NoNonce,
}

impl ProofFlaw {
    /// Returns OAuth's error code and a description.
    pub(super) fn describe(self) -> (&'static str, &'static str) {
        match self {
            Self::Invalid(why) => ("invalid_dpop_proof", why),
            Self::NoNonce => ("use_dpop_nonce", "Authorization server requires nonce in DPoP proof."),
        }
    }
}

/// The proofs seen, and the nonces handed out.
#[derive(Debug, Default)]
pub(super) struct Proofs {
    shown: HashSet<String>,
    in_order: VecDeque<(i64, String)>,
    nonces: VecDeque<(String, Timestamp)>,
}

impl Proofs {
    /// Records a proof, and returns true if it is new.
    pub(super) fn is_new(&mut self, jti: &str, now: i64) -> bool {
        while self.in_order.len() >= SHOWN_MAX || self.in_order.front().is_some_and(|(ends, _)| *ends < now) {
            if let Some((_, old)) = self.in_order.pop_front() {
                self.shown.remove(&old);
            }
        }
        let is_new = self.shown.insert(jti.to_owned());
        if is_new {
            self.in_order.push_back((now + 2 * AGE_MAX, jti.to_owned()));
        }
        is_new
    }

    /// Returns the nonce of less than a day ago.
    pub(super) fn current_nonce(&self, now: Timestamp) -> Option<&str> {
        let (nonce, at) = self.nonces.back()?;
        is_within(*at, now, NONCE_CURRENT).then_some(nonce)
    }

    /// Remembers a nonce that is handed out, and forgets those that are no longer accepted.
    pub(super) fn hand_out(&mut self, nonce: String, now: Timestamp) {
        self.nonces.retain(|(_, at)| is_within(*at, now, NONCE_ACCEPTED));
        self.nonces.push_back((nonce, now));
    }

    /// Returns true if a nonce was handed out here and is still accepted.
    pub(super) fn accepts(&self, nonce: &str, now: Timestamp) -> bool {
        self.nonces.iter().any(|(known, at)| known == nonce && is_within(*at, now, NONCE_ACCEPTED))
    }
}

fn is_within(at: Timestamp, now: Timestamp, time: Duration) -> bool {
    now.duration_since(at).unsigned_abs() < time
}

#[derive(Deserialize)]
struct ProofHeader {
    typ: String,
    alg: String,
    jwk: Map<String, Value>,
}

/// The claims of a proof.
#[derive(Deserialize)]
pub(super) struct ProofClaims {
    pub(super) jti: String,
    pub(super) htm: String,
    pub(super) htu: String,
    pub(super) iat: i64,
    pub(super) nonce: Option<String>,
    pub(super) ath: Option<String>,
}

/// Returns the thumbprint of a public key (RFC 7638).
fn thumbprint(jwk: &Map<String, Value>) -> Option<String> {
    let members: &[&str] = match jwk.get("kty")?.as_str()? {
        "EC" => &["crv", "kty", "x", "y"],
        "RSA" => &["e", "kty", "n"],
        _ => return None,
    };
    let needed: Map<String, Value> = members
        .iter()
        .map(|name| Some(((*name).to_owned(), jwk.get(*name)?.clone())))
        .collect::<Option<_>>()?;
    let text = Value::Object(needed).to_string(); // keys in the order of the alphabet, as the thumbprint wants them
    Some(URL_SAFE_NO_PAD.encode(Sha256::digest(text)))
}

/// Reads a proof and verifies its signature; returns its claims and the thumbprint of its key.
pub(super) fn read(proof: &str) -> Result<(ProofClaims, String), ProofFlaw> {
    let unreadable = || ProofFlaw::Invalid("The DPoP proof JWT is not a valid JWT.");
    let part = |text: &str| URL_SAFE_NO_PAD.decode(text).map_err(|_| unreadable());
    let (signed, signature) = proof.rsplit_once('.').ok_or_else(unreadable)?;
    let (header, claims) = signed.split_once('.').ok_or_else(unreadable)?;
    let header: ProofHeader = serde_json::from_slice(&part(header)?).map_err(|_| unreadable())?;
    let claims: ProofClaims = serde_json::from_slice(&part(claims)?).map_err(|_| unreadable())?;
    if header.typ != "dpop+jwt" {
        return Err(ProofFlaw::Invalid("The DPoP proof JWT typ must be 'dpop+jwt'."));
    }
    if header.jwk.contains_key("d") {
        return Err(ProofFlaw::Invalid("The DPoP proof JWT jwk must not hold a private key."));
    }
    let key = PublicKey::parse(&Value::Object(header.jwk.clone()).to_string()).map_err(|_| unreadable())?;
    if !key.has_signed(&header.alg, signed.as_bytes(), &part(signature)?) {
        return Err(ProofFlaw::Invalid("The DPoP proof JWT signature is invalid."));
    }
    let thumbprint = thumbprint(&header.jwk).ok_or_else(unreadable)?;
    Ok((claims, thumbprint))
}

/// The request that a proof has to be for.
pub(super) struct ProvenCall<'a> {
    pub(super) call: &'a HttpCall,
    /// The path without query.
    pub(super) path: &'a str,
    /// The access token that the request carries.
    pub(super) token: Option<&'a str>,
    pub(super) needs_nonce: bool,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_thumbprint_is_that_of_the_standard() {
        // RFC 7638, section 3.1.
        let jwk = json!({
            "kty": "RSA",
            "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw",
            "e": "AQAB",
            "alg": "RS256",
            "kid": "2011-04-29",
        });
        let print = thumbprint(jwk.as_object().unwrap()).unwrap();
        assert_eq!(print, "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
    }

    #[test]
    fn proofs_are_not_remembered_without_end() {
        let mut proofs = Proofs::default();
        assert!(proofs.is_new("a", 0) && !proofs.is_new("a", 1));
        for number in 0..2 * SHOWN_MAX {
            proofs.is_new(&number.to_string(), 2);
        }
        assert_eq!((proofs.shown.len(), proofs.in_order.len()), (SHOWN_MAX, SHOWN_MAX));
        assert!(proofs.is_new("late", 10 * AGE_MAX));
        assert_eq!((proofs.shown.len(), proofs.in_order.len()), (1, 1));
    }
}
