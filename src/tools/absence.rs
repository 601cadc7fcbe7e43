//! Absent arguments: their defaults, which hold for `null` too.

use serde::{Deserialize, Deserializer};

/// Returns the default of a Boolean argument that is true if absent.
pub(super) fn yes() -> bool {
    true
}

/// Deserializes an argument for which `null` means absent. Models that must name every argument send `null`
/// (function tools in strict mode).
pub(super) fn or_default<'de, T: Deserialize<'de> + Default, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Deserializes a Boolean argument that is true if absent or `null`.
pub(super) fn or_yes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_else(yes))
}
