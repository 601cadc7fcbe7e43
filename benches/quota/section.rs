//! The figures as a section of a document: with the date, the machine and the versions they belong to.

use std::fmt;
use std::path::Path;
use std::process::Command;

use jiff::Timestamp;

use super::plan::{LATENCY, LIMIT, WINDOW};
use super::run::Run;
use super::support::node::{Node, SCRIPT};
use super::support::org::WORKER;
use super::table::{Table, Windows};

/// The section.
pub struct Section<'a> {
    pub runs: &'a [Run],
    /// Measured windows of a run, and those of the warm-up.
    pub windows: (usize, usize),
    pub worker: &'a Path,
    pub broker: String,
}

impl fmt::Display for Section<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let (measured, warm_up) = self.windows;
        writeln!(f, "## Figures\n")?;
        writeln!(
            f,
            "{}, {}, {}, {}, {} cores. Windows of {} s with {LIMIT} requests, answers after {} ms; {measured} \
             measured after {warm_up} that are not.\n",
            Timestamp::now().strftime("%Y-%m-%d"),
            build(self.worker),
            self.broker,
            said("rustc", &["--version"]).unwrap_or_else(|| "an unknown Rust".to_owned()),
            cores,
            WINDOW.as_secs(),
            LATENCY.as_millis(),
        )?;
        writeln!(f, "{}", Table(self.runs))?;
        writeln!(f, "### Window by window\n")?;
        write!(f, "{}", Windows(self.runs))
    }
}

/// Which build of the worker it is.
fn build(worker: &Path) -> String {
    let version = worker.to_str().and_then(|worker| said(worker, &["--version"]));
    let version = version.unwrap_or_else(|| "an unknown okta-worker".to_owned());
    let ours = Some(worker).filter(|worker| *worker == Path::new(WORKER));
    match ours.and_then(|_| said("git", &["describe", "--always", "--dirty"])) {
        Some(commit) => format!("{version} ({commit})"),
        None => version,
    }
}

/// Which broker it is.
pub fn broker(node: &Node) -> String {
    let version = match node {
        Node::Given(_) => None,
        Node::Private { folder, .. } => version(folder),
    };
    format!("RabbitMQ {}", version.unwrap_or_else(|| "of an unknown version".to_owned()))
}

fn version(folder: &Path) -> Option<String> {
    said(SCRIPT, &["ctl", folder.to_str()?, "-q", "version"])
}

/// The first line a command prints.
fn said(program: &str, arguments: &[&str]) -> Option<String> {
    let output =
        Command::new(program).args(arguments).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.lines().next()?.trim().to_owned())
}
