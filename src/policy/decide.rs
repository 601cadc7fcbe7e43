//! The next step after each answer: continue, retry, delay, reconcile, hand back, pause the connection, or give up.
//!
//! [`classify`](super::classify) gives the meaning, [`backoff`](super::backoff) the wait, and [`decide`] the next
//! step. All three are pure: jitter is an argument, and so is every fact about the message and its connection.
//! `docs/retries.md` is the table of all decisions, generated from this file.
//!
//! Invariant: [`Attempt`] counts an attempt as spent once one of its requests has failed, and not before. A copy of a
//! message that is delayed, handed back or left by a stopping worker carries [`Attempt::spent`], so none of these
//! spends an attempt.

use std::time::Duration;

use crate::domain::ids::Lane;
use crate::domain::result::{Effect, ErrorCode};
use crate::tools::Idempotency;

use super::backoff::{BUSY, LAG, LOCAL, RetryRules, WAIT_IN_HAND_MAX};
use super::classify::{FailureKind, LimitKind, Meaning, concurrency_wait};
use super::pause::PauseReason;

/// The longest time for which a message is held in hand while its connection is paused: RabbitMQ takes a delivery back
/// after 30 minutes (`consumer_timeout`).
pub const HELD_MAX: Duration = Duration::from_secs(10 * 60);

/// The delivery that has sent a write whose outcome is unknown, if any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doubt {
    /// No write has an unknown outcome.
    None,
    /// An earlier delivery.
    Before,
    /// This delivery.
    Now,
}

/// The attempts of one invocation, and what is known of the outcome of its writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    /// Attempts that earlier deliveries have spent.
    earlier: u32,
    /// Attempts of this delivery that failed while Okta answered other requests.
    failed: u32,
    /// Attempts of this delivery that may have failed because the connection fails: a pause resets their number.
    suspected: u32,
    /// True if the latest attempt has not failed.
    is_open: bool,
    /// True if the next request begins another attempt, even if it only reads the outcome of an earlier one.
    begins_another: bool,
    doubt: Doubt,
    /// The state before the request in flight.
    before: BeforeRequest,
    /// True if Okta has answered, or may have executed, a request: the worker then finishes the invocation, even past
    /// its deadline.
    has_reached: bool,
    /// True if this delivery has sent a write that Okta has answered or whose outcome is unknown.
    has_written: bool,
    /// True if Okta has accepted a write of this delivery.
    has_changed: bool,
    /// Refusals of the whole connection in a row.
    refused: u32,
    /// Concurrency 429s in a row.
    throttled: u32,
    /// Lookups of a just created object that Okta did not find.
    lags: u32,
    /// Failures of this machine in a row.
    local: u32,
    /// Okta's good answers on the connection when the first suspected failure came.
    good_answers_before: Option<u64>,
}

/// The part of an [`Attempt`] that an unsent request leaves as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct BeforeRequest {
    doubt: Doubt,
    is_open: bool,
    begins_another: bool,
}

impl Attempt {
    /// Creates the state of a delivery before its first request.
    pub fn new(earlier: u32, may_have_written: bool) -> Self {
        let doubt = if may_have_written { Doubt::Before } else { Doubt::None };
        Self {
            earlier,
            failed: 0,
            suspected: 0,
            is_open: false,
            begins_another: false,
            doubt,
            before: BeforeRequest { doubt, is_open: false, begins_another: false },
            has_reached: false,
            has_written: false,
            has_changed: false,
            refused: 0,
            throttled: 0,
            lags: 0,
            local: 0,
            good_answers_before: None,
        }
    }

    /// Returns the attempts of all deliveries, the open one included.
    pub fn total(&self) -> u32 {
        self.earlier.saturating_add(self.of_this_delivery())
    }

    /// Returns the attempts of this delivery, the open one included.
    pub fn of_this_delivery(&self) -> u32 {
        self.failed + self.suspected + u32::from(self.is_open)
    }

