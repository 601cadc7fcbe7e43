//! The access tokens of a service app: one is cached and shared, fetched by one task at a time, and renewed in time.
//!
//! A token request belongs to no invocation: the worker logs it at debug level and does not count it. Invariant: while
//! there is no token, one of the waiting tasks asks Okta and all share the result.
//!
//! Okta shows that an app demands proofs of possession (DPoP) by refusing a request without one. All attempts of all
//! invocations share one token, and each attempt has a proof of its own.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::header::HeaderValue;
use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;
use tracing::{debug, info, warn};
use uuid::Uuid;

use super::assertion::{Claim, assertion};
use super::credential::ServiceApp;
use super::dpop::{self, ProofKey, ProvenRequest};
use super::echoes::Echoes;
use super::grant::{self, AccessScheme, Granted, NoToken, ProofAsked};
use super::key::SigningKey;
use super::transport::{OktaTransport, Presented};
use crate::domain::bucket::date;
use crate::domain::http::{NoAnswer, Request, Response};
use crate::domain::secret::Secret;
use crate::policy::classify::{ConnectionFacts, Meaning, classify};
use crate::policy::pause::PauseReason;
use crate::worker::clock::Clock;

/// The token endpoint of the org's own authorization server.
pub const TOKEN_PATH: &str = "/oauth2/v1/token";

/// The clock difference above which it counts as the cause of a refused assertion: the `Date` of an answer has whole
/// seconds, and the answer takes time to arrive.
const CLOCK_OFF_MIN: SignedDuration = SignedDuration::from_secs(10);

/// The most refused token requests in a row from which the next request learns what it needs: Okta's time, a proof, a
/// nonce, and another nonce if the first one expires meanwhile.
const REFUSALS_MAX: u32 = 4;

/// A cached token.
struct CachedToken {
    authorization: HeaderValue,
    /// The hash of the token that proofs carry.
    hash: String,
    /// The lead of Okta's clock over ours when the token was fetched.
    okta_ahead: SignedDuration,
    echoes: Echoes,
    granted: Granted,
    renew_at: Instant,
    ends_at: Instant,
    /// True if Okta has accepted the token.
    is_proven: AtomicBool,
}

/// A failure to get a token.
struct TokenFailure {
    why: NoToken,
    at: Instant,
}

/// The state that only the fetching task uses.
#[derive(Default)]
struct FetchState {
    failure: Option<TokenFailure>,
    /// The lead of Okta's clock over ours, once a difference has caused a refusal.
    okta_ahead: SignedDuration,
    /// True once Okta has asked for a proof of possession.
    needs_proof: bool,
    /// The nonce for the proofs of token requests, once Okta has sent one.
    nonce: Option<String>,
}

/// The tokens of one service app.
pub(super) struct ServiceAppTokens {
    app: ServiceApp,
    key: SigningKey,
    /// The key that tokens are bound to, if Okta demands it.
    proof_key: ProofKey,
    base_url: String,
    wire: Arc<dyn OktaTransport>,
    clock: Clock,
    cached: Mutex<Option<Arc<CachedToken>>>,
    fetch_state: tokio::sync::Mutex<FetchState>,
    /// The nonce for the proofs of all other requests, if Okta asks for one.
    nonce: Mutex<Option<String>>,
}

/// Returns the part of its lifetime after which a token is renewed: early enough for some failures, and jittered,
/// so that workers that started together do not renew together.
fn renew_after(lifetime: Duration, jitter: f64) -> Duration {
    lifetime.mul_f64(0.8 + 0.1 * jitter)
}

impl ServiceAppTokens {
    /// Creates the token cache of an app of the org at this URL.
    ///
    /// # Errors
    /// If the key cannot be parsed, or the machine has no randomness.
    pub(super) fn new(
        app: &ServiceApp,
        base_url: &str,
        wire: Arc<dyn OktaTransport>,
        clock: Clock,
    ) -> Result<Self, String> {
        let key =
            SigningKey::parse(app.private_key.expose()).map_err(|why| format!("the private key {why}"))?;
        let (app, base_url, proof_key) = (app.clone(), base_url.to_owned(), ProofKey::generate()?);
        let (cached, fetch_state, nonce) =
            (Mutex::default(), tokio::sync::Mutex::default(), Mutex::default());
        Ok(Self { app, key, proof_key, base_url, wire, clock, cached, fetch_state, nonce })
    }

    /// Returns the scopes and lifetime of the current token.
    pub(super) async fn granted(&self) -> Result<Granted, String> {
        self.token().await.map(|token| token.granted.clone()).map_err(|none| none.why().to_owned())
    }

