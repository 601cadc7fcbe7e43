//! The execution of one admitted invocation against Okta, until it has ended or leaves this delivery.
//!
//! The subtool returns its next request, the budget admits it, [`classify`](crate::policy::classify) gives the meaning
//! of the answer, and [`decide`] the next step. [`Execution::exchange`] carries out one [`Step`] per iteration.

mod ending;
mod planning;
mod sending;
mod waiting;

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::Instant;

use crate::domain::bucket::{Bucket, date};
use crate::domain::http::{Exchange, NoAnswer, Request, Response};
use crate::domain::message::Receipt;
use crate::domain::okta_error::OktaError;
use crate::domain::result::Outcome;
use crate::policy::backoff::{WAIT_IN_HAND_MAX, retry_after};
use crate::policy::classify::{LimitKind, Meaning};
use crate::policy::decide::{Attempt, Exhausted, Situation, Step, decide, decide_before_write};
use crate::policy::pause::PauseReason;
use crate::policy::refusal;
use crate::tools::output::Remaining;
use crate::tools::{Bounds, HistoryEntry, Idempotency, Move, Pager, Setting};

use super::admission::{Invocation, bounds};
use super::cancel::{Cancelled, Notice};
use super::cost::DeliveryCost;
use super::delay::Carried;
use super::frame::frame;
use super::lanes::InLane;
use super::okta_time::by_okta;
use super::probe;
use super::progress::Progress;
use super::rules::Rules;
use crate::event::{Event, Observer};

/// The verdict of an execution, or of its part in this delivery.
#[derive(Debug)]
pub(super) enum Verdict {
    /// The invocation has ended.
    Outcome(Outcome),
    /// A page of a list is to be answered, and the list goes on.
    Page(Box<RawValue>),
    /// The message is to come back after a delay, so that others can run meanwhile.
    Delay {
        /// The bucket that it would wait for.
        bucket: Bucket,
        /// The time until the bucket has room.
        wait: Duration,
    },
    /// The worker stops or the connection is paused: the message is to go back to its queue.
    HandBack,
    /// The caller has cancelled the invocation before its first request.
    Cancelled(Notice),
    /// The delivery's broker connection is gone: RabbitMQ delivers the message again.
    Stale,
}

/// Parts of the worker that an execution uses.
#[derive(Clone, Copy)]
pub(super) struct ExecutionContext<'a> {
    pub rules: &'a Rules,
    pub observer: &'a Arc<dyn Observer>,
    pub receipt: &'a dyn Receipt,
    /// Progress messages to the caller.
    pub progress: &'a Progress<'a>,
    /// Cancellations of callers.
    pub cancelled: &'a Cancelled,
    /// The message's place in its lane.
    pub in_lane: Option<&'a InLane>,
    /// The time after which the broker takes a delivery back, as far as is known.
    pub hold_max: Duration,
}

/// The execution of one invocation.
pub(super) struct Execution<'a> {
    invocation: &'a Invocation<'a>,
    rules: &'a Rules,
    context: ExecutionContext<'a>,
    history: Vec<HistoryEntry>,
    /// The list that is being read, with the items read so far.
    list: Option<Box<Pager>>,
    attempt: Attempt,
    begun: Instant,
    /// True if the worker can publish a copy of the message.
    may_leave: bool,
    /// A wait that is still due before the next request.
    owed: Duration,
    /// True if a list must end with the part that it has read, because its next request would wait too long.
    is_cut: bool,
    /// The failure of the last write with an unknown outcome, until that write is sent again.
    uncertain: Option<Result<Response, NoAnswer>>,
    /// Okta's refusal of the whole connection.
    refused: Option<OktaError>,
    cost: DeliveryCost,
}

impl<'a> Execution<'a> {
    pub fn new(invocation: &'a Invocation<'a>, context: ExecutionContext<'a>) -> Self {
        let history = &invocation.message.history;
        let rules = context.rules;
        Self {
            invocation,
            rules,
            context,
            history: Vec::new(),
            list: None,
            attempt: Attempt::new(history.attempts, history.may_have_run() && !invocation.is_read()),
            begun: Instant::now(),
            // Without its own broker user, the worker would not recognise its copies.
            may_leave: rules.own_user.is_some(),
            owed: Duration::ZERO,
            is_cut: false,
            uncertain: None,
            refused: None,
            cost: DeliveryCost::default(),
        }
    }

    /// Runs until the invocation has ended, or leaves this delivery.
    pub async fn run(&mut self) -> Verdict {
        match self.advance().await.unwrap_or_else(|end| end) {
            Verdict::Outcome(Outcome::Failed { effect, failure }) => self.kept_or_failed(effect, failure),
            end => end,
        }
    }

    /// Notes that the message cannot be copied, so it waits in hand.
    pub fn stay(&mut self) {
        self.may_leave = false;
    }

