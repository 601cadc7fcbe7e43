//! The org's authorization server: a service app authenticates and gets a token with a lifetime and scopes.
//!
//! Uses Okta's own texts as far as they were seen. Only `client_credentials` with `private_key_jwt` is supported, the
//! only way to `okta.*` scopes.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{Method, header};
use jiff::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::authorizations::{IssuedToken, TOKEN_PATH};
use super::call::{HttpCall, RequestContext};
use super::faults::When;
use super::limits::RateValues;
use super::org::Org;
use super::proofs::{ProofFlaw, ProvenCall};
use super::refusal::OktaRefusal;
use super::reply::OrgReply;
use super::service_app::Client;
use super::settings::ProofDemand;

const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// The longest time to the expiry of an assertion, in seconds.
const AHEAD_MAX: i64 = 3600;

/// The largest accepted lead of an assertion issuer's clock over ours, in seconds.
const CLOCK_OFF_MAX: i64 = 60;

/// The reason that a token request is denied.
enum Denied {
    OAuth(u16, &'static str, &'static str),
    Proof(ProofFlaw),
    /// An unknown client, which gets Okta's own error object (recorded).
    UnknownClient,
}

fn invalid_client(why: &'static str) -> Denied {
    Denied::OAuth(401, "invalid_client", why)
}

#[derive(Deserialize)]
struct JwtHeader {
    alg: String,
    kid: Option<String>,
}

#[derive(Deserialize)]
struct JwtClaims {
    iss: String,
    sub: String,
    aud: String,
    exp: i64,
    iat: Option<i64>,
    jti: Option<String>,
}

/// The contents of an access token: its scopes, and the key it is bound to.
struct Grant {
    scopes: Vec<String>,
    /// The thumbprint of the key that the token is bound to.
    bound_to: Option<String>,
}

/// Decodes a part of a JWT.
fn part<T: DeserializeOwned>(text: &str) -> Option<T> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()
}

impl Org {
    /// Answers a token request with this many requests in flight; `None` means no answer at all.
    pub(super) fn token_request(
        &mut self,
        call: &HttpCall,
        now: Timestamp,
        in_flight: usize,
    ) -> (Option<OrgReply>, RateValues) {
        if in_flight > self.settings.concurrency {
            let rate = self.limits.crowd(now);
            return (Some(self.refuse(&OktaRefusal::too_many_requests())), rate);
        }
        let rate = match self.limits.take_token(now) {
            Ok(rate) => rate,
            Err(rate) => return (Some(self.refuse(&OktaRefusal::too_many_requests())), rate),
        };
        let reply = match self.faults.strike(call.method.as_str(), TOKEN_PATH) {
            None => Some(self.hand_out(call, now)),
            Some((when, trouble)) => {
                if when == When::After {
                    let _unheard = self.hand_out(call, now);
                }
                self.fail(&trouble, TOKEN_PATH)
            }
        };
        (reply, rate)
    }

    fn hand_out(&mut self, call: &HttpCall, now: Timestamp) -> OrgReply {
        if call.method != Method::POST {
            return self.refuse(&OktaRefusal::wrong_method());
        }
        match self.judge(call, now) {
            Ok(Grant { scopes, bound_to }) => {
                let token = format!("sandbox-access-token-{}", self.ids.token());
                let lifetime = self.settings.token_lifetime;
                let ends = now.saturating_add(lifetime).unwrap_or(Timestamp::MAX);
                let scope = scopes.join(" ");
                let kind = if bound_to.is_some() { "DPoP" } else { "Bearer" };
                self.authorizations.remember(&token, IssuedToken { scopes, ends, bound_to });
                let seconds = lifetime.as_secs();
                OrgReply::json(
                    &json!({"token_type": kind, "expires_in": seconds, "access_token": token, "scope": scope}),
                )
                .with(header::CACHE_CONTROL, "no-cache, no-store".to_owned())
            }
            Err(Denied::OAuth(status, error, why)) => OrgReply::oauth(status, error, why),
            Err(Denied::Proof(flaw)) => self.deny_proof(flaw, now),
            Err(Denied::UnknownClient) => {
                let refusal =
                    OktaRefusal::new(401, "invalid_client", "Invalid value for 'client_id' parameter.");
                self.refuse(&refusal)
            }
        }
    }

