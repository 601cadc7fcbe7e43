//! `okta-worker submit`: sends the rows of a file to the queue, and collects a file of results.
//!
//! The steps: read the file and check every row; open journal and results, and read the state of earlier runs; open
//! the transport to a worker; send the remaining rows and write down their results. It may be killed at any moment
//! and run again: no row is lost, and none is done twice.

mod cancel;
mod checking;
mod error;
mod failing;
mod job;
mod journal;
mod line_file;
mod lines;
mod eta;
mod progress;
mod results;
mod transport;
mod row_set;
mod rows;
mod sending;
mod sequence;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::SignalKind;

use crate::config::Config;
use crate::domain::ids::{ConnectionName, Lane};
use crate::domain::topology::{UNCLAIMED, work_queue};
use crate::event::Observer;
use crate::rabbit::{Unopened, consumers, own_user};
use crate::tools::catalogue::{self, CatalogueEntry};
use crate::tools::hint::unknown;

use super::completions;
use super::configuration::{load, load_without_tokens, unknown_connection};
use super::exit::{DONE, FAILED, INTERRUPTED, NotBegun, REFUSED};
use super::signals::{StopRequests, listen};
use crate::cli::submit::eta::{Outlook, words};
use crate::cli::submit::transport::Transport;
use checking::check;
use error::JobError;
use job::{Attempts, JobId, JobTerms, SubmitJob, default_results};
use journal::{Begin, EarlierRuns, Journal};
use progress::ProgressDisplay;
use results::{Results, RowsDone};
use rows::{Delimiter, RowReader};
use sending::{Left, RunEnd, Sending, SubmitRun, Task};

/// The default capacity that a connection uses of a limit, in percent, and Okta's default window.
const USUAL: (u8, Duration) = (90, Duration::from_secs(60));

/// Sends the rows of a file as invocations and collects their results.
///
/// CSV: each heading names an argument (`user_id`, `profile.department`). Below `profile` it also names the type of
/// cells that are not text (`profile.isContractor:boolean`, also `integer`, `number`, `list`, `json`). An empty cell
/// leaves the argument out, `\null` clears, lists are split at `;`, blank rows are skipped. JSON Lines: one object of
/// arguments per line, or, without `--subtool`, one whole body.
///
/// It checks every row before it sends the first. After a kill, a stop or a full disk, run the same command again: it
/// continues where it stopped, and no row is executed twice. FILE.journal and the results file record the progress;
/// keep both until the job is done. Without its journal, a file is a new job, and all its rows are executed again. Once
/// a job is done, the same file with another connection, subtool or lane is a new job too; the earlier journal and
/// results are kept under other names.
///
/// Rows about the same user (`user_id` or `profile.login`), else the same group, else the same application, run in the
/// order of the file: each is sent after the result of the previous one. Other rows continue meanwhile; the file is
/// read at most 10,000 rows (or 8 MiB) ahead.
///
/// Exit code: 0 all rows succeeded, 1 some failed or, in a dry run, would fail, 2 refused before the first row was
/// sent, 3 stopped, or unable to continue.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The file with the rows: CSV or JSON Lines.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The connection to run the rows on.
    #[arg(long, value_name = "NAME", add = completions::connections())]
    connection: String,
    /// The subtool of all rows, such as `create_user`. Without it, each line is a whole body that names its subtool.
    #[arg(long, value_name = "S", add = completions::subtools())]
    subtool: Option<String>,
    /// The separator of the cells of a CSV file: a character, or `tab` [default: a comma].
    #[arg(long, value_name = "CHARACTER", value_parser = Delimiter::parse)]
    delimiter: Option<Delimiter>,
    /// One value for all rows, such as `group_id=00g1emaKYZTWRYYRRTSK`; may be given several times.
    #[arg(long, value_name = "PATH=VALUE")]
    set: Vec<String>,
    /// The lane: `bulk`, or `interactive` if a person or a program waits for the results.
    #[arg(long, value_name = "LANE", default_value = "bulk", value_parser = lane)]
    lane: Lane,
    /// The results file, one JSON object per line [default: FILE.results.jsonl; in a dry run FILE.dry.results.jsonl].
    #[arg(long, value_name = "FILE")]
    results: Option<PathBuf>,
    /// Has the worker plan each row and write nothing.
    #[arg(long)]
    dry_run: bool,
    /// Once all rows have a result, sends the failed rows again, each as a new invocation. The new results replace the
    /// earlier ones.
    #[arg(long, conflicts_with = "cancel")]
    retry_failed: bool,
    /// Ends a stopped job: it does not send the remaining rows, and workers drop the queued rows that have not begun.
    /// The results of both say `cancelled`; a later `--retry-failed` sends them again.
    #[arg(long)]
    cancel: bool,
    /// Runs the worker in this process, without a broker. The configuration must then have the credential.
    #[arg(long)]
    embedded: bool,
}

