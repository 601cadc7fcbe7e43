//! The tokens of a service app: one is kept and used by all, fetched by one at a time, and renewed in time.
//!
//! A request for a token is none of any invocation's: it is logged at debug and nowhere counted. Invariant: of
//! those who wait for a token while it cannot be had, one finds out and all hear it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::header::HeaderValue;
use jiff::{SignedDuration, Timestamp};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::time::Instant;
use tracing::{debug, info, warn};
use uuid::Uuid;

use super::assertion::{Claim, assertion};
use super::echoes::Echoes;
use super::grant::{self, NoToken};
use super::key::SigningKey;
use super::{Granted, ServiceApp, TOKEN_PATH, Wire};
use crate::domain::bucket::date;
use crate::domain::http::{NoAnswer, Request, Response};
use crate::domain::secret::Secret;
use crate::policy::classify::{Meaning, classify, is_unauthorized};
use crate::worker::clock::Clock;

/// How far the machine's clock may be off before an assertion is refused for it: the `Date` that tells has whole
/// seconds, and took its time.
const CLOCK_OFF_MIN: SignedDuration = SignedDuration::from_secs(10);

/// A token in use.
struct Token {
    authorization: HeaderValue,
    echoes: Echoes,
    granted: Granted,
    renew_at: Instant,
    ends_at: Instant,
    /// Whether Okta has taken it.
    is_proven: AtomicBool,
}

/// A failure to get one.
struct Failure {
    why: NoToken,
    at: Instant,
}

/// What only the one knows who fetches.
#[derive(Default)]
struct Desk {
    failure: Option<Failure>,
    /// How far Okta's clock is ahead of ours, once that was in the way.
    okta_ahead: SignedDuration,
}

/// The tokens of one service app.
pub(super) struct Tokens {
    app: ServiceApp,
    key: SigningKey,
    audience: String,
    wire: Arc<dyn Wire>,
    clock: Clock,
    kept: Mutex<Option<Arc<Token>>>,
    desk: tokio::sync::Mutex<Desk>,
}

/// After which part of its lifetime a token is renewed: early enough for some failures, and by chance, so that
/// workers that started together do not come together.
fn renew_after(lifetime: Duration, jitter: f64) -> Duration {
    lifetime.mul_f64(0.8 + 0.1 * jitter)
}

impl Tokens {
    /// The tokens of an app that shows its assertions to this URL.
    ///
    /// # Errors
    /// When its key cannot be read.
    pub(super) fn new(
        app: &ServiceApp,
        audience: String,
        wire: Arc<dyn Wire>,
        clock: Clock,
    ) -> Result<Self, String> {
        let key =
            SigningKey::parse(app.private_key.expose()).map_err(|why| format!("the private key {why}"))?;
        let (kept, desk) = (Mutex::default(), tokio::sync::Mutex::default());
        Ok(Self { app: app.clone(), key, audience, wire, clock, kept, desk })
    }

    /// What a token is good for.
    pub(super) async fn granted(&self) -> Result<Granted, String> {
        self.token().await.map(|token| token.granted.clone()).map_err(|none| none.why().to_owned())
    }

    /// Sends a request with a token, and once more with another when Okta does not take this one any more.
    pub(super) async fn send(&self, request: &Request) -> Result<Response, NoAnswer> {
        let mut may_repeat = true;
        loop {
            let token = match self.token().await {
                Ok(token) => token,
                Err(none) => return none.heard(&self.app.scopes),
            };
            let answer = token.echoes.hidden_in(self.wire.send(request, &token.authorization).await);
            let Ok(response) = &answer else { return answer };
            if !is_unauthorized(response) {
                if response.status != 401 && classify(request, Ok(response)) == Meaning::Said {
                    token.is_proven.store(true, Ordering::Relaxed);
                }
                return answer;
            }
            self.forget(&token);
            // One that was never taken says that the next will not be, either.
            if !(token.is_proven.load(Ordering::Relaxed) && std::mem::take(&mut may_repeat)) {
                return answer;
            }
            debug!(
                client_id = self.app.client_id,
                "Okta does not take a token any more that it took: another is fetched"
            );
        }
    }

    /// A token that has not ended.
    async fn token(&self) -> Result<Arc<Token>, NoToken> {
        let kept = self.kept();
        match &kept {
            Some(token) if Instant::now() < token.renew_at => return Ok(Arc::clone(token)),
            // One renews it. The others go on with it, and so does that one if there is no other to be had.
            Some(token) => {
                let Ok(mut desk) = self.desk.try_lock() else { return Ok(Arc::clone(token)) };
                return Ok(self.at(&mut desk).await.unwrap_or_else(|_| Arc::clone(token)));
            }
            None => {}
        }
        let mut desk = self.desk.lock().await;
        self.at(&mut desk).await
    }

