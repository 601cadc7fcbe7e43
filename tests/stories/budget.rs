//! Properties of the budget: by Okta's own count nobody sends more than was announced, and nobody waits
//! for ever. One worker, and nobody else in the org.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use okta_worker::budget::gate::{Gate, GateSettings};
use okta_worker::budget::permit::{Ask, Budget, NotNow, WhenBusy};
use okta_worker::budget::pure::window::{NotUntil, Observation, Observed, QuotaShare, Window};
use okta_worker::domain::bucket::RateHeaders;
use okta_worker::domain::ids::Lane;
use okta_worker::event::Observers;
use proptest::prelude::*;

use crate::counted::{Counted, LENGTH, ours};
use crate::world::prod;

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It is answered.
    Answered,
    /// It is answered without headers.
    Silent,
    /// It is counted and the answer gets lost.
    Lost,
    /// It never arrives and nobody is told.
    Vanished,
    /// It surely was not counted.
    Uncounted,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    /// Time passes.
    Wait(u64),
    /// Somebody asks: so long until it arrives, so long until its answer does.
    Ask { there: u64, back: u64, fate: Fate },
    /// Okta changes the limit.
    Announce(u32),
}

/// What happens to a request next.
#[derive(Debug, Clone, Copy)]
enum Due {
    Arrival { sent: u64, back: u64, fate: Fate },
    End { sent: u64, told: Observation },
}

/// A window, Okta's count, and requests on their way between them.
struct Run {
    start: Instant,
    now: u64,
    window: Window,
    counted: Counted,
    due: BTreeMap<(u64, usize), Due>,
    serial: usize,
}

impl Run {
    fn new(limit: u32, capacity_percent: u8) -> Self {
        let share = QuotaShare { capacity_percent, length: Duration::from_millis(LENGTH) };
        let (window, counted) = (Window::new(share), Counted::new(limit));
        Self { start: Instant::now(), now: 0, window, counted, due: BTreeMap::new(), serial: 0 }
    }

    fn instant(&self, at: u64) -> Instant {
        self.start + Duration::from_millis(at)
    }

    fn at(&mut self, at: u64, due: Due) {
        self.serial += 1;
        self.due.insert((at, self.serial), due);
    }

    /// Lets time pass, and what is due happen.
    fn until(&mut self, end: u64) {
        while let Some(entry) = self.due.first_entry().filter(|entry| entry.key().0 <= end) {
            let ((at, _), due) = entry.remove_entry();
            match due {
                Due::Arrival { sent, back, fate } => {
                    let told = match fate {
                        Fate::Answered => self.counted.take(at),
                        Fate::Silent => {
                            self.counted.take(at);
                            Observation::Nothing
                        }
                        Fate::Lost => {
                            self.counted.take(at);
                            Observation::Lost
                        }
                        Fate::Vanished => Observation::Lost,
                        Fate::Uncounted => Observation::Uncounted,
                    };
                    self.at(at + back, Due::End { sent, told });
                }
                Due::End { sent, told } => {
                    let heard = Observed { told, sent: self.instant(sent), at: self.instant(at) };
                    self.window.settle(heard);
                }
            }
        }
        self.now = self.now.max(end);
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Wait(time) => self.until(self.now + time),
            Step::Announce(limit) => self.counted.limit = limit,
            Step::Ask { there, back, fate } => {
                if self.window.admit(self.instant(self.now)).is_ok() {
                    let arrival = Due::Arrival { sent: self.now, back, fate };
                    self.at(self.now + there, arrival);
                    self.until(self.now);
                }
            }
        }
    }

    /// Once every request has ended, somebody is admitted: now, or at the moment that is named and not
    /// before.
    fn ends_with_room(&mut self) {
        self.until(self.due.keys().map(|(at, _)| *at).max().unwrap_or(self.now).max(self.now));
        self.until(self.due.keys().map(|(at, _)| *at).max().unwrap_or(self.now));
        let now = self.instant(self.now);
        match self.window.admit(now) {
            Ok(()) => {}
            Err(NotUntil::NextAnswer) => panic!("nobody is in flight, so no answer will come"),
            Err(NotUntil::At(until)) => {
                assert!(until > now && until <= now + Duration::from_millis(LENGTH + 1000), "{until:?}");
                let just_before = until - Duration::from_nanos(1);
                assert_eq!(self.window.clone().admit(just_before), Err(NotUntil::At(until)));
                assert_eq!(self.window.admit(until), Ok(()));
            }
        }
    }
}

