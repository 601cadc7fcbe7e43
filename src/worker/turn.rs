//! What a message does that cannot go on here: wait for its turn, be delayed, go back to its queue.
//!
//! The order of a subject is kept in `order.rs`; here it is applied to messages. Invariant: whatever leaves by a copy is
//! entered there before its delivery is acknowledged.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::domain::bucket::Bucket;
use crate::domain::message::CANCEL;

use super::admission::{Job, Reading};
use super::cancel::Notice;
use super::context::Letter;
use super::delay::{Aside, Put, SoFar};
use super::execution::Cost;
use super::execution::{End, Execution};
use super::lanes::{InLane, ORDER};
use super::order::{ExpectedReturn, TurnDecision};
use super::outcome::{Conclusion, Ended, cancelled};
use super::rules::Rules;
use super::{Case, Worker};
use crate::event::Event;

/// The longest that a message is delayed at a time because of its order: those before it may be over at any moment.
const BEHIND_MAX: Duration = Duration::from_secs(5);

/// A copy of a message comes back after so long.
pub(super) fn leaves(job: &Job<'_>, in_lane: Option<&InLane>, time: Duration) {
    if let Some(in_lane) = in_lane {
        in_lane.delayed(time, job.connection.budget.workers());
    }
}

impl Worker {
    /// Gives a message its place in its lane.
    pub(super) fn enter(&self, letter: &Letter, reading: Option<&Reading>, rules: &Rules) -> Option<InLane> {
        let (connection, lane) = letter.lane()?;
        let is_invocation = letter.properties.kind.as_deref() != Some(CANCEL);
        let subject = reading.filter(|_| is_invocation).and_then(Reading::subject);
        let is_own = rules.own_user.is_some() && letter.properties.user_id == rules.own_user;
        let header = letter.properties.headers.get(ORDER).filter(|_| is_own);
        let came_back = header.and_then(|header| self.lanes.number(header));
        let ahead = rules.connections.get(connection).and_then(|served| served.ahead(&rules.clock));
        let first_sent = letter.docket.first_sent(ahead);
        Some(self.lanes.of(connection, lane).enter(first_sent, subject, came_back))
    }

