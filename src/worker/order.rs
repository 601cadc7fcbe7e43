//! The order of one lane: writes of one subject run one after another, in the order of their delivery.
//!
//! Every delivery gets a number, in the order of delivery. A write waits until no earlier write of its subject is in
//! hand; a read waits for earlier writes, not for reads. A few invocations of one subject wait in hand. Further ones,
//! and all that come after a delayed write, are delayed too, in order, and keep their number when they come back. A
//! delayed write that another worker takes is forgotten after a while. This file knows nothing of broker queues and
//! messages. Invariant: only an invocation that cannot be copied waits for one that is not in hand, and for a bounded
//! time.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::tools::subject::Subject;

/// The most invocations of one subject that wait in hand.
const WAITING_MAX: usize = 8;

/// The most delayed writes of a lane that are remembered. Beyond that number, only writes in hand keep their order.
const DELAYED_MAX: usize = 10_000;

/// The shortest time between two searches of all subjects for delayed writes that are lost.
const SEARCH_EVERY: Duration = Duration::from_secs(1);

/// The time after its return to the queue until which a delayed write is expected, if this is the only worker: the
/// write comes back behind all messages that wait in its queue.
const LOST_AFTER: Duration = Duration::from_secs(60 * 60);

/// The longest delay of a message in one delay queue against a message in another, caused by RabbitMQ.
const TIER_SKEW_MAX: Duration = Duration::from_secs(2);

/// The longest time for which an invocation that cannot be copied waits in hand for a delayed write. With enough such
/// messages in hand, the broker would never deliver that write.
const STAY_MAX: Duration = Duration::from_secs(2 * 60);

/// The same as [`LOST_AFTER`], if replicas consume the same queue: there is no order between replicas.
const LOST_AFTER_WITH_REPLICAS: Duration = Duration::from_secs(2);

/// The access of an invocation to its subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SubjectAccess {
    /// The invocation only reads.
    Read,
    /// The invocation may write.
    Write,
}

/// The order of one lane.
#[derive(Default)]
pub(super) struct Order(Mutex<OrderState>);

#[derive(Default)]
struct OrderState {
    /// The number of the next delivery.
    next: u64,
    subjects: HashMap<Subject, SubjectState>,
    /// Delayed writes of all subjects.
    delayed: usize,
    /// The moment of the last search of all subjects for lost writes.
    searched_at: Option<Instant>,
}

/// The state of one subject.
#[derive(Default)]
struct SubjectState {
    /// Writes in hand, by their number.
    writes: BTreeMap<u64, WaitPolicy>,
    /// Reads in hand that wait, by their number.
    reads: BTreeMap<u64, WaitPolicy>,
    /// Delayed writes, by their number.
    delayed: BTreeMap<u64, ExpectedReturn>,
    /// The write that runs.
    running: Option<u64>,
    changed: Arc<Notify>,
}

/// The behavior of an invocation in hand until its turn comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WaitPolicy {
    /// It waits, unless an earlier write is delayed.
    Waits,
    /// It leaves, because enough other invocations wait.
    Leaves,
    /// It waits, because it cannot be copied; until this moment, it also waits for delayed writes.
    Stays(Instant),
}

/// The expected return of a delayed write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ExpectedReturn {
    /// The moment at which the write is in its queue again.
    at: Instant,
    /// The time of its delay queue.
    tier: Duration,
    /// The moment from which on the write is no longer expected.
    lost_at: Instant,
}

impl ExpectedReturn {
    /// Returns the moment at which the write is in its queue again.
    pub fn at(&self) -> Instant {
        self.at
    }

    /// Creates the return of a message that is delayed now, if this many workers consume its queue.
    pub fn after(tier: Duration, workers: u32) -> Self {
        let at = Instant::now() + tier;
        let lost_after = if workers > 1 { LOST_AFTER_WITH_REPLICAS } else { LOST_AFTER };
        Self { at, tier, lost_at: at + lost_after }
    }

