//! One connection to the broker: its nodes' addresses, the trusted certificates, and a handshake in bounded time.
//!
//! This file knows nothing of the traffic on the connection. The URI holds a password, so no error quotes it.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lapin::tcp::OwnedTLSConfig;
use lapin::uri::AMQPUri;
use lapin::{Connection, ConnectionProperties, ErrorKind};
use tokio::net::lookup_host;
use tokio::time::{sleep, timeout};

use crate::event::{Event, Observer};
use crate::policy::backoff::RetryRules;
use crate::telemetry::descriptors;

use super::stream::open;
use super::supervisor_end::SupervisorEnd;
use super::utf8_repair;
use crate::rabbit::BrokerSettings;

/// The timeout for reaching the broker, the AMQP handshake included: a peer that accepts the connection and then stays
/// silent would block the worker for ever.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The timeout for resolving a host name.
const RESOLVE_MAX: Duration = Duration::from_secs(4);

/// The timeout for closing a connection: a peer that is already gone does not answer.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// The waits between attempts to reach the broker, or to set up what the worker needs there.
pub(in crate::rabbit) const RECONNECT: RetryRules =
    RetryRules { attempts_max: u32::MAX, base: Duration::from_millis(500), cap: Duration::from_secs(30) };

/// The shortest of these waits.
pub(in crate::rabbit) const RECONNECT_MIN: Duration = Duration::from_millis(250);

/// AMQP's reply code for a normal close.
const REPLY_SUCCESS: u16 = 200;

/// The nodes of the broker; the last good one is tried first, then the remaining ones in turn.
pub(in crate::rabbit) struct BrokerNodes {
    nodes: Vec<AMQPUri>,
    /// The index of the node and address to try first.
    first: AtomicUsize,
    ca_file: Option<PathBuf>,
}

/// The treatment of incoming bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Incoming {
    /// The client library reads them unchanged.
    Unchanged,
    /// Frames that the library cannot parse are repaired first.
    Repaired,
}

impl BrokerNodes {
    /// Reads the nodes from the settings.
    ///
    /// # Errors
    /// If the settings cannot be used.
    pub fn new(settings: &BrokerSettings) -> Result<Self, SupervisorEnd> {
        let urls = [&settings.url].into_iter().chain(&settings.other_urls);
        let nodes = urls.map(|url| uri(url.expose())).collect::<Result<_, _>>()?;
        let broker = Self { nodes, first: AtomicUsize::new(0), ca_file: settings.ca_file.clone() };
        broker.trusted().map_err(SupervisorEnd::Ca)?;
        Ok(broker)
    }

    /// Returns the error text for a broker that cannot be reached, with its host and port.
    pub fn unreached(&self, why: &str) -> String {
        match &self.nodes[..] {
            [node] => {
                format!("failed to reach the broker at `{}` (`broker.url`): {why}", host_and_port(node))
            }
            _ => format!("failed to reach the broker (`broker.urls`): {why}"),
        }
    }

    /// Returns the certificates to trust. Reads the file each time: it may be replaced while the worker runs.
    fn trusted(&self) -> io::Result<OwnedTLSConfig> {
        let certificates = self.ca_file.as_ref().map(std::fs::read_to_string).transpose()?;
        Ok(OwnedTLSConfig { cert_chain: certificates, identity: None })
    }

    /// Notes that the connections are lost, and waits before the next attempt, at the next node or address.
    /// `failures` is the number of attempts in a row that have failed.
    pub async fn wait_to_reconnect(&self, failures: u32, why: &str, observer: &Arc<dyn Observer>) {
        self.advance();
        observer.note(&Event::Broker { connected: false, why });
        sleep(RECONNECT.wait(failures, fastrand::f64()).max(RECONNECT_MIN)).await;
    }

    /// Connects again; retries until it succeeds.
    pub async fn reconnect<S, Opening>(
        &self,
        mut why: String,
        observer: &Arc<dyn Observer>,
        open: impl Fn() -> Opening,
    ) -> S
    where
        Opening: Future<Output = Result<S, String>>,
    {
        let mut failures = 0;
        let session = loop {
            failures += 1;
            self.wait_to_reconnect(failures, &why, observer).await;
            match open().await {
                Ok(session) => break session,
                Err(again) => why = again,
            }
        };
        observer.note(&Event::Broker { connected: true, why: "connected again" });
        session
    }

    /// Moves on to the next node or address, because the current one has failed.
    fn advance(&self) {
        self.first.fetch_add(1, Ordering::Relaxed);
    }

    /// Opens one connection, which the broker lists under this role.
    ///
    /// # Errors
    /// A description of the failure, if there is no connection in time.
    pub async fn connect(&self, role: &str) -> Result<Connection, String> {
        self.connect_to_any(role, Incoming::Unchanged).await
    }

