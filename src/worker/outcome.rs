//! The disposition of a delivery, and the facts about its message that the answer needs.

use std::sync::Arc;

use crate::domain::result::{Effect, ErrorCode, Failure, Outcome};
use crate::domain::secret::Secrets;

use super::admission::Parsed;
use super::connection::Connection;
use super::cost::DeliveryCost;
use crate::event::ParkReason;

/// The disposition of a delivery: how the worker settles it.
pub(super) enum Disposition {
    /// The invocation has ended with this conclusion, which is to be answered.
    Concluded(Conclusion),
    /// The same invocation has ended like this within the deduplication window, so nothing was executed.
    Deduplicated(Conclusion),
    /// A copy of the message is in the broker and comes back later.
    Republished,
    /// The message needs no answer.
    Dropped,
    /// The broker delivers the message again, perhaps to another worker.
    Stale,
}

/// The conclusion of an invocation, for the answer.
#[derive(Clone)]
pub(super) struct Conclusion {
    pub outcome: Outcome,
    pub cost: DeliveryCost,
    pub park: Option<ParkReason>,
    /// Pages of a list that were answered before.
    pub pages: u32,
}

impl Conclusion {
    /// Creates the conclusion of an invocation that has answered no page.
    pub fn new(outcome: Outcome, cost: DeliveryCost, park: Option<ParkReason>) -> Self {
        Self { outcome, cost, park, pages: 0 }
    }
}

impl Disposition {
    /// Creates the disposition of a message refused before any request. `effect` is that of earlier deliveries.
    pub fn refused(failure: Failure, effect: Effect, park: Option<ParkReason>) -> Self {
        Self::Concluded(Conclusion::new(Outcome::Failed { effect, failure }, DeliveryCost::default(), park))
    }

    /// Creates the disposition of a message in a crash loop: it was redelivered, and no worker has finished it.
    pub fn crash_loop(effect: Effect) -> Self {
        let message = "no worker has finished the message, although it was delivered many times";
        Self::refused(Failure::new(ErrorCode::Internal, message), effect, Some(ParkReason::CrashLoop))
    }

    /// Creates the disposition of a message whose processing panicked before any request.
    pub fn crashed(effect: Effect) -> Self {
        Self::refused(a_bug(), effect, Some(ParkReason::Internal))
    }
}

/// Returns the outcome of an invocation that its caller has cancelled.
pub(super) fn cancelled() -> Outcome {
    let failure = Failure::new(ErrorCode::Cancelled, "the caller has cancelled it before it began");
    Outcome::Failed { effect: Effect::None, failure } // a message that may have run before is not cancelled
}

/// Returns the failure that is the answer after a bug of the worker.
pub(super) fn a_bug() -> Failure {
    Failure::new(ErrorCode::Internal, "the worker has a bug; the message is parked")
}

/// Facts about a message that every answer to it needs.
#[derive(Default)]
pub(super) struct InvocationFacts {
    pub connection: Option<Arc<Connection>>,
    pub subtool: Option<&'static str>,
    /// The name in the message, even if there is no such subtool.
    pub named: Option<String>,
    pub reason: Option<String>,
    pub secrets: Secrets,
    pub bytes_max: usize,
    /// True if the result is never left out.
    pub keeps_result: bool,
    /// True if the answers are pages.
    pub is_paged: bool,
}

impl InvocationFacts {
    pub fn of(parsed: &Parsed) -> Self {
        Self {
            connection: parsed.connection.clone(),
            subtool: parsed.entry.map(|entry| entry.manifest.name),
            named: parsed.named.clone(),
            reason: parsed.reason().map(str::to_owned),
            secrets: parsed.secrets.clone(),
            bytes_max: parsed.bytes_max(),
            keeps_result: parsed.keeps_result(),
            is_paged: parsed.is_paged(),
        }
    }
}
