//! The form in which a command prints: text for people, or JSON Lines for programs.

/// The output format of a command.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(super) struct Form {
    /// Prints JSON Lines for programs.
    #[arg(long)]
    pub(super) json: bool,
}
