//! The order of one lane: writes of one subject run one after another, as they were delivered.
//!
//! Every delivery gets a number, in the order of delivery. A write waits until no earlier write of its subject is in
//! hand; a read waits for earlier writes, not for reads. Few wait in hand for one subject; others, and whoever comes
//! after a write that lies delayed, are delayed too, in order, and come back by their number. What another worker takes
//! instead is forgotten after a while. Knows nothing of queues and messages. Invariant: nobody waits here for a message
//! that is not in hand, but for one that cannot be copied, and that for a bounded time.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::tools::subject::Subject;

/// How many invocations of one subject wait in hand at most.
const WAITING_MAX: usize = 8;

/// How many delayed writes of a lane are remembered at most. Beyond it, order is kept among those in hand only.
const DELAYED_MAX: usize = 10_000;

/// The shortest time between two searches of all subjects for delayed writes that are lost.
const SCAN_EVERY: Duration = Duration::from_secs(1);

/// How long a delayed write is expected back when this is the only worker: it comes back behind everything that waits in
/// its queue.
const LOST_ALONE: Duration = Duration::from_secs(60 * 60);

/// How late RabbitMQ may be with a message of one tier against one of another.
const TIERS_APART: Duration = Duration::from_secs(2);

/// How long one that cannot be copied waits in hand for a write that lies delayed. With enough such messages in hand that
/// write would never be delivered.
const STAYS_MAX: Duration = Duration::from_secs(2 * 60);

/// The same as [`LOST_ALONE`] where other workers take messages from the same queue. They promise no order among each other.
const LOST_AMONG_OTHERS: Duration = Duration::from_secs(2);

/// Whether an invocation changes its subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// It only reads.
    Read,
    /// It may write.
    Write,
}

/// The order of one lane.
#[derive(Default)]
pub(super) struct Order(Mutex<OrderState>);

#[derive(Default)]
struct OrderState {
    /// The number of the next delivery.
    next: u64,
    subjects: HashMap<Subject, SubjectLine>,
    /// Delayed writes of all subjects.
    delayed: usize,
    /// The moment of the last search of all subjects for lost writes.
    scanned_at: Option<Instant>,
}

/// What is known of one subject.
#[derive(Default)]
struct SubjectLine {
    /// Writes in hand, by their number.
    writes: BTreeMap<u64, Stance>,
    /// Reads in hand that wait, by their number.
    reads: BTreeMap<u64, Stance>,
    /// Writes that lie delayed, by their number.
    delayed: BTreeMap<u64, ExpectedReturn>,
    /// The write that runs.
    running: Option<u64>,
    changed: Arc<Notify>,
}

/// What somebody in hand does until its turn comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stance {
    /// Waits, unless an earlier write is delayed.
    Waits,
    /// Leaves: enough others wait.
    Leaves,
    /// Waits, because it cannot be copied; until then for delayed writes as well.
    Stays(Instant),
}

/// When a delayed write comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ExpectedReturn {
    /// When it is in its queue again.
    at: Instant,
    /// How long it lies delayed.
    tier: Duration,
    /// When it is no longer expected.
    lost_at: Instant,
}

impl ExpectedReturn {
    /// Returns the moment at which it is in its queue again.
    pub fn at(&self) -> Instant {
        self.at
    }

    /// The return of a message that is delayed now, where so many workers take messages from its queue.
    pub fn after(tier: Duration, workers: u32) -> Self {
        let at = Instant::now() + tier;
        let lost_after = if workers > 1 { LOST_AMONG_OTHERS } else { LOST_ALONE };
        Self { at, tier, lost_at: at + lost_after }
    }

    /// Returns true when a message that is delayed now by this tier comes back after it: a tier keeps its order, and
    /// between two the broker may be a moment late.
    pub fn is_before(&self, now: Instant, tier: Duration) -> bool {
        self.tier.is_zero() || tier == self.tier || now + tier >= self.at + TIERS_APART
    }
}

/// What an invocation is to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TurnDecision {
    /// Run.
    Run,
    /// Be delayed: so that it comes back after this one, if any.
    Leave(Option<ExpectedReturn>),
}

/// What becomes of an invocation now.
enum Verdict {
    Is(TurnDecision),
    /// It waits for somebody in hand, or until then for a write that may be lost.
    Waits(Option<Instant>),
}

/// An invocation's place in the order, for as long as it is in hand.
pub(super) struct Place {
    order: Arc<Order>,
    subject: Subject,
    access: Access,
    number: u64,
    changed: Arc<Notify>,
}

