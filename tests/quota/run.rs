//! One run: workers with a full backlog, somebody who waits, others, and signals between the workers.
//!
//! Virtual time. The controller is the worker's own, through its own port; only the broker and Okta are
//! models. Latency is lognormal, median 120 ms and p99 800 ms, a fifth of it on the way there.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use fastrand::Rng;
use okta_worker::budget::gate::{Gate, GateSettings};
use okta_worker::budget::gossip::{Census, Gossip};
use okta_worker::budget::permit::{Ask, Budget, WhenBusy};
use okta_worker::budget::pure::signal::Signal;
use okta_worker::budget::pure::window::{Observation, QuotaShare};
use okta_worker::domain::ids::{ConnectionName, Lane};
use okta_worker::event::Observers;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::okta::{Kind, LENGTH, Okta};

/// Bulk requests that one worker has in hand.
const IN_HAND: usize = 16;

/// Part of the limit that somebody waits for.
const INTERACTIVE_PART: f64 = 0.02;

/// Windows before anything is counted.
pub const WARM_UP: u32 = 2;

/// The least time between two signals of a worker about a bucket, as at the edge.
const SIGNAL_EVERY: Duration = Duration::from_millis(100);

/// How often the broker counts, as at the edge.
const CENSUS_EVERY: Duration = Duration::from_secs(5);

/// How long a signal is on its way, in milliseconds.
const SIGNAL_MS: std::ops::Range<u64> = 2..20;

/// What a run is like.
#[derive(Debug, Clone, Copy)]
pub struct Setup {
    pub limit: u32,
    pub workers: usize,
    /// Part of the limit that others use.
    pub others: f64,
    pub capacity_percent: u8,
    pub trouble: Trouble,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    Nothing,
    /// So many percent of the signals are lost.
    SignalsLost(u8),
    /// Okta's reset header is so many seconds off.
    ResetOff(i64),
    /// The limit is halved late in every fifth window, for two windows.
    Lowered,
    /// Workers leave and come: 4, then 8, then 2 of 8.
    Changing,
    /// Measured from the first request on, of which nobody knows the limit.
    ColdStart,
}

/// What a run came to.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Our requests, and how many of them were refused.
    pub own: u64,
    pub refused: u64,
    pub others: u64,
    pub others_refused: u64,
    pub refused_in_window_max: u64,
    /// What could have been used, in requests.
    pub usable: f64,
    /// How long those that somebody waits for waited, in milliseconds.
    pub waits: Vec<u64>,
    /// Our requests that arrived in each second of the measured time.
    pub per_second: Vec<u32>,
}

impl Outcome {
    /// The part of what could have been used that was, in percent.
    pub fn utilisation(&self) -> f64 {
        100.0 * (self.own - self.refused) as f64 / self.usable
    }

    /// How long the given part of those who waited for an answer waited at most, in milliseconds.
    pub fn wait(&self, part: f64) -> u64 {
        let mut waits = self.waits.clone();
        waits.sort_unstable();
        let last = waits.len().saturating_sub(1);
        waits.get((last as f64 * part).round() as usize).copied().unwrap_or(0)
    }

    pub fn add(&mut self, other: Self) {
        self.own += other.own;
        self.refused += other.refused;
        self.others += other.others;
        self.others_refused += other.others_refused;
        self.refused_in_window_max = self.refused_in_window_max.max(other.refused_in_window_max);
        self.usable += other.usable;
        self.waits.extend(other.waits);
    }
}

/// Shared by everybody in a run.
struct World {
    okta: Mutex<Okta>,
    rng: Mutex<Rng>,
    begun: Instant,
    waits: Mutex<Vec<u64>>,
}

