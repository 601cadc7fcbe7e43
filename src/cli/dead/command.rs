//! The subcommands of `okta-worker dead`, each run on the queue of parked messages.

use std::path::PathBuf;

use crate::cli::configuration::load_without_tokens;
use crate::cli::exit::NotBegun;
use crate::config::Config;

use super::session::{DeadSession, WalkEnd};
use super::{discard, list, replay, show};

/// Looks at parked messages, sends them back to work, or discards them.
///
/// Messages are parked in the queue `okta.dead` when they cannot be read and name nobody to tell, when they bring
/// workers down (`crash_loop`), when they meet a bug (`internal`), or when a policy on the broker drops them out of
/// their queue (`dropped`). Whoever sent them was told, if there was anybody. They are kept for `broker.dead_ttl`, and at most `broker.dead_max` of them: RabbitMQ drops the oldest
/// beyond that.
///
/// Needs the configuration of the workers and their broker user, but none of their Okta tokens.
///
/// Exit code: 0 done, 1 something could not be done or found, 2 refused before anything was done, 3 interrupted.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    #[command(subcommand)]
    command: DeadCommand,
}

#[derive(Debug, clap::Subcommand)]
enum DeadCommand {
    /// Lists parked messages, without their bodies unless asked for.
    ///
    /// They come in the order of the queue: mostly the oldest first, but what was looked at may have gone to its end.
    ///
    /// With `--json`, each line is an object with `id`, `parked`, `sent`, `connection`, `lane`, `subtool`, `caller`,
    /// `reason`, `attempts`, `redeliveries` and `bytes`; what is not known is `null`. `--raw` adds `body_text` or
    /// `body_base64`.
    List(list::Arguments),
    /// Shows all of a message, with its secrets masked.
    ///
    /// With `--json`, each line is the object that `list` has, and `properties`, `headers`, `address_fault`,
    /// `body_fault` and `body` with it; `--raw` has `body_text` or `body_base64` instead of `body`.
    Show(show::Arguments),
    /// Publishes parked messages again: a worker executes them, in the name of their original caller.
    ///
    /// Each goes to the lane it was for, with its id and where its answer goes, and counts as delivered before: a
    /// write that may have begun is looked for first. Its caller gets an answer, perhaps for the second time. A
    /// message whose deadline has passed is answered `deadline_exceeded`; without one of its own, that is ten minutes
    /// after it was sent in the lane `interactive` (`broker.interactive_deadline`) and never in `bulk`:
    /// `--lane bulk` gives it time. Interrupted at any moment, the same command goes on; what was replayed twice is
    /// done once.
    ///
    /// With `--json`, each line is an object with `id`, `key` (the routing key), `action` (`replayed`, `failed`; in a
    /// dry run `would_replay`, `cannot_replay`) and `note`.
    Replay(replay::Arguments),
    /// Discards parked messages for good; without `--yes` it only says which, and exits with 1.
    ///
    /// With `--json`, each line is an object with `id` and `action` (`discarded`, `failed`; without `--yes`
    /// `would_discard`).
    Discard(discard::Arguments),
}

pub(in crate::cli) async fn run(source: Option<PathBuf>, arguments: Arguments) -> Result<u8, NotBegun> {
    let config = &load_without_tokens(source.as_deref())?.config;
    match &arguments.command {
        DeadCommand::List(arguments) => {
            at_a_desk(config, async |session| list::run(session, arguments).await).await
        }
        DeadCommand::Show(arguments) => {
            at_a_desk(config, async |session| show::run(session, arguments).await).await
        }
        DeadCommand::Replay(arguments) => {
            let choice = arguments.choice()?;
            at_a_desk(config, async |session| replay::run(session, config, arguments, choice).await).await
        }
        DeadCommand::Discard(arguments) => {
            let choice = arguments.choice()?;
            at_a_desk(config, async |session| discard::run(session, arguments, choice).await).await
        }
    }
}

/// Runs a command on the queue, and returns the messages that it left in place, however the command ends.
async fn at_a_desk(
    config: &Config,
    work: impl AsyncFnOnce(&mut DeadSession) -> Result<u8, WalkEnd>,
) -> Result<u8, NotBegun> {
    let mut session = DeadSession::open(config).await?;
    let ended = work(&mut session).await;
    session.dead_letters.close().await;
    Ok(ended.unwrap_or_else(|stop| stop.code()))
}