fn lane(text: &str) -> Result<Lane, String> {
    Lane::parse(text).ok_or_else(|| "must be `bulk` or `interactive`".to_owned())
}

pub(super) async fn run(source: Option<PathBuf>, arguments: Arguments) -> Result<u8, NotBegun> {
    match submit(source, arguments).await {
        Ok(code) => Ok(code),
        Err(JobError::Refused(why)) => Err(NotBegun(why)),
        Err(error @ (JobError::NoRoom(_) | JobError::Failed(_))) => {
            complain!("okta-worker: {error}");
            Ok(INTERRUPTED)
        }
    }
}

impl From<NotBegun> for JobError {
    fn from(NotBegun(why): NotBegun) -> Self {
        Self::Refused(why)
    }
}

async fn submit(source: Option<PathBuf>, arguments: Arguments) -> Result<u8, JobError> {
    let plan = plan(&arguments)?;
    let loaded =
        if arguments.embedded { load(source.as_deref()) } else { load_without_tokens(source.as_deref()) };
    let config = loaded?.config;
    let connection = connection(&config, &arguments)?;
    let known = config.connections.iter().find(|known| known.name == connection);
    let enabled = known.map(|known| (&known.name, &known.subtools));
    let checked = check(&plan, enabled).map_err(JobError::Refused)?;
    checked.warnings.iter().for_each(|warning| complain!("okta-worker: warning: {warning}"));
    let mut job = job(&arguments, &plan, connection, checked);
    ignore_the_file_size_signal()?;

    let begin = if arguments.cancel || arguments.retry_failed { Begin::Never } else { Begin::IfNew };
    let mut files = open(&mut job, begin)?;
    if arguments.retry_failed {
        files = retry(&mut job, files)?;
    }
    let Files { journal, past, results } = files;
    let task = if arguments.cancel { Task::Cancel } else { Task::Send };
    let rows = job.terms.rows;
    if results.rows.done.len() == rows {
        let what = if arguments.retry_failed { "no row has failed" } else { "every row has its result" };
        tell!("nothing to do: {what}");
        let run = SubmitRun { ended: Ok(RunEnd::Complete), left: Left::default() };
        return Ok(conclude(&job, &plan, &results.rows, None, task, &run));
    }

    let progress = ProgressDisplay::new(rows, eta(&config, &job.connection));
    progress.output().say(&format!("{rows} rows are good, {} of them are done", results.rows.done.len()));
    let awaited = past.confirmed.without(&results.rows.done).len();
    let (transport, user) = transport(&config, &job, awaited, arguments.embedded, &progress).await?;
    let mut stop = StopRequests::listen()?;
    if task == Task::Send && !arguments.embedded {
        say_if_nobody_consumes(&config, &job, &progress).await;
    }
    let mut sending = Sending { job: &job, plan: &plan, journal, past, results, transport, progress, user };
    let run = sending.run(task, &mut stop).await;
    let (done, took) = (&sending.results.rows, sending.progress.took());
    Ok(conclude(&job, &plan, done, Some(took), task, &run))
}

/// Says so if no worker consumes the connection now: its rows would wait in silence. A worker always consumes the
/// interactive lane.
async fn say_if_nobody_consumes(config: &Config, job: &SubmitJob, progress: &ProgressDisplay) {
    let queue = work_queue(&job.connection, Lane::Interactive);
    if consumers(&config.broker, &queue).await == Ok(0) {
        let connection = &job.connection;
        progress.output().say(&format!("no worker consumes `{connection}` now: the rows wait in its queue"));
    }
}

/// The open files of a job.
struct Files {
    journal: Journal,
    past: EarlierRuns,
    results: Results,
}

