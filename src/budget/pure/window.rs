//! One bucket's window as announced by the headers: the requests that may still be sent, and the next time for more.
//!
//! Okta's window opens with the first request after an idle time and lasts a fixed time; every answer announces
//! limit, remaining and reset in whole seconds of Okta's own clock. Within a window the known room only shrinks: the
//! lowest announced limit and the highest announced use apply. Invariant: the used requests, plus those in flight, plus
//! those lost since, plus the requests left to others, never exceed that limit.
//!
//! The end of a window has two upper bounds that rely on no clock of ours: it cannot have opened after one
//! of its answers arrived, and Okta's clock has passed its reset by a second.

use std::time::Instant;

use crate::domain::bucket::RateHeaders;

use super::constants::{
    DISTRUST, LATE_FLIP_WAIT, LATE_FLIP_WAIT_MAX, PROBE_AGAIN, SILENT_BLOCK, WHOLE_SECOND,
};
use super::observation::{RateAnswer, floor, whole};
use super::okta_clock::OktaClock;
use super::signal::Signal;

pub use super::observation::{Observation, Observed, QuotaShare, tolerance};

/// The condition for the next admission after a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotUntil {
    /// Not before this moment.
    At(Instant),
    /// Not before the next answer of this bucket.
    NextAnswer,
}

/// New information about the window, from an answer or a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Learned {
    /// Nothing new.
    Nothing,
    /// The current window, with this many requests used.
    Used(u32),
    /// A new window has begun, with this many requests used.
    Turned(u32),
    /// A wider limit than the bucket's own is spent, which the headers of this bucket usually do not show.
    Outer,
}

/// A bucket's window.
#[derive(Debug, Clone)]
pub struct Window {
    share: QuotaShare,
    in_flight: u32,
    /// The moment at which the latest request was sent.
    last_sent_at: Option<Instant>,
    /// Lost requests, which Okta may have counted after its latest known answer.
    lost: u32,
    /// The time of the latest loss. Okta received the request before, so its window ends within a window's length.
    lost_at: Option<Instant>,
    /// The end of a block after a 429, whatever the state of the window.
    blocked_until: Option<Instant>,
    clock: OktaClock,
    /// The time until which the reset header is ignored, because a window has lasted longer than announced.
    distrust_until: Option<Instant>,
    /// True if an answer of our own has ever announced a limit.
    is_announced: bool,
    /// Consecutive windows that were not over when expected.
    late_windows: u32,
    state: WindowState,
}

#[derive(Debug, Clone, Copy)]
enum WindowState {
    /// No answer yet.
    Unknown,
    /// Answers have no headers.
    Silent,
    /// The headers announced a window.
    Open(Open),
}

#[derive(Debug, Clone, Copy)]
struct Open {
    limit: u32,
    /// Requests that Okta has counted, by any client.
    used: u32,
    /// The sending time of the latest request that `used` certainly includes.
    as_of: Instant,
    /// The reset of the headers, which names the window.
    reset: i64,
    /// The arrival of the window's first answer: the window opened before.
    seen_at: Instant,
    /// The moment by which the window has certainly ended.
    ends_by: Instant,
    /// The time since when the window of `reset` is over and nothing is known of the next one.
    over_since: Option<Instant>,
    /// True if only another worker has announced the window.
    is_from_signal: bool,
}

/// The known state of the window at a moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WindowView {
    /// The limit.
    pub limit: u32,
    /// The requests that may still be sent, less those in flight, lost and left to others; negative if these
    /// exceed the limit.
    pub room: i64,
    /// The time at which the known use was current.
    pub as_of: Instant,
    /// The moment by which the window has certainly ended.
    pub ends_by: Instant,
    /// True if an answer of this window has arrived.
    pub is_confirmed: bool,
}

impl Window {
    /// Creates the window of an unknown bucket.
    pub fn new(share: QuotaShare) -> Self {
        Self {
            share,
            in_flight: 0,
            last_sent_at: None,
            lost: 0,
            lost_at: None,
            blocked_until: None,
            clock: OktaClock::default(),
            distrust_until: None,
            is_announced: false,
            late_windows: 0,
            state: WindowState::Unknown,
        }
    }

