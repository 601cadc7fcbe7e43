//! Waits with the message in hand: for its turn, the end of a pause, or the next attempt.

use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::budget::permit::WhenBusy;
use crate::domain::ids::Lane;
use crate::policy::decide::{Doubt, Held, WhilePaused, decide_while_paused, leaves_when_draining};
use crate::worker::admission::too_late;
use crate::worker::breaker::Pause;
use crate::worker::order::{Place, TurnDecision};
use crate::worker::progress::WaitingFor;

use super::{Execution, Verdict};

/// The longest time for which a message waits in hand, equal to the longest time of a list. RabbitMQ takes a delivery
/// back after its `consumer_timeout` of 30 minutes, counts it as failed, and closes the channel for all others in hand.
const WAIT_MAX: Duration = Duration::from_secs(10 * 60);

/// The divisor that turns a shorter `consumer_timeout`, once observed, into the longest wait: the broker checks once a
/// minute, and other work may take time before or after the wait.
const HOLD_DIVISOR: u32 = 3;

/// The time after which a pause no longer holds a message, as a multiple of the longest wait.
const HOLD_WAITS_MAX: u32 = 2;

/// The longest wait of a worker that stops; it has 25 seconds for every invocation that it has begun.
const REST_WHEN_STOPPING: Duration = Duration::from_secs(2);