    /// Returns true if a message that enters the delay queue of this time now comes back after the write: a delay queue
    /// keeps its order, and between two of them the broker may be a moment late.
    pub fn is_before(&self, now: Instant, tier: Duration) -> bool {
        self.tier.is_zero() || tier == self.tier || now + tier >= self.at + TIER_SKEW_MAX
    }
}

/// The decision about an invocation at its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TurnDecision {
    /// It runs.
    Run,
    /// It is delayed, and comes back after this write, if any.
    Leave(Option<ExpectedReturn>),
}

/// The decision about an invocation now.
enum OrderDecision {
    Is(TurnDecision),
    /// It waits for an invocation in hand, or until this moment for a write that may be lost.
    Waits(Option<Instant>),
}

/// The place of an invocation in the order, while it is in hand.
pub(super) struct Place {
    order: Arc<Order>,
    subject: Subject,
    access: SubjectAccess,
    number: u64,
    changed: Arc<Notify>,
}

impl Order {
    fn state(&self) -> MutexGuard<'_, OrderState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a delivery its place. Must be called in the order of delivery. `came_back` is the number of a message that
    /// this worker has delayed.
    pub fn enter(self: &Arc<Self>, subject: Subject, access: SubjectAccess, came_back: Option<u64>) -> Place {
        let mut state = self.state();
        let OrderState { next, subjects, delayed, .. } = &mut *state;
        let line = subjects.entry(subject).or_default();
        *delayed -= came_back.map_or(0, |number| usize::from(line.delayed.remove(&number).is_some()));
        let is_free = |number: &u64| *number < *next && !line.has(*number);
        let number = came_back.filter(is_free).unwrap_or_else(|| {
            *next += 1;
            *next - 1
        });
        *delayed -= line.forget_lost(Instant::now());
        let policy = if line.is_crowded_for(number) { WaitPolicy::Leaves } else { WaitPolicy::Waits };
        match access {
            SubjectAccess::Write => drop(line.writes.insert(number, policy)),
            SubjectAccess::Read if line.is_behind(number) => drop(line.reads.insert(number, policy)),
            SubjectAccess::Read => {}
        }
        let changed = Arc::clone(&line.changed);
        Place { order: Arc::clone(self), subject, access, number, changed }
    }
}

impl OrderState {
    /// Forgets the lost writes of all subjects.
    fn forget_lost(&mut self) {
        let now = Instant::now();
        self.searched_at = Some(now);
        self.delayed -= self.subjects.values_mut().map(|line| line.forget_lost(now)).sum::<usize>();
        self.subjects.retain(|_, line| !line.is_empty());
    }

    /// Removes a subject without any invocation.
    fn remove_if_empty(&mut self, subject: &Subject) {
        if self.subjects.get(subject).is_some_and(SubjectState::is_empty) {
            self.subjects.remove(subject);
        }
    }
}

impl SubjectState {
    fn is_empty(&self) -> bool {
        self.writes.is_empty() && self.reads.is_empty() && self.delayed.is_empty()
    }

    /// Removes a write that is no longer in hand; returns false if it was not in hand.
    fn end(&mut self, number: u64) -> bool {
        self.running.take_if(|running| *running == number);
        self.writes.remove(&number).is_some()
    }

    fn has(&self, number: u64) -> bool {
        self.writes.contains_key(&number) || self.reads.contains_key(&number)
    }

    /// Returns true if an earlier write is in hand or delayed.
    fn is_behind(&self, number: u64) -> bool {
        self.writes.range(..number).next().is_some() || self.delayed.range(..number).next().is_some()
    }

    /// Returns true if as many invocations wait in hand as may, and a delivery of this number would wait as well.
    fn is_crowded_for(&self, number: u64) -> bool {
        let in_hand = |invocations: &BTreeMap<u64, WaitPolicy>| {
            invocations.values().filter(|policy| **policy != WaitPolicy::Leaves).count()
        };
        // The first write runs.
        let waiting = in_hand(&self.writes).saturating_sub(1) + in_hand(&self.reads);
        self.is_behind(number) && waiting >= WAITING_MAX
    }

