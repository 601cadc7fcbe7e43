//! What is known of an invocation besides what its producer wrote, and how copies of ours carry it.
//!
//! A copy is a new message to the broker, so who asked, since when and how often it was tried travels in
//! `okta-` headers. They count only under the worker's own broker user: RabbitMQ has verified it, so
//! nobody else can forge them. Invariant: a docket that went into a copy comes out of it the same, but
//! for the time it was put aside, which it has waited.
//!
//! Clocks of workers may differ by hours. Times in headers are Okta's as soon as the worker knows how far its own
//! clock is from that, and then they say so. Beside them travels what one clock alone has measured: for how long
//! workers have had the invocation in hand or in a delay tier. Whatever the times say, it is not younger than that.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::domain::message::{HeaderValue, Headers, Properties, RESENT};
use crate::domain::result::Effect;
use crate::domain::topology::DELIVERY_LIMIT;
use crate::policy::origin;
use crate::tools::SETTLING;

use super::okta_time::{Moment, by_machine, by_okta};

/// Who asked; empty when the message named nobody.
pub(crate) const CALLER: &str = "okta-caller";

/// That the worker made the id.
pub(crate) const ID_GENERATED: &str = "okta-id-generated";

/// When the invocation was first sent. Times are in milliseconds since 1970.
pub(crate) const FIRST_SENT: &str = "okta-first-sent";

/// Since when another delivery may have run it, where nobody said when it was sent.
const MAYBE_SINCE: &str = "okta-maybe-since";

/// When the producer's `expiration` passes; the copy itself has none, or the broker would drop it with the
/// time of the tier counted anew.
const EXPIRES: &str = "okta-expires";

/// Attempts spent.
pub(crate) const ATTEMPTS: &str = "okta-attempts";

/// Redeliveries, whatever became of those before them.
pub(crate) const REDELIVERIES: &str = "okta-redeliveries";

/// Time spent waiting for the budget, put aside or not, in milliseconds.
const WAITED: &str = "okta-waited-ms";

/// When the copy was put aside.
const ASIDE_SINCE: &str = "okta-aside-since";

/// By which clock the times are: [`OKTAS`], or the number of a worker's.
pub(crate) const OKTA_CLOCK: &str = "okta-clock";

/// What stands there for Okta's clock.
const OKTAS: &str = "okta";

/// For how long workers have had the invocation, at least, in milliseconds.
const AGE: &str = "okta-age-ms";

/// How much was left of the producer's `expiration`, in milliseconds.
const EXPIRES_IN: &str = "okta-expires-in-ms";

/// How old a redelivered message is taken to be that does not say when it was sent: as long as RabbitMQ lets
/// a delivery go unacknowledged.
const UNDATED_AGE: Duration = Duration::from_secs(30 * 60);

/// How far a producer's clock may be ahead of ours.
const CLOCKS_APART: SignedDuration = SignedDuration::from_secs(2);

/// How often the broker has delivered the message before, by its own count.
pub(crate) const DELIVERY_COUNT: &str = "x-delivery-count";

/// Redeliveries from which on a message may be what brings workers down: one cut or one rolling restart
/// makes one of every message in hand, two are seldom chance.
pub(crate) const SUSPECT_FROM: u32 = 2;

/// By how much two clocks that were compared with Okta's may still differ.
const CLOCKS_DIFFER: Duration = Duration::from_secs(2);

