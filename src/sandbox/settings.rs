//! What an org is made with. Plain values with defaults; nothing here is read from outside.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use crate::domain::bucket::Bucket;
use crate::domain::secret::Secret;

use super::oauth::Client;

/// The host in links and URLs when nobody names one.
const HOST: &str = "https://sandbox.okta.example";

/// Requests in flight before the org refuses: half of the 75 of a Workforce org, as with the buckets.
const CONCURRENCY: usize = 37;

/// A custom attribute of the profile of users or groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribute {
    /// The attribute's name.
    pub name: String,
    /// What values it takes.
    pub kind: AttributeKind,
}

/// What values an attribute takes.
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

/// What a simulated org is like.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Scheme and host of every URL the org names; the org's own, whatever address was called.
    pub host: String,
    /// The only credential taken; without one, any is.
    pub token: Option<Secret>,
    /// Service apps, which get tokens. As soon as there is one, no access token is taken but those, and `token`.
    pub clients: Vec<Client>,
    /// How long their tokens live. Okta's live an hour, and nobody can change that.
    pub token_lifetime: Duration,
    /// Requests per window of each bucket; see [`Settings::limit`].
    pub limits: BTreeMap<Bucket, u32>,
    /// How long a bucket's window lasts from its first request.
    pub window: Duration,
    /// Requests in flight that the org bears.
    pub concurrency: usize,
    /// How far lists and searches lag behind writes. Reads by id never do.
    pub search_lag: Duration,
    /// Users in the directory, besides the administrator who owns the credential.
    pub users: usize,
    /// Decides ids and the seeded directory.
    pub seed: u64,
    /// When the org and its seeded directory were created.
    pub born: Timestamp,
    /// Attributes of users besides Okta's own.
    pub user_attributes: Vec<Attribute>,
    /// Attributes of groups besides name and description.
    pub group_attributes: Vec<Attribute>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            host: HOST.to_owned(),
            token: None,
            clients: Vec::new(),
            token_lifetime: Duration::from_secs(3600),
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

impl Settings {
    /// Requests per window of a bucket.
    ///
    /// What is not set is half of Okta's last published table for Workforce orgs: a token may take 50 %
    /// of a bucket unless an administrator says otherwise.
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
