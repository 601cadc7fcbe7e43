//! What the worker costs beside the thinnest loop that does the same: consume, GET, confirmed reply, ack.
//!
//! ```text
//! cargo bench --bench throughput                                    6 rounds of 10,000 messages
//! cargo bench --bench throughput -- --rounds 2 --messages 2000      a short one
//! cargo bench --bench throughput -- --cpu-max 2.0                   fails when the worker costs more than twice
//! ```
//!
//! Worker, loop, broker and simulated org are processes of their own; only the CPU time of the first two is
//! compared. Rounds of both alternate, because the machine is never quiet for long: read the ratios.

mod cpu;
mod load;
#[path = "../support/mod.rs"]
mod support;
mod table;
mod thin;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context as _, ensure};
use clap::Parser;

use load::Load;
use support::node::Node;
use support::org::{Org, TOKEN, WORKER};
use support::process::Process;
use table::{Row, Table};

/// Where the worker takes invocations from.
const WORKER_QUEUE: &str = "okta.invocations.bench.interactive";

/// Where the thin loop takes invocations from.
const THIN_QUEUE: &str = "bench.thin";

/// Compares the worker with the thinnest loop that does the same work.
#[derive(Debug, Parser)]
struct Options {
    /// Measured rounds of each.
    #[arg(long, default_value_t = 6, env = "BENCH_ROUNDS")]
    rounds: usize,
    /// Messages in a round.
    #[arg(long, default_value_t = 10_000, env = "BENCH_MESSAGES")]
    messages: usize,
    /// Users in the simulated org.
    #[arg(long, default_value_t = 200, env = "BENCH_USERS")]
    users: usize,
    /// Fails when the median ratio of CPU is higher.
    #[arg(long, env = "BENCH_CPU_MAX")]
    cpu_max: Option<f64>,
    /// Another build of the worker, to compare it with this one's figures.
    #[arg(long, env = "BENCH_WORKER", default_value = WORKER, hide_default_value = true)]
    worker: PathBuf,
    /// The broker; without it, a private node is started and stopped.
    #[arg(long, env = "AMQP_URL", hide_env_values = true)]
    amqp_url: Option<String>,
    /// What `cargo bench` adds.
    #[arg(long, hide = true)]
    bench: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    // One TLS provider for the process, as in the worker.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some(thin::COMMAND) {
        let rest: Vec<String> = arguments.collect();
        thin::run(&rest).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let options = Options::parse();
    let table = measure(&options).await?;
    print!("{table}");
    let cpu = table.cpu_ratio();
    Ok(match options.cpu_max {
        Some(max) if cpu > max => {
            eprintln!("throughput: the worker costs {cpu:.2} times the thin loop, more than {max}");
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    })
}

async fn measure(options: &Options) -> anyhow::Result<Table> {
    let folder = tempfile::tempdir().context("failed to make a folder")?;
    let node = match &options.amqp_url {
        Some(url) => Node::Given(url.clone()),
        None => Node::start(&folder.path().join("broker"))?,
    };
    let url = node.url();

    let org = org(options, folder.path())?;
    let base_url = org.base_url();
    let mut load = Load::open(url, org.user_ids().await?).await?;
    load.declare(THIN_QUEUE).await?;

    let worker = worker(&options.worker, url, base_url, folder.path())?;
    let thin = thin(url, base_url, folder.path())?;
    load.await_consumer(WORKER_QUEUE).await?;
    load.await_consumer(THIN_QUEUE).await?;

    // The first round opens channels and connections and fills caches; it is not counted.
    let warm = (options.messages / 5).max(100);
    round(&mut load, &worker, "okta.invocations", "bench.interactive", warm).await?;
    round(&mut load, &thin, "", THIN_QUEUE, warm).await?;

    let mut table = Table::new(options.messages);
    for _ in 0..options.rounds {
        let ours =
            round(&mut load, &worker, "okta.invocations", "bench.interactive", options.messages).await?;
        let bare = round(&mut load, &thin, "", THIN_QUEUE, options.messages).await?;
        table.add(ours, bare);
    }
    load.close().await;
    Ok(table)
}

/// Sends messages, takes an answer for each, and reads what the process spent meanwhile.
async fn round(
    load: &mut Load,
    process: &Process,
    exchange: &str,
    key: &str,
    messages: usize,
) -> anyhow::Result<Row> {
    let (before, begun) = (cpu::used_by(process)?, Instant::now());
    load.run(exchange, key, messages).await?;
    let took = begun.elapsed();
    let cpu = cpu::used_by(process)? - before;
    ensure!(!cpu.is_zero(), "too few messages: the process spent less than one tick of CPU time");
    Ok(Row { messages, took, cpu })
}

/// The simulated org without limits that matter.
fn org(options: &Options, folder: &Path) -> anyhow::Result<Org> {
    let users = options.users.to_string();
    let arguments = ["--limit", "all=1000000000", "--users", &users];
    Org::start(&arguments.map(str::to_owned), folder)
}

/// Our worker with its defaults; its log goes to a file, as a collector would have it.
fn worker(program: &Path, url: &str, base_url: &str, folder: &Path) -> anyhow::Result<Process> {
    let set = |name: &str| format!("OKTA_WORKER__{name}");
    let mut command = Command::new(program);
    command
        .arg("run")
        .env(set("BROKER__URL"), url)
        .env(set("TELEMETRY__LISTEN"), "127.0.0.1:0")
        .env(set("CONNECTIONS__BENCH__BASE_URL"), base_url)
        .env(set("CONNECTIONS__BENCH__API_TOKEN"), TOKEN)
        .env(set("CONNECTIONS__BENCH__SUBTOOLS"), "read");
    Process::start(command, &folder.join("worker.log"))
}

/// This program again, as the thin loop.
fn thin(url: &str, base_url: &str, folder: &Path) -> anyhow::Result<Process> {
    let mut command = Command::new(std::env::current_exe().context("failed to find this program")?);
    command.args([thin::COMMAND, url, base_url, THIN_QUEUE]);
    Process::start(command, &folder.join("thin.log"))
}
