//! A list in progress: reads one page after another and keeps its place.
//!
//! Each page is read once and then forgotten, so that a list takes as many steps as it has pages and holds
//! nothing but the items of its result. Invariant: its place is where the list continues without a gap
//! or a repeat, whatever becomes of the next request.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::marker::PhantomData;

use serde_json::value::RawValue;

use crate::domain::http::Request;
use crate::domain::json::{Fields, to_vec};
use crate::domain::link;
use crate::domain::page::{each_item, uuid};
use crate::domain::result::{ErrorCode, Failure};

use super::cursor::Cursor;
use super::history::OktaReply;
use super::list_rules::ListRules;
use super::output::{List, Remaining, Stopped};
use super::run::Stop;
use super::setting::{Bounds, Listing};

/// The bytes of a list's result besides its items, its cursor and the message about an early end: names, numbers,
/// left-out statuses.
const FRAME_BYTES: usize = 160;

/// The room reserved for a cursor of unknown length, in bytes, so that the reported `needs_max_bytes` is enough.
const CURSOR_BYTES_USUAL: usize = 96;

/// The smallest page to ask for if Okta fails at a larger one. A page that fails at this size does not
/// fail because of its size.
const PAGE_MIN: u32 = 10;

/// A list in progress.
#[derive(Debug)]
pub struct Pager {
    rules: ListRules,
    /// The fingerprint of the list's arguments.
    of: String,
    /// The request for the page at its place, without a page size.
    request: Request,
    place: ListPlace,
    /// The most items in total.
    wanted: usize,
    /// The largest page to ask for, lowered when Okta fails at larger ones.
    page_max: Option<u32>,
    /// The items at this place that fit into the result, while Okta is asked for exactly those.
    cut: Option<Taken>,
    items: Vec<Box<RawValue>>,
    /// The items found for this result, or for this page of a stream.
    count: usize,
    /// The size of those items, in bytes.
    bytes: usize,
    /// The items in earlier pages of a stream.
    given: usize,
    pages: u32,
    cursors_seen: HashSet<u64>,
    keys_seen: HashSet<String>,
    turns_before: usize,
}

/// A place in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ListPlace {
    /// Okta's own cursor of the page; `None` for the first page.
    after: Option<String>,
    /// The items of that page that were already returned.
    skip: usize,
}

/// The end of a list, or of a page of a stream.
#[derive(Debug)]
pub(super) enum ListEnd {
    /// No item is missing.
    Complete,
    /// Okta shows no more, although there may be more.
    NoMoreShown,
    /// The list continues at its place.
    GoesOn,
    /// Not even the next item fits: the `max_bytes` that it needs.
    Needs(usize),
    /// The list has used up its time and continues at its place.
    OutOfTime,
}

/// The items of one page that fit into the result.
#[derive(Debug, Default)]
struct Taken {
    items: Vec<(Option<String>, Box<RawValue>)>,
    /// The items after the skipped ones that fit, including repeated ones.
    fitting: usize,
    bytes: usize,
}

/// A page that was read.
struct PageRead {
    /// The number of items.
    length: usize,
    /// The requested page size, if the route takes one.
    asked: Option<u32>,
    /// The request for the following page.
    following: Option<Request>,
    /// True if no more items fit into the result.
    is_full: bool,
}

/// One page while it is read.
struct PageReading<'a> {
    fields: &'a Fields,
    skip: usize,
    missing: usize,
    room: usize,
    is_keyed: bool,
    is_counted: bool,
    taken: Taken,
    /// The number of items on the page.
    length: usize,
    /// The size of the first item that does not fit.
    too_big: Option<usize>,
}

impl PageReading<'_> {
    fn offer(&mut self, item: &RawValue) {
        let at = self.length;
        self.length += 1;
        if at < self.skip || self.taken.fitting == self.missing || self.too_big.is_some() {
            return;
        }
        let kept = self.fields.project(item);
        let bytes = kept.get().len() + 1;
        if self.taken.bytes + bytes > self.room {
            self.too_big = Some(bytes);
            return;
        }
        self.taken.fitting += 1;
        self.taken.bytes += bytes;
        let key = if self.is_keyed { uuid(item) } else { None };
        if !self.is_counted || key.is_some() {
            self.taken.items.push((key, kept));
        }
    }
}

