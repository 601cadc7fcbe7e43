//! The figures as tables, for people and for the documentation.

use std::fmt::{self, Write as _};
use std::time::Duration;

use super::run::{Quiet, Run};
use super::windows::Window;

/// A line for each run, the repeated ones included.
pub struct Table<'a>(pub &'a [Run]);

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| controller | workers | others | use mean % | use min % | of the time % | 429s per 1,000 | of these \
             concurrency | others refused per 1,000 | interactive p50 | p99 | max | |"
        )?;
        writeln!(f, "|---|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---|")?;
        self.0.iter().try_for_each(|run| writeln!(f, "{}", line(run)))
    }
}

fn line(run: &Run) -> String {
    let figures = &run.figures;
    let crowded = figures.crowded_per_1000();
    format!(
        "| {} | {} | {} | {:.1} | {:.1} | {:.1} | {:.2} | {:.2} | {} | {} | {} | {} | {} |",
        run.row.controller.as_str(),
        run.row.workers,
        run.row.others.as_str(),
        figures.use_mean(),
        figures.use_min(),
        figures.use_of_time(),
        figures.refused_per_1000() + crowded,
        crowded,
        figures.others_refused_per_1000().map_or("".to_owned(), |refused| format!("{refused:.1}")),
        seconds(run.waits.percentile(50)),
        seconds(run.waits.percentile(99)),
        seconds(run.waits.max()),
        note(run),
    )
}

/// Three digits behind the point: an undisturbed call takes some 30 ms.
fn seconds(wait: Option<Duration>) -> String {
    wait.map_or(String::new(), |wait| format!("{:.3} s", wait.as_secs_f64()))
}

/// What else is to be known of a run.
fn note(run: &Run) -> String {
    let mut note = match run.quiet {
        Quiet::Undisturbed => String::new(),
        Quiet::Stalled(stall) => format!("stalled for {} ms", stall.as_millis()),
        Quiet::Ended(ended) => format!("stalled: {ended} workers ended"),
    };
    if run.failed > 0 {
        let _ = write!(note, "{}{} failed", if note.is_empty() { "" } else { "; " }, run.failed);
    }
    note
}

/// What each window of a run held, ours and the others', in the order of time; in parentheses what is not
/// measured.
pub struct Windows<'a>(pub &'a [Run]);

impl fmt::Display for Windows<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| run | ours let through | ours refused | others let through | others refused | use % |"
        )?;
        writeln!(f, "|---|---|---|---|---|---|")?;
        for run in self.0 {
            let each = |of: &dyn Fn(&Window) -> String| {
                let warm_up = run.figures.warm_up.iter().map(|window| format!("({})", of(window)));
                warm_up.chain(run.figures.windows.iter().map(of)).collect::<Vec<_>>().join(" ")
            };
            writeln!(
                f,
                "| {} | {} | {} | {} | {} | {} |",
                run.row,
                each(&|window| window.own().accepted.to_string()),
                each(&|window| (window.own().offered() - window.own().accepted).to_string()),
                each(&|window| window.others().accepted.to_string()),
                each(&|window| (window.others().offered() - window.others().accepted).to_string()),
                each(&|window| format!("{:.0}", window.use_percent())),
            )?;
        }
        Ok(())
    }
}
