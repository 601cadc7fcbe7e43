//! What is known of an invocation besides what its producer wrote, and how copies of ours carry it.
//!
//! A copy is a new message to the broker, so who asked, since when and how often it was tried travels in
//! `okta-` headers. They count only under the worker's own broker user: RabbitMQ has verified it, so
//! nobody else can forge them. Invariant: a docket that went into a copy comes out of it the same, but
//! for the time it was put aside, which it has waited.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::domain::mail::{HeaderValue, Headers, Properties, RESENT};
use crate::domain::topology::DELIVERY_LIMIT;
use crate::tools::SETTLING;

/// Who asked; empty when the message named nobody.
pub(super) const CALLER: &str = "okta-caller";

/// That the worker made the id.
pub(super) const ID_GENERATED: &str = "okta-id-generated";

/// When the invocation was first sent. Times are in milliseconds since 1970.
pub(super) const FIRST_SENT: &str = "okta-first-sent";

/// When the producer's `expiration` passes; the copy itself has none, or the broker would drop it with the
/// time of the tier counted anew.
const EXPIRES: &str = "okta-expires";

/// Attempts spent.
pub(super) const ATTEMPTS: &str = "okta-attempts";

/// Redeliveries, whatever became of those before them.
pub(super) const REDELIVERIES: &str = "okta-redeliveries";

/// Time spent waiting for the budget, put aside or not, in milliseconds.
const WAITED: &str = "okta-waited-ms";

/// When the copy was put aside.
const ASIDE_SINCE: &str = "okta-aside-since";

/// How old a redelivered message is taken to be that does not say when it was sent: as long as RabbitMQ lets
/// a delivery go unacknowledged.
const UNDATED_AGE: Duration = Duration::from_secs(30 * 60);

/// How far a producer's clock may be ahead of ours.
const CLOCKS_APART: SignedDuration = SignedDuration::from_secs(2);

/// How often the broker has delivered the message before, by its own count.
pub(super) const DELIVERY_COUNT: &str = "x-delivery-count";

/// Redeliveries from which on a message may be what brings workers down: one cut or one rolling restart
/// makes one of every message in hand, two are seldom chance.
pub(super) const SUSPECT_FROM: u32 = 2;

/// The history of one invocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Docket {
    /// Who asked: the broker user that RabbitMQ has verified.
    pub caller: Option<String>,
    /// Whether we made the id.
    pub id_generated: bool,
    /// When it was first sent, as far as is known: by the producer's clock, else by the first receipt.
    pub first_sent: Timestamp,
    /// When its `expiration` passes, at the latest: the broker has counted from before the receipt.
    pub expires: Option<Timestamp>,
    /// Attempts that earlier deliveries have spent.
    pub attempts: u32,
    /// Whether anybody said when it was first sent.
    pub is_dated: bool,
    /// Deliveries, this one included, before which another may have begun without our knowing its end.
    pub redeliveries: u32,
    /// Whether it lay aside since the last of them, long enough for whatever that one has sent.
    pub is_settled: bool,
    /// Whether the producer sends it again because it is unsure.
    pub is_resent: bool,
    /// Time spent waiting for the budget before this delivery.
    pub waited: Duration,
}

impl Docket {
    /// Reads what a message that was received now says. `own_user` is the worker's own broker user.
    pub fn read(
        properties: &Properties,
        redelivered: bool,
        own_user: Option<&str>,
        received: Timestamp,
    ) -> Self {
        let is_own = own_user.is_some() && properties.user_id.as_deref() == own_user;
        let own = |name: &str| properties.headers.get(name).filter(|_| is_own);
        let number = |name: &str| own(name)?.as_int();
        let count = |name: &str| number(name).and_then(|count| u32::try_from(count).ok()).unwrap_or(0);
        let time = |name: &str| Timestamp::from_millisecond(number(name)?).ok();
        let millis = |name: &str| Some(Duration::from_millis(u64::try_from(number(name)?).ok()?));
        let caller = match own(CALLER).and_then(HeaderValue::as_text) {
            Some(name) => Some(name.to_owned()).filter(|name| !name.is_empty()),
            None => properties.user_id.clone(),
        };
        let sent = properties.timestamp.and_then(|seconds| {
            let seconds = i64::try_from(seconds).ok()?;
            // A producer whose clock is fast says nothing that could be relied on.
            Timestamp::from_second(seconds).ok().filter(|sent| sent.duration_since(received) <= CLOCKS_APART)
        });
        let of_this_copy = properties.headers.get(DELIVERY_COUNT).and_then(HeaderValue::as_int);
        let of_this_copy = of_this_copy.and_then(|count| u32::try_from(count).ok()).unwrap_or(0);
        let aside =
            time(ASIDE_SINCE).and_then(|since| Duration::try_from(received.duration_since(since)).ok());
        Self {
            caller,
            id_generated: properties.message_id.is_none()
                || own(ID_GENERATED).is_some_and(HeaderValue::is_true),
            first_sent: sent.or_else(|| time(FIRST_SENT)).unwrap_or(received),
            is_dated: sent.or_else(|| time(FIRST_SENT)).is_some(),
            expires: time(EXPIRES).into_iter().chain(expiry(properties, received)).min(),
            attempts: count(ATTEMPTS),
            redeliveries: count(REDELIVERIES).saturating_add(of_this_copy.max(redelivered.into())),
            is_settled: of_this_copy == 0 && !redelivered && aside.is_some_and(|aside| aside >= SETTLING),
            is_resent: properties.headers.get(RESENT).is_some_and(HeaderValue::is_true),
            waited: millis(WAITED).unwrap_or_default() + aside.unwrap_or_default(),
        }
    }

