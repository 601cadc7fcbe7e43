//! Lists: the arguments that all lists share, and the way from there to the result.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::domain::http::Request;

use super::cursor::{Cursor, fingerprint};
use super::list_rules::ListRules;
use super::output::List;
use super::pager::{ListEnd, Pager};
use super::replay::Replay;
use super::run::{Done, Run, Stop};
use super::setting::Listing;

/// The most items of one list.
const LIMIT_MAX: u32 = 100_000;

/// Default for the most items of one list.
const LIMIT_USUAL: u32 = 200;

/// The most items in total; the default is larger if they are only counted.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(try_from = "Option<u32>")]
pub(super) struct Limit(Option<u32>);

impl Limit {
    fn items(self, listing: Listing) -> usize {
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

/// Follows a list to its end. `first` is the request without `limit` and `after`.
pub(super) fn follow<T: JsonSchema>(
    okta: &mut Replay<'_>,
    first: &Request,
    limit: Limit,
    after: Option<&str>,
    rules: ListRules,
) -> Run<List<T>> {
    let mut pager = match okta.list.take() {
        Some(pager) => pager,
        None => {
            let of = fingerprint(first);
            let at = after.map(|text| Cursor::decode(text, &of)).transpose()?;
            let wanted = limit.items(okta.bounds().listing);
            Box::new(Pager::begin(first, of, at, wanted, rules, okta.asked_so_far()))
        }
    };
    let ended = read_pages(&mut pager, okta);
    let list = ended.map(|ending| pager.give(ending, okta.bounds()));
    okta.list = Some(pager);
    Ok(Done::read(list?))
}

/// Reads page after page until the list ends.
///
/// # Errors
/// If the next page has to be requested, or an answer is not a page.
fn read_pages(pager: &mut Pager, okta: &mut Replay<'_>) -> Result<ListEnd, Stop> {
    let bounds = okta.bounds();
    loop {
        if pager.has_begun() && bounds.is_overdue && okta.is_caught_up() {
            return Ok(ListEnd::OutOfTime);
        }
        let reply = okta.ask(pager.next_page())?;
        if let Some(ending) = pager.read(reply, bounds)? {
            return Ok(ending);
        }
    }
}
