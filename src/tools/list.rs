//! Lists: following Okta's pages until the limit, the size, the time or Okta itself ends them.

use std::collections::HashSet;
use std::marker::PhantomData;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::domain::http::Request;
use crate::domain::page::Page;

use super::output::{List, Rest};
use super::{Dialogue, Done, Listing, Step, Stop};

/// The most items of one list.
const LIMIT_MAX: u32 = 100_000;

/// The most items of a list of which nobody says how many.
const LIMIT_USUAL: u32 = 200;

/// The bytes of a list around its items and its cursor: names, numbers, what was left out.
const FRAME_BYTES: usize = 160;

/// The most items in all; many when they are only counted and nobody says how many.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(try_from = "Option<u32>")]
pub(super) struct Limit(Option<u32>);

impl Limit {
    fn items(self, listing: Listing<'_>) -> usize {
        let usual = if listing == Listing::Counted { LIMIT_MAX } else { LIMIT_USUAL };
        self.0.unwrap_or(usual) as usize
    }
}

impl TryFrom<Option<u32>> for Limit {
    type Error = String;
    fn try_from(limit: Option<u32>) -> Result<Self, String> {
        match limit {
            None => Ok(Self(None)),
            Some(1..=LIMIT_MAX) => Ok(Self(limit)),
            Some(limit) => Err(format!("must be between 1 and {LIMIT_MAX}, not {limit}")),
        }
    }
}

impl Serialize for Limit {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(self.0.unwrap_or(LIMIT_USUAL))
    }
}

impl JsonSchema for Limit {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Limit".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": ["integer", "null"], "minimum": 1, "maximum": LIMIT_MAX })
    }
}

/// Where an earlier list stopped: opaque to callers, good only with the same arguments.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cursor {
    /// Okta's own cursor of the page to go on with; none for the first page.
    #[serde(rename = "a", skip_serializing_if = "Option::is_none", default)]
    after: Option<String>,
    /// Items of that page that were given already.
    #[serde(rename = "s", skip_serializing_if = "is_zero", default)]
    skip: usize,
    /// The arguments it belongs to.
    #[serde(rename = "f")]
    of: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

impl Cursor {
    fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(crate::domain::json::to_vec(self))
    }

    fn read(text: &str) -> Result<Self, Stop> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok();
        let cursor = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        cursor.ok_or_else(|| Stop::argument("after", "not a cursor: give the `next` of an earlier result"))
    }

    fn decode(text: &str, of: &str) -> Result<Self, Stop> {
        let cursor = Self::read(text)?;
        match cursor.of == of {
            true => Ok(cursor),
            false => Err(Stop::argument("after", "this cursor belongs to a list with other arguments")),
        }
    }
}

/// Refuses what is no cursor, before anything is asked to find out which list it should belong to.
pub(super) fn check(after: Option<&str>) -> Result<(), Stop> {
    after.map_or(Ok(()), |after| Cursor::read(after).map(drop))
}

/// What kind of list Okta makes of a route.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    /// The best page size, where the route takes `limit`; else Okta decides.
    pub page_max: Option<u32>,
    /// Whether Okta pages at all: `q` on users and groups shows the first page and no more.
    pub is_paged: bool,
    /// Whether the first empty page is the end, because Okta always names a next one (System Log).
    pub ends_empty: bool,
    /// Whether items may repeat across pages and are told apart by `uuid`.
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

