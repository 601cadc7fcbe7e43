//! A parked message: what it says of itself, and the copies that may stand for it.
//!
//! A worker parks with headers of its own. What the broker has parked has its producer's headers instead, so
//! there no `okta-` header counts, and only what the broker wrote and verified does. Invariant: a copy that goes
//! back to work asks for what its first message asked for, in the name of the same caller, on the same
//! connection, and whoever gets it looks first what became of it before.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use crate::domain::ids::{ConnectionName, Lane, excerpt};
use crate::domain::invocation;
use crate::domain::invocation::Envelope;
use crate::domain::message::{HeaderValue, Headers, Properties};
use crate::domain::secret::{MASK, Secrets};
use crate::domain::topology::{INVOCATIONS, UNDELIVERED, is_own_queue, work_queue};
use crate::policy::origin::X_DEATH;
use crate::policy::sensitive::{Read, secrets, speaks_of_secrets};
use crate::tools::catalogue::{self, CatalogueEntry};

use crate::event::ParkReason;
use crate::rabbit::SUBSTITUTE;
use crate::worker::delay::{is_brokers_own, is_kept};
use crate::worker::history::{
    ATTEMPTS, CALLER, DELIVERY_COUNT, FIRST_SENT, ID_GENERATED, OKTA_CLOCK, REDELIVERIES, SUSPECT_FROM,
};
use crate::worker::respond::{PARKED_AT, REASON, ROUTING_KEY};

/// The shortest time that a renewed copy is kept, whatever the clocks say.
const KEPT_MIN: Duration = Duration::from_secs(60 * 60);

/// A message out of `okta.dead`, its properties understood.
#[derive(Debug, Clone, PartialEq)]
pub struct Parked {
    /// The invocation's id, if it has one.
    pub id: Option<String>,
    /// The connection and lane it was for, or why that cannot be told.
    pub address: Result<(ConnectionName, Lane), String>,
    /// Who asked.
    pub caller: Option<String>,
    /// Why it was parked: one of [`ParkReason`]'s words, or what stands there instead.
    pub reason: Option<String>,
    /// Attempts spent on it.
    pub attempts: u32,
    /// How often it was delivered again before.
    pub redeliveries: u32,
    /// When it was first sent, as far as is known.
    pub sent: Option<Timestamp>,
    /// When it was parked, as far as is known.
    pub parked: Option<Timestamp>,
    /// How often the broker has handed it out of `okta.dead` before.
    pub looks: u32,
    /// Whether the worker made the id.
    is_id_generated: bool,
    /// By which clock its times are.
    clock: Option<String>,
    /// The broker parked it, without a worker.
    by_broker: bool,
    properties: Properties,
}

impl Parked {
    /// Reads the properties. `own_user` is the worker's own broker user.
    pub fn new(properties: Properties, own_user: &str) -> Self {
        let headers = &properties.headers;
        let by_broker = headers.contains_key(X_DEATH);
        // The broker may have parked a copy of a worker's; it has verified whose it is.
        let is_ours = !by_broker || properties.user_id.as_deref() == Some(own_user);
        let own = |name: &str| headers.get(name).filter(|_| is_ours);
        let text = |name: &str| own(name).and_then(HeaderValue::as_text).map(str::to_owned);
        let count = |name: &str| own(name).and_then(HeaderValue::as_int).and_then(|n| u32::try_from(n).ok());
        let time = |name: &str| Timestamp::from_millisecond(own(name).and_then(HeaderValue::as_int)?).ok();
        let deaths = Deaths::of(headers);
        let stamped =
            properties.timestamp.and_then(|at| Timestamp::from_second(i64::try_from(at).ok()?).ok());
        let looks = headers.get(DELIVERY_COUNT).and_then(HeaderValue::as_int);
        Self {
            id: properties.message_id.clone(),
            address: match text(ROUTING_KEY) {
                _ if by_broker => deaths.address(),
                Some(key) => address(&key),
                None => Err(format!("it has no header `{ROUTING_KEY}`")),
            },
            caller: match text(CALLER) {
                Some(name) => Some(name).filter(|name| !name.is_empty()),
                None => properties.user_id.clone().filter(|_| by_broker),
            },
            reason: match by_broker {
                true => Some(ParkReason::CrashLoop.as_str().to_owned()),
                false => text(REASON),
            },
            attempts: count(ATTEMPTS).unwrap_or(0),
            redeliveries: count(REDELIVERIES).unwrap_or(0),
            sent: stamped.or_else(|| time(FIRST_SENT)).or_else(|| deaths.time(deaths.0.last())),
            parked: time(PARKED_AT).or_else(|| deaths.time(deaths.0.first())),
            looks: looks.and_then(|looks| u32::try_from(looks).ok()).unwrap_or(0),
            is_id_generated: own(ID_GENERATED).is_some_and(HeaderValue::is_true),
            clock: text(OKTA_CLOCK),
            by_broker,
            properties,
        }
    }

