//! The meaning of Okta's answer to a token request, and the answer to a request that gets no token.
//!
//! That answer has the form in which Okta itself refuses a token, so that the worker needs no knowledge of service
//! apps: a bad credential is a 401, a missing scope a 403. If Okta did not answer the token request, the request itself
//! was certainly not sent.

use std::time::Duration;

use bytes::Bytes;
use http::header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use serde::Deserialize;

use super::credential::authorization;
use super::dpop::{INVALID_PROOF, USE_NONCE, nonce, token_hash};
use crate::domain::bucket::RateHeaders;
use crate::domain::http::{NoAnswer, Response};
use crate::domain::okta_error::OktaError;
use crate::policy::backoff::retry_after;
use crate::policy::classify::concurrency_wait;

/// The default lifetime of Okta's tokens.
const LIFETIME: Duration = Duration::from_secs(3600);

/// An upper bound on the lifetime of any Okta token.
const LIFETIME_MAX: Duration = Duration::from_secs(24 * 3600);

/// The time for which a refusal is cached. Requests in that time share it; the probe of a paused connection comes after
/// 2 s at the earliest, and so requests a token again.
const REFUSED_FOR: Duration = Duration::from_secs(1);

/// The time for which the lack of an answer is cached. An attempt that follows at once sends no token request.
const UNREACHED_FOR: Duration = Duration::from_millis(500);

/// Okta's rate-limit window, in which it counts token requests like all other requests.
const WINDOW: Duration = Duration::from_secs(60);

/// An upper bound on the reset of any Okta window.
const RESET_MAX: Duration = Duration::from_secs(120);

/// The scopes and token lifetime that Okta grants a service app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Granted {
    /// The scopes of the token, which may be fewer than requested.
    pub scopes: Vec<String>,
    /// The lifetime of a token.
    pub lifetime: Duration,
    /// The way in which a request presents a token.
    pub scheme: AccessScheme,
}

/// The way in which a request presents an access token of a service app.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr)]
pub enum AccessScheme {
    /// The token alone, without a proof of possession.
    Bearer,
    /// The token with a proof of the key that it is bound to.
    #[strum(serialize = "DPoP")]
    Dpop,
}

impl AccessScheme {
    /// Reads a `token_type`, whose case does not matter (RFC 6749, section 5.1).
    fn read(token_type: &str) -> Option<Self> {
        [Self::Bearer, Self::Dpop].into_iter().find(|scheme| token_type.eq_ignore_ascii_case(scheme.as_str()))
    }

    /// Returns the scheme as written in a header.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// An access token.
#[derive(Debug)]
pub(super) struct AccessToken {
    /// The `Authorization` header with the token.
    pub authorization: HeaderValue,
    /// The hash of the token that proofs carry.
    pub hash: String,
    /// The scopes and lifetime of the token.
    pub granted: Granted,
}

/// The reason that there is no token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NoToken {
    /// Okta does not accept the app's credential.
    Unauthorized(String),
    /// Okta does not grant the app its scopes.
    Forbidden(String),
    /// Okta did not answer, or limits the rate.
    NotNow {
        why: String,
        /// The time to wait before the next request.
        wait: Duration,
    },
    /// This machine lacks a resource, and Okta was not asked.
    Local(String),
}

/// A token response from Okta.
#[derive(Deserialize)]
struct TokenResponse {
    token_type: String,
    access_token: String,
    expires_in: Option<u64>,
    scope: Option<String>,
}

/// An OAuth 2.0 error response (RFC 6749, section 5.2).
#[derive(Deserialize)]
struct OAuthError {
    error: String,
    error_description: Option<String>,
}

/// Parses the answer to a request for a token with these scopes.
///
/// # Errors
/// If the answer holds no token.
pub(super) fn read(
    answer: Result<Response, NoAnswer>,
    scopes: &[String],
    jitter: f64,
) -> Result<AccessToken, NoToken> {
    let not_now = |why: String| NoToken::NotNow { why, wait: UNREACHED_FOR };
    let response = match answer {
        Ok(response) => response,
        Err(NoAnswer::NotSent(why) | NoAnswer::MaybeSent(why)) => return Err(not_now(why)),
        Err(NoAnswer::Local(why)) => return Err(NoToken::Local(why)),
        Err(no_answer @ NoAnswer::TooLarge(_)) => return Err(not_now(no_answer.to_string())),
    };
    match response.status {
        200 => {
            let token = response.read().ok_or_else(|| not_now("Okta's answer is not a token".to_owned()))?;
            granted(token, scopes)
        }
        429 => Err(NoToken::NotNow { why: describe(&response), wait: wait(&response.headers, jitter) }),
        400..=499 => Err(refused(&response).unwrap_or_else(|| not_now(describe(&response)))),
        // A redirect is not followed, and a server that answers with one is not Okta's token endpoint.
        _ => Err(not_now(describe(&response))),
    }
}

