//! okta-worker: runs Okta operations from RabbitMQ, inside Okta's rate limits.

use std::process::ExitCode;

fn main() -> ExitCode {
    okta_worker::cli::main()
}
