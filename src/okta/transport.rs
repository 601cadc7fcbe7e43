//! The transport to one org: the port between the requests and the HTTP client that sends them.

use async_trait::async_trait;
use http::header::HeaderValue;

use crate::domain::http::{NoAnswer, Request, Response};
use crate::domain::secret::Secret;

/// The credential of one attempt.
#[derive(Debug, Clone, Copy)]
pub struct Presented<'a> {
    /// The `Authorization` header.
    pub authorization: &'a HeaderValue,
    /// The `DPoP` header, for a token that is bound to a key.
    pub proof: Option<&'a HeaderValue>,
}

/// The transport to one org.
#[async_trait]
pub trait OktaTransport: Send + Sync {
    /// Sends a request once, with this credential.
    ///
    /// # Errors
    /// If there is no answer; the error states whether the request may have been executed.
    async fn send(&self, request: &Request, presented: Presented<'_>) -> Result<Response, NoAnswer>;

    /// Posts a form to a path once, with no credential but those in the form, and the `DPoP` header if there is one.
    ///
    /// # Errors
    /// If there is no answer.
    async fn post_form(
        &self,
        path: &str,
        form: Secret,
        proof: Option<&HeaderValue>,
    ) -> Result<Response, NoAnswer>;
}
