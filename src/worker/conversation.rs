//! One admitted invocation talking with Okta until it has ended.
//!
//! The subtool says its next move, the budget lets it go, the answer is classified. What Okta said goes
//! back to the subtool; what failed for now is sent again where that is safe.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::domain::answer::{Effect, ErrorCode, Failure, Outcome, RateLimit};
use crate::domain::bucket::{Bucket, RateHeaders};
use crate::domain::http::{Exchange, NoAnswer, Request, Response};
use crate::domain::mail::Receipt;
use crate::domain::okta_error::OktaError;
use crate::policy::budget::window::Told;
use crate::policy::classify::{Limit, Meaning, Trouble, classify, concurrency_wait};
use crate::policy::refusal;
use crate::tools::Move;

use super::admission::{Deadline, Job, bounds, too_late};
use super::event::{Event, Observer};
use super::ports::{Ask, NotNow, Patience, Permit};
use super::{Rules, a_bug};

/// Redeliveries after which a message is put aside no more. The broker counts the deliveries of each copy
/// anew, so one that brings workers down would never come to its delivery limit.
const REDELIVERIES_MAX: u32 = 2;

/// What this delivery's conversation cost, known also when it failed.
#[derive(Debug, Clone, Default)]
pub(super) struct Cost {
    /// Attempts, failed ones included.
    pub attempts: u32,
    /// Requests sent.
    pub okta_calls: u32,
    /// Time spent waiting for the budget.
    pub waited: Duration,
    /// The window of the last bucket asked.
    pub rate_limit: Option<RateLimit>,
    /// Okta's ids of the requests.
    pub okta_request_ids: Vec<String>,
}

/// How a talk ended.
#[derive(Debug)]
pub(super) enum End {
    /// There is something to answer.
    Outcome(Outcome),
    /// Nothing was sent, and the line is long: the message is to make room and come again.
    ComeAgain {
        /// The bucket it would wait for.
        bucket: Bucket,
        /// After how long.
        wait: Duration,
    },
    /// The delivery's connection to the broker is gone, or the worker stops and nothing was changed:
    /// somebody else will have the message.
    Stale,
}

/// The talk of one job.
pub(super) struct Conversation<'a> {
    job: &'a Job<'a>,
    rules: &'a Rules,
    observer: &'a dyn Observer,
    receipt: &'a dyn Receipt,
    history: Vec<Exchange>,
    throttled_in_a_row: u32,
    begun: Instant,
    /// What it does in a long line as long as nothing has been sent.
    patience: Patience,
    /// Whether Okta has let a request through: from then on the work is finished, whatever the deadline.
    has_begun: bool,
    /// Whether a request that changes something may have been executed without our knowing.
    is_in_doubt: bool,
    /// What it cost so far.
    pub cost: Cost,
}

impl<'a> Conversation<'a> {
    pub fn new(
        job: &'a Job<'a>,
        rules: &'a Rules,
        observer: &'a dyn Observer,
        receipt: &'a dyn Receipt,
    ) -> Self {
        Self {
            job,
            rules,
            observer,
            receipt,
            history: Vec::new(),
            throttled_in_a_row: 0,
            begun: Instant::now(),
            // Without a user of its own the worker would not know its copies again.
            patience: if rules.own_user.is_some() { Patience::ComeAgain } else { Patience::Wait },
            has_begun: false,
            is_in_doubt: false,
            cost: Cost::default(),
        }
    }

    /// Talks until the invocation has ended, or must be left to another delivery.
    pub async fn hold(&mut self) -> End {
        self.talk().await.unwrap_or_else(|end| end)
    }

    /// Waits in any line from now on.
    pub fn stay(&mut self) {
        self.patience = Patience::Wait;
    }

    /// Attempts spent so far, by earlier deliveries too.
    pub fn attempts(&self) -> u32 {
        self.job.letter.docket.attempts.saturating_add(self.cost.attempts)
    }

