//! The rows: what each run is like, and what it must come to.

use crate::run::{Outcome, Setup, Trouble};

/// One line of the table.
pub struct Row {
    pub name: &'static str,
    pub setup: Setup,
    /// Windows of a run in the whole measurement; two of them warm up, but not at a cold start.
    pub windows: u32,
    pub target: Target,
}

/// What a row must come to, over all its seeds.
pub struct Target {
    /// The least part of the quota used, in percent.
    pub used_min: f64,
    /// The most refusals, in a million of our own requests.
    pub refused_max: f64,
    /// The most refusals in any one window.
    pub in_window_max: u64,
    /// The most refusals of others, in a million of theirs.
    pub others_refused_max: f64,
    /// How long 99 of 100 of those that somebody waits for may wait, in milliseconds.
    pub wait_p99_max: u64,
}

/// So few refusals that only chance can cause them: none is allowed.
const NONE: f64 = 0.0;

/// Not looked at: what others bring by chance may exceed what is left, whoever uses the rest.
const ANY: f64 = 1_000_000.0;

/// Nobody notices so little.
const WAIT_P99_MS: u64 = 50;

const ALONE: Setup =
    Setup { limit: 600, workers: 8, others: 0.0, capacity_percent: 100, trouble: Trouble::Nothing };

const BESIDE_OTHERS: Setup = Setup { others: 0.3, ..ALONE };

/// What a row with trouble in it must come to: half a point less, some chance, and waits as they come.
fn troubled() -> Target {
    Target { wait_p99_max: u64::MAX, ..target(98.6, 520.0) }
}

fn target(used_min: f64, refused_max: f64) -> Target {
    Target {
        used_min,
        refused_max,
        in_window_max: u64::MAX,
        others_refused_max: ANY,
        wait_p99_max: WAIT_P99_MS,
    }
}

/// All rows. The windows of a row are chosen so that twenty seeds make a million requests.
pub fn rows() -> Vec<Row> {
    let row = |name, setup, windows, target| Row { name, setup, windows, target };
    vec![
        row("alone, 600", ALONE, 31, target(99.4, NONE)),
        row("alone, 1200", Setup { limit: 1200, ..ALONE }, 17, target(99.4, NONE)),
        row("30 % others, 1200", Setup { limit: 1200, ..BESIDE_OTHERS }, 23, target(99.3, 10.0)),
        row("30 % others, 600", BESIDE_OTHERS, 43, target(99.1, 20.0)),
        row("30 % others, 100", Setup { limit: 100, ..BESIDE_OTHERS }, 250, target(95.5, 500.0)),
        row(
            "cold start, unknown limit",
            Setup { trouble: Trouble::ColdStart, ..ALONE },
            1,
            target(99.0, NONE),
        ),
        row(
            "limit halved late in a window",
            Setup { workers: 4, trouble: Trouble::Lowered, ..BESIDE_OTHERS },
            57,
            Target { in_window_max: 4, used_min: 0.0, refused_max: ANY, ..troubled() },
        ),
        row("no signals", Setup { trouble: Trouble::SignalsLost(100), ..BESIDE_OTHERS }, 43, troubled()),
        row(
            "20 % of the signals lost",
            Setup { trouble: Trouble::SignalsLost(20), ..BESIDE_OTHERS },
            43,
            troubled(),
        ),
        row(
            "reset header 5 s late",
            Setup { trouble: Trouble::ResetOff(5), ..BESIDE_OTHERS },
            43,
            troubled(),
        ),
        row(
            "reset header 5 s early",
            Setup { trouble: Trouble::ResetOff(-5), ..BESIDE_OTHERS },
            43,
            troubled(),
        ),
        row("4, 8, 2 workers in turn", Setup { trouble: Trouble::Changing, ..BESIDE_OTHERS }, 43, troubled()),
        row(
            "alone, the usual 90 % of 600",
            Setup { capacity_percent: 90, ..ALONE },
            34,
            Target { others_refused_max: NONE, ..target(98.0, NONE) },
        ),
        row(
            "30 % others, the usual 90 % of 600",
            Setup { capacity_percent: 90, ..BESIDE_OTHERS },
            49,
            Target { others_refused_max: NONE, ..target(98.0, NONE) },
        ),
    ]
}

/// What chance may do to a measurement.
#[derive(Debug, Clone, Copy)]
pub struct Chance {
    /// Points of use that may be missing.
    pub used_less: f64,
    /// Refusals there may be more.
    pub refused_more: f64,
    /// The share of those that somebody waits for that must be quick.
    pub quick: f64,
}

impl Chance {
    /// None: the measurement is long enough.
    pub const NONE: Self = Self { used_less: 0.0, refused_more: 0.0, quick: 0.99 };
}

impl Target {
    /// What a row does not come to, in words, with what chance may do to a short measurement.
    pub fn misses(&self, outcome: &Outcome, chance: Chance) -> Vec<String> {
        let Chance { used_less, refused_more, quick } = chance;
        let mut misses = Vec::new();
        let used = outcome.utilisation();
        if used < self.used_min - used_less {
            misses.push(format!("{used:.2} % used, {:.2} % wanted", self.used_min));
        }
        let allowed = |in_a_million: f64, of: u64| in_a_million * of as f64 / 1e6;
        if outcome.refused as f64 > allowed(self.refused_max, outcome.own) + refused_more {
            misses.push(format!("{} of {} refused", outcome.refused, outcome.own));
        }
        if outcome.refused_in_window_max > self.in_window_max {
            misses.push(format!("{} refused in one window", outcome.refused_in_window_max));
        }
        if outcome.wait(quick) > self.wait_p99_max {
            let slow = 100.0 * (1.0 - quick);
            misses.push(format!("{slow:.0} in a hundred waited longer than {} ms", outcome.wait(quick)));
        }
        if outcome.others_refused as f64 > allowed(self.others_refused_max, outcome.others) {
            misses.push(format!("{} of others' {} refused", outcome.others_refused, outcome.others));
        }
        misses
    }
}
