//! The 28 subtools, each a pure value that states its next move.
//!
//! A subtool has no IO, no clock and no retries. It is parsed from arguments, gets Okta's answers so
//! far, and returns the next request or its end. Its body is written as a straight sequence of requests
//! (`okta.ask(request)?`) that is replayed from the start after each answer: an answered question
//! returns at once, the first unanswered one becomes the next move. Paging, read-merge-write,
//! preconditions and reconciliation need no further mechanism.

mod apps;
pub mod catalogue;
mod converge;
mod cost;
mod create_user;
mod cursor;
mod events;
mod group_reads;
mod groups;
pub mod hint;
mod lifecycle;
mod list;
mod list_rules;
mod members;
pub mod output;
mod pager;
mod passwords;
pub mod plan;
pub mod reading;
mod resolve;
mod steps;
pub mod subject;
#[cfg(test)]
mod tests;
mod users;

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};

use crate::domain::bucket::Bucket;
use crate::domain::http::{Exchange, Request, Response};
use crate::domain::json::Fields;
use crate::domain::okta_error::OktaError;
use crate::domain::result::{Effect, ErrorCode, Failure};

pub use cost::Cost;
use output::{Output, Remaining};
pub use pager::Pager;
use plan::{Forecast, Plan};

/// The kind of power that a subtool needs; allow-lists name kinds or subtools.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ToolKind {
    /// Changes nothing.
    Read,
    /// Makes changes that can be undone.
    Write,
    /// Makes changes that cannot be undone.
    Destructive,
    /// Changes a user's credentials.
    Credentials,
}

impl ToolKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Read, Self::Write, Self::Destructive, Self::Credentials];

    /// Returns the name of the kind in allow-lists.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Destructive => "destructive",
            Self::Credentials => "credentials",
        }
    }
}

/// The idempotency class of a request: it decides on a retry if Okta may have executed the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Idempotency {
    /// Changes nothing: retry.
    Read,
    /// Sets a state: retry, Okta answers the same.
    Set,
    /// Creates an object with a natural key: Okta refuses a second one.
    Create,
    /// Moves from one state to the next: read before a retry.
    Transition,
    /// Sends an e-mail or creates a one-time secret each time: never retry blindly.
    NonIdempotent,
}

impl Idempotency {
    /// Returns the name of the class in tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Set => "set",
            Self::Create => "create",
            Self::Transition => "transition",
            Self::NonIdempotent => "emit",
        }
    }

    /// Returns true if a request that may have been executed may be retried without a read.
    pub fn is_safe(self) -> bool {
        match self {
            Self::Read | Self::Set => true,
            Self::Create | Self::Transition | Self::NonIdempotent => false,
        }
    }
}

/// The properties of a subtool that do not depend on its arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Manifest {
    /// The name in messages.
    pub name: &'static str,
    /// The kind of power that it needs.
    pub kind: ToolKind,
    /// The OAuth scope that it needs.
    pub scope: &'static str,
    /// A summary in one or two sentences, for choosing among the 28.
    pub summary: &'static str,
    /// The cases for other subtools, and which ones: a sentence.
    pub not_for: &'static str,
    /// The cost in requests.
    pub cost: Cost,
    /// The content of a successful result, as the end of a sentence.
    pub returns: &'static str,
    /// Examples of arguments, as JSON; the simplest comes first.
    pub examples: &'static [&'static str],
}

impl Manifest {
    /// Returns a description of three to five sentences, for choosing among the 28.
    pub fn description(&self) -> String {
        let Self { summary, not_for, cost, returns, .. } = self;
        format!("{summary} {not_for} Costs {cost}. Returns {returns}.")
    }
}

/// One of the 28 subtools, parsed from its arguments.
pub trait Subtool: DeserializeOwned + JsonSchema + Send + Sync + 'static {
    /// The type of its result.
    type Output: Output;

    /// The properties that do not depend on the arguments.
    const MANIFEST: Manifest;

    /// Optional arguments that may be an empty text; for all others an empty text means absent.
    const MEANINGFUL_WHEN_EMPTY: &'static [&'static str] = &[];

    /// Returns the idempotency class of its write, with these arguments.
    fn repeat(&self) -> Idempotency;

    /// Returns the kind of power that these arguments need in addition to the manifest's.
    fn also_needs(&self) -> Option<ToolKind> {
        None
    }

    /// Returns true if the result holds a one-time secret, so that only the caller may receive it.
    fn mints_secret(&self) -> bool {
        false
    }

    /// Runs the whole subtool, from the first question to Okta to the result.
    fn run(&self, okta: &mut Replay<'_>) -> Run<Self::Output>;

    /// Predicts how its first write would end, as far as reads tell. Called after the reads of
    /// [`Self::run`] have shown no reason not to write. A stop is the failure that Okta would give.
    fn foresee(&self, _okta: &mut Replay<'_>) -> Result<Forecast, Stop> {
        Ok(Forecast::applied())
    }
}

