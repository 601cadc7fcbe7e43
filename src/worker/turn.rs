//! Waiting, delaying and handing back messages that cannot run now.
//!
//! `order.rs` keeps the order of a subject; this file applies it to messages. Invariant: the order knows of the copy of
//! a message before the delivery of that message is acknowledged.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::domain::bucket::Bucket;
use crate::domain::message::CANCEL;

use super::admission::{Invocation, Parsed};
use super::cancel::Notice;
use super::context::MessageContext;
use super::cost::DeliveryCost;
use super::delay::{Carried, Delay, Delayed};
use super::delivery::DeliveryContext;
use super::execution::{Execution, Verdict};
use super::lanes::{InLane, ORDER};
use super::order::{ExpectedReturn, TurnDecision};
use super::outcome::{Conclusion, Disposition, cancelled};
use super::rules::Rules;
use super::state::Worker;
use crate::event::Event;

/// The longest single delay because of a subject's order: the earlier messages may be finished at any moment.
const ORDER_DELAY_MAX: Duration = Duration::from_secs(5);

/// Records in the order of the lane that a copy of the message comes back after this time.
pub(super) fn leaves(invocation: &Invocation<'_>, in_lane: Option<&InLane>, time: Duration) {
    if let Some(in_lane) = in_lane {
        in_lane.delayed(time, invocation.connection.budget.workers());
    }
}

impl Worker {
    /// Gives a message its place in the order of its lane.
    pub(super) fn enter(
        &self,
        message: &MessageContext,
        parsed: Option<&Parsed>,
        rules: &Rules,
    ) -> Option<InLane> {
        let (connection, lane) = message.lane()?;
        let is_invocation = message.properties.kind.as_deref() != Some(CANCEL);
        let subject = parsed.filter(|_| is_invocation).and_then(Parsed::subject);
        let is_own = rules.own_user.is_some() && message.properties.user_id == rules.own_user;
        let header = message.properties.headers.get(ORDER).filter(|_| is_own);
        let came_back = header.and_then(|header| self.lanes.number(header));
        let ahead = rules.connections.get(connection).and_then(|served| served.ahead(&rules.clock));
        let first_sent = message.history.first_sent(ahead);
        Some(self.lanes.of(connection, lane).enter(first_sent, subject, came_back))
    }

    /// Waits until no earlier invocation of the same subject has to run first.
    pub(super) async fn in_turn(
        &self,
        invocation: &Invocation<'_>,
        delivery: DeliveryContext<'_>,
    ) -> Result<(), Disposition> {
        let Some((in_lane, place)) = delivery.in_lane.and_then(|it| Some((it, it.place()?))) else {
            return Ok(());
        };
        if place.is_next() {
            return Ok(());
        }
        let progress = self.progress(invocation);
        let mut execution = Execution::new(invocation, self.context(delivery, &progress));
        let delay = self.delay(invocation, delivery);
        loop {
            let end = match execution.await_turn(place).await {
                Ok(TurnDecision::Run) => return Ok(()),
                Ok(TurnDecision::Leave(behind)) => {
                    let left = self.leave_behind(&delay, &execution, in_lane, behind).await;
                    if let Some(ended) = left {
                        return Err(ended);
                    }
                    execution.stay();
                    place.stay();
                    continue;
                }
                Err(end) => end,
            };
            match end {
                Verdict::Outcome(outcome) => {
                    return Err(Disposition::Concluded(Conclusion::new(
                        outcome,
                        DeliveryCost::default(),
                        None,
                    )));
                }
                Verdict::Cancelled(notice) => {
                    self.note_cancelled(invocation);
                    return Err(match notice {
                        Notice::Nothing => Disposition::Dropped,
                        Notice::Answer => Disposition::Concluded(Conclusion::new(
                            cancelled(),
                            DeliveryCost::default(),
                            None,
                        )),
                    });
                }
                Verdict::HandBack => {
                    if let Some(ended) = self.hand_back(&delay, &mut execution, delivery).await {
                        return Err(ended);
                    }
                    execution.stay();
                }
                Verdict::Stale | Verdict::Page(_) | Verdict::Delay { .. } => {
                    return Err(Disposition::Stale);
                }
            }
        }
    }