    /// Since when another delivery may have run it, wholly or in part; `None`: this is the first.
    pub fn maybe_since(&self) -> Option<Timestamp> {
        let may_have_run = self.redeliveries > 0 || self.is_resent;
        let first_sent = match self.is_dated {
            true => self.first_sent,
            false => self.first_sent.saturating_sub(UNDATED_AGE).unwrap_or(Timestamp::MIN),
        };
        may_have_run.then_some(first_sent)
    }

    /// Whether copies may stand for it: one of unknown age would look as if it were sent with the copy.
    pub fn may_be_copied(&self) -> bool {
        self.is_dated || self.maybe_since().is_none()
    }

    /// Whether it was delivered so often that it may be what brings workers down.
    pub fn is_suspect(&self) -> bool {
        self.redeliveries >= SUSPECT_FROM
    }

    /// Whether it was delivered so often that it is given up. The broker counts the deliveries of each copy
    /// anew, so one that was copied would never come to the broker's own limit.
    pub fn is_given_up(&self) -> bool {
        i64::from(self.redeliveries) > DELIVERY_LIMIT
    }

    /// The headers that tell whoever looks at a parked message what became of it before.
    pub fn history(&self, attempts: u32) -> Headers {
        let history = [
            (FIRST_SENT, self.first_sent.as_millisecond()),
            (ATTEMPTS, attempts.into()),
            (REDELIVERIES, self.redeliveries.into()),
        ];
        history.map(|(name, value)| (name.to_owned(), HeaderValue::Int(value))).into()
    }

