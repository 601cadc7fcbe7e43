//! How long an invocation waits with its message in hand, and for whom.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::domain::ids::Lane;
use crate::worker::admission::too_late;
use crate::worker::aside::SoFar;
use crate::worker::order::{Place, TurnDecision};
use crate::worker::ports::Patience;
use crate::worker::progress::WaitingFor;

use super::{Conversation, Doubt, End};

/// The longest that a message waits in hand. RabbitMQ takes a delivery back after its `consumer_timeout` of 30 minutes,
/// counts it as a failed one, and closes the channel for all others in hand. As long as a list takes at most.
const WAIT_MAX: Duration = Duration::from_secs(10 * 60);

/// Where the broker has taken a delivery back after a shorter time, a message waits for this part of that time: it looks
/// once a minute, and something else may take its time before or after.
const HOLD_PART: u32 = 3;

impl Conversation<'_> {
    /// Waits for the message's turn among those of its subject. What cannot wait here longer leaves.
    pub async fn await_turn(&mut self, place: &Place) -> Result<TurnDecision, End> {
        let deadline = self.job.deadline.map(|deadline| self.rules.clock.instant_of(deadline.at));
        loop {
            if self.job.lane == Lane::Interactive {
                self.check_pause().await?; // somebody waits, and is answered at once
            }
            let (mut watch, job) = (self.job.connection.pulse.watch(), self.job);
            let paused =
                watch.wait_for(|pause| pause.is_some_and(|pause| pause.stops(job.scope, job.is_read())));
            let cancelled = self.company.cancelled.wait(job.letter);
            let turn = self.company.progress.during(WaitingFor::Order, None, place.turn());
            tokio::select! {
                biased;
                _ = paused, if job.lane == Lane::Interactive => {}
                notice = cancelled, if self.is_untouched() => return Err(End::Cancelled(notice)),
                turn = turn => return Ok(turn),
                () = at(deadline) => {
                    let late = too_late(self.deadline()).retry_at(self.time_of(Instant::now()));
                    return Err(self.failed(late));
                }
                () = at(self.leave_at()) => return Ok(TurnDecision::Leave(None)),
                () = self.company.receipt.gone() => return Err(End::Stale),
            }
        }
    }

    /// When the message must leave if it still waits then; `None`: it cannot be copied.
    pub fn leave_at(&self) -> Option<Instant> {
        let may_leave = self.patience == Patience::ComeAgain;
        let most = WAIT_MAX.min(self.company.hold_max / HOLD_PART);
        let since = self.company.in_lane.map_or(self.begun, |in_lane| in_lane.since);
        may_leave.then(|| since + most)
    }

    /// What to do in a long line: an invocation that has begun goes on here, and so does one that there is no room for
    /// elsewhere.
    pub(super) fn patience(&self) -> Patience {
        let most = self.job.connection.budget.delayed_max();
        let is_room = self.company.in_lane.is_none_or(|in_lane| in_lane.lane.has_room(most));
        if self.nothing_was_sent() && is_room { self.patience } else { Patience::Wait }
    }

    /// Returns what has been spent on the message by now.
    pub fn so_far(&self) -> SoFar {
        let spent = self.cost.attempts.saturating_sub(self.is_open.into());
        let attempts = self.job.letter.docket.attempts.saturating_add(spent);
        SoFar { attempts, waited: self.waited(), in_doubt: !self.has_changed_nothing() }
    }

    /// Returns true when the message is to stay in its queue, because its connection is paused.
    pub fn is_paused(&self) -> bool {
        self.job.lane == Lane::Bulk && self.pause_that_stops().is_some()
    }

    /// Whether Okta has not been asked for this message, by this delivery or an earlier one.
    pub(super) fn nothing_was_sent(&self) -> bool {
        self.cost.okta_calls == 0 && self.attempts() == 0
    }

    /// Whether it surely has not begun, so that it may still be cancelled.
    pub(super) fn is_untouched(&self) -> bool {
        self.nothing_was_sent() && self.doubt == Doubt::None
    }
}

/// Waits until a moment; for ever when there is none.
async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
