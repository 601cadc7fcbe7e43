//! The transport to one org: the port between what is sent and the HTTP client that sends it.

use async_trait::async_trait;
use http::header::HeaderValue;

use crate::domain::http::{NoAnswer, Request, Response};
use crate::domain::secret::Secret;

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
