//! The settings of an org. Plain values with defaults; nothing here is read from outside.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use crate::domain::bucket::Bucket;
use crate::domain::secret::Secret;

use super::service_app::Client;

/// The default host in links and URLs.
const HOST: &str = "https://sandbox.okta.example";

/// The default limit of requests in flight: half of the 75 of a Workforce org, as with the buckets.
const CONCURRENCY: usize = 37;

/// A custom attribute of the profile of users or groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribute {
    /// The attribute's name.
    pub name: String,
    /// The type of its values.
    pub kind: AttributeKind,
}

/// The type of an attribute's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttributeKind {
    /// A text.
    Text,
    /// A number.
    Number,
    /// True or false.
    Truth,
    /// A list of texts or numbers.
    List,
}

/// The proof of possession (DPoP) that service apps must give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProofDemand {
    /// None: tokens are bearer tokens, and a proof is not looked at. What Okta does with a proof that it has not asked
    /// for is not documented.
    Nothing,
    /// A proof for each token request, with the server's nonce, and for each request with the token.
    Proof,
    /// The same, and the server's nonce in every proof. Okta asks for none there today.
    ProofWithNonce,
}

/// The settings of a simulated org.
#[derive(Debug, Clone)]
pub struct OrgSettings {
    /// The scheme and host of every URL in answers; always the org's own, whatever address was called.
    pub host: String,
    /// The only credential accepted; without one, any is accepted.
    pub token: Option<Secret>,
    /// The service apps. If there is one, the org accepts only access tokens that it has issued, and `token`.
    pub clients: Vec<Client>,
    /// The lifetime of these access tokens. Okta's is one hour and cannot be changed.
    pub token_lifetime: Duration,
    /// The proof of possession that service apps must give.
    pub proof: ProofDemand,
    /// The requests per window of each bucket; see [`OrgSettings::limit`].
    pub limits: BTreeMap<Bucket, u32>,
    /// The length of a bucket's window, from its first request.
    pub window: Duration,
    /// The limit of requests in flight.
    pub concurrency: usize,
    /// The lag of lists and searches behind writes. Reads by id have none.
    pub search_lag: Duration,
    /// The number of users in the directory, besides the administrator who owns the credential.
    pub users: usize,
    /// The seed of ids and of the initial directory.
    pub seed: u64,
    /// The time at which the org and its initial directory were created.
    pub born: Timestamp,
    /// The attributes of users besides Okta's own.
    pub user_attributes: Vec<Attribute>,
    /// The attributes of groups besides name and description.
    pub group_attributes: Vec<Attribute>,
}

impl AttributeKind {
    /// Returns the type in Okta's schema.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Text => "string",
            Self::Number => "number",
            Self::Truth => "boolean",
            Self::List => "array",
        }
    }

    /// Reads a type of Okta's schema.
    pub fn read(text: &str) -> Option<Self> {
        match text {
            "integer" => Some(Self::Number),
            _ => [Self::Text, Self::Number, Self::Truth, Self::List]
                .into_iter()
                .find(|kind| kind.as_str() == text),
        }
    }
}

impl Default for OrgSettings {
    fn default() -> Self {
        Self {
            host: HOST.to_owned(),
            token: None,
            clients: Vec::new(),
            token_lifetime: Duration::from_secs(3600),
            proof: ProofDemand::Nothing,
            limits: BTreeMap::new(),
            window: Duration::from_secs(60),
            concurrency: CONCURRENCY,
            search_lag: Duration::ZERO,
            users: 0,
            seed: 0,
            born: Timestamp::from_second(1_704_067_200).expect("2024-01-01 is a time"),
            user_attributes: Vec::new(),
            group_attributes: Vec::new(),
        }
    }
}

impl OrgSettings {
    /// Returns the requests per window of a bucket.
    ///
    /// The default is half of Okta's last published table for Workforce orgs: a token may take 50 % of a bucket unless
    /// an administrator says otherwise.
    pub fn limit(&self, bucket: Bucket) -> u32 {
        self.limits.get(&bucket).copied().unwrap_or(match bucket {
            Bucket::Users | Bucket::UserWrite => 300,
            Bucket::UserRead => 1000,
            Bucket::Groups | Bucket::App => 250,
            Bucket::Group => 500,
            Bucket::Apps => 50,
            Bucket::Logs => 60,
            Bucket::Other => 600,
        })
    }
}
