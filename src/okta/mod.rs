//! Okta over HTTPS: one request, one answer. The only retries are those of a service app, after the refusal of a token
//! that Okta accepted before, or for a nonce.
//!
//! ```text
//! client     a client for one org with one credential
//! credential the address of an org and the credential for it
//! transport  the port for requests to one org
//! wire       sends requests and reads answers; the credential goes only to the configured host
//! tokens     the access tokens of a service app: cached, fetched by one task at a time, renewed in time
//! grant      the meaning of Okta's answer to a token request
//! assertion  the client assertion that authenticates an app
//! dpop       proofs of possession, for an app whose tokens are bound to a key
//! key        the private keys that sign both
//! switch     a client that can be replaced between two requests
//! room       the memory budget for answers, shared by all orgs
//! ```

mod assertion;
mod client;
mod credential;
mod dpop;
mod echoes;
mod grant;
mod key;
mod room;
mod switch;
mod tokens;
mod transport;
mod wire;

pub use client::OktaClient;
pub use credential::{Credential, Endpoint, ServiceApp, TokenType};
pub use grant::{AccessScheme, Granted};
pub use key::SigningKey;
pub use room::{AnswerRoom, ROOM_BYTES_MIN};
pub use switch::SwitchableClient;
pub use tokens::TOKEN_PATH;
pub use transport::{OktaTransport, Presented};
