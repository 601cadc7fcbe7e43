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

use super::admission::{Job, bounds, too_late};
use super::event::{Event, Observer};
use super::ports::{Ask, NotNow, Patience};
use super::{Rules, a_bug};

/// What the conversation cost, known also when it failed.
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

/// The delivery's connection to the broker is gone: somebody else will have the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stale;

/// The talk of one job.
pub(super) struct Conversation<'a> {
    job: &'a Job,
    rules: &'a Rules,
    observer: &'a dyn Observer,
    receipt: &'a dyn Receipt,
    history: Vec<Exchange>,
    throttled_in_a_row: u32,
    begun: Instant,
    /// Whether Okta has let a request through: from then on the work is finished, whatever the deadline.
    has_begun: bool,
    /// Whether a request that changes something may have been executed without our knowing.
    is_in_doubt: bool,
    /// What it cost so far.
    pub cost: Cost,
}

impl<'a> Conversation<'a> {
    pub fn new(job: &'a Job, rules: &'a Rules, observer: &'a dyn Observer, receipt: &'a dyn Receipt) -> Self {
        Self {
            job,
            rules,
            observer,
            receipt,
            history: Vec::new(),
            throttled_in_a_row: 0,
            begun: Instant::now(),
            has_begun: false,
            is_in_doubt: false,
            cost: Cost::default(),
        }
    }

    /// Talks until the invocation has ended.
    pub async fn hold(&mut self) -> Result<Outcome, Stale> {
        loop {
            let is_overdue = self.begun.elapsed() > self.rules.list_time_max;
            let request = match self.job.tool.next(&self.history, bounds(&self.job.envelope, is_overdue)) {
                Move::Send(request) => request,
                Move::Done(done) => {
                    return Ok(Outcome::Succeeded { effect: done.effect, result: done.output });
                }
                Move::Refused(error) => return Ok(self.failed(refusal::name(self.job.subtool, *error))),
                Move::Fail(failure) => return Ok(self.failed(*failure)),
            };
            match self.exchange(*request).await? {
                Ok(exchange) => {
                    if let Some(last) = self.history.last_mut() {
                        last.response.forget_read_body();
                    }
                    self.history.push(exchange);
                }
                Err(failure) => return Ok(self.failed(failure)),
            }
        }
    }

    /// Sends one request as often as it takes and may.
    async fn exchange(&mut self, request: Request) -> Result<Result<Exchange, Failure>, Stale> {
        if !request.pause.is_zero() {
            self.rest(request.pause).await?;
        }
        loop {
            let was_in_doubt = self.is_in_doubt;
            let answer = match self.send(&request).await? {
                Ok(answer) => answer,
                Err(late) => return Ok(Err(self.too_late(late))),
            };
            match classify(answer.as_ref()) {
                Meaning::Said => {
                    let response = answer.expect("only an answer says something");
                    self.throttled_in_a_row = 0;
                    self.has_begun = true;
                    // A write that succeeds now leaves no doubt about the one whose answer was lost.
                    let is_settled = !request.is_read() && response.is_success();
                    self.is_in_doubt = was_in_doubt && !is_settled;
                    return Ok(Ok(Exchange { request, response }));
                }
                Meaning::Limited(limit) => {
                    self.is_in_doubt = was_in_doubt;
                    self.back_off(&request, limit).await?;
                }
                Meaning::Failed(trouble) => {
                    let may_have_happened = trouble.may_have_happened();
                    self.has_begun |= may_have_happened;
                    self.is_in_doubt = was_in_doubt || (may_have_happened && !request.is_read());
                    if let Some(failure) = self.retry(&request, trouble, &answer).await? {
                        return Ok(Err(failure));
                    }
                }
            }
        }
    }

    /// Waits for the budget and sends once.
    async fn send(&mut self, request: &Request) -> Result<Result<Result<Response, NoAnswer>, NotNow>, Stale> {
        let Job { connection, lane, .. } = self.job;
        let bucket = request.bucket();
        // Work that has begun is finished, whatever the deadline says.
        let not_after = self.job.deadline.filter(|_| !self.has_begun);
        let not_after = not_after.map(|at| self.rules.clock.instant_of(at));
        let asked = Instant::now();
        let ask = Ask {
            method: &request.method,
            route: request.route,
            lane: *lane,
            caller: None,
            not_after,
            patience: Patience::Wait,
        };
        let admitted = self.unless_stopping(connection.budget.admit(ask)).await?;
        let sent = Instant::now();
        let waited = sent - asked;
        self.cost.waited += waited;
        self.observer.note(&Event::Waited { connection: &connection.name, bucket, lane: *lane, waited });
        let permit = match admitted {
            Ok(permit) => permit,
            Err(late) => return Ok(Err(late)),
        };
        if !self.receipt.is_live() {
            return Err(Stale);
        }
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
        Ok(Ok(answer))
    }

    /// Waits for something, or leaves the message to others when the worker stops meanwhile and nothing has
    /// been changed.
    async fn unless_stopping<T>(&self, awaited: impl Future<Output = T>) -> Result<T, Stale> {
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
            () = told => Err(Stale),
            done = awaited => Ok(done),
        }
    }

    async fn rest(&self, pause: Duration) -> Result<(), Stale> {
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
    async fn back_off(&mut self, request: &Request, kind: Limit) -> Result<(), Stale> {
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

    /// Waits before the next attempt; the failure, when there is none.
    async fn retry(
        &mut self,
        request: &Request,
        reason: Trouble,
        answer: &Result<Response, NoAnswer>,
    ) -> Result<Option<Failure>, Stale> {
        let in_doubt = !request.is_read() && reason.may_have_happened();
        if in_doubt && !self.job.tool.repeat().is_safe() {
            let message = format!("`{}` may have happened: {}", self.job.subtool, describe(answer));
            return Ok(Some(with_okta(Failure::new(ErrorCode::OutcomeUnknown, message), answer)));
        }
        if self.cost.attempts >= self.rules.retry.attempts_max {
            let message = format!(
                "failed to run `{}` (attempt {} of {}): {}",
                self.job.subtool,
                self.cost.attempts,
                self.rules.retry.attempts_max,
                describe(answer)
            );
            return Ok(Some(with_okta(Failure::new(ErrorCode::OktaUnavailable, message), answer)));
        }
        let attempt = self.cost.attempts;
        let wait = self.rules.retry.wait(attempt, fastrand::f64());
        let connection = &self.job.connection.name;
        self.observer.note(&Event::Retried { connection, reason, attempt, wait });
        self.cost.attempts += 1;
        self.rest(wait).await?;
        Ok(None)
    }

    /// The budget cannot make it before the deadline.
    fn too_late(&self, late: NotNow) -> Failure {
        let deadline = self.job.deadline.expect("only who has a deadline can be late");
        match late {
            NotNow::Passed | NotNow::ComeAgain(_) => too_late(deadline).retry_at(self.rules.clock.now()),
            NotNow::NotBefore(until) => {
                let name = &self.job.connection.name;
                let message = format!("the budget of `{name}` cannot make it before the deadline");
                Failure::new(ErrorCode::RateLimited, message)
                    .at(Some("options.deadline"))
                    .retry_at(self.rules.clock.time_of(until))
            }
        }
    }

    /// A bug of ours ended the talk.
    pub fn crashed(&self) -> Outcome {
        self.failed(a_bug())
    }

    /// A failure, with what it left behind.
    fn failed(&self, mut failure: Failure) -> Outcome {
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