    /// A token, by whoever has the desk: what another has fetched or found out meanwhile, or a new one.
    async fn at(&self, desk: &mut Desk) -> Result<Arc<Token>, NoToken> {
        let now = Instant::now();
        if let Some(token) = self.kept().filter(|token| now < token.renew_at) {
            return Ok(token);
        }
        if let Some(Failure { why, at }) = &desk.failure
            && now < *at + why.stands()
        {
            return Err(why.clone());
        }
        let fetched = self.fetch(desk).await;
        match fetched {
            Ok(token) => {
                desk.failure = None;
                *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&token));
                Ok(token)
            }
            Err(why) => {
                let is_news = desk.failure.as_ref().is_none_or(|before| before.why != why);
                if is_news {
                    let client_id = &self.app.client_id;
                    warn!(client_id, "the service app `{client_id}` gets no token: {}", why.why());
                }
                desk.failure = Some(Failure { why: why.clone(), at: Instant::now() });
                Err(why)
            }
        }
    }

    /// Asks Okta for a token; twice when it turned out that the machine's clock is off.
    async fn fetch(&self, desk: &mut Desk) -> Result<Arc<Token>, NoToken> {
        let mut asked = Instant::now();
        let mut answer = self.ask(desk.okta_ahead).await?;
        if let Some(ahead) = self.clock_off(&answer, desk.okta_ahead) {
            let (client_id, seconds) = (&self.app.client_id, ahead.as_secs());
            info!(client_id, "the clocks differ by {seconds} s: the service app goes by Okta's");
            desk.okta_ahead = ahead;
            asked = Instant::now();
            answer = self.ask(ahead).await?;
        }
        let grant = grant::read(answer, &self.app.scopes, fastrand::f64())?;
        let Granted { scopes, lifetime } = &grant.granted;
        let missing: Vec<_> =
            self.app.scopes.iter().filter(|scope| !scopes.contains(scope)).cloned().collect();
        if !missing.is_empty() {
            let client_id = &self.app.client_id;
            warn!(client_id, "Okta does not grant the service app `{client_id}`: {}", missing.join(", "));
        }
        Ok(Arc::new(Token {
            renew_at: asked + renew_after(*lifetime, fastrand::f64()),
            ends_at: asked + *lifetime,
            echoes: Echoes::of_header(&grant.authorization),
            authorization: grant.authorization,
            granted: grant.granted,
            is_proven: AtomicBool::new(false),
        }))
    }

    /// One request for a token, with an assertion of its own: Okta takes each once.
    async fn ask(&self, okta_ahead: SignedDuration) -> Result<Result<Response, NoAnswer>, NoToken> {
        let client_id = &self.app.client_id;
        let key_id = self.app.key_id.as_deref().or(self.key.key_id());
        let at = self.clock.now().saturating_add(okta_ahead).unwrap_or(Timestamp::MAX);
        let unique = Uuid::new_v4().to_string();
        let claim = Claim { client_id, key_id, audience: &self.audience, at, unique: &unique };
        let assertion = assertion(&claim, &self.key).map_err(NoToken::Unauthorized)?;
        let asked = Instant::now();
        let echoes = Echoes::of_assertion(assertion.expose(), self.app.private_key.expose());
        let answer =
            echoes.hidden_in(self.wire.post_form(TOKEN_PATH, form(&self.app.scopes, &assertion)).await);
        let (status, took_ms) =
            (answer.as_ref().ok().map(|response| response.status), asked.elapsed().as_millis());
        debug!(client_id, status, took_ms, "a token was asked for: POST {TOKEN_PATH}");
        Ok(answer)
    }

    /// How far Okta's clock is ahead of ours, when that is why an assertion was refused.
    fn clock_off(
        &self,
        answer: &Result<Response, NoAnswer>,
        assumed: SignedDuration,
    ) -> Option<SignedDuration> {
        let response = answer.as_ref().ok().filter(|response| matches!(response.status, 400 | 401))?;
        let ahead = date(&response.headers)?.duration_since(self.clock.now());
        ((ahead - assumed).abs() > CLOCK_OFF_MIN).then_some(ahead)
    }

    /// The token that is kept, unless it has ended.
    fn kept(&self) -> Option<Arc<Token>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).clone();
        kept.filter(|token| Instant::now() < token.ends_at)
    }

    /// Okta does not take it: nobody is to use it any more.
    fn forget(&self, token: &Arc<Token>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.as_ref().is_some_and(|kept| Arc::ptr_eq(kept, token)) {
            *kept = None;
        }
    }
}

/// The body of a request for a token.
fn form(scopes: &[String], assertion: &Secret) -> Secret {
    let fields = [
        ("grant_type", "client_credentials"),
        ("scope", &scopes.join(" ")),
        ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
        ("client_assertion", assertion.expose()),
    ];
    let encoded =
        fields.map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC)));
    Secret::new(&encoded.join("&"))
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
