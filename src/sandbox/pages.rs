//! Paged lists: limits, cursors and `Link` headers.
//!
//! `self` and `next` are separate headers, as in recent recordings, and name the org's own host. A cursor is the id of
//! the last item, or for a sorted list its sort key and id; it stays valid when the item is gone. A page that ends with
//! the list has no `next`.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::LINK;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::call::RequestContext;
use super::ids::Id;
use super::refusal::OktaRefusal;
use super::reply::OrgReply;

/// The characters to encode: Okta encodes links like forms, with `+` for a space.
const FORM: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'*').remove(b' ');

/// The default and greatest page size.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    pub(super) default: usize,
    pub(super) max: usize,
}

/// Returns the limit of a request, capped at the endpoint's greatest.
pub(super) fn limit(asked: &RequestContext<'_>, sizes: Sizes) -> Result<usize, OktaRefusal> {
    match asked.query("limit") {
        None => Ok(sizes.default),
        Some(text) => match text.parse::<i64>() {
            Ok(limit) if limit > 0 => Ok(usize::try_from(limit).unwrap_or(sizes.max).min(sizes.max)),
            Ok(_) => Ok(sizes.default), // apps document -1 as "the default"
            Err(_) => Err(OktaRefusal::invalid("limit", vec!["limit: must be a number".to_owned()])),
        },
    }
}

/// Parses the cursor of a list in the order of its ids.
pub(super) fn after(asked: &RequestContext<'_>) -> Result<Option<Id>, OktaRefusal> {
    asked.query("after").map(|text| Id::parse(text).ok_or_else(OktaRefusal::bad_cursor)).transpose()
}

/// Parses the cursor of a sorted list: sort key and id of its last item.
pub(super) fn sorted_after(asked: &RequestContext<'_>) -> Result<Option<(String, Id)>, OktaRefusal> {
    let Some(text) = asked.query("after") else { return Ok(None) };
    let read = || {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let text = String::from_utf8(bytes).ok()?;
        let (id, key) = text.split_at_checked(20)?;
        Some((key.to_owned(), Id::parse(id)?))
    };
    read().map(Some).ok_or_else(OktaRefusal::bad_cursor)
}

/// Formats the cursor of a sorted list.
pub(super) fn sorted_cursor(key: &str, id: Id) -> String {
    URL_SAFE_NO_PAD.encode(format!("{id}{key}"))
}

/// Takes a page from the items after the cursor; the flag says if more items follow.
pub(super) fn cut<T>(items: impl Iterator<Item = T>, limit: usize) -> (Vec<T>, NextPage) {
    let mut page: Vec<T> = items.take(limit + 1).collect();
    if page.len() > limit {
        page.truncate(limit);
        (page, NextPage::More)
    } else {
        (page, NextPage::Nothing)
    }
}

/// The rest of a list after a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NextPage {
    More,
    Nothing,
}

/// The links of one page.
#[derive(Debug)]
pub(super) struct Links<'a> {
    pub(super) host: &'a str,
    pub(super) path: &'a str,
    pub(super) limit: usize,
    /// The parameters that the links keep, in Okta's order.
    pub(super) kept: &'a [&'a str],
}

impl Links<'_> {
    /// Adds `self`, and `next` if there is a cursor for it.
    pub(super) fn write(&self, reply: OrgReply, asked: &RequestContext<'_>, next: Option<&str>) -> OrgReply {
        let this = self.url(asked, asked.query("after"), "self");
        let reply = reply.with(LINK, this);
        match next {
            Some(cursor) => reply.with(LINK, self.url(asked, Some(cursor), "next")),
            None => reply,
        }
    }

    fn url(&self, asked: &RequestContext<'_>, after: Option<&str>, rel: &str) -> String {
        let mut url = format!("<{}{}?", self.host, self.path);
        let limit = self.limit.to_string();
        let first = [("after", after), ("limit", Some(limit.as_str()))];
        let kept = self.kept.iter().map(|name| (*name, asked.query(name)));
        let mut separator = "";
        for (name, value) in first.into_iter().chain(kept) {
            let Some(value) = value else { continue };
            url.push_str(separator);
            separator = "&";
            url.push_str(name);
            url.push('=');
            for part in utf8_percent_encode(value, FORM) {
                url.push_str(&part.replace(' ', "+"));
            }
        }
        url.push_str(">; rel=\"");
        url.push_str(rel);
        url.push('"');
        url
    }
}