/// Mostly short, sometimes longer than a window.
fn time() -> impl Strategy<Value = u64> {
    prop_oneof![8 => 0..2_000_u64, 2 => 0..30_000_u64, 1 => 55_000..70_000_u64]
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        6 => Just(Fate::Answered),
        1 => Just(Fate::Silent),
        2 => Just(Fate::Lost),
        1 => Just(Fate::Vanished),
        1 => Just(Fate::Uncounted),
    ]
}

fn ask() -> impl Strategy<Value = Step> {
    (time(), time(), fate()).prop_map(|(there, back, fate)| Step::Ask { there, back, fate })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(prop_oneof![4 => ask(), 1 => time().prop_map(Step::Wait)], 1..200)
}

fn changing_steps() -> impl Strategy<Value = Vec<Step>> {
    let announce = (1..20_u32).prop_map(Step::Announce);
    prop::collection::vec(prop_oneof![8 => ask(), 3 => time().prop_map(Step::Wait), 1 => announce], 1..200)
}

/// Before the first answer nobody knows the limit, so a run begins with one.
const FIRST: [Step; 2] = [Step::Ask { there: 50, back: 50, fate: Fate::Answered }, Step::Wait(100)];

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_window_of_okta_sees_more_than_our_share(
        limit in 1..20_u32, capacity_percent in 1..=100_u8, steps in steps(),
    ) {
        let mut run = Run::new(limit, capacity_percent);
        FIRST.into_iter().chain(steps).for_each(|step| run.step(step));
        run.ends_with_room();
        let share = ours(limit, capacity_percent);
        prop_assert!(run.counted.used_max <= share, "{} of {share}", run.counted.used_max);
        prop_assert_eq!(run.counted.refused, 0);
    }

    #[test]
    fn a_limit_that_changes_is_followed_and_stops_nobody_for_ever(
        limit in 1..20_u32, capacity_percent in 1..=100_u8, steps in changing_steps(),
    ) {
        let mut run = Run::new(limit, capacity_percent);
        let announced = steps.iter().map(|step| if let Step::Announce(limit) = step { *limit } else { 0 });
        let share = ours(announced.max().unwrap_or(0).max(limit), capacity_percent);
        FIRST.into_iter().chain(steps).for_each(|step| run.step(step));
        run.ends_with_room();
        prop_assert!(run.counted.used_max <= share, "{} of {share}", run.counted.used_max);
    }
}

/// One client of a gate: when it comes, by which lane, how patient it is, and what becomes of its request.
#[derive(Debug, Clone, Copy)]
struct Client {
    comes: u64,
    lane: Lane,
    /// Leaves after so long, if it still waits then.
    when_busy: Option<u64>,
    /// Has a deadline so far ahead.
    deadline: Option<u64>,
    took: u64,
    fate: Fate,
}

fn client() -> impl Strategy<Value = Client> {
    let rarely = || prop_oneof![3 => Just(None), 1 => time().prop_map(Some)];
    let lane = prop_oneof![Just(Lane::Interactive), Just(Lane::Bulk)];
    (time(), lane, rarely(), rarely(), time(), fate()).prop_map(
        |(comes, lane, when_busy, deadline, took, fate)| Client {
            comes,
            lane,
            when_busy,
            deadline,
            took,
            fate,
        },
    )
}

/// Runs a future on a clock that waits for nobody.
pub fn on_virtual_time<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(future)
}

/// A request for a user.
fn reading(lane: Lane, not_after: Option<tokio::time::Instant>) -> Ask<'static> {
    let (method, route) = (&http::Method::GET, "/api/v1/users/{userId}");
    Ask {
        method,
        route,
        lane,
        caller: None,
        not_after,
        leave_at: None,
        emits: false,
        when_busy: WhenBusy::Wait,
    }
}

fn gate(capacity_percent: u8) -> Arc<Gate> {
    let share = QuotaShare { capacity_percent, length: Duration::from_millis(LENGTH) };
    Gate::new(GateSettings::new(prod(), share), Arc::new(Observers(Vec::new())))
}