    /// The properties as they are.
    pub fn properties(&self) -> &Properties {
        &self.properties
    }

    /// The moment that its age counts from: when it was parked, else when it was sent.
    pub fn since(&self) -> Option<Timestamp> {
        self.parked.or(self.sent)
    }

    /// The properties of the copy that goes back to work. The caller and what became of the message go along,
    /// as in every copy of a worker's; attempts begin anew. It counts as delivered before, so that a write looks
    /// first; one that may have brought workers down runs alone.
    ///
    /// # Errors
    /// When no copy can stand for it, in words.
    pub fn replayed(&self, own_user: &str) -> Result<Properties, String> {
        if let Some(property) = self.garbled() {
            return Err(format!("its {property} is not UTF-8"));
        }
        let redeliveries = self.redeliveries.clamp(1, SUSPECT_FROM);
        let redeliveries = if self.by_broker { SUSPECT_FROM } else { redeliveries };
        let mut headers = self.kept();
        headers.insert(ATTEMPTS.to_owned(), HeaderValue::Int(0));
        headers.insert(REDELIVERIES.to_owned(), HeaderValue::Int(redeliveries.into()));
        Ok(Properties {
            user_id: Some(own_user.to_owned()),
            expiration: None,
            headers,
            ..self.properties.clone()
        })
    }

    /// The properties of a copy that takes its place in `okta.dead`, at the end and not counted yet. It is kept
    /// as long as the first would have been, and says of itself what this one does.
    pub fn renewed(&self, own_user: &str, kept: Duration, now: Timestamp) -> Properties {
        let since = self.since().unwrap_or(now).min(now);
        let age = Duration::try_from(now.duration_since(since)).unwrap_or_default();
        let left = kept.saturating_sub(age).max(KEPT_MIN.min(kept));
        let mut headers = match self.by_broker {
            true => self.kept(),
            false => self.properties.headers.clone(),
        };
        headers.retain(|name, _| !is_brokers_own(name));
        headers.insert(PARKED_AT.to_owned(), HeaderValue::Int(since.as_millisecond()));
        if self.by_broker {
            let count = HeaderValue::Int(SUSPECT_FROM.into());
            headers.insert(REDELIVERIES.to_owned(), count);
            let reason = self.reason.clone().map(HeaderValue::Text);
            headers.extend(reason.map(|reason| (REASON.to_owned(), reason)));
            let key = self.address.as_ref().ok().map(|(connection, lane)| format!("{connection}.{lane}"));
            headers.extend(key.map(|key| (ROUTING_KEY.to_owned(), HeaderValue::Text(key))));
        }
        Properties {
            user_id: Some(own_user.to_owned()),
            expiration: Some(left.as_millis().to_string()),
            headers,
            ..self.properties.clone()
        }
    }

    /// What every copy carries: the producer's own headers, who asked, and since when.
    fn kept(&self) -> Headers {
        let headers = self.properties.headers.iter().filter(|(name, _)| is_kept(name));
        let mut headers: Headers = headers.map(|(name, value)| (name.clone(), value.clone())).collect();
        let caller = self.caller.clone().unwrap_or_default();
        headers.insert(CALLER.to_owned(), HeaderValue::Text(caller));
        let sent = self.sent.map(|at| HeaderValue::Int(at.as_millisecond()));
        headers.extend(sent.map(|at| (FIRST_SENT.to_owned(), at)));
        if self.is_id_generated {
            headers.insert(ID_GENERATED.to_owned(), HeaderValue::Bool(true));
        }
        let clock = self.clock.clone().map(HeaderValue::Text);
        headers.extend(clock.map(|clock| (OKTA_CLOCK.to_owned(), clock)));
        headers
    }

