//! The ledger of one bucket: its window as a hard bound, and the pace within it.
//!
//! The ledger spreads bulk work evenly over the rest of the window, so that a window is used up when it ends and
//! interactive requests always find some of it left. It estimates unseen requests of others from the answers, with a
//! margin for chance. All times are monotonic and arguments; nothing waits here.
//! Invariant: `NotUntil::At(t)` refuses before `t` and admits at `t`, unless news arrives first.

use std::time::{Duration, Instant};

use crate::domain::ids::Lane;

use super::constants::{
    CREDIT_SECONDS, FIT, LEAD_SECONDS, OPENERS_PART, OUTER_GROWTH, OUTER_MIN, OUTER_SHRINK, PACE_MIN_PART,
    PACE_MIN_PART_SILENT, SLACK_GOSSIP, SLACK_PER_SILENT_WORKER, SPREAD_SECONDS_MIN, STALE_GAPS,
    STALE_PART_BULK, STALE_PART_INTERACTIVE, STALE_SECONDS, UNCONFIRMED_SECONDS, Z_BULK, Z_INTERACTIVE,
};
use super::observation::RateAnswer;
use super::pace::Flow;
use super::replicas::Replicas;
use super::signal::Signal;
use super::window::{Learned, NotUntil, Observation, Observed, QuotaShare, Window, WindowView};

/// The requests known to wait for a bucket, in all workers together; `None` if unknown.
pub type Backlog = Option<u64>;

/// The state of one bucket of one connection, in one worker.
#[derive(Debug, Clone)]
pub struct Ledger {
    window: Window,
    flow: Flow,
    replicas: Replicas,
    pace: Pace,
    /// The usual age of the state when it is used, in seconds.
    usual_age: f64,
    /// The part of our share that a wider limit leaves.
    outer: f64,
}

/// The pace of bulk work.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// Requests per second; `None` if everything that waits fits, so that nothing is held back.
    rate: Option<f64>,
    /// The requests that may be sent now.
    credit: f64,
    /// The time up to which credit was given.
    at: Option<Instant>,
}

impl Ledger {
    /// Creates the ledger of the worker with this number.
    pub fn new(share: QuotaShare, worker: u32) -> Self {
        Self {
            window: Window::new(share),
            flow: Flow::default(),
            replicas: Replicas::new(worker),
            pace: Pace { rate: Some(0.0), credit: 1.0, at: None },
            usual_age: 0.0,
            outer: 1.0,
        }
    }

    /// Admits one request, or returns when to ask again.
    ///
    /// # Errors
    /// If the budget does not allow it now.
    pub fn admit(&mut self, now: Instant, lane: Lane, backlog: Backlog) -> Result<(), NotUntil> {
        self.turn(now);
        self.plan(now, backlog);
        if !self.permits(now, lane) {
            return Err(self.not_until(now, lane));
        }
        if let Some(view) = self.window.view(now) {
            let age = seconds(view.as_of, now);
            self.usual_age += (age - self.usual_age) / 16.0;
        }
        self.window.take(now);
        self.flow.send(now);
        if lane == Lane::Bulk {
            self.pace.credit = (self.pace.credit - 1.0).max(0.0);
        }
        Ok(())
    }

    /// Settles a finished request.
    pub fn settle(&mut self, heard: Observed) -> Learned {
        self.turn(heard.at);
        let learned = self.window.settle(heard);
        self.note(learned, heard.sent);
        if matches!(heard.told, Observation::Uncounted | Observation::Crowded) {
            self.pace.credit += 1.0; // the request is sent again
        }
        learned
    }

    /// Takes back an unused admission.
    pub fn withdraw(&mut self, lane: Lane) {
        self.window.withdraw();
        self.flow.withdraw();
        if lane == Lane::Bulk {
            self.pace.credit += 1.0;
        }
    }

    /// Records another worker's signal; returns false if it was this worker's own.
    pub fn hear(&mut self, signal: &Signal, now: Instant) -> bool {
        if !self.replicas.hear(signal, now) {
            return false;
        }
        self.turn(now);
        // A replica's answer describes the window as well as our own, but not the part of it that is ours.
        if let Learned::Turned(_) = self.window.hear(signal, now) {
            self.flow.turn();
        }
        true
    }

    /// Sets the number of workers that the broker counted.
    pub fn count(&mut self, workers: u32) {
        self.replicas.count(workers);
    }

    /// Moves requests in flight to another ledger, which counts their routes from now on.
    pub fn hand_over(&mut self, requests: u32, to: &mut Self) {
        self.window.hand_over(requests, &mut to.window);
    }

