//! One admitted invocation talking with Okta until it has ended.
//!
//! The subtool says its next move, the budget lets it go, the answer is classified. What Okta said goes
//! back to the subtool; what failed for now is sent again where that is safe, and of a write that must not
//! be repeated blindly the subtool hears that its outcome is unclear, and looks.

mod cost;
mod planning;
mod setbacks;
mod verdict;
mod waiting;

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::Instant;

use crate::domain::answer::Outcome;
use crate::domain::bucket::{Bucket, date};
use crate::domain::http::{Exchange, NoAnswer, Request, Response};
use crate::domain::mail::Receipt;
use crate::domain::okta_error::OktaError;
use crate::policy::budget::told::{rate_of, told};
use crate::policy::budget::window::Told;
use crate::policy::classify::{Meaning, Trouble, classify, is_unauthorized, lacks_scope};
use crate::policy::refusal;
use crate::policy::retry::LAG;
use crate::tools::output::Remaining;
use crate::tools::{Bounds, Move, Pager, Repeat, Setting, Turn};

pub(in crate::worker) use self::cost::Cost;

use super::admission::{Job, bounds, too_late};
use super::answering::frame;
use super::cancelling::{Cancelled, Notice};
use super::event::{Event, Observer};
use super::killpoint::{Point, reached};
use super::lanes::InLane;
use super::okta_time::by_okta;
use super::ports::{Ask, NotNow, Patience, Permit};
use super::progress::{Progress, WaitingFor};
use super::pulse::Reason;
use super::rules::Rules;

/// How a talk ended.
#[derive(Debug)]
pub(super) enum End {
    /// There is something to answer.
    Outcome(Outcome),
    /// A page of a list is to be answered, and the list goes on.
    Page(Box<RawValue>),
    /// Nothing was sent, and the line is long: the message is to make room and come again.
    ComeAgain {
        /// The bucket it would wait for.
        bucket: Bucket,
        /// After how long.
        wait: Duration,
    },
    /// The worker stops or the connection is paused: the message is to go back to its queue.
    HandBack,
    /// Nothing was sent, and nobody wants it any more.
    Cancelled(Notice),
    /// The delivery's connection to the broker is gone: somebody else will have the message.
    Stale,
}

/// Who may have had a request executed that changes something, without our knowing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doubt {
    /// Nobody.
    None,
    /// An earlier delivery.
    Before,
    /// This one.
    Now,
}

/// What a conversation needs besides its job.
#[derive(Clone, Copy)]
pub(super) struct Company<'a> {
    pub rules: &'a Rules,
    pub observer: &'a Arc<dyn Observer>,
    pub receipt: &'a dyn Receipt,
    /// Who hears that it waits.
    pub progress: &'a Progress<'a>,
    /// What nobody wants any more.
    pub cancelled: &'a Cancelled,
    /// The message's place in its lane.
    pub in_lane: Option<&'a InLane>,
    /// How long the broker lets the message be in hand, as far as is known.
    pub hold_max: Duration,
}

/// The talk of one job.
pub(super) struct Conversation<'a> {
    job: &'a Job<'a>,
    rules: &'a Rules,
    company: Company<'a>,
    history: Vec<Turn>,
    throttled_in_a_row: u32,
    begun: Instant,
    /// What it does in a long line as long as nothing has been sent.
    patience: Patience,
    /// Whether the message may be handed back to its queue.
    may_hand_back: bool,
    /// A wait that is still to be taken before the next request.
    owed: Duration,
    /// Whether what has been read must do, because the next request would be waited for too long.
    is_cut: bool,
    /// Whether Okta has let a request through: from then on the work is finished, whatever the deadline.
    has_begun: bool,
    /// Whether a request that changes something may have been executed without our knowing.
    doubt: Doubt,
    /// The failure of the last write whose outcome is unclear, until it is sent again.
    unclear: Option<Result<Response, NoAnswer>>,
    /// Whether the next request begins another attempt.
    is_another: bool,
    /// True while the latest attempt has not failed: a message that is handed back in it has not spent it.
    is_open: bool,
    /// What Okta said when it failed for the whole connection.
    refused: Option<OktaError>,
    /// Attempts spent on what may fail for the whole connection.
    attempts_everywhere: u32,
    /// Okta's good answers on this connection when the first of those failed.
    beats_before: Option<u64>,
    /// Looks for what was just created and is not known everywhere.
    lags: u32,
    /// Failures of this machine in a row.
    local_failures: u32,
    /// The list on its way, with all that it has read.
    list: Option<Box<Pager>>,
    /// What it cost so far.
    pub cost: Cost,
}

