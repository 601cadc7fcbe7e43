//! One request: admitted by the budget, sent once, its answer classified.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use crate::budget::permit::{Ask, NotNow, Permit};
use crate::budget::pure::observation::{Observation, rate_of, told};
use crate::domain::bucket::Bucket;
use crate::domain::http::{NoAnswer, Request, Response};
use crate::event::Event;
use crate::policy::classify::{ConnectionFacts, Meaning, classify};
use crate::tools::Idempotency;
use crate::worker::admission::{Invocation, too_late};
use crate::worker::failpoint::{Point, reached};
use crate::worker::progress::WaitingFor;

use super::{Execution, Verdict};

impl Execution<'_> {
    /// Waits for the budget, sends the request once, and returns the time of sending and the answer with its meaning.
    pub(super) async fn send(
        &mut self,
        request: &Request,
    ) -> Result<(Timestamp, Result<Response, NoAnswer>, Meaning), Verdict> {
        if !self.owed.is_zero() {
            let owed = std::mem::take(&mut self.owed);
            self.rest(owed).await?;
        }
        let permit = self.permit(request).await?;
        if !self.context.receipt.is_live() {
            // Nothing is sent, so later requests must not wait for an answer.
            permit.heard(Observation::Uncounted);
            return Err(Verdict::Stale);
        }
        let (invocation, sent) = (self.invocation, Instant::now());
        self.cost.okta_calls += 1;
        self.attempt.sent(request.is_read());
        let sent_at = self.rules.clock.now();
        reached(Point::Admitted, Some(&invocation.message.id)).await;
        let answer = invocation.connection.okta.send(request).await;
        reached(Point::Answered, Some(&invocation.message.id)).await;
        if answer.as_ref().is_err_and(NoAnswer::was_not_sent) {
            self.cost.okta_calls -= 1;
        }
        let known = ConnectionFacts {
            scope_has_worked: self.is_in_scope(request)
                && invocation.connection.breaker.has_worked(invocation.scope),
            is_recent: &|id| invocation.connection.recent_creations.has(id),
        };
        let meaning = classify(request, answer.as_ref(), known);
        self.attempt.answered(meaning, request.is_read(), invocation.connection.breaker.good_answers());
        let rate = rate_of(&answer, meaning);
        permit.heard(told(rate, meaning));
        let bucket = request.bucket();
        if let Ok(response) = &answer {
            let window = rate.filter(|rate| !rate.is_concurrency());
            self.cost.remember(bucket, window, response.request_id(), invocation.envelope.options.count_only);
        }
        self.context.observer.note(&Event::Requested {
            connection: &invocation.connection.name,
            bucket,
            method: &request.method,
            http_status: answer.as_ref().ok().map(|response| response.status),
            took: sent.elapsed(),
            rate,
        });
        Ok((sent_at, answer, meaning))
    }

    /// Waits until the connection is not paused and the budget admits the request.
    async fn permit(&mut self, request: &Request) -> Result<Permit, Verdict> {
        loop {
            self.hold_while_paused().await?;
            let mut watch = self.invocation.connection.breaker.watch();
            let invocation = self.invocation;
            let stopped = watch.wait_for(|pause| {
                pause.is_some_and(|pause| pause.stops(invocation.scope, invocation.is_read()))
            });
            tokio::pin!(stopped);
            let cancelled = self.context.cancelled.wait(invocation.message);
            let asked = Instant::now();
            // A message that waits for the budget of a paused connection would delay the interactive ones, which are
            // answered at once.
            tokio::select! {
                biased;
                _ = &mut stopped => self.cost.waited += asked.elapsed(),
                notice = cancelled, if self.is_untouched() => return Err(Verdict::Cancelled(notice)),
                permit = self.admitted(request) => return permit,
            }
        }
    }

    /// Waits for the budget.
    async fn admitted(&mut self, request: &Request) -> Result<Permit, Verdict> {
        let Invocation { connection, lane, message, .. } = self.invocation;
        let bucket = request.bucket();
        let asked = Instant::now();
        let admitted = connection.budget.admit(self.ask(request));
        let admitted = self.context.progress.during(WaitingFor::RateLimit, Some(bucket), admitted);
        let admitted = self.unless_stopping(admitted).await;
        let waited = asked.elapsed();
        self.cost.waited += waited;
        let admitted = admitted?.map_err(|not_now| self.not_admitted(not_now, bucket));
        if !matches!(admitted, Err(Verdict::Delay { .. })) {
            self.context.observer.note(&Event::Waited {
                connection: &connection.name,
                bucket,
                lane: *lane,
                waited,
                before: if self.nothing_was_sent() { message.history.waited } else { Duration::ZERO },
            });
        }
        admitted
    }

    fn ask<'a>(&'a self, request: &'a Request) -> Ask<'a> {
        // An invocation that has reached Okta is finished, regardless of its deadline.
        let not_after = self.invocation.deadline.filter(|_| !self.attempt.has_reached());
        Ask {
            method: &request.method,
            route: request.route,
            lane: self.invocation.lane,
            caller: self.invocation.message.history.caller.as_deref(),
            not_after: not_after.map(|deadline| self.rules.clock.instant_of(deadline.ours)),
            leave_at: self.leave_at(),
            emits: !request.is_read() && self.invocation.tool.repeat() == Idempotency::NonIdempotent,
            when_busy: self.when_busy(),
        }
    }

    fn not_admitted(&mut self, not_now: NotNow, bucket: Bucket) -> Verdict {
        match not_now {
            NotNow::Delay(wait) => {
                self.is_cut |= self.attempt.has_reached();
                Verdict::Delay { bucket, wait }
            }
            NotNow::Passed => self.failed(too_late(self.deadline()).retry_at(self.time_of(Instant::now()))),
            NotNow::NotBefore(until) => self.failed(self.cannot_make_it(until)),
        }
    }
}