    /// Forgets the state of a window that other routes were counted in.
    pub fn begin_anew(&mut self) {
        self.window.begin_anew();
        self.flow = Flow::default();
        self.outer = 1.0;
    }

    /// Records an answer that another ledger has settled.
    pub fn begin_with(&mut self, answer: &RateAnswer) {
        let learned = self.window.recall(answer);
        self.note(learned, answer.sent);
    }

    /// Merges another ledger that turned out to be the same bucket.
    pub fn absorb(&mut self, other: &mut Self) {
        self.window.absorb(&mut other.window);
        other.begin_anew();
        self.flow.turn(); // the requests of both must not count as those of others
    }

    /// Returns the signal for the other workers, if a window is known.
    pub fn tell(&self, worker: u32, name: &str, at_work: bool, now: Instant) -> Option<Signal> {
        let (reset, remaining) = self.window.told()?;
        let view = self.window.view(now).filter(|view| view.is_confirmed)?;
        Some(Signal {
            worker,
            ledger: name.to_owned(),
            reset,
            limit: view.limit,
            remaining,
            age: now.saturating_duration_since(view.as_of),
            to_end: view.ends_by.saturating_duration_since(now),
            in_flight: self.window.in_flight(),
            rate: self.flow.own_rate(),
            at_work,
        })
    }

    /// Returns the requests per second that this worker may send to the bucket, as last planned; `None` if unlimited.
    pub fn pace(&self) -> Option<f64> {
        self.pace.rate
    }

    /// Returns the window, to show it or to use its bounds.
    pub fn window(&self) -> &Window {
        &self.window
    }

    fn note(&mut self, learned: Learned, sent: Instant) {
        match learned {
            Learned::Nothing => {}
            Learned::Used(used) => self.flow.learn(sent, used),
            Learned::Turned(used) => {
                self.flow.turn();
                self.flow.learn(sent, used);
            }
            Learned::Outer => self.outer = (self.outer * OUTER_SHRINK).max(OUTER_MIN),
        }
    }

    /// Begins the next window when this one is certainly over; a few workers may open it at once.
    fn turn(&mut self, now: Instant) {
        if !self.window.has_ended(now) {
            return;
        }
        let may_open = self.may_open(now);
        self.window.turn(now);
        self.outer = (self.outer + OUTER_GROWTH).min(1.0);
        if may_open {
            self.pace.credit = self.pace.credit.max(1.0);
        }
    }

    /// Returns true if this worker may open the next window: a window opens with its first request, and each
    /// second before that is lost.
    fn may_open(&self, now: Instant) -> bool {
        let limit = self.window.limit().unwrap_or(1);
        let openers = (limit / OPENERS_PART).max(1);
        let rank =
            if self.replicas.is_told(now) { self.replicas.rank(now) } else { self.replicas.workers() - 1 };
        rank < openers
    }

    /// Adds the credit earned so far, and plans the new pace.
    fn plan(&mut self, now: Instant, backlog: Backlog) {
        self.pace.credit = self.credit_at(now);
        self.pace.at = Some(now);
        let Some(view) = self.window.view(now) else { return };
        let left = (seconds(now, view.ends_by) - LEAD_SECONDS).max(0.0);
        let usable = self.left(&view, now) * self.outer - Z_BULK * self.deviation(self.usual_age, now);
        let external = self.external(now);
        let fits = backlog.is_some_and(|backlog| backlog as f64 <= FIT * (usable - external * left));
        let all = usable.max(0.0) / left.max(SPREAD_SECONDS_MIN);
        let ours = if self.replicas.is_told(now) || self.replicas.workers() == 1 {
            (all - external).max(PACE_MIN_PART * all) / (1.0 + f64::from(self.replicas.busy(now)))
        } else {
            self.share_without_signals(all)
        };
        self.pace.rate = (!fits).then_some(ours);
    }

    /// Returns our part of the pace if the other workers send no signals.
    fn share_without_signals(&self, all: f64) -> f64 {
        let workers = f64::from(self.replicas.workers());
        let (own, others) = (self.flow.own_rate(), self.flow.others_rate());
        let gap = all - own - others;
        let ours = if gap > 0.0 { own + gap / workers } else { own * all / (own + others) };
        ours.max(PACE_MIN_PART_SILENT * all / workers)
    }

    fn credit_at(&self, at: Instant) -> f64 {
        let Pace { rate, credit, at: since } = self.pace;
        let (Some(rate), Some(since)) = (rate, since) else { return credit.max(1.0) };
        let most = (CREDIT_SECONDS * rate).max(1.0).max(credit);
        (credit + rate * seconds(since, at)).min(most)
    }