    /// The first property that had bytes which no client library reads.
    fn garbled(&self) -> Option<&'static str> {
        let Properties { message_id, correlation_id, reply_to, user_id, kind, .. } = &self.properties;
        let Properties { content_type, content_encoding, expiration, headers, .. } = &self.properties;
        let texts = [
            ("message_id", message_id),
            ("correlation_id", correlation_id),
            ("reply_to", reply_to),
            ("user_id", user_id),
            ("type", kind),
            ("content_type", content_type),
            ("content_encoding", content_encoding),
            ("expiration", expiration),
        ];
        let is_garbled = |text: &str| text.contains(SUBSTITUTE);
        let text = texts.into_iter().find(|(_, text)| text.as_deref().is_some_and(is_garbled));
        let header = headers.keys().any(|name| is_garbled(name)).then_some("header");
        text.map(|(name, _)| name).or(header)
    }
}

/// What the broker wrote about how a message came to be parked, the latest first.
struct Deaths<'a>(Vec<&'a Headers>);

impl<'a> Deaths<'a> {
    fn of(headers: &'a Headers) -> Self {
        let Some(HeaderValue::List(deaths)) = headers.get(X_DEATH) else { return Self(Vec::new()) };
        let table = |death: &'a HeaderValue| match death {
            HeaderValue::Table(table) => Some(table),
            _ => None,
        };
        Self(deaths.iter().filter_map(table).collect())
    }

    fn queues(&self) -> impl Iterator<Item = &'a str> {
        self.0.iter().map(|death| death.get("queue").and_then(HeaderValue::as_text).unwrap_or_default())
    }

    fn time(&self, death: Option<&&Headers>) -> Option<Timestamp> {
        Timestamp::from_second(death?.get("time")?.as_int()?).ok()
    }

    /// The lane whose queue it died in. A producer may have written entries as well, and RabbitMQ 3.10 takes
    /// them for its own: so the true queue is among them, but a second one says that somebody lied.
    fn address(&self) -> Result<(ConnectionName, Lane), String> {
        let mut queues: Vec<_> = self.queues().collect();
        if let Some(foreign) = queues.iter().find(|name| !is_own_queue(name)) {
            return Err(format!("it was dead-lettered from `{}`", excerpt(foreign)));
        }
        if queues.first() != Some(&UNDELIVERED) {
            return Err("no queue of a connection is known to have held it".to_owned());
        }
        queues.retain(|name| name.starts_with(INVOCATIONS));
        queues.sort_unstable();
        queues.dedup();
        match queues.as_slice() {
            [queue] => address(queue),
            _ => Err("it does not say by one queue what it was for".to_owned()),
        }
    }
}

/// What a routing key says: `<connection>.<lane>`, `<connection>`, or a queue by its name.
fn address(key: &str) -> Result<(ConnectionName, Lane), String> {
    let unreadable = || format!("its routing key `{}` names no connection and lane", excerpt(key));
    let by_name = key.strip_prefix(INVOCATIONS).and_then(|rest| rest.strip_prefix('.'));
    let (name, lane) = match by_name.unwrap_or(key).split_once('.') {
        Some((name, lane)) => (name, Lane::parse(lane).ok_or_else(unreadable)?),
        None => (key, Lane::Interactive),
    };
    let name = ConnectionName::parse(name).map_err(|_| unreadable())?;
    debug_assert!(is_own_queue(&work_queue(&name, lane)));
    Ok((name, lane))
}

