//! The context of an invocation besides its arguments, with the limits of its result.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::domain::json::Fields;

/// The limits of one result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds<'a> {
    /// The fields kept of each object.
    pub fields: &'a Fields,
    /// The largest result message, in bytes.
    pub bytes_max: usize,
    /// The part of the message around the result, in bytes.
    pub frame: usize,
    /// The form of a list's result.
    pub listing: Listing,
    /// True if a list has used up its time and must end with the items that it has.
    pub is_overdue: bool,
}

impl Bounds<'static> {
    /// Returns bounds that keep whole objects, up to this many bytes.
    pub const fn whole(bytes_max: usize) -> Self {
        Self { fields: &Fields::Whole, bytes_max, frame: 0, listing: Listing::Whole, is_overdue: false }
    }
}

/// The form of a list's result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listing {
    /// One result with all items.
    Whole,
    /// One result with the number of items.
    Counted,
    /// A result for each of Okta's pages.
    Paged,
}

/// The wait after an unanswered write before reading its outcome, for writes that send e-mail: the worker that
/// sent it may have died with the request in flight.
pub const SETTLING: Duration = Duration::from_secs(3);

/// The context of an invocation, besides its arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting<'a> {
    /// The limits of its result.
    pub bounds: Bounds<'a>,
    /// The time since when an earlier delivery may have run it, wholly or partly; `None` for the first delivery.
    pub maybe_since: Option<Timestamp>,
    /// The time since when the original of this message may have run it, if this is a copy: rare enough that only a
    /// conflict is checked for it.
    pub copied_since: Option<Timestamp>,
    /// True if `maybe_since` was at least [`SETTLING`] ago.
    pub is_settled: bool,
    /// The offset of Okta's clock against ours, as far as Okta's answers told.
    pub okta_ahead: SignedDuration,
    /// True for a dry run: nothing is written.
    pub is_dry_run: bool,
}

impl<'a> Setting<'a> {
    /// Returns the setting of a first delivery.
    pub fn first(bounds: Bounds<'a>) -> Self {
        Self {
            bounds,
            maybe_since: None,
            copied_since: None,
            is_settled: false,
            okta_ahead: SignedDuration::ZERO,
            is_dry_run: false,
        }
    }
}