    /// The headers of a copy that is put aside now.
    pub fn headers(&self, now: Timestamp) -> Headers {
        let number = |value: u128| HeaderValue::Int(i64::try_from(value).unwrap_or(i64::MAX));
        let time = |at: Timestamp| HeaderValue::Int(at.as_millisecond());
        let mut headers = vec![
            (CALLER, HeaderValue::Text(self.caller.clone().unwrap_or_default())),
            (FIRST_SENT, time(self.first_sent)),
            (ATTEMPTS, number(self.attempts.into())),
            (REDELIVERIES, number(self.redeliveries.into())),
            (WAITED, number(self.waited.as_millis())),
            (ASIDE_SINCE, time(now)),
        ];
        headers.extend(self.expires.map(|at| (EXPIRES, time(at))));
        headers.extend(self.id_generated.then_some((ID_GENERATED, HeaderValue::Bool(true))));
        headers.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

/// When the `expiration` of a message that was received now passes, at the latest. One of 0 asks to be
/// delivered at once or not at all, and it was delivered.
fn expiry(properties: &Properties, received: Timestamp) -> Option<Timestamp> {
    let millis = properties.expiration.as_ref()?.parse::<u64>().ok().filter(|millis| *millis > 0)?;
    received.saturating_add(Duration::from_millis(millis)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORKER: &str = "worker";

    #[test]
    fn a_producer_whose_clock_is_fast_has_said_nothing_of_when() {
        let sent = |timestamp| {
            let properties = Properties { timestamp: Some(timestamp), ..Properties::default() };
            Docket::read(&properties, true, Some(WORKER), at(10_000)).maybe_since()
        };
        assert_eq!(sent(9_900), Some(at(9_900)));
        assert_eq!(sent(10_002), Some(at(10_002)), "no two clocks are the same");
        assert_eq!(sent(10_060), Some(at(10_000 - 30 * 60)), "another worker may have begun before that");
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn docket() -> Docket {
        Docket {
            caller: Some("helpdesk".to_owned()),
            id_generated: true,
            first_sent: at(1000),
            expires: Some(at(2000)),
            is_dated: true,
            attempts: 2,
            redeliveries: 1,
            is_settled: false,
            is_resent: false,
            waited: Duration::from_secs(7),
        }
    }

    /// The properties of a copy with this docket, put aside at 1100.
    fn copy(docket: &Docket, user: &str) -> Properties {
        Properties {
            message_id: Some("m".to_owned()),
            user_id: Some(user.to_owned()),
            headers: docket.headers(at(1100)),
            ..Properties::default()
        }
    }

    #[test]
    fn a_docket_comes_out_of_a_copy_as_it_went_in_and_has_waited_meanwhile() {
        let nameless = Docket { caller: None, id_generated: false, expires: None, ..docket() };
        for before in [docket(), nameless] {
            let after = Docket::read(&copy(&before, WORKER), false, Some(WORKER), at(1160));
            assert_eq!(after, Docket { waited: Duration::from_secs(67), is_settled: true, ..before });
        }
        // Delivered before, or back at once: what was sent meanwhile may still be on its way.
        assert!(!Docket::read(&copy(&docket(), WORKER), true, Some(WORKER), at(1160)).is_settled);
        assert!(!Docket::read(&copy(&docket(), WORKER), false, Some(WORKER), at(1101)).is_settled);
    }

    #[test]
    fn the_headers_of_anybody_else_count_for_nothing() {
        let forged = copy(&docket(), "mallory");
        for own_user in [Some(WORKER), None] {
            let read = Docket::read(&forged, false, own_user, at(1160));
            let expected = Docket {
                caller: Some("mallory".to_owned()),
                id_generated: false,
                first_sent: at(1160),
                is_dated: false,
                expires: None,
                attempts: 0,
                redeliveries: 0,
                is_settled: false,
                is_resent: false,
                waited: Duration::ZERO,
            };
            assert_eq!(read, expected);
        }
        let nameless = Properties { user_id: None, ..forged };
        assert_eq!(Docket::read(&nameless, false, None, at(1160)).caller, None);
    }

    #[test]
    fn a_message_of_ours_that_is_no_copy_has_us_for_a_caller() {
        let own = Properties { user_id: Some(WORKER.to_owned()), ..Properties::default() };
        assert_eq!(Docket::read(&own, false, Some(WORKER), at(1160)).caller.as_deref(), Some(WORKER));
    }

    #[test]
    fn a_redelivery_is_not_forgotten_when_a_copy_is_a_first_delivery_again() {
        let redelivered = Docket::read(&copy(&docket(), WORKER), true, Some(WORKER), at(1160));
        assert_eq!(redelivered.redeliveries, 2);
        let again = Docket::read(&copy(&redelivered, WORKER), false, Some(WORKER), at(1160));
        assert_eq!(again.redeliveries, 2);
    }

    #[test]
    fn the_brokers_count_of_a_copy_comes_on_top_of_those_before() {
        let mut counted = copy(&docket(), WORKER);
        counted.headers.insert(DELIVERY_COUNT.to_owned(), HeaderValue::Int(3));
        assert_eq!(Docket::read(&counted, true, Some(WORKER), at(1160)).redeliveries, 4);
        let fresh = Properties { headers: counted.headers, ..Properties::default() };
        for (count, suspect, given_up) in
            [(0, false, false), (1, false, false), (2, true, false), (10, true, false), (11, true, true)]
        {
            let mut fresh = fresh.clone();
            fresh.headers.insert(DELIVERY_COUNT.to_owned(), HeaderValue::Int(count));
            let docket = Docket::read(&fresh, count > 0, Some(WORKER), at(1160));
            assert_eq!((docket.is_suspect(), docket.is_given_up()), (suspect, given_up), "{count}");
        }
    }

    #[test]
    fn the_producers_own_time_is_when_it_was_first_sent() {
        let stamped = Properties { timestamp: Some(900), ..copy(&docket(), WORKER) };
        assert_eq!(Docket::read(&stamped, false, Some(WORKER), at(1160)).first_sent, at(900));
    }

    #[test]
    fn an_expiration_counts_from_the_receipt_and_nothing_moves_it_back() {
        let expiring = |expiration: &str, from: Properties| {
            let properties = Properties { expiration: Some(expiration.to_owned()), ..from };
            Docket::read(&properties, false, Some(WORKER), at(1160)).expires
        };
        let rows = [
            ("5000", Some(at(1165))),
            ("0", None),
            ("soon", None),
            ("18446744073709551615", Some(Timestamp::MAX)),
        ];
        for (expiration, expires) in rows {
            assert_eq!(expiring(expiration, Properties::default()), expires, "{expiration}");
        }
        assert_eq!(expiring("5000", copy(&docket(), WORKER)), Some(at(1165)));
        assert_eq!(expiring("5000000", copy(&docket(), WORKER)), Some(at(2000)));
    }

    #[test]
    fn headers_of_ours_that_make_no_sense_are_as_good_as_absent() {
        let mut garbled = copy(&docket(), WORKER);
        for value in garbled.headers.values_mut() {
            *value = HeaderValue::Int(-1);
        }
        garbled.headers.insert(ASIDE_SINCE.to_owned(), HeaderValue::Int(i64::MAX));
        let read = Docket::read(&garbled, false, Some(WORKER), at(1160));
        assert_eq!((read.attempts, read.waited), (0, Duration::ZERO));
    }
}
