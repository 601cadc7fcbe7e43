//! `[okta]`: settings for all orgs together.

use super::section::Section;
use crate::okta::ROOM_BYTES_MIN;

/// The largest memory for answers: beyond it the unit is a typing mistake.
const ANSWER_BYTES_MAX: u64 = 1 << 40;

/// Reads `[okta]`; returns the most bytes of answers held in memory.
pub(super) fn read(mut section: Section<'_>) -> Option<u64> {
    let answers =
        section.need("answer_bytes_max").and_then(|entry| entry.bytes(ROOM_BYTES_MIN..=ANSWER_BYTES_MAX));
    section.close();
    answers
}
