//! The proofs of possession that requests must carry, and the refusals of those that do not.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderName, header};
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use super::org::Org;
use super::proofs::{self, AGE_MAX, ProofFlaw, ProvenCall};
use super::reply::OrgReply;

/// The header that carries a proof.
const DPOP: &str = "dpop";

/// The header that hands out a nonce.
const DPOP_NONCE: HeaderName = HeaderName::from_static("dpop-nonce");

impl Org {
    /// Verifies the proof of a request, and returns the thumbprint of its key.
    pub(super) fn verify_proof(
        &mut self,
        proven: &ProvenCall<'_>,
        now: Timestamp,
    ) -> Result<String, ProofFlaw> {
        let ProvenCall { call, path, token, needs_nonce } = *proven;
        let mut given = call.headers.get_all(DPOP).iter();
        let (Some(proof), None) = (given.next(), given.next()) else {
            return Err(ProofFlaw::Invalid("The DPoP proof JWT header is missing."));
        };
        let (claims, thumbprint) = proofs::read(proof.to_str().unwrap_or_default())?;
        let hash = token.map(|token| URL_SAFE_NO_PAD.encode(Sha256::digest(token)));
        let (url, seconds) = (self.url_of(&call.headers, path), now.as_second());
        let rows = [
            (claims.htm != call.method.as_str(), "The DPoP proof JWT htm is not the method of the request."),
            (claims.htu != url, "The DPoP proof JWT htu is not the URL of the request."),
            ((claims.iat - seconds).abs() > AGE_MAX, "The DPoP proof JWT iat is too far from the present."),
            (claims.ath != hash, "The DPoP proof JWT ath is not the hash of the access token."),
            (claims.jti.is_empty(), "The DPoP proof JWT jti is missing."),
        ];
        if let Some((_, why)) = rows.into_iter().find(|(is_so, _)| *is_so) {
            return Err(ProofFlaw::Invalid(why));
        }
        if needs_nonce && !claims.nonce.is_some_and(|nonce| self.proofs.accepts(&nonce, now)) {
            return Err(ProofFlaw::NoNonce);
        }
        if !self.proofs.is_new(&format!("{thumbprint} {}", claims.jti), seconds) {
            return Err(ProofFlaw::Invalid("The DPoP proof JWT has already been used."));
        }
        Ok(thumbprint)
    }

    /// Returns the nonce to hand out: for a day the same one.
    fn current_nonce(&mut self, now: Timestamp) -> String {
        match self.proofs.current_nonce(now) {
            Some(nonce) => nonce.to_owned(),
            None => {
                let nonce = self.ids.token();
                self.proofs.hand_out(nonce.clone(), now);
                nonce
            }
        }
    }

    /// Refuses a request with a token that is bound to a key, whose proof is missing or unsuitable.
    pub(super) fn refuse_proof(&mut self, flaw: ProofFlaw, now: Timestamp) -> OrgReply {
        let reply = OrgReply::dpop_challenge(&self.settings.host, flaw.describe());
        match flaw {
            ProofFlaw::NoNonce => reply.with(DPOP_NONCE, self.current_nonce(now)),
            ProofFlaw::Invalid(_) => reply,
        }
    }

    /// Returns the URL that the caller used for a path, from its `Host` header if there is one.
    pub(super) fn url_of(&self, headers: &HeaderMap, path: &str) -> String {
        let scheme = self.settings.host.split("://").next().unwrap_or_default();
        match headers.get(header::HOST).and_then(|host| host.to_str().ok()) {
            Some(host) => format!("{scheme}://{host}{path}"),
            None => format!("{}{path}", self.settings.host),
        }
    }

    /// Returns an OAuth 2.0 error for a token request whose proof is missing or unsuitable.
    pub(super) fn deny_proof(&mut self, flaw: ProofFlaw, now: Timestamp) -> OrgReply {
        let (error, why) = flaw.describe();
        let reply = OrgReply::oauth(400, error, why);
        match flaw {
            ProofFlaw::NoNonce => reply.with(DPOP_NONCE, self.current_nonce(now)),
            ProofFlaw::Invalid(_) => reply,
        }
    }
}