/// The history of one invocation.
///
/// `ahead` is by how much Okta's clock is ahead of this machine's, as far as that is known when the question is
/// asked; answers are by this machine's clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Docket {
    /// Who asked: the broker user that RabbitMQ has verified.
    pub caller: Option<String>,
    /// Whether we made the id.
    pub id_generated: bool,
    /// When this delivery was received, by this machine's clock.
    received: Timestamp,
    /// When it was first sent, by the producer's clock.
    stamped: Option<Timestamp>,
    /// What a copy of a worker's says of times.
    copied: Option<Copied>,
    /// When its `expiration` passes that it still has, at the latest: the broker has counted from before the receipt.
    expires: Option<Timestamp>,
    /// Attempts that earlier deliveries have spent.
    pub attempts: u32,
    /// Deliveries, this one included, before which another may have begun without our knowing its end.
    pub redeliveries: u32,
    /// Whether it lay aside since the last of them, long enough for whatever that one has sent.
    pub is_settled: bool,
    /// True if an earlier delivery may have run it, whatever this one does.
    had_run: bool,
    /// Whether the producer sends it again because it is unsure.
    pub is_resent: bool,
    /// Time spent waiting for the budget before this delivery.
    pub waited: Duration,
}

/// What the worker that published a copy says of times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Copied {
    clock: ClockOf,
    first_sent: Option<Timestamp>,
    /// Since when another delivery may have run it, where that is before it was first sent as far as is known.
    maybe_since: Option<Timestamp>,
    /// For how long workers have had it, at least, the delay tier that it comes from included; `None`: the worker
    /// was one of 0.1.0, which did not say.
    age: Option<Duration>,
    expires: Option<Timestamp>,
    /// When the rest of its expiration passes, at the latest, by this machine's clock.
    rest_passes: Option<Timestamp>,
}

/// Whose clock a copy's times are by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ClockOf {
    /// Okta's.
    Okta,
    /// This worker's own.
    Own,
    /// Another worker's, and nobody knows how far that is off.
    Other,
}

impl Copied {
    /// One of its times by this machine's clock. A clock of which nothing is known is taken to be right.
    fn ours(self, at: Timestamp, ahead: Option<SignedDuration>) -> Timestamp {
        match self.clock {
            ClockOf::Own => at,
            ClockOf::Okta | ClockOf::Other => by_machine(at, ahead),
        }
    }
}

impl Docket {
    /// Reads what a message that was received now says. `own_user` is the worker's own broker user.
    pub fn read(properties: &Properties, redelivered: bool, own_user: Option<&str>, now: &Moment) -> Self {
        let received = now.at;
        let is_own = own_user.is_some() && properties.user_id.as_deref() == own_user;
        let own = Own { headers: &properties.headers, is_own };
        let caller = match own.get(CALLER).and_then(HeaderValue::as_text) {
            Some(name) => Some(name.to_owned()).filter(|name| !name.is_empty()),
            None => properties.user_id.clone(),
        };
        let stamped = properties.timestamp.and_then(|seconds| i64::try_from(seconds).ok());
        // Some versions of RabbitMQ write it at the first redelivery only, and until then it is the producer's.
        let by_broker = properties.headers.get(DELIVERY_COUNT).filter(|_| redelivered);
        let of_this_copy = by_broker.and_then(HeaderValue::as_int);
        let of_this_copy = of_this_copy.and_then(|count| u32::try_from(count).ok()).unwrap_or(0);
        let aside = own.aside(now);
        let redeliveries = own.count(REDELIVERIES).saturating_add(of_this_copy.max(redelivered.into()));
        let is_resent = properties.headers.get(RESENT).is_some_and(HeaderValue::is_true);
        Self {
            caller,
            id_generated: properties.message_id.is_none()
                || own.get(ID_GENERATED).is_some_and(HeaderValue::is_true),
            received,
            stamped: stamped.and_then(|seconds| Timestamp::from_second(seconds).ok()),
            copied: is_own.then(|| own.copied(now, aside)),
            expires: expiry(properties, received),
            attempts: own.count(ATTEMPTS),
            redeliveries,
            had_run: redeliveries > 0 || is_resent,
            is_settled: of_this_copy == 0 && !redelivered && aside.surely >= SETTLING,
            is_resent,
            waited: own.millis(WAITED).unwrap_or_default() + aside.likely,
        }
    }

    /// When it was first sent, as far as anybody said.
    fn dated(&self, ahead: Option<SignedDuration>) -> Option<Timestamp> {
        let copied = self.copied.and_then(|copied| Some(copied.ours(copied.first_sent?, ahead)));
        let sent = self.stamped(ahead).or(copied);
        sent.map(|sent| sent.min(self.not_younger()))
    }