/// Opens journal and results, and reads the state of earlier runs.
fn open(job: &mut SubmitJob, begin: Begin) -> Result<Files, JobError> {
    let opened = Journal::open(job, begin)?;
    let (mut journal, past, note) = (opened.journal, opened.past, opened.note);
    let opened = Results::open(job, past.is_untouched() && !job.attempts.is_later())?;
    let results = opened.results;
    for note in [note, opened.note].into_iter().flatten() {
        complain!("submit: {note}");
    }
    let lost = past.answered.without(&results.rows.done).len();
    if lost > 0 {
        return Err(JobError::Refused(format!(
            "the results file `{}` lacks {lost} results that came already: put it back as it was",
            job.results.display()
        )));
    }
    // A run that ended at a bad moment has not recorded this in the journal.
    let unsaid: Vec<u64> = results.rows.done.without(&past.answered).iter().collect();
    journal.note(&[], &unsaid)?;
    Ok(Files { journal, past, results })
}

/// Begins another attempt at the failed rows, unless one is still in progress.
fn retry(job: &mut SubmitJob, files: Files) -> Result<Files, JobError> {
    let missing = job.terms.rows - files.results.rows.done.len();
    if missing > 0 && !job.attempts.is_later() {
        return Err(JobError::Refused(format!(
            "{missing} rows have no result yet: run the same command without `--retry-failed` until the job is done"
        )));
    }
    if missing > 0 || files.results.rows.failed.len() == 0 {
        return Ok(files);
    }
    let Files { mut journal, mut past, results } = files;
    journal.retry(JobId::random(), &results.rows.failed, &mut past, &mut job.attempts)?;
    drop(results);
    let results = Results::open(job, false)?.results;
    Ok(Files { journal, past, results })
}

/// Opens the transport to a worker; also returns the broker user that rows are sent as.
async fn transport(
    config: &Config,
    job: &SubmitJob,
    awaited: u64,
    embedded: bool,
    progress: &ProgressDisplay,
) -> Result<(Box<dyn Transport>, Option<String>), NotBegun> {
    let observer: Arc<dyn Observer> = Arc::new(progress.output());
    if embedded {
        return Ok((transport::inside(config, &job.connection, observer)?, None));
    }
    let user = own_user(config.broker.url.expose()).map_err(|ended| NotBegun(ended.to_string()))?;
    let queue = job.reply_queue();
    if !config.reply_to.allows(&queue) {
        let why = format!("`broker.reply_to` lets no results go to `{queue}`: add `okta.replies.*`");
        return Err(NotBegun(why));
    }
    let transport = transport::broker(config, &queue, awaited > 0, observer).await;
    Ok((transport.map_err(|why| unopened(job, awaited, &why))?, Some(user)))
}

/// Returns the plan for reading the file, from the arguments.
fn plan(arguments: &Arguments) -> Result<RowReader, NotBegun> {
    let Arguments { file, subtool, delimiter, set, .. } = arguments;
    let entry = subtool.as_deref().map(entry).transpose()?;
    RowReader::new(file.clone(), entry, *delimiter, set).map_err(NotBegun)
}

fn entry(name: &str) -> Result<&'static CatalogueEntry, NotBegun> {
    catalogue::find(name).ok_or_else(|| NotBegun(unknown(name)))
}

/// Returns the connection, which must be a configured one; if none is configured, only the worker knows.
fn connection(config: &Config, arguments: &Arguments) -> Result<ConnectionName, NotBegun> {
    let name = ConnectionName::parse(&arguments.connection).map_err(NotBegun)?;
    let known: Vec<&str> = config.connections.iter().map(|connection| connection.name.as_str()).collect();
    if known.contains(&name.as_str()) || known.is_empty() && !arguments.embedded {
        return Ok(name);
    }
    Err(unknown_connection(config, name.as_str()))
}

fn job(
    arguments: &Arguments,
    plan: &RowReader,
    connection: ConnectionName,
    checked: checking::Checked,
) -> SubmitJob {
    let Arguments { file, lane, results, dry_run, embedded, .. } = arguments;
    let results = results.clone().unwrap_or_else(|| default_results(file, *dry_run));
    let terms = JobTerms {
        sha256: checked.sha256,
        rows: checked.rows,
        subtool: plan.entry.map(|entry| entry.manifest.name.to_owned()),
        reading: plan.reading(),
        connection: connection.to_string(),
        lane: lane.to_string(),
        dry_run: *dry_run,
        embedded: *embedded,
    };
    let attempts = Attempts::new(JobId::random());
    SubmitJob { file: file.clone(), results, connection, lane: *lane, terms, attempts }
}