    /// Waits until no earlier invocation of the same subject is in the way.
    pub(super) async fn in_turn(&self, job: &Job<'_>, case: Case<'_>) -> Result<(), Ended> {
        let Some((in_lane, place)) = case.in_lane.and_then(|it| Some((it, it.place()?))) else {
            return Ok(());
        };
        if place.is_next() {
            return Ok(());
        }
        let progress = self.progress(job);
        let mut execution = Execution::new(job, self.company(case, &progress));
        let aside = self.aside(job, case);
        loop {
            let end = match execution.await_turn(place).await {
                Ok(TurnDecision::Run) => return Ok(()),
                Ok(TurnDecision::Leave(behind)) => {
                    let left = self.leave_behind(&aside, &execution, in_lane, behind).await;
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
                End::Outcome(outcome) => {
                    return Err(Ended::Concluded(Conclusion::new(outcome, Cost::default(), None)));
                }
                End::Cancelled(notice) => {
                    self.note_cancelled(job);
                    return Err(match notice {
                        Notice::Nothing => Ended::Dropped,
                        Notice::Answer => {
                            Ended::Concluded(Conclusion::new(cancelled(), Cost::default(), None))
                        }
                    });
                }
                End::HandBack => {
                    if let Some(ended) = self.hand_back(&aside, &mut execution, case).await {
                        return Err(ended);
                    }
                    execution.stay();
                }
                End::Stale | End::Page(_) | End::ComeAgain { .. } => return Err(Ended::Stale),
            }
        }
    }

    /// Delays a message because of its order; `None`: it cannot be copied.
    async fn leave_behind(
        &self,
        aside: &Aside<'_>,
        execution: &Execution<'_>,
        in_lane: &InLane,
        behind: Option<ExpectedReturn>,
    ) -> Option<Ended> {
        let job = aside.job;
        let leave_at = execution.leave_at()?;
        let so_far = SoFar::of(&job.letter.docket);
        if *aside.rules.stopping.borrow() || execution.is_paused() {
            return self.handed_back(aside, Some(in_lane), aside.hand_back(so_far).await);
        }
        // As long again as it has been delayed already.
        let wait = so_far.waited.min(BEHIND_MAX);
        let most = job.connection.budget.delayed_max();
        let room = timeout_at(leave_at, in_lane.lane.room(most));
        let room = match execution.unless_stopping(room).await {
            Ok(room) => room.ok(),
            Err(End::HandBack) => None,
            Err(_) => return Some(Ended::Stale),
        };
        if room.is_none() {
            return self.handed_back(aside, Some(in_lane), aside.hand_back(so_far).await);
        }
        match aside.put(wait, behind, so_far).await {
            Put::ComesBack(wait) => {
                leaves(job, Some(in_lane), wait);
                let (connection, lane, id) = (&job.connection.name, job.lane, &*job.letter.id);
                self.observer.note(&Event::Behind { connection, lane, id, wait });
                Some(Ended::PutAside)
            }
            Put::Stays => None,
            Put::Stale => Some(Ended::Stale),
        }
    }

    /// Has a message wait for its bucket outside; `None`: it goes on waiting here.
    pub(super) async fn come_again(
        &self,
        aside: &Aside<'_>,
        execution: &mut Execution<'_>,
        case: Case<'_>,
        (bucket, wait): (Bucket, Duration),
    ) -> Option<Ended> {
        let (job, most) = (aside.job, aside.job.connection.budget.delayed_max());
        let so_far = execution.so_far();
        let reserved = case.in_lane.and_then(|in_lane| in_lane.lane.reserve(most));
        if case.in_lane.is_some() && reserved.is_none() {
            // Enough lie there: it stays, and what comes after it in its queue; but not for ever.
            let is_over = execution.leave_at().is_none_or(|at| at <= Instant::now());
            return match is_over {
                true => self.hand_back(aside, execution, case).await,
                false => None,
            };
        }
        match aside.put(wait, None, so_far).await {
            Put::ComesBack(wait) => {
                leaves(job, case.in_lane, wait);
                let (connection, lane) = (&job.connection.name, job.lane);
                self.observer.note(&Event::PutAside { connection, lane, bucket, wait });
                Some(Ended::PutAside)
            }
            Put::Stays => {
                execution.stay();
                None
            }
            Put::Stale => Some(Ended::Stale),
        }
    }

    /// Hands a message back to the end of its queue; `None`: it goes on waiting here.
    pub(super) async fn hand_back(
        &self,
        aside: &Aside<'_>,
        execution: &mut Execution<'_>,
        case: Case<'_>,
    ) -> Option<Ended> {
        let put = aside.hand_back(execution.so_far()).await;
        let ended = self.handed_back(aside, case.in_lane, put);
        if ended.is_none() {
            execution.stay();
        }
        ended
    }

    fn handed_back(&self, aside: &Aside<'_>, in_lane: Option<&InLane>, put: Put) -> Option<Ended> {
        let job = aside.job;
        match put {
            Put::ComesBack(time) => {
                leaves(job, in_lane, time);
                let (connection, lane, id) = (&job.connection.name, job.lane, &*job.letter.id);
                self.observer.note(&Event::HandedBack { connection, lane, id });
                Some(Ended::PutAside)
            }
            Put::Stays if !*aside.rules.stopping.borrow() => None,
            Put::Stays | Put::Stale => Some(Ended::Stale),
        }
    }

    /// Nobody wants the message any more.
    pub(super) fn note_cancelled(&self, job: &Job<'_>) {
        let (connection, lane, id) = (&job.connection.name, job.lane, &*job.letter.id);
        self.observer.note(&Event::Cancelled { connection, lane, id });
    }
}