    /// When the producer says that it was first sent. One whose clock is fast says nothing that could be relied on.
    fn stamped(&self, ahead: Option<SignedDuration>) -> Option<Timestamp> {
        let stamped = by_machine(self.stamped?, ahead);
        (stamped.duration_since(self.received) <= CLOCKS_APART).then_some(stamped)
    }

    /// The moment at which it was with some worker already.
    fn not_younger(&self) -> Timestamp {
        let age = self.copied.and_then(|copied| copied.age);
        match age {
            Some(age) => self.received.saturating_sub(age).unwrap_or(Timestamp::MIN),
            // A producer's clock may be a little ahead.
            None => self.received.saturating_add(CLOCKS_APART).unwrap_or(Timestamp::MAX),
        }
    }

    /// When a deadline that nobody set begins: the producer's word, else the first receipt. A clock that may be off
    /// by hours does not bring it forward.
    pub fn first_sent(&self, ahead: Option<SignedDuration>) -> Timestamp {
        let is_doubtful = |copied: Copied| match copied.clock {
            ClockOf::Okta => ahead.is_none(),
            ClockOf::Own => false,
            ClockOf::Other => copied.age.is_some(),
        };
        if self.stamped(ahead).is_none() && self.copied.is_some_and(is_doubtful) {
            return self.not_younger();
        }
        self.dated(ahead).unwrap_or(self.received)
    }

    /// Whether a deadline that nobody set hangs on the producer's clock and this machine's being alike.
    pub fn goes_by_the_producers_clock(&self) -> bool {
        self.stamped.is_some()
    }

    /// When its `expiration` passes, at the latest.
    pub fn expires(&self, ahead: Option<SignedDuration>) -> Option<Timestamp> {
        let copied = self.copied.and_then(|copied| match copied.clock {
            ClockOf::Okta if ahead.is_none() => copied.rest_passes.or(copied.expires),
            ClockOf::Other => copied.rest_passes.or(copied.expires),
            ClockOf::Okta | ClockOf::Own => copied.expires.map(|at| copied.ours(at, ahead)),
        });
        copied.into_iter().chain(self.expires).min()
    }

    /// Since when another delivery may have run it, wholly or in part; `None`: this is the first.
    pub fn maybe_since(&self, ahead: Option<SignedDuration>) -> Option<Timestamp> {
        let undated = || match self.had_run {
            true => self.received.saturating_sub(UNDATED_AGE).ok(),
            false => Some(self.received),
        };
        let dated = || self.dated(ahead).or_else(undated);
        self.may_have_run().then(|| self.said_maybe_since(ahead).or_else(dated).unwrap_or(Timestamp::MIN))
    }

    /// Since when another delivery may have run it, as a copy says; `None` where the producer said when it was sent.
    fn said_maybe_since(&self, ahead: Option<SignedDuration>) -> Option<Timestamp> {
        if self.stamped(ahead).is_some() {
            return None;
        }
        let copied = self.copied?;
        Some(copied.ours(copied.maybe_since?, ahead).min(self.not_younger()))
    }

    /// Whether another delivery may have run it, wholly or in part.
    pub fn may_have_run(&self) -> bool {
        self.redeliveries > 0 || self.is_resent
    }

