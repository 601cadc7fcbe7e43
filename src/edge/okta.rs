//! Okta over HTTPS.

use crate::domain::secret::Secret;

/// What stands before the token in the `Authorization` header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenType {
    /// An API token made by an administrator.
    Ssws,
    /// An OAuth 2.0 access token of the org's own authorization server.
    Bearer,
}

/// Where an org is and what opens it.
#[derive(Debug, Clone, PartialEq)]
pub struct Endpoint {
    /// Scheme, host and port, without a trailing slash: `https://acme.okta.com`.
    pub base_url: String,
    /// The scheme of the token.
    pub token_type: TokenType,
    /// The token.
    pub token: Secret,
}
