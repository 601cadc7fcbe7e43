//! The rows on their way: handed over as the window has room, awaited, and written down at each step.
//!
//! One task does it all, so nothing is shared. Invariants: a row leaves for the first time only after the journal
//! says so; a result is acknowledged only after it is on the disk; a row that may have left before says so.

use std::fs::{File, Metadata};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout};

use crate::domain::mail::{Address, HeaderValue, Headers, Post, Properties, RESENT, Receipt};
use crate::domain::topology::{INVOCATIONS, work_key};
use crate::edge::rabbit::Reply;
use crate::worker::killpoint::{Point, reached};

use super::job::Job;
use super::journal::{Journal, Past};
use super::progress::Progress;
use super::results::{Answered, Results};
use super::road::{Handed, Road};
use super::row_set::RowSet;
use super::rows::{Next, Plan, Rows, dry};

/// Rows that are written down as sent at once, and so the most that a dying process leaves in doubt.
const BATCH: usize = 64;

/// The same in bytes: rows may be large.
const BATCH_BYTES: usize = 4 * 1024 * 1024;

/// Results that are made safe and acknowledged at once; less than the broker gives unacknowledged.
const FLUSH_ROWS: usize = 64;

/// How long a result that came may wait for that.
const FLUSH_EVERY: Duration = Duration::from_millis(200);

/// How long the first of those results that waited before may take to come.
const WAITING_MAX: Duration = Duration::from_secs(10);

/// How long a row whose way is in doubt waits: its result may come, and the broker is hardly back at once.
const SEND_AGAIN: Duration = Duration::from_millis(500);

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// Every row has a result.
    Complete,
    /// Somebody stopped it.
    Interrupted,
}

/// A row on its way.
struct Sent {
    row: u64,
    post: Post,
    handed: Handed,
}

/// Rows on their way.
type Sends = FuturesUnordered<BoxFuture<'static, Sent>>;

/// One run of a job.
pub(super) struct Sending<'a> {
    pub job: &'a Job,
    pub plan: &'a Plan,
    pub journal: Journal,
    pub past: Past,
    pub results: Results,
    pub road: Road,
    pub progress: Progress,
    /// The user that the broker knows us by.
    pub user: Option<String>,
}

/// What changes while a run goes on.
struct State {
    rows: Option<Rows>,
    file: Metadata,
    sends: Sends,
    /// Rows that are with a worker, or on their way, and have no result.
    out: RowSet,
    /// What the journal does not say yet.
    confirmed: Vec<u64>,
    answered: Vec<u64>,
    /// Acknowledges what was written.
    receipt: Option<Box<dyn Receipt>>,
    unflushed: usize,
}