/// A parked body, as far as it can be read.
#[derive(Debug)]
pub struct Content {
    /// The name in `subtool`; cut short if the catalog has no such subtool.
    pub subtool: Option<String>,
    /// By when its work must begin.
    pub deadline: Option<Timestamp>,
    /// Why a worker cannot read it.
    pub fault: Option<String>,
    /// What must not be shown.
    pub secrets: Secrets,
    /// The JSON object, secrets masked; nothing when it is no JSON object, and then nothing of it may be shown.
    pub masked: Option<Value>,
}

impl Content {
    /// Reads a body.
    pub fn read(body: &[u8]) -> Self {
        let envelope = Envelope::decode(body);
        let entry = envelope.as_ref().ok().and_then(|envelope| catalogue::find(&envelope.subtool));
        let fits = |entry: &CatalogueEntry, known: &Envelope| entry.read(&known.arguments).is_ok();
        let is_read = envelope.as_ref().ok().zip(entry).is_some_and(|(known, entry)| fits(entry, known));
        let read = if is_read { Read::Fully } else { Read::InPart };
        let raw = invocation::raw(body);
        let secrets = raw.map_or_else(Secrets::default, |raw| secrets(raw, read));
        let value =
            raw.and_then(|raw| serde_json::from_str::<Value>(raw.get()).ok()).filter(Value::is_object);
        let named = value.as_ref().and_then(|value| value.get("subtool")?.as_str());
        let named = named.map(|name| secrets.mask(&excerpt(name)));
        let masked = value.map(|value| masked(value, &secrets));
        Self {
            subtool: entry.map(|entry| entry.manifest.name.to_owned()).or(named),
            deadline: envelope.as_ref().ok().and_then(|envelope| envelope.options.deadline),
            fault: envelope.err().map(|failure| failure.masked(&secrets).message),
            secrets,
            masked,
        }
    }
}

/// The value without its secrets: what stands below a name that speaks of them, and the same texts elsewhere.
fn masked(value: Value, secrets: &Secrets) -> Value {
    match value {
        Value::Array(items) => items.into_iter().map(|item| masked(item, secrets)).collect(),
        Value::Object(entries) => {
            let entry = |(name, value): (String, Value)| {
                let value = if speaks_of_secrets(&name) { blanked(value) } else { masked(value, secrets) };
                (secrets.mask(&name), value)
            };
            entries.into_iter().map(entry).collect()
        }
        Value::String(_) | Value::Number(_) | Value::Null | Value::Bool(_) => secrets.mask_value(value),
    }
}

/// The value with its form and no text.
fn blanked(value: Value) -> Value {
    match value {
        Value::String(_) | Value::Number(_) => Value::String(MASK.to_owned()),
        Value::Array(items) => items.into_iter().map(blanked).collect(),
        Value::Object(entries) => entries.into_iter().map(|(name, value)| (name, blanked(value))).collect(),
        Value::Null | Value::Bool(_) => value,
    }
}

