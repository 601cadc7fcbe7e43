//! `okta-worker sandbox`: the simulated org over HTTP.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::TcpListener;

use crate::domain::bucket::Bucket;
use crate::domain::secret::Secret;
use crate::sandbox::{Attribute, AttributeKind, Client, Org, OrgSettings, ProofDemand, PublicKey, serve};

use super::exit::{DONE, FAILED, NotBegun};
use super::signals::StopRequests;

/// The name of all buckets in `--limit`.
const EVERY_BUCKET: &str = "all";

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The address and port to serve on; with port 0 it takes a free port and prints it.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8085")]
    listen: SocketAddr,
    /// The only API token that is accepted. Without it, every API token is. With `--client`, OAuth 2.0 access tokens
    /// must be issued by this org.
    #[arg(long, value_name = "T", env = "OKTA_WORKER_SANDBOX_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// A service app and the file of its public key, in PEM or as a JWK. The org grants every Okta scope that it
    /// requests. May be given several times.
    #[arg(long = "client", value_name = "ID=PUBLIC_KEY_FILE", value_parser = client)]
    clients: Vec<Client>,
    /// Lifetime of a service app's token, in seconds; 3600 in Okta.
    #[arg(long, value_name = "SECONDS", default_value_t = 3600, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    token_lifetime: u64,
    /// Requires service apps to prove possession of a key (DPoP), as Okta does for new apps: tokens are bound to it.
    #[arg(long)]
    dpop: bool,
    /// With `--dpop`: requires the server's nonce in every proof, not only in those of token requests. Okta does not
    /// require it there today.
    #[arg(long, requires = "dpop")]
    dpop_nonce: bool,
    /// Requests per window of a bucket (a group of endpoints that share a rate limit), such as `users=600`; `all=N`
    /// sets every bucket. May be given several times.
    #[arg(long = "limit", value_name = "BUCKET=N", value_parser = limit)]
    limits: Vec<(Vec<Bucket>, u32)>,
    /// Length of a rate-limit window, in seconds; 60 in Okta.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    window: u64,
    /// Latency of each answer, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=600_000))]
    latency: u64,
    /// Seconds by which lists and searches lag behind writes; about one in Okta. Reads by id never lag.
    #[arg(long, value_name = "SECONDS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=600))]
    search_lag: u64,
    /// A custom attribute of users and its type (`string`, `number`, `integer`, `boolean` or `array`), such as
    /// `badge:string`. May be given several times.
    #[arg(long = "attribute", value_name = "NAME:TYPE", value_parser = attribute)]
    attributes: Vec<Attribute>,
    /// Number of users in the directory at the start.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    users: u32,
    /// Seed of ids and names: the same seed gives the same org.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
}

fn client(text: &str) -> Result<Client, String> {
    let (id, file) = text.split_once('=').ok_or("must look like `0oa1=public-key.pem`")?;
    let read = std::fs::read_to_string(file).map_err(|error| format!("failed to read `{file}`: {error}"))?;
    let key = PublicKey::parse(&read).map_err(|why| format!("`{file}` {why}"))?;
    Ok(Client { id: id.to_owned(), key, scopes: None })
}

fn attribute(text: &str) -> Result<Attribute, String> {
    let (name, kind) = text.split_once(':').ok_or("must look like `badge:string`")?;
    let kind = AttributeKind::read(kind)
        .ok_or("the type must be `string`, `number`, `integer`, `boolean` or `array`")?;
    Ok(Attribute { name: name.to_owned(), kind })
}

fn limit(text: &str) -> Result<(Vec<Bucket>, u32), String> {
    let (name, number) = text.split_once('=').ok_or("must look like `users=600`")?;
    let number = number.parse().map_err(|_| format!("`{number}` is not a number of requests"))?;
    let buckets = match Bucket::parse(name) {
        Some(bucket) => vec![bucket],
        None if name == EVERY_BUCKET => Bucket::ALL.to_vec(),
        None => {
            let known: Vec<_> = Bucket::ALL.into_iter().map(Bucket::as_str).chain([EVERY_BUCKET]).collect();
            return Err(format!("`{name}` is not a bucket: known are {}", known.join(", ")));
        }
    };
    Ok((buckets, number))
}

pub(super) async fn run(arguments: Arguments) -> Result<u8, NotBegun> {
    let mut stop = StopRequests::listen()?;
    let listen = arguments.listen;
    let listener = TcpListener::bind(listen)
        .await
        .map_err(|error| NotBegun(format!("failed to listen on {listen}: {error}")))?;
    let address = listener.local_addr().map_err(|error| NotBegun(error.to_string()))?;
    let limits: BTreeMap<Bucket, u32> = arguments
        .limits
        .iter()
        .flat_map(|(buckets, number)| buckets.iter().map(move |bucket| (*bucket, *number)))
        .collect();
    let proof = match (arguments.dpop, arguments.dpop_nonce) {
        (false, _) => ProofDemand::Nothing,
        (true, false) => ProofDemand::Proof,
        (true, true) => ProofDemand::ProofWithNonce,
    };
    let settings = OrgSettings {
        host: format!("http://{address}"),
        token: arguments.token.as_deref().map(Secret::new),
        clients: arguments.clients,
        token_lifetime: Duration::from_secs(arguments.token_lifetime),
        proof,
        limits,
        window: Duration::from_secs(arguments.window),
        search_lag: Duration::from_secs(arguments.search_lag),
        user_attributes: arguments.attributes,
        users: arguments.users as usize,
        seed: arguments.seed,
        ..OrgSettings::default()
    };
    let org = Arc::new(Mutex::new(Org::new(settings)));
    tell!("sandbox: a simulated Okta org on http://{address}");
    let latency = Duration::from_millis(arguments.latency);
    match serve(listener, org, latency, async move { stop.next().await }).await {
        Ok(()) => Ok(DONE),
        Err(error) => {
            complain!("okta-worker: failed to serve: {error}");
            Ok(FAILED)
        }
    }
}