/// The state of a run: completed, or stopped.
pub type Run<T> = Result<Done<T>, Stop>;

/// A successful end.
#[derive(Debug)]
pub struct Done<T> {
    /// The change in Okta.
    pub effect: Effect,
    /// The result.
    pub output: T,
}

impl<T> Done<T> {
    /// Ends a read.
    pub fn read(output: T) -> Self {
        Self { effect: Effect::None, output }
    }

    /// Ends a write that Okta made or accepted.
    pub fn applied(output: T) -> Self {
        Self { effect: Effect::Applied, output }
    }

    /// Ends a write whose state Okta already had.
    pub fn unchanged(output: T) -> Self {
        Self { effect: Effect::Unchanged, output }
    }
}

/// The reason why a run stopped.
#[derive(Debug)]
pub enum Stop {
    /// The question has no answer yet.
    Send(Box<Request>),
    /// Okta refused; the policy layer names the failure.
    Refused(Box<OktaError>),
    /// The subtool itself reports a failure.
    Fail(Box<Failure>),
}

impl Stop {
    /// Stops with a failure with this code.
    pub fn fail(code: ErrorCode, message: impl Into<String>) -> Self {
        Self::Fail(Box::new(Failure::new(code, message)))
    }

    /// Stops at an invalid argument.
    pub fn argument(name: &str, message: impl Into<String>) -> Self {
        let failure =
            Failure::new(ErrorCode::InvalidArguments, message).at(Some(format!("arguments.{name}")));
        Self::Fail(Box::new(failure))
    }

    /// Stops at a status that does not allow the operation, as Okta's refusal or an earlier read showed.
    pub fn precondition(message: impl Into<String>, okta: Option<OktaError>) -> Self {
        let mut failure = Failure::new(ErrorCode::PreconditionFailed, message);
        failure.okta = okta;
        Self::Fail(Box::new(failure))
    }

    /// Stops at a read with a success status whose body is not the expected one.
    pub fn unreadable() -> Self {
        Self::fail(ErrorCode::OktaUnavailable, "failed to read Okta's answer: it is not the JSON expected")
    }
}

/// The next move of a subtool.
#[derive(Debug)]
pub enum Move {
    /// Send this request.
    Send(Box<Request>),
    /// Completed, with the result as JSON, or with one page of a list that continues.
    Done(Done<Box<serde_json::value::RawValue>>, Remaining),
    /// The plan of a dry run.
    Planned(Box<Plan>),
    /// Okta refused.
    Refused(Box<OktaError>),
    /// The subtool itself reports a failure.
    Fail(Box<Failure>),
}

/// The limits of one result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds<'a> {
    /// The fields kept of each object.
    pub fields: &'a Fields,
    /// The largest result message, in bytes.
    pub bytes_max: usize,
    /// The part of the message around the result, in bytes.
    pub frame: usize,
    /// The form of a list's result.
    pub listing: Listing,
    /// True if a list has used up its time and must end with the items that it has.
    pub is_overdue: bool,
}

impl Bounds<'static> {
    /// Returns bounds that keep whole objects, up to this many bytes.
    pub const fn whole(bytes_max: usize) -> Self {
        Self { fields: &Fields::Whole, bytes_max, frame: 0, listing: Listing::Whole, is_overdue: false }
    }
}

/// The form of a list's result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listing {
    /// One result with all items.
    Whole,
    /// One result with the number of items.
    Counted,
    /// A result for each of Okta's pages.
    Paged,
}

/// The wait after an unanswered write before reading its outcome, for writes that send e-mail: the worker that
/// sent it may have died with the request in flight.
pub const SETTLING: Duration = Duration::from_secs(3);

/// The context of an invocation, besides its arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting<'a> {
    /// The limits of its result.
    pub bounds: Bounds<'a>,
    /// The time since when an earlier delivery may have run it, wholly or partly; `None` for the first delivery.
    pub maybe_since: Option<Timestamp>,
    /// True if that was at least [`SETTLING`] ago.
    pub is_settled: bool,
    /// The offset of Okta's clock against ours, as far as Okta's answers told.
    pub okta_ahead: SignedDuration,
    /// True for a dry run: nothing is written.
    pub is_dry_run: bool,
}

impl<'a> Setting<'a> {
    /// Returns the setting of a first delivery.
    pub fn first(bounds: Bounds<'a>) -> Self {
        Self {
            bounds,
            maybe_since: None,
            is_settled: false,
            okta_ahead: SignedDuration::ZERO,
            is_dry_run: false,
        }
    }
}

