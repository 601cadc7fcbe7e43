//! Which form runs, and what the scenarios have to tell: `tests/scenarios` reads it.

/// Whether the long form runs.
pub fn is_long() -> bool {
    std::env::var("CHAOS").is_ok_and(|form| form == "all")
}

/// A scenario has passed, with these figures.
pub fn passed(number: &str, figures: &str) {
    println!("scenario {number}: {figures}");
}