fn granted(token: TokenResponse, scopes: &[String]) -> Result<AccessToken, NoToken> {
    let not_now = |why: String| NoToken::NotNow { why, wait: UNREACHED_FOR };
    let scheme = AccessScheme::read(&token.token_type).ok_or_else(|| {
        not_now("Okta answered a token of a type that is neither Bearer nor DPoP".to_owned())
    })?;
    let authorization = authorization(scheme.as_str(), &token.access_token).map_err(not_now)?;
    let lifetime =
        token.expires_in.map_or(LIFETIME, Duration::from_secs).clamp(Duration::from_secs(1), LIFETIME_MAX);
    let scopes = match token.scope {
        Some(scopes) => scopes.split_whitespace().map(str::to_owned).collect(),
        None => scopes.to_vec(), // RFC 6749, section 5.1: then the scopes are the requested ones
    };
    let hash = token_hash(&token.access_token);
    Ok(AccessToken { authorization, hash, granted: Granted { scopes, lifetime, scheme } })
}

/// The proof of possession that a token request lacked.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ProofAsked {
    /// A proof.
    Any,
    /// A proof with this nonce.
    WithNonce(String),
}

/// Returns the proof that a refusal asks for.
pub(super) fn proof_asked(response: &Response) -> Option<ProofAsked> {
    let OAuthError { error, .. } = response.read()?;
    match (error.as_str(), nonce(&response.headers)) {
        (USE_NONCE, Some(nonce)) => Some(ProofAsked::WithNonce(nonce.to_owned())),
        (INVALID_PROOF, _) => Some(ProofAsked::Any),
        _ => None,
    }
}

/// Classifies a refusal; `None` if Okta did not write the answer.
fn refused(response: &Response) -> Option<NoToken> {
    let (code, said) = error(response)?;
    let status = response.status;
    Some(match code.as_str() {
        "invalid_scope" | "consent_required" => NoToken::Forbidden(format!(
            "Okta answered {status} {code}: {said}; grant the app its scopes in Okta's console, under `Okta API Scopes`"
        )),
        _ => NoToken::Unauthorized(format!("Okta answered {status} {code}: {said}")),
    })
}

/// Returns the code and text of an error: OAuth's, or Okta's own, which an unknown client gets.
fn error(response: &Response) -> Option<(String, String)> {
    if let Some(OAuthError { error, error_description }) = response.read() {
        return Some((error, error_description.unwrap_or_default()));
    }
    let error = OktaError::read(response);
    Some((error.error_code?, error.summary.unwrap_or_default()))
}

fn describe(response: &Response) -> String {
    let status = response.status;
    match error(response) {
        Some((code, said)) => format!("Okta answered {status} {code}: {said}"),
        None => format!("Okta answered {status}: {}", OktaError::read(response).summary.unwrap_or_default()),
    }
}

/// Returns the time to wait before another token request after a 429, by the clock of the answer.
fn wait(headers: &HeaderMap, jitter: f64) -> Duration {
    let rate = RateHeaders::read(headers);
    let wait = match rate {
        Some(rate) if rate.is_concurrency() => return concurrency_wait(1, jitter),
        Some(rate) => rate.date.map(|date| rate.reset.saturating_sub(date.as_second())),
        None => retry_after(headers).and_then(|wait| i64::try_from(wait.as_secs()).ok()),
    };
    let wait = wait.map_or(WINDOW, |seconds| Duration::from_secs(u64::try_from(seconds).unwrap_or(0)));
    // Resets have a resolution of whole seconds, and jitter keeps waiting clients from retrying together.
    wait.min(RESET_MAX) + Duration::from_secs(1).mul_f64(1.0 + jitter)
}

