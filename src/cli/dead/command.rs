//! The subcommands of `okta-worker dead`, each run on the queue of parked messages.

use std::path::PathBuf;

use crate::cli::configuration::load_without_tokens;
use crate::cli::exit::NotBegun;
use crate::config::Config;

use super::session::{DeadSession, WalkEnd};
use super::{discard, list, replay, show};

/// Shows, replays or discards the messages in the dead-letter queue.
///
/// Workers park a message in the dead-letter queue `okta.dead` if they cannot read it and it has no `reply_to`
/// (`unreadable`), if it crashes workers (`crash_loop`), if it hits a bug (`internal`), or if a policy on the broker
/// drops it from its queue (`dropped`). In the last three cases its caller has an answer. RabbitMQ keeps parked
/// messages for `broker.dead_ttl`, and at most `broker.dead_max` of them: beyond that it drops the oldest.
///
/// This command needs the configuration of the workers and their broker user, but none of their Okta tokens.
///
/// Exit code: 0 done, 1 something could not be done or found, 2 refused before anything was done, 3 interrupted.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    #[command(subcommand)]
    command: DeadCommand,
}

#[derive(Debug, clap::Subcommand)]
enum DeadCommand {
    /// Lists parked messages; with `--raw` also their bodies.
    ///
    /// They come in the order of the queue: usually the oldest first, but messages that were listed or shown before may
    /// be at its end.
    ///
    /// With `--json`, each line is an object with `id`, `parked`, `sent`, `connection`, `lane`, `subtool`, `caller`,
    /// `reason`, `attempts`, `redeliveries` and `bytes`; an unknown value is `null`. `--raw` adds `body_text` or
    /// `body_base64`.
    List(list::Arguments),
    /// Shows whole messages, with their secrets masked.
    ///
    /// With `--json`, each line is the object of `list` with `properties`, `headers`, `address_fault`, `body_fault` and
    /// `body` added; with `--raw`, it has `body_text` or `body_base64` instead of `body`.
    Show(show::Arguments),
    /// Publishes parked messages again: a worker executes them, in the name of their original caller.
    ///
    /// A replayed message goes to its original lane, with its id and `reply_to`, and counts as a redelivery: the worker
    /// checks whether a write took effect before it sends the write again. The caller gets an answer, perhaps for the
    /// second time. If the deadline of the message has passed, the answer is `deadline_exceeded`. Without a deadline of
    /// its own, a message in the lane `interactive` has ten minutes from its sending (`broker.interactive_deadline`),
    /// and one in `bulk` has no deadline: use `--lane bulk` for old messages. If the command was interrupted, run it
    /// again: a message that is replayed twice takes effect once.
    ///
    /// With `--json`, each line is an object with `id`, `key` (the routing key), `action` (`replayed`, `failed`; in a
    /// dry run `would_replay`, `cannot_replay`) and `note`.
    Replay(replay::Arguments),
    /// Discards parked messages for good; without `--yes` it only lists them, and exits with 1.
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
