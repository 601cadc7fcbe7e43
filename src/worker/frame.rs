//! The bytes of a result message around its result.

use crate::domain::json;

/// The bytes around the result of a success, without the invocation's id: names, numbers, the longest
/// connection and subtool, and one of Okta's request ids, which has 27 characters.
const FRAME_BYTES: usize = 480;

/// Returns the most bytes around the result of this invocation.
pub(super) fn frame(id: &str) -> usize {
    FRAME_BYTES + json::to_vec(&id).len()
}
