//! What the broker gave up: expired, dropped by a policy, or delivered too often. It is answered all the same.

use std::sync::atomic::Ordering;

use jiff::Timestamp;

use crate::domain::ids::excerpt;
use crate::domain::result::{Effect, ErrorCode, Failure};
use crate::policy::origin;
use crate::policy::origin::{DropPolicy, GivenUp};

use super::Worker;
use super::admission::Reading;
use super::context::Letter;
use super::okta_time::by_okta;
use super::outcome::Ended;
use crate::event::{Event, ParkReason};

impl Worker {
    /// When a message was received, as everybody else has the time.
    fn time_of(&self, letter: &Letter) -> Timestamp {
        let rules = self.rules.load();
        let name = letter.addressee().0;
        by_okta(letter.received, rules.connections.get(name).and_then(|it| it.ahead(&rules.clock)))
    }

    /// Answers what the broker gave up.
    pub(super) fn give_up(&self, letter: &Letter, reading: &Reading) -> Ended {
        if let Err(failure) = letter.came_by_a_good_way() {
            return Ended::refused(failure, reading.effect_before(&letter.docket), None);
        }
        // Here RabbitMQ counts deliveries anew (measured): whether there were any before, nothing tells.
        let effect = reading.effect_unless_read();
        match origin::given_up(&letter.properties.headers) {
            Some((_, GivenUp::Expired)) => {
                let message = "the message expired in its queue before its work was done";
                let failure = Failure::new(ErrorCode::DeadlineExceeded, message);
                let failure = failure.at(Some("properties.expiration")).retry_at(self.time_of(letter));
                Ended::refused(failure, effect, None)
            }
            Some((queue, GivenUp::Dropped(by))) => self.dropped(queue, by, effect, self.time_of(letter)),
            Some((_, GivenUp::CrashLoop)) | None => Ended::crash_loop(effect),
        }
    }

    /// Answers what a policy on the broker dropped out of a queue of ours, and keeps it for replay.
    fn dropped(&self, queue: &str, by: DropPolicy, effect: Effect, now: Timestamp) -> Ended {
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
        Ended::refused(failure, effect, Some(ParkReason::Dropped))
    }
}
