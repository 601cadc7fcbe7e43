//! How much of Okta's quota the shipped controller uses, and how often it is refused.
//!
//! `cargo test --test quota` runs two seeds of sixty windows with named allowances. With `QUOTA=all` all
//! twenty seeds run, a million requests a row, and docs/quota.md is written; `just quota` does that. `ROW`
//! names a part of the names of the rows to run.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

mod okta;
mod report;
mod rows;
mod run;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use okta::Kind;
use rows::{Chance, Row, rows};
use run::{Outcome, WARM_UP, run};

/// Fixed before the first run, never exchanged for others.
const SEEDS: std::ops::RangeInclusive<u64> = 1..=20;

/// Of these a short measurement takes so many.
const SEEDS_SHORT: u64 = 2;

/// Windows of each seed and row in a short measurement, warm-up aside.
const WINDOWS_SHORT: u32 = 60;

/// What chance may do to a short measurement. Two seeds are off the mean of twenty by so many points at most,
/// measured on all pairs of them; the refusals of a million requests may fall into a few of them; and the hundredth
/// part of a few hundred that somebody waits for is two or three, all of one bad window.
const CHANCE_SHORT: Chance = Chance { used_less: 0.25, refused_more: 2.0, quick: 0.98 };

/// All kinds of windows in each seed, so many windows of each.
fn measure(row: &Row, seeds: impl Iterator<Item = u64>, windows: u32) -> Outcome {
    let mut outcome = Outcome::default();
    for seed in seeds {
        for kind in Kind::ALL {
            outcome.add(run(row.setup, kind, windows, seed));
        }
    }
    outcome
}

/// Does the same with every row, as many at once as there are processors; the results in order of the rows.
fn each_row<T: Send>(work: impl Fn(&Row) -> T + Sync) -> Vec<T> {
    let only = std::env::var("ROW").ok();
    let is_wanted = |row: &Row| only.as_ref().is_none_or(|only| row.name.contains(only));
    let rows: Vec<_> = rows().into_iter().filter(is_wanted).collect();
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::new());
    let worker = || {
        while let Some((at, row)) = {
            let at = next.fetch_add(1, Ordering::Relaxed);
            rows.get(at).map(|row| (at, row))
        } {
            let result = work(row);
            done.lock().unwrap().push((at, result));
        }
    };
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| (0..processors).for_each(|_| drop(scope.spawn(worker))));
    let mut done = done.into_inner().unwrap();
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, result)| result).collect()
}

#[test]
fn every_row_comes_to_what_it_must() {
    if std::env::var("QUOTA").as_deref() == Ok("all") {
        return report::write();
    }
    let misses = each_row(|row| {
        // The sixty windows are divided among the three kinds of windows.
        let windows = row.windows.min(WARM_UP + WINDOWS_SHORT / 3);
        let outcome = measure(row, SEEDS.take(SEEDS_SHORT as usize), windows);
        let missed = row.target.misses(&outcome, CHANCE_SHORT);
        missed.into_iter().map(|miss| format!("{}: {miss}", row.name)).collect::<Vec<_>>()
    });
    assert!(misses.concat().is_empty(), "{:#?}", misses.concat());
}
