//! Cursors: the place where a list stopped, opaque to callers and valid only with the same arguments.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::domain::http::Request;

use super::run::Stop;

/// The place where an earlier list stopped: opaque to callers, valid only with the same arguments.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Cursor {
    /// Okta's own cursor of the page to continue at; `None` for the first page.
    #[serde(rename = "a", skip_serializing_if = "Option::is_none", default)]
    pub after: Option<String>,
    /// The items of that page that were already returned.
    #[serde(rename = "s", skip_serializing_if = "is_zero", default)]
    pub skip: usize,
    /// The fingerprint of the arguments.
    #[serde(rename = "f")]
    pub of: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

impl Cursor {
    /// Returns the cursor in the form that callers see.
    pub fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(crate::domain::json::to_vec(self))
    }

    fn read(text: &str) -> Result<Self, Stop> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok();
        let cursor = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        cursor.ok_or_else(|| Stop::argument("after", "not a cursor: give the `next` of an earlier result"))
    }

    /// Parses the cursor of a list with these arguments.
    pub fn decode(text: &str, of: &str) -> Result<Self, Stop> {
        let cursor = Self::read(text)?;
        match cursor.of == of {
            true => Ok(cursor),
            false => Err(Stop::argument("after", "this cursor belongs to a list with other arguments")),
        }
    }
}

/// Refuses a text that is not a cursor, before any request for the list's arguments.
pub(super) fn check(after: Option<&str>) -> Result<(), Stop> {
    after.map_or(Ok(()), |after| Cursor::read(after).map(drop))
}

/// Returns a fingerprint of a list's arguments.
pub(super) fn fingerprint(first: &Request) -> String {
    let digest = Sha256::digest(first.path_and_query().as_bytes());
    URL_SAFE_NO_PAD.encode(&digest[..9])
}
