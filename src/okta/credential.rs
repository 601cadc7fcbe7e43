//! The address of an org and the credential for it.

use http::header::HeaderValue;

use crate::domain::secret::Secret;

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

/// Builds the header that carries a token by this scheme.
pub(super) fn authorization(scheme: &str, token: &str) -> Result<HeaderValue, String> {
    let mut authorization = HeaderValue::from_str(&format!("{scheme} {token}"))
        .map_err(|_| "the token holds a character that cannot stand in a header".to_owned())?;
    authorization.set_sensitive(true);
    Ok(authorization)
}
