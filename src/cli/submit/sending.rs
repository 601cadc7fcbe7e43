//! The sending of rows: each is handed over when the window has room and its order allows, awaited, and recorded at
//! each step.
//!
//! One task does everything, so nothing is shared. Invariants: a row is sent for the first time only after the
//! journal says so; a result is acknowledged only after it is on the disk, and never after a failed write; a row that
//! may have been sent before is marked as resent.

use std::fmt;
use std::fs::{File, Metadata};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use jiff::Timestamp;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout};

use crate::cli::signals::StopRequests;
use crate::domain::message::{Address, HeaderValue, Headers, Properties, Publish, RESENT, Receipt};
use crate::domain::topology::{INVOCATIONS, work_key};
use crate::rabbit::ReceivedResult;
use crate::worker::failpoint::{Point, reached};

use super::error::JobError;
use super::job::{RowReference, SubmitJob};
use super::journal::{EarlierRuns, Journal};
use super::progress::ProgressDisplay;
use super::results::{Answered, Results};
use super::row_set::RowSet;
use super::rows::{Next, Row, RowReader, Rows, dry};
use super::sequence::{Sequence, Unsent};
use super::transport::{Handed, Transport};

/// The number of rows recorded as sent at once, and so the most rows that a killed process leaves in doubt.
const BATCH: usize = 64;

/// The same limit in bytes: rows may be large.
const BATCH_BYTES: usize = 4 * 1024 * 1024;

/// The number of results synced and acknowledged at once; below the broker's prefetch limit.
pub(super) const FLUSH_ROWS: usize = 64;

/// The longest time that a received result waits to be synced.
pub(super) const FLUSH_EVERY: Duration = Duration::from_millis(200);

/// The time to wait for the first of the results that were already in the queue.
const WAITING_MAX: Duration = Duration::from_secs(10);

/// The delay before resending a row in doubt: its result may still arrive, and the broker is hardly back at once.
const SEND_AGAIN: Duration = Duration::from_millis(500);

/// The end of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RunEnd {
    /// Every row has a result.
    Complete,
    /// A signal stopped the run.
    Interrupted,
}

/// The purpose of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Task {
    /// Send the remaining rows, and await their results.
    Send,
    /// Drop the rows that have not begun.
    Cancel,
}

/// The result of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SubmitRun {
    /// The end of the run, or the reason that it cannot go on.
    pub ended: Result<RunEnd, JobError>,
    /// The rows that were handed over and have no result.
    pub left: Left,
}

/// The rows without a result that were handed over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Left {
    /// Rows that the broker has.
    pub queued: u64,
    /// Rows that were sent without a confirm: the broker may have them.
    pub doubtful: u64,
}

/// A row handed over, with the outcome.
struct SentRow {
    row: u64,
    post: Publish,
    handed: Handed,
}

/// The rows being handed over.
type Sends = FuturesUnordered<BoxFuture<'static, SentRow>>;

/// One run of a job.
pub(super) struct Sending<'a> {
    pub job: &'a SubmitJob,
    pub plan: &'a RowReader,
    pub journal: Journal,
    pub past: EarlierRuns,
    pub results: Results,
    pub transport: Box<dyn Transport>,
    pub progress: ProgressDisplay,
    /// Our user name at the broker.
    pub user: Option<String>,
}

/// The mutable state of a run.
pub(super) struct RunState {
    /// The rest of the file.
    rows: Option<Rows>,
    file: Metadata,
    /// The rows that were read and not sent.
    sequence: Sequence,
    sends: Sends,
    /// The rows at a worker or being sent, without a result.
    pub out: RowSet,
    /// The rows that the broker has, or had.
    kept: RowSet,
    /// The confirmed rows that are not in the journal yet.
    confirmed: Vec<u64>,
    pub answered: Vec<u64>,
    /// The receipt that acknowledges the written results, and no later ones.
    receipt: Option<Box<dyn Receipt>>,
    pub unflushed: usize,
}

