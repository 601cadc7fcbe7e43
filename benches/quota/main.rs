//! How much of Okta's announced quota is used, and how many 429s that costs: our worker beside two rivals.
//!
//! ```text
//! cargo bench --bench quota                                            every row: close to an hour
//! cargo bench --bench quota -- --rows worker --windows 6               our worker alone, a short look
//! cargo bench --bench quota -- --workers 8 --rows sdk,static           rows whose name contains one of these
//! cargo bench --bench quota -- --markdown FILE                         writes the tables as a section, too
//! cargo bench --bench quota -- --quick                                 two minutes; fails when there was a 429
//! ```
//!
//! Workers, rivals, broker and simulated org are processes of their own. The org alone counts: what is reported
//! is what it let through and refused, window by window. A run in which the machine stood still is marked and
//! repeated, never dropped.

mod crew;
mod figures;
mod load;
mod others;
mod plan;
mod rival;
mod run;
mod section;
mod stall;
#[path = "../support/mod.rs"]
mod support;
mod table;
mod verdict;
mod waits;
mod windows;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use plan::{Row, WARM_UP};
use run::{Quiet, Run, Setup};
use section::Section;
use support::node::Node;
use support::org::WORKER;
use table::{Table, Windows};

/// How often a run is repeated in which the machine stood still.
const REPEATS_MAX: usize = 3;

/// Windows of a quick run. All are measured: a cold start is no excuse for a 429.
const QUICK_WINDOWS: usize = 3;

/// Measures how much of the announced quota is used, and what that costs.
#[derive(Debug, Parser)]
struct Options {
    /// Windows of a run; the first two are not measured.
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u64).range(3..=50))]
    windows: u64,
    /// Numbers of workers.
    #[arg(long, value_delimiter = ',', default_value = "1,3,8", value_parser = clap::value_parser!(u32).range(1..=64))]
    workers: Vec<u32>,
    /// Only rows whose name, such as `worker/3/alone` or `sdk/8/competing`, contains one of these.
    #[arg(long, value_delimiter = ',')]
    rows: Vec<String>,
    /// Milliseconds from one interactive invocation to the next; 0 for none.
    #[arg(long, default_value_t = 1000)]
    interactive: u64,
    /// Two short runs of our worker; fails when one of its requests was refused.
    #[arg(long)]
    quick: bool,
    /// Writes the tables into a file, as a section of a document.
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    /// Another build of the worker.
    #[arg(long, default_value = WORKER, hide_default_value = true)]
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
    if arguments.next().as_deref() == Some(rival::COMMAND) {
        let rest: Vec<String> = arguments.collect();
        rival::run(&rest).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let options = Options::parse();
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    // Dropped half way, a measurement ends its processes and its node.
    tokio::select! {
        measured = measure(&options) => measured,
        _ = terminate.recv() => Ok(ExitCode::FAILURE),
        _ = interrupt.recv() => Ok(ExitCode::FAILURE),
    }
}

async fn measure(options: &Options) -> anyhow::Result<ExitCode> {
    let (rows, windows, warm_up) = if options.quick {
        (plan::quick(), QUICK_WINDOWS, 0)
    } else {
        (plan::all(&options.workers), usize::try_from(options.windows)?, WARM_UP)
    };
    let rows: Vec<_> = rows.into_iter().filter(|row| options.admits(*row)).collect();
    ensure!(!rows.is_empty(), "no row has a name with one of {:?} in it", options.rows);

    let folder = tempfile::tempdir().context("failed to make a folder")?;
    let node = match &options.amqp_url {
        Some(url) => Node::Given(url.clone()),
        None => Node::start(&folder.path().join("broker"))?,
    };
    let interval = Some(Duration::from_millis(options.interactive)).filter(|interval| !interval.is_zero());
    let (worker, url, folder): (_, _, &Path) = (&options.worker, node.url(), folder.path());
    let setup = Setup { worker, url, windows, warm_up, interval, folder };

    let (mut runs, mut faults) = (Vec::new(), Vec::new());
    for row in rows {
        match measure_row(&setup, row, options, &mut runs).await {
            Ok(blamed) if options.quick => faults.extend(blamed),
            Ok(_) => {}
            Err(error) => faults.push(format!("failed to run {row}: {error:#}")),
        }
    }
    print!("\n{}", Table(&runs));
    faults.iter().for_each(|fault| eprintln!("quota: {fault}"));
    if let Some(file) = &options.markdown {
        let (runs, windows, broker) = (&runs, (windows - warm_up, warm_up), section::broker(&node));
        let section = Section { runs, windows, worker: &options.worker, broker };
        std::fs::write(file, section.to_string())
            .with_context(|| format!("failed to write `{}`", file.display()))?;
    }
    Ok(if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Options {
    fn admits(&self, row: Row) -> bool {
        self.rows.is_empty() || self.rows.iter().any(|part| row.to_string().contains(part))
    }
}

/// Runs a row until nothing has disturbed it, and says what the last run is to be blamed for.
async fn measure_row(
    setup: &Setup<'_>,
    row: Row,
    options: &Options,
    runs: &mut Vec<Run>,
) -> anyhow::Result<Vec<String>> {
    let mut repeats = 0;
    loop {
        let run = setup.run(row, repeats).await?;
        println!("\n{}{}", Table(std::slice::from_ref(&run)), Windows(std::slice::from_ref(&run)));
        let (faults, quiet) = (verdict::faults(&run), run.quiet);
        runs.push(run);
        // A quick run is asked for faults alone, and one without any needs no excuse.
        let is_settled = quiet == Quiet::Undisturbed || (options.quick && faults.is_empty());
        if is_settled || repeats == REPEATS_MAX {
            return Ok(faults);
        }
        repeats += 1;
        println!("{row} was disturbed ({quiet:?}); repeating it, {repeats} of {REPEATS_MAX}");
    }
}
