//! What must never be, whatever the machine does: by this a quick run fails.

use super::run::{Quiet, Run};

/// A refusal of ours, a window that let more through than it announced, a worker that ended.
pub fn faults(run: &Run) -> Vec<String> {
    let (row, own) = (run.row, run.figures.own());
    let mut faults = Vec::new();
    let refused = own.refused + own.refused_concurrent;
    if refused > 0 {
        faults.push(format!("{row}: {refused} of {} requests of ours were answered 429", own.offered()));
    }
    for window in &run.figures.windows {
        let accepted = window.own().accepted + window.others().accepted;
        if accepted > window.limit {
            faults.push(format!("{row}: {accepted} requests in a window of {}", window.limit));
        }
    }
    match run.quiet {
        Quiet::Undisturbed | Quiet::Stalled(_) => {}
        Quiet::Ended(workers) => faults.push(format!("{row}: {workers} workers ended")),
    }
    faults
}
