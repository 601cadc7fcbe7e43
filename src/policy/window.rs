//! One bucket's window as the headers tell it: how many requests may still go, and when again.
//!
//! Okta's window opens with the first request after quiet and lasts a fixed time; every answer tells
//! limit, remaining and reset in whole seconds of Okta's own clock. Invariant: what was admitted since
//! the lowest `remaining` heard, plus the floor left to others, never exceeds that `remaining`.

use std::time::{Duration, Instant};

use crate::domain::bucket::RateHeaders;

/// How the window of a bucket is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Percent of the announced limit that is ours; we stop while the rest is still left.
    pub capacity_percent: u8,
    /// The length of a window.
    pub length: Duration,
}

/// What Okta told with one answer, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heard {
    /// The headers; `None` when they are missing or malformed.
    pub rate: Option<RateHeaders>,
    /// Whether the answer was a 429 about this window.
    pub is_spent: bool,
    /// When the answer came.
    pub at: Instant,
}

/// Why nothing may be sent now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotUntil {
    /// Not before this moment.
    At(Instant),
    /// Not before the next answer of this bucket is heard.
    NextAnswer,
}

/// A bucket's window.
#[derive(Debug, Clone)]
pub struct Window {
    share: Share,
    in_flight: u32,
    state: State,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// Nothing heard yet.
    Unknown,
    /// Answers come without headers.
    Silent { blocked_until: Option<Instant> },
    /// The headers told.
    Open(Open),
}

#[derive(Debug, Clone, Copy)]
struct Open {
    limit: u32,
    remaining: u32,
    /// The reset of the headers, which names the window.
    reset: i64,
    /// When the window has surely ended.
    ends_by: Instant,
}

/// Between two `Date` headers of one second lies up to a second, and so does the true end of a window
/// behind its `reset` (recorded: a `Date` equal to `reset` with the old window).
const WHOLE_SECOND: Duration = Duration::from_secs(1);

/// How long a bucket is left alone after a 429 that did not say until when.
const SILENT_BLOCK: Duration = Duration::from_secs(5);

impl Window {
    /// A bucket nothing is known of.
    pub fn new(share: Share) -> Self {
        Self { share, in_flight: 0, state: State::Unknown }
    }

    /// Admits one request, or says when to ask again.
    ///
    /// # Errors
    /// When the budget does not allow it now.
    pub fn admit(&mut self, now: Instant) -> Result<(), NotUntil> {
        match &mut self.state {
            // One probe finds out what there is.
            State::Unknown if self.in_flight > 0 => return Err(NotUntil::NextAnswer),
            State::Unknown | State::Silent { blocked_until: None } => {}
            State::Silent { blocked_until: Some(until) } if now < *until => return Err(NotUntil::At(*until)),
            State::Silent { blocked_until } => *blocked_until = None,
            State::Open(open) => {
                if now >= open.ends_by {
                    // Surely over: the next request opens the next window. Its end is not known before
                    // its first answer, so this one is taken as long as a whole window.
                    open.remaining = open.limit;
                    open.reset = i64::MIN;
                    open.ends_by = now + self.share.length + WHOLE_SECOND;
                }
                let usable = open.remaining.saturating_sub(floor(open.limit, self.share.capacity_percent));
                if usable == 0 {
                    return Err(NotUntil::At(open.ends_by));
                }
                if self.in_flight >= usable {
                    return Err(NotUntil::NextAnswer);
                }
            }
        }
        self.in_flight += 1;
        Ok(())
    }