impl Client {
    /// Comes, waits, sends and hears; tells whether it was let through.
    async fn visit(self, gate: Arc<Gate>, counted: Arc<Mutex<Counted>>, start: tokio::time::Instant) -> bool {
        let millis = |time: u64| Duration::from_millis(time);
        tokio::time::sleep(millis(self.comes)).await;
        let not_after = self.deadline.map(|ahead| tokio::time::Instant::now() + millis(ahead));
        let admitted = gate.admit(reading(self.lane, not_after));
        let permit = match self.when_busy {
            None => admitted.await,
            Some(when_busy) => match tokio::time::timeout(millis(when_busy), admitted).await {
                Ok(admitted) => admitted,
                Err(_) => return false,
            },
        };
        let permit = match permit {
            Ok(permit) => permit,
            Err(NotNow::NotBefore(until)) => {
                assert!(not_after.is_some_and(|at| at < until));
                return false;
            }
            Err(NotNow::Passed) => {
                assert!(not_after.is_some_and(|at| at <= tokio::time::Instant::now()));
                return false;
            }
            Err(NotNow::Delay(_)) => panic!("who has patience waits"),
        };
        assert!(not_after.is_none_or(|at| tokio::time::Instant::now() <= at), "let through too late");
        tokio::time::sleep(millis(self.took / 2)).await;
        let arrived = || {
            let at = u64::try_from(start.elapsed().as_millis()).unwrap();
            counted.lock().unwrap().take(at)
        };
        let told = match self.fate {
            Fate::Answered => arrived(),
            Fate::Silent => {
                arrived();
                Observation::Nothing
            }
            Fate::Lost => {
                arrived();
                Observation::Lost
            }
            Fate::Vanished => Observation::Lost,
            Fate::Uncounted => Observation::Uncounted,
        };
        tokio::time::sleep(millis(self.took - self.took / 2)).await;
        permit.heard(told);
        true
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whoever_comes_and_leaves_the_gate_keeps_to_the_window_and_lets_everybody_through(
        limit in 1..20_u32, capacity_percent in 1..=100_u8, clients in prop::collection::vec(client(), 1..60),
    ) {
        let share = ours(limit, capacity_percent);
        let counted = Arc::new(Mutex::new(Counted::new(limit)));
        on_virtual_time(async {
            let (gate, start) = (gate(capacity_percent), tokio::time::Instant::now());
            let first = Client {
                comes: 0, lane: Lane::Bulk, when_busy: None, deadline: None, took: 100, fate: Fate::Answered,
            };
            assert!(first.visit(Arc::clone(&gate), Arc::clone(&counted), start).await);
            let visits: Vec<_> = clients
                .iter()
                .map(|client| tokio::spawn(client.visit(Arc::clone(&gate), Arc::clone(&counted), start)))
                .collect();
            // Each may need a window of its own, and a lost request another one.
            let ends = Duration::from_millis(4 * LENGTH) * u32::try_from(clients.len() + 2).unwrap();
            for (client, visit) in clients.iter().zip(visits) {
                let let_through = tokio::time::timeout(ends, visit).await.expect("nobody waits for ever").unwrap();
                let may_leave = client.when_busy.is_some() || client.deadline.is_some();
                assert!(let_through || may_leave, "{client:?}");
            }
        });
        let counted = counted.lock().unwrap();
        prop_assert!(counted.used_max <= share, "{} of {share}", counted.used_max);
    }
}

/// Asks as fast as it can for a whole window and tells nothing of it; how many were let through.
async fn let_through_blindly(gate: &Arc<Gate>, told: impl Fn(u32) -> Observation) -> u32 {
    /// More than any test here expects: without a limiter no time would ever pass.
    const ENOUGH: u32 = 10_000;
    let end = tokio::time::Instant::now() + Duration::from_millis(LENGTH);
    let mut count = 0;
    while count < ENOUGH {
        let Ok(permit) = gate.admit(reading(Lane::Bulk, Some(end))).await else { break };
        count += 1;
        permit.heard(told(count));
    }
    count
}

#[test]
fn without_headers_the_second_lock_alone_holds_twice_the_limit_at_most() {
    for (capacity_percent, share) in [(100, 600), (50, 300)] {
        let count = on_virtual_time(async {
            let_through_blindly(&gate(capacity_percent), |_| Observation::Nothing).await
        });
        assert!((share..=2 * share).contains(&count), "{count} of {share}");
    }
}

#[test]
fn a_window_that_always_says_yes_lets_no_more_than_twice_the_limit_through() {
    let lies = |count: u32| {
        // Each answer names a new window that nothing was taken from.
        let reset = i64::from(count) + 2_000_000_000;
        Observation::Rate(RateHeaders { limit: 40, remaining: 40, reset, date: None })
    };
    let count = on_virtual_time(async { let_through_blindly(&gate(100), lies).await });
    // One before the limit was announced.
    assert!((40..=1 + 2 * 40).contains(&count), "{count}");
}