    /// Returns the number of failed attempts, in all deliveries, which a copy of the message carries.
    pub fn spent(&self) -> u32 {
        self.earlier.saturating_add(self.failed + self.suspected)
    }

    /// Returns the delivery that has sent a write whose outcome is unknown, if any.
    pub fn doubt(&self) -> Doubt {
        self.doubt
    }

    /// Returns true if Okta has answered, or may have executed, a request of this delivery.
    pub fn has_reached(&self) -> bool {
        self.has_reached
    }

    /// Returns true if this delivery has only read, so that another one may start from the beginning.
    pub fn has_written_nothing(&self) -> bool {
        self.doubt != Doubt::Now && !self.has_written
    }

    /// Returns the number of the current retry after this kind of failure, for the event.
    pub fn retry_of(&self, kind: FailureKind) -> u32 {
        match kind {
            FailureKind::Lag => self.lags,
            FailureKind::Local => self.local,
            FailureKind::NotSent
            | FailureKind::NoAnswer
            | FailureKind::ServerError
            | FailureKind::Gateway
            | FailureKind::NotOkta
            | FailureKind::Unavailable
            | FailureKind::ReadOnly
            | FailureKind::Busy
            | FailureKind::TooLarge => self.total(),
        }
    }

    /// Notes that a request is sent. A read that reconciles an earlier write belongs to the attempt of that write.
    pub fn sent(&mut self, is_read: bool) {
        let is_reconciling = is_read
            && match self.doubt {
                Doubt::None => false,
                Doubt::Before => self.earlier > 0,
                Doubt::Now => true,
            };
        let Self { doubt, is_open, begins_another, .. } = *self;
        self.before = BeforeRequest { doubt, is_open, begins_another };
        let begins_another = std::mem::take(&mut self.begins_another);
        self.is_open |= begins_another || !is_reconciling;
        if !is_read {
            self.doubt = Doubt::Now; // until the answer shows the outcome
        }
    }

    /// Notes the meaning of the answer. `good_answers` counts Okta's good answers on the connection so far.
    pub fn answered(&mut self, meaning: Meaning, is_read: bool, good_answers: u64) {
        let may_have_happened = match meaning {
            Meaning::Failed(kind) => kind.may_have_happened(),
            Meaning::Answered | Meaning::Refused(_) | Meaning::Limited(_) => false,
        };
        self.has_reached |= may_have_happened;
        self.doubt = if may_have_happened && !is_read { Doubt::Now } else { self.before.doubt };
        self.has_written |= may_have_happened && !is_read;
        match meaning {
            Meaning::Refused(_) => {
                self.throttled = 0;
                self.refused += 1;
            }
            Meaning::Answered | Meaning::Limited(LimitKind::Window) => self.throttled = 0,
            Meaning::Limited(LimitKind::Concurrency) => self.throttled += 1,
            Meaning::Failed(FailureKind::Lag) => self.lags += 1,
            Meaning::Failed(FailureKind::Local) => {
                self.local += 1;
                self.is_open = self.before.is_open;
                self.begins_another = self.before.begins_another;
            }
            Meaning::Failed(FailureKind::ReadOnly) => {}
            Meaning::Failed(kind) => self.failed(kind, good_answers),
        }
    }

    fn failed(&mut self, kind: FailureKind, good_answers: u64) {
        let counted = u32::from(std::mem::take(&mut self.is_open));
        self.begins_another = true;
        if kind.may_affect_connection() {
            self.suspected += counted;
            self.good_answers_before.get_or_insert(good_answers);
        } else {
            self.failed += counted;
        }
    }

    /// Notes that the subtool gets Okta's answer: the connection works, so earlier failures count for this invocation.
    pub fn delivered(&mut self, is_read: bool, is_success: bool) {
        self.has_reached = true;
        self.local = 0;
        self.refused = 0;
        self.good_answers_before = None;
        self.failed += std::mem::take(&mut self.suspected);
        self.has_written |= !is_read;
        if !is_read && is_success {
            self.has_changed = true;
            self.doubt = Doubt::None; // also about an earlier write whose answer was lost
        }
    }

