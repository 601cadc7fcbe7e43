//! The route by which a message reached one of our queues.
//!
//! RabbitMQ checks topic permissions only against the routing key. `CC` and `BCC`, foreign bindings and
//! dead-lettering from a caller's own queue bypass that check and reach the queues of other orgs (each shown on
//! real brokers), and each leaves a trace in the delivery.

use std::time::Duration;

use crate::domain::ids::{Lane, excerpt};
use crate::domain::message::{HeaderValue, Headers, Source};
use crate::domain::result::{ErrorCode, Failure};
use crate::domain::topology::{DELAY_TIERS, INVOCATIONS, UNDELIVERED, is_own_queue, source_queue, work_key};

/// The header in which the broker records the queues that dead-lettered a message.
pub const X_DEATH: &str = "x-death";

/// Checks exchange, routing key and dead-letterings of a delivery.
///
/// # Errors
/// `not_permitted`, if the message did not come by one of the worker's own routes.
pub fn check(source: &Source, exchange: &str, routing_key: &str, headers: &Headers) -> Result<(), Failure> {
    let queue = source_queue(source);
    let is_own_route = match source {
        Source::Work { connection, lane } | Source::Removed { connection, lane } => {
            let is_own_key = routing_key == work_key(connection, *lane)
                || (*lane == Lane::Interactive && routing_key == connection.as_str());
            exchange == INVOCATIONS && is_own_key
        }
        Source::Unrouted => exchange == INVOCATIONS,
        Source::Undelivered => exchange == UNDELIVERED,
    };
    let is_by_queue_name = exchange.is_empty() && routing_key == queue;
    if !is_own_route && !is_by_queue_name {
        let message = format!(
            "a message for `{queue}` may not come by exchange `{}` with key `{}`",
            excerpt(exchange),
            excerpt(routing_key)
        );
        return Err(Failure::new(ErrorCode::NotPermitted, message).at(Some("properties.routing_key")));
    }
    match headers.get(X_DEATH).and_then(foreign_queue) {
        None => Ok(()),
        Some(foreign) => {
            let message = format!("a message may not be dead-lettered here from `{}`", excerpt(foreign));
            Err(Failure::new(ErrorCode::NotPermitted, message).at(Some("properties.headers.x-death")))
        }
    }
}

/// Returns the first foreign queue that dead-lettered the message, according to a broker.
fn foreign_queue(header: &HeaderValue) -> Option<&str> {
    let HeaderValue::List(deaths) = header else { return None };
    deaths.iter().filter_map(by_broker).find(|queue| !is_own_queue(queue))
}

/// Returns the queue of a death that a broker may have written; `None` if a producer wrote it.
///
/// The entry of RabbitMQ's own dead-lettering has a 64-bit count beside the names of queue and reason. On 3.10.8 that
/// held for whatever a producer had put into the header before (nothing, a text, a list, an entry for the same queue
/// with or without a count, twice), or RabbitMQ dropped the message (measured; the source of 4.0 writes the same).
/// Clients that encode a number in the fewest bits do not produce such a count.
fn by_broker(death: &HeaderValue) -> Option<&str> {
    let HeaderValue::Table(entry) = death else { return None };
    let is_counted = matches!(entry.get("count"), Some(HeaderValue::Int(_)));
    let has_reason = entry.get("reason").is_some_and(|reason| reason.as_text().is_some());
    queue_of(death).filter(|_| is_counted && has_reason)
}

fn queue_of(death: &HeaderValue) -> Option<&str> {
    match death {
        HeaderValue::Table(death) => death.get("queue")?.as_text(),
        _ => None,
    }
}

/// Returns the time for which the latest delay tier kept a message; `None` if it does not come from a delay tier.
pub fn delayed_for(headers: &Headers) -> Option<Duration> {
    let HeaderValue::List(deaths) = headers.get(X_DEATH)? else { return None };
    let queue = by_broker(deaths.first()?)?; // the broker puts the latest in front
    DELAY_TIERS.into_iter().find_map(|(tier, time)| (tier == queue).then_some(time))
}

/// The reason why the broker dead-lettered a message to `okta.undelivered`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GivenUp {
    /// Its `expiration` passed in the queue.
    Expired,
    /// A policy on the broker limits how long, or how many, messages may wait.
    Dropped(DropPolicy),
    /// It exceeded the delivery limit, or was refused: it crashed workers.
    CrashLoop,
}

/// The limit by which a broker policy drops messages. Our queues have no such arguments, so it is always a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DropPolicy {
    /// `message-ttl`.
    TimeToLive,
    /// `max-length` or `max-length-bytes`, with `overflow` `drop-head`, where a policy overrides our own argument.
    Length,
}

impl DropPolicy {
    /// Returns the keys of the policy.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TimeToLive => "message-ttl",
            Self::Length => "max-length with drop-head",
        }
    }
}

