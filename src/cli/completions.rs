//! `okta-worker completions`: the completion script of a shell.

use clap_complete::Shell;

use super::exit::{DONE, NotBegun};
use super::output::say;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Which shell.
    #[arg(value_enum, value_name = "SHELL")]
    shell: Shell,
}

/// Prints the script for the command line `root`.
pub(super) fn run(arguments: &Arguments, mut root: clap::Command) -> Result<u8, NotBegun> {
    let mut script = Vec::new();
    let name = root.get_name().to_owned();
    clap_complete::generate(arguments.shell, &mut root, name, &mut script);
    say(&script);
    Ok(DONE)
}
