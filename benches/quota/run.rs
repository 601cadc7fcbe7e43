//! One run: an org of its own, workers, callers, perhaps others, and the windows that were counted.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::crew::{Crew, Place};
use super::figures::Figures;
use super::load::Load;
use super::others;
use super::plan::{Controller, LATENCY, LIMIT, Others, Row, WINDOW};
use super::stall::Ticker;
use super::support::org::Org;
use super::waits::Waits;
use super::windows::{self, Window};

/// Users of the org: as many as one page lists.
const USERS: usize = 200;

/// How often the org is asked for its windows.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// How much longer than its windows a run may take: a controller may let a while pass between two windows, and
/// one that sleeps by a concurrency refusal's reset sleeps for 141 s.
const PATIENCE: Duration = Duration::from_secs(180);

/// What all runs have in common.
pub struct Setup<'a> {
    /// The worker's binary.
    pub worker: &'a Path,
    /// The broker.
    pub url: &'a str,
    /// Windows of a run, those of the warm-up included.
    pub windows: usize,
    /// Windows that are not measured.
    pub warm_up: usize,
    /// From one interactive invocation to the next; none are made without it.
    pub interval: Option<Duration>,
    /// Where logs go.
    pub folder: &'a Path,
}

/// What a run has shown.
pub struct Run {
    pub row: Row,
    pub figures: Figures,
    pub waits: Waits,
    /// Answers other than `succeeded`.
    pub failed: usize,
    pub quiet: Quiet,
}

/// Whether anything but the controllers had a part in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quiet {
    /// Nothing had.
    Undisturbed,
    /// The machine stood still for so long.
    Stalled(Duration),
    /// So many workers ended.
    Ended(usize),
}

impl Setup<'_> {
    /// Runs a row, the first time or again, with a connection and queues of its own.
    pub async fn run(&self, row: Row, repeats: usize) -> anyhow::Result<Run> {
        let connection = format!("quota-{}-{repeats}", row.to_string().replace('/', "-"));
        let org = Org::start(&org_arguments(), self.folder)?;
        // The first call of all, so that the org counts this token as its client 0.
        let users = org.user_ids().await?;
        let mut load = Load::open(self.url, &connection, users.clone()).await?;
        load.clear().await?;
        let (worker, folder, url) = (self.worker, self.folder, self.url);
        let place = Place { worker, url, base_url: org.base_url(), connection: &connection, folder };
        match row.controller {
            Controller::Worker => {} // declares its own
            // Rivals do not: of 200 that declared a new quorum queue, eight at once, RabbitMQ 3.10.8 cut 4 off
            // with an internal error, and they do not come back as the worker does.
            Controller::Sdk | Controller::Static => load.declare().await?,
        }
        let mut crew = Crew::start(row, place)?;
        let ready = load.await_workers(row.workers).await;
        ready.with_context(|| format!("the workers' last words:\n{}", crew.last_words()))?;

        let ticker = Ticker::start();
        let mut company = JoinSet::new();
        if row.others == Others::Competing {
            company.spawn(others::send(org.base_url().to_owned(), users, row.others.per_second()));
        }
        let seen = tokio::select! {
            fed = load.feed(self.interval) => match fed? {},
            seen = self.watch(org.base_url()) => seen?,
        };
        let figures = Figures::of(seen, self.warm_up)?;
        let quiet = match (crew.ended(), ticker.worst(figures.span)) {
            (0, None) => Quiet::Undisturbed,
            (0, Some(stall)) => Quiet::Stalled(stall),
            (ended, _) => Quiet::Ended(ended),
        };
        drop((company, crew));
        let run = Run { row, waits: load.waits(figures.span), failed: load.failed, figures, quiet };
        load.close().await?;
        Ok(run)
    }

    /// Waits until the window after the last one opens.
    async fn watch(&self, base_url: &str) -> anyhow::Result<Vec<Window>> {
        let (http, begun) = (reqwest::Client::new(), Instant::now());
        let mut seen = Vec::new();
        while begun.elapsed() < WINDOW * u32::try_from(self.windows)? + PATIENCE {
            seen = windows::look(&http, base_url).await?;
            if seen.len() > self.windows {
                seen.truncate(self.windows + 1);
                return Ok(seen);
            }
            sleep(LOOK_AGAIN).await;
        }
        ensure!(!seen.is_empty(), "no window has opened in all the time");
        bail!("only {} windows have opened in all the time", seen.len())
    }
}

fn org_arguments() -> Vec<String> {
    let (limit, window) = (format!("user_read={LIMIT}"), WINDOW.as_secs().to_string());
    let (latency, users) = (LATENCY.as_millis().to_string(), USERS.to_string());
    ["--limit", &limit, "--window", &window, "--latency", &latency, "--users", &users]
        .map(str::to_owned)
        .into()
}
