//! The command line: what each command takes, and the file that runs it.

mod assembly;
mod call;
mod catalog;
mod check;
mod dead;
mod demo;
mod mcp;
mod reload;
mod run;
mod sandbox;
mod submit;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::{self, Loaded, Problems};

/// Everything was done.
const DONE: u8 = 0;
/// Something failed.
const FAILED: u8 = 1;
/// Nothing was begun: the command, the configuration or the invocation was refused.
const REFUSED: u8 = 2;
/// Told to stop before the end.
const INTERRUPTED: u8 = 3;

/// Runs Okta operations from RabbitMQ, inside Okta's rate limits.
///
/// New here? `okta-worker demo` needs no broker and no account.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
pub struct Cli {
    /// A TOML file, or a directory of them. Without it the built-in defaults hold.
    #[arg(long, global = true, value_name = "FILE", env = "OKTA_WORKER_CONFIG")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Consumes invocations until SIGTERM or SIGINT, then finishes what it has begun.
    Run,
    /// Onboards and offboards sixty people in a simulated org: no broker, no account, half a minute.
    Demo,
    /// Serves a simulated Okta org over HTTP.
    Sandbox(sandbox::Arguments),
    /// Runs one invocation straight against Okta, without a broker, and prints the result message.
    Call(call::Arguments),
    /// Checks configuration, broker and each connection's credential, and says what is wrong.
    Check(check::Arguments),
    /// Prints the definitions of the 28 subtools.
    Catalog(catalog::Arguments),
    Submit(submit::Arguments),
    Dead(dead::Arguments),
    Mcp(mcp::Arguments),
}

/// A command of the contract that this version does not build.
#[derive(Debug, clap::Args)]
struct NotYet {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    _rest: Vec<String>,
}

/// Runs the command of this process and returns its exit code.
pub async fn main() -> ExitCode {
    let Cli { config, command } = Cli::parse();
    // One TLS provider for the process; lapin and reqwest use whatever is installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let ended = match command {
        Command::Run => run::run(config).await,
        Command::Demo => demo::run().await,
        Command::Sandbox(arguments) => sandbox::run(arguments).await,
        Command::Call(arguments) => call::run(config, arguments).await,
        Command::Check(arguments) => check::run(config, &arguments).await,
        Command::Catalog(arguments) => catalog::run(&arguments),
        Command::Submit(arguments) => submit::run(config, arguments).await,
        Command::Dead(arguments) => dead::run(config, arguments).await,
        Command::Mcp(arguments) => mcp::run(config, arguments).await,
    };
    match ended {
        Ok(code) => ExitCode::from(code),
        Err(Refusal(why)) => {
            eprintln!("okta-worker: {why}");
            ExitCode::from(REFUSED)
        }
    }
}

/// Why a command was not begun.
#[derive(Debug)]
struct Refusal(String);

/// A command, option or format of the contract that this version does not build.
fn not_supported_yet(name: &str) -> Refusal {
    Refusal(format!("`{name}` is not supported yet"))
}

/// The environment of this process. `vars` panics on a variable that is not UTF-8; such a one sets nothing of
/// ours.
fn environment() -> impl Iterator<Item = (String, String)> {
    let utf8 = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    std::env::vars_os().filter_map(utf8)
}

/// Reads the configuration under the environment of this process.
fn read(source: Option<&Path>) -> Result<Loaded, Problems> {
    config::load(source, environment())
}

/// Reads the configuration and prints what is unwise about it.
fn load(source: Option<&Path>) -> Result<Loaded, Refusal> {
    accepted(read(source))
}

/// The same for commands that send nothing to Okta themselves: they know which connections there are, and start
/// where no token is.
fn load_without_tokens(source: Option<&Path>) -> Result<Loaded, Refusal> {
    accepted(config::load_without_tokens(source, environment()))
}

fn accepted(loaded: Result<Loaded, Problems>) -> Result<Loaded, Refusal> {
    let loaded = loaded.map_err(|problems| Refusal(format!("the configuration is refused:\n{problems}")))?;
    for warning in &loaded.warnings {
        eprintln!("okta-worker: warning: {warning}");
    }
    Ok(loaded)
}
