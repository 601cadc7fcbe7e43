//! What the broker gave up: expired, dropped by a policy, or delivered too often. It is answered all the same.

use std::sync::atomic::Ordering;

use jiff::Timestamp;

use crate::domain::answer::{Effect, ErrorCode, Failure, Outcome};
use crate::domain::ids::excerpt;
use crate::policy::provenance::{self, DropPolicy, GivenUp};

use super::conversation::Cost;
use super::event::{Event, ParkReason};
use super::letter::Letter;
use super::{Conclusion, Ended, Worker};

impl Worker {
    /// Answers what the broker gave up.
    pub(super) fn give_up(&self, letter: &Letter, is_write: bool) -> Ended {
        if let Err(failure) = letter.came_by_a_good_way() {
            return Ended::refused(failure, None);
        }
        match provenance::given_up(&letter.properties.headers) {
            Some((_, GivenUp::Expired)) => {
                let message = "the message expired in its queue before work began";
                let failure = Failure::new(ErrorCode::DeadlineExceeded, message);
                let failure = failure.at(Some("properties.expiration")).retry_at(letter.received);
                // An earlier delivery may have begun it.
                let is_unknown = is_write && letter.docket.maybe_since().is_some();
                let effect = if is_unknown { Effect::Unknown } else { Effect::None };
                let outcome = Outcome::Failed { effect, failure };
                Ended::Concluded(Conclusion::new(outcome, Cost::default(), None))
            }
            Some((queue, GivenUp::Dropped(by))) => self.dropped(queue, by, is_write, letter.received),
            Some((_, GivenUp::CrashLoop)) | None => Ended::crash_loop(is_write),
        }
    }

    /// Answers what a policy on the broker dropped out of a queue of ours, and keeps it for replay. The broker does
    /// not tell whether it was delivered before: what it dead-letters has lost its delivery count.
    fn dropped(&self, queue: &str, by: DropPolicy, is_write: bool, now: Timestamp) -> Ended {
        let keys = by.as_str();
        if !self.is_drop_told.swap(true, Ordering::Relaxed) {
            let what = format!("a policy with {keys} has dropped messages: exclude this queue from it");
            self.observer.note(&Event::Policy { queue: &excerpt(queue), what: &what });
        }
        let (code, why) = match by {
            DropPolicy::TimeToLive => {
                (ErrorCode::DeadlineExceeded, "waited longer than the broker lets messages wait")
            }
            DropPolicy::Length => (ErrorCode::Internal, "was more than the broker lets wait"),
        };
        let message = format!(
            "the message {why} in its queue: a policy of RabbitMQ's ({keys}) dropped it; it is parked for replay"
        );
        let mut failure = Failure::new(code, message);
        if by == DropPolicy::TimeToLive {
            failure = failure.retry_at(now);
        }
        let effect = if is_write { Effect::Unknown } else { Effect::None };
        let outcome = Outcome::Failed { effect, failure };
        Ended::Concluded(Conclusion::new(outcome, Cost::default(), Some(ParkReason::Dropped)))
    }
}
