//! `okta-worker completions`: the completion script of a shell.

use clap::CommandFactory as _;
use clap_complete::Shell;

use super::{Cli, DONE, NAME, NotBegun, say};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Which shell.
    #[arg(value_enum, value_name = "SHELL")]
    shell: Shell,
}

pub(super) fn run(arguments: &Arguments) -> Result<u8, NotBegun> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), NAME, &mut script);
    say(&script);
    Ok(DONE)
}
