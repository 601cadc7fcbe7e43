//! `okta-worker call`: one invocation straight to Okta, through the same worker and an in-process queue.

use std::io::{IsTerminal as _, Read as _};
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::value::RawValue;

use crate::domain::ids::ConnectionName;
use crate::domain::json::{self, indented};
use crate::domain::message::Properties;
use crate::domain::result::ErrorCode;
use crate::event::{Observer, Observers};

use super::completions;
use super::configuration::load;
use super::exit::{DONE, FAILED, NotBegun, REFUSED};
use super::in_process::InProcessWorker;

/// The end of the message about arguments that are no JSON: a shell has often eaten the quotation marks.
const ARGS_HINT: &str =
    "; it must be an object in single quotes, such as '{\"user_id\":\"jane@example.com\"}'";

/// The queue for the answer.
const REPLIES: &str = "stdout";

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The subtool, such as `get_user`; `okta-worker catalog` describes all of them.
    #[arg(add = completions::subtools())]
    subtool: String,
    /// The connection to run it on, by its name in the configuration.
    #[arg(long, value_name = "NAME", add = completions::connections())]
    connection: String,
    /// The arguments as a JSON object; `-` reads it from standard input, `@FILE` from a file.
    #[arg(long, value_name = "JSON|-|@FILE", default_value = "{}")]
    args: String,
    /// Plans a write with reads only, and shows what it would do.
    #[arg(long)]
    dry_run: bool,
    /// Prints the result on one line, also on a terminal.
    #[arg(long)]
    compact: bool,
}

/// The body of an invocation.
#[derive(serde::Serialize)]
struct CallBody<'a> {
    subtool: &'a str,
    arguments: &'a RawValue,
    options: CallOptions,
}

#[derive(serde::Serialize)]
struct CallOptions {
    dry_run: bool,
}

/// The parts of a result that decide the exit code.
#[derive(serde::Deserialize)]
struct ResultHead {
    error: Option<ErrorHead>,
    okta_calls: u32,
}

#[derive(serde::Deserialize)]
struct ErrorHead {
    code: ErrorCode,
}

pub(super) async fn run(source: Option<PathBuf>, arguments: Arguments) -> Result<u8, NotBegun> {
    let text = read(&arguments.args)?;
    let raw = serde_json::from_str::<&RawValue>(&text)
        .map_err(|error| NotBegun(format!("`--args` is not JSON: {error}{ARGS_HINT}")))?;
    let config = load(source.as_deref())?.config;
    let name = ConnectionName::parse(&arguments.connection).map_err(NotBegun)?;

    let observer: Arc<dyn Observer> = Arc::new(Observers(Vec::new()));
    let worker = InProcessWorker::of_connection(&config, &name, REPLIES, observer)?;

    let options = CallOptions { dry_run: arguments.dry_run };
    let body = json::to_vec(&CallBody { subtool: &arguments.subtool, arguments: raw, options });
    let properties = Properties { reply_to: Some(REPLIES.to_owned()), ..Properties::default() };
    worker.broker.publish(name.as_str(), properties, body);
    let answer = worker.broker.take(REPLIES).await.body;
    let text = String::from_utf8_lossy(&answer);
    match !arguments.compact && std::io::stdout().is_terminal() {
        true => tell!("{}", indented(&text)),
        false => tell!("{text}"),
    }
    Ok(exit_code(&answer))
}

fn exit_code(answer: &[u8]) -> u8 {
    let Ok(ResultHead { error, okta_calls }) = serde_json::from_slice(answer) else { return FAILED };
    match error {
        None => DONE,
        Some(ErrorHead { code }) if okta_calls == 0 && is_refusal(code) => REFUSED,
        Some(_) => FAILED,
    }
}

/// Returns true if a code means that execution did not begin.
fn is_refusal(code: ErrorCode) -> bool {
    match code {
        ErrorCode::InvalidMessage
        | ErrorCode::UnknownConnection
        | ErrorCode::UnknownSubtool
        | ErrorCode::InvalidArguments
        | ErrorCode::NotPermitted => true,
        ErrorCode::NotFound
        | ErrorCode::AlreadyExists
        | ErrorCode::PreconditionFailed
        | ErrorCode::OktaRejected
        | ErrorCode::Unauthorized
        | ErrorCode::Forbidden
        | ErrorCode::RateLimited
        | ErrorCode::DeadlineExceeded
        | ErrorCode::OktaUnavailable
        | ErrorCode::OutcomeUnknown
        | ErrorCode::Cancelled
        | ErrorCode::Internal => false,
    }
}

/// Reads the arguments as text.
fn read(args: &str) -> Result<String, NotBegun> {
    if args == "-" {
        let mut text = String::new();
        std::io::stdin()
            .read_to_string(&mut text)
            .map_err(|error| NotBegun(format!("failed to read standard input: {error}")))?;
        return Ok(text);
    }
    match args.strip_prefix('@') {
        Some(file) => std::fs::read_to_string(file)
            .map_err(|error| NotBegun(format!("failed to read `{file}`: {error}"))),
        None => Ok(args.to_owned()),
    }
}
