//! What the long form writes down: docs/chaos.md.

use std::sync::{Mutex, OnceLock, PoisonError};

/// The rows so far.
pub struct Report {
    is_long: bool,
    rows: Mutex<Vec<[String; 3]>>,
}

/// The report of this process.
pub fn report() -> &'static Report {
    static REPORT: OnceLock<Report> = OnceLock::new();
    REPORT.get_or_init(|| Report {
        is_long: std::env::var("CHAOS").is_ok_and(|form| form == "all"),
        rows: Mutex::default(),
    })
}

impl Report {
    /// Whether the long form runs.
    pub fn is_long(&self) -> bool {
        self.is_long
    }

    /// A scenario has passed.
    pub fn row(&self, number: &str, scenario: &str, figures: &str) {
        println!("passed: {number} {scenario}: {figures}");
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        rows.push([number, scenario, figures].map(str::to_owned));
    }
}