impl Order {
    fn state(&self) -> MutexGuard<'_, OrderState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a delivery its place. Must be called in the order of delivery. `came_back` is the number that it had when
    /// this worker delayed it.
    pub fn enter(self: &Arc<Self>, subject: Subject, access: Access, came_back: Option<u64>) -> Place {
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
        let stance = if line.is_crowded_for(number) { Stance::Leaves } else { Stance::Waits };
        match access {
            Access::Write => drop(line.writes.insert(number, stance)),
            Access::Read if line.is_behind(number) => drop(line.reads.insert(number, stance)),
            Access::Read => {}
        }
        let changed = Arc::clone(&line.changed);
        Place { order: Arc::clone(self), subject, access, number, changed }
    }
}

impl OrderState {
    /// Forgets what is lost, of all subjects.
    fn forget_lost(&mut self) {
        let now = Instant::now();
        self.scanned_at = Some(now);
        self.delayed -= self.subjects.values_mut().map(|line| line.forget_lost(now)).sum::<usize>();
        self.subjects.retain(|_, line| !line.is_empty());
    }

    /// Drops what is known of a subject when nothing is.
    fn tidy(&mut self, subject: &Subject) {
        if self.subjects.get(subject).is_some_and(SubjectLine::is_empty) {
            self.subjects.remove(subject);
        }
    }
}

impl SubjectLine {
    fn is_empty(&self) -> bool {
        self.writes.is_empty() && self.reads.is_empty() && self.delayed.is_empty()
    }

    /// A write is no longer in hand; false when it was not.
    fn end(&mut self, number: u64) -> bool {
        self.running.take_if(|running| *running == number);
        self.writes.remove(&number).is_some()
    }

    fn has(&self, number: u64) -> bool {
        self.writes.contains_key(&number) || self.reads.contains_key(&number)
    }

    /// Returns true when an earlier write is in hand or delayed.
    fn is_behind(&self, number: u64) -> bool {
        self.writes.range(..number).next().is_some() || self.delayed.range(..number).next().is_some()
    }

    /// Returns true when as many wait in hand as may, and a delivery of this number would wait as well.
    fn is_crowded_for(&self, number: u64) -> bool {
        let in_hand =
            |them: &BTreeMap<u64, Stance>| them.values().filter(|it| **it != Stance::Leaves).count();
        // The first of the writes runs.
        let waiting = in_hand(&self.writes).saturating_sub(1) + in_hand(&self.reads);
        self.is_behind(number) && waiting >= WAITING_MAX
    }

    /// Forgets delayed writes that somebody else must have taken; how many.
    fn forget_lost(&mut self, now: Instant) -> usize {
        let before = self.delayed.len();
        self.delayed.retain(|_, back| now < back.lost_at);
        before - self.delayed.len()
    }

    fn verdict(&self, number: u64, access: Access, now: Instant) -> Verdict {
        let own = self.writes.get(&number).or_else(|| self.reads.get(&number));
        let stance = own.copied().unwrap_or(Stance::Waits);
        let delayed = self.delayed.range(..number);
        let first_delayed = delayed.clone().next().map(|(first, _)| *first);
        let last_back = delayed.map(|(_, back)| *back).max_by_key(|back| back.at);
        if let Stance::Stays(until) = stance {
            return match first_delayed.filter(|_| now < until) {
                Some(_) => Verdict::Waits(last_back.map(|back| back.lost_at.min(until))),
                None => self.verdict_in_hand(number, access),
            };
        }
        if first_delayed.is_some() || (stance == Stance::Leaves && self.is_behind(number)) {
            // Whoever comes before it leaves before it.
            let leaves_before = self.writes.range(..number).any(|(other, stance)| match stance {
                Stance::Leaves => true,
                Stance::Waits => first_delayed.is_some_and(|first| first < *other),
                Stance::Stays(_) => false,
            });
            return if leaves_before {
                Verdict::Waits(None)
            } else {
                Verdict::Is(TurnDecision::Leave(last_back))
            };
        }
        self.verdict_in_hand(number, access)
    }

    /// The verdict as far as those in hand are concerned.
    fn verdict_in_hand(&self, number: u64, access: Access) -> Verdict {
        let is_first = self.writes.range(..number).next().is_none();
        let is_alone = access == Access::Read || self.running.is_none_or(|running| running == number);
        if is_first && is_alone { Verdict::Is(TurnDecision::Run) } else { Verdict::Waits(None) }
    }
}

impl Place {
    /// The number of the delivery in its lane.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Waits until it may run or must leave.
    pub async fn turn(&self) -> TurnDecision {
        loop {
            let changed = self.changed.notified();
            match self.verdict() {
                Verdict::Is(turn) => return turn,
                Verdict::Waits(None) => changed.await,
                Verdict::Waits(Some(lost_at)) => tokio::select! {
                    () = changed => {}
                    () = sleep_until(lost_at) => {}
                },
            }
        }
    }