    /// Time spent waiting for the budget so far, by earlier deliveries too.
    pub fn waited(&self) -> Duration {
        self.job.letter.docket.waited + self.cost.waited
    }

    async fn talk(&mut self) -> Result<End, End> {
        loop {
            let is_overdue = self.begun.elapsed() > self.rules.list_time_max;
            let request = match self.job.tool.next(&self.history, bounds(&self.job.envelope, is_overdue)) {
                Move::Send(request) => request,
                Move::Done(done) => {
                    return Ok(End::Outcome(Outcome::Succeeded { effect: done.effect, result: done.output }));
                }
                Move::Refused(error) => return Ok(self.failed(refusal::name(self.job.subtool, *error))),
                Move::Fail(failure) => return Ok(self.failed(*failure)),
            };
            let exchange = self.exchange(*request).await?;
            if let Some(last) = self.history.last_mut() {
                last.response.forget_read_body();
            }
            self.history.push(exchange);
        }
    }

    /// Sends one request as often as it takes and may.
    async fn exchange(&mut self, request: Request) -> Result<Exchange, End> {
        if !request.pause.is_zero() {
            self.rest(request.pause).await?;
        }
        loop {
            let was_in_doubt = self.is_in_doubt;
            let answer = self.send(&request).await?;
            match classify(answer.as_ref()) {
                Meaning::Said => {
                    let response = answer.expect("only an answer says something");
                    self.throttled_in_a_row = 0;
                    self.has_begun = true;
                    // A write that succeeds now leaves no doubt about the one whose answer was lost.
                    let is_settled = !request.is_read() && response.is_success();
                    self.is_in_doubt = was_in_doubt && !is_settled;
                    return Ok(Exchange { request, response });
                }
                Meaning::Limited(limit) => {
                    self.is_in_doubt = was_in_doubt;
                    self.back_off(&request, limit).await?;
                }
                Meaning::Failed(trouble) => {
                    let may_have_happened = trouble.may_have_happened();
                    self.has_begun |= may_have_happened;
                    self.is_in_doubt = was_in_doubt || (may_have_happened && !request.is_read());
                    self.retry(&request, trouble, &answer).await?;
                }
            }
        }
    }

    /// Waits for the budget.
    async fn admitted(&mut self, request: &Request) -> Result<Permit, End> {
        let Job { connection, lane, letter, .. } = self.job;
        let bucket = request.bucket();
        // Work that has begun is finished, whatever the deadline says.
        let not_after = self.job.deadline.filter(|_| !self.has_begun);
        let not_after = not_after.map(|deadline| self.rules.clock.instant_of(deadline.at));
        let asked = Instant::now();
        let ask = Ask {
            method: &request.method,
            route: request.route,
            lane: *lane,
            caller: letter.docket.caller.as_deref(),
            not_after,
            patience: self.patience(),
        };
        let admitted = self.unless_stopping(connection.budget.admit(ask)).await?;
        let waited = asked.elapsed();
        self.cost.waited += waited;
        let admitted = match admitted {
            Ok(permit) => Ok(permit),
            Err(NotNow::ComeAgain(wait)) if ask.patience == Patience::ComeAgain => {
                return Err(End::ComeAgain { bucket, wait });
            }
            Err(NotNow::ComeAgain(_)) => unreachable!("only who would come again is told to"),
            Err(NotNow::Passed) => Err(too_late(self.deadline()).retry_at(self.rules.clock.now())),
            Err(NotNow::NotBefore(until)) => Err(self.cannot_make_it(until)),
        };
        self.observer.note(&Event::Waited { connection: &connection.name, bucket, lane: *lane, waited });
        admitted.map_err(|failure| self.failed(failure))
    }

    /// What to do in a long line: an invocation that has begun goes on here.
    fn patience(&self) -> Patience {
        let nothing_was_sent = self.cost.okta_calls == 0 && self.attempts() == 0;
        let is_harmless = self.job.letter.docket.redeliveries <= REDELIVERIES_MAX;
        if nothing_was_sent && is_harmless { self.patience } else { Patience::Wait }
    }