    /// Estimates the requests per second of clients other than our workers.
    fn external(&self, now: Instant) -> f64 {
        let siblings = if self.replicas.is_told(now) {
            self.replicas.rate(now)
        } else {
            f64::from(self.replicas.workers() - 1) * self.flow.own_rate()
        };
        (self.flow.others_rate() - siblings).max(0.0)
    }

    /// Estimates the requests left for us at a moment, after what others will have taken by then.
    fn left(&self, view: &WindowView, at: Instant) -> f64 {
        let age = seconds(view.as_of, at);
        let taken = if self.replicas.is_told(at) {
            self.external(at) * age + self.replicas.unseen(at)
        } else {
            self.flow.others_rate() * age
        };
        view.room as f64 - taken
    }

    /// Returns the standard deviation of what others took, for a state of this age in seconds.
    fn deviation(&self, age: f64, now: Instant) -> f64 {
        let workers = self.replicas.workers();
        let slack = match workers {
            1 => 0.0,
            _ if self.replicas.is_told(now) => SLACK_GOSSIP,
            _ => f64::from(workers) * SLACK_PER_SILENT_WORKER,
        };
        (self.external(now) * age + slack).sqrt()
    }

    /// Returns true if a request of this lane may be sent at a moment, unless news arrives before.
    fn permits(&self, at: Instant, lane: Lane) -> bool {
        if self.window.is_blocked(at) || !self.window.has_room(at) {
            return false;
        }
        let Some(view) = self.window.view(at) else { return true };
        if self.may_probe(&view, at, lane) {
            return true; // a bucket that was idle for long has used no pace
        }
        let credit = if self.window.has_ended(at) && self.may_open(at) { 1.0 } else { self.credit_at(at) };
        if lane == Lane::Bulk && credit < 1.0 {
            return false;
        }
        if !view.is_confirmed {
            // It is still unknown whether the old window is over: a few requests find out for all. The pace after its
            // end is not planned yet.
            let pace = self.pace.rate.filter(|_| !self.window.has_ended(at)).unwrap_or(0.0);
            let is_one_of_few = f64::from(self.window.in_flight()) < (UNCONFIRMED_SECONDS * pace).max(1.0);
            return is_one_of_few || !self.window.is_probed(at);
        }
        let z = match lane {
            Lane::Bulk => Z_BULK,
            Lane::Interactive => Z_INTERACTIVE,
        };
        let age = seconds(view.as_of, at);
        self.left(&view, at) - z * self.deviation(age, at) >= 1.0
    }

    /// Returns true if the state is so old that one request may probe for what is left.
    fn may_probe(&self, view: &WindowView, at: Instant, lane: Lane) -> bool {
        let part = match lane {
            Lane::Bulk => STALE_PART_BULK,
            Lane::Interactive => STALE_PART_INTERACTIVE,
        };
        view.is_confirmed
            && !self.window.is_probed(at)
            && at >= self.stale_at(view)
            && view.room as f64 >= part * f64::from(view.limit)
    }

    fn stale_at(&self, view: &WindowView) -> Instant {
        view.as_of + Duration::from_secs_f64((STALE_GAPS * self.usual_age).max(STALE_SECONDS))
    }

    /// Returns the first moment at which the request may be sent, among those at which the state changes by itself.
    fn not_until(&self, now: Instant, lane: Lane) -> NotUntil {
        let [blocked, lost, end, probed] = self.window.turning_points(now);
        let credited = self.credited_at(now).unwrap_or(now);
        let stale = self.window.view(now).map_or(now, |view| self.stale_at(&view));
        let mut moments = [blocked, lost, end, credited, stale, credited.max(blocked)];
        moments.sort_unstable();
        let next = moments.into_iter().find(|at| *at > now && self.permits(*at, lane));
        // A probe that is given up is followed by another, planned at that moment.
        let next = next.filter(|at| probed <= now || *at < probed);
        next.map_or(NotUntil::NextAnswer, NotUntil::At)
    }

    /// Returns the moment at which the credit reaches one.
    fn credited_at(&self, now: Instant) -> Option<Instant> {
        let rate = self.pace.rate.filter(|rate| *rate > 0.0)?;
        let wait = Duration::try_from_secs_f64((1.0 - self.credit_at(now)).max(0.0) / rate).ok()?;
        let mut at = now.checked_add(wait)?;
        while self.credit_at(at) < 1.0 {
            at += Duration::from_nanos(1); // the duration was rounded down
        }
        Some(at)
    }
}

fn seconds(from: Instant, to: Instant) -> f64 {
    to.saturating_duration_since(from).as_secs_f64()
}
