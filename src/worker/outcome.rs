//! The end of a delivery, and the facts about its message that the answer needs.

use std::sync::Arc;

use crate::domain::result::{Effect, ErrorCode, Failure, Outcome};
use crate::domain::secret::Secrets;

use super::admission::Reading;
use super::connection::Connection;
use super::execution::Cost;
use crate::event::ParkReason;

/// The end of a delivery.
pub(super) enum Ended {
    /// The invocation has ended: what is to be answered.
    Concluded(Conclusion),
    /// Nothing was run, because the same invocation has ended like this a short while ago.
    Deduplicated(Conclusion),
    /// A copy of the message is in the broker and comes again later.
    PutAside,
    /// Nobody waits for an answer.
    Dropped,
    /// Somebody else will have the message.
    Stale,
}

/// The end of an invocation, for the answer.
#[derive(Clone)]
pub(super) struct Conclusion {
    pub outcome: Outcome,
    pub cost: Cost,
    pub park: Option<ParkReason>,
    /// Pages of a list that were answered before this end.
    pub pages: u32,
}

impl Conclusion {
    /// It ended before any page.
    pub fn new(outcome: Outcome, cost: Cost, park: Option<ParkReason>) -> Self {
        Self { outcome, cost, park, pages: 0 }
    }
}

impl Ended {
    /// Nothing was sent for this delivery. The effect says what an earlier one may have done.
    pub fn refused(failure: Failure, effect: Effect, park: Option<ParkReason>) -> Self {
        Self::Concluded(Conclusion::new(Outcome::Failed { effect, failure }, Cost::default(), park))
    }

    /// It was delivered again and again, and no worker came to its end.
    pub fn crash_loop(effect: Effect) -> Self {
        let message = "no worker came to the end of the message in too many deliveries";
        Self::refused(Failure::new(ErrorCode::Internal, message), effect, Some(ParkReason::CrashLoop))
    }

    /// A bug of ours ended it before any request.
    pub fn crashed(effect: Effect) -> Self {
        Self::refused(a_bug(), effect, Some(ParkReason::Internal))
    }
}

/// Returns the outcome of an invocation that its caller has cancelled.
pub(super) fn cancelled() -> Outcome {
    let failure = Failure::new(ErrorCode::Cancelled, "the caller has cancelled it before it began");
    Outcome::Failed { effect: Effect::None, failure } // whatever may have run before is not cancelled
}

/// Returns the failure that a bug of the worker is answered with.
pub(super) fn a_bug() -> Failure {
    Failure::new(ErrorCode::Internal, "the worker has a bug; the message is parked")
}

/// Facts about a message that its answer needs, whatever became of it.
#[derive(Default)]
pub(super) struct Identity {
    pub connection: Option<Arc<Connection>>,
    pub subtool: Option<&'static str>,
    /// The same in words, whether it is one of the 28 or not.
    pub named: Option<String>,
    pub reason: Option<String>,
    pub secrets: Secrets,
    pub bytes_max: usize,
    /// True if its result is never left out.
    pub keeps_result: bool,
    /// True if its answers are pages.
    pub is_paged: bool,
}

impl Identity {
    pub fn of(reading: &Reading) -> Self {
        Self {
            connection: reading.connection.clone(),
            subtool: reading.entry.map(|entry| entry.manifest.name),
            named: reading.named.clone(),
            reason: reading.reason().map(str::to_owned),
            secrets: reading.secrets.clone(),
            bytes_max: reading.bytes_max(),
            keeps_result: reading.keeps_result(),
            is_paged: reading.is_paged(),
        }
    }
}