impl Pager {
    /// Begins a list at its first page, or at a cursor. `turns_before` questions preceded the list.
    pub(super) fn begin(
        first: &Request,
        of: String,
        at: Option<Cursor>,
        wanted: usize,
        rules: ListRules,
        turns_before: usize,
    ) -> Self {
        let (after, skip) = at.map_or((None, 0), |cursor| (cursor.after, cursor.skip));
        Self {
            rules,
            of,
            request: resume(first, after.as_deref(), rules),
            cursors_seen: after.iter().map(|after| digest(after)).collect(),
            place: ListPlace { after, skip },
            wanted,
            page_max: rules.page_max,
            cut: None,
            items: Vec::new(),
            count: 0,
            bytes: 0,
            given: 0,
            pages: 0,
            keys_seen: HashSet::new(),
            turns_before,
        }
    }

    /// Returns the number of questions before the list began; the list has read all later ones.
    pub fn turns_before(&self) -> usize {
        self.turns_before
    }

    /// Returns true if a page was read.
    pub(super) fn has_begun(&self) -> bool {
        self.pages > 0
    }

    fn missing(&self) -> usize {
        self.wanted.saturating_sub(self.given + self.count)
    }

    /// Returns the request for the page at this place.
    pub(super) fn next_page(&self) -> Request {
        let wanted = match &self.cut {
            Some(cut) => cut.fitting,
            None => self.place.skip + self.missing(),
        };
        let size =
            self.page_max.map(|max| max.min(u32::try_from(wanted).unwrap_or(max)).max(self.rules.page_min));
        let mut request = sized(&self.request, size);
        // If Okta shows only one page, a smaller one would hide the rest.
        request.page_min = size.filter(|_| self.rules.is_paged).map(|_| PAGE_MIN.max(self.rules.page_min));
        request
    }

    /// Reads one page; returns `None` if the list continues with another.
    ///
    /// # Errors
    /// If the answer is not a page.
    pub(super) fn read(&mut self, reply: OktaReply<'_>, bounds: Bounds<'_>) -> Result<Option<ListEnd>, Stop> {
        let response = reply.success()?;
        let asked = reply.request().query_value("limit").and_then(|limit| limit.parse().ok());
        self.note_page_size(asked);
        let following = link::next(&response.headers);
        let following = following.map(|link| self.request.follow(link, self.rules.not_with_after));
        let around = self.around(&bounds, following.as_ref());
        let mut page = self.reading(&bounds, around);
        each_item(&response.body, |item| page.offer(item)).ok_or_else(Stop::unreadable)?;
        let PageReading { taken, length, too_big, .. } = page;
        let was_cut = self.cut.take().is_some();
        let can_ask_for_fewer = self.rules.is_paged && asked.is_some() && self.place.skip == 0;
        if too_big.is_some() && !was_cut && taken.fitting > 0 && can_ask_for_fewer {
            // A smaller page from the same place ends with Okta's own cursor, which stays valid when
            // users come and go; a number of items to skip would not.
            self.cut = Some(taken);
            return Ok(None);
        }
        let page = PageRead { length, asked, following, is_full: too_big.is_some() || was_cut };
        let needs = too_big.filter(|_| self.count == 0).map(|bytes| around + bytes);
        Ok(self.take(taken, page, needs, bounds))
    }

    /// Takes the items of a page that fit, and returns the list's end if it has ended. `needs` is the size that the
    /// first item of the result needs if it does not fit.
    fn take(
        &mut self,
        taken: Taken,
        page: PageRead,
        needs: Option<usize>,
        bounds: Bounds<'_>,
    ) -> Option<ListEnd> {
        let fitting = taken.fitting;
        self.pages += 1;
        self.keep(taken, bounds.listing);
        if fitting == 0
            && let Some(bytes) = needs
        {
            return Some(ListEnd::Needs(bytes));
        }
        if self.place.skip + fitting < page.length {
            self.place.skip += fitting;
            return Some(ListEnd::GoesOn);
        }
        if let Some(end) = self.end_at_okta(&page) {
            return Some(end);
        }
        let is_full = page.is_full;
        self.go_to_next(page).or_else(|| self.end_of_result(is_full, bounds))
    }