    /// Sends a request with a token; once more with a new token if Okta no longer accepts the first, and once more with
    /// a nonce if Okta has refused it for want of one.
    pub(super) async fn send(&self, request: &Request) -> Result<Response, NoAnswer> {
        let (mut may_repeat, mut may_take_nonce) = (true, true);
        loop {
            let token = match self.token().await {
                Ok(token) => token,
                Err(none) => return none.heard(&self.app.scopes),
            };
            let answer = token.echoes.hidden_in(self.present(&token, request).await);
            let Ok(response) = &answer else { return answer };
            if self.takes_nonce(response) && std::mem::take(&mut may_take_nonce) {
                continue; // Okta has not executed it
            }
            let meaning = classify(request, Ok(response), ConnectionFacts::NOTHING);
            if meaning != Meaning::Refused(PauseReason::Unauthorized) {
                if response.status != 401 && meaning == Meaning::Answered {
                    token.is_proven.store(true, Ordering::Relaxed);
                }
                return answer;
            }
            self.forget(&token);
            // If Okta never accepted this token, it will not accept the next one either.
            if !(token.is_proven.load(Ordering::Relaxed) && std::mem::take(&mut may_repeat)) {
                return answer;
            }
            debug!(
                client_id = self.app.client_id,
                "Okta no longer accepts a token that it accepted before: requesting another one"
            );
        }
    }

    /// Sends a request once with this token, and with a proof of its own if the token is bound to our key.
    async fn present(&self, token: &CachedToken, request: &Request) -> Result<Response, NoAnswer> {
        let authorization = &token.authorization;
        let proof = match token.granted.scheme {
            AccessScheme::Bearer => None,
            AccessScheme::Dpop => {
                let nonce = self.nonce.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let proof = self.proof_key.proof(&ProvenRequest {
                    method: request.method.as_str(),
                    url: &format!("{}{}", self.base_url, request.path),
                    at: self.okta_time(token.okta_ahead),
                    nonce: nonce.as_deref(),
                    token_hash: Some(&token.hash),
                });
                Some(proof.map_err(NoAnswer::Local)?)
            }
        };
        self.wire.send(request, Presented { authorization, proof: proof.as_ref() }).await
    }

    /// Stores the nonce in an answer, and returns true if Okta has refused the request for want of it.
    fn takes_nonce(&self, response: &Response) -> bool {
        let Some(nonce) = dpop::nonce(&response.headers) else { return false };
        *self.nonce.lock().unwrap_or_else(PoisonError::into_inner) = Some(nonce.to_owned());
        dpop::asks_for_nonce(response.status, &response.headers)
    }

    /// Returns the time by Okta's clock, which has this lead over ours.
    fn okta_time(&self, ahead: SignedDuration) -> Timestamp {
        self.clock.now().saturating_add(ahead).unwrap_or(Timestamp::MAX)
    }

    /// Returns a token that has not expired.
    async fn token(&self) -> Result<Arc<CachedToken>, NoToken> {
        let cached = self.cached();
        match &cached {
            Some(token) if Instant::now() < token.renew_at => return Ok(Arc::clone(token)),
            // One task renews it. The others go on using it, and so does that task if it gets no new token.
            Some(token) => {
                let Ok(mut fetch_state) = self.fetch_state.try_lock() else { return Ok(Arc::clone(token)) };
                return Ok(self.get_or_fetch(&mut fetch_state).await.unwrap_or_else(|_| Arc::clone(token)));
            }
            None => {}
        }
        let mut fetch_state = self.fetch_state.lock().await;
        self.get_or_fetch(&mut fetch_state).await
    }

