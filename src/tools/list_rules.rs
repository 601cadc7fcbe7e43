//! Rules of Okta's lists per route: page size, paging and end.

/// The rules of a route's list.
#[derive(Debug, Clone, Copy)]
pub(super) struct ListRules {
    /// The best page size, if the route takes `limit`; otherwise Okta decides.
    pub page_max: Option<u32>,
    /// The smallest page that the route gives.
    pub page_min: u32,
    /// True if Okta pages at all: `q` on users and groups shows the first page and no more.
    pub is_paged: bool,
    /// True if the first empty page is the end, because Okta always names a next one (System Log).
    pub ends_empty: bool,
    /// True if items may repeat across pages and are deduplicated by `uuid`.
    pub is_keyed: bool,
    /// Query parameters that cannot be combined with `after`.
    pub not_with_after: &'static [&'static str],
    /// Statuses that Okta leaves out.
    pub left_out: &'static [&'static str],
}

impl ListRules {
    /// Returns the rules of a paged list with this page size.
    pub(super) const fn paged(page_max: u32) -> Self {
        Self {
            page_max: Some(page_max),
            page_min: 1,
            is_paged: true,
            ends_empty: false,
            is_keyed: false,
            not_with_after: &[],
            left_out: &[],
        }
    }

    /// Returns the rules of a list whose route takes no `limit`.
    pub(super) const fn unsized_pages() -> Self {
        Self { page_max: None, ..Self::paged(1) }
    }
}