    /// Waits for the budget and sends once.
    async fn send(&mut self, request: &Request) -> Result<Result<Response, NoAnswer>, End> {
        let permit = self.admitted(request).await?;
        if !self.receipt.is_live() {
            // Nothing is sent, so those who are in line behind must not wait as if it were.
            permit.heard(Told::Uncounted);
            return Err(End::Stale);
        }
        let (connection, bucket) = (&self.job.connection, request.bucket());
        let sent = Instant::now();
        self.cost.okta_calls += 1;
        self.cost.attempts = self.cost.attempts.max(1);
        // Until the answer says otherwise, for whatever may happen meanwhile.
        self.is_in_doubt |= !request.is_read();
        let answer = connection.okta.send(request).await;
        let rate = answer.as_ref().ok().and_then(|response| RateHeaders::read(&response.headers));
        let window = rate.filter(|rate| !rate.is_concurrency());
        permit.heard(told(classify(answer.as_ref()), window));
        if let Ok(response) = &answer {
            self.remember(bucket, window, response.request_id());
        }
        self.observer.note(&Event::Requested {
            connection: &connection.name,
            bucket,
            method: &request.method,
            http_status: answer.as_ref().ok().map(|response| response.status),
            took: sent.elapsed(),
            rate,
        });
        Ok(answer)
    }

    /// Waits for something, or leaves the message to others when the worker stops meanwhile and nothing has
    /// been changed.
    async fn unless_stopping<T>(&self, awaited: impl Future<Output = T>) -> Result<T, End> {
        if !self.has_changed_nothing() {
            return Ok(awaited.await);
        }
        let mut stopping = self.rules.stopping.clone();
        let told = async {
            if stopping.wait_for(|stopping| *stopping).await.is_err() {
                std::future::pending::<()>().await; // nobody can tell any more
            }
        };
        tokio::select! {
            biased;
            () = told => Err(End::Stale),
            done = awaited => Ok(done),
        }
    }

    async fn rest(&self, pause: Duration) -> Result<(), End> {
        self.unless_stopping(sleep(pause)).await
    }

    /// Whether everything so far only read, so that somebody else may begin anew.
    fn has_changed_nothing(&self) -> bool {
        !self.is_in_doubt && self.history.iter().all(|exchange| exchange.request.is_read())
    }

    fn remember(&mut self, bucket: Bucket, told: Option<RateHeaders>, request_id: Option<&str>) {
        /// Enough to find an invocation in the System Log; a list of 500 pages needs not name each.
        const REQUEST_IDS_MAX: usize = 100;
        let window = |rate: RateHeaders| {
            let reset = jiff::Timestamp::from_second(rate.reset).ok()?;
            Some(RateLimit { bucket, limit: rate.limit, remaining: rate.remaining, reset })
        };
        self.cost.rate_limit = told.and_then(window).or(self.cost.rate_limit);
        if let Some(id) = request_id
            && self.cost.okta_request_ids.len() < REQUEST_IDS_MAX
        {
            self.cost.okta_request_ids.push(id.to_owned());
        }
    }

    /// Waits after a 429, by its kind. Nothing was executed and no attempt is spent.
    async fn back_off(&mut self, request: &Request, kind: Limit) -> Result<(), End> {
        let (connection, bucket) = (&self.job.connection.name, request.bucket());
        self.observer.note(&Event::RateLimited { connection, bucket, kind });
        match kind {
            // The budget has heard it and admits nobody before the window's end.
            Limit::Window => {
                self.throttled_in_a_row = 0;
                Ok(())
            }
            Limit::Concurrency => {
                self.throttled_in_a_row += 1;
                let wait = concurrency_wait(self.throttled_in_a_row, fastrand::f64());
                self.cost.waited += wait;
                self.rest(wait).await
            }
        }
    }