impl Execution<'_> {
    /// Waits for the message's turn among the messages of its subject. A message that cannot wait longer leaves.
    pub async fn await_turn(&mut self, place: &Place) -> Result<TurnDecision, Verdict> {
        let deadline = self.invocation.deadline.map(|deadline| self.rules.clock.instant_of(deadline.ours));
        loop {
            if self.invocation.lane == Lane::Interactive {
                self.hold_while_paused().await?; // the caller waits, and is answered at once
            }
            let (mut watch, invocation) = (self.invocation.connection.breaker.watch(), self.invocation);
            let paused = watch.wait_for(|pause| {
                pause.is_some_and(|pause| pause.stops(invocation.scope, invocation.is_read()))
            });
            let cancelled = self.context.cancelled.wait(invocation.message);
            let turn = self.context.progress.during(WaitingFor::Order, None, place.turn());
            tokio::select! {
                biased;
                _ = paused, if invocation.lane == Lane::Interactive => {}
                notice = cancelled, if self.is_untouched() => return Err(Verdict::Cancelled(notice)),
                turn = turn => return Ok(turn),
                () = until_moment(deadline) => {
                    let late = too_late(self.deadline()).retry_at(self.time_of(Instant::now()));
                    return Err(self.failed(late));
                }
                () = until_moment(self.leave_at()) => return Ok(TurnDecision::Leave(None)),
                () = self.context.receipt.gone() => return Err(Verdict::Stale),
            }
        }
    }

    /// Returns the moment at which a waiting message must leave; `None` if it cannot be copied.
    pub fn leave_at(&self) -> Option<Instant> {
        self.may_leave.then(|| self.in_hand_since() + self.wait_max())
    }

    fn in_hand_since(&self) -> Instant {
        self.context.in_lane.map_or(self.begun, |in_lane| in_lane.since)
    }

    fn wait_max(&self) -> Duration {
        WAIT_MAX.min(self.context.hold_max / HOLD_DIVISOR)
    }

    /// Returns the longest time for which a pause may still hold the message: several pauses in a row must not come
    /// near the broker's timeout either.
    fn hold_left(&self) -> Duration {
        let last = self.in_hand_since() + HOLD_WAITS_MAX * self.wait_max();
        last.saturating_duration_since(Instant::now())
    }

    /// Returns the behavior while many requests wait for the bucket: an invocation that has begun waits, and so does a
    /// message beyond the bound of delayed messages.
    pub(super) fn when_busy(&self) -> WhenBusy {
        let most = self.invocation.connection.budget.delayed_max();
        let is_room = self.context.in_lane.is_none_or(|in_lane| in_lane.lane.has_room(most));
        match self.may_leave && self.nothing_was_sent() && is_room {
            true => WhenBusy::Delay,
            false => WhenBusy::Wait,
        }
    }

    /// Returns true if the message is to stay in its queue, because its connection is paused.
    pub fn is_paused(&self) -> bool {
        self.invocation.lane == Lane::Bulk && self.pause_that_stops().is_some()
    }

    /// Returns true if no delivery has sent a request for this message.
    pub(super) fn nothing_was_sent(&self) -> bool {
        self.cost.okta_calls == 0 && self.attempt.total() == 0
    }

    /// Returns true if the invocation has not begun, so that it may still be cancelled.
    pub(super) fn is_untouched(&self) -> bool {
        self.nothing_was_sent() && self.attempt.doubt() == Doubt::None
    }

    /// Carries out the decision for a paused connection: answers, hands the message back, or holds it until the pause
    /// is over.
    pub(super) async fn hold_while_paused(&mut self) -> Result<(), Verdict> {
        let mut held = Held::No;
        while let Some(pause) = self.pause_that_stops() {
            let invocation = self.invocation;
            if invocation.lane == Lane::Bulk {
                self.attempt.paused();
            }
            let idempotency = invocation.tool.repeat();
            let of_message = (invocation.lane, self.may_leave);
            match decide_while_paused(&self.attempt, pause.reason, of_message, idempotency, held) {
                WhilePaused::HoldFor(most) => held = self.held(most.min(self.hold_left())).await?,
                WhilePaused::HandBack => return Err(Verdict::HandBack),
                WhilePaused::GiveUp(failed) => return Err(self.paused(pause, failed)),
            }
        }
        Ok(())
    }

    /// Waits until the pause is over, for at most this time.
    async fn held(&self, most: Duration) -> Result<Held, Verdict> {
        let (mut watch, invocation) = (self.invocation.connection.breaker.watch(), self.invocation);
        let is_over = watch
            .wait_for(|pause| pause.is_none_or(|pause| !pause.stops(invocation.scope, invocation.is_read())));
        tokio::select! {
            () = self.context.receipt.gone() => Err(Verdict::Stale),
            over = timeout(most, is_over) => Ok(if over.is_ok() { Held::No } else { Held::TooLong }),
            () = self.rules.stopping.cancelled() => Ok(Held::Stopping),
        }
    }

    fn pause_that_stops(&self) -> Option<Pause> {
        let pause = self.invocation.connection.breaker.pause()?;
        pause.stops(self.invocation.scope, self.invocation.is_read()).then_some(pause)
    }

    /// Awaits a future while the delivery can be acknowledged; hands the message back when the worker stops meanwhile
    /// and nothing has been changed.
    pub(in crate::worker) async fn unless_stopping<T>(
        &self,
        awaited: impl Future<Output = T>,
    ) -> Result<T, Verdict> {
        let leaves = leaves_when_draining(&self.attempt);
        tokio::select! {
            biased;
            () = self.rules.stopping.cancelled(), if leaves => Err(Verdict::HandBack),
            done = awaited => Ok(done),
            () = self.context.receipt.gone() => Err(Verdict::Stale),
        }
    }

    /// Waits before the next attempt, or until the connection is paused.
    pub(super) async fn rest(&self, wait: Duration) -> Result<(), Verdict> {
        if wait.is_zero() {
            return Ok(());
        }
        let (mut watch, invocation) = (self.invocation.connection.breaker.watch(), self.invocation);
        let stops =
            |pause: &Option<Pause>| pause.is_some_and(|it| it.stops(invocation.scope, invocation.is_read()));
        // An invocation that cannot be left to another worker is finished before this worker has to stop.
        let stopping_soon = async {
            self.rules.stopping.cancelled().await;
            sleep(REST_WHEN_STOPPING).await;
        };
        let rested = async {
            tokio::select! {
                () = sleep(wait) => {}
                _ = watch.wait_for(stops) => {}
                () = stopping_soon => {}
            }
        };
        self.unless_stopping(self.context.progress.during(WaitingFor::Retry, None, rested)).await
    }
}

/// Waits until a moment; for ever when there is none.
async fn until_moment(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
