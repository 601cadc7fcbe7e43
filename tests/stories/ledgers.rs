//! Properties of the ledger: alone it never sends more than Okta announced, whatever becomes of its
//! requests; several that are counted truly together do not either; and a lie costs no more than what is
//! sent before Okta's own answer to it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use fastrand::Rng;
use okta_worker::budget::pure::ledger::{Backlog, Ledger};
use okta_worker::budget::pure::signal::Signal;
use okta_worker::budget::pure::window::{NotUntil, Observation, Observed, QuotaShare};
use okta_worker::domain::ids::Lane;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use crate::counted::{BEGIN, Counted, LENGTH, ours};

/// How often everybody asks, in milliseconds.
const STEP: u64 = 40;

/// The same where answers come soon.
const SWIFT_STEP: u64 = 2;

/// Three windows and the beginning of a fourth, in milliseconds.
const RUN: u64 = 200_000;

/// How often a worker tells the others, in milliseconds.
const TELL_EVERY: u64 = 120;

/// What becomes of the signals of the workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Signals {
    /// There are none.
    Silent,
    /// They come soon.
    Timely,
    /// They come up to so many milliseconds late, and one in three not at all.
    Late(u64),
    /// They come soon and are false.
    Lies,
}

/// What others do to the bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Others {
    /// Nothing.
    Quiet,
    /// Take so many percent of the limit at once, now and then.
    Bursts(u32),
    /// Take so many percent of the limit at once, soon after the beginning, and nothing ever after.
    Once(u32),
    /// Lower the limit by so many percent late in the first window.
    Lower(u32),
}

#[derive(Debug, Clone, Copy)]
struct Plan {
    limit: u32,
    capacity_percent: u8,
    workers: usize,
    signals: Signals,
    others: Others,
    /// Whether requests get lost, vanish or are answered without headers.
    is_rough: bool,
    /// Whether answers come within some hundredths of a second, and all work is bulk work without end.
    is_swift: bool,
    seed: u64,
}

enum Due {
    Arrival { worker: usize, sent: u64, back: u64 },
    End { worker: usize, sent: u64, told: Observation },
    Signal { to: usize, signal: Signal },
}

/// What a worker did in one of Okta's windows.
#[derive(Debug, Clone, Copy, Default)]
struct Overshoot {
    refused: u32,
    /// What was on its way when it heard of that, and the one that told.
    excused: Option<u32>,
}

struct Run {
    plan: Plan,
    rng: Rng,
    start: Instant,
    now: u64,
    ledgers: Vec<Ledger>,
    in_flight: Vec<u32>,
    counted: Counted,
    due: BTreeMap<(u64, u64), Due>,
    serial: u64,
    sent: u32,
    overshoot: BTreeMap<(i64, usize), Overshoot>,
}

impl Run {
    fn new(plan: Plan) -> Self {
        let share =
            QuotaShare { capacity_percent: plan.capacity_percent, length: Duration::from_millis(LENGTH) };
        let ledger = |worker: usize| {
            let mut ledger = Ledger::new(share, worker as u32);
            ledger.count(plan.workers as u32);
            ledger
        };
        Self {
            plan,
            rng: Rng::with_seed(plan.seed),
            start: Instant::now(),
            now: 0,
            ledgers: (0..plan.workers).map(ledger).collect(),
            in_flight: vec![0; plan.workers],
            counted: Counted::new(plan.limit),
            due: BTreeMap::new(),
            serial: 0,
            sent: 0,
            overshoot: BTreeMap::new(),
        }
    }

    fn instant(&self, at: u64) -> Instant {
        self.start + Duration::from_millis(at)
    }

    fn at(&mut self, at: u64, due: Due) {
        self.serial += 1;
        self.due.insert((at, self.serial), due);
    }

    /// Mostly a fraction of a second, sometimes many.
    fn latency(&mut self) -> u64 {
        if self.plan.is_swift {
            return self.rng.u64(2..20);
        }
        match self.rng.u32(0..100) {
            0 => self.rng.u64(0..20_000),
            1..=5 => self.rng.u64(0..4_000),
            _ => self.rng.u64(0..1_000),
        }
    }

    fn happen(&mut self, at: u64, due: Due) {
        match due {
            Due::Arrival { worker, sent, back } => {
                // Before the first answer nobody knows the limit.
                let is_rough = self.plan.is_rough && self.ledgers[worker].window().limit().is_some();
                let fate = if is_rough { self.rng.u32(0..20) } else { 20 };
                let told = match fate {
                    0 => Observation::Uncounted,
                    1 => Observation::Lost, // before it arrived
                    2 => {
                        self.counted.take(at);
                        Observation::Lost
                    }
                    3 => {
                        self.counted.take(at);
                        Observation::Nothing
                    }
                    _ => self.counted.take(at),
                };
                if let Observation::Spent(Some(rate)) = told {
                    self.overshoot.entry((rate.reset, worker)).or_default().refused += 1;
                }
                self.at(at + back, Due::End { worker, sent, told });
            }
            Due::End { worker, sent, told } => {
                self.in_flight[worker] -= 1;
                if let Observation::Spent(Some(rate)) = told {
                    let in_flight = self.in_flight[worker];
                    let overshoot = self.overshoot.get_mut(&(rate.reset, worker)).unwrap();
                    overshoot.excused = overshoot.excused.or(Some(in_flight + 1));
                }
                let heard = Observed { told, sent: self.instant(sent), at: self.instant(at) };
                self.ledgers[worker].settle(heard);
            }
            Due::Signal { to, signal } => {
                let now = self.instant(at);
                self.ledgers[to].hear(&signal, now);
            }
        }
    }