/// Follows a list to its end. `first` is the request without `limit` and `after`.
pub(super) fn follow<T: JsonSchema>(
    okta: &mut Dialogue<'_>,
    first: &Request,
    limit: Limit,
    after: Option<&str>,
    rules: Rules,
) -> Step<List<T>> {
    let bounds = okta.bounds();
    let listing = bounds.listing;
    let of = fingerprint(first);
    let rest = if let Listing::Paged(rest) = listing { rest } else { None };
    let start = rest.map(|rest| rest.after.as_str()).or(after);
    let start = start.map(|text| Cursor::decode(text, &of)).transpose()?;
    let (mut after, mut skip) = start.map_or((None, 0), |cursor| (cursor.after, cursor.skip));
    let mut request = resume(first, after.as_deref(), rules);
    let mut seen_cursors: HashSet<String> = after.iter().cloned().collect();
    let mut seen_keys: HashSet<&str> = rest.iter().flat_map(|rest| &rest.seen).map(String::as_str).collect();
    let given = rest.map_or(0, |rest| rest.given);
    let wanted = limit.items(listing).saturating_sub(given);
    let (mut items, mut count, mut bytes) = (Vec::new(), 0, 0);
    let mut needs = None;
    let cursor = |after: Option<String>, skip| Cursor { after, skip, of: of.clone() }.encode();

    let (complete, next) = loop {
        let missing = wanted - count;
        let size = rules.page_max.map(|max| max.min(u32::try_from(skip + missing).unwrap_or(max)));
        let (mut page, mut link) = ask(okta, &sized(&request, size), bounds.fields, rules)?;
        let around = bounds.frame + FRAME_BYTES + {
            let following = link.as_ref().and_then(|link| link.query_value("after"));
            let ahead = following.map_or(0, |after| cursor(Some(after.to_owned()), 0).len());
            ahead.max(cursor(after.clone(), skip + page.items.len()).len())
        };
        let room = match listing {
            Listing::Counted => usize::MAX,
            Listing::Whole | Listing::Paged(_) => bounds.bytes_max.saturating_sub(around + bytes),
        };
        let mut fitting = fit(page, skip, missing, room);
        let is_cut = fitting < page.items.len().saturating_sub(skip).min(missing);
        if is_cut && fitting > 0 && rules.is_paged && size.is_some() && skip == 0 {
            // A smaller page of the same place ends with Okta's own cursor, which stays true when
            // users come and go; counting items to skip would not.
            let smaller = sized(&request, u32::try_from(fitting).ok());
            (page, link) = ask(okta, &smaller, bounds.fields, rules)?;
            fitting = fit(page, 0, fitting, room);
        }
        if is_cut
            && fitting == 0
            && let Some(item) = page.items.get(skip)
        {
            if count == 0 {
                needs = Some(around + item.get().len() + 1);
            }
            break (false, Some(cursor(after, skip)));
        }
        for (at, item) in page.items.iter().enumerate().skip(skip).take(fitting) {
            if !page.keys.get(at).is_none_or(|key| key.is_empty() || seen_keys.insert(key)) {
                continue;
            }
            count += 1;
            if listing != Listing::Counted {
                bytes += item.get().len() + 1;
                items.push(item.clone());
            }
        }
        if skip + fitting < page.items.len() {
            break (false, Some(cursor(after, skip + fitting)));
        }
        if !rules.is_paged {
            break (size.is_none_or(|asked| page.items.len() < asked as usize), None);
        }
        if rules.ends_empty && page.items.is_empty() {
            break (true, None);
        }
        let Some(link) = link else { break (true, None) };
        let Some(following) = link.query_value("after").map(str::to_owned) else { break (false, None) };
        if !seen_cursors.insert(following.clone()) {
            break (false, None); // a cursor that points at itself: Okta shows no more
        }
        let is_overdue = bounds.is_overdue && okta.is_caught_up();
        let is_page = matches!(listing, Listing::Paged(_));
        if count >= wanted || is_cut || is_overdue || is_page {
            break (false, Some(cursor(Some(following), 0)));
        }
        (request, after, skip) = (link, Some(following), 0);
    };
    let is_stuck = needs.is_some();
    let goes_on = matches!(listing, Listing::Paged(_)) && count < wanted && !bounds.is_overdue && !is_stuck;
    let rest = next.clone().filter(|_| goes_on).map(|after| Rest {
        after,
        given: given + count,
        seen: seen_keys.into_iter().map(str::to_owned).collect(),
    });
    let left_out = rules.left_out;
    Ok(Done::read(List { items, count, complete, next, needs, left_out, rest, of: PhantomData }))
}

/// One page, and the request of the page behind it.
fn ask<'a>(
    okta: &mut Dialogue<'a>,
    request: &Request,
    fields: &crate::domain::json::Fields,
    rules: Rules,
) -> Result<(&'a Page, Option<Request>), Stop> {
    let response = okta.ask(request.clone())?.success()?;
    let page = response.page(|body| Page::read(body, fields, rules.is_keyed)).ok_or_else(Stop::unreadable)?;
    let link = crate::domain::link::next(&response.headers);
    Ok((page, link.map(|link| request.follow(link, rules.not_with_after))))
}

/// How many items after `skip` fit into `count` items and `room` bytes.
fn fit(page: &Page, skip: usize, count: usize, room: usize) -> usize {
    let left = page.items.len().saturating_sub(skip).min(count);
    if skip == 0 && left == page.items.len() && page.bytes + left <= room {
        return left;
    }
    let mut bytes = 0;
    page.items
        .iter()
        .skip(skip)
        .take(left)
        .take_while(|item| {
            bytes += item.get().len() + 1;
            bytes <= room
        })
        .count()
}

/// The request for the page at Okta's cursor.
fn resume(first: &Request, after: Option<&str>, rules: Rules) -> Request {
    let Some(after) = after else { return first.clone() };
    let mut request = first.clone();
    request.query.retain(|(name, _)| !rules.not_with_after.contains(&name.as_str()));
    request.query("after", after)
}

/// The request with this page size, whatever the link said.
fn sized(request: &Request, size: Option<u32>) -> Request {
    let Some(size) = size else { return request.clone() };
    let mut request = request.clone();
    request.query.retain(|(name, _)| name != "limit");
    request.query("limit", size)
}

/// What tells the lists of different arguments apart.
fn fingerprint(first: &Request) -> String {
    let digest = Sha256::digest(first.path_and_query().as_bytes());
    URL_SAFE_NO_PAD.encode(&digest[..9])
}
