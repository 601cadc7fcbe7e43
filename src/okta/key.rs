//! The private key of a service app: parsing the formats of Okta's console and OpenSSL, and signing.
//!
//! `ring` signs, `rustls-pki-types` parses PEM. Nothing here can print the key, and no error text repeats any
//! input: the errors of a PEM parser quote lines.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::rsa::{KeyPairComponents, PublicKeyComponents};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair,
};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use serde::{Deserialize, Serialize};

use crate::domain::json;

const SHAPE: &str =
    "must be a private key in PEM (`-----BEGIN PRIVATE KEY-----`) or as a JWK (a JSON object)";

const KINDS: &str = "must be an RSA key of 2048 to 4096 bits, or an EC key on P-256";

/// A private key that signs with an algorithm Okta accepts.
pub struct SigningKey {
    pair: Pair,
    /// The key id in a JWK.
    key_id: Option<String>,
}

enum Pair {
    Rsa(Box<RsaKeyPair>),
    P256(Box<EcdsaKeyPair>),
}

/// The members of a private JWK (RFC 7518, section 6) that are used here.
#[derive(Deserialize)]
struct PrivateJwk {
    kty: String,
    kid: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    d: Option<String>,
    p: Option<String>,
    q: Option<String>,
    dp: Option<String>,
    dq: Option<String>,
    qi: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

/// The public half of a key on P-256, as a JWK.
#[derive(Serialize)]
pub(super) struct PublicJwk {
    kty: &'static str,
    crv: &'static str,
    x: String,
    y: String,
}

impl SigningKey {
    /// Generates a key on P-256, and returns it with its public half.
    ///
    /// # Errors
    /// If the machine has no randomness.
    pub(super) fn generate() -> Result<(Self, PublicJwk), String> {
        let failed = |_| "failed to generate a key: the machine has no randomness".to_owned();
        let (algorithm, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
        let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).map_err(failed)?;
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random)
            .map_err(|_| failed(ring::error::Unspecified))?;
        // SEC 1: an uncompressed point is 4, x, y.
        let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
        let [x, y] = [x, y].map(|number| URL_SAFE_NO_PAD.encode(number));
        Ok((Self { pair: ec(pair), key_id: None }, PublicJwk { kty: "EC", crv: "P-256", x, y }))
    }

    /// Returns a signed JWT (RFC 7519) with this header and these claims.
    ///
    /// # Errors
    /// If signing fails.
    pub(super) fn jwt(&self, header: &impl Serialize, claims: &impl Serialize) -> Result<String, String> {
        let [header, claims] =
            [json::to_vec(header), json::to_vec(claims)].map(|part| URL_SAFE_NO_PAD.encode(part));
        let signed = format!("{header}.{claims}");
        let signature = URL_SAFE_NO_PAD.encode(self.sign(signed.as_bytes())?);
        Ok(format!("{signed}.{signature}"))
    }

    /// Parses a key: PEM (PKCS#8, or PKCS#1 for RSA) or a JWK.
    ///
    /// # Errors
    /// The format that the key must have, without quoting the key.
    pub fn parse(text: &str) -> Result<Self, String> {
        let key = match text.trim_start().starts_with('{') {
            true => jwk(text)?,
            // Values in an environment file cannot have line breaks, so many users write `\n`.
            false => Self { pair: pem(&text.replace("\\n", "\n"))?, key_id: None },
        };
        // Only signing shows whether the parts of the key belong together.
        key.sign(b"").map_err(|_| "holds parts that do not belong together".to_owned())?;
        Ok(key)
    }

    /// Returns the key id in the JWK, if it has one.
    pub(super) fn key_id(&self) -> Option<&str> {
        self.key_id.as_deref()
    }

    /// Returns the name of the algorithm in a JWT header.
    pub(super) fn algorithm(&self) -> &'static str {
        match self.pair {
            Pair::Rsa(_) => "RS256",
            Pair::P256(_) => "ES256",
        }
    }

    /// Signs a message.
    ///
    /// # Errors
    /// If the machine has no randomness, or the key is invalid.
    pub(super) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, String> {
        let random = SystemRandom::new();
        let signed = match &self.pair {
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).map(|()| signature)
            }
            Pair::P256(pair) => pair.sign(&random, message).map(|signature| signature.as_ref().to_vec()),
        };
        signed.map_err(|_| "the private key does not sign".to_owned())
    }
}

