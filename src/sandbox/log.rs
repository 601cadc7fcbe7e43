//! The queries of the System Log.
//!
//! A query without `until` and ascending polls: it always has a `next`, even on an empty page. A query with `until`,
//! or descending, is bounded: the last page has none. A cursor is the number of the next event to read (descending: of
//! the last one read), so no event is skipped or seen twice.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::call::RequestContext;
use super::expression::{CaseSensitivity, Expression, Field, Item, Operator};
use super::org::Org;
use super::pages::{self, Links, NextPage};
use super::refusal::OktaRefusal;
use super::reply::{OrgReply, Stamp};
use super::system_log::{LogEvent, Target};

const LIMIT_DEFAULT: usize = 100;
const LIMIT_MAX: usize = 1000;

/// The default time range of a query without `since`.
const SINCE_DEFAULT: Duration = Duration::from_secs(7 * 24 * 3600);

/// The greatest age of `since`.
const SINCE_MAX: Duration = Duration::from_secs(180 * 24 * 3600);

const KEYWORDS_MAX: usize = 10;
const KEYWORD_CHARS_MAX: usize = 40;

/// The direction of a query, and its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LogQuery {
    Polling,
    Up,
    Down,
}

/// An event as JSON, for filters on any of its attributes.
struct EventDocument(Value);

impl Item for EventDocument {
    fn field(&self, attribute: &str) -> Option<Field<'_>> {
        field(&self.0, attribute)
    }
}

fn field<'a>(value: &'a Value, path: &str) -> Option<Field<'a>> {
    match value {
        _ if path.is_empty() => Some(Field::Json(value)),
        Value::Array(items) => Some(Field::Any(items.iter().filter_map(|item| field(item, path)).collect())),
        Value::Object(object) => {
            let (name, rest) = path.split_once('.').unwrap_or((path, ""));
            field(object.get(name)?, rest)
        }
        _ => None,
    }
}

impl Org {
    fn event_view(&self, event: &LogEvent) -> Value {
        let (kind, message) = event.change.event().expect("only changes with events are logged");
        let admin = self.users.get(self.admin);
        let (login, name) = admin.map_or_else(
            || ("unknown".to_owned(), "unknown".to_owned()),
            |admin| (admin.text("login").to_owned(), admin.display_name()),
        );
        json!({
            "actor": {
                "id": self.admin, "type": "User", "alternateId": login, "displayName": name, "detailEntry": null,
            },
            "client": {
                "userAgent": null, "zone": null, "device": null, "id": null, "ipAddress": null,
                "geographicalContext": null,
            },
            "authenticationContext": {
                "authenticationProvider": null, "credentialProvider": null, "credentialType": null,
                "issuer": null, "interface": null, "authenticationStep": 0,
                "externalSessionId": format!("trs{}", &event.request_id[..22]),
            },
            "displayMessage": message,
            "eventType": kind,
            "outcome": { "result": "SUCCESS", "reason": null },
            "published": Stamp(event.published),
            "securityContext": { "asNumber": null, "asOrg": null, "isp": null, "domain": null, "isProxy": null },
            "severity": "INFO",
            "debugContext": { "debugData": {
                "requestId": event.request_id, "requestUri": event.path, "url": format!("{}?", event.path),
            } },
            "legacyEventType": null,
            "transaction": { "type": "WEB", "id": event.request_id, "detail": {} },
            "uuid": event.uuid.to_string(),
            "version": "0",
            "request": { "ipChain": [] },
            "target": event.targets.iter().map(Target::view).collect::<Vec<_>>(),
        })
    }

