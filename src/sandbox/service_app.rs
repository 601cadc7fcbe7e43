//! A service app, as an administrator has created it.

use super::public_key::PublicKey;

/// A service app created by an administrator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// The client id: `0oa…`.
    pub id: String,
    /// The public key that verifies its assertions.
    pub key: PublicKey,
    /// The scopes granted to the app; `None` means all of Okta's.
    pub scopes: Option<Vec<String>>,
}