fn pem(text: &str) -> Result<Pair, String> {
    let has = |label: &str| text.contains(&format!("-----BEGIN {label}-----"));
    if has("ENCRYPTED PRIVATE KEY") || text.contains("Proc-Type: 4,ENCRYPTED") {
        return Err("is encrypted: `openssl pkcs8 -topk8 -nocrypt` decrypts it".to_owned());
    }
    if has("EC PRIVATE KEY") {
        return Err("is in an old form: `openssl pkcs8 -topk8 -nocrypt` converts it".to_owned());
    }
    if has("PUBLIC KEY") || has("CERTIFICATE") {
        return Err("is the public half: the private key is needed".to_owned());
    }
    match PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|_| SHAPE.to_owned())? {
        PrivateKeyDer::Pkcs1(key) => RsaKeyPair::from_der(key.secret_pkcs1_der()).map(rsa),
        PrivateKeyDer::Pkcs8(key) => {
            let der = key.secret_pkcs8_der();
            let p256 =
                |_| EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der, &SystemRandom::new());
            RsaKeyPair::from_pkcs8(der).map(rsa).or_else(|error| p256(error).map(ec))
        }
        _ => return Err(SHAPE.to_owned()),
    }
    .map_err(|_| KINDS.to_owned())
}

fn rsa(pair: RsaKeyPair) -> Pair {
    Pair::Rsa(Box::new(pair))
}

fn ec(pair: EcdsaKeyPair) -> Pair {
    Pair::P256(Box::new(pair))
}

fn jwk(text: &str) -> Result<SigningKey, String> {
    // serde's error would quote the input.
    let jwk: PrivateJwk = serde_json::from_str(text).map_err(|_| SHAPE.to_owned())?;
    let pair = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
        ("RSA", _) => {
            let components = KeyPairComponents {
                public_key: PublicKeyComponents { n: member("n", &jwk.n)?, e: member("e", &jwk.e)? },
                d: member("d", &jwk.d)?,
                p: member("p", &jwk.p)?,
                q: member("q", &jwk.q)?,
                dP: member("dp", &jwk.dp)?,
                dQ: member("dq", &jwk.dq)?,
                qInv: member("qi", &jwk.qi)?,
            };
            RsaKeyPair::from_components(&components).map(rsa)
        }
        ("EC", Some("P-256")) => {
            // SEC 1: an uncompressed point is 4, x, y.
            let point = [vec![4], member("x", &jwk.x)?, member("y", &jwk.y)?].concat();
            let (algorithm, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
            EcdsaKeyPair::from_private_key_and_public_key(algorithm, &member("d", &jwk.d)?, &point, &random)
                .map(ec)
        }
        _ => return Err(KINDS.to_owned()),
    };
    Ok(SigningKey { pair: pair.map_err(|_| KINDS.to_owned())?, key_id: jwk.kid })
}