    /// Returns the cost of this delivery so far.
    pub fn cost(&self) -> DeliveryCost {
        DeliveryCost { attempts: self.attempt.of_this_delivery(), ..self.cost.clone() }
    }

    /// Returns the state that a copy of the message carries.
    pub fn so_far(&self) -> Carried {
        let waited = self.invocation.message.history.waited + self.cost.waited;
        Carried { attempts: self.attempt.spent(), waited, in_doubt: !self.attempt.has_written_nothing() }
    }

    /// Asks the subtool for its next request, sends it, and so on until the subtool is done.
    async fn advance(&mut self) -> Result<Verdict, Verdict> {
        loop {
            let request = match self.next_move() {
                Move::Send(request) => request,
                Move::Done(done, Remaining::Pages) => return Ok(Verdict::Page(done.output)),
                Move::Done(done, Remaining::Nothing) => {
                    return Ok(Verdict::Outcome(Outcome::Succeeded {
                        effect: done.effect,
                        result: done.output,
                    }));
                }
                Move::Planned(plan) => return Ok(Verdict::Outcome(self.planned(*plan))),
                Move::Refused(error) => {
                    return Ok(self.judged(refusal::name(self.invocation.subtool, *error)));
                }
                Move::Fail(failure) => return Ok(self.judged(*failure)),
            };
            if !request.is_read() {
                self.write_again(&request).await?;
            }
            let was_cut = self.is_cut;
            let entry = match self.exchange(*request).await {
                Err(Verdict::Delay { .. }) if self.is_cut && !was_cut => continue, // the list ends with its read part
                entry => entry?,
            };
            self.history.push(entry);
        }
    }

    fn next_move(&mut self) -> Move {
        let (history, ahead) = (&self.invocation.message.history, self.okta_ahead());
        let setting = Setting {
            bounds: self.bounds(),
            maybe_since: history.maybe_since(ahead),
            copied_since: history.copied_since(),
            is_settled: history.is_settled,
            okta_ahead: ahead.unwrap_or_default(),
            is_dry_run: self.invocation.envelope.options.dry_run,
        };
        let next = self.invocation.tool.resume(&mut self.list, &self.history, setting);
        if let Some(list) = &self.list {
            self.history.truncate(list.turns_before());
        }
        next
    }

