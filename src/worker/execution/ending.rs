//! The outcome of an invocation that has failed: the failure for its caller, and the effect that it may have had.

use tokio::time::Instant;

use crate::domain::http::{NoAnswer, Response};
use crate::domain::okta_error::OktaError;
use crate::domain::result::{Effect, ErrorCode, Failure, Outcome};
use crate::policy::decide::Failed;
use crate::policy::pause::PauseReason;
use crate::worker::admission::Deadline;
use crate::worker::breaker::Pause;
use crate::worker::outcome::a_bug;

use super::{Execution, Verdict};

impl Execution<'_> {
    /// Returns the failure of a request that the budget cannot admit before the deadline.
    pub(super) fn cannot_make_it(&self, until: Instant) -> Failure {
        let name = &self.invocation.connection.name;
        let message = format!("the budget of `{name}` has no room before the deadline");
        Failure::new(ErrorCode::RateLimited, message)
            .at(Some(self.deadline().path))
            .retry_at(self.time_of(until))
    }

    pub(super) fn deadline(&self) -> Deadline {
        self.invocation.deadline.expect("only an invocation with a deadline can be late")
    }

    /// Returns the outcome after a panic.
    pub(in crate::worker) fn crashed(&self) -> Outcome {
        self.outcome(a_bug())
    }

    pub(super) fn failed(&self, failure: Failure) -> Verdict {
        Verdict::Outcome(self.outcome(failure))
    }

    /// Ends with the decision to give up.
    pub(super) fn gave_up(&self, failed: Failed, answer: &Result<Response, NoAnswer>) -> Verdict {
        let (attempt, most) = (self.attempt.total(), self.rules.retry.attempts_max);
        let of_most = if attempt >= most { format!(" (attempt {attempt} of {most})") } else { String::new() };
        let message = format!("failed to run `{}`{of_most}: {}", self.invocation.subtool, describe(answer));
        let mut failure = with_okta(Failure::new(failed.code, message), answer);
        failure.retryable &= !failed.is_final;
        if let Some(wait) = failed.retry_in.filter(|_| failure.retryable) {
            failure = failure.retry_at(self.time_of(Instant::now() + wait));
        }
        Verdict::Outcome(Outcome::Failed { effect: failed.effect, failure })
    }

    /// Ends because the connection is paused.
    pub(super) fn paused(&self, pause: Pause, failed: Failed) -> Verdict {
        let (name, why) = (&self.invocation.connection.name, pause.reason.in_words());
        let detail = self.refused.as_ref().and_then(|error| error.summary.clone());
        // Okta's refusal of another caller's request is not repeated here.
        let detail = detail.or_else(|| {
            (pause.reason == PauseReason::Unreachable).then(|| self.invocation.connection.breaker.cause())
        });
        let detail = detail
            .filter(|detail| !detail.is_empty())
            .map_or_else(String::new, |detail| format!(": {detail}"));
        let mut failure = Failure::new(failed.code, format!("connection `{name}` is paused: {why}{detail}"));
        failure.okta = self.refused.clone();
        if failed.code != ErrorCode::OutcomeUnknown {
            failure.retryable = true;
            failure = failure.retry_at(self.time_of(pause.next_probe));
        }
        Verdict::Outcome(Outcome::Failed { effect: failed.effect, failure })
    }

    /// Ends with a failure, or with the part of a list that was read before it.
    pub(super) fn kept_or_failed(&mut self, effect: Effect, failure: Failure) -> Verdict {
        let (bounds, failure) = (self.bounds(), failure.masked(&self.invocation.secrets));
        let kept = self.list.as_mut().and_then(|list| list.give_up(&failure, bounds));
        Verdict::Outcome(match kept {
            Some(result) => Outcome::Succeeded { effect: Effect::None, result },
            None => Outcome::Failed { effect, failure },
        })
    }

    /// Ends with the failure that the subtool itself reports.
    pub(super) fn judged(&self, failure: Failure) -> Verdict {
        let (code, effect) = self.attempt.code_and_effect_of_subtool(failure.code);
        let is_final = code != failure.code;
        let failure = Failure { code, retryable: failure.retryable && !is_final, ..failure };
        Verdict::Outcome(Outcome::Failed { effect, failure })
    }

    /// Returns the outcome of a failure, with its effect.
    fn outcome(&self, failure: Failure) -> Outcome {
        let (code, effect) = self.attempt.code_and_effect(failure.code, self.invocation.tool.repeat());
        let failure = match code == failure.code {
            true => failure,
            false => Failure { code, retryable: false, retry_at: None, ..failure },
        };
        Outcome::Failed { effect, failure }
    }
}

/// Describes the unsuccessful answer, or the lack of one, in words.
fn describe(answer: &Result<Response, NoAnswer>) -> String {
    match answer {
        Err(no_answer) => no_answer.to_string(),
        Ok(response) => {
            let source = match OktaError::is_in(response) && !response.is_success() {
                true => "Okta answered",
                false => "no answer of Okta's, but",
            };
            let error = OktaError::read(response);
            let code = error.error_code.map_or_else(String::new, |code| format!(" {code}"));
            let summary = error.summary.map_or_else(String::new, |summary| format!(": {summary}"));
            format!("{source} {}{code}{summary}", error.status)
        }
    }
}

fn with_okta(failure: Failure, answer: &Result<Response, NoAnswer>) -> Failure {
    match answer {
        Ok(response) => failure.with_okta(OktaError::read(response)),
        Err(_) => failure,
    }
}