impl World {
    fn okta(&self) -> MutexGuard<'_, Okta> {
        self.okta.lock().unwrap()
    }

    /// A time between events that come so often a second.
    fn gap(&self, rate: f64) -> Duration {
        Duration::from_secs_f64(-(1.0 - self.rng.lock().unwrap().f64()).ln() / rate)
    }

    fn latency(&self) -> Duration {
        const MEDIAN_S: f64 = 0.120;
        const SIGMA: f64 = 0.8156; // p99 at 800 ms
        let mut rng = self.rng.lock().unwrap();
        let normal = (-2.0 * (1.0 - rng.f64()).ln()).sqrt() * (std::f64::consts::TAU * rng.f64()).cos();
        Duration::from_secs_f64(MEDIAN_S * (SIGMA * normal).exp())
    }

    fn below(&self, end: u64) -> u64 {
        self.rng.lock().unwrap().u64(0..end)
    }

    /// One request from its admission to its answer.
    async fn request(&self, gate: &Arc<Gate>, lane: Lane) {
        let (method, route) = (&http::Method::GET, "/api/v1/users/{userId}");
        let ask = Ask {
            method,
            route,
            lane,
            caller: None,
            not_after: None,
            leave_at: None,
            emits: false,
            when_busy: WhenBusy::Wait,
        };
        let asked = Instant::now();
        let permit = gate.admit(ask).await.expect("nobody is in a hurry");
        if lane == Lane::Interactive {
            self.waits.lock().unwrap().push(asked.elapsed().as_millis() as u64);
        }
        let latency = self.latency();
        sleep(latency / 5).await;
        let (rate, passed) = self.okta().ours(self.begun.elapsed());
        sleep(latency * 4 / 5).await;
        permit.heard(if passed { Observation::Rate(rate) } else { Observation::Spent(Some(rate)) });
    }
}

/// Runs so many windows and counts all but the first two.
pub fn run(setup: Setup, kind: Kind, windows: u32, seed: u64) -> Outcome {
    fastrand::seed(seed);
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(story(setup, kind, windows, seed))
}

async fn story(setup: Setup, kind: Kind, windows: u32, seed: u64) -> Outcome {
    let reset_off = if let Trouble::ResetOff(off) = setup.trouble { off } else { 0 };
    let world = Arc::new(World {
        okta: Mutex::new(Okta::new(kind, setup.limit, reset_off)),
        rng: Mutex::new(Rng::with_seed(seed)),
        begun: Instant::now(),
        waits: Mutex::default(),
    });
    let gates: Vec<Arc<Gate>> = (0..setup.workers).map(|_| gate(setup)).collect();
    let gates = Arc::new(gates);
    let mut tasks = JoinSet::new();
    for (number, gate) in gates.iter().enumerate() {
        for _ in 0..IN_HAND {
            tasks.spawn(bulk(Arc::clone(&world), Arc::clone(gate), number, setup));
        }
        tasks.spawn(signals(Arc::clone(&world), Arc::clone(&gates), number, setup));
        tasks.spawn(census(Arc::clone(&world), Arc::clone(gate), setup));
    }
    tasks.spawn(interactive(Arc::clone(&world), Arc::clone(&gates), setup));
    if setup.others > 0.0 {
        tasks.spawn(others(Arc::clone(&world), setup));
    }
    if setup.trouble == Trouble::Lowered {
        tasks.spawn(lowering(Arc::clone(&world), setup.limit));
    }
    let warm_up = if setup.trouble == Trouble::ColdStart { 0 } else { WARM_UP };
    sleep_until(world.begun + LENGTH * warm_up).await;
    world.okta().begin_to_measure(world.begun.elapsed());
    world.waits.lock().unwrap().clear();
    sleep_until(world.begun + LENGTH * windows).await;
    tasks.abort_all();
    let okta = world.okta();
    let (own, others) = (okta.own, okta.others);
    // Of the seven windows in which the limit is lowered once, two have half of it.
    let announced = if setup.trouble == Trouble::Lowered { 6.0 / 7.0 } else { 1.0 };
    let quota = f64::from(setup.limit) * announced * f64::from(windows - warm_up);
    Outcome {
        own: own.offered,
        refused: own.refused,
        others: others.offered,
        others_refused: others.refused,
        refused_in_window_max: okta.refused_in_window_max,
        usable: quota * f64::from(setup.capacity_percent) / 100.0 - others.offered as f64,
        waits: std::mem::take(&mut world.waits.lock().unwrap()),
        per_second: okta.per_second.clone(),
    }
}