impl Sending<'_> {
    /// Runs the job until every row has its result or `stop` counts a request to stop; a second request takes effect
    /// at once. In every case, the progress by then is recorded.
    pub async fn run(&mut self, task: Task, stop: &mut StopRequests) -> SubmitRun {
        let run = match self.begin() {
            Ok(mut state) => {
                let ended = match task {
                    Task::Send => self.go(&mut state, stop).await,
                    Task::Cancel => self.cancel(&mut state, stop).await,
                };
                let flushed = self.flush(&mut state).await;
                let ended = ended.and_then(|ended| flushed.map(|()| ended));
                SubmitRun { ended, left: state.left() }
            }
            Err(error) => SubmitRun { ended: Err(error), left: Left::default() },
        };
        self.transport.close().await;
        self.progress.end();
        run
    }

    fn begin(&self) -> Result<RunState, JobError> {
        let (rows, _) = Rows::open(self.plan).map_err(|error| self.unreadable(&error))?;
        Ok(RunState {
            rows: Some(rows),
            file: self.metadata()?,
            sequence: Sequence::default(),
            sends: Sends::new(),
            out: self.past.confirmed.without(&self.results.rows.done),
            kept: self.past.confirmed.clone(),
            confirmed: Vec::new(),
            answered: Vec::new(),
            receipt: None,
            unflushed: 0,
        })
    }

    fn unreadable(&self, error: &impl fmt::Display) -> JobError {
        JobError::Failed(format!("failed to read `{}`: {error}", self.plan.file.display()))
    }

    async fn go(&mut self, state: &mut RunState, stop: &mut StopRequests) -> Result<RunEnd, JobError> {
        self.take_what_waits(state).await?;
        let mut tick = interval(FLUSH_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut leave_at: Option<Instant> = None;
        loop {
            if leave_at.is_none() {
                self.send(state)?;
                if state.is_complete() {
                    return Ok(RunEnd::Complete);
                }
            }
            tokio::select! {
                () = stop.next() => {
                    let when_busy = if leave_at.is_none() { self.transport.grace() } else { Duration::ZERO };
                    leave_at = Some(Instant::now() + when_busy);
                    if !when_busy.is_zero() {
                        self.progress.output().say("stopping: nothing more is sent");
                    }
                }
                () = sleep_until(leave_at.unwrap_or_else(Instant::now)), if leave_at.is_some() => {
                    return Ok(RunEnd::Interrupted);
                }
                _ = tick.tick() => {
                    self.flush(state).await?;
                    self.progress.show(&self.results.rows.tally);
                }
                Some(sent) = state.sends.next() => self.sent(state, sent, leave_at.is_some())?,
                reply = self.transport.next() => {
                    self.take(state, reply.ok_or_else(no_way_back)?)?;
                }
            }
            if state.unflushed >= FLUSH_ROWS {
                self.flush(state).await?;
            }
            if leave_at.is_some() && state.sends.is_empty() && state.out.len() == 0 {
                return Ok(if state.is_complete() { RunEnd::Complete } else { RunEnd::Interrupted });
            }
        }
    }

    /// Takes the waiting results before sending: a row in doubt may already have its result in the queue.
    pub(super) async fn take_what_waits(&mut self, state: &mut RunState) -> Result<(), JobError> {
        for _ in 0..self.transport.waiting() {
            let Ok(Some(reply)) = timeout(WAITING_MAX, self.transport.next()).await else { break };
            self.take(state, reply)?;
            if state.unflushed >= FLUSH_ROWS {
                self.flush(state).await?;
            }
        }
        self.flush(state).await
    }

    /// Hands over as many rows as the window allows, if they are enough to be worth a journal entry.
    fn send(&mut self, state: &mut RunState) -> Result<(), JobError> {
        let window = usize::try_from(self.transport.window()).unwrap_or(usize::MAX);
        let out = usize::try_from(state.out.len()).unwrap_or(usize::MAX);
        let room = window.saturating_sub(out).min(BATCH.saturating_sub(state.sends.len()));
        if room == 0 || room < BATCH.min(window) / 4 && out > 0 {
            return Ok(());
        }
        let batch = self.batch(state, room)?;
        if batch.is_empty() {
            return Ok(());
        }
        let now = u64::try_from(Timestamp::now().as_second()).unwrap_or_default();
        let fresh: Vec<u64> =
            batch.iter().map(|row| row.number).filter(|row| self.past.first_sent(*row).is_none()).collect();
        if !fresh.is_empty() {
            state.confirmed.sort_unstable();
            self.journal.sending(&fresh, now, &std::mem::take(&mut state.confirmed))?;
        }
        for Unsent { number: row, body } in batch {
            let before = self.past.first_sent(row);
            let post = self.post(row, body, before.unwrap_or(now), before.is_some());
            state.out.insert(row);
            state.sends.push(self.hand_over(row, post, Duration::ZERO));
        }
        Ok(())
    }

    /// Returns the next rows that may be sent, in ascending order, without those that have a result or a worker has.
    fn batch(&self, state: &mut RunState, room: usize) -> Result<Vec<Unsent>, JobError> {
        let (mut batch, mut bytes, mut is_checked) = (Vec::new(), 0, false);
        while batch.len() < room && bytes < BATCH_BYTES {
            if let Some(row) = state.sequence.next() {
                bytes += row.body.len();
                batch.push(row);
                continue;
            }
            if state.sequence.is_full() {
                break;
            }
            if !std::mem::replace(&mut is_checked, true) {
                self.check_file(state)?;
            }
            let Some(row) = self.read(state)? else { break };
            if state.out.contains(row.number) {
                state.sequence.add_sent(row.number, &row.body);
            } else if !self.results.rows.done.contains(row.number) {
                state.sequence.add(Unsent { number: row.number, body: row.body });
            }
        }
        // The journal stores them as ascending ranges.
        batch.sort_unstable_by_key(|row| row.number);
        Ok(batch)
    }

    /// Returns the next row of the file.
    pub(super) fn read(&self, state: &mut RunState) -> Result<Option<Row>, JobError> {
        let Some(rows) = &mut state.rows else { return Ok(None) };
        match rows.next().map_err(|error| self.unreadable(&error))? {
            Next::Row(row) => return Ok(Some(row)),
            Next::End if rows.count() == self.job.terms.rows => state.rows = None,
            Next::End | Next::Faulty(_) => return Err(self.changed()),
        }
        self.check_file(state).map(|()| None)
    }

    /// Checks that the file is the same as when its rows were checked.
    fn check_file(&self, state: &RunState) -> Result<(), JobError> {
        let now = self.metadata()?;
        let is_same = now.len() == state.file.len() && now.modified().ok() == state.file.modified().ok();
        if is_same { Ok(()) } else { Err(self.changed()) }
    }

    fn changed(&self) -> JobError {
        JobError::Failed(format!("`{}` has changed while it was sent", self.plan.file.display()))
    }

    fn metadata(&self) -> Result<Metadata, JobError> {
        let metadata = File::open(&self.plan.file).and_then(|file| file.metadata());
        metadata.map_err(|error| self.unreadable(&error))
    }

    /// Builds the message of a row. A resent message differs only in the header that says so.
    fn post(&self, row: u64, body: Vec<u8>, first_sent: u64, is_resent: bool) -> Publish {
        let SubmitJob { connection, lane, terms, attempts, .. } = self.job;
        let body = if terms.dry_run { dry(&body) } else { body };
        let properties = Properties {
            message_id: Some(attempts.id(row)),
            reply_to: Some(self.transport.reply_to(self.job.reply_queue())),
            user_id: self.user.clone(),
            content_type: Some("application/json".to_owned()),
            timestamp: Some(first_sent),
            headers: if is_resent { resent() } else { Headers::new() },
            ..Properties::default()
        };
        let to = Address::Exchange(INVOCATIONS, work_key(connection, *lane));
        Publish { to, properties, body: Bytes::from(body) }
    }

    fn hand_over(&self, row: u64, post: Publish, wait: Duration) -> BoxFuture<'static, SentRow> {
        let out = self.transport.out();
        Box::pin(async move {
            sleep(wait).await;
            reached(Point::Publishing, post.properties.message_id.as_deref()).await;
            let handed = out.hand_over(&post).await;
            reached(Point::Confirmed, post.properties.message_id.as_deref()).await;
            SentRow { row, post, handed }
        })
    }

    /// Handles the outcome of handing over a row.
    fn sent(&self, state: &mut RunState, sent: SentRow, is_leaving: bool) -> Result<(), JobError> {
        let SentRow { row, mut post, handed } = sent;
        match handed {
            Handed::Kept => {
                state.kept.insert(row);
                state.confirmed.push(row);
            }
            Handed::Taken => {}
            Handed::Refused(why) => {
                state.out.remove(row);
                return Err(JobError::Failed(format!("the broker refuses row {row}: {why}")));
            }
            // Its result may have arrived all the same.
            Handed::Unclear if is_leaving || self.results.rows.done.contains(row) => {}
            Handed::Unclear => {
                post.properties.headers = resent();
                state.sends.push(self.hand_over(row, post, SEND_AGAIN));
            }
        }
        Ok(())
    }

    /// Records a result, unless its row has one or it belongs to no row. Only then may it be acknowledged.
    pub(super) fn take(&mut self, state: &mut RunState, reply: ReceivedResult) -> Result<(), JobError> {
        let answered = Answered::read(&reply.body);
        match answered.and_then(|it| self.row_of(&it).map(|row| (it, row))) {
            None => self.progress.output().say("a result that belongs to no row of this job is left out"),
            Some((answered, row)) => {
                if !self.results.rows.done.contains(row) {
                    self.results.add(row, &reply.body, answered.row_status())?;
                    self.progress.note(&answered);
                    state.answered.push(row);
                }
                state.out.remove(row);
                state.sequence.answered(row);
            }
        }
        state.receipt = Some(reply.receipt);
        state.unflushed += 1;
        Ok(())
    }

    /// Returns the row that a result belongs to.
    fn row_of(&self, answered: &Answered) -> Option<u64> {
        let RowReference::Row(row) = self.job.row_of(&answered.id) else { return None };
        let terms = &self.job.terms;
        let is = |known: &str, said: &Option<String>| said.as_ref().is_none_or(|said| said == known);
        let is_ours = is(&terms.connection, &answered.connection)
            && terms.subtool.as_ref().is_none_or(|subtool| is(subtool, &answered.subtool));
        is_ours.then_some(row)
    }

    /// Syncs the received results, then notes them in the journal, then acknowledges them. If the journal fails, the
    /// results are still acknowledged, because the results file has them; but the run ends.
    pub(super) async fn flush(&mut self, state: &mut RunState) -> Result<(), JobError> {
        if !state.answered.is_empty() {
            self.results.sync()?;
        }
        let (mut confirmed, mut answered) =
            (std::mem::take(&mut state.confirmed), std::mem::take(&mut state.answered));
        confirmed.sort_unstable();
        answered.sort_unstable();
        let noted = self.journal.note(&confirmed, &answered);
        state.unflushed = 0;
        if let Some(receipt) = state.receipt.take() {
            receipt.ack().await; // what could not be acknowledged comes again, and is known
        }
        noted
    }
}

