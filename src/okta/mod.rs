//! Okta over HTTPS: one request, one answer; the only retry here is after a refused expired token.
//!
//! ```text
//! wire       sends requests and reads answers; the credential goes only to the configured host
//! tokens     the access tokens of a service app: cached, fetched by one task at a time, renewed in time
//! grant      the meaning of Okta's answer to a token request
//! assertion  the client assertion that authenticates an app
//! key        the private key that signs it
//! room       the memory budget for answers, shared by all orgs
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
use tokens::ServiceAppTokens;
use wire::Https;

/// The token endpoint of the org's own authorization server.
pub const TOKEN_PATH: &str = "/oauth2/v1/token";

/// The scheme of the token in the `Authorization` header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenType {
    /// An API token made by an administrator.
    Ssws,
    /// An OAuth 2.0 access token of the org's own authorization server.
    Bearer,
}

impl TokenType {
    /// Returns the scheme as written in the header.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ssws => "SSWS",
            Self::Bearer => "Bearer",
        }
    }
}

/// The address of an org and the credential for it.
#[derive(Debug, Clone, PartialEq)]
pub struct Endpoint {
    /// Scheme, host and port, without a trailing slash: `https://acme.okta.com`.
    pub base_url: String,
    /// The credential for the org.
    pub credential: Credential,
}

/// A credential for an org.
#[derive(Debug, Clone, PartialEq)]
pub enum Credential {
    /// A token created in advance.
    Token {
        /// The scheme of the token.
        kind: TokenType,
        /// The token.
        token: Secret,
    },
    /// An application that requests its own tokens from Okta.
    ServiceApp(ServiceApp),
}

/// An application of the org that authenticates with a private key (OAuth 2.0 client credentials with
/// `private_key_jwt`).
#[derive(Debug, Clone, PartialEq)]
pub struct ServiceApp {
    /// The client id: `0oa…`.
    pub client_id: String,
    /// The private key, in PEM or as a JWK.
    pub private_key: Secret,
    /// The id of the key at Okta, for an app that has several.
    pub key_id: Option<String>,
    /// The scopes to request: `okta.users.manage`.
    pub scopes: Vec<String>,
}

/// The transport to one org.
#[async_trait]
pub trait OktaTransport: Send + Sync {
    /// Sends a request once, with this credential.
    ///
    /// # Errors
    /// If there is no answer; the error says if the request may have been executed.
    async fn send(&self, request: &Request, authorization: &HeaderValue) -> Result<Response, NoAnswer>;

    /// Posts a form to a path once, with no credential but those in the form.
    ///
    /// # Errors
    /// If there is no answer.
    async fn post_form(&self, path: &str, form: Secret) -> Result<Response, NoAnswer>;
}

/// A client for one org with one credential.
pub struct OktaClient {
    wire: Arc<dyn OktaTransport>,
    opening: Opening,
}

enum Opening {
    Token(HeaderValue, Echoes),
    ServiceApp(Box<ServiceAppTokens>),
}

/// The scopes and token lifetime that Okta grants a service app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Granted {
    /// The scopes of the token, which may be fewer than requested.
    pub scopes: Vec<String>,
    /// The lifetime of a token.
    pub lifetime: Duration,
}

impl OktaClient {
    /// Creates a client for an org, over HTTPS, whose answers use this memory budget.
    ///
    /// # Errors
    /// If the credential cannot be used, or TLS cannot be set up.
    pub fn new(endpoint: &Endpoint, room: &Arc<AnswerRoom>) -> Result<Self, String> {
        Self::within(endpoint, room, wire::REQUEST_TIMEOUT)
    }

    /// Creates a client for an org, over HTTPS, with this timeout for requests.
    ///
    /// # Errors
    /// If the credential cannot be used, or TLS cannot be set up.
    pub fn within(
        endpoint: &Endpoint,
        room: &Arc<AnswerRoom>,
        request_max: Duration,
    ) -> Result<Self, String> {
        let wire = Arc::new(Https::new(&endpoint.base_url, room, request_max)?);
        Self::over(wire, endpoint, Clock::Machine)
    }

    /// Creates a client for an org over this transport and with this clock.
    ///
    /// # Errors
    /// If the credential cannot be used.
    pub fn over(wire: Arc<dyn OktaTransport>, endpoint: &Endpoint, clock: Clock) -> Result<Self, String> {
        let opening = match &endpoint.credential {
            Credential::Token { kind, token } => {
                let authorization = authorization(*kind, token.expose())?;
                let echoes = Echoes::of_header(&authorization);
                Opening::Token(authorization, echoes)
            }
            Credential::ServiceApp(app) => {
                let audience = format!("{}{TOKEN_PATH}", endpoint.base_url);
                Opening::ServiceApp(Box::new(ServiceAppTokens::new(app, audience, Arc::clone(&wire), clock)?))
            }
        };
        Ok(Self { wire, opening })
    }

    /// Returns the grant of the service app; `None` if the credential is a token.
    ///
    /// # Errors
    /// The reason that Okta grants nothing.
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

/// Builds the header that carries a token.
fn authorization(kind: TokenType, token: &str) -> Result<HeaderValue, String> {
    let mut authorization = HeaderValue::from_str(&format!("{} {token}", kind.as_str()))
        .map_err(|_| "the token holds a character that cannot stand in a header".to_owned())?;
    authorization.set_sensitive(true);
    Ok(authorization)
}