/// A header's value for people, unless its name or its text must not be shown.
pub fn header_shown(name: &str, value: &HeaderValue, secrets: &Secrets) -> Value {
    if speaks_of_secrets(name) {
        return Value::String(MASK.to_owned());
    }
    match value {
        HeaderValue::Text(text) => Value::String(secrets.mask(text)),
        HeaderValue::Int(number) | HeaderValue::Small(number) => Value::from(*number),
        HeaderValue::Float(number) => Value::from(*number),
        HeaderValue::Bool(it) => Value::Bool(*it),
        HeaderValue::Bytes(bytes) => Value::String(format!("{} bytes", bytes.len())),
        HeaderValue::List(items) => items.iter().map(|item| header_shown("", item, secrets)).collect(),
        HeaderValue::Table(table) => {
            table.iter().map(|(name, item)| (name.clone(), header_shown(name, item, secrets))).collect()
        }
        HeaderValue::Void => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const WORKER: &str = "worker";

    fn text(text: &str) -> HeaderValue {
        HeaderValue::Text(text.to_owned())
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn headers<const N: usize>(headers: [(&str, HeaderValue); N]) -> Headers {
        headers.map(|(name, value)| (name.to_owned(), value)).into()
    }

    /// As a worker parks.
    fn by_worker() -> Properties {
        Properties {
            message_id: Some("m".into()),
            reply_to: Some("answers".into()),
            timestamp: Some(1000),
            headers: headers([
                (REASON, text("internal")),
                (ROUTING_KEY, text("prod.bulk")),
                (PARKED_AT, HeaderValue::Int(2_000_000)),
                (CALLER, text("helpdesk")),
                (FIRST_SENT, HeaderValue::Int(1_000_000)),
                (ATTEMPTS, HeaderValue::Int(5)),
                (REDELIVERIES, HeaderValue::Int(0)),
                ("traceparent", text("00-x")),
                (DELIVERY_COUNT, HeaderValue::Int(7)),
            ]),
            ..Properties::default()
        }
    }

    /// As the broker does, with what a producer may have written.
    fn by_broker(queues: &[&str]) -> Properties {
        let death = |queue: &&str| {
            let entry = [("queue", text(queue)), ("time", HeaderValue::Int(1500))];
            HeaderValue::Table(headers(entry))
        };
        Properties {
            user_id: Some("mallory".into()),
            headers: headers([
                (X_DEATH, HeaderValue::List(queues.iter().map(death).collect())),
                (CALLER, text("admin")),
                (ROUTING_KEY, text("prod.bulk")),
                ("okta-resent", HeaderValue::Bool(true)),
            ]),
            ..Properties::default()
        }
    }

    fn place(connection: &str, lane: Lane) -> Result<(ConnectionName, Lane), String> {
        Ok((ConnectionName::parse(connection).unwrap(), lane))
    }

    #[test]
    fn what_a_worker_has_parked_goes_back_in_the_callers_name_and_is_looked_for_first() {
        let parked = Parked::new(by_worker(), WORKER);
        assert_eq!(parked.address, place("prod", Lane::Bulk));
        assert_eq!((parked.attempts, parked.looks, parked.since()), (5, 7, Some(at(2000))));
        let copy = parked.replayed(WORKER).unwrap();
        let expected = headers([
            (CALLER, text("helpdesk")),
            (FIRST_SENT, HeaderValue::Int(1_000_000)),
            (ATTEMPTS, HeaderValue::Int(0)),
            (REDELIVERIES, HeaderValue::Int(1)),
            ("traceparent", text("00-x")),
        ]);
        assert_eq!(copy, Properties { user_id: Some(WORKER.into()), headers: expected, ..by_worker() });
    }

    #[test]
    fn one_that_may_have_brought_workers_down_runs_alone_and_is_not_given_up_at_once() {
        let mut properties = by_worker();
        properties.headers.insert(REDELIVERIES.to_owned(), HeaderValue::Int(11));
        let copy = Parked::new(properties, WORKER).replayed(WORKER).unwrap();
        assert_eq!(copy.headers[REDELIVERIES], HeaderValue::Int(SUSPECT_FROM.into()));
    }

    #[test]
    fn nobody_becomes_somebody_else_by_being_parked_by_the_broker() {
        let queues = [UNDELIVERED, "okta.invocations.other.bulk"];
        let parked = Parked::new(by_broker(&queues), WORKER);
        assert_eq!(parked.caller.as_deref(), Some("mallory"));
        assert_eq!(parked.address, place("other", Lane::Bulk));
        let copy = parked.replayed(WORKER).unwrap();
        assert_eq!(copy.headers[CALLER], text("mallory"));
        assert!(!copy.headers.contains_key(X_DEATH) && copy.headers.contains_key("okta-resent"));
        // Nor by being looked at.
        let renewed = parked.renewed(WORKER, Duration::from_secs(9000), at(1600));
        let again = Parked::new(renewed, WORKER);
        assert_eq!((again.caller, again.address), (parked.caller.clone(), parked.address.clone()));
        assert_eq!((again.parked, again.reason), (parked.parked, parked.reason));
        let nameless = Parked::new(Properties { user_id: None, ..by_broker(&queues) }, WORKER);
        assert_eq!(nameless.caller, None);
        let again = Parked::new(nameless.renewed(WORKER, Duration::from_secs(9000), at(1600)), WORKER);
        assert_eq!(again.caller, None);
        let of_ours = Parked::new(Properties { user_id: Some(WORKER.into()), ..by_broker(&queues) }, WORKER);
        assert_eq!(of_ours.caller.as_deref(), Some("admin"), "a copy of a worker's");
    }

    #[test]
    fn where_the_broker_has_it_from_must_be_beyond_doubt() {
        let (prod, other) = ("okta.invocations.prod.bulk", "okta.invocations.other.bulk");
        let rows: [(&[&str], bool); 6] = [
            (&[UNDELIVERED, other, "okta.delay.1s"], true),
            (&[UNDELIVERED, other, prod], false), // one of them is a lie
            (&[UNDELIVERED], false),
            (&["okta.unrouted", prod], false),
            (&[UNDELIVERED, other, "mine"], false),
            (&[], false),
        ];
        for (queues, is_known) in rows {
            assert_eq!(Parked::new(by_broker(queues), WORKER).address.is_ok(), is_known, "{queues:?}");
        }
    }

    #[test]
    fn a_renewed_copy_says_the_same_and_is_kept_no_longer() {
        let parked = Parked::new(by_worker(), WORKER);
        let renewed = parked.renewed(WORKER, Duration::from_secs(10_000), at(4000));
        assert_eq!(renewed.expiration.as_deref(), Some("8000000"));
        let again = Parked::new(renewed.clone(), WORKER);
        assert_eq!(again.looks, 0);
        let same = Parked { looks: 7, properties: by_worker(), ..again };
        assert_eq!(same, parked);
        let late = parked.renewed(WORKER, Duration::from_secs(10_000), at(1_000_000));
        assert_eq!(
            late.expiration.as_deref(),
            Some("3600000"),
            "clocks differ, so it is not dropped at once"
        );
    }

    #[test]
    fn a_routing_key_is_a_connection_perhaps_with_a_lane_or_the_name_of_a_queue() {
        assert_eq!(address("prod"), place("prod", Lane::Interactive));
        assert_eq!(address("prod.bulk"), place("prod", Lane::Bulk));
        assert_eq!(address("okta.invocations.prod.bulk"), place("prod", Lane::Bulk));
        for key in ["", "prod.vip", "Prod", "okta.invocations", "okta.invocations.prod", "a.b.c", "prod."] {
            assert!(address(key).is_err(), "{key}");
        }
    }

    #[test]
    fn what_is_not_utf_8_does_not_go_back() {
        let garbled = Properties { reply_to: Some(format!("a{SUBSTITUTE}")), ..by_worker() };
        assert_eq!(Parked::new(garbled, WORKER).replayed(WORKER), Err("its reply_to is not UTF-8".into()));
    }

    #[test]
    fn a_body_is_shown_without_what_its_names_call_secret() {
        let body = json!({
            "subtool": "create_user",
            "arguments": {
                "profile": { "login": "a@example.com", "nickName": "not hunter22 at all", "pin": 4711 },
                "credentials": { "password": { "value": "hunter22" }, "recovery_question": { "answer": 4711 } },
            },
            "options": { "reason": "hunter22" },
        });
        let content = Content::read(body.to_string().as_bytes());
        let masked = content.masked.unwrap();
        assert_eq!(masked["arguments"]["credentials"]["password"]["value"], MASK);
        assert_eq!(masked["arguments"]["credentials"]["recovery_question"]["answer"], MASK);
        assert_eq!(masked["arguments"]["profile"]["nickName"], "not *** at all");
        assert_eq!(masked["options"]["reason"], MASK);
        assert_eq!((content.subtool.as_deref(), content.fault), (Some("create_user"), None));
    }

    #[test]
    fn a_body_that_is_no_object_is_not_shown() {
        for body in ["", "not json hunter22", "[\"hunter22\"]", "\"hunter22\"", "{\"password\": \"hunter22\""]
        {
            let content = Content::read(body.as_bytes());
            assert!(content.masked.is_none() && content.subtool.is_none(), "{body}");
            assert!(!content.fault.unwrap().contains("hunter22"), "{body}");
        }
        assert!(Content::read(b"\xff").masked.is_none());
    }
}
