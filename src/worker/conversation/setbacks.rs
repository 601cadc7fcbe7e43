//! What an invocation does when something fails for now: wait and try again, hand itself back, give up.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use crate::domain::answer::{ErrorCode, Failure};
use crate::domain::http::{NoAnswer, Request, Response};
use crate::domain::ids::Lane;
use crate::domain::okta_error::OktaError;
use crate::policy::classify::{Limit, Trouble, concurrency_wait};
use crate::policy::retry::{BUSY, LOCAL, WAIT_IN_HAND_MAX, retry_after};
use crate::worker::event::Event;
use crate::worker::ports::Patience;
use crate::worker::probing;
use crate::worker::progress::WaitingFor;
use crate::worker::pulse::{Pause, Reason};

use super::verdict::{describe, with_okta};
use super::{Conversation, End};

/// How long a message that cannot be handed back is held while its connection is paused: RabbitMQ takes a
/// delivery back after 30 minutes.
const HELD_MAX: Duration = Duration::from_secs(10 * 60);

/// The longest wait of a worker that stops; it has 25 seconds for all that it has begun.
const REST_WHEN_STOPPING: Duration = Duration::from_secs(2);

impl Conversation<'_> {
    /// The whole connection fails: it is paused, and so is this invocation.
    pub(super) async fn pause(
        &mut self,
        reason: Reason,
        answer: &Result<Response, NoAnswer>,
    ) -> Result<(), End> {
        self.refused = answer.as_ref().ok().map(OktaError::read);
        if reason != Reason::Unreachable {
            self.attempts_everywhere += 1; // the others were counted as they failed
        }
        probing::pause(&self.job.connection, reason, self.job.scope, self.company.observer);
        // A probe may have got through in the same moment, and then this would be sent again at once.
        self.rest(Duration::from_millis(1)).await
    }

    /// Waits for a paused connection, hands the message back, or tells who waits for an answer.
    pub(super) async fn check_pause(&mut self) -> Result<(), End> {
        let Some(pause) = self.pause_that_stops() else { return Ok(()) };
        if self.job.lane == Lane::Interactive {
            return Err(self.failed(self.paused(pause)));
        }
        // What failed for the whole connection was no attempt of this invocation's.
        self.cost.attempts = self.cost.attempts.saturating_sub(std::mem::take(&mut self.attempts_everywhere));
        self.beats_before = None;
        if self.may_hand_back && self.has_changed_nothing() {
            return Err(End::HandBack);
        }
        let (mut watch, job) = (self.job.connection.pulse.watch(), self.job);
        let is_over =
            watch.wait_for(|pause| pause.is_none_or(|pause| !pause.stops(job.scope, job.is_read())));
        let mut stopping = self.rules.stopping.clone();
        tokio::select! {
            () = self.company.receipt.gone() => return Err(End::Stale),
            _ = timeout(HELD_MAX, is_over) => {}
            _ = stopping.wait_for(|stopping| *stopping) => {}
        }
        let may_be_left = self.may_hand_back || *stopping.borrow();
        match self.pause_that_stops() {
            None => Ok(()),
            Some(_) if may_be_left => Err(End::HandBack),
            Some(pause) => Err(self.failed(self.paused(pause))), // RabbitMQ waits no longer
        }
    }

    pub(super) fn pause_that_stops(&self) -> Option<Pause> {
        let pause = self.job.connection.pulse.pause()?;
        pause.stops(self.job.scope, self.job.is_read()).then_some(pause)
    }

    /// What somebody who waits is told of a pause.
    pub(super) fn paused(&self, pause: Pause) -> Failure {
        let (name, why) = (&self.job.connection.name, pause.reason.in_words());
        let said = self.refused.as_ref().and_then(|error| error.summary.as_ref());
        let said = said.map_or_else(String::new, |said| format!(": {said}"));
        let message = format!("connection `{name}` is paused: {why}{said}");
        let mut failure = Failure::new(pause.reason.code(), message);
        failure.retryable = true;
        failure.okta = self.refused.clone();
        failure.retry_at(self.time_of(pause.next_probe))
    }

    /// Waits for something, as long as the delivery can be acknowledged; or hands the message back when the worker stops
    /// meanwhile and nothing has been changed.
    pub(in crate::worker) async fn unless_stopping<T>(
        &self,
        awaited: impl Future<Output = T>,
    ) -> Result<T, End> {
        let mut stopping = self.rules.stopping.clone();
        let told = async {
            if stopping.wait_for(|stopping| *stopping).await.is_err() {
                std::future::pending::<()>().await; // nobody can tell any more
            }
        };
        tokio::select! {
            biased;
            () = told, if self.has_changed_nothing() => Err(End::HandBack),
            done = awaited => Ok(done),
            () = self.company.receipt.gone() => Err(End::Stale),
        }
    }

    /// Waits, unless the connection is paused meanwhile: then there is something else to do.
    pub(super) async fn rest(&self, pause: Duration) -> Result<(), End> {
        let mut watch = self.job.connection.pulse.watch();
        let job = self.job;
        let paused = async {
            let stops = |pause: &Option<Pause>| pause.is_some_and(|it| it.stops(job.scope, job.is_read()));
            let _ = watch.wait_for(stops).await;
        };
        let mut stopping = self.rules.stopping.clone();
        // What cannot be left to others is finished before the worker has to go.
        let hurried = async {
            if stopping.wait_for(|stopping| *stopping).await.is_err() {
                std::future::pending::<()>().await; // nobody can tell any more
            }
            sleep(REST_WHEN_STOPPING).await;
        };
        let rested = async {
            tokio::select! {
                () = sleep(pause) => {}
                () = paused => {}
                () = hurried => {}
            }
        };
        self.unless_stopping(self.company.progress.during(WaitingFor::Retry, None, rested)).await
    }

    /// Waits after a 429, by its kind. Nothing was executed and no attempt is spent.
    pub(super) async fn back_off(&mut self, request: &Request, kind: Limit) -> Result<(), End> {
        let (connection, bucket) = (&self.job.connection.name, request.bucket());
        self.company.observer.note(&Event::RateLimited { connection, bucket, kind });
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
    pub(super) async fn retry(
        &mut self,
        request: &Request,
        trouble: Trouble,
        answer: &Result<Response, NoAnswer>,
    ) -> Result<(), End> {
        if trouble == Trouble::Local {
            return self.wait_for_this_machine(answer).await;
        }
        self.note_trouble(trouble);
        let attempt = self.attempts();
        if attempt >= self.rules.retry.attempts_max {
            return self.exhausted(answer).await;
        }
        let wait = self.wait_after(trouble, answer);
        if wait > WAIT_IN_HAND_MAX && self.has_changed_nothing() && self.ends_within(wait) {
            let at = self.time_of(Instant::now() + wait);
            let message = format!("failed to run `{}`: {}", self.job.subtool, describe(answer));
            let failure = with_okta(Failure::new(ErrorCode::OktaUnavailable, message), answer);
            return Err(self.failed(failure.retry_at(at)));
        }
        if wait > WAIT_IN_HAND_MAX && self.has_changed_nothing() && self.patience == Patience::ComeAgain {
            self.note_retry(trouble, attempt, wait);
            self.owed = wait.min(WAIT_IN_HAND_MAX); // if there can be no copy
            return Err(End::ComeAgain { bucket: request.bucket(), wait });
        }
        self.wait_before(trouble, attempt, wait).await?;
        self.is_another = true;
        Ok(())
    }

    /// Waits for what this machine is short of. Okta was not asked, so that no attempt is spent.
    async fn wait_for_this_machine(&mut self, answer: &Result<Response, NoAnswer>) -> Result<(), End> {
        self.cost.okta_calls = self.cost.okta_calls.saturating_sub(1);
        self.local_failures += 1;
        if self.local_failures < LOCAL.attempts_max {
            let wait = LOCAL.wait(self.local_failures, 0.5 + fastrand::f64() / 2.0);
            return self.wait_before(Trouble::Local, self.local_failures, wait).await;
        }
        self.local_failures = 0;
        if self.job.lane == Lane::Bulk && self.may_hand_back && self.has_changed_nothing() {
            return Err(End::HandBack);
        }
        let message = format!("failed to run `{}`: {}", self.job.subtool, describe(answer));
        Err(self.failed(Failure::new(ErrorCode::OktaUnavailable, message)))
    }

    /// An answer that is larger than any that is read would be so again.
    pub(super) fn too_large(&self, answer: &Result<Response, NoAnswer>) -> End {
        let message = format!("failed to run `{}`: {}", self.job.subtool, describe(answer));
        let mut failure = Failure::new(ErrorCode::OktaUnavailable, message);
        failure.retryable = false;
        self.failed(failure)
    }

    /// Whether the deadline passes while so much time does.
    fn ends_within(&self, wait: Duration) -> bool {
        let now = self.rules.clock.now();
        self.job.deadline.is_some_and(|deadline| now.checked_add(wait).is_ok_and(|then| then > deadline.at))
    }

    pub(super) fn note_trouble(&mut self, trouble: Trouble) {
        if trouble.may_be_everywhere() {
            self.attempts_everywhere += 1;
            self.beats_before.get_or_insert(self.job.connection.pulse.beats());
        }
    }

    /// How long to wait after a failure.
    pub(super) fn wait_after(&self, trouble: Trouble, answer: &Result<Response, NoAnswer>) -> Duration {
        let (attempt, jitter) = (self.attempts(), fastrand::f64());
        let usual = match trouble {
            // It is a matter of minutes; to try at once would be an attempt for nothing.
            Trouble::Busy => BUSY.wait(attempt, 0.5 + jitter / 2.0),
            _ => self.rules.retry.wait(attempt, jitter),
        };
        // Only Okta's own wish counts: a page in between is asked no longer than any other failure.
        let own = answer.as_ref().ok().filter(|response| OktaError::is_in(response));
        let asked = own.and_then(|response| retry_after(&response.headers));
        usual.max(asked.unwrap_or_default())
    }

    pub(super) async fn wait_before(
        &self,
        trouble: Trouble,
        attempt: u32,
        wait: Duration,
    ) -> Result<(), End> {
        let wait = wait.min(WAIT_IN_HAND_MAX);
        self.note_retry(trouble, attempt, wait);
        self.rest(wait).await
    }

    pub(super) fn note_retry(&self, reason: Trouble, attempt: u32, wait: Duration) {
        let connection = &self.job.connection.name;
        self.company.observer.note(&Event::Retried { connection, reason, attempt, wait });
    }

    /// The attempts are used up: a failure, or the whole connection's when a probe fails too.
    pub(super) async fn exhausted(&mut self, answer: &Result<Response, NoAnswer>) -> Result<(), End> {
        let job = self.job;
        let connection = &job.connection;
        if self.beats_before == Some(connection.pulse.beats()) {
            if !probing::probe(connection, Reason::Unreachable, job.scope, self.company.observer).await {
                self.pause(Reason::Unreachable, answer).await?;
                return self.check_pause().await;
            }
            connection.pulse.beat(job.scope);
        }
        let (attempt, most) = (self.attempts(), self.rules.retry.attempts_max);
        let message =
            format!("failed to run `{}` (attempt {attempt} of {most}): {}", job.subtool, describe(answer));
        Err(self.failed(with_okta(Failure::new(ErrorCode::OktaUnavailable, message), answer)))
    }
}
