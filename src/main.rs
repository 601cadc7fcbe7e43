//! okta-worker: runs Okta operations from RabbitMQ, inside Okta's rate limits.

use std::process::ExitCode;

fn main() -> ExitCode {
    let built = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = built.expect("the machine has room for a few threads");
    let code = runtime.block_on(okta_worker::cli::main());
    // A thread that reads standard input cannot be stopped, so the process does not wait for it.
    runtime.shutdown_background();
    code
}
