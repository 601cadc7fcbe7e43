//! `okta-worker man`: manual pages, from the same text as `--help`.

use clap_mangen::Man;

use super::exit::{DONE, NotBegun};
use super::output::say;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The command to describe, such as `dead replay`; without it, okta-worker itself.
    #[arg(value_name = "COMMAND")]
    command: Vec<String>,
}

/// Prints a page of the command line `root`.
pub(super) fn run(arguments: &Arguments, mut root: clap::Command) -> Result<u8, NotBegun> {
    root.build(); // so that each command knows its whole name
    let mut command = &root;
    for word in &arguments.command {
        command = command
            .find_subcommand(word)
            .ok_or_else(|| NotBegun(format!("`{}` has no command `{word}`", command.get_name())))?;
    }
    let mut page = Vec::new();
    Man::new(command.clone())
        .render(&mut page)
        .map_err(|error| NotBegun(format!("failed to write the page: {error}")))?;
    say(&page);
    Ok(DONE)
}
