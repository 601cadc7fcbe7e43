//! `okta-worker completions`: the completion script of a shell, and the candidates that the script asks for.
//!
//! While a line is typed, the script calls this program, which knows the subtools and reads the connections from the
//! configuration.

use std::path::PathBuf;

use clap_complete::env::Shells;
use clap_complete::{ArgValueCandidates, CompleteEnv, CompletionCandidate, Shell};

use crate::tools::catalogue::CATALOGUE;

use super::configuration::connection_names;
use super::exit::{DONE, NotBegun};
use super::output::say;

/// The environment variable by which a script asks for candidates: the shell's name.
const ASKED: &str = "_OKTA_WORKER_COMPLETE";

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The shell.
    #[arg(value_enum, value_name = "SHELL")]
    shell: Shell,
}

/// Prints the script for the program of this name.
pub(super) fn run(arguments: &Arguments, name: &str) -> Result<u8, NotBegun> {
    let shells = Shells::builtins();
    let shell = shells.completer(&arguments.shell.to_string()).expect("the same shells are known there");
    let mut script = Vec::new();
    shell.write_registration(ASKED, name, name, name, &mut script).expect("a list of bytes takes everything");
    say(&script);
    Ok(DONE)
}

/// Answers a script that asks for candidates for the command line `root`, and ends the process then.
pub(super) fn answer(root: fn() -> clap::Command) {
    CompleteEnv::with_factory(root).var(ASKED).complete();
}

/// Returns the subtools as candidates of an argument.
pub(super) fn subtools() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        CATALOGUE
            .iter()
            .map(|entry| {
                CompletionCandidate::new(entry.manifest.name).help(Some(entry.manifest.summary.into()))
            })
            .collect()
    })
}

/// Returns the configured connections as candidates of an argument.
pub(super) fn connections() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        connection_names(typed_source()).into_iter().map(CompletionCandidate::new).collect()
    })
}

/// Returns the configuration that the typed line names: the words of the line follow `--`.
fn typed_source() -> Option<PathBuf> {
    let words: Vec<_> = std::env::args_os().skip_while(|word| word != "--").collect();
    let given = words.iter().zip(words.iter().skip(1)).find(|(name, _)| *name == "--config");
    let joined = || words.iter().find_map(|word| word.to_str()?.strip_prefix("--config=").map(PathBuf::from));
    let variable =
        || std::env::var_os("OKTA_WORKER_CONFIG").filter(|value| !value.is_empty()).map(PathBuf::from);
    given.map(|(_, value)| PathBuf::from(value)).or_else(joined).or_else(variable)
}
