//! The workers of one run, each a process of its own.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

use super::plan::{Controller, LIMIT, Row, WINDOW};
use super::rival;
use super::support::org::TOKEN;
use super::support::process::Process;

/// What the workers of a run are pointed at.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    /// The worker's binary.
    pub worker: &'a Path,
    /// The broker.
    pub url: &'a str,
    /// The org.
    pub base_url: &'a str,
    /// The connection, part of the names of the queues.
    pub connection: &'a str,
    /// Where logs go.
    pub folder: &'a Path,
}

/// All workers of a run, ended when they are dropped, each with its log.
pub struct Crew(Vec<(Process, PathBuf)>);

impl Crew {
    pub fn start(row: Row, place: Place<'_>) -> anyhow::Result<Self> {
        let start = |number| {
            let command = match row.controller {
                Controller::Worker => worker(place),
                Controller::Sdk | Controller::Static => rival(row, place)?,
            };
            let log = place.folder.join(format!("{}-{number}.log", place.connection));
            anyhow::Ok((Process::start(command, &log)?, log))
        };
        Ok(Self((0..row.workers).map(start).collect::<Result<_, _>>()?))
    }

    /// How many have ended, although nobody told them to.
    pub fn ended(&mut self) -> usize {
        let ended = |(process, _): &mut (Process, PathBuf)| !matches!(process.child.try_wait(), Ok(None));
        self.0.iter_mut().map(ended).filter(|ended| *ended).count()
    }

    /// The last line that each has written.
    pub fn last_words(&self) -> String {
        let last = |log: &PathBuf| Some(std::fs::read_to_string(log).ok()?.lines().last()?.to_owned());
        self.0.iter().filter_map(|(_, log)| last(log)).collect::<Vec<_>>().join("\n")
    }
}

/// Our worker with its defaults, but for the share: all of the limit.
fn worker(place: Place<'_>) -> Command {
    let section = format!("CONNECTIONS__{}", place.connection.replace('-', "_").to_uppercase());
    let set = |name: &str| format!("OKTA_WORKER__{name}");
    let of_connection = |name: &str| set(&format!("{section}__{name}"));
    let mut command = Command::new(place.worker);
    command
        .arg("run")
        .env(set("BROKER__URL"), place.url)
        .env(set("TELEMETRY__LISTEN"), "127.0.0.1:0")
        .env(of_connection("BASE_URL"), place.base_url)
        .env(of_connection("API_TOKEN"), TOKEN)
        .env(of_connection("SUBTOOLS"), "read")
        .env(of_connection("RATE_LIMIT_WINDOW"), format!("{}s", WINDOW.as_secs()))
        .env(of_connection("CAPACITY_PERCENT"), "100");
    command
}

/// This program again, as a rival.
fn rival(row: Row, place: Place<'_>) -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::current_exe().context("failed to find this program")?);
    command.args([rival::COMMAND, place.url, place.base_url, place.connection]);
    if row.controller == Controller::Static {
        command.arg((WINDOW * row.workers / LIMIT).as_micros().to_string());
    }
    Ok(command)
}