    /// Returns true when it need not wait.
    pub fn is_next(&self) -> bool {
        matches!(self.verdict(), Verdict::Is(TurnDecision::Run))
    }

    fn verdict(&self) -> Verdict {
        let mut state = self.order.state();
        let Some(line) = state.subjects.get_mut(&self.subject) else { return Verdict::Is(TurnDecision::Run) };
        let now = Instant::now();
        let lost = line.forget_lost(now);
        let verdict = line.verdict(self.number, self.access, now);
        if let Verdict::Is(TurnDecision::Run) = verdict {
            match self.access {
                Access::Write => line.running = Some(self.number),
                Access::Read => drop(line.reads.remove(&self.number)), // it waits no longer
            }
        }
        state.delayed -= lost;
        state.tidy(&self.subject);
        verdict
    }

    /// It cannot be copied, so it waits in hand whatever becomes of those before it.
    pub fn stay(&self) {
        let mut state = self.order.state();
        let Some(line) = state.subjects.get_mut(&self.subject) else { return };
        for stance in line.writes.get_mut(&self.number).into_iter().chain(line.reads.get_mut(&self.number)) {
            *stance = Stance::Stays(Instant::now() + STAYS_MAX);
        }
        self.changed.notify_waiters();
    }

    /// A copy of it comes back then, and this delivery is over. A read is expected by nobody.
    pub fn delayed(&self, back: ExpectedReturn) {
        let mut state = self.order.state();
        if state.delayed >= DELAYED_MAX && state.scanned_at.is_none_or(|at| at.elapsed() >= SCAN_EVERY) {
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

/// It is over, one way or the other.
impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.order.state();
        if let Some(line) = state.subjects.get_mut(&self.subject) {
            match self.access {
                Access::Write => drop(line.end(self.number)),
                Access::Read => drop(line.reads.remove(&self.number)),
            }
        }
        state.tidy(&self.subject);
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
        /// Returns how many delayed writes it knows of, and of how many subjects it knows anything.
        fn remembered(&self) -> (usize, usize) {
            let state = self.state();
            (state.delayed, state.subjects.len())
        }
    }

    fn jane() -> Subject {
        Subject::user("jane@example.com")
    }

    fn write(order: &Arc<Order>) -> Place {
        order.enter(jane(), Access::Write, None)
    }

    fn read(order: &Arc<Order>) -> Place {
        order.enter(jane(), Access::Read, None)
    }

    /// What somebody is to do now; `None`: to wait.
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
        let other = order.enter(Subject::user("joe"), Access::Write, None);
        assert_eq!([&before, &first, &other].map(now), [Some(TurnDecision::Run); 3]);
        assert_eq!([&second, &between, &third].map(now), [None; 3]);
        drop(third); // it is cancelled
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
        // Room is made, and still nobody overtakes those that are delayed.
        drop(places);
        assert!(leaves(&write(&order)));
        let back = order.enter(jane(), Access::Write, Some(9));
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
        // The second is there before the first, so it leaves once more; the third waits for it to do so.
        let early = order.enter(jane(), Access::Write, Some(1));
        assert!(leaves(&early));
        assert_eq!(now(&third), None);
        let first = order.enter(jane(), Access::Write, Some(0));
        assert_eq!([now(&first), now(&early), now(&third)], [Some(TurnDecision::Run), None, None]);
        drop(first);
        assert_eq!([now(&early), now(&third)], [Some(TurnDecision::Run), None]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_delayed_write_that_does_not_come_back_is_forgotten() {
        for (workers, kept) in [(1, LOST_ALONE), (2, LOST_AMONG_OTHERS)] {
            let order = Arc::<Order>::default();
            write(&order).delayed(ExpectedReturn::after(SECOND, workers));
            tokio::time::advance(kept).await;
            assert!(leaves(&write(&order)), "{workers}");
            tokio::time::advance(SECOND).await;
            let next = write(&order);
            assert_eq!(now(&next), Some(TurnDecision::Run), "{workers}");
            // It comes all the same: at least no two run at once.
            let late = order.enter(jane(), Access::Write, Some(0));
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
        assert_eq!(begun.elapsed(), STAYS_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_is_remembered_of_delayed_writes_than_the_bound() {
        let order = Arc::<Order>::default();
        for number in 0..2 * DELAYED_MAX {
            let place = order.enter(Subject::user(&number.to_string()), Access::Write, None);
            place.delayed(back_after(SECOND));
        }
        assert_eq!(order.remembered(), (DELAYED_MAX, DELAYED_MAX));
        tokio::time::advance(2 * LOST_ALONE).await;
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
            // the tier before and in how many seconds it is back, the tier now, whether that is behind
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