impl<'a> Conversation<'a> {
    pub fn new(job: &'a Job<'a>, company: Company<'a>) -> Self {
        let rules = company.rules;
        Self {
            job,
            rules,
            company,
            history: Vec::new(),
            throttled_in_a_row: 0,
            begun: Instant::now(),
            // Without a user of its own the worker would not know its copies again.
            patience: if rules.own_user.is_some() { Patience::ComeAgain } else { Patience::Wait },
            may_hand_back: true,
            owed: Duration::ZERO,
            is_cut: false,
            has_begun: false,
            doubt: match job.letter.docket.may_have_run() && !job.is_read() {
                true => Doubt::Before,
                false => Doubt::None,
            },
            unclear: None,
            is_another: false,
            is_open: false,
            refused: None,
            attempts_everywhere: 0,
            beats_before: None,
            lags: 0,
            local_failures: 0,
            list: None,
            cost: Cost::default(),
        }
    }

    /// Talks until the invocation has ended, or must be left to another delivery.
    pub async fn hold(&mut self) -> End {
        match self.talk().await.unwrap_or_else(|end| end) {
            End::Outcome(Outcome::Failed { effect, failure }) => self.kept_or_failed(effect, failure),
            end => end,
        }
    }

    /// There is no copy of the message: what it waits for, it waits for here.
    pub fn stay(&mut self) {
        self.patience = Patience::Wait;
        self.may_hand_back = false;
    }

    /// Attempts spent so far, by earlier deliveries too.
    pub fn attempts(&self) -> u32 {
        self.job.letter.docket.attempts.saturating_add(self.cost.attempts)
    }

    /// Time spent waiting for the budget so far, by earlier deliveries too.
    pub fn waited(&self) -> Duration {
        self.job.letter.docket.waited + self.cost.waited
    }

    /// How far Okta's clock is ahead of the machine's, as far as that is known.
    fn okta_ahead(&self) -> Option<SignedDuration> {
        self.job.connection.ahead(&self.rules.clock)
    }

    /// The time of day at a moment, as everybody else has it.
    fn time_of(&self, at: Instant) -> Timestamp {
        by_okta(self.rules.clock.time_of(at), self.okta_ahead())
    }

    async fn talk(&mut self) -> Result<End, End> {
        loop {
            let ahead = self.okta_ahead();
            let setting = Setting {
                bounds: self.bounds(),
                maybe_since: self.job.letter.docket.maybe_since(ahead),
                is_settled: self.job.letter.docket.is_settled,
                okta_ahead: ahead.unwrap_or_default(),
                is_dry_run: self.job.envelope.options.dry_run,
            };
            let next = self.job.tool.resume(&mut self.list, &self.history, setting);
            if let Some(list) = &self.list {
                self.history.truncate(list.turns_before());
            }
            let request = match next {
                Move::Send(request) => request,
                Move::Done(done, Remaining::Pages) => return Ok(End::Page(done.output)),
                Move::Done(done, Remaining::Nothing) => {
                    return Ok(End::Outcome(Outcome::Succeeded { effect: done.effect, result: done.output }));
                }
                Move::Planned(plan) => return Ok(End::Outcome(self.planned(*plan))),
                Move::Refused(error) => return Ok(self.judged(refusal::name(self.job.subtool, *error))),
                Move::Fail(failure) => return Ok(self.judged(*failure)),
            };
            if !request.is_read() {
                self.write_again(&request).await?;
            }
            let was_cut = self.is_cut;
            let turn = match self.turn(*request).await {
                Err(End::ComeAgain { .. }) if self.is_cut && !was_cut => continue, // a list ends with what it has
                turn => turn?,
            };
            self.history.push(turn);
        }
    }