/// One question and its outcome.
#[derive(Debug, Clone)]
pub enum HistoryEntry {
    /// Okta answered.
    Answered(Exchange),
    /// No answer came, and Okta may have executed the request.
    Unknown {
        /// The request.
        request: Request,
        /// The time of sending, by our clock.
        sent: Timestamp,
    },
}

impl HistoryEntry {
    /// Returns the request.
    pub fn request(&self) -> &Request {
        match self {
            Self::Answered(exchange) => &exchange.request,
            Self::Unknown { request, .. } => request,
        }
    }

    /// Returns Okta's answer, if there is one.
    pub fn response(&self) -> Option<&Response> {
        match self {
            Self::Answered(exchange) => Some(&exchange.response),
            Self::Unknown { .. } => None,
        }
    }
}

/// The questions and answers so far, replayed from the start.
#[derive(Debug)]
pub struct Replay<'a> {
    past: std::slice::Iter<'a, HistoryEntry>,
    setting: Setting<'a>,
    /// The time since when Okta may have executed a write of this invocation, by our clock.
    doubt: Option<Timestamp>,
    /// The buckets that count the answered questions of a dry run.
    asked: Vec<Bucket>,
    /// The list in progress, with all items read so far.
    list: Option<Box<Pager>>,
    history_length: usize,
}

impl<'a> Replay<'a> {
    /// Starts a replay of this history.
    pub fn new(history: &'a [HistoryEntry], setting: Setting<'a>) -> Self {
        Self {
            past: history.iter(),
            setting,
            doubt: setting.maybe_since,
            asked: Vec::new(),
            list: None,
            history_length: history.len(),
        }
    }

    /// Returns the answer to the next question; stops if it has none yet.
    ///
    /// # Panics
    /// If the outcome of a write is unclear: such writes are asked with [`Self::attempt`].
    pub fn ask(&mut self, request: Request) -> Result<OktaReply<'a>, Stop> {
        Ok(self.attempt(request)?.expect("only who attempts a write hears that its outcome is unclear"))
    }

    /// Returns the answer to a write; `None` if the outcome is unclear.
    pub fn attempt(&mut self, request: Request) -> Result<Option<OktaReply<'a>>, Stop> {
        if self.setting.is_dry_run {
            return self.look_up(request).map(Some);
        }
        match self.past.next() {
            Some(HistoryEntry::Answered(exchange)) => Ok(Some(OktaReply(exchange))),
            Some(HistoryEntry::Unknown { sent, .. }) => {
                self.doubt.get_or_insert(*sent);
                self.setting.is_settled = false;
                Ok(None)
            }
            None => Err(Stop::Send(Box::new(request))),
        }
    }

    /// Returns the answer to a question of a dry run: nothing is written, so equal questions have equal answers.
    fn look_up(&mut self, request: Request) -> Result<OktaReply<'a>, Stop> {
        let exchange = self.past.as_slice().iter().find_map(|turn| match turn {
            HistoryEntry::Answered(exchange) => (exchange.request == request).then_some(exchange),
            HistoryEntry::Unknown { .. } => None,
        });
        let exchange = exchange.ok_or_else(|| Stop::Send(Box::new(request)))?;
        self.asked.push(exchange.request.bucket());
        Ok(OktaReply(exchange))
    }

    /// Returns the time since when Okta may have executed a write of this invocation, by Okta's clock less the
    /// possible clock difference; `None` if it surely executed none.
    pub fn doubt(&self) -> Option<Timestamp> {
        let since = self.doubt?.saturating_add(self.setting.okta_ahead).ok()?;
        since.saturating_sub(CLOCKS_DIFFER).ok()
    }

    /// Returns the wait before reading the outcome of a write.
    pub fn settling(&self) -> Duration {
        if self.setting.is_settled { Duration::ZERO } else { SETTLING }
    }

    /// Returns true if the next question has no answer yet.
    pub fn is_caught_up(&self) -> bool {
        self.past.as_slice().is_empty()
    }

    /// Returns the number of questions answered so far.
    fn asked_so_far(&self) -> usize {
        self.history_length - self.past.len()
    }

    /// Returns the limits of the result.
    pub fn bounds(&self) -> Bounds<'a> {
        self.setting.bounds
    }
}

/// The remaining difference of two compared clocks: Okta's `Date` has whole seconds, and its answer takes
/// time to arrive.
const CLOCKS_DIFFER: Duration = Duration::from_secs(2);

/// Okta's answer to one question: a success or a refusal, never a transient failure.
#[derive(Debug, Clone, Copy)]
pub struct OktaReply<'a>(&'a Exchange);

