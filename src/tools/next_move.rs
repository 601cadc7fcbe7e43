//! The next move of a subtool, for its driver.

use crate::domain::http::Request;
use crate::domain::okta_error::OktaError;
use crate::domain::result::Failure;

use super::output::Remaining;
use super::plan::Plan;
use super::run::Done;

/// The next move of a subtool.
#[derive(Debug)]
pub enum Move {
    /// Send this request.
    Send(Box<Request>),
    /// Completed, with the result as JSON, or with one page of a list that continues.
    Done(Done<Box<serde_json::value::RawValue>>, Remaining),
    /// The plan of a dry run.
    Planned(Box<Plan>),
    /// Okta refused.
    Refused(Box<OktaError>),
    /// The subtool itself reports a failure.
    Fail(Box<Failure>),
}