impl Sending<'_> {
    /// Runs the job until every row has its result or `stop` counts a request to stop; a second one is obeyed at
    /// once.
    ///
    /// # Errors
    /// When it cannot go on, in words. What was done by then is written down.
    pub async fn run(&mut self, stop: &mut watch::Receiver<u32>) -> Result<Ended, String> {
        let failed =
            |error: std::io::Error| format!("failed to read `{}`: {error}", self.plan.file.display());
        let (rows, _) = Rows::open(self.plan).map_err(failed)?;
        let mut state = State {
            rows: Some(rows),
            file: self.metadata()?,
            sends: Sends::new(),
            out: self.past.confirmed.without(&self.results.done),
            confirmed: Vec::new(),
            answered: Vec::new(),
            receipt: None,
            unflushed: 0,
        };
        let ended = self.go(&mut state, stop).await;
        let flushed = self.flush(&mut state).await;
        self.road.close().await;
        self.progress.end();
        let ended = ended?;
        flushed.map(|()| ended)
    }

    async fn go(&mut self, state: &mut State, stop: &mut watch::Receiver<u32>) -> Result<Ended, String> {
        self.take_what_waits(state).await?;
        let mut tick = interval(FLUSH_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut leave_at: Option<Instant> = None;
        loop {
            if leave_at.is_none() {
                self.send(state)?;
                if state.rows.is_none() && state.sends.is_empty() && state.out.len() == 0 {
                    return Ok(Ended::Complete);
                }
            }
            tokio::select! {
                told = stop.changed() => {
                    let patience = if leave_at.is_none() { self.road.grace() } else { Duration::ZERO };
                    leave_at = Some(Instant::now() + patience);
                    if told.is_ok() && !patience.is_zero() {
                        self.progress.voice().say("stopping: nothing more is sent");
                    }
                }
                () = sleep_until(leave_at.unwrap_or_else(Instant::now)), if leave_at.is_some() => {
                    return Ok(Ended::Interrupted);
                }
                _ = tick.tick() => {
                    self.flush(state).await?;
                    self.progress.show(&self.results.tally);
                }
                Some(sent) = state.sends.next() => self.sent(state, sent, leave_at.is_some())?,
                reply = self.road.next() => {
                    self.take(state, reply.ok_or("the way to the results is gone")?)?;
                }
            }
            if state.unflushed >= FLUSH_ROWS {
                self.flush(state).await?;
            }
            if leave_at.is_some() && state.sends.is_empty() && state.out.len() == 0 {
                return Ok(if state.rows.is_none() { Ended::Complete } else { Ended::Interrupted });
            }
        }
    }

    /// First of all: a row in doubt may have its result in the queue already.
    async fn take_what_waits(&mut self, state: &mut State) -> Result<(), String> {
        for _ in 0..self.road.waiting() {
            let Ok(Some(reply)) = timeout(WAITING_MAX, self.road.next()).await else { break };
            self.take(state, reply)?;
            if state.unflushed >= FLUSH_ROWS {
                self.flush(state).await?;
            }
        }
        self.flush(state).await
    }

    /// Hands over as many rows as there is room for, when it is worth writing them down.
    fn send(&mut self, state: &mut State) -> Result<(), String> {
        let window = usize::try_from(self.road.window()).unwrap_or(usize::MAX);
        let out = usize::try_from(state.out.len()).unwrap_or(usize::MAX);
        let room = window.saturating_sub(out).min(BATCH.saturating_sub(state.sends.len()));
        if state.rows.is_none() || room == 0 || room < BATCH.min(window) / 4 && out > 0 {
            return Ok(());
        }
        let batch = self.batch(state, room)?;
        let now = u64::try_from(Timestamp::now().as_second()).unwrap_or_default();
        let fresh: Vec<u64> =
            batch.iter().map(|(row, _)| *row).filter(|row| self.past.first_sent(*row).is_none()).collect();
        if !fresh.is_empty() {
            state.confirmed.sort_unstable();
            self.journal.sending(&fresh, now, &std::mem::take(&mut state.confirmed))?;
        }
        for (row, body) in batch {
            let before = self.past.first_sent(row);
            let post = self.post(row, body, before.unwrap_or(now), before.is_some());
            state.out.insert(row);
            state.sends.push(self.hand_over(row, post, Duration::ZERO));
        }
        Ok(())
    }

    /// The next rows that are neither done nor with a worker.
    fn batch(&self, state: &mut State, room: usize) -> Result<Vec<(u64, Vec<u8>)>, String> {
        let changed = || format!("`{}` has changed while it was sent", self.plan.file.display());
        let now = self.metadata()?;
        if now.len() != state.file.len() || now.modified().ok() != state.file.modified().ok() {
            return Err(changed());
        }
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while batch.len() < room && bytes < BATCH_BYTES {
            let Some(rows) = &mut state.rows else { break };
            match rows.next() {
                Ok(Next::Row(row)) => {
                    if self.results.done.contains(row.number) || state.out.contains(row.number) {
                        continue;
                    }
                    bytes += row.body.len();
                    batch.push((row.number, row.body));
                }
                Ok(Next::End) if rows.count() == self.job.identity.rows => state.rows = None,
                Ok(Next::End | Next::Faulty(_)) => return Err(changed()),
                Err(error) => return Err(format!("failed to read `{}`: {error}", self.plan.file.display())),
            }
        }
        Ok(batch)
    }

    fn metadata(&self) -> Result<Metadata, String> {
        let metadata = File::open(&self.plan.file).and_then(|file| file.metadata());
        metadata.map_err(|error| format!("failed to read `{}`: {error}", self.plan.file.display()))
    }

    /// The message of a row. Sent again, it is the same in everything but the header that says so.
    fn post(&self, row: u64, body: Vec<u8>, first_sent: u64, is_resent: bool) -> Post {
        let Job { connection, lane, identity, .. } = self.job;
        let body = if identity.dry_run { dry(&body) } else { body };
        let properties = Properties {
            message_id: Some(identity.id(row)),
            reply_to: Some(self.road.reply_to(identity.reply_queue())),
            user_id: self.user.clone(),
            content_type: Some("application/json".to_owned()),
            timestamp: Some(first_sent),
            headers: if is_resent { resent() } else { Headers::new() },
            ..Properties::default()
        };
        let to = Address::Exchange(INVOCATIONS, work_key(connection, *lane));
        Post { to, properties, body: Bytes::from(body) }
    }

    fn hand_over(&self, row: u64, post: Post, wait: Duration) -> BoxFuture<'static, Sent> {
        let out = self.road.out();
        Box::pin(async move {
            sleep(wait).await;
            reached(Point::Publishing, post.properties.message_id.as_deref()).await;
            let handed = out.hand_over(&post).await;
            reached(Point::Confirmed, post.properties.message_id.as_deref()).await;
            Sent { row, post, handed }
        })
    }

    /// A row was handed over, or not.
    fn sent(&self, state: &mut State, sent: Sent, is_leaving: bool) -> Result<(), String> {
        let Sent { row, mut post, handed } = sent;
        match handed {
            Handed::Kept => state.confirmed.push(row),
            Handed::Taken => {}
            Handed::Refused(why) => return Err(format!("the broker refuses row {row}: {why}")),
            // Its result may have come all the same.
            Handed::Unclear if is_leaving || self.results.done.contains(row) => {}
            Handed::Unclear => {
                post.properties.headers = resent();
                state.sends.push(self.hand_over(row, post, SEND_AGAIN));
            }
        }
        Ok(())
    }

    /// A result came: it is written, unless its row has one or it is none of ours.
    fn take(&mut self, state: &mut State, reply: Reply) -> Result<(), String> {
        state.receipt = Some(reply.receipt);
        state.unflushed += 1;
        let answered = Answered::read(&reply.body);
        let Some((answered, row)) = answered.and_then(|it| self.row_of(&it).map(|row| (it, row))) else {
            self.progress.voice().say("a result that belongs to no row of this file is left out");
            return Ok(());
        };
        state.out.remove(row);
        if !self.results.done.contains(row) {
            self.results.add(row, &reply.body, &answered)?;
            self.progress.note(&answered);
            state.answered.push(row);
        }
        Ok(())
    }

    /// The row that a result belongs to. A copy of the file under another name has the same ids.
    fn row_of(&self, answered: &Answered) -> Option<u64> {
        let identity = &self.job.identity;
        let is = |known: &str, said: &Option<String>| said.as_ref().is_none_or(|said| said == known);
        let is_ours = is(&identity.connection, &answered.connection)
            && identity.subtool.as_ref().is_none_or(|subtool| is(subtool, &answered.subtool));
        identity.row_of(&answered.id).filter(|_| is_ours)
    }

    /// Makes safe what came, then says so in the journal, then to the broker.
    async fn flush(&mut self, state: &mut State) -> Result<(), String> {
        if !state.answered.is_empty() {
            self.results.sync()?;
        }
        let (mut confirmed, mut answered) =
            (std::mem::take(&mut state.confirmed), std::mem::take(&mut state.answered));
        if !confirmed.is_empty() || !answered.is_empty() {
            confirmed.sort_unstable();
            answered.sort_unstable();
            self.journal.note(&confirmed, &answered)?;
        }
        state.unflushed = 0;
        if let Some(receipt) = state.receipt.take() {
            receipt.ack().await; // what could not be acknowledged comes again, and is known
        }
        Ok(())
    }
}

fn resent() -> Headers {
    Headers::from([(RESENT.to_owned(), HeaderValue::Bool(true))])
}
