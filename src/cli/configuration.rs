//! The configuration of a command, read with the environment of this process.

use std::path::{Path, PathBuf};

use crate::config::{self, Config, ConfigProblems, Loaded};
use crate::domain::invocation::{list, nearest};
use crate::domain::text::shortened;

use super::exit::NotBegun;

/// Returns the environment of this process. `vars` panics on a variable that is not UTF-8; such a variable is
/// skipped.
fn environment() -> impl Iterator<Item = (String, String)> {
    let utf8 = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    std::env::vars_os().filter_map(utf8)
}

/// Reads the configuration with the environment of this process.
pub(super) fn read(source: Option<&Path>) -> Result<Loaded, ConfigProblems> {
    config::load(source, environment())
}

/// Reads the configuration and prints its warnings.
pub(super) fn load(source: Option<&Path>) -> Result<Loaded, NotBegun> {
    accepted(read(source))
}

/// Reads the configuration for commands that send nothing to Okta themselves: they know the connections, and start
/// without tokens.
pub(super) fn load_without_tokens(source: Option<&Path>) -> Result<Loaded, NotBegun> {
    accepted(config::load_without_tokens(source, environment()))
}

/// Returns the names of the configured connections; none if the configuration is refused.
pub(super) fn connection_names(source: Option<PathBuf>) -> Vec<String> {
    let loaded = config::load_without_tokens(source.as_deref(), environment());
    let connections = loaded.map(|loaded| loaded.config.connections).unwrap_or_default();
    connections.iter().map(|connection| connection.name.to_string()).collect()
}

pub(super) fn refused(problems: ConfigProblems) -> NotBegun {
    NotBegun(format!("the configuration is refused:\n{problems}"))
}

fn accepted(loaded: Result<Loaded, ConfigProblems>) -> Result<Loaded, NotBegun> {
    let loaded = loaded.map_err(refused)?;
    for warning in &loaded.warnings {
        complain!("okta-worker: warning: {warning}");
    }
    Ok(loaded)
}

/// Builds the refusal of an unknown connection, with the known names.
pub(super) fn unknown_connection(config: &Config, name: &str) -> NotBegun {
    let known: Vec<&str> = config.connections.iter().map(|connection| connection.name.as_str()).collect();
    let hint = match nearest(name, known.iter().copied()) {
        Some(near) => format!(", did you mean `{near}`?"),
        None if known.is_empty() => {
            ": none is configured; name the configuration by `--config FILE` or OKTA_WORKER_CONFIG".to_owned()
        }
        None => format!(", known are {}", list(&known)),
    };
    NotBegun(format!("unknown connection `{}`{hint}", shortened(name)))
}