    /// Notes that the subtool reconciles the outcome of a write, within the attempt that sent it.
    pub fn reconciles(&mut self) {
        self.begins_another = false;
    }

    /// Notes that the subtool writes again after reconciliation. `is_same`: it repeats the write whose outcome was
    /// unknown, because that write was not executed.
    pub fn writes_again(&mut self, is_same: bool) {
        self.failed += u32::from(std::mem::take(&mut self.is_open));
        if is_same {
            self.doubt = Doubt::None;
        }
    }

    /// Notes that a pause stops a bulk message: failures that the pause may explain do not count as attempts.
    pub fn paused(&mut self) {
        self.suspected = 0;
        self.good_answers_before = None;
    }

    /// Returns the code and effect of an invocation that ends with a failure of this code.
    pub fn code_and_effect(&self, code: ErrorCode, idempotency: Idempotency) -> (ErrorCode, Effect) {
        let must_not_repeat = self.doubt == Doubt::Now && !idempotency.is_safe();
        let code = match code {
            // Okta has executed, or may have executed, a write; only the reads that would show its outcome have failed.
            ErrorCode::OktaUnavailable if self.has_changed || must_not_repeat => ErrorCode::OutcomeUnknown,
            code => code,
        };
        let is_unknown = self.has_changed || self.doubt != Doubt::None || code == ErrorCode::OutcomeUnknown;
        (code, if is_unknown { Effect::Unknown } else { Effect::None })
    }

    /// Returns the same for a failure that the subtool itself reports, after it has reconciled every earlier write.
    pub fn code_and_effect_of_subtool(&self, code: ErrorCode) -> (ErrorCode, Effect) {
        let code = match code {
            // The subtool could not read the outcome.
            ErrorCode::OktaUnavailable if self.has_changed || self.doubt == Doubt::Now => {
                ErrorCode::OutcomeUnknown
            }
            code => code,
        };
        // Another object with the same key proves that this write was not executed.
        let is_in_doubt = self.doubt == Doubt::Now && code != ErrorCode::AlreadyExists;
        let is_unknown = self.has_changed || is_in_doubt || code == ErrorCode::OutcomeUnknown;
        (code, if is_unknown { Effect::Unknown } else { Effect::None })
    }
}

/// Facts about a message, its request and its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Situation {
    /// The idempotency class of the subtool with these arguments.
    pub idempotency: Idempotency,
    /// The lane.
    pub lane: Lane,
    /// True if the worker can publish a copy of the message.
    pub may_leave: bool,
    /// True if the request only reads.
    pub is_read: bool,
    /// True if the request now asks for a smaller page than the one that has failed.
    pub is_smaller: bool,
    /// Okta's own `Retry-After`.
    pub asked: Option<Duration>,
    /// Time until the deadline.
    pub left: Option<Duration>,
    /// Okta's good answers on the connection so far.
    pub good_answers: u64,
    /// Limits of retrying.
    pub retry: RetryRules,
}

/// The next step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The subtool gets the answer.
    Continue,
    /// The worker sends the same request again after this time, with the message in hand.
    RetryIn(Duration),
    /// A copy of the message comes back from a delay queue after this time.
    DelayFor(Duration),
    /// After this time the subtool learns that the outcome is unknown, and reconciles before it writes again.
    ReconcileIn(Duration),
    /// A copy of the message goes to the end of its queue.
    HandBack,
    /// The connection is paused, and with it every message that needs it.
    Pause(PauseReason),
    /// The attempts are used up, and no invocation on the connection has had a good answer meanwhile: one probe decides
    /// between a pause and giving up.
    Probe,
    /// The invocation fails.
    GiveUp(Failed),
}