    /// Remembers a smaller page size after Okta failed at a larger one.
    fn note_page_size(&mut self, asked: Option<u32>) {
        let wanted = self.next_page().query_value("limit").and_then(|limit| limit.parse::<u32>().ok());
        if let (Some(asked), Some(wanted)) = (asked, wanted)
            && asked < wanted
        {
            self.page_max = Some(asked);
        }
    }

    fn reading<'a>(&self, bounds: &Bounds<'a>, around: usize) -> PageReading<'a> {
        let is_counted = bounds.listing == Listing::Counted;
        PageReading {
            fields: bounds.fields,
            skip: self.place.skip,
            missing: self.cut.as_ref().map_or_else(|| self.missing(), |cut| cut.fitting),
            room: match is_counted {
                true => usize::MAX,
                false => bounds.bytes_max.saturating_sub(around + self.bytes),
            },
            is_keyed: self.rules.is_keyed,
            is_counted,
            taken: Taken::default(),
            length: 0,
            too_big: None,
        }
    }

    /// Returns the most bytes around the items, for every cursor that the list may end with.
    fn around(&self, bounds: &Bounds<'_>, following: Option<&Request>) -> usize {
        let ahead = following.and_then(|request| request.query_value("after"));
        let ahead = ahead.map_or(0, |after| self.cursor(Some(after.to_owned()), 0).len());
        let here = self.cursor(self.place.after.clone(), self.place.skip + self.missing());
        bounds.frame + FRAME_BYTES + ahead.max(here.len()).max(CURSOR_BYTES_USUAL)
    }

    fn cursor(&self, after: Option<String>, skip: usize) -> String {
        Cursor { after, skip, of: self.of.clone() }.encode()
    }

    fn keep(&mut self, taken: Taken, listing: Listing) {
        if listing == Listing::Counted && !self.rules.is_keyed {
            self.count += taken.fitting;
            return;
        }
        // Items without a key count as distinct.
        if listing == Listing::Counted {
            self.count += taken.fitting - taken.items.len();
        }
        for (key, item) in taken.items {
            if !key.is_none_or(|key| self.keys_seen.insert(key)) {
                continue;
            }
            self.count += 1;
            if listing != Listing::Counted {
                self.bytes += item.get().len() + 1;
                self.items.push(item);
            }
        }
    }

    /// Returns the list's end if Okta ends it with this page.
    fn end_at_okta(&self, page: &PageRead) -> Option<ListEnd> {
        if !self.rules.is_paged {
            let is_whole = page.asked.is_none_or(|asked| page.length < asked as usize);
            return Some(if is_whole { ListEnd::Complete } else { ListEnd::NoMoreShown });
        }
        (self.rules.ends_empty && page.length == 0).then_some(ListEnd::Complete)
    }

    /// Moves to the following page; returns the list's end if there is none.
    fn go_to_next(&mut self, page: PageRead) -> Option<ListEnd> {
        // The items returned of a larger page may extend beyond a smaller one.
        let is_as_asked = page.asked.is_some_and(|asked| page.length >= asked as usize);
        let skip = if is_as_asked { self.place.skip.saturating_sub(page.length) } else { 0 };
        let Some(following) = page.following else { return Some(ListEnd::Complete) };
        let after = following.query_value("after").map(str::to_owned);
        // A cursor that points at itself, or a link without one: Okta shows no more.
        let Some(after) = after.filter(|after| self.cursors_seen.insert(digest(after))) else {
            return Some(ListEnd::NoMoreShown);
        };
        self.request = following;
        self.place = ListPlace { after: Some(after), skip };
        None
    }

    /// Returns the end of the requested result, at the beginning of a page.
    fn end_of_result(&self, is_full: bool, bounds: Bounds<'_>) -> Option<ListEnd> {
        match bounds.listing {
            Listing::Paged if bounds.is_overdue && self.missing() > 0 => Some(ListEnd::OutOfTime),
            Listing::Paged => Some(ListEnd::GoesOn),
            Listing::Whole | Listing::Counted => (is_full || self.missing() == 0).then_some(ListEnd::GoesOn),
        }
    }

    /// Returns the items read so far, with this end.
    pub(super) fn give<T>(&mut self, ending: ListEnd, bounds: Bounds<'_>) -> List<T> {
        let stopped = match &ending {
            ListEnd::OutOfTime => {
                let message = "the list ran for as long as `broker.list_time_max` lets it";
                let failure = Failure::new(ErrorCode::DeadlineExceeded, message);
                Some(self.stopped(&failure, bounds))
            }
            ListEnd::Complete | ListEnd::NoMoreShown | ListEnd::GoesOn | ListEnd::Needs(_) => None,
        };
        let next = match ending {
            ListEnd::Complete | ListEnd::NoMoreShown => None,
            ListEnd::GoesOn | ListEnd::Needs(_) | ListEnd::OutOfTime => {
                Some(self.cursor(self.place.after.clone(), self.place.skip))
            }
        };
        let needs = if let ListEnd::Needs(bytes) = ending { Some(bytes) } else { None };
        let is_page = bounds.listing == Listing::Paged && matches!(ending, ListEnd::GoesOn);
        let remaining = if is_page && self.missing() > 0 { Remaining::Pages } else { Remaining::Nothing };
        let count = std::mem::take(&mut self.count);
        self.given += count;
        self.bytes = 0;
        List {
            items: std::mem::take(&mut self.items),
            count,
            complete: matches!(ending, ListEnd::Complete),
            next,
            needs,
            left_out: self.rules.left_out,
            stopped,
            remaining,
            of: PhantomData,
        }
    }

    /// Returns the items read before a failure, as the list's end; `None` if no page was read.
    pub fn give_up(&mut self, failure: &Failure, bounds: Bounds<'_>) -> Option<Box<RawValue>> {
        if let Some(cut) = self.cut.take() {
            self.pages += 1;
            self.place.skip += cut.fitting;
            self.keep(cut, bounds.listing);
        }
        if self.pages == 0 {
            return None;
        }
        let stopped = self.stopped(failure, bounds);
        let list: List<()> = List { stopped: Some(stopped), ..self.give(ListEnd::GoesOn, bounds) };
        Some(list.to_json())
    }

    /// Returns the reason and the page of an early end, in the room that the items have left.
    fn stopped(&self, failure: &Failure, bounds: Bounds<'_>) -> Stopped {
        let room = bounds.bytes_max.saturating_sub(self.around(&bounds, None) + self.bytes);
        let message = fitting(&failure.message, room);
        Stopped { page: self.pages + 1, code: failure.code, message }
    }
}

/// Returns the beginning of a text that takes at most this many bytes as JSON, without its quotes.
fn fitting(text: &str, bytes_max: usize) -> String {
    let mut bytes = 0;
    let has_room = |c: &char| {
        bytes += to_vec(c).len() - 2;
        bytes <= bytes_max
    };
    text.chars().take_while(has_room).collect()
}

/// Returns a hash that tells cursors apart: endless lists occur, and a cursor may be long.
fn digest(cursor: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    cursor.hash(&mut hasher);
    hasher.finish()
}

/// Returns the request for the page at Okta's cursor.
fn resume(first: &Request, after: Option<&str>, rules: ListRules) -> Request {
    let Some(after) = after else { return first.clone() };
    let mut request = first.clone();
    request.query.retain(|(name, _)| !rules.not_with_after.contains(&name.as_str()));
    request.query("after", after)
}

/// Returns the request with this page size, replacing the link's.
fn sized(request: &Request, size: Option<u32>) -> Request {
    let mut request = request.clone();
    if let Some(size) = size {
        request.set_page_size(size);
    }
    request
}
