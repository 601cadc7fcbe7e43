//! The figures as a section of a document: with the date, the machine and the versions they belong to.

use std::fmt;
use std::path::Path;
use std::process::Command;

use jiff::Timestamp;

use super::plan::{LATENCY, LIMIT, WINDOW};
use super::run::Run;
use super::support::node::{Node, SCRIPT};
use super::table::{Table, Windows};

/// The section.
pub struct Section<'a> {
    pub runs: &'a [Run],
    /// Measured windows of a run, and those of the warm-up.
    pub windows: (usize, usize),
    pub broker: String,
}

impl fmt::Display for Section<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let (measured, warm_up) = self.windows;
        writeln!(f, "## Figures\n")?;
        writeln!(
            f,
            "{}, okta-worker {}{}, {}, {}, {} cores. Windows of {} s with {LIMIT} requests, answers after {} ms; \
             {measured} windows after {warm_up} that are not counted.\n",
            Timestamp::now().strftime("%Y-%m-%d"),
            env!("CARGO_PKG_VERSION"),
            said("git", &["rev-parse", "--short", "HEAD"]).map_or(String::new(), |hash| format!(" ({hash})")),
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