    /// Checks a token request and returns what to grant.
    fn judge(&mut self, call: &HttpCall, now: Timestamp) -> Result<Grant, Denied> {
        let body = std::str::from_utf8(&call.body).unwrap_or_default();
        let form = RequestContext::read_query(body);
        let field =
            |name: &str| form.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value.as_ref());
        if field("grant_type") != "client_credentials" {
            return Err(Denied::OAuth(
                400,
                "unsupported_grant_type",
                "The authorization grant type is not supported by the authorization server.",
            ));
        }
        if field("client_assertion_type") != ASSERTION_TYPE {
            return Err(invalid_client("The client_assertion_type is invalid."));
        }
        let client = self.prove(field("client_assertion"), &self.url_of(&call.headers, TOKEN_PATH), now)?;
        let bound_to = self.bind(call, now).map_err(Denied::Proof)?;
        let asked: Vec<&str> = field("scope").split_whitespace().collect();
        if asked.is_empty() {
            return Err(Denied::OAuth(
                400,
                "invalid_scope",
                "The authorization server resource does not have any configured default scopes, 'scope' must be provided.",
            ));
        }
        // Scopes that were not granted are silently left out (okta-sdk-golang issue 145).
        let is_granted = |scope: &&str| match &client.scopes {
            Some(scopes) => scopes.iter().any(|granted| granted == scope),
            None => scope.starts_with("okta."),
        };
        let granted: Vec<String> = asked.into_iter().filter(is_granted).map(str::to_owned).collect();
        if granted.is_empty() {
            return Err(Denied::OAuth(
                400,
                "invalid_scope",
                "One or more scopes are not configured for the authorization server resource.",
            ));
        }
        Ok(Grant { scopes: granted, bound_to })
    }

    /// Verifies the proof of possession that the settings demand, and returns the thumbprint of its key.
    fn bind(&mut self, call: &HttpCall, now: Timestamp) -> Result<Option<String>, ProofFlaw> {
        let proven = ProvenCall { call, path: TOKEN_PATH, token: None, needs_nonce: true };
        match self.settings.proof {
            ProofDemand::Nothing => Ok(None),
            ProofDemand::Proof | ProofDemand::ProofWithNonce => self.verify_proof(&proven, now).map(Some),
        }
    }

    /// Returns the client that has signed an assertion for this endpoint.
    fn prove(&mut self, assertion: &str, endpoint: &str, now: Timestamp) -> Result<Client, Denied> {
        let unreadable = || invalid_client("The client_assertion token is not a valid JWT.");
        let (signed, signature) = assertion.rsplit_once('.').ok_or_else(unreadable)?;
        let (header, claims) = signed.split_once('.').ok_or_else(unreadable)?;
        let header: JwtHeader = part(header).ok_or_else(unreadable)?;
        let claims: JwtClaims = part(claims).ok_or_else(unreadable)?;
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| unreadable())?;
        let known = self.settings.clients.iter().find(|client| client.id == claims.sub);
        let client = known.ok_or(Denied::UnknownClient)?.clone();
        let wrong_key = |kid: &String| client.key.key_id().is_some_and(|registered| registered != kid);
        let now = now.as_second();
        let rows = [
            (header.kid.as_ref().is_some_and(wrong_key), "The client_assertion JWT kid is invalid."),
            (
                !client.key.has_signed(&header.alg, signed.as_bytes(), &signature),
                "The client_assertion signature is invalid.",
            ),
            (claims.iss != claims.sub, "The issuer and the subject of client_assertion must be the client."),
            (
                claims.aud != endpoint,
                "The audience claim for client_assertion must be the endpoint invoked for the request.",
            ),
            (claims.exp <= now, "The client_assertion token is expired."),
            (
                claims.exp > now + AHEAD_MAX,
                "The client_assertion token has an expiration too far into the future.",
            ),
            (
                claims.iat.is_some_and(|iat| iat > now + CLOCK_OFF_MAX),
                "The client_assertion token was issued in the future.",
            ),
        ];
        if let Some((_, why)) = rows.into_iter().find(|(is_so, _)| *is_so) {
            return Err(invalid_client(why));
        }
        if let Some(jti) = claims.jti
            && !self.authorizations.is_new(&client.id, jti, claims.exp, self.now)
        {
            return Err(invalid_client("The client_assertion token has already been used."));
        }
        Ok(client)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::http::Response;
    use crate::sandbox::{Handled, OrgSettings, PublicKey};
    use http::{HeaderMap, HeaderValue};
    use ring::rand::SystemRandom;
    use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
    use rustls_pki_types::PrivateKeyDer;
    use rustls_pki_types::pem::PemObject as _;
    use serde_json::Value;

    const KEY: &str = include_str!("../../tests/fixtures/test-only-ec-key.pem");
    const PUBLIC: &str = include_str!("../../tests/fixtures/test-only-ec-key.pub.pem");
    const NOW: i64 = 1_772_000_000;

    fn org() -> Org {
        let key = PublicKey::parse(PUBLIC).unwrap();
        let scopes = Some(["okta.users.read", "okta.groups.manage"].map(str::to_owned).to_vec());
        let client = Client { id: "0oa1".to_owned(), key, scopes };
        Org::new(OrgSettings { clients: vec![client], ..OrgSettings::default() })
    }

    /// Returns an assertion with these claims, signed by the client's key.
    fn assertion(claims: &Value) -> String {
        let der = PrivateKeyDer::from_pem_slice(KEY.as_bytes()).unwrap();
        let random = SystemRandom::new();
        let pair =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der.secret_der(), &random).unwrap();
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", encode(&json!({"alg": "ES256"})), encode(claims));
        let signature = pair.sign(&random, signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn claims() -> Value {
        let aud = "https://sandbox.okta.example/oauth2/v1/token";
        json!({"iss": "0oa1", "sub": "0oa1", "aud": aud, "iat": NOW, "exp": NOW + 300, "jti": "1"})
    }

    fn claims_with(name: &str, value: Value) -> String {
        let mut claims = claims();
        claims[name] = value;
        assertion(&claims)
    }

    fn call(org: &mut Org, method: Method, target: &str, token: &str, body: String, second: i64) -> Response {
        let mut headers = HeaderMap::new();
        if !token.is_empty() {
            headers.insert(header::AUTHORIZATION, HeaderValue::try_from(format!("Bearer {token}")).unwrap());
        }
        let call = HttpCall { method, target: target.to_owned(), headers, body: body.into() };
        match org.answer(&call, Timestamp::from_second(second).unwrap()) {
            Handled::Said(response) => response,
            Handled::Lost => panic!("no answer"),
        }
    }

    fn ask(org: &mut Org, assertion: &str, scope: &str) -> (u16, Value) {
        let body = format!(
            "grant_type=client_credentials&scope={scope}&client_assertion_type={ASSERTION_TYPE}&client_assertion={assertion}"
        );
        let response = call(org, Method::POST, TOKEN_PATH, "", body, NOW);
        (response.status, serde_json::from_slice(&response.body).unwrap())
    }

    #[test]
    fn an_assertion_is_judged_by_its_signature_and_every_claim_and_good_once() {
        let far = 3601;
        for (assertion, why) in [
            (claims_with("sub", json!("0oa2")), "Invalid value for 'client_id' parameter."),
            (
                claims_with("iss", json!("0oa2")),
                "The issuer and the subject of client_assertion must be the client.",
            ),
            (
                claims_with("aud", json!("https://sandbox.okta.example/oauth2/default/v1/token")),
                "The audience claim for client_assertion must be the endpoint invoked for the request.",
            ),
            (claims_with("exp", json!(NOW)), "The client_assertion token is expired."),
            (
                claims_with("exp", json!(NOW + far)),
                "The client_assertion token has an expiration too far into the future.",
            ),
            (claims_with("iat", json!(NOW + 61)), "The client_assertion token was issued in the future."),
            (claims_with("exp", json!("soon")), "The client_assertion token is not a valid JWT."),
            (format!("{}x", &assertion(&claims())[1..]), "The client_assertion token is not a valid JWT."),
            (
                format!(
                    "{}.{}",
                    assertion(&claims()).rsplit_once('.').unwrap().0,
                    URL_SAFE_NO_PAD.encode([0; 64])
                ),
                "The client_assertion signature is invalid.",
            ),
        ] {
            let (status, body) = ask(&mut org(), &assertion, "okta.users.read");
            let said = body["error_description"].as_str().or(body["errorSummary"].as_str());
            assert_eq!((status, said), (401, Some(why)), "{body}");
        }
        let (mut org, whole) = (org(), assertion(&claims()));
        assert_eq!(ask(&mut org, &whole, "okta.users.read").0, 200);
        let (status, body) = ask(&mut org, &whole, "okta.users.read");
        let used = json!({
            "error": "invalid_client", "error_description": "The client_assertion token has already been used."
        });
        assert_eq!((status, body), (401, used));
        assert_eq!(ask(&mut org, &claims_with("jti", json!("2")), "okta.users.read").0, 200);
    }

    #[test]
    fn scopes_that_were_not_granted_are_left_out_and_none_is_an_error() {
        let mut org = org();
        let (_, body) = ask(&mut org, &assertion(&claims()), "okta.users.read+okta.users.manage");
        assert_eq!((&body["scope"], &body["token_type"]), (&json!("okta.users.read"), &json!("Bearer")));
        for (jti, scope) in [("2", ""), ("3", "okta.users.manage")] {
            let (status, body) = ask(&mut org, &claims_with("jti", json!(jti)), scope);
            assert_eq!((status, &body["error"]), (400, &json!("invalid_scope")));
        }
    }

    #[test]
    fn a_token_opens_what_its_scopes_name_until_it_ends() {
        let mut org = org();
        let (_, body) = ask(&mut org, &assertion(&claims()), "okta.users.read+okta.groups.manage");
        let token = body["access_token"].as_str().unwrap();
        let mut status = |method: Method, path: &str, token: &str, second| {
            call(&mut org, method, path, token, String::from("{}"), second).status
        };
        assert_eq!(status(Method::GET, "/api/v1/users", token, NOW), 200);
        assert_eq!(status(Method::GET, "/api/v1/groups", token, NOW), 200, "whoever manages may read");
        assert_eq!(
            status(Method::POST, "/api/v1/groups", token, NOW),
            400,
            "the body is refused, and not the token"
        );
        assert_eq!(status(Method::POST, "/api/v1/users", token, NOW), 403);
        assert_eq!(status(Method::GET, "/api/v1/apps", token, NOW), 403);
        assert_eq!(status(Method::GET, "/api/v1/users", "another", NOW), 401);
        assert_eq!(status(Method::GET, "/api/v1/users", token, NOW + 3599), 200);
        assert_eq!(status(Method::GET, "/api/v1/users", token, NOW + 3600), 401);
    }

    #[test]
    fn requests_for_tokens_have_a_window_of_their_own() {
        let mut org = org();
        let spent = (0..151).map(|_| ask(&mut org, "x", "okta.users.read").0).collect::<Vec<_>>();
        assert_eq!((spent[149], spent[150]), (401, 429));
        assert_eq!(org.counters().iter().map(|counter| counter.accepted).sum::<u64>(), 0);
    }
}