    /// Admits one request, or returns when to ask again.
    ///
    /// # Errors
    /// If the window does not allow it now.
    pub fn admit(&mut self, now: Instant) -> Result<(), NotUntil> {
        let at = self.not_before(now);
        if now < at {
            return Err(NotUntil::At(at));
        }
        if !self.has_room(now) {
            return Err(NotUntil::NextAnswer);
        }
        self.take(now);
        Ok(())
    }

    /// Returns true if one more request fits, unless the bucket is blocked.
    pub fn has_room(&self, now: Instant) -> bool {
        match self.state {
            WindowState::Unknown => !self.is_probed(now), // one probe at a time finds out the room
            WindowState::Silent => true,
            // Another worker's signal is only a hint until an answer of our own arrives.
            WindowState::Open(_) if !self.is_announced && self.is_probed(now) => false,
            WindowState::Open(_) => self.view(now).is_some_and(|view| view.room >= 1),
        }
    }

    /// Counts one more request in flight.
    pub fn take(&mut self, now: Instant) {
        self.turn(now);
        self.in_flight += 1;
        self.last_sent_at = Some(now);
    }

    /// Returns true while a request is in flight whose answer will bring news. A hanging request brings none, so it
    /// no longer counts after a few seconds, and another one may probe.
    pub fn is_probed(&self, at: Instant) -> bool {
        self.in_flight > 0 && self.last_sent_at.is_some_and(|sent_at| at < sent_at + PROBE_AGAIN)
    }

    /// Ends a window that is certainly over.
    pub fn turn(&mut self, now: Instant) {
        if now >= self.lost_until(now) {
            self.lost = 0;
        }
        if let WindowState::Open(open) = &mut self.state
            && now >= open.ends_by
        {
            // The next request opens the next window. Its end is unknown before its first answer, so
            // this one is assumed to last a whole window.
            open.used = 0;
            open.over_since = open.over_since.or(Some(open.ends_by));
            open.as_of = open.ends_by;
            open.ends_by = now + self.share.length + WHOLE_SECOND;
        }
    }

    /// Returns true if the known window has certainly ended.
    pub fn has_ended(&self, now: Instant) -> bool {
        matches!(self.state, WindowState::Open(open) if now >= open.ends_by)
    }

    /// Returns the state at a moment, unless news arrives before.
    pub fn view(&self, at: Instant) -> Option<WindowView> {
        let WindowState::Open(open) = self.state else { return None };
        let is_over = at >= open.ends_by;
        let lost = if at >= self.lost_until(at) { 0 } else { self.lost };
        let used = if is_over { 0 } else { open.used };
        let floor = floor(open.limit, self.share.capacity_percent);
        let taken = [used, self.in_flight, lost, floor].map(i64::from).iter().sum::<i64>();
        Some(WindowView {
            limit: open.limit,
            room: i64::from(whole(open.limit)) - taken,
            as_of: if is_over { open.ends_by } else { open.as_of },
            ends_by: if is_over { at + self.share.length + WHOLE_SECOND } else { open.ends_by },
            is_confirmed: !is_over && open.over_since.is_none(),
        })
    }

    /// Returns the first moment from `now` on at which the window has room as far as is known, regardless of the
    /// requests in flight. Other clients may still use that room.
    pub fn not_before(&self, now: Instant) -> Instant {
        self.room_from(now, self.lost)
    }

    /// Returns the first moment from `now` on at which the limit itself, as Okta announced it, has room. A request
    /// without an answer may not have been counted, so waiting because of it does not prove that the limit is spent.
    pub fn told_not_before(&self, now: Instant) -> Instant {
        self.room_from(now, 0)
    }

    fn room_from(&self, now: Instant, lost: u32) -> Instant {
        let begin = self.blocked_until.map_or(now, |until| until.max(now));
        let WindowState::Open(open) = self.state else { return begin };
        let lost_until = self.lost_until(now);
        let has_room = |at: &Instant| {
            let used = if *at >= open.ends_by { 0 } else { open.used };
            let lost = if *at >= lost_until { 0 } else { lost };
            self.ours(open.limit).saturating_sub(used).saturating_sub(lost) > 0
        };
        let mut moments = [begin, begin.max(open.ends_by), begin.max(lost_until)];
        moments.sort_unstable();
        // At the last of these moments, no request counts as lost and a whole window is available.
        moments.into_iter().find(has_room).unwrap_or(moments[2])
    }