    /// Delays a message because of its order; returns `None` if it cannot be copied.
    async fn leave_behind(
        &self,
        delay: &Delay<'_>,
        execution: &Execution<'_>,
        in_lane: &InLane,
        behind: Option<ExpectedReturn>,
    ) -> Option<Disposition> {
        let invocation = delay.invocation;
        let leave_at = execution.leave_at()?;
        let so_far = Carried::of(&invocation.message.history);
        if delay.rules.stopping.is_cancelled() || execution.is_paused() {
            return self.handed_back(delay, Some(in_lane), delay.hand_back(so_far).await);
        }
        // The delay is as long as the time that the message has waited so far.
        let wait = so_far.waited.min(ORDER_DELAY_MAX);
        let most = invocation.connection.budget.delayed_max();
        let room = timeout_at(leave_at, in_lane.lane.room(most));
        let room = match execution.unless_stopping(room).await {
            Ok(room) => room.ok(),
            Err(Verdict::HandBack) => None,
            Err(_) => return Some(Disposition::Stale),
        };
        if room.is_none() {
            return self.handed_back(delay, Some(in_lane), delay.hand_back(so_far).await);
        }
        match delay.put(wait, behind, so_far).await {
            Delayed::Scheduled(wait) => {
                leaves(invocation, Some(in_lane), wait);
                let (connection, lane, id) =
                    (&invocation.connection.name, invocation.lane, &*invocation.message.id);
                self.observer.note(&Event::DelayedForOrder { connection, lane, id, wait });
                Some(Disposition::Republished)
            }
            Delayed::Impossible => None,
            Delayed::Stale => Some(Disposition::Stale),
        }
    }

    /// Delays a message until its bucket has room; returns `None` if it continues to wait in hand.
    pub(super) async fn delay_for_budget(
        &self,
        delay: &Delay<'_>,
        execution: &mut Execution<'_>,
        delivery: DeliveryContext<'_>,
        (bucket, wait): (Bucket, Duration),
    ) -> Option<Disposition> {
        let (invocation, most) = (delay.invocation, delay.invocation.connection.budget.delayed_max());
        let so_far = execution.so_far();
        let reserved = delivery.in_lane.and_then(|in_lane| in_lane.lane.reserve(most));
        if delivery.in_lane.is_some() && reserved.is_none() {
            // Enough messages are delayed: this one stays in hand for a bounded time, later ones stay in their queue.
            let is_over = execution.leave_at().is_none_or(|at| at <= Instant::now());
            return match is_over {
                true => self.hand_back(delay, execution, delivery).await,
                false => None,
            };
        }
        match delay.put(wait, None, so_far).await {
            Delayed::Scheduled(wait) => {
                leaves(invocation, delivery.in_lane, wait);
                let (connection, lane) = (&invocation.connection.name, invocation.lane);
                self.observer.note(&Event::Delayed { connection, lane, bucket, wait });
                Some(Disposition::Republished)
            }
            Delayed::Impossible => {
                execution.stay();
                None
            }
            Delayed::Stale => Some(Disposition::Stale),
        }
    }

    /// Hands a message back to the end of its queue; returns `None` if it continues to wait in hand.
    pub(super) async fn hand_back(
        &self,
        delay: &Delay<'_>,
        execution: &mut Execution<'_>,
        delivery: DeliveryContext<'_>,
    ) -> Option<Disposition> {
        let put = delay.hand_back(execution.so_far()).await;
        let ended = self.handed_back(delay, delivery.in_lane, put);
        if ended.is_none() {
            execution.stay();
        }
        ended
    }

    fn handed_back(&self, delay: &Delay<'_>, in_lane: Option<&InLane>, put: Delayed) -> Option<Disposition> {
        let invocation = delay.invocation;
        match put {
            Delayed::Scheduled(time) => {
                leaves(invocation, in_lane, time);
                let (connection, lane, id) =
                    (&invocation.connection.name, invocation.lane, &*invocation.message.id);
                self.observer.note(&Event::HandedBack { connection, lane, id });
                Some(Disposition::Republished)
            }
            Delayed::Impossible if !delay.rules.stopping.is_cancelled() => None,
            Delayed::Impossible | Delayed::Stale => Some(Disposition::Stale),
        }
    }

    /// Reports that the caller has cancelled the invocation.
    pub(super) fn note_cancelled(&self, invocation: &Invocation<'_>) {
        let (connection, lane, id) = (&invocation.connection.name, invocation.lane, &*invocation.message.id);
        self.observer.note(&Event::Cancelled { connection, lane, id });
    }
}