/// The next step when every attempt is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exhausted {
    /// See [`Step::Probe`].
    Probe,
    /// See [`Step::GiveUp`].
    GiveUp(Failed),
}

/// The next step of a message whose connection is paused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhilePaused {
    /// See [`Step::HandBack`].
    HandBack,
    /// The message stays in hand until the pause ends, for at most this time.
    HoldFor(Duration),
    /// See [`Step::GiveUp`].
    GiveUp(Failed),
}

/// The end of an invocation that has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failed {
    /// The error code.
    pub code: ErrorCode,
    /// The effect.
    pub effect: Effect,
    /// True if the same failure is to be expected again, although its code says that a retry may help.
    pub is_final: bool,
    /// Time until a retry makes sense, if Okta has announced it.
    pub retry_in: Option<Duration>,
}

/// Decides on the next step after an answer. `jitter` is between 0 and 1.
pub fn decide(attempt: &Attempt, meaning: Meaning, situation: &Situation, jitter: f64) -> Step {
    match meaning {
        Meaning::Answered => Step::Continue,
        // A connection has one pause at a time. If that pause does not stop this invocation, the invocation fails by
        // itself.
        Meaning::Refused(reason) if attempt.refused > situation.retry.attempts_max => {
            let (code, effect) = attempt.code_and_effect(reason.code(), situation.idempotency);
            Step::GiveUp(Failed { code, effect, is_final: false, retry_in: None })
        }
        Meaning::Refused(reason) => Step::Pause(reason),
        // The budget has observed the 429, and admits no request before the window's end.
        Meaning::Limited(LimitKind::Window) => Step::RetryIn(Duration::ZERO),
        Meaning::Limited(LimitKind::Concurrency) => {
            Step::RetryIn(concurrency_wait(attempt.throttled, jitter))
        }
        Meaning::Failed(kind) => after_failure(attempt, kind, situation, jitter),
    }
}

fn after_failure(attempt: &Attempt, kind: FailureKind, situation: &Situation, jitter: f64) -> Step {
    let is_uncertain = kind.may_have_happened() && !situation.is_read;
    match kind {
        FailureKind::ReadOnly => Step::Pause(PauseReason::ReadOnly),
        FailureKind::Lag if attempt.lags > LAG.attempts_max => Step::Continue,
        FailureKind::Lag => Step::RetryIn(LAG.wait(attempt.lags, 1.0)),
        FailureKind::Local => after_local_failure(attempt, situation, jitter),
        _ if is_uncertain && !situation.idempotency.is_safe() => {
            Step::ReconcileIn(wait_after(attempt, kind, situation, jitter).min(WAIT_IN_HAND_MAX))
        }
        // The next answer would be as large.
        FailureKind::TooLarge if !situation.is_smaller => {
            Step::GiveUp(Failed { is_final: true, ..failed(attempt, situation) })
        }
        FailureKind::NotSent
        | FailureKind::NoAnswer
        | FailureKind::ServerError
        | FailureKind::Gateway
        | FailureKind::NotOkta
        | FailureKind::Unavailable
        | FailureKind::Busy
        | FailureKind::TooLarge => after_attempt(attempt, kind, situation, jitter),
    }
}

/// Decides after a failed attempt: the next attempt, now or later, if one is left.
fn after_attempt(attempt: &Attempt, kind: FailureKind, situation: &Situation, jitter: f64) -> Step {
    if attempt.total() >= situation.retry.attempts_max {
        return match exhausted(attempt, situation) {
            Exhausted::Probe => Step::Probe,
            Exhausted::GiveUp(failed) => Step::GiveUp(failed),
        };
    }
    let wait = wait_after(attempt, kind, situation, jitter);
    if wait > WAIT_IN_HAND_MAX && attempt.has_written_nothing() {
        if situation.left.is_some_and(|left| wait > left) {
            return Step::GiveUp(Failed { retry_in: Some(wait), ..failed(attempt, situation) });
        }
        if situation.may_leave {
            return Step::DelayFor(wait);
        }
    }
    Step::RetryIn(wait.min(WAIT_IN_HAND_MAX))
}

