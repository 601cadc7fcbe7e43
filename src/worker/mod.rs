//! The worker: processes one message, from its queue to its answer.
//!
//! [`Inbox::take`](ports::Inbox::take) runs all steps: it parses the message, checks it, executes it against Okta,
//! answers it, and acknowledges the delivery.
//!
//! Invariant (at-least-once): at every moment the invocation, a copy of it or its answer is in the broker, because
//! copy and answer are confirmed before the delivery is acknowledged.

mod admission;
pub(crate) mod respond;
pub(crate) mod delay;
mod cancel;
pub mod clock;
mod connection;
mod cost;
mod crash_loop;
mod delivery;
mod execution;
mod frame;
pub(crate) mod history;
mod recent_creations;
mod given_up;
pub mod failpoint;
mod inbox;
mod lanes;
mod context;
mod dedup;
mod okta_time;
mod order;
mod outcome;
mod parking;
pub mod ports;
mod probe;
mod progress;
pub mod breaker;
mod rules;
mod shares;
mod state;
mod turn;

use std::panic::{AssertUnwindSafe, catch_unwind};

use futures_util::FutureExt as _;
use tokio::time::Instant;

use crate::domain::message::{CANCEL, Delivery, Source};

use crate::event::{Event, ParkReason};
pub use admission::check_body;
use admission::{Invocation, Parsed};
use cancel::{Mark, Notice};
pub use connection::Connection;
use context::MessageContext;
use dedup::DedupKey;
use delivery::{DeliveryContext, InFlightGuard, Opened};
use execution::{Execution, Verdict};
use failpoint::{Point, reached};
use okta_time::Moment;
use outcome::{Conclusion, Disposition, InvocationFacts, cancelled};
use respond::Responder;
pub use rules::Rules;
pub use state::Worker;

impl Worker {
    /// Checks and executes a message, and catches panics.
    async fn run(&self, parsed: Parsed, delivery: DeliveryContext<'_>) -> Disposition {
        let (rules, message) = (delivery.rules, delivery.responder.message);
        if message.source == Source::Undelivered {
            return self.give_up(message, &parsed);
        }
        if message.history.is_given_up() {
            return Disposition::crash_loop(parsed.effect_unless_read());
        }
        if message.properties.kind.as_deref() == Some(CANCEL) {
            let may_cancel =
                |mark: &Mark| message.check_origin().is_ok() && mark.is_permitted(&rules.callers);
            if let Some(mark) = Mark::of(message).filter(may_cancel) {
                let notice = if message.reply_to.is_some() { Notice::Answer } else { Notice::Nothing };
                self.cancelled.add(mark, notice, &*self.outbox, rules.own_user.as_deref()).await;
            }
            return Disposition::Dropped;
        }
        match &message.source {
            // The connection was removed after the delivery of the message, and other workers may still serve it.
            Source::Work { connection, .. } if !rules.connections.contains_key(connection) => {
                return Disposition::Stale;
            }
            // The connection was added again: the workers that serve it consume its lanes.
            Source::Removed { connection, .. } if rules.connections.contains_key(connection) => {
                return Disposition::Stale;
            }
            Source::Work { .. } | Source::Removed { .. } | Source::Unrouted | Source::Undelivered => {}
        }
        if let Some(connection) = parsed.depends_on_clock(message, rules) {
            probe::learn_time(&connection, &rules.clock, &self.observer).await;
        }
        // A message that cannot be parsed and names no `reply_to` is parked for inspection.
        let is_parked =
            parsed.envelope.is_err() && message.reply_to.is_none() && parsed.caller_may_use(message, rules);
        let effect = parsed.effect_before(&message.history);
        match catch_unwind(AssertUnwindSafe(|| parsed.judge(message, rules))) {
            Ok(Ok(invocation)) => match self.in_turn(&invocation, delivery).await {
                Ok(()) => self.once(&invocation, delivery).await,
                Err(ended) => ended,
            },
            Ok(Err(failure)) => {
                Disposition::refused(failure, effect, is_parked.then_some(ParkReason::Unreadable))
            }
            Err(_) => Disposition::crashed(effect),
        }
    }

    /// Executes an invocation, unless this worker has executed the same one within the deduplication window.
    async fn once(&self, invocation: &Invocation<'_>, delivery: DeliveryContext<'_>) -> Disposition {
        let Some(key) = DedupKey::of(invocation, delivery.body) else {
            return self.execute(invocation, delivery).await;
        };
        let is_same_message = invocation.message.history.may_have_run();
        let begun = tokio::select! {
            begun = self.dedup.begin(key, is_same_message) => begun,
            () = delivery.receipt.gone() => return Disposition::Stale,
        };
        match begun {
            Err(earlier) => Disposition::Deduplicated(earlier),
            Ok(running) => {
                let ended = self.execute(invocation, delivery).await;
                if let Disposition::Concluded(conclusion) = &ended {
                    running.ended(conclusion);
                }
                ended
            }
        }
    }