    /// What earlier deliveries may have done, of a message that asks for a change.
    pub fn effect_before(&self) -> Effect {
        if self.may_have_run() { Effect::Unknown } else { Effect::None }
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
    pub fn history(&self, attempts: u32, now: &Moment) -> Headers {
        let first_sent = by_okta(self.dated(now.ahead).unwrap_or(self.received), now.ahead);
        let history = [
            (FIRST_SENT, HeaderValue::Int(first_sent.as_millisecond())),
            (ATTEMPTS, HeaderValue::Int(attempts.into())),
            (REDELIVERIES, HeaderValue::Int(self.redeliveries.into())),
            (OKTA_CLOCK, name(now)),
        ];
        history.map(|(name, value)| (name.to_owned(), value)).into()
    }

    /// The headers of a copy that is published now.
    pub fn headers(&self, moment: &Moment) -> Headers {
        let Moment { at: now, ahead, .. } = *moment;
        let number = |value: u128| HeaderValue::Int(i64::try_from(value).unwrap_or(i64::MAX));
        let time = |at: Timestamp| HeaderValue::Int(by_okta(at, ahead).as_millisecond());
        let since = |at: Timestamp| Duration::try_from(now.duration_since(at)).unwrap_or_default();
        let first_sent = self.dated(ahead).unwrap_or(self.received);
        let had_before = self.copied.and_then(|copied| copied.age).unwrap_or_default();
        let age = had_before + since(self.received);
        let mut headers = vec![
            (CALLER, HeaderValue::Text(self.caller.clone().unwrap_or_default())),
            (FIRST_SENT, time(first_sent)),
            (ATTEMPTS, number(self.attempts.into())),
            (REDELIVERIES, number(self.redeliveries.into())),
            (WAITED, number(self.waited.as_millis())),
            (ASIDE_SINCE, time(now)),
            (AGE, number(age.as_millis())),
            (OKTA_CLOCK, name(moment)),
        ];
        if let Some(at) = self.expires(ahead) {
            let left = Duration::try_from(at.duration_since(now)).unwrap_or_default();
            headers.extend([(EXPIRES, time(at)), (EXPIRES_IN, number(left.as_millis()))]);
        }
        let is_undated = self.had_run && self.dated(ahead).is_none();
        let maybe_since =
            self.maybe_since(ahead).filter(|_| is_undated || self.said_maybe_since(ahead).is_some());
        headers.extend(maybe_since.map(|at| (MAYBE_SINCE, time(at))));
        headers.extend(self.id_generated.then_some((ID_GENERATED, HeaderValue::Bool(true))));
        headers.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

/// The name of the clock that times in headers are by.
fn name(now: &Moment) -> HeaderValue {
    HeaderValue::Text(if now.ahead.is_some() { OKTAS.to_owned() } else { format!("{:016x}", now.clock) })
}

/// The headers of a worker's own in a message, if it is one of theirs.
struct Own<'a> {
    headers: &'a Headers,
    is_own: bool,
}

/// How long a copy lay aside.
#[derive(Debug, Clone, Copy, Default)]
struct Aside {
    /// Without trust in any two clocks being alike.
    surely: Duration,
    /// As far as is known.
    likely: Duration,
}

impl Own<'_> {
    fn get(&self, name: &str) -> Option<&HeaderValue> {
        self.headers.get(name).filter(|_| self.is_own)
    }

    fn number(&self, name: &str) -> Option<i64> {
        self.get(name)?.as_int()
    }

    fn count(&self, name: &str) -> u32 {
        self.number(name).and_then(|count| u32::try_from(count).ok()).unwrap_or(0)
    }

    fn time(&self, name: &str) -> Option<Timestamp> {
        Timestamp::from_millisecond(self.number(name)?).ok()
    }

    fn millis(&self, name: &str) -> Option<Duration> {
        Some(Duration::from_millis(u64::try_from(self.number(name)?).ok()?))
    }

    fn clock(&self, now: &Moment) -> ClockOf {
        match self.get(OKTA_CLOCK).and_then(HeaderValue::as_text) {
            Some(OKTAS) => ClockOf::Okta,
            Some(number) if u64::from_str_radix(number, 16) == Ok(now.clock) => ClockOf::Own,
            Some(_) | None => ClockOf::Other,
        }
    }

    /// A delay tier keeps a message for its own time, by no worker's clock. How long it waited in its lane after
    /// that only two clocks can tell that are alike.
    fn aside(&self, now: &Moment) -> Aside {
        let Moment { at: received, ahead, .. } = *now;
        let tier = self.is_own.then(|| origin::delayed_for(self.headers)).flatten().unwrap_or_default();
        let Some(since) = self.time(ASIDE_SINCE) else { return Aside { surely: tier, likely: tier } };
        let lay = |until: Timestamp| Duration::try_from(until.duration_since(since)).unwrap_or_default();
        match (self.clock(now), ahead) {
            (ClockOf::Okta, Some(_)) => {
                let told = lay(by_okta(received, ahead));
                Aside { surely: told.saturating_sub(CLOCKS_DIFFER).max(tier), likely: told.max(tier) }
            }
            // Somebody may have set the clock meanwhile.
            (ClockOf::Own, _) => Aside { surely: tier, likely: lay(received).max(tier) },
            // A worker of 0.1.0 had nothing else to say.
            (ClockOf::Other, _) if self.get(AGE).is_none() => {
                Aside { surely: tier, likely: lay(received).max(tier) }
            }
            (ClockOf::Okta, None) | (ClockOf::Other, _) => Aside { surely: tier, likely: tier },
        }
    }

    fn copied(&self, now: &Moment, aside: Aside) -> Copied {
        let rest = self.millis(EXPIRES_IN).map(|left| left.saturating_sub(aside.surely));
        Copied {
            clock: self.clock(now),
            first_sent: self.time(FIRST_SENT),
            maybe_since: self.time(MAYBE_SINCE),
            age: self.millis(AGE).map(|age| age.saturating_add(aside.surely)),
            expires: self.time(EXPIRES),
            rest_passes: rest.and_then(|rest| now.at.saturating_add(rest).ok()),
        }
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
    use crate::policy::origin::X_DEATH;

    const WORKER: &str = "worker";
    const HOUR: SignedDuration = SignedDuration::from_hours(1);

    /// This machine's clock is right.
    const RIGHT: Option<SignedDuration> = Some(SignedDuration::ZERO);

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    /// A moment as a worker tells the time of it whose clock has this number.
    fn moment(clock: u64, at: Timestamp, ahead: Option<SignedDuration>) -> Moment {
        Moment { at, clock, ahead }
    }

    fn read(properties: &Properties, redelivered: bool, received: i64) -> Docket {
        Docket::read(properties, redelivered, Some(WORKER), &moment(2, at(received), RIGHT))
    }

    /// What the first worker reads of a message that comes at 1000.
    fn first() -> Docket {
        let properties = Properties {
            user_id: Some("helpdesk".to_owned()),
            expiration: Some("1000000".to_owned()),
            ..Properties::default()
        };
        Docket {
            attempts: 2,
            redeliveries: 1,
            waited: Duration::from_secs(7),
            ..read(&properties, false, 1000)
        }
    }

    /// The properties of a copy with this docket, put aside at 1100 by a worker whose clock is so far behind Okta's.
    fn copy_by(docket: &Docket, user: &str, ahead: Option<SignedDuration>) -> Properties {
        Properties {
            user_id: Some(user.to_owned()),
            headers: docket.headers(&moment(1, by_machine(at(1100), ahead), ahead)),
            ..Properties::default()
        }
    }

    fn copy(docket: &Docket, user: &str) -> Properties {
        copy_by(docket, user, RIGHT)
    }

    /// The same, come from this tier.
    fn out_of(tier: &str, mut properties: Properties) -> Properties {
        let text = |text: &str| HeaderValue::Text(text.to_owned());
        let entry = [("count", HeaderValue::Int(1)), ("queue", text(tier)), ("reason", text("expired"))];
        let entry = entry.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        properties.headers.insert(X_DEATH.to_owned(), HeaderValue::List(vec![HeaderValue::Table(entry)]));
        properties
    }

    #[test]
    fn a_docket_comes_out_of_a_copy_as_it_went_in_and_has_waited_meanwhile() {
        let nameless = Docket { caller: None, id_generated: false, expires: None, ..first() };
        for before in [first(), nameless] {
            let after = read(&copy(&before, WORKER), false, 1160);
            let caller = (&after.caller, after.attempts, after.redeliveries, after.is_settled);
            assert_eq!(caller, (&before.caller, 2, 1, true));
            assert_eq!(after.waited, Duration::from_secs(67));
            assert_eq!(after.first_sent(RIGHT), at(1000));
            assert_eq!(after.maybe_since(RIGHT), Some(at(1000)));
            assert_eq!(after.expires(RIGHT), before.expires(RIGHT));
        }
        // Delivered before, or back at once: what was sent meanwhile may still be on its way.
        assert!(!read(&copy(&first(), WORKER), true, 1160).is_settled);
        assert!(!read(&copy(&first(), WORKER), false, 1101).is_settled);
    }

    #[test]
    fn clocks_an_hour_apart_make_nothing_older_or_younger_than_it_is() {
        let offsets = [None, RIGHT, Some(HOUR), Some(-HOUR)];
        for one in offsets {
            // A worker that does not know Okta's clock may be off as well.
            let offs = if one.is_none() { vec![RIGHT, Some(HOUR), Some(-HOUR)] } else { vec![one] };
            for (off, other) in offs.into_iter().flat_map(|off| offsets.map(|other| (off, other))) {
                let others = if other.is_none() { vec![RIGHT, Some(HOUR), Some(-HOUR)] } else { vec![other] };
                for off_too in others {
                    check_clocks((one, off), (other, off_too));
                }
            }
        }
    }

    /// A message comes to one worker at 1000 and lies aside from 1100 to 1160, and then another gets it. Each knows how
    /// far its clock is off, or not.
    fn check_clocks(
        (knows, off): (Option<SignedDuration>, Option<SignedDuration>),
        (other_knows, other_off): (Option<SignedDuration>, Option<SignedDuration>),
    ) {
        let place = format!("{off:?} known {knows:?}, then {other_off:?} known {other_knows:?}");
        for is_stamped in [true, false] {
            let timestamp = is_stamped.then_some(1000);
            let plain =
                Properties { expiration: Some("1000000".to_owned()), timestamp, ..Properties::default() };
            let before =
                Docket::read(&plain, true, Some(WORKER), &moment(1, by_machine(at(1000), off), knows));
            let copy = Properties {
                user_id: Some(WORKER.to_owned()),
                headers: before.headers(&moment(1, by_machine(at(1100), off), knows)),
                timestamp,
                ..Properties::default()
            };
            let copy = out_of("okta.delay.1m", copy);
            let received = by_machine(at(1160), other_off);
            let after = Docket::read(&copy, false, Some(WORKER), &moment(2, received, other_knows));
            assert!(after.is_settled && after.waited == Duration::from_secs(60), "{place}: {after:?}");
            let default = after.first_sent(other_knows);
            // Nobody's deadline of ten minutes has passed, unless this worker has to ask Okta for the time first.
            let is_late = default <= received.saturating_sub(Duration::from_secs(600)).unwrap();
            let asks_first = other_knows.is_none() && after.goes_by_the_producers_clock();
            assert!(!is_late || asks_first, "{place}, stamped {is_stamped}: {default}");
            assert!(default <= received, "{place}");
            // Once this worker has heard Okta, it looks at what happened since then, and no later.
            let since = by_okta(after.maybe_since(other_off).unwrap(), other_off);
            assert!(since <= at(1000), "{place}, stamped {is_stamped}: since {since}");
            if knows.is_some() || off == RIGHT || is_stamped {
                // Without a timestamp the earlier delivery may have been as long ago as a delivery lasts.
                let begun = if is_stamped { at(1000) } else { at(1000 - 30 * 60) };
                assert_eq!(since, begun, "{place}, stamped {is_stamped}");
            }
            let passes = by_okta(after.expires(other_knows).unwrap(), other_off);
            assert_eq!(passes, at(2000), "{place}, stamped {is_stamped}");
        }
    }

    #[test]
    fn a_worker_trusts_its_own_clock_although_it_has_never_heard_okta() {
        let copy = Properties {
            user_id: Some(WORKER.to_owned()),
            headers: first().headers(&moment(7, at(1100), None)),
            ..Properties::default()
        };
        let copy = out_of("okta.delay.1s", copy);
        let read = |clock| Docket::read(&copy, false, Some(WORKER), &moment(clock, at(1160), None));
        let (own, another) = (read(7), read(8));
        assert_eq!((own.waited, another.waited), (Duration::from_secs(67), Duration::from_secs(8)));
        assert_eq!((own.expires(None), another.expires(None)), (Some(at(2000)), Some(at(2059))));
        assert_eq!((own.first_sent(None), another.first_sent(None)), (at(1000), at(1059)));
        assert_eq!(own.maybe_since(None), another.maybe_since(None));
    }

    #[test]
    fn a_time_that_lies_ahead_is_not_believed_whoever_wrote_it() {
        let mut forward = copy(&first(), WORKER);
        for name in [FIRST_SENT, ASIDE_SINCE] {
            forward.headers.insert(name.to_owned(), HeaderValue::Int(9_000_000));
        }
        let read = read(&out_of("okta.delay.1m", forward), false, 1160);
        assert_eq!(read.maybe_since(RIGHT), Some(at(1000)));
        assert_eq!(read.waited, Duration::from_secs(67));
        // A worker of 0.1.0 does not say how long it has had the message.
        let mut forward = copy(&first(), WORKER);
        forward.headers.retain(|name, _| ![AGE, OKTA_CLOCK, EXPIRES_IN].contains(&name.as_str()));
        forward.headers.insert(FIRST_SENT.to_owned(), HeaderValue::Int(9_000_000));
        let read = self::read(&forward, false, 1160);
        assert_eq!(read.maybe_since(RIGHT), Some(at(1162)));
    }

    #[test]
    fn the_headers_of_anybody_else_count_for_nothing() {
        let forged = copy(&first(), "mallory");
        for own_user in [Some(WORKER), None] {
            let read = Docket::read(&forged, false, own_user, &moment(2, at(1160), RIGHT));
            let expected = Docket {
                caller: Some("mallory".to_owned()),
                id_generated: true,
                received: at(1160),
                stamped: None,
                copied: None,
                expires: None,
                attempts: 0,
                redeliveries: 0,
                is_settled: false,
                had_run: false,
                is_resent: false,
                waited: Duration::ZERO,
            };
            assert_eq!(read, expected);
        }
        let nameless = Properties { user_id: None, ..forged };
        assert_eq!(Docket::read(&nameless, false, None, &moment(2, at(1160), RIGHT)).caller, None);
    }

    #[test]
    fn a_message_of_ours_that_is_no_copy_has_us_for_a_caller() {
        let own = Properties { user_id: Some(WORKER.to_owned()), ..Properties::default() };
        assert_eq!(read(&own, false, 1160).caller.as_deref(), Some(WORKER));
    }

    #[test]
    fn a_redelivery_is_not_forgotten_when_a_copy_is_a_first_delivery_again() {
        let redelivered = read(&copy(&first(), WORKER), true, 1160);
        assert_eq!(redelivered.redeliveries, 2);
        let again = read(&copy(&redelivered, WORKER), false, 1160);
        assert_eq!(again.redeliveries, 2);
    }

    #[test]
    fn the_brokers_count_of_a_copy_comes_on_top_of_those_before() {
        let mut counted = copy(&first(), WORKER);
        counted.headers.insert(DELIVERY_COUNT.to_owned(), HeaderValue::Int(3));
        assert_eq!(read(&counted, true, 1160).redeliveries, 4);
        let fresh = Properties { headers: counted.headers, ..Properties::default() };
        for (count, suspect, given_up) in
            [(0, false, false), (1, false, false), (2, true, false), (10, true, false), (11, true, true)]
        {
            let mut fresh = fresh.clone();
            fresh.headers.insert(DELIVERY_COUNT.to_owned(), HeaderValue::Int(count));
            let docket = read(&fresh, count > 0, 1160);
            assert_eq!((docket.is_suspect(), docket.is_given_up()), (suspect, given_up), "{count}");
        }
    }

    #[test]
    fn a_count_of_deliveries_that_a_producer_wrote_counts_for_nothing() {
        for value in [HeaderValue::Int(50), HeaderValue::Small(50), HeaderValue::Text("50".to_owned())] {
            let headers = [(DELIVERY_COUNT.to_owned(), value)].into();
            let docket = read(&Properties { headers, ..Properties::default() }, false, 1160);
            assert_eq!((docket.redeliveries, docket.may_have_run()), (0, false));
        }
    }

    #[test]
    fn a_producer_whose_clock_is_fast_has_said_nothing_of_when() {
        let sent = |timestamp| {
            let properties = Properties { timestamp: Some(timestamp), ..Properties::default() };
            read(&properties, true, 10_000).maybe_since(RIGHT)
        };
        assert_eq!(sent(9_900), Some(at(9_900)));
        assert_eq!(sent(10_002), Some(at(10_002)), "no two clocks are the same");
        assert_eq!(sent(10_060), Some(at(10_000 - 30 * 60)), "another worker may have begun before that");
        assert_eq!(sent(1_700_000_000_000), Some(at(10_000 - 30 * 60)), "milliseconds");
    }

    #[test]
    fn the_producers_own_time_is_when_it_was_first_sent() {
        let stamped = Properties { timestamp: Some(900), ..copy(&first(), WORKER) };
        assert_eq!(read(&stamped, false, 1160).first_sent(RIGHT), at(900));
    }

    #[test]
    fn an_expiration_counts_from_the_receipt_and_nothing_moves_it_back() {
        let expiring = |expiration: &str, from: Properties| {
            let properties = Properties { expiration: Some(expiration.to_owned()), ..from };
            read(&properties, false, 1160).expires(RIGHT)
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
        assert_eq!(expiring("5000", copy(&first(), WORKER)), Some(at(1165)));
        assert_eq!(expiring("5000000", copy(&first(), WORKER)), Some(at(2000)));
    }

    #[test]
    fn a_copy_of_what_nobody_dated_says_since_when_it_may_have_run() {
        let undated = Properties::default();
        let original = read(&undated, true, 10_000);
        let since = at(10_000 - 30 * 60);
        assert_eq!(original.maybe_since(RIGHT), Some(since));
        let copy = |docket: &Docket, now: i64| Properties {
            user_id: Some(WORKER.to_owned()),
            headers: docket.headers(&moment(2, at(now), RIGHT)),
            ..Properties::default()
        };
        let first = read(&copy(&original, 10_001), false, 10_061);
        let second = read(&copy(&first, 10_062), false, 10_122);
        assert_eq!([&first, &second].map(|docket| docket.maybe_since(RIGHT)), [Some(since); 2]);
        assert_eq!([&first, &second].map(|docket| docket.first_sent(RIGHT)), [at(10_000); 2]);
        // What was delivered once did not run before, and a date is kept as it is.
        let fresh = read(&undated, false, 10_000);
        assert!(!fresh.headers(&moment(2, at(10_001), RIGHT)).contains_key(MAYBE_SINCE));
        let dated = Properties { timestamp: Some(9_000), ..Properties::default() };
        assert!(!read(&dated, true, 10_000).headers(&moment(2, at(10_001), RIGHT)).contains_key(MAYBE_SINCE));
    }

    #[test]
    fn headers_of_ours_that_make_no_sense_are_as_good_as_absent() {
        let mut garbled = copy(&first(), WORKER);
        for value in garbled.headers.values_mut() {
            *value = HeaderValue::Int(-1);
        }
        garbled.headers.insert(ASIDE_SINCE.to_owned(), HeaderValue::Int(i64::MAX));
        garbled.headers.insert(AGE.to_owned(), HeaderValue::Int(i64::MAX));
        let read = read(&garbled, false, 1160);
        assert_eq!((read.attempts, read.waited), (0, Duration::ZERO));
    }
}