    /// Forgets the delayed writes that a replica must have taken, and returns their number.
    fn forget_lost(&mut self, now: Instant) -> usize {
        let before = self.delayed.len();
        self.delayed.retain(|_, back| now < back.lost_at);
        before - self.delayed.len()
    }

    fn decide(&self, number: u64, access: SubjectAccess, now: Instant) -> OrderDecision {
        let own = self.writes.get(&number).or_else(|| self.reads.get(&number));
        let policy = own.copied().unwrap_or(WaitPolicy::Waits);
        let delayed = self.delayed.range(..number);
        let first_delayed = delayed.clone().next().map(|(first, _)| *first);
        let last_back = delayed.map(|(_, back)| *back).max_by_key(|back| back.at);
        if let WaitPolicy::Stays(until) = policy {
            return match first_delayed.filter(|_| now < until) {
                Some(_) => OrderDecision::Waits(last_back.map(|back| back.lost_at.min(until))),
                None => self.decide_in_hand(number, access),
            };
        }
        if first_delayed.is_some() || (policy == WaitPolicy::Leaves && self.is_behind(number)) {
            // Earlier writes leave first.
            let leaves_before = self.writes.range(..number).any(|(other, policy)| match policy {
                WaitPolicy::Leaves => true,
                WaitPolicy::Waits => first_delayed.is_some_and(|first| first < *other),
                WaitPolicy::Stays(_) => false,
            });
            return if leaves_before {
                OrderDecision::Waits(None)
            } else {
                OrderDecision::Is(TurnDecision::Leave(last_back))
            };
        }
        self.decide_in_hand(number, access)
    }

    /// Returns the decision in view of the invocations in hand.
    fn decide_in_hand(&self, number: u64, access: SubjectAccess) -> OrderDecision {
        let is_first = self.writes.range(..number).next().is_none();
        let is_alone = access == SubjectAccess::Read || self.running.is_none_or(|running| running == number);
        if is_first && is_alone { OrderDecision::Is(TurnDecision::Run) } else { OrderDecision::Waits(None) }
    }
}

impl Place {
    /// Returns the number of the delivery in its lane.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Waits until the invocation may run or must leave.
    pub async fn turn(&self) -> TurnDecision {
        loop {
            let changed = self.changed.notified();
            match self.decide() {
                OrderDecision::Is(turn) => return turn,
                OrderDecision::Waits(None) => changed.await,
                OrderDecision::Waits(Some(lost_at)) => tokio::select! {
                    () = changed => {}
                    () = sleep_until(lost_at) => {}
                },
            }
        }
    }

    /// Returns true if the invocation may run at once.
    pub fn is_next(&self) -> bool {
        matches!(self.decide(), OrderDecision::Is(TurnDecision::Run))
    }

    fn decide(&self) -> OrderDecision {
        let mut state = self.order.state();
        let Some(line) = state.subjects.get_mut(&self.subject) else {
            return OrderDecision::Is(TurnDecision::Run);
        };
        let now = Instant::now();
        let lost = line.forget_lost(now);
        let decision = line.decide(self.number, self.access, now);
        if let OrderDecision::Is(TurnDecision::Run) = decision {
            match self.access {
                SubjectAccess::Write => line.running = Some(self.number),
                SubjectAccess::Read => drop(line.reads.remove(&self.number)), // the read waits no longer
            }
        }
        state.delayed -= lost;
        state.remove_if_empty(&self.subject);
        decision
    }

    /// Notes that the message cannot be copied, so it waits in hand, even behind delayed writes.
    pub fn stay(&self) {
        let mut state = self.order.state();
        let Some(line) = state.subjects.get_mut(&self.subject) else { return };
        for policy in line.writes.get_mut(&self.number).into_iter().chain(line.reads.get_mut(&self.number)) {
            *policy = WaitPolicy::Stays(Instant::now() + STAY_MAX);
        }
        self.changed.notify_waiters();
    }