    /// Opens a connection that repairs frames that lapin cannot parse, for a consumer that must read every message.
    ///
    /// # Errors
    /// A description of the failure, if there is no connection in time.
    pub async fn connect_mending(&self, role: &str) -> Result<Connection, String> {
        self.connect_to_any(role, Incoming::Repaired).await
    }

    /// Tries the addresses in turn and returns the first connection.
    async fn connect_to_any(&self, role: &str, incoming: Incoming) -> Result<Connection, String> {
        let tls = self.certificates()?;
        let (mut candidates, mut failures) = (Vec::new(), Vec::new());
        for uri in &self.nodes {
            match addresses(uri).await {
                Ok(addresses) => candidates.extend(addresses.into_iter().map(|address| (uri, address))),
                Err(why) => failures.push((host_and_port(uri), why)),
            }
        }
        let first = self.first.load(Ordering::Relaxed) % candidates.len().max(1);
        candidates.rotate_left(first);
        for (uri, address) in candidates {
            let (options, tls) = (named(role), tls.clone());
            let opened = match incoming {
                Incoming::Unchanged => in_time(open(uri.clone(), address, options, tls)).await,
                Incoming::Repaired => in_time(utf8_repair::connect(uri.clone(), address, options, tls)).await,
            };
            match opened {
                Ok(connection) => return Ok(connection),
                Err(why) => failures.push((format!("{} at {address}", host_and_port(uri)), why)),
            }
            self.advance();
        }
        Err(match &failures[..] {
            [(_, why)] => why.clone(),
            _ => failures
                .iter()
                .map(|(address, why)| format!("`{address}`: {why}"))
                .collect::<Vec<_>>()
                .join("; "),
        })
    }

    fn certificates(&self) -> Result<OwnedTLSConfig, String> {
        self.trusted().map_err(|error| format!("cannot read `broker.ca_file`: {error}"))
    }
}

/// Returns the host and port of a node, without the rest of its URI.
fn host_and_port(uri: &AMQPUri) -> String {
    format!("{}:{}", uri.authority.host, uri.authority.port)
}

/// Returns the addresses of a node's host, in the resolver's order.
async fn addresses(uri: &AMQPUri) -> Result<Vec<SocketAddr>, String> {
    let host = uri.authority.host.trim_matches(['[', ']']); // of an IPv6 address
    match timeout(RESOLVE_MAX, lookup_host((host, uri.authority.port))).await {
        Ok(Ok(addresses)) => Ok(addresses.collect()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("its name was not resolved within {RESOLVE_MAX:?}")),
    }
}

/// Returns connection properties with the name that the broker lists.
fn named(role: &str) -> ConnectionProperties {
    ConnectionProperties::default().with_connection_name(format!("okta-worker {role}").into())
}

async fn in_time(connecting: impl Future<Output = lapin::Result<Connection>>) -> Result<Connection, String> {
    match timeout(CONNECT_TIMEOUT, connecting).await {
        Ok(connected) => connected.map_err(|error| explain(&error)),
        Err(_) => Err(format!("no answer within {CONNECT_TIMEOUT:?}")),
    }
}

/// Closes a connection, if the broker still answers.
pub(in crate::rabbit) async fn close(connection: &Connection) {
    let _ = timeout(CLOSE_TIMEOUT, connection.close(REPLY_SUCCESS, "done".into())).await;
}

/// Returns the worker's own broker user, from the URI.
///
/// # Errors
/// If the text is not an AMQP URI.
pub fn own_user(url: &str) -> Result<String, SupervisorEnd> {
    user_and_vhost(url).map(|(user, _)| user)
}

/// Returns the broker user and the virtual host in the URI.
///
/// # Errors
/// If the text is not an AMQP URI.
pub fn user_and_vhost(url: &str) -> Result<(String, String), SupervisorEnd> {
    uri(url).map(|uri| (uri.authority.userinfo.username, uri.vhost))
}

const UNPARSED: &str =
    "it does not parse: special characters in its password must be percent-encoded, such as `#` as `%23`";

pub(in crate::rabbit) fn uri(url: &str) -> Result<AMQPUri, SupervisorEnd> {
    // The parser's error may quote the URI with its password.
    url.parse::<AMQPUri>().map_err(|_| SupervisorEnd::Uri(UNPARSED.to_owned()))
}

/// Returns the text of a lapin error, without the URI.
pub(in crate::rabbit) fn explain(error: &lapin::Error) -> String {
    match error.kind() {
        ErrorKind::ProtocolError(refusal) => refusal.get_message().to_string(),
        ErrorKind::IOError(error) if descriptors::are_exhausted_by(&**error) => {
            descriptors::EXHAUSTED.to_owned()
        }
        _ if descriptors::are_exhausted() => descriptors::EXHAUSTED.to_owned(),
        _ => error.to_string(),
    }
}
