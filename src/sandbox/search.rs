//! `search`, `filter`, sorting and paging of the objects in a lagging index.
//!
//! A dialect defines the attributes and operators of an endpoint; this file knows none by name.

use super::call::RequestContext;
use super::expression::{CaseSensitivity, Expression, Field, Item, Operator};
use super::ids::Id;
use super::lagging_index::LaggingIndex;
use super::pages::{self, NextPage};
use super::refusal::OktaRefusal;

/// The queries that an endpoint supports.
pub(super) struct Dialect<'a> {
    /// Attributes and operators of `search`.
    pub(super) search: &'a dyn Fn(&str, Operator) -> bool,
    /// Attributes and operators of `filter`.
    pub(super) filter: &'a dyn Fn(&str, Operator) -> bool,
}

/// The filter and the order of a list.
#[derive(Debug)]
pub(super) struct Query {
    expression: Option<Expression>,
    case: CaseSensitivity,
    sort: Option<Sort>,
}

#[derive(Debug)]
struct Sort {
    attribute: String,
    direction: Direction,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Up,
    Down,
}

/// One page of a lagging index, and the cursor of the next page.
#[derive(Debug)]
pub(super) struct Page<'a, T> {
    pub(super) items: Vec<&'a T>,
    pub(super) next: Option<String>,
}

impl Query {
    /// Parses `search`, `filter`, `sortBy` and `sortOrder`.
    pub(super) fn read(asked: &RequestContext<'_>, dialect: &Dialect<'_>) -> Result<Self, OktaRefusal> {
        let plain = Self { expression: None, case: CaseSensitivity::Sensitive, sort: None };
        match (asked.query("search"), asked.query("filter")) {
            (Some(_), Some(_)) => Err(OktaRefusal::search_and_filter()),
            (None, None) => Ok(plain),
            (Some(search), None) => {
                let expression =
                    Expression::parse(search).map_err(|cause| OktaRefusal::bad_search(&cause))?;
                if let Some(cause) = strange(&expression, dialect.search) {
                    return Err(OktaRefusal::bad_search(&cause));
                }
                let sort = asked.query("sortBy").map(|attribute| Sort {
                    attribute: attribute.to_owned(),
                    direction: match asked.query("sortOrder") {
                        Some(order) if order.eq_ignore_ascii_case("desc") => Direction::Down,
                        Some(_) | None => Direction::Up,
                    },
                });
                // "All string comparisons of `search` ignore case, those of `filter` do not."
                Ok(Self { expression: Some(expression), case: CaseSensitivity::Insensitive, sort })
            }
            (None, Some(filter)) => {
                let expression =
                    Expression::parse(filter).map_err(|cause| OktaRefusal::bad_search(&cause))?;
                match strange(&expression, dialect.filter) {
                    Some(cause) => Err(OktaRefusal::unsupported_filter(&cause)),
                    None => Ok(Self { expression: Some(expression), ..plain }),
                }
            }
        }
    }

    /// Returns the page of a lagging index that a request asks for.
    pub(super) fn page<'a, T: Item + Clone>(
        &self,
        asked: &RequestContext<'_>,
        index: &'a LaggingIndex<T>,
        limit: usize,
        keep: impl Fn(&T) -> bool,
    ) -> Result<Page<'a, T>, OktaRefusal> {
        let admits = |item: &T| {
            keep(item) && self.expression.as_ref().is_none_or(|expression| expression.admits(item, self.case))
        };
        let Some(sort) = &self.sort else {
            let found = index.seen(pages::after(asked)?, asked.now).filter(|(_, item)| admits(item));
            let (page, rest) = pages::cut(found, limit);
            let next = page.last().filter(|_| rest == NextPage::More).map(|(id, _)| id.to_string());
            return Ok(Page { items: page.into_iter().map(|(_, item)| item).collect(), next });
        };
        let after = pages::sorted_after(asked)?;
        let mut found: Vec<(String, Id, &T)> = index
            .seen(None, asked.now)
            .filter(|(_, item)| admits(item))
            .map(|(id, item)| (sort_key(item, &sort.attribute), id, item))
            .collect();
        found.sort_unstable_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
        if sort.direction == Direction::Down {
            found.reverse();
        }
        let is_later = |key: &str, id: Id| {
            after.as_ref().is_none_or(|(last, last_id)| match sort.direction {
                Direction::Up => (key, id) > (last.as_str(), *last_id),
                Direction::Down => (key, id) < (last.as_str(), *last_id),
            })
        };
        let (page, rest) = pages::cut(found.into_iter().filter(|(key, id, _)| is_later(key, *id)), limit);
        let next =
            page.last().filter(|_| rest == NextPage::More).map(|(key, id, _)| pages::sorted_cursor(key, *id));
        Ok(Page { items: page.into_iter().map(|(_, _, item)| item).collect(), next })
    }
}

/// Describes the first comparison that an endpoint does not support.
fn strange(expression: &Expression, takes: &dyn Fn(&str, Operator) -> bool) -> Option<String> {
    expression
        .comparisons()
        .into_iter()
        .find(|(attribute, operator, _)| !takes(attribute, *operator))
        .map(|(attribute, operator, _)| format!("Unsupported: {attribute} {operator:?}"))
}

/// Returns the sort key of an item; an item without the attribute gets the greatest key.
fn sort_key(item: &impl Item, attribute: &str) -> String {
    match item.field(attribute) {
        Some(Field::Text(text)) => text.to_lowercase(),
        Some(Field::Time(time)) => format!("{:020}", time.as_millisecond()),
        Some(Field::Json(value)) => match value.as_str() {
            Some(text) => text.to_lowercase(),
            None => value.to_string(),
        },
        Some(Field::Any(_)) | None => "\u{10ffff}".to_owned(),
    }
}