    /// Somebody asks; whoever is refused until a moment is refused just before it and admitted at it.
    fn ask(&mut self, worker: usize, lane: Lane, backlog: Backlog) {
        while self.is_admitted(worker, lane, backlog) && self.plan.is_swift {}
    }

    fn is_admitted(&mut self, worker: usize, lane: Lane, backlog: Backlog) -> bool {
        let now = self.instant(self.now);
        match self.ledgers[worker].admit(now, lane, backlog) {
            Ok(()) => {
                self.sent += 1;
                self.in_flight[worker] += 1;
                let (there, back) = (self.latency() / 2, self.latency() / 2);
                let sent = self.now;
                self.at(self.now + there, Due::Arrival { worker, sent, back });
                true
            }
            Err(NotUntil::NextAnswer) => false,
            Err(NotUntil::At(until)) => {
                assert!(until > now, "{:?} at {}", self.plan, self.now);
                if self.plan.workers == 1 {
                    self.keeps_its_word(worker, lane, backlog, until);
                }
                false
            }
        }
    }

    /// Refused just before the moment it named, admitted at it.
    fn keeps_its_word(&self, worker: usize, lane: Lane, backlog: Backlog, until: Instant) {
        let ledger = &self.ledgers[worker];
        let (plan, now) = (self.plan, self.now);
        assert_eq!(
            ledger.clone().admit(until, lane, backlog),
            Ok(()),
            "{lane} at its moment, {plan:?} at {now}"
        );
        // Bulk work that fits into what a later moment leaves goes by the plan of that moment; and who was
        // heard of is forgotten by itself.
        if plan.signals == Signals::Silent && (lane == Lane::Interactive || backlog.is_none()) {
            let before = ledger.clone().admit(until - Duration::from_nanos(1), lane, backlog);
            assert!(before.is_err(), "{lane} before its moment, {plan:?} at {now}");
        }
    }

    fn signal(&mut self, from: usize) {
        let now = self.instant(self.now);
        let told = self.ledgers[from].tell(from as u32, "user_read", true, now);
        for to in 0..self.plan.workers {
            let (delay, signal) = match self.plan.signals {
                Signals::Silent => return,
                Signals::Lies => (self.rng.u64(2..20), Some(self.lie())),
                Signals::Timely => (self.rng.u64(2..20), told.clone()),
                Signals::Late(most) => {
                    let comes = self.rng.u32(0..3) > 0;
                    (self.rng.u64(2..most), told.clone().filter(|_| comes))
                }
            };
            if let Some(signal) = signal.filter(|_| to != from || self.plan.signals == Signals::Lies) {
                self.at(self.now + delay, Due::Signal { to, signal });
            }
        }
    }

    /// What nobody ever heard of Okta.
    fn lie(&mut self) -> Signal {
        let rng = &mut self.rng;
        let second = i64::try_from((BEGIN + self.now) / 1000).unwrap();
        let limit = [1, self.plan.limit, 100_000][rng.usize(0..3)];
        Signal {
            worker: 1000 + rng.u32(0..3),
            ledger: "user_read".to_owned(),
            reset: second + [0, 30, 60, 90, 1_000_000][rng.usize(0..5)],
            limit,
            remaining: rng.u32(0..=limit),
            age: Duration::from_millis(rng.u64(0..100_000)),
            to_end: Duration::from_millis([0, 10, 60_000, 10_000_000][rng.usize(0..4)]),
            in_flight: [0, 5, 100_000][rng.usize(0..3)],
            rate: [0.0, 1.0, 1e6][rng.usize(0..3)],
            at_work: rng.bool(),
        }
    }

    fn others(&mut self) {
        match self.plan.others {
            Others::Quiet => {}
            Others::Bursts(percent) => {
                if self.rng.u64(0..20_000 / STEP) == 0 {
                    self.burst(percent);
                }
            }
            Others::Once(percent) => {
                if self.now == 5 * STEP {
                    self.burst(percent);
                }
            }
            Others::Lower(percent) => {
                if self.now == 40_000 {
                    self.counted.limit = (self.plan.limit * (100 - percent) / 100).max(1);
                }
            }
        }
    }

    fn burst(&mut self, percent: u32) {
        let (used_max, refused) = (self.counted.used_max, self.counted.refused);
        for _ in 0..self.plan.limit * percent / 100 {
            self.counted.take(self.now);
        }
        (self.counted.used_max, self.counted.refused) = (used_max, refused);
    }