    /// Records that a copy of the message comes back. The copy of a read is not expected.
    pub fn delayed(&self, back: ExpectedReturn) {
        let mut state = self.order.state();
        if state.delayed >= DELAYED_MAX && state.searched_at.is_none_or(|at| at.elapsed() >= SEARCH_EVERY) {
            state.forget_lost();
        }
        let OrderState { subjects, delayed, .. } = &mut *state;
        let Some(line) = subjects.get_mut(&self.subject) else { return };
        if line.end(self.number) && *delayed < DELAYED_MAX {
            *delayed += usize::from(line.delayed.insert(self.number, back).is_none());
        }
        drop(state);
        self.changed.notify_waiters();
    }
}

/// Removes the invocation from the order.
impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.order.state();
        if let Some(line) = state.subjects.get_mut(&self.subject) {
            match self.access {
                SubjectAccess::Write => drop(line.end(self.number)),
                SubjectAccess::Read => drop(line.reads.remove(&self.number)),
            }
        }
        state.remove_if_empty(&self.subject);
        drop(state);
        self.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    impl Order {
        /// Returns the number of delayed writes, and of subjects.
        fn remembered(&self) -> (usize, usize) {
            let state = self.state();
            (state.delayed, state.subjects.len())
        }
    }

    fn jane() -> Subject {
        Subject::user("jane@example.com")
    }

    fn write(order: &Arc<Order>) -> Place {
        order.enter(jane(), SubjectAccess::Write, None)
    }

    fn read(order: &Arc<Order>) -> Place {
        order.enter(jane(), SubjectAccess::Read, None)
    }

    /// Returns the decision about an invocation now; `None` if it waits.
    fn now(place: &Place) -> Option<TurnDecision> {
        place.turn().now_or_never()
    }

    fn leaves(place: &Place) -> bool {
        matches!(now(place), Some(TurnDecision::Leave(_)))
    }

    fn back_after(tier: Duration) -> ExpectedReturn {
        ExpectedReturn::after(tier, 1)
    }

    #[tokio::test(start_paused = true)]
    async fn writes_of_one_subject_run_one_after_another_and_reads_wait_for_earlier_writes() {
        let order = Arc::<Order>::default();
        let before = read(&order);
        let first = write(&order);
        let (second, between, third) = (write(&order), read(&order), write(&order));
        let other = order.enter(Subject::user("joe"), SubjectAccess::Write, None);
        assert_eq!([&before, &first, &other].map(now), [Some(TurnDecision::Run); 3]);
        assert_eq!([&second, &between, &third].map(now), [None; 3]);
        drop(third); // the invocation is cancelled
        drop(first);
        assert_eq!([now(&second), now(&between)], [Some(TurnDecision::Run), None]);
        drop(second);
        assert_eq!(now(&between), Some(TurnDecision::Run));
        drop((before, between, other));
        assert!(order.state().subjects.is_empty(), "nothing is kept of whoever has gone");
    }

    #[tokio::test(start_paused = true)]
    async fn eight_wait_in_hand_and_the_rest_leaves_in_order() {
        let order = Arc::<Order>::default();
        let places: Vec<_> = (0..12).map(|_| write(&order)).collect();
        assert_eq!(now(&places[0]), Some(TurnDecision::Run));
        assert!(places[1..9].iter().all(|place| now(place).is_none()));
        assert!(leaves(&places[9]));
        assert!(places[10..].iter().all(|place| now(place).is_none()), "those behind leave after it");
        places[9].delayed(back_after(SECOND));
        for place in &places[10..] {
            assert!(leaves(place));
            place.delayed(back_after(SECOND));
        }
        assert!(leaves(&read(&order)), "a read that comes now is behind them");
        // There is room again, and still no write overtakes the delayed ones.
        drop(places);
        assert!(leaves(&write(&order)));
        let back = order.enter(jane(), SubjectAccess::Write, Some(9));
        assert_eq!((back.number(), now(&back)), (9, Some(TurnDecision::Run)));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_comes_after_a_delayed_write_leaves_and_comes_back_after_it() {
        let order = Arc::<Order>::default();
        let (first, second, third) = (write(&order), write(&order), write(&order));
        assert_eq!(now(&first), Some(TurnDecision::Run));
        let back = back_after(60 * SECOND);
        first.delayed(back);
        assert_eq!(now(&third), None, "the second leaves first");
        assert_eq!(now(&second), Some(TurnDecision::Leave(Some(back))));
        second.delayed(back_after(60 * SECOND));
        assert!(leaves(&third));
        drop((first, second));
        tokio::time::advance(60 * SECOND).await;
        // The second comes back before the first, so it leaves once more; the third waits until it has left.
        let early = order.enter(jane(), SubjectAccess::Write, Some(1));
        assert!(leaves(&early));
        assert_eq!(now(&third), None);
        let first = order.enter(jane(), SubjectAccess::Write, Some(0));
        assert_eq!([now(&first), now(&early), now(&third)], [Some(TurnDecision::Run), None, None]);
        drop(first);
        assert_eq!([now(&early), now(&third)], [Some(TurnDecision::Run), None]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_delayed_write_that_does_not_come_back_is_forgotten() {
        for (workers, kept) in [(1, LOST_AFTER), (2, LOST_AFTER_WITH_REPLICAS)] {
            let order = Arc::<Order>::default();
            write(&order).delayed(ExpectedReturn::after(SECOND, workers));
            tokio::time::advance(kept).await;
            assert!(leaves(&write(&order)), "{workers}");
            tokio::time::advance(SECOND).await;
            let next = write(&order);
            assert_eq!(now(&next), Some(TurnDecision::Run), "{workers}");
            // The late write comes nevertheless: at least no two run at once.
            let late = order.enter(jane(), SubjectAccess::Write, Some(0));
            assert_eq!((late.number(), now(&late)), (0, None));
            drop(next);
            assert_eq!(now(&late), Some(TurnDecision::Run));
            drop(late);
            assert_eq!(order.remembered(), (0, 0));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_copied_waits_in_hand_for_a_bounded_time() {
        let order = Arc::<Order>::default();
        let (first, second) = (write(&order), write(&order));
        first.delayed(back_after(3600 * SECOND));
        drop(first);
        assert!(leaves(&second));
        second.stay();
        let begun = Instant::now();
        assert_eq!(second.turn().await, TurnDecision::Run);
        assert_eq!(begun.elapsed(), STAY_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_is_remembered_of_delayed_writes_than_the_bound() {
        let order = Arc::<Order>::default();
        for number in 0..2 * DELAYED_MAX {
            let place = order.enter(Subject::user(&number.to_string()), SubjectAccess::Write, None);
            place.delayed(back_after(SECOND));
        }
        assert_eq!(order.remembered(), (DELAYED_MAX, DELAYED_MAX));
        tokio::time::advance(2 * LOST_AFTER).await;
        let place = write(&order);
        place.delayed(back_after(SECOND));
        drop(place);
        assert_eq!(order.remembered(), (1, 1));
    }

    #[test]
    fn another_tier_must_come_back_well_after_the_one_before_and_the_same_keeps_its_order() {
        let now = Instant::now();
        let back = |tier: u64, in_seconds: u64| {
            let (at, tier) =
                (now + SECOND * u32::try_from(in_seconds).unwrap(), SECOND * u32::try_from(tier).unwrap());
            ExpectedReturn { at, tier, lost_at: at }
        };
        let rows = [
            // the delay before and the seconds until that message is back, the delay now, true if it comes back later
            (60, 60, 60, true),
            (60, 3, 5, true),
            (60, 4, 5, false),
            (60, 59, 15, false),
            (0, 0, 1, true),
        ];
        for (tier, at, then, expected) in rows {
            assert_eq!(back(tier, at).is_before(now, SECOND * then), expected, "{tier} {at} {then}");
        }
    }
}