/// Builds the refusal for a transport that did not open, with advice if results are lost.
fn unopened(job: &SubmitJob, awaited: u64, why: &Unopened) -> NotBegun {
    match why {
        Unopened::Failed(why) => NotBegun(why.clone()),
        Unopened::Missing(_) => NotBegun(format!(
            "{why}: nobody read it for 7 days, or somebody deleted it. What came since is in `{UNCLAIMED}` for 7 days. \
             To have the {awaited} rows sent once more, marked as sent before, take the lines with `confirmed` out of \
             `{}`",
            job.journal().display()
        )),
    }
}

/// Returns the estimate before any result, from the configuration.
fn eta(config: &Config, name: &ConnectionName) -> Outlook {
    let known = config.connections.iter().find(|connection| connection.name == *name);
    let (percent, window) =
        known.map_or(USUAL, |connection| (connection.capacity_percent, connection.rate_limit_window));
    Outlook::new(percent, window)
}

/// Makes a write beyond `ulimit -f` fail like one on a full disk; the default action of its signal ends the process.
fn ignore_the_file_size_signal() -> Result<(), NotBegun> {
    /// SIGXFSZ on Linux, the BSDs and macOS.
    const FILE_SIZE: i32 = 25;
    listen(SignalKind::from_raw(FILE_SIZE)).map(drop)
}

/// Prints the summary, and returns the exit code.
fn conclude(
    job: &SubmitJob,
    plan: &RowReader,
    done: &RowsDone,
    took: Option<Duration>,
    task: Task,
    run: &SubmitRun,
) -> u8 {
    let tally = &done.tally;
    let took = took.map_or_else(String::new, |took| format!(" in {}", words(took)));
    let counts = Some(tally.words()).filter(|counts| !counts.is_empty());
    let counts = counts.map_or_else(String::new, |counts| format!(": {counts}"));
    let rows = job.terms.rows;
    let is_complete = run.ended == Ok(RunEnd::Complete);
    if let Err(error) = &run.ended {
        complain!("okta-worker: {error}");
    }
    match (is_complete, task) {
        (true, Task::Send) => tell!("done{took}, {rows} rows{counts}"),
        (true, Task::Cancel) => tell!("cancelled{took}, {rows} rows{counts}"),
        (false, _) => {
            tell!("interrupted{took}, {} of {rows} rows have a result{counts}", tally.rows);
            what_is_left(run.left, task);
        }
    }
    if !tally.errors.is_empty() {
        let errors: Vec<_> = tally.errors.iter().map(|(code, count)| format!("{count} {code}")).collect();
        tell!("  failed   {}", errors.join(", "));
    }
    failing::lines(plan, &job.results, &done.failed).iter().for_each(|line| tell!("    {line}"));
    tell!("  results  {}", job.results.display());
    let nothing_was_begun = tally.rows == 0 && run.left == Left::default();
    match &run.ended {
        Err(JobError::Failed(_) | JobError::Refused(_)) if nothing_was_begun => REFUSED,
        Err(_) | Ok(RunEnd::Interrupted) => INTERRUPTED,
        Ok(RunEnd::Complete) if tally.failures() > 0 => FAILED,
        Ok(RunEnd::Complete) => DONE,
    }
}

/// Prints the number of rows still with the workers, and what can be done about them.
fn what_is_left(Left { queued, doubtful }: Left, task: Task) {
    match task {
        Task::Send if queued > 0 => {
            tell!("  queued   {queued} rows are still in the queue, and workers go on with them")
        }
        Task::Cancel if queued > 0 => {
            tell!("  queued   {queued} rows are still in the queue: no worker has said that it drops them")
        }
        Task::Send | Task::Cancel => {}
    }
    if doubtful > 0 {
        tell!("  unsure   {doubtful} rows were on their way; the next run finds out what became of them");
    }
    tell!("  go on    the same command again");
    match task {
        Task::Send => tell!("  cancel   the same command with --cancel"),
        Task::Cancel => tell!("  or wait  the same command without --cancel"),
    }
}
