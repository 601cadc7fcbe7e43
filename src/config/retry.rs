//! `[retry]`: number of attempts and their back-off.

use std::time::Duration;

use super::section::Section;
use crate::policy::backoff::RetryRules;

/// The most attempts: with more an invocation would be retried for days.
const ATTEMPTS_MAX: u32 = 100;

/// The shortest wait: without one, retries would be a busy loop.
const WAIT_MIN: Duration = Duration::from_millis(1);

/// The longest wait: longer than most of Okta's outages, and within the broker's timeout for an acknowledgement.
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
