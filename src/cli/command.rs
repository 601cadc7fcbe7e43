//! The command line: the arguments of each command, and the file that runs it.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::Resettable;
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::telemetry::{log, panics};

use super::exit::{FAILED, NotBegun, REFUSED};
use super::output;
use super::{call, catalog, check, completions, dead, demo, man, mcp, run, sandbox, submit};

/// The name of the program.
const NAME: &str = "okta-worker";

/// Runs Okta operations from RabbitMQ, within Okta's rate limits.
///
/// Programs publish small JSON messages (invocations) to a queue. okta-worker runs the named operation (subtool) in an
/// Okta org, and answers each message.
///
/// New here? `okta-worker demo` needs no broker and no account. Then write a configuration with one connection (the
/// worker's name for one org and its credential), test it with `okta-worker check`, try `okta-worker call`, and start
/// the worker with `okta-worker run`.
///
/// Output is coloured only on a terminal, and never if `NO_COLOR` is set.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
pub struct Cli {
    /// The configuration: a TOML file, or a directory whose `*.toml` are read in the order of their names. Without it,
    /// the built-in defaults apply, which have no connection.
    #[arg(long, global = true, value_name = "FILE", env = "OKTA_WORKER_CONFIG")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Consumes invocations until SIGTERM or SIGINT, then finishes what it has begun.
    ///
    /// This is the worker itself. It needs RabbitMQ (`broker.url`) and at least one connection, declares its queues,
    /// and reloads a changed configuration while it runs. After the first signal it ends within 25 seconds, after a
    /// second one at once. RabbitMQ redelivers messages that it has not finished to another worker.
    Run,
    /// Onboards and offboards sixty people in a simulated org: no broker, no account, about 12 seconds.
    ///
    /// The worker is the real one; the queue and Okta are simulated in the process. It needs no configuration and
    /// leaves nothing behind.
    Demo,
    /// Serves a simulated Okta org over HTTP.
    ///
    /// It has the rate limits, the errors and the behaviour of a real one, so that you can test producers and settings
    /// without an account. Point a connection's `base_url` at it, as in config/sandbox.toml.
    Sandbox(sandbox::Arguments),
    /// Runs one invocation directly against Okta, without a broker, and prints the result message.
    ///
    /// Use it to try a subtool or a credential: `okta-worker call get_user --connection prod --args
    /// '{"user_id":"jane@example.com"}'`. It executes writes; with `--dry-run` it only plans them.
    ///
    /// Exit code: 0 succeeded or planned, 1 failed, 2 refused before any request to Okta.
    Call(call::Arguments),
    /// Checks the configuration, the broker and each connection's credential, and reports what is wrong.
    ///
    /// It changes nothing. Exit code: 0 nothing is wrong, 1 something is wrong, 2 the configuration cannot be read.
    Check(check::Arguments),
    /// Prints the definitions of the subtools, or of one.
    ///
    /// It describes the arguments, cost and result of each, for people, for models that call subtools, and for code
    /// generators.
    Catalog(catalog::Arguments),
    Submit(submit::Arguments),
    Dead(dead::Arguments),
    Mcp(mcp::Arguments),
    /// Prints a shell script that completes commands, options, subtools and connections.
    ///
    /// For bash: `okta-worker completions bash > ~/.local/share/bash-completion/completions/okta-worker`. For other
    /// shells, write it to the directory from which they load completions.
    Completions(completions::Arguments),
    /// Prints a manual page.
    ///
    /// `okta-worker man | man -l -` shows it. Each command has its own page: `okta-worker man dead replay`.
    Man(man::Arguments),
}

/// Returns the command line in which an empty environment variable sets nothing.
fn without_empty_variables(command: clap::Command) -> clap::Command {
    let is_empty = |name: &std::ffi::OsStr| std::env::var_os(name).is_some_and(|value| value.is_empty());
    command
        .mut_args(|arg| match arg.get_env().is_some_and(is_empty) {
            true => arg.env(Resettable::Reset),
            false => arg,
        })
        .mut_subcommands(without_empty_variables)
}

/// Runs the command of this process and returns its exit code.
pub fn main() -> ExitCode {
    completions::answer(|| Cli::command().name(NAME));
    let built = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = built.expect("the machine has room for a few threads");
    let code = runtime.block_on(run_command());
    // A thread that reads standard input cannot be stopped, so the process does not wait for it.
    runtime.shutdown_background();
    code
}

async fn run_command() -> ExitCode {
    panics::report();
    let matches = without_empty_variables(Cli::command()).get_matches();
    let Cli { config, command } = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    // One TLS provider for the process; lapin and reqwest use the installed one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    // A job's summary may be lost; its results are in their file.
    let must_say_all = !matches!(command, Command::Submit(_));
    let ended = match command {
        Command::Run => run::run(config).await,
        Command::Demo => demo::run().await,
        Command::Sandbox(arguments) => sandbox::run(arguments).await,
        Command::Call(arguments) => call::run(config, arguments).await,
        Command::Check(arguments) => check::run(config, &arguments).await,
        Command::Catalog(arguments) => catalog::run(&arguments),
        Command::Submit(arguments) => submit::run(config, arguments).await,
        Command::Completions(arguments) => completions::run(&arguments, NAME),
        Command::Man(arguments) => man::run(&arguments, Cli::command().name(NAME)),
        Command::Dead(arguments) => dead::run(config, arguments).await,
        Command::Mcp(arguments) => mcp::run(config, arguments).await,
    };
    match ended {
        Ok(code) => ExitCode::from(if has_said_all() || !must_say_all { code } else { code.max(FAILED) }),
        Err(NotBegun(why)) => {
            log::flush();
            output::last_words(format!("okta-worker: {why}\n"));
            ExitCode::from(REFUSED)
        }
    }
}

/// Returns true if all output was printed, and reports it otherwise: the output of a command is its purpose.
fn has_said_all() -> bool {
    let unsaid = output::unsaid();
    if let Some(why) = &unsaid {
        complain!("okta-worker: failed to write to standard output: {why}");
    }
    unsaid.is_none()
}