impl<'a> OktaReply<'a> {
    /// Returns the request, with the page size that Okta answered.
    fn request(self) -> &'a Request {
        &self.0.request
    }

    /// Returns true if Okta answered with success.
    pub fn is_success(self) -> bool {
        self.0.response.is_success()
    }

    /// Returns the success, or stops at Okta's refusal.
    pub fn success(self) -> Result<&'a Response, Stop> {
        if self.is_success() { Ok(&self.0.response) } else { Err(self.refused()) }
    }

    /// Returns the body of a success as JSON, byte for byte.
    pub fn json(self) -> Result<Box<serde_json::value::RawValue>, Stop> {
        self.success()?.raw().map(ToOwned::to_owned).ok_or_else(|| self.unreadable())
    }

    /// Parses the body of a success into `T`, ignoring unknown fields.
    pub fn read<T: DeserializeOwned>(self) -> Result<T, Stop> {
        self.success()?.read().ok_or_else(|| self.unreadable())
    }

    /// Returns Okta's refusal.
    pub fn error(self) -> OktaError {
        OktaError::read(&self.0.response)
    }

    /// Stops at a success status whose body is not the expected one. After a write it is then unclear if
    /// Okta answered, or an intermediary.
    pub fn unreadable(self) -> Stop {
        if self.0.request.is_read() {
            return Stop::unreadable();
        }
        let message = "failed to read Okta's answer to a write: it is not the JSON expected";
        Stop::fail(ErrorCode::OutcomeUnknown, message)
    }

    /// Stops at Okta's refusal.
    pub fn refused(self) -> Stop {
        Stop::Refused(Box::new(self.error()))
    }
}

/// The pause before a repeated read, for read-after-write lag.
const LAG_PAUSE: Duration = Duration::from_millis(500);

/// A subtool of any type.
pub trait Tool: Send + Sync {
    /// Returns the next move after this history, which begins at the start.
    fn next(&self, history: &[HistoryEntry], setting: Setting<'_>) -> Move;
    /// Returns the next move after this history, for a driver that keeps the list in progress: it need not repeat
    /// the history after [`Pager::turns_before`].
    fn resume(&self, _list: &mut Option<Box<Pager>>, history: &[HistoryEntry], setting: Setting<'_>) -> Move {
        self.next(history, setting)
    }
    /// See [`Subtool::repeat`].
    fn repeat(&self) -> Idempotency;
    /// See [`Subtool::also_needs`].
    fn also_needs(&self) -> Option<ToolKind>;
    /// See [`Subtool::mints_secret`].
    fn mints_secret(&self) -> bool;
}

impl<T: Subtool> Tool for T {
    fn next(&self, history: &[HistoryEntry], setting: Setting<'_>) -> Move {
        self.resume(&mut None, history, setting)
    }

    fn resume(
        &self,
        list: &mut Option<Box<Pager>>,
        history: &[HistoryEntry],
        mut setting: Setting<'_>,
    ) -> Move {
        if setting.is_dry_run && Subtool::repeat(self) != Idempotency::Read {
            return plan::next(self, history, setting);
        }
        setting.is_dry_run = false; // a read is simply done
        let mut okta = Replay::new(history, setting);
        okta.list = list.take();
        let step = self.run(&mut okta);
        *list = okta.list;
        match step {
            Ok(Done { effect, output }) => {
                let remaining = output.remaining();
                Move::Done(Done { effect, output: output.into_raw(setting.bounds.fields) }, remaining)
            }
            Err(Stop::Send(request)) => Move::Send(request),
            Err(Stop::Refused(error)) => Move::Refused(error),
            Err(Stop::Fail(failure)) => Move::Fail(failure),
        }
    }

    fn repeat(&self) -> Idempotency {
        Subtool::repeat(self)
    }

    fn also_needs(&self) -> Option<ToolKind> {
        Subtool::also_needs(self)
    }

    fn mints_secret(&self) -> bool {
        Subtool::mints_secret(self)
    }
}

/// The part of a user that decides which steps are possible.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct UserState {
    id: String,
    status: String,
    /// The time of the last status change; unknown for a user that never had another status.
    #[serde(default, deserialize_with = "converge::moment")]
    status_changed: Option<Timestamp>,
    /// The status of a pending transition.
    #[serde(default)]
    transitioning_to_status: Option<String>,
    #[serde(default, deserialize_with = "converge::moment")]
    password_changed: Option<Timestamp>,
    #[serde(default, deserialize_with = "or_default")]
    profile: UserProfile,
}

/// The part of a profile that names the user.
#[derive(Debug, Default, Deserialize)]
struct UserProfile {
    #[serde(default)]
    login: String,
}

/// Returns the default of a Boolean argument that is true if absent.
fn yes() -> bool {
    true
}

/// Deserializes an argument for which `null` means absent. Models that must name every argument send `null`
/// (function tools in strict mode).
fn or_default<'de, T: Deserialize<'de> + Default, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Deserializes a Boolean argument that is true if absent or `null`.
fn or_yes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_else(yes))
}
