//! One connection to the broker: where it is, whom to trust, and a handshake in bounded time.
//!
//! Knows nothing of what is said on it. The URI holds a password, so no error quotes it.

use std::path::PathBuf;
use std::time::Duration;

use lapin::tcp::OwnedTLSConfig;
use lapin::uri::AMQPUri;
use lapin::{Connection, ConnectionProperties, ErrorKind};
use tokio::time::timeout;

use crate::edge::descriptors;
use crate::policy::retry::RetryRules;

use super::Settings;
use super::mending;
use super::supervisor::Ended;

/// How long reaching the broker may take, the AMQP handshake included: a peer that accepts and stays
/// silent would otherwise hold the worker for ever.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection may take to close in order: one that is gone already gets no answer.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// The waits between tries to reach the broker, or to get from it what is needed.
pub(super) const RECONNECT: RetryRules =
    RetryRules { attempts_max: u32::MAX, base: Duration::from_millis(500), cap: Duration::from_secs(30) };

/// The shortest of these waits.
pub(super) const RECONNECT_MIN: Duration = Duration::from_millis(250);

/// AMQP's code for a close that no error has led to.
const REPLY_SUCCESS: u16 = 200;

/// The way to the broker.
pub(super) struct Way {
    uri: AMQPUri,
    ca_file: Option<PathBuf>,
}

impl Way {
    /// The way that the settings name.
    ///
    /// # Errors
    /// When they cannot be used.
    pub fn new(settings: &Settings) -> Result<Self, Ended> {
        let way = Self { uri: uri(settings.url.expose())?, ca_file: settings.ca_file.clone() };
        way.trusted().map_err(Ended::Ca)?;
        Ok(way)
    }

    /// That the broker cannot be reached, and which.
    pub fn unreached(&self, why: &str) -> String {
        let AMQPUri { authority, .. } = &self.uri;
        let (host, port) = (&authority.host, authority.port);
        format!("failed to reach the broker at `{host}:{port}` (`broker.url`): {why}")
    }

    /// The certificates to trust as they are now: the file may be written anew while the worker runs.
    fn trusted(&self) -> std::io::Result<OwnedTLSConfig> {
        let certificates = self.ca_file.as_ref().map(std::fs::read_to_string).transpose()?;
        Ok(OwnedTLSConfig { cert_chain: certificates, identity: None })
    }

    /// Opens one connection, which the broker lists under its role.
    ///
    /// # Errors
    /// When there is none in time, in words.
    pub async fn connect(&self, role: &str) -> Result<Connection, String> {
        let (options, tls) = (Self::named(role), self.certificates()?);
        let connecting = async {
            let runtime = lapin::runtime::default_runtime()?;
            Connection::connect_uri_with_config(self.uri.clone(), options, tls, runtime).await
        };
        in_time(connecting).await
    }

    /// The same, for whoever must be able to read every message.
    ///
    /// # Errors
    /// When there is none in time, in words.
    pub async fn connect_mending(&self, role: &str) -> Result<Connection, String> {
        in_time(mending::connect(self.uri.clone(), Self::named(role), self.certificates()?)).await
    }

    fn named(role: &str) -> ConnectionProperties {
        ConnectionProperties::default().with_connection_name(format!("okta-worker {role}").into())
    }

    fn certificates(&self) -> Result<OwnedTLSConfig, String> {
        self.trusted().map_err(|error| format!("cannot read `broker.ca_file`: {error}"))
    }
}

async fn in_time(connecting: impl Future<Output = lapin::Result<Connection>>) -> Result<Connection, String> {
    match timeout(CONNECT_TIMEOUT, connecting).await {
        Ok(connected) => connected.map_err(|error| explain(&error)),
        Err(_) => Err(format!("no answer within {CONNECT_TIMEOUT:?}")),
    }
}

/// Closes a connection, if the broker still answers.
pub(super) async fn close(connection: &Connection) {
    let _ = timeout(CLOSE_TIMEOUT, connection.close(REPLY_SUCCESS, "done".into())).await;
}

/// The broker user in the URI: the worker's own.
///
/// # Errors
/// When the text is no AMQP URI.
pub fn own_user(url: &str) -> Result<String, Ended> {
    uri(url).map(|uri| uri.authority.userinfo.username)
}

pub(super) fn uri(url: &str) -> Result<AMQPUri, Ended> {
    // The parser's error may quote the URI with its password.
    url.parse::<AMQPUri>().map_err(|_| Ended::Uri("it does not parse".to_owned()))
}

/// An error of lapin's in words, without the URI.
pub(super) fn explain(error: &lapin::Error) -> String {
    match error.kind() {
        ErrorKind::ProtocolError(refusal) => refusal.get_message().to_string(),
        ErrorKind::IOError(error) if descriptors::are_exhausted_by(&**error) => {
            descriptors::EXHAUSTED.to_owned()
        }
        _ if descriptors::are_exhausted() => descriptors::EXHAUSTED.to_owned(),
        _ => error.to_string(),
    }
}