    /// Takes one admission back that was not used.
    pub fn withdraw(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// A request is over; `None` when no answer came, so that it counts as spent.
    pub fn settle(&mut self, heard: Option<Heard>) {
        self.in_flight = self.in_flight.saturating_sub(1);
        let Some(heard) = heard else {
            if let State::Open(open) = &mut self.state {
                open.remaining = open.remaining.saturating_sub(1);
            }
            return;
        };
        match heard.rate {
            Some(rate) => self.learn(rate, heard),
            None if heard.is_spent => self.block(heard.at + SILENT_BLOCK),
            None if matches!(self.state, State::Unknown) => {
                self.state = State::Silent { blocked_until: None }
            }
            None => {}
        }
    }

    fn learn(&mut self, rate: RateHeaders, heard: Heard) {
        let remaining = if heard.is_spent { 0 } else { rate.remaining };
        // Read with Okta's own clock; without one, a whole window is the most it can be.
        let left = rate.date.map_or(self.share.length, |date| {
            Duration::from_secs(u64::try_from(rate.reset - date.as_second()).unwrap_or(0))
        });
        let ends_by = heard.at + left.min(self.share.length) + WHOLE_SECOND;
        self.state = State::Open(match self.state {
            State::Open(open) if rate.reset < open.reset => open, // a late answer of an earlier window
            State::Open(open) if rate.reset == open.reset => Open {
                limit: rate.limit,
                remaining: if rate.limit == open.limit { remaining.min(open.remaining) } else { remaining },
                reset: rate.reset,
                // Each reading is an upper bound; a 429 after the assumed end starts afresh.
                ends_by: if heard.is_spent { ends_by } else { ends_by.min(open.ends_by) },
            },
            _ => Open { limit: rate.limit, remaining, reset: rate.reset, ends_by },
        });
    }

    fn block(&mut self, until: Instant) {
        match &mut self.state {
            State::Open(open) => {
                open.remaining = 0;
                open.ends_by = open.ends_by.max(until);
            }
            State::Unknown | State::Silent { .. } => {
                self.state = State::Silent { blocked_until: Some(until) }
            }
        }
    }

    /// The limit last announced.
    pub fn limit(&self) -> Option<u32> {
        match self.state {
            State::Open(open) => Some(open.limit),
            State::Unknown | State::Silent { .. } => None,
        }
    }
}

/// What is left to the org's other clients.
fn floor(limit: u32, capacity_percent: u8) -> u32 {
    let left = u64::from(limit) * u64::from(100 - capacity_percent.min(100));
    u32::try_from(left.div_ceil(100)).unwrap_or(limit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;

    const SHARE: Share = Share { capacity_percent: 100, length: Duration::from_secs(60) };

    fn told(limit: u32, remaining: u32, reset: i64, date: i64, at: Instant) -> Heard {
        let date = Some(Timestamp::from_second(date).unwrap());
        let rate = RateHeaders { limit, remaining, reset, date };
        Heard { rate: Some(rate), is_spent: false, at }
    }

    #[test]
    fn one_probe_goes_before_anything_is_known() {
        let now = Instant::now();
        let mut window = Window::new(SHARE);
        assert_eq!(window.admit(now), Ok(()));
        assert_eq!(window.admit(now), Err(NotUntil::NextAnswer));
        window.settle(Some(told(3, 2, 160, 100, now)));
        assert_eq!(window.admit(now), Ok(()));
        assert_eq!(window.admit(now), Ok(()));
        assert_eq!(window.admit(now), Err(NotUntil::NextAnswer));
    }

    #[test]
    fn a_spent_window_refuses_before_its_end_and_admits_at_it() {
        let now = Instant::now();
        let mut window = Window::new(SHARE);
        window.admit(now).unwrap();
        window.settle(Some(told(10, 0, 130, 100, now)));
        let until = now + Duration::from_secs(31);
        assert_eq!(window.admit(now), Err(NotUntil::At(until)));
        assert_eq!(window.admit(until - Duration::from_nanos(1)), Err(NotUntil::At(until)));
        assert_eq!(window.admit(until), Ok(()));
    }

    #[test]
    fn the_floor_is_left_to_others_whoever_used_the_rest() {
        let now = Instant::now();
        let mut window = Window::new(Share { capacity_percent: 90, ..SHARE });
        window.admit(now).unwrap();
        window.settle(Some(told(100, 11, 160, 100, now)));
        assert_eq!(window.admit(now), Ok(()));
        window.settle(Some(told(100, 10, 160, 100, now)));
        assert!(matches!(window.admit(now), Err(NotUntil::At(_))));
    }

    #[test]
    fn the_lowest_remaining_of_a_window_counts_and_late_answers_do_not() {
        let now = Instant::now();
        let mut window = Window::new(SHARE);
        for _ in 0..2 {
            window.settle(Some(told(100, 1, 160, 100, now)));
            window.settle(Some(told(100, 7, 160, 100, now)));
            window.settle(Some(told(100, 50, 100, 100, now))); // of the window before
        }
        assert_eq!(window.admit(now), Ok(()));
        assert_eq!(window.admit(now), Err(NotUntil::NextAnswer));
    }

    #[test]
    fn a_lost_answer_counts_as_spent() {
        let now = Instant::now();
        let mut window = Window::new(SHARE);
        window.settle(Some(told(100, 1, 160, 100, now)));
        window.admit(now).unwrap();
        window.settle(None);
        assert!(matches!(window.admit(now), Err(NotUntil::At(_))));
    }

    #[test]
    fn a_429_freezes_until_its_reset_and_without_headers_for_a_while() {
        let now = Instant::now();
        let mut window = Window::new(SHARE);
        window.settle(Some(Heard { is_spent: true, ..told(100, 40, 110, 100, now) }));
        assert_eq!(window.admit(now), Err(NotUntil::At(now + Duration::from_secs(11))));
        let mut silent = Window::new(SHARE);
        silent.settle(Some(Heard { rate: None, is_spent: true, at: now }));
        assert_eq!(silent.admit(now), Err(NotUntil::At(now + SILENT_BLOCK)));
        assert_eq!(silent.admit(now + SILENT_BLOCK), Ok(()));
    }

    #[test]
    fn a_lowered_limit_replaces_the_old_one_at_once() {
        let now = Instant::now();
        let mut window = Window::new(SHARE);
        window.settle(Some(told(600, 500, 160, 100, now)));
        window.settle(Some(told(300, 200, 160, 100, now)));
        assert_eq!(window.limit(), Some(300));
    }

    #[test]
    fn a_reset_behind_the_date_is_one_second() {
        let now = Instant::now();
        let mut window = Window::new(SHARE);
        window.settle(Some(Heard { is_spent: true, ..told(100, 0, 90, 100, now) }));
        assert_eq!(window.admit(now), Err(NotUntil::At(now + WHOLE_SECOND)));
    }

    /// Okta's side: a window opens with the first request after the last one ended and lasts 60 s; headers
    /// tell whole seconds.
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
            // On the way there, and on the way back with what was heard.
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
                    window.settle(Some(Heard { rate: Some(rate), is_spent: false, at: now }));
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
