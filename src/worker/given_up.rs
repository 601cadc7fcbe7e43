//! Messages that the broker gave up: expired, dropped by a policy, or delivered too often. The worker answers them.

use std::sync::atomic::Ordering;

use jiff::Timestamp;

use crate::domain::ids::excerpt;
use crate::domain::result::{Effect, ErrorCode, Failure};
use crate::policy::origin;
use crate::policy::origin::{DropPolicy, GivenUp};

use super::admission::Parsed;
use super::context::MessageContext;
use super::okta_time::by_okta;
use super::outcome::Disposition;
use super::state::Worker;
use crate::event::{Event, ParkReason};

impl Worker {
    /// Returns the time of receipt of a message, by Okta's clock if that is known.
    fn time_of(&self, message: &MessageContext) -> Timestamp {
        let rules = self.rules.load();
        let name = message.addressee().0;
        by_okta(message.received, rules.connections.get(name).and_then(|it| it.ahead(&rules.clock)))
    }

    /// Answers a message that the broker gave up.
    pub(super) fn give_up(&self, message: &MessageContext, parsed: &Parsed) -> Disposition {
        if let Err(failure) = message.check_origin() {
            return Disposition::refused(failure, parsed.effect_before(&message.history), None);
        }
        // RabbitMQ counts deliveries anew here (measured), so earlier ones are unknown.
        let effect = parsed.effect_unless_read();
        match origin::given_up(&message.properties.headers) {
            Some((_, GivenUp::Expired)) => {
                let text = "the message expired in its queue before it was processed";
                let failure = Failure::new(ErrorCode::DeadlineExceeded, text);
                let failure = failure.at(Some("properties.expiration")).retry_at(self.time_of(message));
                Disposition::refused(failure, effect, None)
            }
            Some((queue, GivenUp::Dropped(by))) => self.dropped(queue, by, effect, self.time_of(message)),
            Some((_, GivenUp::CrashLoop)) | None => Disposition::crash_loop(effect),
        }
    }

    /// Answers a message that a policy on the broker dropped from a queue of the worker, and parks it for replay.
    fn dropped(&self, queue: &str, by: DropPolicy, effect: Effect, now: Timestamp) -> Disposition {
        let keys = by.as_str();
        if !self.is_drop_told.swap(true, Ordering::Relaxed) {
            let what = format!("a policy with {keys} has dropped messages: exclude this queue from it");
            self.observer.note(&Event::Policy { queue: &excerpt(queue), what: &what });
        }
        let (code, why) = match by {
            DropPolicy::TimeToLive => {
                (ErrorCode::DeadlineExceeded, "waited longer than the broker lets messages wait")
            }
            DropPolicy::Length => {
                (ErrorCode::Internal, "exceeded the number of messages that the broker lets wait")
            }
        };
        let message = format!(
            "the message {why} in its queue: a policy of RabbitMQ's ({keys}) dropped it; it is parked for replay"
        );
        let mut failure = Failure::new(code, message);
        if by == DropPolicy::TimeToLive {
            failure = failure.retry_at(now);
        }
        Disposition::refused(failure, effect, Some(ParkReason::Dropped))
    }
}
