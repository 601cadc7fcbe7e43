//! The public key of a service app, and signature verification.
//!
//! `ring` verifies. It needs the bare key, which follows a fixed number of bytes in PEM.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
};
use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject as _;
use serde::Deserialize;

/// The bytes before an RSA key in PEM: two sequences whose lengths need two bytes each, the algorithm, and the head of
/// a bit string. This holds from 2,048 bits to beyond any key in use.
const RSA_HEAD: usize = 24;
const RSA_ALGORITHM: &[u8] = b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00\x03\x82";
const RSA_ALGORITHM_AT: usize = 4;

/// The bytes before an uncompressed point on P-256 in PEM.
const P256_HEAD: &[u8] =
    b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00";

/// A public key registered by an administrator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    kind: KeyKind,
    key_id: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum KeyKind {
    Rsa(Vec<u8>),
    RsaParts { n: Vec<u8>, e: Vec<u8> },
    P256(Vec<u8>),
}

/// The members of a public JWK that are used here.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl PublicKey {
    /// Parses a key in PEM (`-----BEGIN PUBLIC KEY-----`) or a JWK: RSA of 2048 bits or more, or EC on P-256.
    ///
    /// # Errors
    /// If the text is neither.
    pub fn parse(text: &str) -> Result<Self, String> {
        let key = if text.trim_start().starts_with('{') { jwk(text) } else { pem(text) };
        key.ok_or_else(|| "must be a public key, RSA or EC on P-256, in PEM or as a JWK".to_owned())
    }

    /// Returns the key id of the registration.
    pub(super) fn key_id(&self) -> Option<&str> {
        self.key_id.as_deref()
    }

    /// Returns true if the private key has signed this message, with an algorithm as named in a JWT header.
    pub fn has_signed(&self, algorithm: &str, message: &[u8], signature: &[u8]) -> bool {
        let rsa = &RSA_PKCS1_2048_8192_SHA256;
        match (algorithm, &self.kind) {
            ("RS256", KeyKind::Rsa(key)) => {
                UnparsedPublicKey::new(rsa, key).verify(message, signature).is_ok()
            }
            ("RS256", KeyKind::RsaParts { n, e }) => {
                RsaPublicKeyComponents { n, e }.verify(rsa, message, signature).is_ok()
            }
            ("ES256", KeyKind::P256(point)) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signature).is_ok()
            }
            _ => false,
        }
    }
}

fn pem(text: &str) -> Option<PublicKey> {
    let der = SubjectPublicKeyInfoDer::from_pem_slice(text.as_bytes()).ok()?;
    let kind = match der.strip_prefix(P256_HEAD) {
        Some(point) => KeyKind::P256(point.to_vec()),
        None if der.get(RSA_ALGORITHM_AT..)?.starts_with(RSA_ALGORITHM) => {
            KeyKind::Rsa(der.get(RSA_HEAD..)?.to_vec())
        }
        None => return None,
    };
    Some(PublicKey { kind, key_id: None })
}

fn jwk(text: &str) -> Option<PublicKey> {
    let jwk: Jwk = serde_json::from_str(text).ok()?;
    let bytes = |member: &Option<String>| URL_SAFE_NO_PAD.decode(member.as_deref()?).ok();
    let kind = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
        ("RSA", _) => KeyKind::RsaParts { n: bytes(&jwk.n)?, e: bytes(&jwk.e)? },
        ("EC", Some("P-256")) => KeyKind::P256([vec![4], bytes(&jwk.x)?, bytes(&jwk.y)?].concat()),
        _ => return None,
    };
    Some(PublicKey { kind, key_id: jwk.kid })
}
