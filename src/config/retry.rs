//! `[retry]`: how often and after how long something that failed is tried again.

use std::time::Duration;

use super::section::Section;
use crate::policy::retry::RetryRules;

/// Beyond it an invocation would be retried for days.
const ATTEMPTS_MAX: u32 = 100;

/// A wait of nothing would be a loop.
const WAIT_MIN: Duration = Duration::from_millis(1);

/// Longer than Okta's outages usually are, and within the broker's patience with an unfinished message.
const WAIT_MAX: Duration = Duration::from_secs(900);

/// Reads `[retry]`.
pub(super) fn read(mut section: Section<'_>) -> Option<RetryRules> {
    let attempts_max = section.need("attempts_max").and_then(|entry| entry.integer(1..=ATTEMPTS_MAX));
    let base = section.need("base").and_then(|entry| entry.duration(WAIT_MIN..=WAIT_MAX));
    let cap = section.need("cap").and_then(|entry| {
        let cap = entry.duration(WAIT_MIN..=WAIT_MAX)?;
        if base.is_some_and(|base| cap < base) {
            entry.fault("must not be shorter than `retry.base`");
            return None;
        }
        Some(cap)
    });
    section.close();
    Some(RetryRules { attempts_max: attempts_max?, base: base?, cap: cap? })
}
