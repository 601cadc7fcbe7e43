//! All settings as one value, and the way to it: merge the layers, read each section, report every problem.

use std::path::Path;
use std::time::Duration;

use crate::policy::authorization::Callers;
use crate::policy::backoff::RetryRules;
use crate::policy::reply_to::ReplyPolicy;
use crate::rabbit::BrokerSettings;

use super::connection::{self, ConnectionSection};
use super::layers::{self, Variables};
use super::problem::{ConfigProblems, Findings};
use super::secret::SecretLookup;
use super::section::Section;
use super::telemetry::{self, Telemetry};
use super::tree::Table;
use super::{broker, callers, okta, retry};

/// A setting of the contract that this version refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotYet {
    /// The path.
    pub path: &'static str,
    /// A sample value, as TOML.
    pub example: &'static str,
}

/// The settings of the contract that this version refuses rather than ignores. `*` stands for
/// any name.
pub const NOT_YET: [NotYet; 1] =
    [NotYet { path: "telemetry.otlp_endpoint", example: "\"http://127.0.0.1:4317\"" }];

/// All settings.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Connection to RabbitMQ and its use.
    pub broker: BrokerSettings,
    /// The queues that results may go to.
    pub reply_to: ReplyPolicy,
    /// Default deadline of interactive invocations.
    pub interactive_deadline: Duration,
    /// The longest time that one message may spend on a list.
    pub list_time_max: Duration,
    /// The most bytes of Okta's answers held in memory.
    pub answer_bytes_max: u64,
    /// The Okta orgs, by name; there may be none.
    pub connections: Vec<ConnectionSection>,
    /// The permissions of callers.
    pub callers: Callers,
    /// The settings of retries.
    pub retry: RetryRules,
    /// Metrics and logs.
    pub telemetry: Telemetry,
}

/// A configuration, with warnings.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The settings.
    pub config: Config,
    /// One sentence each, with the path of the setting and without its value.
    pub warnings: Vec<String>,
}

/// Reads a file, or all `*.toml` files of a directory by name, overridden by environment variables.
///
/// In the environment, `OKTA_WORKER__…` sets keys and `{ env = … }` names further variables; the caller omits
/// names and values that are not UTF-8.
///
/// # Errors
/// All faults.
pub fn load(
    source: Option<&Path>,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Loaded, ConfigProblems> {
    read(source, environment.into_iter().collect(), SecretLookup::Read)
}

/// Loads a configuration for commands that send nothing to Okta and run without its tokens: no token and no
/// private key is looked up, and every [`Endpoint`](crate::okta::Endpoint) holds an empty one.
///
/// # Errors
/// All faults.
pub fn load_without_tokens(
    source: Option<&Path>,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Loaded, ConfigProblems> {
    read(source, environment.into_iter().collect(), SecretLookup::Leave)
}

fn read(source: Option<&Path>, variables: Variables, tokens: SecretLookup) -> Result<Loaded, ConfigProblems> {
    let findings = Findings::default();
    let settings = layers::merged(source, &variables, &findings);
    let config = assemble(settings, &variables, tokens, &findings);
    let warnings = findings.conclude()?;
    let config = config.expect("every setting was read, or `conclude` would have failed");
    Ok(Loaded { config, warnings })
}

/// Reads every section, even after a fault in one.
fn assemble(
    settings: Table,
    variables: &Variables,
    tokens: SecretLookup,
    findings: &Findings,
) -> Option<Config> {
    let mut root = Section::root(settings, findings);
    let names = root.names("connections");
    let broker = root.section("broker").and_then(|section| broker::read(section, variables));
    let connections = root.section("connections").and_then(|section| {
        let read = |(name, entry): (String, _)| connection::read(&name, entry, tokens, variables);
        let connections: Vec<_> = section.by_name().map(read).collect();
        connections.into_iter().collect::<Option<Vec<_>>>()
    });
    let answers = root.section("okta").and_then(okta::read);
    let callers = root.section("callers").and_then(|section| callers::read(section, &names));
    let retry = root.section("retry").and_then(retry::read);
    let telemetry = root.section("telemetry").and_then(telemetry::read);
    root.close();
    let broker = broker?;
    Some(Config {
        broker: broker.settings,
        reply_to: broker.reply_to,
        interactive_deadline: broker.interactive_deadline,
        list_time_max: broker.list_time_max,
        answer_bytes_max: answers?,
        connections: connections?,
        callers: callers?,
        retry: retry?,
        telemetry: telemetry?,
    })
}
