//! What kind of list Okta makes of a route: how large its pages are, and how it ends.

/// The kind of list that Okta makes of a route.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    /// The best page size, where the route takes `limit`; else Okta decides.
    pub page_max: Option<u32>,
    /// True where Okta pages at all: `q` on users and groups shows the first page and no more.
    pub is_paged: bool,
    /// True where the first empty page is the end, because Okta always names a next one (System Log).
    pub ends_empty: bool,
    /// True where items may repeat across pages and are told apart by `uuid`.
    pub is_keyed: bool,
    /// Query parameters that exclude `after`.
    pub not_with_after: &'static [&'static str],
    /// Statuses that Okta leaves out.
    pub left_out: &'static [&'static str],
}

impl Rules {
    /// A paged list with this page size.
    pub(super) const fn paged(page_max: u32) -> Self {
        Self {
            page_max: Some(page_max),
            is_paged: true,
            ends_empty: false,
            is_keyed: false,
            not_with_after: &[],
            left_out: &[],
        }
    }

    /// A list whose route takes no `limit`.
    pub(super) const fn unsized_pages() -> Self {
        Self { page_max: None, ..Self::paged(1) }
    }
}