/// Decides after a failure of this machine: the request was not sent, so no attempt is spent.
fn after_local_failure(attempt: &Attempt, situation: &Situation, jitter: f64) -> Step {
    if !attempt.local.is_multiple_of(LOCAL.attempts_max) {
        return Step::RetryIn(LOCAL.wait(attempt.local, 0.5 + jitter / 2.0).min(WAIT_IN_HAND_MAX));
    }
    match situation.lane {
        Lane::Bulk if situation.may_leave && attempt.has_written_nothing() => Step::HandBack,
        Lane::Bulk | Lane::Interactive => Step::GiveUp(failed(attempt, situation)),
    }
}

/// Decides before a write that follows one whose outcome was unknown, and so begins another attempt; `None` if one is
/// left.
pub fn decide_before_write(attempt: &Attempt, situation: &Situation) -> Option<Exhausted> {
    (attempt.total() >= situation.retry.attempts_max).then(|| exhausted(attempt, situation))
}

fn exhausted(attempt: &Attempt, situation: &Situation) -> Exhausted {
    match attempt.good_answers_before == Some(situation.good_answers) {
        true => Exhausted::Probe,
        false => Exhausted::GiveUp(failed(attempt, situation)),
    }
}

fn failed(attempt: &Attempt, situation: &Situation) -> Failed {
    let (code, effect) = attempt.code_and_effect(ErrorCode::OktaUnavailable, situation.idempotency);
    Failed { code, effect, is_final: false, retry_in: None }
}

/// The end of holding a message in hand during a pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// It has not been held.
    No,
    /// It was held for [`HELD_MAX`].
    TooLong,
    /// The worker stops.
    Stopping,
}

/// Decides before a request that a pause stops. `may_leave`: the worker can publish a copy of the message.
pub fn decide_while_paused(
    attempt: &Attempt,
    reason: PauseReason,
    (lane, may_leave): (Lane, bool),
    idempotency: Idempotency,
    held: Held,
) -> WhilePaused {
    let (code, effect) = attempt.code_and_effect(reason.code(), idempotency);
    let failed = WhilePaused::GiveUp(Failed { code, effect, is_final: false, retry_in: None });
    match (lane, held) {
        (Lane::Interactive, _) => failed,
        (Lane::Bulk, Held::Stopping) => WhilePaused::HandBack,
        (Lane::Bulk, Held::TooLong) if may_leave => WhilePaused::HandBack,
        (Lane::Bulk, Held::TooLong) => failed, // it cannot be copied, and RabbitMQ waits no longer
        (Lane::Bulk, Held::No) if may_leave && attempt.has_written_nothing() => WhilePaused::HandBack,
        (Lane::Bulk, Held::No) => WhilePaused::HoldFor(HELD_MAX),
    }
}

/// Returns true if a worker that stops hands back the waiting message; false if it finishes the invocation first.
pub fn leaves_when_draining(attempt: &Attempt) -> bool {
    attempt.has_written_nothing()
}

/// Returns the wait after a failed attempt.
fn wait_after(attempt: &Attempt, kind: FailureKind, situation: &Situation, jitter: f64) -> Duration {
    let usual = match kind {
        // Okta needs minutes; an immediate retry would waste an attempt.
        FailureKind::Busy => BUSY.wait(attempt.total(), 0.5 + jitter / 2.0),
        FailureKind::NotSent
        | FailureKind::NoAnswer
        | FailureKind::ServerError
        | FailureKind::Gateway
        | FailureKind::NotOkta
        | FailureKind::Unavailable
        | FailureKind::ReadOnly
        | FailureKind::Lag
        | FailureKind::TooLarge
        | FailureKind::Local => situation.retry.wait(attempt.total(), jitter),
    };
    usual.max(situation.asked.unwrap_or_default())
}