/// Decodes a member of a JWK.
fn member(name: &str, value: &Option<String>) -> Result<Vec<u8>, String> {
    let text =
        value.as_deref().ok_or_else(|| format!("is a JWK without `{name}`, so not a whole private key"))?;
    let bytes = URL_SAFE_NO_PAD.decode(text.trim_end_matches('='));
    bytes.map_err(|_| format!("is a JWK whose `{name}` is not base64url"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::PublicKey;
    use base64::engine::general_purpose::STANDARD;

    const RSA: &str = include_str!("../../tests/fixtures/test-only-rsa-key.pem");
    const RSA_PUBLIC: &str = include_str!("../../tests/fixtures/test-only-rsa-key.pub.pem");
    const EC: &str = include_str!("../../tests/fixtures/test-only-ec-key.pem");
    const EC_PUBLIC: &str = include_str!("../../tests/fixtures/test-only-ec-key.pub.pem");

    /// Returns the bytes of a PEM text.
    fn der(pem: &str) -> Vec<u8> {
        let base64: String = pem.lines().skip_while(|line| !line.starts_with("-----")).collect();
        STANDARD.decode(base64.split("-----").nth(2).unwrap()).unwrap()
    }

    /// Returns the RSA key in PKCS#1: the PKCS#8 prefix has 26 bytes at 2,048 bits.
    fn pkcs1() -> Vec<u8> {
        der(RSA)[26..].to_vec()
    }

    fn pem_of(label: &str, der: &[u8]) -> String {
        format!("-----BEGIN {label}-----\n{}\n-----END {label}-----", STANDARD.encode(der))
    }

    /// Returns the integers of the PKCS#1 form, as a JWK has them.
    fn rsa_numbers() -> Vec<String> {
        let (der, mut numbers, mut at) = (pkcs1(), Vec::new(), 4);
        while at < der.len() {
            let (head, length) = match der[at + 1] {
                0x82 => (4, usize::from(der[at + 2]) << 8 | usize::from(der[at + 3])),
                0x81 => (3, usize::from(der[at + 2])),
                short => (2, usize::from(short)),
            };
            let bytes = &der[at + head..at + head + length];
            numbers.push(URL_SAFE_NO_PAD.encode(bytes.strip_prefix(&[0]).unwrap_or(bytes)));
            at += head + length;
        }
        numbers.split_off(1) // the first is the version
    }

    fn rsa_jwk() -> (String, String) {
        let [n, e, d, p, q, dp, dq, qi] = <[String; 8]>::try_from(rsa_numbers()).unwrap();
        let public = serde_json::json!({"kty": "RSA", "kid": "k1", "n": n, "e": e});
        let mut private = public.clone();
        for (name, value) in [("d", d), ("p", p), ("q", q), ("dp", dp), ("dq", dq), ("qi", qi)] {
            private[name] = value.into();
        }
        (private.to_string(), public.to_string())
    }

    fn ec_jwk() -> (String, String) {
        // In PKCS#8 the number starts after 36 bytes; in a public key x and y stand at the end.
        let (private, public) = (der(EC), der(EC_PUBLIC));
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let (x, y) = public[27..].split_at(32);
        let public = serde_json::json!({"kty": "EC", "crv": "P-256", "x": encode(x), "y": encode(y)});
        let mut whole = public.clone();
        whole["d"] = encode(&private[36..68]).into();
        (whole.to_string(), public.to_string())
    }

    #[test]
    fn every_form_of_a_key_signs_what_its_other_half_verifies() {
        let ((rsa, rsa_public), (ec, ec_public)) = (rsa_jwk(), ec_jwk());
        let one_line = EC.replace('\n', "\\n");
        for (private, public, algorithm, key_id) in [
            (RSA, RSA_PUBLIC, "RS256", None),
            (&pem_of("RSA PRIVATE KEY", &pkcs1()), &rsa_public, "RS256", None),
            (&rsa, RSA_PUBLIC, "RS256", Some("k1")),
            (EC, EC_PUBLIC, "ES256", None),
            (&one_line, &ec_public, "ES256", None),
            (&ec, EC_PUBLIC, "ES256", None),
        ] {
            let key = SigningKey::parse(private).unwrap();
            assert_eq!((key.algorithm(), key.key_id()), (algorithm, key_id));
            let signature = key.sign(b"message").unwrap();
            let public = PublicKey::parse(public).unwrap();
            assert!(public.has_signed(algorithm, b"message", &signature));
            assert!(!public.has_signed(algorithm, b"another", &signature));
            assert!(!public.has_signed("none", b"message", &signature));
        }
    }

    #[test]
    fn what_is_no_key_is_refused_in_words_that_help_and_repeat_nothing() {
        let der = der(RSA);
        let (whole, public) = rsa_jwk();
        let mut parts: serde_json::Value = serde_json::from_str(&whole).unwrap();
        parts["dp"] = parts["dq"].clone();
        let rows = [
            ("00PlantedToken", "must be a private key in PEM"),
            ("{\"kty\": \"RSA\", PlantedToken", "must be a private key in PEM"),
            ("-----BEGIN PlantedToken", "must be a private key in PEM"),
            (&pem_of("PRIVATE KEY", b"PlantedToken"), "must be an RSA key of 2048"),
            (&pem_of("PRIVATE KEY", &der[..900]), "must be an RSA key of 2048"),
            (&pem_of("ENCRYPTED PRIVATE KEY", &der), "is encrypted: `openssl pkcs8"),
            (&pem_of("EC PRIVATE KEY", &der), "is in an old form: `openssl pkcs8"),
            (RSA_PUBLIC, "is the public half"),
            (&public, "is a JWK without `d`"),
            (r#"{"kty":"EC","crv":"P-384"}"#, "must be an RSA key of 2048"),
            (
                r#"{"kty":"EC","crv":"P-256","x":"Planted Token","y":"","d":""}"#,
                "is a JWK whose `x` is not base64url",
            ),
            (&parts.to_string(), "holds parts that do not belong together"),
        ];
        for (text, start) in rows {
            let why = SigningKey::parse(text).err().unwrap_or_else(|| panic!("accepted: {start}"));
            assert!(why.starts_with(start), "{why}");
            assert!(!why.contains("Planted"), "{why}");
        }
    }
}