    fn bounds(&self) -> Bounds<'a> {
        let is_overdue = self.is_cut || self.begun.elapsed() > self.rules.list_time_max;
        bounds(&self.invocation.envelope, frame(&self.invocation.message.id), is_overdue)
    }

    /// Begins another attempt for a write that follows one whose outcome was unknown, if there is one left.
    async fn write_again(&mut self, request: &Request) -> Result<(), Verdict> {
        let Some(answer) = self.uncertain.take() else { return Ok(()) };
        let last = self
            .history
            .iter()
            .rfind(|entry| matches!(entry, HistoryEntry::Unknown { .. }))
            .map(HistoryEntry::request);
        let has_reconciled = !matches!(self.history.last(), Some(HistoryEntry::Unknown { .. }));
        self.attempt.writes_again(has_reconciled && last == Some(request));
        match decide_before_write(&self.attempt, &self.situation(request, &answer, false)) {
            Some(Exhausted::GiveUp(failed)) => Err(self.gave_up(failed, &answer)),
            Some(Exhausted::Probe) => self.probe(request, &answer).await,
            None => Ok(()),
        }
    }

    /// Sends one request as often as necessary, and returns the history entry for the subtool.
    async fn exchange(&mut self, mut request: Request) -> Result<HistoryEntry, Verdict> {
        if !request.pause.is_zero() {
            self.rest(request.pause).await?;
        }
        loop {
            let (sent_at, answer, meaning) = self.send(&request).await?;
            let is_smaller = meaning.may_be_page_size() && request.is_read() && request.shrink_page();
            let situation = self.situation(&request, &answer, is_smaller);
            let step = decide(&self.attempt, meaning, &situation, fastrand::f64());
            self.note(&request, meaning, step);
            match step {
                Step::Continue => {
                    let response = answer.expect("only an answer is delivered");
                    self.learn_from(&request, &response);
                    return Ok(HistoryEntry::Answered(Exchange { request, response }));
                }
                Step::RetryIn(wait) => self.rest(wait).await?,
                Step::ReconcileIn(wait) => {
                    self.rest(wait).await?;
                    self.attempt.reconciles();
                    self.uncertain = Some(answer);
                    return Ok(HistoryEntry::Unknown { request, sent: sent_at });
                }
                Step::DelayFor(wait) => {
                    self.owed = wait.min(WAIT_IN_HAND_MAX); // in case the message cannot be copied
                    return Err(Verdict::Delay { bucket: request.bucket(), wait });
                }
                Step::HandBack => return Err(Verdict::HandBack),
                Step::Pause(reason) => self.pause(reason, &answer).await?,
                Step::Probe => self.probe(&request, &answer).await?,
                Step::GiveUp(failed) => return Err(self.gave_up(failed, &answer)),
            }
        }
    }

    fn situation(
        &self,
        request: &Request,
        answer: &Result<Response, NoAnswer>,
        is_smaller: bool,
    ) -> Situation {
        // A gateway's `Retry-After` does not count: only Okta's own does.
        let own = answer.as_ref().ok().filter(|response| OktaError::is_in(response));
        let now = self.rules.clock.now();
        let left = |at: Timestamp| Duration::try_from(at.duration_since(now)).unwrap_or_default();
        Situation {
            idempotency: self.invocation.tool.repeat(),
            lane: self.invocation.lane,
            may_leave: self.may_leave,
            is_read: request.is_read(),
            is_smaller,
            asked: own.and_then(|response| retry_after(&response.headers)),
            left: self.invocation.deadline.map(|deadline| left(deadline.ours)),
            good_answers: self.invocation.connection.breaker.good_answers(),
            retry: self.rules.retry,
        }
    }

    /// Notifies the observers of a rate limit or a retry, and counts its cost.
    fn note(&mut self, request: &Request, meaning: Meaning, step: Step) {
        let connection = &self.invocation.connection.name;
        let kind = match meaning {
            Meaning::Answered | Meaning::Refused(_) => return,
            Meaning::Limited(kind) => {
                let bucket = request.bucket();
                self.context.observer.note(&Event::RateLimited { connection, bucket, kind });
                if let (LimitKind::Concurrency, Step::RetryIn(wait)) = (kind, step) {
                    self.cost.waited += wait;
                }
                return;
            }
            Meaning::Failed(kind) => kind,
        };
        if let Step::RetryIn(wait) | Step::ReconcileIn(wait) | Step::DelayFor(wait) = step {
            let attempt = self.attempt.retry_of(kind);
            self.context.observer.note(&Event::Retried { connection, reason: kind, attempt, wait });
        }
    }

    /// Records the facts in an answer that the subtool gets: the connection works, Okta's time, a created object.
    fn learn_from(&mut self, request: &Request, response: &Response) {
        #[derive(Deserialize)]
        struct Created {
            id: String,
        }
        self.attempt.delivered(request.is_read(), response.is_success());
        self.refused = None;
        let connection = &self.invocation.connection;
        if response.is_success() && self.is_in_scope(request) {
            connection.breaker.record_success(self.invocation.scope);
        }
        if let Some(date) = date(&response.headers) {
            connection.okta_time.learn(date);
        }
        if request.method == http::Method::POST
            && response.is_success()
            && self.invocation.tool.repeat() == Idempotency::Create
            && let Some(Created { id }) = response.read()
        {
            connection.recent_creations.add(self.invocation.message.history.caller.as_deref(), id);
        }
    }

    /// Pauses the connection, and with it this invocation.
    async fn pause(
        &mut self,
        reason: PauseReason,
        answer: &Result<Response, NoAnswer>,
    ) -> Result<(), Verdict> {
        self.refused = answer.as_ref().ok().map(OktaError::read);
        let cause = (reason, &*probe::cause(answer));
        probe::pause(&self.invocation.connection, cause, self.invocation.scope, self.context.observer);
        // A probe may have succeeded in the same moment; without a wait the request would be repeated at once.
        self.rest(Duration::from_millis(1)).await
    }

    /// Probes the connection after the last attempt: a failed probe pauses it, a good one makes the failure final.
    async fn probe(&mut self, request: &Request, answer: &Result<Response, NoAnswer>) -> Result<(), Verdict> {
        let (connection, scope) = (&self.invocation.connection, self.invocation.scope);
        if !probe::probe(connection, PauseReason::Unreachable, scope, self.context.observer).await {
            return self.pause(PauseReason::Unreachable, answer).await;
        }
        connection.breaker.record_success(scope);
        match decide_before_write(&self.attempt, &self.situation(request, answer, false)) {
            Some(Exhausted::GiveUp(failed)) => Err(self.gave_up(failed, answer)),
            Some(Exhausted::Probe) | None => Ok(()),
        }
    }

    /// Returns true if a request needs the scope of its subtool; some requests read users on behalf of a group.
    fn is_in_scope(&self, request: &Request) -> bool {
        let resource = request.route.trim_start_matches("/api/v1/").split('/').next();
        resource == self.invocation.scope.split('.').nth(1)
    }

    /// Returns the time by which Okta's clock is ahead of the machine's, if that is known.
    fn okta_ahead(&self) -> Option<SignedDuration> {
        self.invocation.connection.ahead(&self.rules.clock)
    }

    /// Returns the time of day at a moment, by Okta's clock.
    fn time_of(&self, at: Instant) -> Timestamp {
        by_okta(self.rules.clock.time_of(at), self.okta_ahead())
    }
}
