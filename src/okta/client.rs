//! A client for one org with one credential: an API token, or a service app that requests its own tokens.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::header::HeaderValue;

use crate::domain::http::{NoAnswer, Request, Response};
use crate::worker::clock::Clock;
use crate::worker::ports::Okta;

use super::credential::{Credential, Endpoint, authorization};
use super::echoes::Echoes;
use super::grant::Granted;
use super::room::AnswerRoom;
use super::tokens::ServiceAppTokens;
use super::transport::{OktaTransport, Presented};
use super::wire::{self, Https};

/// A client for one org with one credential.
pub struct OktaClient {
    wire: Arc<dyn OktaTransport>,
    auth: ClientAuth,
}

/// The authentication of a client's requests.
enum ClientAuth {
    Token(HeaderValue, Echoes),
    ServiceApp(Box<ServiceAppTokens>),
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
        let auth = match &endpoint.credential {
            Credential::Token { kind, token } => {
                let authorization = authorization(kind.as_str(), token.expose())?;
                let echoes = Echoes::of_header(&authorization);
                ClientAuth::Token(authorization, echoes)
            }
            Credential::ServiceApp(app) => {
                let tokens = ServiceAppTokens::new(app, &endpoint.base_url, Arc::clone(&wire), clock)?;
                ClientAuth::ServiceApp(Box::new(tokens))
            }
        };
        Ok(Self { wire, auth })
    }

    /// Returns the grant of the service app; `None` if the credential is a token.
    ///
    /// # Errors
    /// The reason that Okta grants nothing.
    pub async fn granted(&self) -> Option<Result<Granted, String>> {
        match &self.auth {
            ClientAuth::Token(..) => None,
            ClientAuth::ServiceApp(tokens) => Some(tokens.granted().await),
        }
    }
}

#[async_trait]
impl Okta for OktaClient {
    async fn send(&self, request: &Request) -> Result<Response, NoAnswer> {
        match &self.auth {
            ClientAuth::Token(authorization, echoes) => {
                let presented = Presented { authorization, proof: None };
                echoes.hidden_in(self.wire.send(request, presented).await)
            }
            ClientAuth::ServiceApp(tokens) => tokens.send(request).await,
        }
    }
}