impl NoToken {
    /// Returns the time for which this result is cached.
    pub(super) fn stands(&self) -> Duration {
        match self {
            Self::Unauthorized(_) | Self::Forbidden(_) => REFUSED_FOR,
            Self::NotNow { wait, .. } => *wait,
            Self::Local(_) => UNREACHED_FOR,
        }
    }

    /// Returns the reason as text.
    pub(super) fn why(&self) -> &str {
        match self {
            Self::Unauthorized(why) | Self::Forbidden(why) | Self::NotNow { why, .. } | Self::Local(why) => {
                why
            }
        }
    }

    /// Returns the answer for a request that could not be sent without a token.
    pub(super) fn heard(&self, scopes: &[String]) -> Result<Response, NoAnswer> {
        let why = format!("the service app gets no token: {}", self.why());
        let (status, challenge) = match self {
            Self::Unauthorized(_) => (401, challenge("invalid_client", &why, "")),
            Self::Forbidden(_) => (403, challenge("insufficient_scope", &why, &scopes.join(" "))),
            Self::NotNow { .. } => return Err(NoAnswer::NotSent(why)),
            Self::Local(_) => return Err(NoAnswer::Local(why)),
        };
        Ok(Response::new(status, HeaderMap::from_iter([(WWW_AUTHENTICATE, challenge)]), Bytes::new()))
    }
}

