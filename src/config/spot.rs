//! The place of a setting: its dotted path, and the file and line or the variable that it comes from.

use std::path::Path;
use std::rc::Rc;

/// The origin of a value.
#[derive(Clone)]
pub(super) enum Origin {
    /// The defaults.
    Default,
    /// A file and a line.
    File(Rc<Path>, usize),
    /// The environment variable with this name.
    Variable(String),
}

/// The dotted path of a value, and its origin.
#[derive(Clone)]
pub(super) struct Spot {
    pub(super) path: String,
    pub(super) origin: Origin,
}

impl Spot {
    /// Returns the path of a key below this one.
    pub(super) fn child(&self, key: &str) -> String {
        let bare =
            !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        let key = if bare { key.to_owned() } else { format!("{:?}", crate::domain::text::shortened(key)) };
        if self.path.is_empty() { key } else { format!("{}.{key}", self.path) }
    }
}