    fn bounds(&self) -> Bounds<'a> {
        let is_overdue = self.is_cut || self.begun.elapsed() > self.rules.list_time_max;
        bounds(&self.job.envelope, frame(&self.job.letter.id), is_overdue)
    }

    /// A write goes out after one whose outcome was unclear: one more attempt, if there is one.
    async fn write_again(&mut self, request: &Request) -> Result<(), End> {
        let Some(answer) = self.unclear.take() else { return Ok(()) };
        let was_unclear = |turn: &&Turn| matches!(turn, Turn::Unclear { .. });
        let last = self.history.iter().rfind(was_unclear).map(Turn::request);
        // The same after a look: it has shown that the one before was not executed.
        if !self.is_unclear() && last == Some(request) {
            self.doubt = Doubt::None;
        }
        if self.attempts() >= self.rules.retry.attempts_max {
            self.exhausted(&answer).await?;
        }
        self.is_another = true;
        Ok(())
    }

    /// Sends one request as often as it takes and may.
    async fn turn(&mut self, mut request: Request) -> Result<Turn, End> {
        if !request.pause.is_zero() {
            self.rest(request.pause).await?;
        }
        loop {
            let was = self.doubt;
            let sent = self.rules.clock.now();
            let (answer, meaning) = self.send(&request).await?;
            match meaning {
                Meaning::Said => {
                    let response = answer.expect("only an answer says something");
                    self.throttled_in_a_row = 0;
                    if let Some(reason) = self.fails_everywhere(&request, &response) {
                        self.doubt = was;
                        self.pause(reason, &Ok(response)).await?;
                        continue;
                    }
                    if self.is_lag(&response) {
                        self.doubt = was;
                        self.lags += 1;
                        self.wait_before(Trouble::Lag, self.lags, LAG.wait(self.lags, 1.0)).await?;
                        continue;
                    }
                    self.heard_well(&request, &response);
                    // A write that succeeds now leaves no doubt about the one whose answer was lost.
                    let is_settled = !request.is_read() && response.is_success();
                    self.doubt = if is_settled { Doubt::None } else { was };
                    return Ok(Turn::Said(Exchange { request, response }));
                }
                Meaning::Limited(limit) => {
                    self.doubt = was;
                    self.back_off(&request, limit).await?;
                }
                Meaning::Failed(trouble) => {
                    self.is_open = false;
                    let may_have_happened = trouble.may_have_happened();
                    self.has_begun |= may_have_happened;
                    let is_unclear = may_have_happened && !request.is_read();
                    self.doubt = if is_unclear { Doubt::Now } else { was };
                    if trouble == Trouble::ReadOnly {
                        self.pause(Reason::ReadOnly, &answer).await?;
                    } else if is_unclear && !self.job.tool.repeat().is_safe() {
                        self.note_trouble(trouble);
                        let wait = self.wait_after(trouble, &answer);
                        self.wait_before(trouble, self.attempts(), wait).await?;
                        self.unclear = Some(answer);
                        return Ok(Turn::Unclear { request, sent });
                    } else {
                        let is_smaller = trouble.may_be_its_size() && request.shrink_page();
                        if trouble == Trouble::TooLarge && !is_smaller {
                            return Err(self.too_large(&answer));
                        }
                        self.retry(&request, trouble, &answer).await?;
                    }
                }
            }
        }
    }

    /// Takes note of a good answer: the connection works, its clock is known, and what was created.
    fn heard_well(&mut self, request: &Request, response: &Response) {
        #[derive(Deserialize)]
        struct Created {
            id: String,
        }
        self.has_begun = true;
        self.refused = None;
        self.local_failures = 0;
        self.beats_before = None;
        let connection = &self.job.connection;
        if response.is_success() && self.is_in_scope(request) {
            connection.pulse.beat(self.job.scope);
        }
        if let Some(date) = date(&response.headers) {
            connection.okta_time.learn(date);
        }
        if request.method == http::Method::POST
            && response.is_success()
            && self.job.tool.repeat() == Repeat::Create
            && let Some(Created { id }) = response.read()
        {
            connection.fresh.add(self.job.letter.docket.caller.as_deref(), id);
        }
    }

    /// Whether Okta does not find what this worker has just created.
    fn is_lag(&self, response: &Response) -> bool {
        response.status == 404
            && self.lags < LAG.attempts_max
            && OktaError::read(response).missing().is_some_and(|(id, _)| self.job.connection.fresh.has(id))
    }

    /// Whether an answer says that the credential is no good, or has lost a scope that worked.
    fn fails_everywhere(&self, request: &Request, response: &Response) -> Option<Reason> {
        if is_unauthorized(response) {
            return Some(Reason::Unauthorized);
        }
        let has_worked = self.is_in_scope(request) && self.job.connection.pulse.has_worked(self.job.scope);
        (has_worked && lacks_scope(response)).then_some(Reason::Forbidden)
    }

    /// Whether a request needs the scope of its subtool: some look at users for a group's sake.
    fn is_in_scope(&self, request: &Request) -> bool {
        let of_what = request.route.trim_start_matches("/api/v1/").split('/').next();
        of_what == self.job.scope.split('.').nth(1)
    }

    /// Waits for the budget.
    async fn admitted(&mut self, request: &Request) -> Result<Permit, End> {
        let Job { connection, lane, letter, .. } = self.job;
        let bucket = request.bucket();
        // Work that has begun is finished, whatever the deadline says.
        let not_after = self.job.deadline.filter(|_| !self.has_begun);
        let not_after = not_after.map(|deadline| self.rules.clock.instant_of(deadline.ours));
        let asked = Instant::now();
        let ask = Ask {
            method: &request.method,
            route: request.route,
            lane: *lane,
            caller: letter.docket.caller.as_deref(),
            not_after,
            leave_at: self.leave_at(),
            emits: !request.is_read() && self.job.tool.repeat() == Repeat::Emit,
            patience: self.patience(),
        };
        let room = connection.budget.admit(ask);
        let room = self.company.progress.during(WaitingFor::RateLimit, Some(bucket), room);
        let admitted = self.unless_stopping(room).await?;
        let waited = asked.elapsed();
        self.cost.waited += waited;
        let admitted = match admitted {
            Ok(permit) => Ok(permit),
            Err(NotNow::ComeAgain(wait)) => {
                self.is_cut |= self.has_begun;
                return Err(End::ComeAgain { bucket, wait });
            }
            Err(NotNow::Passed) => Err(too_late(self.deadline()).retry_at(self.time_of(Instant::now()))),
            Err(NotNow::NotBefore(until)) => Err(self.cannot_make_it(until)),
        };
        self.company.observer.note(&Event::Waited {
            connection: &connection.name,
            bucket,
            lane: *lane,
            waited,
            before: if self.nothing_was_sent() { letter.docket.waited } else { Duration::ZERO },
        });
        admitted.map_err(|failure| self.failed(failure))
    }

    /// Waits for the budget, sends once, and says what the answer means.
    async fn send(&mut self, request: &Request) -> Result<(Result<Response, NoAnswer>, Meaning), End> {
        if !self.owed.is_zero() {
            let owed = std::mem::take(&mut self.owed);
            self.is_another = true;
            self.rest(owed).await?;
        }
        let permit = loop {
            self.check_pause().await?;
            let mut watch = self.job.connection.pulse.watch();
            let job = self.job;
            let stopped =
                watch.wait_for(|pause| pause.is_some_and(|pause| pause.stops(job.scope, job.is_read())));
            tokio::pin!(stopped);
            let cancelled = self.company.cancelled.wait(job.letter);
            // A message that waits for the budget of a paused connection would be in the way of those
            // that are answered at once.
            tokio::select! {
                biased;
                _ = &mut stopped => {}
                notice = cancelled, if self.is_untouched() => return Err(End::Cancelled(notice)),
                permit = self.admitted(request) => break permit?,
            }
        };
        if !self.company.receipt.is_live() {
            // Nothing is sent, so those who are in line behind must not wait as if it were.
            permit.heard(Told::Uncounted);
            return Err(End::Stale);
        }
        let (connection, bucket) = (&self.job.connection, request.bucket());
        let sent = Instant::now();
        self.cost.okta_calls += 1;
        match std::mem::take(&mut self.is_another) {
            true => self.cost.attempts += 1,
            false if self.continues_an_attempt(request) => {}
            false => self.cost.attempts = self.cost.attempts.max(1),
        }
        self.is_open = true;
        // Until the answer says otherwise, for whatever may happen meanwhile.
        if !request.is_read() {
            self.doubt = Doubt::Now;
        }
        reached(Point::Admitted, Some(&self.job.letter.id)).await;
        let answer = connection.okta.send(request).await;
        reached(Point::Answered, Some(&self.job.letter.id)).await;
        let meaning = classify(request, answer.as_ref());
        let rate = rate_of(&answer, meaning);
        let window = rate.filter(|rate| !rate.is_concurrency());
        permit.heard(told(&answer, meaning));
        if let Ok(response) = &answer {
            self.cost.remember(bucket, window, response.request_id(), self.job.envelope.options.count_only);
        }
        self.company.observer.note(&Event::Requested {
            connection: &connection.name,
            bucket,
            method: &request.method,
            http_status: answer.as_ref().ok().map(|response| response.status),
            took: sent.elapsed(),
            rate,
        });
        Ok((answer, meaning))
    }

    /// Returns true if a request looks at what was sent before: it belongs to the attempt that sent it, even where that
    /// one no longer counts because the whole connection failed.
    fn continues_an_attempt(&self, request: &Request) -> bool {
        request.is_read()
            && match self.doubt {
                Doubt::None => false,
                Doubt::Before => self.job.letter.docket.attempts > 0,
                Doubt::Now => true,
            }
    }

    /// Whether everything so far only read, so that somebody else may begin anew.
    fn has_changed_nothing(&self) -> bool {
        self.doubt != Doubt::Now && self.history.iter().all(|turn| turn.request().is_read())
    }

    /// Whether the last write is unclear and nothing was looked at since.
    fn is_unclear(&self) -> bool {
        matches!(self.history.last(), Some(Turn::Unclear { .. }))
    }
}
