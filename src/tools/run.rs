//! The state of a run of a subtool: completed, or stopped.

use crate::domain::http::Request;
use crate::domain::okta_error::OktaError;
use crate::domain::result::{Effect, ErrorCode, Failure};

/// The state of a run: completed, or stopped.
pub type Run<T> = Result<Done<T>, Stop>;

/// A successful end.
#[derive(Debug)]
pub struct Done<T> {
    /// The change in Okta.
    pub effect: Effect,
    /// The result.
    pub output: T,
}

impl<T> Done<T> {
    /// Ends a read.
    pub fn read(output: T) -> Self {
        Self { effect: Effect::None, output }
    }

    /// Ends a write that Okta made or accepted.
    pub fn applied(output: T) -> Self {
        Self { effect: Effect::Applied, output }
    }

    /// Ends a write whose state Okta already had.
    pub fn unchanged(output: T) -> Self {
        Self { effect: Effect::Unchanged, output }
    }
}

/// The reason why a run stopped.
#[derive(Debug)]
pub enum Stop {
    /// The question has no answer yet.
    Send(Box<Request>),
    /// Okta refused; the policy layer names the failure.
    Refused(Box<OktaError>),
    /// The subtool itself reports a failure.
    Fail(Box<Failure>),
}

impl Stop {
    /// Stops with a failure with this code.
    pub fn fail(code: ErrorCode, message: impl Into<String>) -> Self {
        Self::Fail(Box::new(Failure::new(code, message)))
    }

    /// Stops at an invalid argument.
    pub fn argument(name: &str, message: impl Into<String>) -> Self {
        let failure =
            Failure::new(ErrorCode::InvalidArguments, message).at(Some(format!("arguments.{name}")));
        Self::Fail(Box::new(failure))
    }

    /// Stops at a status that does not allow the operation, as Okta's refusal or an earlier read showed.
    pub fn precondition(message: impl Into<String>, okta: Option<OktaError>) -> Self {
        let mut failure = Failure::new(ErrorCode::PreconditionFailed, message);
        failure.okta = okta;
        Self::Fail(Box::new(failure))
    }

    /// Stops at a read with a success status whose body is not the expected one.
    pub fn unreadable() -> Self {
        Self::fail(ErrorCode::OktaUnavailable, "failed to read Okta's answer: it is not the JSON expected")
    }
}