    /// Executes the invocation against Okta, or delays the message when too many wait for the same bucket.
    async fn execute(&self, invocation: &Invocation<'_>, delivery: DeliveryContext<'_>) -> Disposition {
        let progress = self.progress(invocation);
        let context = self.context(delivery, &progress);
        let delay = self.delay(invocation, delivery);
        let _suspect_slot = match self.alone(invocation, &delay, delivery.in_lane).await {
            Ok(slot) => slot,
            Err(ended) => return ended,
        };
        reached(Point::Judged, Some(&invocation.message.id)).await;
        let mut execution = Execution::new(invocation, context);
        let mut pages = 0;
        let (outcome, park) = loop {
            match AssertUnwindSafe(execution.run()).catch_unwind().await {
                Ok(Verdict::Outcome(outcome)) => break (outcome, None),
                Err(_) => break (execution.crashed(), Some(ParkReason::Internal)),
                Ok(Verdict::Stale) => return Disposition::Stale,
                Ok(Verdict::Cancelled(notice)) => {
                    self.note_cancelled(invocation);
                    match notice {
                        Notice::Nothing => return Disposition::Dropped,
                        Notice::Answer => break (cancelled(), None),
                    }
                }
                Ok(Verdict::Page(result)) => {
                    if delivery.responder.page(result, execution.cost(), pages).await.is_err() {
                        return Disposition::Stale;
                    }
                    pages += 1;
                }
                Ok(Verdict::HandBack) => match self.hand_back(&delay, &mut execution, delivery).await {
                    Some(ended) => return ended,
                    None => execution.stay(),
                },
                Ok(Verdict::Delay { bucket, wait }) => {
                    if let Some(ended) =
                        self.delay_for_budget(&delay, &mut execution, delivery, (bucket, wait)).await
                    {
                        return ended;
                    }
                }
            }
        };
        let cost = execution.cost();
        invocation.connection.budget.concluded(invocation.lane, cost.okta_calls);
        Disposition::Concluded(Conclusion { outcome, cost, park, pages })
    }
}

impl Worker {
    /// Parses a delivery and gives it its place in the order of its lane.
    fn open(&self, delivery: Delivery) -> Opened {
        let begun = Instant::now();
        let Delivery { body, properties, exchange, routing_key, source, redelivered, receipt } = delivery;
        let rules = self.rules.load_full();
        let address = (source, exchange, routing_key);
        let settings = (&rules.reply_to, rules.own_user.as_deref());
        let ahead = rules.connection_of(&address).and_then(|connection| connection.ahead(&rules.clock));
        let message =
            MessageContext::new(address, properties, redelivered, Moment::now(&rules.clock, ahead), settings);
        let parsed = catch_unwind(AssertUnwindSafe(|| {
            let parsed = Parsed::new(&message, &body, &rules);
            (InvocationFacts::of(&parsed), parsed)
        }));
        let parsed = parsed.ok();
        let in_lane = self.enter(&message, parsed.as_ref().map(|(_, parsed)| parsed), &rules);
        Opened { rules, message, body, receipt, parsed, in_lane, begun }
    }

    /// Processes a delivery up to its settlement.
    async fn settle(&self, opened: Opened) {
        let Opened { rules, message, body, receipt, parsed, in_lane, begun } = opened;
        let _in_flight = InFlightGuard::new(&message, &*self.observer);
        reached(Point::Delivered, Some(&message.id)).await;
        let (identity, parsed) = match parsed {
            Some((identity, parsed)) => (identity, Some(parsed)),
            None => (InvocationFacts::default(), None),
        };
        let responder = Responder { worker: self, message: &message, identity: &identity, begun };
        let (rules, in_lane) = (&*rules, in_lane.as_ref());
        let delivery = DeliveryContext { rules, body: &body, receipt: &*receipt, responder, in_lane };
        let ended = match parsed {
            Some(parsed) => self.run(parsed, delivery).await,
            None => Disposition::crashed(message.history.effect_before()),
        };
        let may_acknowledge = match ended {
            Disposition::Concluded(conclusion) => {
                reached(Point::Concluded, Some(&message.id)).await;
                responder.answer(conclusion, &body).await.is_ok()
            }
            Disposition::Deduplicated(conclusion) => {
                reached(Point::Concluded, Some(&message.id)).await;
                responder.answer_again(conclusion).await.is_ok()
            }
            Disposition::Republished | Disposition::Dropped => true,
            Disposition::Stale => false,
        };
        reached(Point::Done, Some(&message.id)).await;
        if !may_acknowledge || !receipt.ack().await {
            self.observer.note(&Event::Stale { id: &message.id });
        }
        reached(Point::Acknowledged, Some(&message.id)).await;
    }
}