    /// Returns the token or failure that another task has got meanwhile, or else fetches a new token. Called with the
    /// fetch state locked.
    async fn get_or_fetch(&self, fetch_state: &mut FetchState) -> Result<Arc<CachedToken>, NoToken> {
        let now = Instant::now();
        if let Some(token) = self.cached().filter(|token| now < token.renew_at) {
            return Ok(token);
        }
        if let Some(TokenFailure { why, at }) = &fetch_state.failure
            && now < *at + why.stands()
        {
            return Err(why.clone());
        }
        let fetched = self.fetch(fetch_state).await;
        match fetched {
            Ok(token) => {
                fetch_state.failure = None;
                *self.cached.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&token));
                Ok(token)
            }
            Err(why) => {
                let is_news = fetch_state.failure.as_ref().is_none_or(|before| before.why != why);
                if is_news {
                    let client_id = &self.app.client_id;
                    warn!(client_id, "the service app `{client_id}` gets no token: {}", why.why());
                }
                fetch_state.failure = Some(TokenFailure { why: why.clone(), at: Instant::now() });
                Err(why)
            }
        }
    }

    /// Requests a token from Okta, and again if the answer shows what the request lacked.
    async fn fetch(&self, fetch_state: &mut FetchState) -> Result<Arc<CachedToken>, NoToken> {
        let mut refusals = 0;
        let (asked, answer) = loop {
            let asked = Instant::now();
            let answer = self.ask(fetch_state).await?;
            if refusals == REFUSALS_MAX || !self.learn_from_refusal(&answer, fetch_state) {
                break (asked, answer);
            }
            refusals += 1;
        };
        let grant = grant::read(answer, &self.app.scopes, fastrand::f64())?;
        let Granted { scopes, lifetime, .. } = &grant.granted;
        let missing: Vec<_> =
            self.app.scopes.iter().filter(|scope| !scopes.contains(scope)).cloned().collect();
        if !missing.is_empty() {
            let client_id = &self.app.client_id;
            warn!(client_id, "Okta does not grant the service app `{client_id}`: {}", missing.join(", "));
        }
        Ok(Arc::new(CachedToken {
            renew_at: asked + renew_after(*lifetime, fastrand::f64()),
            ends_at: asked + *lifetime,
            echoes: Echoes::of_header(&grant.authorization),
            authorization: grant.authorization,
            hash: grant.hash,
            okta_ahead: fetch_state.okta_ahead,
            granted: grant.granted,
            is_proven: AtomicBool::new(false),
        }))
    }

    /// Learns from a refusal what the next token request needs; returns false if that is nothing new.
    fn learn_from_refusal(&self, answer: &Result<Response, NoAnswer>, fetch_state: &mut FetchState) -> bool {
        let Some(response) = answer.as_ref().ok().filter(|response| matches!(response.status, 400 | 401))
        else {
            return false;
        };
        let client_id = &self.app.client_id;
        let ahead = self.clock_difference(response, fetch_state.okta_ahead);
        if let Some(ahead) = ahead {
            let seconds = ahead.as_secs();
            info!(client_id, "the clocks differ by {seconds} s: the service app uses Okta's time");
            fetch_state.okta_ahead = ahead;
        }
        let (needed_proof, nonce) = (fetch_state.needs_proof, fetch_state.nonce.clone());
        match grant::proof_asked(response) {
            Some(ProofAsked::Any) => fetch_state.needs_proof = true,
            Some(ProofAsked::WithNonce(nonce)) => {
                (fetch_state.needs_proof, fetch_state.nonce) = (true, Some(nonce))
            }
            None => {}
        }
        if fetch_state.needs_proof && !needed_proof {
            debug!(client_id, "Okta demands proof of possession (DPoP) from the service app");
        }
        ahead.is_some() || (fetch_state.needs_proof, &fetch_state.nonce) != (needed_proof, &nonce)
    }

    /// Sends one token request, with a new assertion and a new proof: Okta accepts each one once.
    async fn ask(&self, fetch_state: &FetchState) -> Result<Result<Response, NoAnswer>, NoToken> {
        let url = format!("{}{TOKEN_PATH}", self.base_url);
        let client_id = &self.app.client_id;
        let key_id = self.app.key_id.as_deref().or(self.key.key_id());
        let at = self.okta_time(fetch_state.okta_ahead);
        let unique = Uuid::new_v4().to_string();
        let claim = Claim { client_id, key_id, audience: &url, at, unique: &unique };
        let assertion = assertion(&claim, &self.key).map_err(NoToken::Unauthorized)?;
        let nonce = fetch_state.nonce.as_deref();
        let request = ProvenRequest { method: "POST", url: &url, at, nonce, token_hash: None };
        let proof = fetch_state.needs_proof.then(|| self.proof_key.proof(&request)).transpose();
        let proof = proof.map_err(NoToken::Unauthorized)?;
        let asked = Instant::now();
        let echoes = Echoes::of_assertion(assertion.expose(), self.app.private_key.expose());
        let form = form(&self.app.scopes, &assertion);
        let answer = echoes.hidden_in(self.wire.post_form(TOKEN_PATH, form, proof.as_ref()).await);
        let (status, took_ms) =
            (answer.as_ref().ok().map(|response| response.status), asked.elapsed().as_millis());
        debug!(client_id, status, took_ms, "a token was asked for: POST {TOKEN_PATH}");
        Ok(answer)
    }

    /// Returns the lead of Okta's clock over ours if that explains a refused assertion.
    fn clock_difference(&self, response: &Response, assumed: SignedDuration) -> Option<SignedDuration> {
        let ahead = date(&response.headers)?.duration_since(self.clock.now());
        ((ahead - assumed).abs() > CLOCK_OFF_MIN).then_some(ahead)
    }

    /// Returns the cached token, unless it has expired.
    fn cached(&self) -> Option<Arc<CachedToken>> {
        let cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner).clone();
        cached.filter(|token| Instant::now() < token.ends_at)
    }

    /// Removes a token that Okta does not accept from the cache.
    fn forget(&self, token: &Arc<CachedToken>) {
        let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        if cached.as_ref().is_some_and(|cached| Arc::ptr_eq(cached, token)) {
            *cached = None;
        }
    }
}

/// Builds the body of a token request.
fn form(scopes: &[String], assertion: &Secret) -> Secret {
    let fields = [
        ("grant_type", "client_credentials"),
        ("scope", &scopes.join(" ")),
        ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
        ("client_assertion", assertion.expose()),
    ];
    Secret::new(&form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_renewed_in_its_last_fifth_and_not_with_all_others() {
        let hour = Duration::from_secs(3600);
        assert_eq!(renew_after(hour, 0.0), Duration::from_secs(48 * 60));
        assert_eq!(renew_after(hour, 1.0), Duration::from_secs(54 * 60));
    }
}
