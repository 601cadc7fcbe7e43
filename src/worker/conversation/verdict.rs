//! What is said of an invocation that did not succeed, and what it may have left behind.

use tokio::time::Instant;

use crate::domain::answer::{Effect, ErrorCode, Failure, Outcome};
use crate::domain::http::{NoAnswer, Response};
use crate::domain::okta_error::OktaError;
use crate::tools::Turn;
use crate::worker::a_bug;
use crate::worker::admission::Deadline;

use super::{Conversation, Doubt, End};

impl Conversation<'_> {
    /// The budget cannot make it before the deadline.
    pub(super) fn cannot_make_it(&self, until: Instant) -> Failure {
        let name = &self.job.connection.name;
        let message = format!("the budget of `{name}` cannot make it before the deadline");
        Failure::new(ErrorCode::RateLimited, message)
            .at(Some(self.deadline().path))
            .retry_at(self.time_of(until))
    }

    pub(super) fn deadline(&self) -> Deadline {
        self.job.deadline.expect("only who has a deadline can be late")
    }

    /// A bug of ours ended the talk.
    pub(in crate::worker) fn crashed(&self) -> Outcome {
        self.outcome(a_bug())
    }

    pub(super) fn failed(&self, failure: Failure) -> End {
        End::Outcome(self.outcome(failure))
    }

    /// Ends with a failure, or with what a list had read before it.
    pub(super) fn kept_or_failed(&mut self, effect: Effect, failure: Failure) -> End {
        let (bounds, failure) = (self.bounds(), failure.masked(&self.job.secrets));
        let kept = self.list.as_mut().and_then(|list| list.give_up(&failure, bounds));
        End::Outcome(match kept {
            Some(result) => Outcome::Succeeded { effect: Effect::None, result },
            None => Outcome::Failed { effect, failure },
        })
    }

    /// The subtool's own judgement: what is in doubt, it has looked at.
    pub(super) fn judged(&self, mut failure: Failure) -> End {
        let is_change = self.history.iter().any(is_change);
        if failure.code == ErrorCode::OktaUnavailable && (is_change || self.doubt == Doubt::Now) {
            failure.code = ErrorCode::OutcomeUnknown; // what it looked at cannot be read
            failure.retryable = false;
        }
        // What is there and not ours shows that ours was not executed.
        let in_doubt = self.doubt == Doubt::Now && failure.code != ErrorCode::AlreadyExists;
        let is_unknown = is_change || in_doubt || failure.code == ErrorCode::OutcomeUnknown;
        let effect = if is_unknown { Effect::Unknown } else { Effect::None };
        End::Outcome(Outcome::Failed { effect, failure })
    }

    /// A failure, with what it left behind.
    pub(super) fn outcome(&self, mut failure: Failure) -> Outcome {
        let accepted = self.history.iter().any(is_change);
        let is_unknown = accepted || self.doubt != Doubt::None || failure.code == ErrorCode::OutcomeUnknown;
        let must_not_repeat = self.doubt == Doubt::Now && !self.job.tool.repeat().is_safe();
        if failure.code == ErrorCode::OktaUnavailable && (accepted || must_not_repeat) {
            // Okta has or may have taken the change; only the reads that prove it failed.
            failure.code = ErrorCode::OutcomeUnknown;
            (failure.retryable, failure.retry_at) = (false, None);
        }
        let effect = if is_unknown { Effect::Unknown } else { Effect::None };
        Outcome::Failed { effect, failure }
    }
}

/// Whether Okta has taken a change.
pub(super) fn is_change(turn: &Turn) -> bool {
    !turn.request().is_read() && turn.response().is_some_and(Response::is_success)
}

/// What came instead of an answer.
pub(super) fn describe(answer: &Result<Response, NoAnswer>) -> String {
    match answer {
        Err(no_answer) => no_answer.to_string(),
        Ok(response) => {
            let who = match OktaError::is_in(response) && !response.is_success() {
                true => "Okta answered",
                false => "no answer of Okta's, but",
            };
            let error = OktaError::read(response);
            let code = error.error_code.map_or_else(String::new, |code| format!(" {code}"));
            let summary = error.summary.map_or_else(String::new, |summary| format!(": {summary}"));
            format!("{who} {}{code}{summary}", error.status)
        }
    }
}

pub(super) fn with_okta(failure: Failure, answer: &Result<Response, NoAnswer>) -> Failure {
    match answer {
        Ok(response) => failure.with_okta(OktaError::read(response)),
        Err(_) => failure,
    }
}
