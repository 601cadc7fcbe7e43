//! The rate at which this worker and others use a bucket, computed from the `remaining` of the answers.
//!
//! Between two answers of one window, `remaining` falls by our requests and by the requests of others: what our own do
//! not explain is theirs. Counts and time fade together, so their quotient is a rate that follows changes. Okta may
//! receive requests in another order than they were sent, so one difference may be too large by as much as the next one
//! is too small: only their sum counts.

use std::collections::VecDeque;
use std::time::Instant;

use super::constants::{FLOW_REQUESTS, FLOW_SECONDS_MAX, FLOW_SECONDS_MIN, FLOW_SPAN_MIN};

/// The latest answer of the current window.
#[derive(Debug, Clone, Copy)]
struct LatestAnswer {
    sent: Instant,
    used: u32,
}

/// The rates of requests per second, ours and others'.
#[derive(Debug, Clone, Default)]
pub struct Flow {
    own: f64,
    others: f64,
    span: f64,
    latest: Option<LatestAnswer>,
    /// The sending times of our requests since then.
    sends: VecDeque<Instant>,
}

impl Flow {
    /// Records a request of ours.
    pub fn send(&mut self, now: Instant) {
        self.sends.push_back(now);
    }

    /// Removes the latest request, which was not sent after all.
    pub fn withdraw(&mut self) {
        self.sends.pop_back();
    }

    /// Records the number of used requests from the answer to a request sent at this time.
    pub fn learn(&mut self, sent: Instant, used: u32) {
        let Some(latest) = self.latest else { return self.begin(sent, used) };
        if sent <= latest.sent || used < latest.used {
            return; // an answer to a later request has arrived before
        }
        let own = f64::from(self.take_sends(sent));
        let span = sent.duration_since(latest.sent).as_secs_f64();
        let others = f64::from(used - latest.used) - own;
        let rate = (self.own + own) / (self.span + span).max(f64::EPSILON);
        let memory = (FLOW_REQUESTS / rate.max(f64::EPSILON)).clamp(FLOW_SECONDS_MIN, FLOW_SECONDS_MAX);
        let kept = (-span / memory).exp();
        self.own = self.own * kept + own;
        self.others = self.others * kept + others;
        self.span = self.span * kept + span;
        self.latest = Some(LatestAnswer { sent, used });
    }

    /// Begins a new window, which cannot be compared with the one before.
    pub fn turn(&mut self) {
        self.latest = None;
    }

    fn begin(&mut self, sent: Instant, used: u32) {
        self.take_sends(sent);
        self.latest = Some(LatestAnswer { sent, used });
    }

    /// Counts and forgets our requests up to this time.
    fn take_sends(&mut self, until: Instant) -> u32 {
        let mut count = 0;
        while self.sends.front().is_some_and(|sent| *sent <= until) {
            self.sends.pop_front();
            count += 1;
        }
        count
    }

    /// Returns our own requests per second.
    pub fn own_rate(&self) -> f64 {
        if self.span > 0.0 { self.own / self.span } else { 0.0 }
    }

    /// Returns the requests per second of all others, including our other workers.
    pub fn others_rate(&self) -> f64 {
        self.others.max(0.0) / self.span.max(FLOW_SPAN_MIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn what_we_did_not_send_was_sent_by_others() {
        let start = Instant::now();
        let mut flow = Flow::default();
        let mut used = 0;
        for second in 0..60 {
            let sent = start + Duration::from_secs(second);
            flow.send(sent);
            used += 3; // ours and two of others
            flow.learn(sent, used);
        }
        assert!((flow.own_rate() - 1.0).abs() < 0.01, "{}", flow.own_rate());
        assert!((flow.others_rate() - 2.0).abs() < 0.01, "{}", flow.others_rate());
    }

    #[test]
    fn requests_that_arrive_in_another_order_are_not_somebody_elses() {
        let start = Instant::now();
        let ms = |ms: u64| start + Duration::from_millis(ms);
        let mut flow = Flow::default();
        for at in [0, 1, 2, 3] {
            flow.send(ms(at));
        }
        flow.learn(ms(0), 1);
        flow.learn(ms(2), 2); // before the one sent before it
        flow.learn(ms(1), 3);
        flow.learn(ms(3), 4);
        assert!(flow.others_rate() < 0.001, "{}", flow.others_rate());
    }

    #[test]
    fn one_request_of_others_in_a_moment_is_no_rate() {
        let start = Instant::now();
        let mut flow = Flow::default();
        flow.learn(start, 1);
        flow.send(start + Duration::from_millis(5));
        flow.learn(start + Duration::from_millis(5), 3);
        assert_eq!(flow.others_rate(), 1.0);
    }

    #[test]
    fn an_answer_that_was_overtaken_says_nothing() {
        let start = Instant::now();
        let mut flow = Flow::default();
        flow.learn(start + Duration::from_secs(2), 10);
        flow.learn(start + Duration::from_secs(1), 9);
        assert_eq!(flow.others_rate(), 0.0);
    }

    #[test]
    fn a_new_window_is_not_compared_with_the_old_one() {
        let start = Instant::now();
        let mut flow = Flow::default();
        flow.learn(start, 500);
        flow.turn();
        flow.learn(start + Duration::from_secs(1), 2);
        flow.learn(start + Duration::from_secs(2), 4);
        assert_eq!(flow.others_rate(), 2.0);
    }
}