/// Returns the error for a lost connection to the results.
pub(super) fn no_way_back() -> JobError {
    JobError::Failed("the way to the results is gone".to_owned())
}

impl RunState {
    /// Returns true if every row was sent and has its result.
    fn is_complete(&self) -> bool {
        let all_left = self.rows.is_none() && self.sequence.is_empty();
        all_left && self.sends.is_empty() && self.out.len() == 0
    }

    /// Returns the rows handed over that have no result.
    fn left(&self) -> Left {
        let doubtful = self.out.without(&self.kept).len();
        Left { queued: self.out.len() - doubtful, doubtful }
    }
}

fn resent() -> Headers {
    Headers::from([(RESENT.to_owned(), HeaderValue::Bool(true))])
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;
    use std::sync::{Arc, Mutex};

    use async_trait::async_trait;
    use tokio::sync::mpsc;

    use super::*;
    use crate::cli::submit::eta::Outlook;
    use crate::cli::submit::job::example;
    use crate::cli::submit::line_file::failing::Disk;
    use crate::cli::submit::transport::{Fate, Out};
    use crate::cli::submit::{journal, results};

    /// The events, in order.
    #[derive(Debug, Clone, Default)]
    struct Tape(Arc<Mutex<Vec<String>>>);

    impl Tape {
        fn note(&self, what: String) {
            self.0.lock().unwrap().push(what);
        }

        fn has(&self, what: &str) -> bool {
            self.0.lock().unwrap().iter().any(|noted| noted == what)
        }
    }

    #[async_trait]
    impl Out for Tape {
        async fn hand_over(&self, post: &Publish) -> Handed {
            self.note(format!("sent {}", post.properties.message_id.as_deref().unwrap()));
            Handed::Kept
        }
    }

    struct Scripted {
        tape: Tape,
        replies: mpsc::Receiver<ReceivedResult>,
    }

    #[async_trait]
    impl Transport for Scripted {
        fn out(&self) -> Arc<dyn Out> {
            Arc::new(self.tape.clone())
        }

        fn reply_to(&self, queue: String) -> String {
            queue
        }

        async fn next(&mut self) -> Option<ReceivedResult> {
            self.replies.recv().await
        }

        fn waiting(&self) -> u32 {
            0
        }

        fn window(&self) -> u64 {
            10
        }

        fn grace(&self) -> Duration {
            Duration::ZERO
        }

        fn fate(&self) -> Fate {
            Fate::Stay
        }

        async fn close(&mut self) {}
    }

    struct Acknowledges(Tape, u64);

    #[async_trait]
    impl Receipt for Acknowledges {
        fn is_live(&self) -> bool {
            true
        }

        async fn ack(self: Box<Self>) -> bool {
            self.0.note(format!("acknowledged {}", self.1));
            true
        }
    }

    /// Returns a job of three rows, with its file.
    struct Example {
        _dir: tempfile::TempDir,
        job: SubmitJob,
        plan: RowReader,
        tape: Tape,
    }

    impl Example {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let mut job = example(dir.path(), 3);
            job.file.set_extension("jsonl");
            let row = "{\"subtool\":\"list_users\"}\n";
            std::fs::write(&job.file, row.repeat(3)).unwrap();
            let plan = RowReader::new(job.file.clone(), None, None, &[]).unwrap();
            Self { _dir: dir, job, plan, tape: Tape::default() }
        }

        /// Returns the result of a row.
        fn reply(&self, row: u64) -> ReceivedResult {
            let id = self.job.attempts.id(row);
            let body = format!("{{\"id\":\"{id}\",\"status\":\"succeeded\",\"effect\":\"applied\"}}");
            ReceivedResult { body: body.into(), receipt: Box::new(Acknowledges(self.tape.clone(), row)) }
        }

        /// Returns a run whose files are on these disks, and the sender of results.
        fn sending(&self, journal: &Disk, results: &Disk) -> (Sending<'_>, mpsc::Sender<ReceivedResult>) {
            let (came, replies) = mpsc::channel(10);
            let sending = Sending {
                job: &self.job,
                plan: &self.plan,
                journal: journal::over(Box::new(journal.clone())),
                past: EarlierRuns::default(),
                results: results::over(Box::new(results.clone())),
                transport: Box::new(Scripted { tape: self.tape.clone(), replies }),
                progress: ProgressDisplay::new(3, Outlook::new(90, Duration::from_secs(60))),
                user: None,
            };
            (sending, came)
        }
    }

    /// Runs a job whose first two results have arrived.
    async fn run(journal: &Disk, results: &Disk) -> (SubmitRun, Tape) {
        let example = Example::new();
        let (mut sending, came) = example.sending(journal, results);
        for row in [1, 2] {
            came.try_send(example.reply(row)).ok().unwrap();
        }
        let (_count, mut stop) = StopRequests::counted_by();
        let run = sending.run(Task::Send, &mut stop).await;
        (run, example.tape.clone())
    }

    #[tokio::test(start_paused = true)]
    async fn a_result_that_was_not_written_is_not_acknowledged() {
        let (journal, results) = (Disk::with_room(9999), Disk::with_room(120));
        let (run, tape) = run(&journal, &results).await;
        assert!(matches!(run.ended, Err(JobError::NoRoom(_))), "{run:?}");
        assert_eq!(results.text().lines().count(), 1);
        assert!(tape.has("acknowledged 1") && !tape.has("acknowledged 2"), "{tape:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_result_that_the_disk_did_not_keep_is_not_acknowledged() {
        let (journal, results) = (Disk::with_room(9999), Disk::with_room(9999));
        results.fails_to_sync.store(true, Ordering::Relaxed);
        let (run, tape) = run(&journal, &results).await;
        assert!(matches!(run.ended, Err(JobError::NoRoom(_))), "{run:?}");
        assert!(!tape.has("acknowledged 1") && !tape.has("acknowledged 2"), "{tape:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_row_of_which_the_journal_cannot_say_that_it_leaves_does_not() {
        let (journal, results) = (Disk::with_room(20), Disk::with_room(9999));
        let (run, tape) = run(&journal, &results).await;
        assert!(matches!(run.ended, Err(JobError::NoRoom(_))), "{run:?}");
        assert_eq!((run.left, journal.text().as_str()), (Left::default(), ""));
        assert!(!tape.0.lock().unwrap().iter().any(|what| what.starts_with("sent")), "{tape:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_written_is_acknowledged_although_the_journal_has_no_room_to_say_so() {
        let (journal, results, example) = (Disk::with_room(20), Disk::with_room(9999), Example::new());
        let (mut sending, _came) = example.sending(&journal, &results);
        let mut state = sending.begin().unwrap();
        for row in [1, 2] {
            sending.take(&mut state, example.reply(row)).unwrap();
        }
        assert!(matches!(sending.flush(&mut state).await, Err(JobError::NoRoom(_))));
        assert_eq!(results.text().lines().count(), 2);
        assert!(example.tape.has("acknowledged 2"), "{:?}", example.tape);
    }
}