    pub(super) fn list_events(&self, asked: &RequestContext<'_>) -> Result<OrgReply, OktaRefusal> {
        let until = time(asked, "until")?;
        let reading = match (asked.query("sortOrder"), until) {
            (Some(order), _) if order.eq_ignore_ascii_case("descending") => LogQuery::Down,
            (_, Some(_)) => LogQuery::Up,
            (_, None) => LogQuery::Polling,
        };
        let latest = until.unwrap_or(asked.now);
        let since = match time(asked, "since")? {
            Some(since)
                if asked.now.duration_since(since).unsigned_abs() > SINCE_MAX && since < asked.now =>
            {
                return Err(OktaRefusal::bad_log_filter("since must not be more than 180 days ago"));
            }
            Some(since) => since,
            None => latest.checked_sub(SINCE_DEFAULT).unwrap_or(Timestamp::MIN),
        };
        let limit = match asked.query("limit").map(str::parse::<usize>) {
            None => LIMIT_DEFAULT,
            Some(Ok(limit)) => limit.min(LIMIT_MAX),
            Some(Err(_)) => {
                return Err(OktaRefusal::invalid("limit", vec!["limit: must be a number".to_owned()]));
            }
        };
        let cursor = match asked.query("after") {
            None => None,
            Some(text) => Some(read_cursor(text).ok_or_else(OktaRefusal::bad_cursor)?),
        };
        let filter = asked.query("filter").map(read_filter).transpose()?;
        let keywords = keywords(asked.query("q").unwrap_or_default())?;

        let admits = |event: &LogEvent| {
            if until.is_some_and(|until| event.published > until)
                || (cursor.is_none() && event.published < since)
            {
                return None;
            }
            let view = EventDocument(self.event_view(event));
            let passes =
                filter.as_ref().is_none_or(|filter| filter.admits(&view, CaseSensitivity::Insensitive))
                    && (keywords.is_empty() || holds_all(&view.0, &keywords));
            passes.then_some(view.0)
        };
        let after = |number: u64| match (cursor, reading) {
            (None, _) => true,
            (Some(cursor), LogQuery::Polling | LogQuery::Up) => number >= cursor,
            (Some(cursor), LogQuery::Down) => number < cursor,
        };
        let found = |(number, event): (u64, &LogEvent)| Some((number, admits(event)?));
        let numbered = self.log.numbered().filter(|(number, _)| after(*number));
        let (page, rest) = match reading {
            LogQuery::Polling | LogQuery::Up => pages::cut(numbered.filter_map(found), limit),
            LogQuery::Down => {
                let bounded = numbered.rev().filter(|(_, event)| event.published >= since);
                pages::cut(bounded.filter_map(found), limit)
            }
        };
        let last = page.last().map(|(number, _)| *number);
        let next = match (reading, rest) {
            (LogQuery::Polling | LogQuery::Up, NextPage::More) => {
                Some(last.map_or(cursor.unwrap_or(self.log.first), |last| last + 1))
            }
            (LogQuery::Down, NextPage::More) => Some(last.unwrap_or(cursor.unwrap_or(self.log.end()))),
            (LogQuery::Polling, NextPage::Nothing) => Some(self.log.end()), // all before it was looked at
            (LogQuery::Up | LogQuery::Down, NextPage::Nothing) => None,
        }
        .map(|number| format!("{number}_1"));
        let views: Vec<Value> = page.into_iter().map(|(_, view)| view).collect();
        let links = Links {
            host: &self.settings.host,
            path: "/api/v1/logs",
            limit,
            kept: &["since", "until", "filter", "q", "sortOrder"],
        };
        Ok(links.write(OrgReply::json(&views), asked, next.as_deref()))
    }
}

fn read_cursor(text: &str) -> Option<u64> {
    text.strip_suffix("_1")?.parse().ok()
}

/// Parses a time of the query; a date without a time is midnight.
fn time(asked: &RequestContext<'_>, name: &str) -> Result<Option<Timestamp>, OktaRefusal> {
    let Some(text) = asked.query(name) else { return Ok(None) };
    let midnight = || format!("{text}T00:00:00Z").parse::<Timestamp>().ok();
    match text.parse::<Timestamp>().ok().or_else(midnight) {
        Some(time) => Ok(Some(time)),
        None => Err(OktaRefusal::invalid(
            name,
            vec![format!("{name}: The date format in your query is not recognized.")],
        )),
    }
}

fn read_filter(text: &str) -> Result<Expression, OktaRefusal> {
    let expression = Expression::parse(text).map_err(|cause| OktaRefusal::bad_log_filter(&cause))?;
    for (attribute, operator, _) in expression.comparisons() {
        let is_url = matches!(attribute, "debugContext.debugData.url" | "debugContext.debugData.requestUri");
        if attribute == "published" || (is_url && operator == Operator::Contains) {
            return Err(OktaRefusal::bad_log_filter(&format!("{attribute} cannot be filtered so")));
        }
    }
    Ok(expression)
}

fn keywords(text: &str) -> Result<Vec<String>, OktaRefusal> {
    let words: Vec<String> = text.split_whitespace().map(str::to_lowercase).collect();
    if words.len() > KEYWORDS_MAX || words.iter().any(|word| word.chars().count() > KEYWORD_CHARS_MAX) {
        return Err(OktaRefusal::invalid("q", vec!["q: too many or too long keywords".to_owned()]));
    }
    Ok(words)
}

/// Returns true if each keyword is a word somewhere in the event.
fn holds_all(view: &Value, keywords: &[String]) -> bool {
    let text = view.to_string().to_lowercase();
    let is_inside = |c: char| c.is_alphanumeric() || matches!(c, '@' | '.' | '-' | '_');
    let words: Vec<&str> = text.split(|c: char| !is_inside(c)).collect();
    keywords.iter().all(|keyword| words.contains(&keyword.as_str()))
}