/// Builds the header with which Okta refuses a token.
fn challenge(error: &str, why: &str, scopes: &str) -> HeaderValue {
    let plain = |c: char| match c {
        '"' => '\'',
        ' '..='~' => c,
        _ => '?',
    };
    let why: String = why.chars().map(plain).collect();
    let scopes = if scopes.is_empty() { String::new() } else { format!(", scope=\"{scopes}\"") };
    HeaderValue::try_from(format!("Bearer error=\"{error}\", error_description=\"{why}\"{scopes}"))
        .expect("visible ASCII can stand in a header, and a scope is that")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::http::Request;
    use crate::policy::classify::{ConnectionFacts, Meaning, classify};
    use crate::policy::pause::PauseReason;
    use crate::policy::refusal;

    fn asked() -> Vec<String> {
        vec!["okta.users.manage".to_owned(), "okta.groups.manage".to_owned()]
    }

    fn answered(status: u16, body: &str) -> Result<AccessToken, NoToken> {
        read(Ok(Response::new(status, HeaderMap::new(), body.to_owned())), &asked(), 0.5)
    }

    fn no_token(status: u16, body: &str) -> NoToken {
        answered(status, body).expect_err("it is no token")
    }

    #[test]
    fn a_token_brings_its_scopes_and_its_lifetime() {
        let grant = answered(
            200,
            r#"{"token_type":"Bearer","expires_in":3600,"access_token":"x.y.z","scope":"okta.users.manage"}"#,
        )
        .unwrap();
        assert_eq!(grant.authorization, "Bearer x.y.z");
        assert!(grant.authorization.is_sensitive() && !format!("{grant:?}").contains("x.y.z"));
        let scopes = vec!["okta.users.manage".to_owned()];
        let scheme = AccessScheme::Bearer;
        assert_eq!(grant.granted, Granted { scopes, lifetime: Duration::from_secs(3600), scheme });
        let bare = answered(200, r#"{"token_type":"bearer","access_token":"x"}"#).unwrap().granted;
        assert_eq!(bare, Granted { scopes: asked(), lifetime: LIFETIME, scheme });
        let bound = answered(200, r#"{"token_type":"DPoP","access_token":"x"}"#).unwrap();
        assert_eq!(
            (bound.authorization, bound.granted.scheme),
            ("DPoP x".parse().unwrap(), AccessScheme::Dpop)
        );
    }

    #[test]
    fn a_refusal_says_which_proof_is_missing() {
        let refusal = |error: &str, nonce: Option<&'static str>| {
            let headers = nonce
                .map(|nonce| (http::HeaderName::from_static("dpop-nonce"), HeaderValue::from_static(nonce)));
            let body = format!(r#"{{"error":"{error}","error_description":"Why."}}"#);
            proof_asked(&Response::new(400, headers.into_iter().collect(), body))
        };
        assert_eq!(refusal("invalid_dpop_proof", None), Some(ProofAsked::Any));
        assert_eq!(refusal("use_dpop_nonce", Some("n1")), Some(ProofAsked::WithNonce("n1".to_owned())));
        assert_eq!(refusal("use_dpop_nonce", None), None, "there is nothing to send again with");
        assert_eq!(refusal("invalid_client", Some("n1")), None);
    }

    #[test]
    fn whoever_answers_decides_what_a_missing_token_means() {
        let oauth = |error: &str| format!(r#"{{"error":"{error}","error_description":"Why."}}"#);
        let unknown =
            r#"{"errorCode":"invalid_client","errorSummary":"Invalid value for 'client_id' parameter."}"#;
        for (status, body, expected) in [
            (401, oauth("invalid_client").as_str(), "unauthorized"),
            (400, &oauth("invalid_client"), "unauthorized"),
            (401, unknown, "unauthorized"),
            (403, &oauth("access_denied"), "unauthorized"),
            (400, &oauth("invalid_dpop_proof"), "unauthorized"),
            (200, r#"{"token_type":"mac","access_token":"x"}"#, "not now"),
            (400, &oauth("invalid_scope"), "forbidden"),
            // Not Okta's token endpoint, or not now.
            (200, "<html>", "not now"),
            (200, r#"{"token_type":"Bearer","access_token":"a\nb"}"#, "not now"),
            (302, "", "not now"),
            (403, "<html>blocked</html>", "not now"),
            (429, r#"{"errorCode":"E0000047"}"#, "not now"),
            (500, &oauth("server_error"), "not now"),
            (503, "", "not now"),
        ] {
            let name = match no_token(status, body) {
                NoToken::Unauthorized(_) => "unauthorized",
                NoToken::Forbidden(_) => "forbidden",
                NoToken::NotNow { .. } | NoToken::Local(_) => "not now",
            };
            assert_eq!(name, expected, "{status} {body}");
        }
        for no_answer in [NoAnswer::NotSent("x".into()), NoAnswer::MaybeSent("x".into())] {
            let why = read(Err(no_answer), &asked(), 0.5).unwrap_err();
            assert!(
                matches!(why.heard(&asked()), Err(NoAnswer::NotSent(_))),
                "the request itself was not sent"
            );
        }
    }

    #[test]
    fn a_refusal_is_heard_as_okta_refuses_a_token() {
        use crate::domain::result::ErrorCode::{Forbidden, Unauthorized};
        let told = |body: &str| {
            let response = no_token(400, body).heard(&asked()).unwrap();
            let failure = refusal::name("get_user", OktaError::read(&response));
            let meaning =
                classify(&Request::get("/api/v1/users", &[]), Ok(&response), ConnectionFacts::NOTHING);
            let is_unauthorized = meaning == Meaning::Refused(PauseReason::Unauthorized);
            (is_unauthorized, failure.code, failure.message)
        };
        assert_eq!(
            told(r#"{"error":"invalid_client","error_description":"The \"kid\" is… wrong"}"#),
            (
                true,
                Unauthorized,
                "failed to run `get_user`: Okta answered 401: invalid_client: the service app gets no token: Okta \
                 answered 400 invalid_client: The 'kid' is? wrong"
                    .to_owned()
            )
        );
        let (is_unauthorized, code, message) = told(r#"{"error":"invalid_scope","error_description":"No."}"#);
        assert_eq!((is_unauthorized, code), (false, Forbidden));
        assert!(
            message.ends_with("under `Okta API Scopes`, needs okta.users.manage okta.groups.manage"),
            "{message}"
        );
    }

    #[test]
    fn a_429_says_for_how_long() {
        let headers = |rows: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in rows {
                headers.insert(*name, HeaderValue::from_static(value));
            }
            headers
        };
        let window = [
            ("x-rate-limit-limit", "150"),
            ("x-rate-limit-remaining", "0"),
            ("x-rate-limit-reset", "1700000030"),
            ("date", "Tue, 14 Nov 2023 22:13:20 GMT"),
        ];
        let crowd = [
            ("x-rate-limit-limit", "0"),
            ("x-rate-limit-remaining", "0"),
            ("x-rate-limit-reset", "1700000030"),
        ];
        for (rows, seconds) in [
            (&window[..], 31.0),
            (&window[..3], 61.0),
            (&crowd, 0.1),
            (&[("retry-after", "5")], 6.0),
            (&[], 61.0),
        ] {
            assert_eq!(wait(&headers(rows), 0.0), Duration::from_secs_f64(seconds), "{rows:?}");
        }
        assert_eq!(wait(&headers(&window), 1.0), Duration::from_secs(32));
    }
}
