//! One request: admitted by the budget, sent once, its answer classified.

use std::time::Duration;

use tokio::time::Instant;

use crate::budget::permit::{Ask, NotNow, Permit};
use crate::budget::pure::observation::{Told, rate_of, told};
use crate::domain::bucket::Bucket;
use crate::domain::http::{NoAnswer, Request, Response};
use crate::event::Event;
use crate::policy::classify::{Known, Meaning, classify};
use crate::tools::Repeat;
use crate::worker::admission::{Job, too_late};
use crate::worker::failpoint::{Point, reached};
use crate::worker::progress::WaitingFor;

use super::{End, Execution};

impl Execution<'_> {
    /// Waits for the budget, sends the request once, and returns the answer with its meaning.
    pub(super) async fn send(
        &mut self,
        request: &Request,
    ) -> Result<(Result<Response, NoAnswer>, Meaning), End> {
        if !self.owed.is_zero() {
            let owed = std::mem::take(&mut self.owed);
            self.rest(owed).await?;
        }
        let permit = self.permit(request).await?;
        if !self.company.receipt.is_live() {
            // Nothing is sent, so the messages in line behind must not wait as if it were.
            permit.heard(Told::Uncounted);
            return Err(End::Stale);
        }
        let (job, sent) = (self.job, Instant::now());
        self.cost.okta_calls += 1;
        self.attempt.sent(request.is_read());
        reached(Point::Admitted, Some(&job.letter.id)).await;
        let answer = job.connection.okta.send(request).await;
        reached(Point::Answered, Some(&job.letter.id)).await;
        let known = Known {
            scope_has_worked: self.is_in_scope(request) && job.connection.pulse.has_worked(job.scope),
            is_recent: &|id| job.connection.fresh.has(id),
        };
        let meaning = classify(request, answer.as_ref(), known);
        self.attempt.answered(meaning, request.is_read(), job.connection.pulse.beats());
        let rate = rate_of(&answer, meaning);
        permit.heard(told(rate, meaning));
        let bucket = request.bucket();
        if let Ok(response) = &answer {
            let window = rate.filter(|rate| !rate.is_concurrency());
            self.cost.remember(bucket, window, response.request_id(), job.envelope.options.count_only);
        }
        self.company.observer.note(&Event::Requested {
            connection: &job.connection.name,
            bucket,
            method: &request.method,
            http_status: answer.as_ref().ok().map(|response| response.status),
            took: sent.elapsed(),
            rate,
        });
        Ok((answer, meaning))
    }

    /// Waits until the connection is not paused and the budget admits the request.
    async fn permit(&mut self, request: &Request) -> Result<Permit, End> {
        loop {
            self.hold_while_paused().await?;
            let mut watch = self.job.connection.pulse.watch();
            let job = self.job;
            let stopped =
                watch.wait_for(|pause| pause.is_some_and(|pause| pause.stops(job.scope, job.is_read())));
            tokio::pin!(stopped);
            let cancelled = self.company.cancelled.wait(job.letter);
            // A message that waits for the budget of a paused connection would delay the interactive ones, which are
            // answered at once.
            tokio::select! {
                biased;
                _ = &mut stopped => {}
                notice = cancelled, if self.is_untouched() => return Err(End::Cancelled(notice)),
                permit = self.admitted(request) => return permit,
            }
        }
    }

    /// Waits for the budget.
    async fn admitted(&mut self, request: &Request) -> Result<Permit, End> {
        let Job { connection, lane, letter, .. } = self.job;
        let bucket = request.bucket();
        let asked = Instant::now();
        let admitted = connection.budget.admit(self.ask(request));
        let admitted = self.company.progress.during(WaitingFor::RateLimit, Some(bucket), admitted);
        let admitted = self.unless_stopping(admitted).await?;
        let waited = asked.elapsed();
        self.cost.waited += waited;
        let admitted = admitted.map_err(|not_now| self.not_admitted(not_now, bucket));
        if !matches!(admitted, Err(End::ComeAgain { .. })) {
            self.company.observer.note(&Event::Waited {
                connection: &connection.name,
                bucket,
                lane: *lane,
                waited,
                before: if self.nothing_was_sent() { letter.docket.waited } else { Duration::ZERO },
            });
        }
        admitted
    }

    fn ask<'a>(&'a self, request: &'a Request) -> Ask<'a> {
        // An invocation that has reached Okta is finished, whatever its deadline.
        let not_after = self.job.deadline.filter(|_| !self.attempt.has_reached());
        Ask {
            method: &request.method,
            route: request.route,
            lane: self.job.lane,
            caller: self.job.letter.docket.caller.as_deref(),
            not_after: not_after.map(|deadline| self.rules.clock.instant_of(deadline.ours)),
            leave_at: self.leave_at(),
            emits: !request.is_read() && self.job.tool.repeat() == Repeat::Emit,
            patience: self.patience(),
        }
    }

    fn not_admitted(&mut self, not_now: NotNow, bucket: Bucket) -> End {
        match not_now {
            NotNow::ComeAgain(wait) => {
                self.is_cut |= self.attempt.has_reached();
                End::ComeAgain { bucket, wait }
            }
            NotNow::Passed => self.failed(too_late(self.deadline()).retry_at(self.time_of(Instant::now()))),
            NotNow::NotBefore(until) => self.failed(self.cannot_make_it(until)),
        }
    }
}