/// Returns the queue that a message in `okta.undelivered` comes from, and the reason; `None` if the broker
/// states neither.
pub fn given_up(headers: &Headers) -> Option<(&str, GivenUp)> {
    let HeaderValue::List(deaths) = headers.get(X_DEATH)? else { return None };
    let latest = deaths.first()?; // the broker puts the latest in front
    let HeaderValue::Table(death) = latest else { return None };
    let why = match death.get("reason")?.as_text()? {
        // Present if the message had an `expiration` of its own.
        "expired" if death.contains_key("original-expiration") => GivenUp::Expired,
        "expired" => GivenUp::Dropped(DropPolicy::TimeToLive),
        "maxlen" => GivenUp::Dropped(DropPolicy::Length),
        _ => GivenUp::CrashLoop,
    };
    Some((queue_of(latest)?, why))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::ConnectionName;

    fn lane(lane: Lane) -> Source {
        Source::Work { connection: ConnectionName::parse("prod").unwrap(), lane }
    }

    fn death(queue: &str, reason: &str) -> Headers {
        let text = |text: &str| HeaderValue::Text(text.to_owned());
        let count = ("count".to_owned(), HeaderValue::Int(1));
        let entry = [("queue".to_owned(), text(queue)), ("reason".to_owned(), text(reason)), count];
        [(X_DEATH.to_owned(), HeaderValue::List(vec![HeaderValue::Table(entry.into())]))].into()
    }

    #[test]
    fn only_the_exchange_with_a_key_of_the_queue_or_the_queues_own_name_lead_in() {
        let (interactive, bulk) = (lane(Lane::Interactive), lane(Lane::Bulk));
        let rows = [
            (&interactive, "okta.invocations", "prod", true),
            (&interactive, "okta.invocations", "prod.interactive", true),
            (&bulk, "okta.invocations", "prod.bulk", true),
            (&bulk, "okta.invocations", "prod", false),
            (&bulk, "okta.invocations", "other.bulk", false), // CC or BCC from another connection's key
            (&bulk, "", "okta.invocations.prod.bulk", true),
            (&bulk, "", "prod.bulk", false),
            (&bulk, "amq.topic", "prod.bulk", false), // a foreign binding
            (&Source::Unrouted, "okta.invocations", "anything", true),
            (&Source::Unrouted, "okta.unrouted", "anything", false),
            (&Source::Undelivered, "okta.undelivered", "prod.bulk", true),
            (&Source::Undelivered, "okta.invocations", "prod.bulk", false),
        ];
        for (source, exchange, key, good) in rows {
            let checked = check(source, exchange, key, &Headers::new());
            assert_eq!(checked.is_ok(), good, "{source:?} {exchange} {key}");
        }
    }

    #[test]
    fn dead_letters_come_from_our_own_queues_only() {
        let by_key = |headers: &Headers| check(&lane(Lane::Bulk), INVOCATIONS, "prod.bulk", headers);
        assert!(by_key(&death("okta.delay.5s", "expired")).is_ok());
        let failure = by_key(&death("mine", "expired")).unwrap_err();
        assert_eq!(failure.path.as_deref(), Some("properties.headers.x-death"));
    }

    /// Returns an entry of an `x-death` header, modified.
    fn changed(change: impl FnOnce(&mut Headers)) -> HeaderValue {
        let mut headers = death("mine", "expired");
        let Some(HeaderValue::List(deaths)) = headers.get_mut(X_DEATH) else { panic!("it is a list") };
        let HeaderValue::Table(entry) = &mut deaths[0] else { panic!("it is a table") };
        change(entry);
        deaths.remove(0)
    }

    #[test]
    fn a_death_that_no_broker_can_have_written_is_the_producers_own_and_counts_for_nothing() {
        let by_key = |header: HeaderValue| {
            let headers = [(X_DEATH.to_owned(), header)].into();
            check(&lane(Lane::Bulk), INVOCATIONS, "prod.bulk", &headers)
        };
        let small = || changed(|entry| drop(entry.insert("count".to_owned(), HeaderValue::Small(1))));
        for own in [
            HeaderValue::Text("x".into()),
            HeaderValue::List(Vec::new()),
            HeaderValue::List(vec![HeaderValue::Text("mine".into())]),
            HeaderValue::List(vec![changed(|entry| drop(entry.remove("count")))]),
            HeaderValue::List(vec![changed(|entry| drop(entry.remove("reason")))]),
            HeaderValue::List(vec![changed(|entry| drop(entry.remove("queue")))]),
            HeaderValue::List(vec![small()]),
        ] {
            assert!(by_key(own.clone()).is_ok(), "{own:?}");
        }
        // A broker puts its own entry in front of existing ones, or in their place.
        for also_by_broker in [
            vec![changed(|_| {})],
            vec![changed(|_| {}), HeaderValue::Text("x".into())],
            vec![small(), changed(|_| {})],
            vec![changed(|entry| drop(entry.insert("time".to_owned(), HeaderValue::Void)))],
        ] {
            assert!(by_key(HeaderValue::List(also_by_broker.clone())).is_err(), "{also_by_broker:?}");
        }
    }

    #[test]
    fn a_delay_tier_has_kept_a_message_for_its_own_time() {
        assert_eq!(delayed_for(&death("okta.delay.2m", "expired")), Some(Duration::from_secs(120)));
        assert_eq!(delayed_for(&death("okta.invocations.prod.bulk", "expired")), None);
        assert_eq!(delayed_for(&Headers::new()), None);
    }

    #[test]
    fn the_latest_death_says_why_the_broker_gave_up() {
        // As written by RabbitMQ 3.10.8.
        let rows = [
            ("expired", Some("500"), GivenUp::Expired),
            ("expired", None, GivenUp::Dropped(DropPolicy::TimeToLive)),
            ("maxlen", None, GivenUp::Dropped(DropPolicy::Length)),
            ("delivery_limit", None, GivenUp::CrashLoop),
            ("rejected", None, GivenUp::CrashLoop),
        ];
        for (reason, expiration, why) in rows {
            let mut headers = death("okta.invocations.prod.bulk", reason);
            let Some(HeaderValue::List(deaths)) = headers.get_mut(X_DEATH) else { panic!("it is a list") };
            let Some(HeaderValue::Table(latest)) = deaths.first_mut() else { panic!("of tables") };
            latest.extend(
                expiration.map(|own| ("original-expiration".to_owned(), HeaderValue::Text(own.to_owned()))),
            );
            assert_eq!(given_up(&headers), Some(("okta.invocations.prod.bulk", why)), "{reason}");
        }
        assert_eq!(given_up(&Headers::new()), None);
    }
}
