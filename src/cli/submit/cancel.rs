//! `submit --cancel`: ends a job that was stopped.
//!
//! A row that was never sent gets a result that says so. For each row in the queue, the command asks the workers to
//! drop it, and the worker gives its result: `cancelled` only if the row had not begun.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream;
use jiff::Timestamp;
use serde::Deserialize;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use crate::domain::ids::Lane;
use crate::domain::json;
use crate::domain::message::{Address, CANCEL, Properties, Publish};
use crate::domain::result::{Effect, ErrorCode, Failure, ResultMessage, Status};
use crate::domain::topology::{INVOCATIONS, work_key};

use crate::cli::signals::StopRequests;

use super::error::JobError;
use super::results::RowStatus;
use super::row_set::RowSet;
use super::rows::Row;
use super::sending::{FLUSH_EVERY, FLUSH_ROWS, RunEnd, RunState, Sending};
use super::transport::{Fate, Handed};

/// The longest time between two answers of the workers.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// The number of unsent rows recorded at once.
const UNSENT_ROWS: usize = 1000;

/// The most cancel messages that wait for a confirm at once.
const ASKED_AT_ONCE: usize = 32;

/// The part of a body that the result repeats.
#[derive(Deserialize)]
struct WithSubtool<'a> {
    #[serde(borrow)]
    subtool: Cow<'a, str>,
}

impl Sending<'_> {
    /// Cancels the job, as far as the workers answer.
    pub(super) async fn cancel(
        &mut self,
        state: &mut RunState,
        stop: &mut StopRequests,
    ) -> Result<RunEnd, JobError> {
        self.take_what_waits(state).await?;
        let sent = self.cancel_unsent(state).await?;
        if sent.len() > 0 && self.transport.fate() == Fate::End {
            return Ok(RunEnd::Interrupted); // the worker that had them is gone
        }
        self.ask_workers(&sent).await?;
        let mut tick = interval(FLUSH_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard = Instant::now();
        while state.out.len() > 0 {
            tokio::select! {
                () = stop.next() => return Ok(RunEnd::Interrupted),
                () = sleep_until(heard + ANSWER_MAX) => return Ok(RunEnd::Interrupted),
                _ = tick.tick() => {
                    self.flush(state).await?;
                    self.progress.show(&self.results.rows.tally);
                }
                reply = self.transport.next() => {
                    self.take(state, reply.ok_or_else(super::sending::no_way_back)?)?;
                    heard = Instant::now();
                }
            }
            if state.unflushed >= FLUSH_ROWS {
                self.flush(state).await?;
            }
        }
        Ok(RunEnd::Complete)
    }

    /// Records the rows that were never sent as cancelled; returns those that were sent and have no result.
    async fn cancel_unsent(&mut self, state: &mut RunState) -> Result<RowSet, JobError> {
        let mut sent = RowSet::default();
        while let Some(row) = self.read(state)? {
            if self.results.rows.done.contains(row.number) {
                continue;
            }
            if state.out.contains(row.number) || self.past.first_sent(row.number).is_some() {
                state.out.insert(row.number);
                sent.insert(row.number);
                continue;
            }
            let status = RowStatus::Failed(ErrorCode::Cancelled.as_str());
            self.results.add(row.number, &json::to_vec(&self.cancelled(&row)), status)?;
            state.answered.push(row.number);
            if state.answered.len() >= UNSENT_ROWS {
                self.flush(state).await?;
            }
        }
        self.flush(state).await?;
        Ok(sent)
    }

    /// Builds the result of a row that was never sent.
    fn cancelled(&self, row: &Row) -> ResultMessage {
        let named: Option<WithSubtool<'_>> = serde_json::from_slice(&row.body).ok();
        ResultMessage {
            id: self.job.attempts.id(row.number),
            id_generated: false,
            deduplicated: false,
            connection: Some(self.job.connection.to_string()),
            subtool: named.map(|named| named.subtool.into_owned()),
            status: Status::Failed,
            effect: Effect::None,
            result: None,
            page: None,
            result_omitted: false,
            error: Some(Failure::new(ErrorCode::Cancelled, "the job was cancelled before the row was sent")),
            attempts: 0,
            okta_calls: 0,
            waited_ms: 0,
            duration_ms: 0,
            rate_limit: None,
            okta_request_ids: Vec::new(),
        }
    }

    /// Asks the workers to drop rows. In the lane of the rows, these requests queue behind the rows themselves, so
    /// the interactive lane, which workers serve first, is tried as well; a broker user may lack the right to it.
    async fn ask_workers(&self, rows: &RowSet) -> Result<(), JobError> {
        let mut lanes = BTreeSet::from([self.job.lane]);
        let Some(first) = rows.iter().next() else { return Ok(()) };
        if self.job.lane != Lane::Interactive
            && matches!(self.ask(first, Lane::Interactive).await, Handed::Kept | Handed::Unclear)
        {
            lanes.insert(Lane::Interactive);
        }
        for lane in lanes {
            let mut asked = stream::iter(rows.iter())
                .map(|row| async move { (row, self.ask(row, lane).await) })
                .buffer_unordered(ASKED_AT_ONCE);
            while let Some((row, handed)) = asked.next().await {
                if let Handed::Refused(why) = handed {
                    return Err(JobError::Failed(format!("the broker refuses to cancel row {row}: {why}")));
                }
            }
        }
        Ok(())
    }

    async fn ask(&self, row: u64, lane: Lane) -> Handed {
        let properties = Properties {
            message_id: Some(self.job.attempts.id(row)),
            reply_to: Some(self.transport.reply_to(self.job.reply_queue())),
            user_id: self.user.clone(),
            kind: Some(CANCEL.to_owned()),
            timestamp: u64::try_from(Timestamp::now().as_second()).ok(),
            ..Properties::default()
        };
        let to = Address::Exchange(INVOCATIONS, work_key(&self.job.connection, lane));
        self.transport.out().hand_over(&Publish { to, properties, body: Bytes::new() }).await
    }
}
