//! Reconciliation: finding out if Okta executed a write whose answer never came.
//!
//! Okta has no idempotency keys, so a write is not retried blindly: the object is read first, and if
//! another client may have undone the write since, the System Log too. Invariant: a write is sent again
//! only after a read that found no trace of it.

use std::collections::HashSet;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::domain::http::Request;
use crate::domain::ids::UserId;
use crate::domain::json::Object;
use crate::domain::link;
use crate::domain::okta_error::OktaError;
use crate::domain::result::{Effect, ErrorCode, Failure};

use super::history::OktaReply;
use super::replay::Replay;
use super::run::Stop;

/// The outcome of a write.
pub(super) enum Converged<'a, T> {
    /// Okta answered.
    Said(OktaReply<'a>),
    /// No answer came, but reconciliation found it done.
    Found(T),
}

/// Sends a write, and again as long as no answer comes and `look` finds that it was not executed. If the
/// invocation may have run before, `look` comes first.
pub(super) fn settle<'a, T>(
    okta: &mut Replay<'a>,
    write: &Request,
    mut look: impl FnMut(&mut Replay<'a>, Timestamp) -> Result<Option<T>, Stop>,
) -> Result<Converged<'a, T>, Stop> {
    loop {
        if let Some(since) = okta.doubt()
            && let Some(found) = look(okta, since)?
        {
            return Ok(Converged::Found(found));
        }
        if let Some(reply) = okta.attempt(write.clone())? {
            return Ok(Converged::Said(reply));
        }
    }
}

/// Reads an object for reconciliation; returns `None` if it does not exist.
pub(super) fn look_for<'a>(okta: &mut Replay<'a>, read: Request) -> Result<Option<OktaReply<'a>>, Stop> {
    let reply = okta.ask(read)?;
    if reply.is_success() {
        return Ok(Some(reply));
    }
    let error = reply.error();
    if error.status == 404 {
        return Ok(None);
    }
    let message = "the write may have happened, and Okta refuses to show whether it has";
    Err(Stop::Fail(Box::new(Failure::new(ErrorCode::OutcomeUnknown, message).with_okta(error))))
}

/// Returns the effect if the object is in the wanted state: applied if it changed since the write may have
/// been sent, otherwise unchanged.
pub(super) fn effect(changed: Option<Timestamp>, since: Option<Timestamp>) -> Effect {
    match (changed, since) {
        (Some(changed), Some(since)) if changed >= since => Effect::Applied,
        _ => Effect::Unchanged,
    }
}

/// Returns true if the change is not older than `since`.
pub(super) fn is_since(changed: Option<Timestamp>, since: Timestamp) -> bool {
    changed.is_some_and(|changed| changed >= since)
}

/// Reads of the System Log for an event, which may appear late.
const LOG_READS: u32 = 3;

/// The pause between those reads.
const LOG_PAUSE: Duration = Duration::from_secs(1);

/// Returns true if the System Log has an event of this type about all these objects since then; `None` if Okta
/// does not show the log.
pub(super) fn logged(
    okta: &mut Replay<'_>,
    kind: &str,
    about: &[&str],
    since: Timestamp,
) -> Result<Option<bool>, Stop> {
    let mut filter = format!("eventType eq {}", literal(kind));
    for id in about {
        filter.push_str(&format!(" and target.id eq {}", literal(id)));
    }
    for read in 0..LOG_READS {
        let request = Request::get("/api/v1/logs", &[])
            .query("since", since)
            .query("filter", &filter)
            .query("sortOrder", "DESCENDING")
            .query("limit", 1);
        let request = if read > 0 { request.after(LOG_PAUSE) } else { request };
        let reply = okta.ask(request)?;
        if !reply.is_success() {
            return Ok(None);
        }
        let events: Vec<Value> = reply.read()?;
        if !events.is_empty() {
            return Ok(Some(true));
        }
    }
    Ok(Some(false))
}

/// Returns a text as a literal of Okta's filter expressions.
pub(super) fn literal(text: &str) -> String {
    Value::from(text).to_string()
}

/// Returns true if an object has everything that was sent; a cleared attribute may be absent or `null`.
pub(super) fn has_all(found: Option<&Object>, sent: &Object) -> bool {
    sent.iter().all(|(name, wanted)| {
        let there = found.and_then(|found| found.get(name)).map_or(Value::Null, value);
        is_equal(&value(wanted), &there)
    })
}

fn value(raw: &RawValue) -> Value {
    serde_json::from_str(raw.get()).unwrap_or(Value::Null)
}

/// Returns true if two values are the same to Okta, which stores 1e3 as 1000.
fn is_equal(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => one.as_f64() == other.as_f64(),
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| is_equal(one, other))
        }
        _ => one == other,
    }
}

/// Returns true if Okta refused because an object with this natural key exists.
pub(super) fn is_taken(error: &OktaError, attribute: &str) -> bool {
    error.is("E0000001")
        && error.causes.iter().any(|cause| {
            cause.strip_prefix(attribute).is_some_and(|rest| rest.starts_with(':'))
                && cause.contains("already exists")
        })
}

/// Reads the ids of a user's groups.
pub(super) fn groups_of(okta: &mut Replay<'_>, user: &UserId) -> Result<Vec<String>, Stop> {
    #[derive(Deserialize)]
    struct Listed {
        id: String,
    }
    let first = Request::get("/api/v1/users/{userId}/groups", &[user]);
    let (mut request, mut groups, mut seen) = (first.clone(), Vec::new(), HashSet::new());
    loop {
        let Some(reply) = look_for(okta, request)? else { return Ok(groups) };
        let page: Vec<Listed> = reply.read()?;
        groups.extend(page.into_iter().map(|group| group.id));
        match link::next(&reply.0.response.headers) {
            Some(link) => {
                request = first.follow(link, &[]);
                if !seen.insert(request.path_and_query()) {
                    return Err(unknown("Okta's list of the user's groups leads back to itself"));
                }
            }
            None => return Ok(groups),
        }
    }
}

/// Stops because the outcome is unknown.
pub(super) fn unknown(message: impl Into<String>) -> Stop {
    Stop::fail(ErrorCode::OutcomeUnknown, message)
}

/// Deserializes a timestamp; any other value counts as unknown.
pub(super) fn moment<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    Ok(value.as_str().and_then(|text| text.parse().ok()))
}
