//! Settings, from files and the environment, as the typed values that the other layers take.
//!
//! Three sources: the defaults ([`DEFAULT`]), the user's files by name, the environment. They are merged
//! first and read once, so every rule applies to the result, not to a single source. All
//! problems are reported together. Nothing here reads the process's environment: it is an argument.

mod broker;
mod callers;
mod change;
mod connection;
mod credential;
mod duration;
mod entry;
mod host;
mod layers;
mod okta;
mod problem;
mod retry;
mod secret;
mod section;
mod telemetry;
mod tree;

use std::path::Path;
use std::time::Duration;

use crate::policy::authorization::Callers;
use crate::policy::backoff::RetryRules;
use crate::policy::reply_to::ReplyPolicy;
use crate::rabbit::BrokerSettings;

pub use crate::telemetry::log::LogFormat;
pub use change::ConfigChange;
pub use connection::ConnectionSection;
pub use duration::parse as duration;
pub use problem::{ConfigProblem, ConfigProblems};
pub use telemetry::Telemetry;

use layers::Variables;
use problem::Findings;
use section::Section;
use tree::Table;

/// Every key with its default and its meaning; also the lowest layer.
pub const DEFAULT: &str = include_str!("../../config/worker.toml");

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

/// Treatment of Okta's tokens and keys: looked up, or left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SecretLookup {
    Read,
    Leave,
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
    let config = config.expect("a setting that could not be read is a problem, and there is none");
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