    /// Returns the moments at which a block, lost requests, the window and a probe end.
    pub fn turning_points(&self, now: Instant) -> [Instant; 4] {
        let ends_by = self.ends_by().unwrap_or(now);
        let probed_until =
            self.last_sent_at.filter(|_| self.in_flight > 0).map_or(now, |sent_at| sent_at + PROBE_AGAIN);
        [self.blocked_until.unwrap_or(now), self.lost_until(now), ends_by, probed_until]
    }

    /// Returns true if a 429 blocks the bucket.
    pub fn is_blocked(&self, at: Instant) -> bool {
        self.blocked_until.is_some_and(|until| at < until)
    }

    /// Returns the moment by which the windows of lost requests have certainly ended.
    fn lost_until(&self, now: Instant) -> Instant {
        self.lost_at.map_or(now, |at| at + self.share.length)
    }

    /// Returns our share of a limit.
    pub fn ours(&self, limit: u32) -> u32 {
        whole(limit).saturating_sub(floor(limit, self.share.capacity_percent))
    }

    /// Takes back an unused admission.
    pub fn withdraw(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// Settles a finished request.
    pub fn settle(&mut self, heard: Observed) -> Learned {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.turn(heard.at);
        match (heard.told, &mut self.state) {
            (Observation::Rate(rate), _) => self.learn(rate, heard),
            (Observation::Spent(Some(rate)), _) => self.refused(RateHeaders { remaining: 0, ..rate }, heard),
            (Observation::Spent(None), state) => {
                if let WindowState::Open(open) = state {
                    open.used = whole(open.limit);
                }
                self.block(heard.at + SILENT_BLOCK);
                Learned::Nothing
            }
            (Observation::Nothing, WindowState::Unknown | WindowState::Silent) => {
                self.state = WindowState::Silent;
                Learned::Nothing
            }
            (Observation::Nothing, WindowState::Open(_)) | (Observation::Lost, _) => {
                self.lost = self.lost.saturating_add(1);
                self.lost_at = self.lost_at.max(Some(heard.at));
                Learned::Nothing
            }
            (Observation::Uncounted | Observation::Crowded, _) => Learned::Nothing,
        }
    }

    /// Records a 429: no request is sent before its window has ended.
    fn refused(&mut self, rate: RateHeaders, heard: Observed) -> Learned {
        let is_wider_limit = match self.state {
            // A late answer of an earlier window.
            WindowState::Open(open)
                if self.is_before(rate.reset, open.reset)
                    && heard.sent < open.seen_at
                    && !open.is_from_signal =>
            {
                return Learned::Nothing;
            }
            WindowState::Open(open) => {
                rate.limit != open.limit && !self.is_same(rate.reset, open.reset) && open.used < open.limit
            }
            WindowState::Unknown | WindowState::Silent => false,
        };
        if is_wider_limit {
            let end = self.end_of(rate, heard);
            self.block(end);
            return Learned::Outer;
        }
        let learned = self.learn(rate, heard);
        let end = self.end_of(rate, heard);
        // The end of the current window may be known more precisely than from these headers.
        let known = self.ends_by().filter(|_| learned != Learned::Nothing);
        let until = known.map_or(end, |known| known.min(end));
        // By its headers, the window has ended already; but a request at once would get the same 429.
        self.block(if until <= heard.at { heard.at + WHOLE_SECOND } else { until });
        learned
    }

    fn learn(&mut self, rate: RateHeaders, heard: Observed) -> Learned {
        let ends_by = self.end_of(rate, heard);
        let RateHeaders { limit, remaining, reset, .. } = rate;
        let used = whole(limit).saturating_sub(remaining);
        let fresh = Open {
            limit,
            used,
            as_of: heard.sent,
            reset,
            seen_at: heard.at,
            ends_by,
            over_since: None,
            is_from_signal: false,
        };
        self.is_announced = true;
        let (open, learned) = match self.state {
            // A late answer of an earlier window.
            WindowState::Open(open)
                if (self.is_before(reset, open.reset) || self.is_over(open, reset))
                    && open.over_since.is_none_or(|since| heard.sent < since)
                    // Sent after a signal announced a later window, which Okta does not confirm.
                    && !(open.is_from_signal && open.seen_at <= heard.sent) =>
            {
                return Learned::Nothing;
            }
            // The window should be over, but is not.
            WindowState::Open(open) if self.is_over(open, reset) => {
                (self.outlasted(open, fresh), Learned::Used(used))
            }
            WindowState::Open(open) if self.is_same(reset, open.reset) => {
                let used = used.max(open.used);
                let known = Open {
                    limit: if open.is_from_signal { limit } else { limit.min(open.limit) },
                    used,
                    as_of: open.as_of.max(heard.sent),
                    ends_by: ends_by.min(open.ends_by), // each reading is an upper bound
                    is_from_signal: false,
                    ..open
                };
                (known, Learned::Used(used))
            }
            WindowState::Open(_) | WindowState::Unknown | WindowState::Silent => {
                self.late_windows = 0;
                (fresh, Learned::Turned(used))
            }
        };
        self.state = WindowState::Open(open);
        if self.lost_at.is_none_or(|lost_at| lost_at <= heard.sent) {
            self.lost = 0; // the answer includes them all
        }
        learned
    }

    /// Handles a window that lasts longer than its reset: the header is wrong, so only the window's length counts.
    fn outlasted(&mut self, open: Open, fresh: Open) -> Open {
        let wait = LATE_FLIP_WAIT * 2_u32.saturating_pow(self.late_windows.min(16));
        self.late_windows += 1;
        self.distrust_until = Some(fresh.seen_at + DISTRUST);
        let ends_by = (open.seen_at + self.share.length).max(fresh.seen_at + wait.min(LATE_FLIP_WAIT_MAX));
        Open { seen_at: open.seen_at, ends_by, reset: open.reset, ..fresh }
    }

    /// Records another worker's signal, as far as it makes this worker more careful or announces a new window while the
    /// current one may be over.
    pub fn hear(&mut self, signal: &Signal, now: Instant) -> Learned {
        self.turn(now);
        let length = self.share.length;
        let announced = Open {
            limit: signal.limit,
            used: whole(signal.limit).saturating_sub(signal.remaining),
            as_of: now.checked_sub(signal.age).unwrap_or(now),
            reset: signal.reset,
            seen_at: now,
            ends_by: now + signal.to_end.min(length + WHOLE_SECOND),
            over_since: None,
            is_from_signal: true,
        };
        let (open, learned) = match self.state {
            WindowState::Unknown | WindowState::Silent => (announced, Learned::Turned(announced.used)),
            WindowState::Open(open)
                if self.is_over(open, announced.reset) || self.is_before(announced.reset, open.reset) =>
            {
                return Learned::Nothing;
            }
            WindowState::Open(open) if self.is_same(announced.reset, open.reset) => {
                let known = Open {
                    limit: announced.limit.min(open.limit),
                    used: announced.used.max(open.used),
                    as_of: open.as_of.max(announced.as_of),
                    ends_by: announced.ends_by.min(open.ends_by),
                    ..open
                };
                (known, Learned::Used(known.used))
            }
            WindowState::Open(open) => {
                let may_be_over = open.over_since.is_some()
                    || self.clock.not_reached_before(open.reset).is_none_or(|at| at <= now);
                if !may_be_over {
                    return Learned::Nothing;
                }
                self.late_windows = 0;
                // A limit higher than the one in our own answers applies once one of them confirms it.
                let limit = announced.limit.min(open.limit);
                (Open { limit, ..announced }, Learned::Turned(announced.used))
            }
        };
        self.state = WindowState::Open(open);
        learned
    }

    /// Returns the moment by which the window of an answer has certainly ended.
    fn end_of(&mut self, rate: RateHeaders, heard: Observed) -> Instant {
        let at_most = heard.at + self.share.length;
        let Some(date) = rate.date.map(jiff::Timestamp::as_second) else { return at_most };
        self.clock.learn(date, heard.sent, heard.at);
        if self.distrust_until.is_some_and(|until| heard.at < until) {
            return at_most;
        }
        self.clock.reached_by(rate.reset + 1).map_or(at_most, |at| at.max(heard.at).min(at_most))
    }

    fn is_same(&self, reset: i64, other: i64) -> bool {
        (reset - other).abs() <= self.tolerance()
    }

    fn is_before(&self, reset: i64, other: i64) -> bool {
        reset < other - self.tolerance()
    }

    /// Returns true if a reset names the window that is assumed to be over.
    fn is_over(&self, open: Open, reset: i64) -> bool {
        open.over_since.is_some() && self.is_same(reset, open.reset)
    }

    /// Returns the largest difference between resets of one window, in seconds.
    fn tolerance(&self) -> i64 {
        tolerance(self.share.length)
    }

    /// Moves requests in flight to another window, which counts them from now on.
    pub fn hand_over(&mut self, requests: u32, to: &mut Self) {
        let requests = requests.min(self.in_flight);
        self.in_flight -= requests;
        to.in_flight += requests;
    }

    /// Forgets the announced window, because it was not of this bucket alone; requests in flight, losses
    /// and blocks stay.
    pub fn begin_anew(&mut self) {
        self.state = WindowState::Unknown;
        (self.late_windows, self.distrust_until) = (0, None);
    }

    /// Records an answer to a request that no longer counts as in flight.
    pub fn recall(&mut self, answer: &RateAnswer) -> Learned {
        let RateAnswer { rate, sent, at } = *answer;
        self.learn(rate, Observed { told: Observation::Rate(rate), sent, at })
    }

    /// Merges another window that turned out to be the same: the lower remaining applies.
    pub fn absorb(&mut self, other: &mut Self) {
        if let Some((_, left)) = other.told()
            && self.told().is_none_or(|(_, ours)| left < ours)
        {
            self.state = other.state;
        }
        let in_flight = other.in_flight;
        other.hand_over(in_flight, self);
        self.lost = self.lost.saturating_add(other.lost);
        self.lost_at = self.lost_at.max(other.lost_at);
        self.blocked_until = self.blocked_until.max(other.blocked_until);
        *other = Self::new(other.share);
    }

    fn block(&mut self, until: Instant) {
        self.blocked_until = self.blocked_until.max(Some(until));
    }

    /// Returns the requests in flight.
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Returns true if answers have no headers.
    pub fn is_silent(&self) -> bool {
        matches!(self.state, WindowState::Silent)
    }

    /// Returns the limit last announced.
    pub fn limit(&self) -> Option<u32> {
        match self.state {
            WindowState::Open(open) => Some(open.limit),
            WindowState::Unknown | WindowState::Silent => None,
        }
    }

    /// Returns the reset of the confirmed window, and the requests left in it.
    pub fn told(&self) -> Option<(i64, u32)> {
        match self.state {
            WindowState::Open(open) if open.over_since.is_none() => {
                Some((open.reset, whole(open.limit).saturating_sub(open.used)))
            }
            WindowState::Open(_) | WindowState::Unknown | WindowState::Silent => None,
        }
    }

    fn ends_by(&self) -> Option<Instant> {
        match self.state {
            WindowState::Open(open) => Some(open.ends_by),
            WindowState::Unknown | WindowState::Silent => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::Timestamp;

    use super::*;

    const SHARE: QuotaShare = QuotaShare { capacity_percent: 100, length: Duration::from_secs(60) };

    fn told(limit: u32, remaining: u32, reset: i64, date: i64, at: Instant) -> Observed {
        let date = Some(Timestamp::from_second(date).unwrap());
        let rate = RateHeaders { limit, remaining, reset, date };
        Observed { told: Observation::Rate(rate), sent: at, at }
    }

    fn spent(heard: Observed) -> Observed {
        let Observation::Rate(rate) = heard.told else { panic!("headers were told") };
        Observed { told: Observation::Spent(Some(rate)), ..heard }
    }

    #[test]
    fn one_probe_goes_before_anything_is_known() {
        let now = Instant::now();
        let mut window = Window::new(SHARE);
        assert_eq!(window.admit(now), Ok(()));
        assert_eq!(window.admit(now), Err(NotUntil::NextAnswer));
        window.settle(told(3, 2, 160, 100, now));
        assert_eq!(window.admit(now), Ok(()));
        assert_eq!(window.admit(now), Ok(()));
        assert_eq!(window.admit(now), Err(NotUntil::NextAnswer));
    }

    #[test]
    fn a_probe_that_hangs_is_followed_by_another() {
        let now = Instant::now();
        let mut window = Window::new(SHARE);
        window.admit(now).unwrap();
        for probe in 1..4 {
            let again = now + probe * PROBE_AGAIN;
            assert_eq!(window.admit(again - Duration::from_nanos(1)), Err(NotUntil::NextAnswer), "{probe}");
            assert_eq!(window.admit(again), Ok(()), "{probe}");
        }
    }

    #[test]
    fn what_others_told_is_asked_again_when_the_first_request_hangs() {
        let now = Instant::now();
        let mut window = Window::new(SHARE);
        let signal = Signal {
            worker: 2,
            ledger: "users".to_owned(),
            reset: 160,
            limit: 600,
            remaining: 300,
            age: Duration::ZERO,
            to_end: SHARE.length,
            in_flight: 0,
            rate: 0.0,
            at_work: true,
        };
        window.hear(&signal, now);
        window.admit(now).unwrap();
        assert_eq!(window.admit(now), Err(NotUntil::NextAnswer));
        assert_eq!(window.admit(now + PROBE_AGAIN), Ok(()));
    }

    #[test]
    fn requests_without_an_answer_are_no_proof_that_the_limit_is_spent() {
        let now = Instant::now();
        let mut window = Window::new(SHARE);
        window.settle(told(3, 1, 160, 100, now));
        window.admit(now).unwrap();
        window.settle(Observed { told: Observation::Lost, sent: now, at: now });
        assert!(window.not_before(now) > now);
        assert_eq!(window.told_not_before(now), now);
        window.settle(told(3, 0, 160, 100, now));
        assert_eq!(window.told_not_before(now), now + SHARE.length);
    }

    #[test]
    fn a_spent_window_refuses_before_its_end_and_admits_at_it() {
        let now = Instant::now();
        let mut window = Window::new(SHARE);
        window.admit(now).unwrap();
        window.settle(told(10, 0, 130, 100, now));
        let until = now + Duration::from_secs(31);
        assert_eq!(window.admit(now), Err(NotUntil::At(until)));
        assert_eq!(window.admit(until - Duration::from_nanos(1)), Err(NotUntil::At(until)));
        assert_eq!(window.admit(until), Ok(()));
    }

    #[test]
    fn the_floor_is_left_to_others_whoever_used_the_rest() {
        let now = Instant::now();
        let mut window = Window::new(QuotaShare { capacity_percent: 90, ..SHARE });
        window.admit(now).unwrap();
        window.settle(told(100, 11, 160, 100, now));
        assert_eq!(window.admit(now), Ok(()));
        window.settle(told(100, 10, 160, 100, now));
        assert!(matches!(window.admit(now), Err(NotUntil::At(_))));
    }

    #[test]
    fn the_lowest_remaining_of_a_window_counts_and_late_answers_do_not() {
        let now = Instant::now();
        let mut window = Window::new(SHARE);
        for _ in 0..2 {
            window.settle(told(100, 1, 160, 100, now));
            window.settle(told(100, 7, 160, 100, now));
            window.settle(told(100, 50, 100, 100, now)); // of the window before
        }
        assert_eq!(window.admit(now), Ok(()));
        assert_eq!(window.admit(now), Err(NotUntil::NextAnswer));
    }

    #[test]
    fn a_lost_answer_counts_as_spent() {
        let now = Instant::now();
        let mut window = Window::new(SHARE);
        window.settle(told(100, 1, 160, 100, now));
        window.admit(now).unwrap();
        window.settle(Observed { told: Observation::Lost, sent: now, at: now });
        assert!(matches!(window.admit(now), Err(NotUntil::At(_))));
    }

    #[test]
    fn a_429_freezes_until_its_reset_and_without_headers_for_a_while() {
        let now = Instant::now();
        let mut window = Window::new(SHARE);
        window.settle(spent(told(100, 40, 110, 100, now)));
        assert_eq!(window.admit(now), Err(NotUntil::At(now + Duration::from_secs(11))));
        let mut silent = Window::new(SHARE);
        silent.settle(Observed { told: Observation::Spent(None), sent: now, at: now });
        assert_eq!(silent.admit(now), Err(NotUntil::At(now + SILENT_BLOCK)));
        assert_eq!(silent.admit(now + SILENT_BLOCK), Ok(()));
    }

    #[test]
    fn a_lowered_limit_replaces_the_old_one_at_once() {
        let now = Instant::now();
        let mut window = Window::new(SHARE);
        window.settle(told(600, 500, 160, 100, now));
        window.settle(told(300, 200, 160, 100, now));
        assert_eq!(window.limit(), Some(300));
    }

    #[test]
    fn a_raised_limit_counts_from_the_next_window_on() {
        let now = Instant::now();
        let mut window = Window::new(SHARE);
        window.settle(told(3, 1, 130, 100, now));
        window.settle(told(9, 6, 130, 100, now)); // all three of the old limit are used
        let next = now + Duration::from_secs(31);
        assert_eq!(window.admit(now), Err(NotUntil::At(next)));
        window.settle(told(9, 8, 190, 130, next));
        assert_eq!(window.limit(), Some(9));
    }

    #[test]
    fn a_reset_behind_the_date_is_one_second() {
        let now = Instant::now();
        let mut window = Window::new(SHARE);
        window.settle(spent(told(100, 0, 90, 100, now)));
        assert_eq!(window.admit(now), Err(NotUntil::At(now + WHOLE_SECOND)));
    }

    #[test]
    fn a_429_of_another_window_blocks_too() {
        let now = Instant::now();
        let mut window = Window::new(SHARE);
        window.settle(told(100, 50, 160, 100, now));
        window.settle(spent(told(100, 0, 130, 100, now)));
        assert_eq!(window.admit(now), Err(NotUntil::At(now + Duration::from_secs(31))));
    }

    #[test]
    fn what_okta_surely_did_not_count_costs_nothing_and_teaches_nothing() {
        let now = Instant::now();
        let mut window = Window::new(SHARE);
        window.admit(now).unwrap();
        window.settle(Observed { told: Observation::Uncounted, sent: now, at: now });
        assert_eq!(window.admit(now), Ok(()));
        assert_eq!(window.admit(now), Err(NotUntil::NextAnswer)); // still only a probe
        window.settle(told(10, 1, 160, 100, now));
        window.admit(now).unwrap();
        window.settle(Observed { told: Observation::Uncounted, sent: now, at: now });
        assert_eq!(window.admit(now), Ok(()));
    }

    #[test]
    fn what_was_lost_counts_until_an_answer_knows_of_it_or_its_window_has_ended() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        let mut window = Window::new(SHARE);
        window.settle(told(3, 2, 130, 100, now));
        window.admit(now).unwrap();
        window.admit(now).unwrap();
        window.settle(Observed { told: Observation::Lost, sent: now, at: now + 29 * second });
        // Sent before the loss: Okta may have answered it first.
        window.settle(Observed { sent: now, ..told(3, 1, 130, 129, now + 29 * second) });
        let end = now + 31 * second;
        assert_eq!(window.admit(now + 29 * second), Err(NotUntil::At(end)));
        let mut knowing = window.clone();
        knowing.settle(Observed { sent: now + 29 * second, ..told(3, 1, 130, 129, now + 29 * second) });
        assert_eq!(knowing.admit(now + 29 * second), Ok(()));
        // Lost so close to the end of its window, it may be the one that opened the next.
        window.admit(end).unwrap();
        window.admit(end).unwrap();
        assert_eq!(window.admit(end), Err(NotUntil::NextAnswer));
        assert_eq!(window.admit(now + 89 * second), Ok(()));
    }

    #[test]
    fn a_late_answer_of_the_window_that_is_over_changes_nothing() {
        let now = Instant::now();
        let mut window = Window::new(SHARE);
        window.settle(told(2, 0, 130, 100, now));
        let next = now + Duration::from_secs(31);
        window.admit(next).unwrap();
        window.settle(Observed { sent: now, ..told(2, 0, 130, 129, next) }); // of the old window
        window.admit(next).unwrap();
        window.admit(next).unwrap();
        assert_eq!(window.admit(next), Err(NotUntil::NextAnswer));
    }

    #[test]
    fn a_share_of_less_than_one_request_is_one() {
        let now = Instant::now();
        for (limit, capacity_percent) in [(1, 90), (50, 1), (10, 5)] {
            let mut window = Window::new(QuotaShare { capacity_percent, ..SHARE });
            window.settle(told(limit, limit, 160, 100, now));
            assert_eq!(window.admit(now), Ok(()), "{limit} {capacity_percent}");
            assert_eq!(window.admit(now), Err(NotUntil::NextAnswer), "{limit} {capacity_percent}");
        }
    }

    #[test]
    fn a_limit_of_nothing_is_asked_again_once_a_window() {
        let now = Instant::now();
        let mut window = Window::new(SHARE);
        window.settle(told(0, 0, 160, 100, now));
        let until = now + SHARE.length;
        assert_eq!(window.admit(now), Err(NotUntil::At(until)));
        assert_eq!(window.admit(until), Ok(()));
    }

    /// Okta's side: a window opens with the first request after the last one ended and lasts 60 s; headers
    /// have whole seconds.
    #[derive(Default)]
    struct Okta {
        limit: u32,
        opened_ms: Option<u64>,
        used: u32,
        refused: u32,
    }

    impl Okta {
        fn ask(&mut self, now_ms: u64) -> (u32, i64) {
            if self.opened_ms.is_none_or(|opened| now_ms >= opened + 60_000) {
                (self.opened_ms, self.used) = (Some(now_ms), 0);
            }
            if self.used == self.limit {
                self.refused += 1;
            } else {
                self.used += 1;
            }
            let reset = self.opened_ms.unwrap_or(now_ms) / 1000 + 60;
            (self.limit - self.used, i64::try_from(reset).unwrap())
        }
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig { cases: 48, ..Default::default() })]
        #[test]
        fn one_worker_alone_is_never_refused_and_never_stalls(
            limit in 1_u32..40,
            skew_ms in 0_u64..1000,
            delays in proptest::collection::vec((1_u64..1500, 1_u64..1500), 1..64),
        ) {
            const STEP_MS: u64 = 25;
            const RUN_MS: u64 = 200_000;
            let begin = Instant::now();
            let mut okta = Okta { limit, ..Okta::default() };
            let mut window = Window::new(SHARE);
            // Requests on their way to Okta, and answers on their way back with their headers.
            let mut going: Vec<(u64, u64)> = Vec::new();
            let mut coming: Vec<(u64, RateHeaders)> = Vec::new();
            let mut delays = delays.into_iter().cycle();
            let mut sent = 0_u32;
            for now_ms in (0..RUN_MS).step_by(usize::try_from(STEP_MS).unwrap()) {
                let now = begin + Duration::from_millis(now_ms);
                let (arrived, on_the_way) = going.into_iter().partition(|(at, _)| *at <= now_ms);
                going = on_the_way;
                for (_, back_ms) in arrived as Vec<(u64, u64)> {
                    let clock_ms = now_ms + skew_ms + 1_000_000;
                    let (remaining, reset) = okta.ask(clock_ms);
                    let date = Some(Timestamp::from_second(i64::try_from(clock_ms / 1000).unwrap()).unwrap());
                    coming.push((now_ms + back_ms, RateHeaders { limit, remaining, reset, date }));
                }
                let (heard, on_the_way) = coming.into_iter().partition(|(at, _)| *at <= now_ms);
                coming = on_the_way;
                for (_, rate) in heard as Vec<(u64, RateHeaders)> {
                    window.settle(Observed { told: Observation::Rate(rate), sent: now, at: now });
                }
                while window.admit(now).is_ok() {
                    let (there_ms, back_ms) = delays.next().unwrap();
                    going.push((now_ms + there_ms, back_ms));
                    sent += 1;
                }
            }
            proptest::prop_assert_eq!(okta.refused, 0);
            // Three windows of 60 s and their ends fit into 200 s.
            proptest::prop_assert!(sent >= 3 * limit, "{} sent of {}", sent, 3 * limit);
        }
    }
}
