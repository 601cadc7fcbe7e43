//! The whole measurement, as docs/quota.md.

use okta_worker::budget::pure::constants;

use crate::okta::Kind;
use crate::rows::{Chance, Row};
use crate::run::{Outcome, Setup, Trouble, run};
use crate::{SEEDS, each_row, measure};

/// Measures every row with every seed and writes it down.
///
/// # Panics
/// At the end, when a row misses its target.
pub fn write() {
    let measured = each_row(|row| {
        let begun = std::time::Instant::now();
        // A cold start is one window: a million requests would be 560 seeds, so it runs more of them.
        let seeds = if row.setup.trouble == Trouble::ColdStart { 1..=560 } else { SEEDS };
        let outcome = measure(row, seeds, row.windows);
        let missed = row.target.misses(&outcome, Chance::NONE);
        let line = line(row, &outcome, missed.is_empty());
        eprintln!("{line}    {:.0} s", begun.elapsed().as_secs_f64());
        (line, missed.into_iter().map(|miss| format!("{}: {miss}", row.name)).collect::<Vec<_>>())
    });
    let (table, misses): (Vec<_>, Vec<_>) = measured.into_iter().unzip();
    let (table, misses) = (table.concat(), misses.concat());
    if std::env::var("ROW").is_ok() {
        return; // a part is not the document
    }
    let text = TEMPLATE
        .replace("{table}", &table)
        .replace("{z}", &constants::Z_BULK.to_string())
        .replace("{lead}", &constants::LEAD_SECONDS.to_string())
        .replace("{window}", &one_window())
        .replace("{sizes}", &sizes());
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/quota.md");
    std::fs::write(path, text).unwrap();
    assert!(misses.is_empty(), "{misses:#?}");
}

fn line(row: &Row, outcome: &Outcome, met: bool) -> String {
    let (low, high) = interval(outcome.refused);
    let million = 1e6 / outcome.own as f64;
    let target = match (row.target.used_min, row.target.refused_max, row.target.in_window_max) {
        (_, _, most) if most < u64::MAX => format!("≤ {most} in a window"),
        (used, refused, _) => format!("≥ {used} %, ≤ {refused}"),
    };
    format!(
        "| {} | {:.2} % | {} of {} | {:.1} ({:.1} to {:.1}) | {} | {} of {} | {} / {} | {target} | {} |\n",
        row.name,
        outcome.utilisation(),
        outcome.refused,
        outcome.own,
        outcome.refused as f64 * million,
        low * million,
        high * million,
        outcome.refused_in_window_max,
        outcome.others_refused,
        outcome.others,
        outcome.wait(0.99),
        outcome.wait(1.0),
        if met { "met" } else { "**missed**" },
    )
}

/// Between how many events lie in 95 of 100 cases, when so many were counted: the exact interval of a
/// Poisson count in Wilson and Hilferty's approximation.
fn interval(count: u64) -> (f64, f64) {
    const Z: f64 = 1.959_964;
    let bound = |count: f64, z: f64| count * (1.0 - 1.0 / (9.0 * count) + z / (3.0 * count.sqrt())).powi(3);
    let count = count as f64;
    // With nothing counted the upper bound is exact: 97.5 % of one Poisson tail.
    let low = if count == 0.0 { 0.0 } else { bound(count, -Z) };
    (low, if count == 0.0 { 3.689 } else { bound(count + 1.0, Z) })
}

/// One window, second by second: what goes.
fn one_window() -> String {
    let setup =
        Setup { limit: 600, workers: 8, others: 0.3, capacity_percent: 100, trouble: Trouble::Nothing };
    let outcome = run(setup, Kind::Exact, 4, 1);
    let points: Vec<_> = outcome.per_second.iter().take(60).map(u32::to_string).collect();
    let seconds: Vec<_> = (1..=points.len()).map(|second| second.to_string()).collect();
    format!(
        "```mermaid\nxychart-beta\n    title \"600 a minute, 8 workers, 30 % others: our requests in each second\"\n    \
         x-axis \"second\" [{}]\n    y-axis \"requests\" 0 --> 14\n    bar [{}]\n```",
        seconds.join(", "),
        points.join(", ")
    )
}

/// What is used of buckets of different sizes.
fn sizes() -> String {
    let used = |limit: u32, others: f64| {
        let trouble = Trouble::Nothing;
        let setup = Setup { limit, workers: 8, others, capacity_percent: 100, trouble };
        let mut outcome = Outcome::default();
        for seed in 1..=3 {
            outcome.add(run(setup, Kind::Exact, 2 + 12_000 / limit.max(200), seed));
        }
        format!("{:.1}", outcome.utilisation())
    };
    const LIMITS: [u32; 7] = [20, 50, 100, 250, 600, 1200, 2400];
    let line = |others: f64| LIMITS.map(|limit| used(limit, others)).join(", ");
    format!(
        "```mermaid\nxychart-beta\n    title \"Percent of the quota used by 8 workers: alone, and with 30 % others\"\n    \
         x-axis \"limit a minute\" [{}]\n    y-axis \"percent\" 60 --> 100\n    line [{}]\n    line [{}]\n```",
        LIMITS.map(|limit| limit.to_string()).join(", "),
        line(0.0),
        line(0.3)
    )
}

const TEMPLATE: &str = "# Use of Okta's rate limit, and 429s, in virtual time

Written by `just quota`. The worker's real rate-limit controller runs in virtual time against a model of one bucket
with a limit of L requests a minute. The latency is lognormal (median 120 ms, p99 800 ms; a fifth of it passes before
Okta counts the request). The bulk backlog is never empty, interactive requests are 2 % of L, and other clients send
at random moments. Each seed runs three kinds of windows: one that ends 60 s after its first request, the same in
whole seconds, and one that ends on the minute. The first two windows of a run are not counted. The seeds are 1 to
20, chosen before the first run.

A row names the other clients (`30 % others`: at 30 % of L), the limit, and the disturbance. Signals are the messages
in which workers tell each other what they have learnt of a window. `the usual 90 %` is the default
`capacity_percent`; all other rows use 100 %.

* **used**: our successful requests, as a percentage of the limit minus the requests of the other clients.
* **refused**: our 429s and our requests; then our 429s per million requests, with the 95 % confidence interval.
* **in a window**: the most 429s of ours in one window.
* **others refused**: the 429s and the requests of the other clients.
* **wait**: how long interactive requests waited for the budget: p99 and maximum, in milliseconds.
* **target**: the least use, and the most 429s per million requests or per window.

| row | used | refused | in a million | in a window | others refused | wait p99 / max | target | |
|---|---|---|---|---|---|---|---|---|
{table}
The worker keeps a reserve of {z} standard deviations for requests of other clients that it has not seen yet, and
aims to use up a window {lead} s before its latest end. `src/budget/pure/constants.rs` gives the reason of every number.
[quota-real.md](quota-real.md) measures real workers over RabbitMQ and HTTP.

{window}

{sizes}

";