fn gate(setup: Setup) -> Arc<Gate> {
    let prod = ConnectionName::parse("prod").unwrap();
    let share = QuotaShare { capacity_percent: setup.capacity_percent, length: LENGTH };
    let terms = GateSettings { prefetch: 2 * IN_HAND, ..GateSettings::new(prod, share) };
    Gate::new(terms, Arc::new(Observers(Vec::new())))
}

/// How many workers are there at a time.
fn present(setup: Setup, since: Duration) -> usize {
    match setup.trouble {
        Trouble::Changing => [4, 8, 2][since.as_secs() as usize / 600 % 3].min(setup.workers),
        Trouble::Nothing
        | Trouble::SignalsLost(_)
        | Trouble::ResetOff(_)
        | Trouble::Lowered
        | Trouble::ColdStart => setup.workers,
    }
}

/// A message after the other, without end.
async fn bulk(world: Arc<World>, gate: Arc<Gate>, number: usize, setup: Setup) {
    loop {
        if number < present(setup, world.begun.elapsed()) {
            world.request(&gate, Lane::Bulk).await;
        } else {
            sleep(Duration::from_secs(1)).await;
        }
    }
}

/// Somebody who waits comes by chance, to any worker.
async fn interactive(world: Arc<World>, gates: Arc<Vec<Arc<Gate>>>, setup: Setup) {
    let rate = f64::from(setup.limit) * INTERACTIVE_PART / LENGTH.as_secs_f64();
    let mut waiting = JoinSet::new();
    loop {
        sleep(world.gap(rate)).await;
        while waiting.try_join_next().is_some() {}
        let present = present(setup, world.begun.elapsed());
        let gate = Arc::clone(&gates[world.below(present as u64) as usize]);
        let world = Arc::clone(&world);
        waiting.spawn(async move { world.request(&gate, Lane::Interactive).await });
    }
}

/// Others come by chance and look at nothing.
async fn others(world: Arc<World>, setup: Setup) {
    let rate = f64::from(setup.limit) * setup.others / LENGTH.as_secs_f64();
    let mut due = world.begun;
    loop {
        due += world.gap(rate);
        sleep_until(due).await;
        world.okta().other(world.begun.elapsed());
    }
}

/// What one worker tells, the others hear a little later, unless it is lost.
async fn signals(world: Arc<World>, gates: Arc<Vec<Arc<Gate>>>, number: usize, setup: Setup) {
    let lost = if let Trouble::SignalsLost(percent) = setup.trouble { u64::from(percent) } else { 0 };
    if gates.len() == 1 || lost == 100 {
        return;
    }
    let mut under_way = JoinSet::new();
    loop {
        gates[number].news().await;
        while under_way.try_join_next().is_some() {}
        for signal in gates[number].tell() {
            let delay = SIGNAL_MS.start + world.below(SIGNAL_MS.end - SIGNAL_MS.start);
            let gates = Arc::clone(&gates);
            let heard: Vec<bool> = (0..gates.len()).map(|_| world.below(100) >= lost).collect();
            under_way.spawn(async move {
                sleep(Duration::from_millis(delay)).await;
                let signal = Signal::decode(&signal.encode()).expect("a signal survives its way");
                for (other, heard) in heard.into_iter().enumerate() {
                    if other != number && heard {
                        gates[other].hear(&signal);
                    }
                }
            });
        }
        sleep(SIGNAL_EVERY).await;
    }
}

/// The broker counts workers and messages.
async fn census(world: Arc<World>, gate: Arc<Gate>, setup: Setup) {
    loop {
        let workers = present(setup, world.begun.elapsed()) as u32;
        gate.counted(Census { workers, queued: 1_000_000 });
        sleep(CENSUS_EVERY).await;
    }
}

/// Late in every fifth window the limit is halved, for two windows.
async fn lowering(world: Arc<World>, limit: u32) {
    loop {
        sleep(4 * LENGTH + LENGTH * 3 / 4).await;
        world.okta().announce(limit / 2);
        sleep(2 * LENGTH).await;
        world.okta().announce(limit);
        sleep(LENGTH / 4).await;
    }
}
