//! Okta over HTTPS: one request, one answer, nothing repeated here but what a worn-out token was refused for.
//!
//! ```text
//! wire       requests out, answers in; the credential goes to the configured host alone
//! tokens     of a service app: kept, fetched by one at a time, renewed in time
//! grant      what Okta's answer to a request for a token means
//! assertion  how an app proves who it is
//! key        the private key that it signs with
//! room       memory for answers, shared by all orgs
//! ```

mod assertion;
mod echoes;
mod grant;
mod key;
mod room;
mod tokens;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::header::HeaderValue;

use crate::domain::http::{NoAnswer, Request, Response};
use crate::domain::secret::Secret;
use crate::worker::clock::Clock;
use crate::worker::ports::Okta;

pub use key::SigningKey;
pub use room::{AnswerRoom, ROOM_BYTES_MIN};

use echoes::Echoes;
use tokens::Tokens;
use wire::Https;

/// The path of the org's own authorization server that hands out tokens.
pub const TOKEN_PATH: &str = "/oauth2/v1/token";

/// What stands before the token in the `Authorization` header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenType {
    /// An API token made by an administrator.
    Ssws,
    /// An OAuth 2.0 access token of the org's own authorization server.
    Bearer,
}

impl TokenType {
    /// The scheme as it stands in the header.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ssws => "SSWS",
            Self::Bearer => "Bearer",
        }
    }
}

/// Where an org is and what opens it.
#[derive(Debug, Clone, PartialEq)]
pub struct Endpoint {
    /// Scheme, host and port, without a trailing slash: `https://acme.okta.com`.
    pub base_url: String,
    /// What opens it.
    pub credential: Credential,
}

/// What opens an org.
#[derive(Debug, Clone, PartialEq)]
pub enum Credential {
    /// A token that somebody has made.
    Token {
        /// Its scheme.
        kind: TokenType,
        /// The token.
        token: Secret,
    },
    /// An application that asks Okta for its own tokens.
    ServiceApp(ServiceApp),
}

/// An application of the org that proves by a private key who it is (OAuth 2.0 client credentials with
/// `private_key_jwt`).
#[derive(Debug, Clone, PartialEq)]
pub struct ServiceApp {
    /// Its id: `0oa…`.
    pub client_id: String,
    /// Its private key, in PEM or as a JWK.
    pub private_key: Secret,
    /// The name of the key at Okta, for an app that has several.
    pub key_id: Option<String>,
    /// What its tokens are to be good for: `okta.users.manage`.
    pub scopes: Vec<String>,
}

/// The way to one org.
#[async_trait]
pub trait Wire: Send + Sync {
    /// Sends a request once, with this credential.
    ///
    /// # Errors
    /// When there is no answer, and whether the request may have been executed.
    async fn send(&self, request: &Request, authorization: &HeaderValue) -> Result<Response, NoAnswer>;

    /// Posts a form to a path once, with no credential but what is in it.
    ///
    /// # Errors
    /// When there is no answer.
    async fn post_form(&self, path: &str, form: Secret) -> Result<Response, NoAnswer>;
}

/// One org behind one credential.
pub struct OktaClient {
    wire: Arc<dyn Wire>,
    opening: Opening,
}

enum Opening {
    Token(HeaderValue, Echoes),
    ServiceApp(Box<Tokens>),
}

/// What Okta has given a service app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Granted {
    /// The scopes of its token, which may be fewer than it asked for.
    pub scopes: Vec<String>,
    /// How long a token lives.
    pub lifetime: Duration,
}

impl OktaClient {
    /// A client for an org, over HTTPS, whose answers take of this room.
    ///
    /// # Errors
    /// When the credential cannot be used, or TLS cannot be set up.
    pub fn new(endpoint: &Endpoint, room: &Arc<AnswerRoom>) -> Result<Self, String> {
        Self::within(endpoint, room, wire::REQUEST_TIMEOUT)
    }

    /// A client for an org, over HTTPS, whose requests take no longer than this.
    ///
    /// # Errors
    /// When the credential cannot be used, or TLS cannot be set up.
    pub fn within(
        endpoint: &Endpoint,
        room: &Arc<AnswerRoom>,
        request_max: Duration,
    ) -> Result<Self, String> {
        let wire = Arc::new(Https::new(&endpoint.base_url, room, request_max)?);
        Self::over(wire, endpoint, Clock::Machine)
    }

    /// A client for an org that is reached this way, by this time of day.
    ///
    /// # Errors
    /// When the credential cannot be used.
    pub fn over(wire: Arc<dyn Wire>, endpoint: &Endpoint, clock: Clock) -> Result<Self, String> {
        let opening = match &endpoint.credential {
            Credential::Token { kind, token } => {
                let authorization = authorization(*kind, token.expose())?;
                let echoes = Echoes::of_header(&authorization);
                Opening::Token(authorization, echoes)
            }
            Credential::ServiceApp(app) => {
                let audience = format!("{}{TOKEN_PATH}", endpoint.base_url);
                Opening::ServiceApp(Box::new(Tokens::new(app, audience, Arc::clone(&wire), clock)?))
            }
        };
        Ok(Self { wire, opening })
    }

    /// What Okta gives the service app; nothing where a token opens the org.
    ///
    /// # Errors
    /// Why it gives it nothing.
    pub async fn granted(&self) -> Option<Result<Granted, String>> {
        match &self.opening {
            Opening::Token(..) => None,
            Opening::ServiceApp(tokens) => Some(tokens.granted().await),
        }
    }
}

#[async_trait]
impl Okta for OktaClient {
    async fn send(&self, request: &Request) -> Result<Response, NoAnswer> {
        match &self.opening {
            Opening::Token(authorization, echoes) => {
                echoes.hidden_in(self.wire.send(request, authorization).await)
            }
            Opening::ServiceApp(tokens) => tokens.send(request).await,
        }
    }
}

/// The header that carries a token.
fn authorization(kind: TokenType, token: &str) -> Result<HeaderValue, String> {
    let mut authorization = HeaderValue::from_str(&format!("{} {token}", kind.as_str()))
        .map_err(|_| "the token holds a character that cannot stand in a header".to_owned())?;
    authorization.set_sensitive(true);
    Ok(authorization)
}