    fn run(mut self) -> Self {
        let step = if self.plan.is_swift { SWIFT_STEP } else { STEP };
        for now in (0..RUN).step_by(step as usize) {
            while let Some(entry) = self.due.first_entry().filter(|entry| entry.key().0 <= now) {
                let ((at, _), due) = entry.remove_entry();
                self.now = at;
                self.happen(at, due);
            }
            self.now = now;
            self.others();
            for worker in 0..self.plan.workers {
                // Somebody who waits takes a fiftieth of the limit, in all.
                let rare = 50 * LENGTH / STEP * self.plan.workers as u64 / u64::from(self.plan.limit);
                let is_asked = self.rng.u64(0..if self.plan.workers == 1 { 8 } else { rare }) == 0;
                if is_asked && !self.plan.is_swift {
                    self.ask(worker, Lane::Interactive, None);
                }
                // Alone, any count is as good as another; several are told that there is work without end.
                let alone = [None, Some(1), Some(u64::from(self.plan.limit))];
                let backlog = if self.plan.workers == 1 && !self.plan.is_swift {
                    alone[self.rng.usize(0..3)]
                } else {
                    None
                };
                self.ask(worker, Lane::Bulk, backlog);
                if now % TELL_EVERY == 0 {
                    self.signal(worker);
                }
            }
        }
        self
    }

    /// Everybody who was refused had sent before it heard that the window was spent.
    fn all_are_excused(&self) -> bool {
        let is_excused =
            |overshoot: &Overshoot| overshoot.excused.is_none_or(|most| overshoot.refused <= most);
        self.overshoot.values().all(is_excused)
    }
}

fn honest() -> impl Strategy<Value = Signals> {
    prop_oneof![Just(Signals::Silent), Just(Signals::Timely), (100..3_000_u64).prop_map(Signals::Late),]
}

fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(28),
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(cases(40))]

    #[test]
    fn one_ledger_alone_never_sends_more_than_was_announced(
        limit in 1..200_u32, capacity_percent in 1..=100_u8, is_rough: bool, seed: u64,
    ) {
        let plan = Plan {
            limit, capacity_percent, workers: 1, signals: Signals::Silent, others: Others::Quiet, is_rough, is_swift: false, seed,
        };
        let run = Run::new(plan).run();
        let share = ours(limit, capacity_percent);
        prop_assert!(run.counted.used_max <= share, "{} of {share}", run.counted.used_max);
        prop_assert_eq!(run.counted.refused, 0);
        prop_assert!(is_rough || run.sent >= share * 2, "{} of {}", run.sent, share * 3);
    }

    #[test]
    fn what_is_over_holds_nobody_back_for_long(
        limit in 4..200_u32, capacity_percent in 80..=100_u8, percent in 0..60_u32, seed: u64,
    ) {
        let plan = Plan {
            limit, capacity_percent, workers: 1, signals: Signals::Silent, others: Others::Once(percent),
            is_rough: false, is_swift: true, seed,
        };
        let run = Run::new(plan).run();
        let share = ours(limit, capacity_percent);
        prop_assert!(run.sent * 10 >= share * 20, "{} of {}", run.sent, share * 3);
    }

    #[test]
    fn ledgers_that_are_counted_truly_are_never_refused(
        workers in 2..8_usize, part in 1..60_u32, signals in honest(), seed: u64,
    ) {
        let limit = workers as u32 * part;
        let plan = Plan {
            limit, capacity_percent: 100, workers, signals, others: Others::Quiet, is_rough: false, is_swift: false, seed,
        };
        let run = Run::new(plan).run();
        // Of what is told late or not at all, the last ones of a window may be taken twice.
        let most = if matches!(signals, Signals::Late(_)) { workers as u32 } else { 0 };
        prop_assert!(run.counted.refused <= most, "{} of {limit}", run.counted.refused);
        prop_assert!(run.sent >= limit, "{} of {}", run.sent, limit * 3);
    }

    #[test]
    fn what_others_take_or_okta_lowers_costs_what_was_on_its_way_and_the_one_that_notices(
        workers in 1..8_usize, part in 1..60_u32, signals in honest(), is_lowered: bool, percent in 20..90_u32,
        seed: u64,
    ) {
        let others = if is_lowered { Others::Lower(percent) } else { Others::Bursts(percent) };
        let limit = workers as u32 * part;
        let plan = Plan { limit, capacity_percent: 100, workers, signals, others, is_rough: false, is_swift: false, seed };
        let run = Run::new(plan).run();
        prop_assert!(run.all_are_excused(), "{:?}", run.overshoot);
    }

    #[test]
    fn a_ledger_that_is_lied_to_sends_little_more_than_was_announced(
        limit in 1..200_u32, seed: u64,
    ) {
        let plan = Plan {
            limit, capacity_percent: 100, workers: 1, signals: Signals::Lies, others: Others::Quiet,
            is_rough: false, is_swift: false, seed,
        };
        let run = Run::new(plan).run();
        // One when a lie ends the window at hand, and what else was on its way then: in each of three.
        prop_assert!(run.counted.refused <= 6, "{} of {limit}, {} sent", run.counted.refused, run.sent);
        prop_assert!(run.all_are_excused(), "{:?}", run.overshoot);
    }
}