    /// Waits before the next attempt, if there is one.
    async fn retry(
        &mut self,
        request: &Request,
        reason: Trouble,
        answer: &Result<Response, NoAnswer>,
    ) -> Result<(), End> {
        let in_doubt = !request.is_read() && reason.may_have_happened();
        if in_doubt && !self.job.tool.repeat().is_safe() {
            let message = format!("`{}` may have happened: {}", self.job.subtool, describe(answer));
            return Err(self.failed(with_okta(Failure::new(ErrorCode::OutcomeUnknown, message), answer)));
        }
        let attempt = self.attempts();
        if attempt >= self.rules.retry.attempts_max {
            let message = format!(
                "failed to run `{}` (attempt {attempt} of {}): {}",
                self.job.subtool,
                self.rules.retry.attempts_max,
                describe(answer)
            );
            return Err(self.failed(with_okta(Failure::new(ErrorCode::OktaUnavailable, message), answer)));
        }
        let wait = self.rules.retry.wait(attempt, fastrand::f64());
        let connection = &self.job.connection.name;
        self.observer.note(&Event::Retried { connection, reason, attempt, wait });
        self.cost.attempts += 1;
        self.rest(wait).await
    }

    /// The budget cannot make it before the deadline.
    fn cannot_make_it(&self, until: Instant) -> Failure {
        let name = &self.job.connection.name;
        let message = format!("the budget of `{name}` cannot make it before the deadline");
        Failure::new(ErrorCode::RateLimited, message)
            .at(Some(self.deadline().path))
            .retry_at(self.rules.clock.time_of(until))
    }

    fn deadline(&self) -> Deadline {
        self.job.deadline.expect("only who has a deadline can be late")
    }

    /// A bug of ours ended the talk.
    pub fn crashed(&self) -> Outcome {
        self.outcome(a_bug())
    }

    fn failed(&self, failure: Failure) -> End {
        End::Outcome(self.outcome(failure))
    }

    /// A failure, with what it left behind.
    fn outcome(&self, mut failure: Failure) -> Outcome {
        let changed = |exchange: &Exchange| !exchange.request.is_read() && exchange.response.is_success();
        let accepted = self.history.iter().any(changed);
        if accepted && failure.code == ErrorCode::OktaUnavailable {
            // Okta took the change; only the reads that prove it failed.
            failure.code = ErrorCode::OutcomeUnknown;
            failure.retryable = false;
        }
        let is_unknown = accepted || self.is_in_doubt || failure.code == ErrorCode::OutcomeUnknown;
        let effect = if is_unknown { Effect::Unknown } else { Effect::None };
        Outcome::Failed { effect, failure }
    }
}

/// What the budget learns of an answer: its meaning, and its headers where they speak of the window.
fn told(meaning: Meaning, window: Option<RateHeaders>) -> Told {
    match (meaning, window) {
        (Meaning::Limited(Limit::Window), window) => Told::Spent(window),
        (Meaning::Limited(Limit::Concurrency), _) => Told::Crowded,
        (Meaning::Failed(Trouble::NotSent), _) => Told::Uncounted,
        (_, Some(window)) => Told::Rate(window),
        (Meaning::Said, None) => Told::Nothing,
        // A page of something in front of Okta says nothing of how Okta's own answers are.
        (Meaning::Failed(_), None) => Told::Lost,
    }
}

/// What came instead of an answer.
fn describe(answer: &Result<Response, NoAnswer>) -> String {
    match answer {
        Err(no_answer) => no_answer.to_string(),
        Ok(response) => {
            let error = OktaError::read(response);
            let code = error.error_code.map_or_else(String::new, |code| format!(" {code}"));
            let summary = error.summary.map_or_else(String::new, |summary| format!(": {summary}"));
            format!("Okta answered {}{code}{summary}", error.status)
        }
    }
}

fn with_okta(failure: Failure, answer: &Result<Response, NoAnswer>) -> Failure {
    match answer {
        Ok(response) => failure.with_okta(OktaError::read(response)),
        Err(_) => failure,
    }
}
