//! What can be asked: the 28 subtools, each a pure value that says its next move.
//!
//! A subtool has no IO, no clock and no retry. It is read from arguments, told what Okta has answered
//! so far, and says what to send next or how it ended. Its body is written as a straight conversation
//! (`okta.ask(request)?`) that is replayed from the start after each answer: an answered question
//! returns at once, the first unanswered one becomes the next move. Paging, read-merge-write,
//! preconditions and reconciling reads all fall out of that.

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

use crate::domain::answer::{Effect, ErrorCode, Failure};
use crate::domain::bucket::Bucket;
use crate::domain::http::{Exchange, Request, Response};
use crate::domain::json::Fields;
use crate::domain::okta_error::OktaError;

pub use cost::Cost;
use output::{Output, Remaining};
pub use pager::Pager;
use plan::{Forecast, Plan};

/// What kind of power a subtool needs; allow-lists name kinds or subtools.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Changes nothing.
    Read,
    /// Changes something that can be changed back.
    Write,
    /// Takes something away that cannot be given back.
    Destructive,
    /// Decides how somebody signs in.
    Credentials,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Read, Self::Write, Self::Destructive, Self::Credentials];

    /// The kind as it stands in allow-lists.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Destructive => "destructive",
            Self::Credentials => "credentials",
        }
    }
}

/// What may be done when nobody knows whether a request was executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Repeat {
    /// Changes nothing: run again.
    Read,
    /// Sets a state: run again, Okta answers the same.
    Set,
    /// Makes something with a natural key: a second one is refused.
    Create,
    /// Moves from one state to the next: look first.
    Transition,
    /// Sends or mints something each time: never repeat blindly.
    Emit,
}

impl Repeat {
    /// The class as it stands in tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Set => "set",
            Self::Create => "create",
            Self::Transition => "transition",
            Self::Emit => "emit",
        }
    }

    /// Whether a request that may have been executed may be sent again without looking.
    pub fn is_safe(self) -> bool {
        match self {
            Self::Read | Self::Set => true,
            Self::Create | Self::Transition | Self::Emit => false,
        }
    }
}

/// What is known of a subtool without arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Manifest {
    /// Its name in messages.
    pub name: &'static str,
    /// What power it needs.
    pub kind: Kind,
    /// The OAuth scope it needs.
    pub scope: &'static str,
    /// What it does, in a sentence or two for whoever must choose among the 28.
    pub summary: &'static str,
    /// When not to choose it, and what instead: a sentence.
    pub not_for: &'static str,
    /// What it costs.
    pub cost: Cost,
    /// What a success answers with, as the end of a sentence.
    pub returns: &'static str,
    /// Arguments that make sense, as JSON; the first is the plainest.
    pub examples: &'static [&'static str],
}

impl Manifest {
    /// All that whoever chooses among the 28 should know of it, in three to five sentences.
    pub fn description(&self) -> String {
        let Self { summary, not_for, cost, returns, .. } = self;
        format!("{summary} {not_for} Costs {cost}. Returns {returns}.")
    }
}

/// One of the 28, read from its arguments.
pub trait Subtool: DeserializeOwned + JsonSchema + Send + Sync + 'static {
    /// What it answers with.
    type Output: Output;

    /// What is known of it without arguments.
    const MANIFEST: Manifest;

    /// Optional arguments in which an empty text has a meaning; in all others it stands for an absent one.
    const MEANINGFUL_WHEN_EMPTY: &'static [&'static str] = &[];

    /// What may be done when nobody knows whether its write was executed, with these arguments.
    fn repeat(&self) -> Repeat;

    /// A kind of power these arguments need on top of the manifest's.
    fn also_needs(&self) -> Option<Kind> {
        None
    }

    /// Whether the result holds a one-time secret, so that it may go to nobody but the caller.
    fn mints_secret(&self) -> bool {
        false
    }

    /// The whole conversation with Okta, from the first question to the result.
    fn converse(&self, okta: &mut Dialogue<'_>) -> Step<Self::Output>;

    /// How its first write would end, as far as reads tell: asked after the reads of [`Self::converse`]
    /// have shown no reason not to write. A stop is the failure that Okta would give.
    fn foresee(&self, _okta: &mut Dialogue<'_>) -> Result<Forecast, Stop> {
        Ok(Forecast::applied())
    }
}

/// Where a conversation stands: ended well, or stopped at something.
pub type Step<T> = Result<Done<T>, Stop>;

/// A good end.
#[derive(Debug)]
pub struct Done<T> {
    /// What changed.
    pub effect: Effect,
    /// The result.
    pub output: T,
}

impl<T> Done<T> {
    /// Something was read.
    pub fn read(output: T) -> Self {
        Self { effect: Effect::None, output }
    }

    /// Okta changed it, or accepted to.
    pub fn applied(output: T) -> Self {
        Self { effect: Effect::Applied, output }
    }

    /// Okta was already there.
    pub fn unchanged(output: T) -> Self {
        Self { effect: Effect::Unchanged, output }
    }
}

/// Why a conversation did not go on.
#[derive(Debug)]
pub enum Stop {
    /// This question has no answer yet.
    Send(Box<Request>),
    /// Okta's refusal is the failure; policy finds its name.
    Refused(Box<OktaError>),
    /// The subtool's own judgement.
    Fail(Box<Failure>),
}

impl Stop {
    /// A failure of this kind.
    pub fn fail(code: ErrorCode, message: impl Into<String>) -> Self {
        Self::Fail(Box::new(Failure::new(code, message)))
    }

    /// A wrong argument.
    pub fn argument(name: &str, message: impl Into<String>) -> Self {
        let failure =
            Failure::new(ErrorCode::InvalidArguments, message).at(Some(format!("arguments.{name}")));
        Self::Fail(Box::new(failure))
    }

    /// The wrong status for the operation, as Okta or a read before the write showed.
    pub fn precondition(message: impl Into<String>, okta: Option<OktaError>) -> Self {
        let mut failure = Failure::new(ErrorCode::PreconditionFailed, message);
        failure.okta = okta;
        Self::Fail(Box::new(failure))
    }

    /// A good status of a read with a body that is not what the operation answers.
    pub fn unreadable() -> Self {
        Self::fail(ErrorCode::OktaUnavailable, "failed to read Okta's answer: it is not the JSON expected")
    }
}

/// What a subtool wants next.
#[derive(Debug)]
pub enum Move {
    /// Send this.
    Send(Box<Request>),
    /// Ended well, with the result as JSON, or with one page of a list that goes on.
    Done(Done<Box<serde_json::value::RawValue>>, Remaining),
    /// What it would do, if it were not for show.
    Planned(Box<Plan>),
    /// Okta's refusal is the failure.
    Refused(Box<OktaError>),
    /// The subtool's own judgement.
    Fail(Box<Failure>),
}

/// The limits of one result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds<'a> {
    /// What is kept of each object.
    pub fields: &'a Fields,
    /// The largest message with the result, in bytes.
    pub bytes_max: usize,
    /// How much of it stands around the result.
    pub frame: usize,
    /// What becomes of a list.
    pub listing: Listing,
    /// Whether a list has used up its time and must end with what it has.
    pub is_overdue: bool,
}

impl Bounds<'static> {
    /// Whole objects, and as much as fits into so many bytes.
    pub const fn whole(bytes_max: usize) -> Self {
        Self { fields: &Fields::Whole, bytes_max, frame: 0, listing: Listing::Whole, is_overdue: false }
    }
}

/// What becomes of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listing {
    /// One result with all items.
    Whole,
    /// One result with their number.
    Counted,
    /// A result for each of Okta's pages.
    Paged,
}

/// How long a write without an answer is left alone before the outcome of one that mails is looked for: whoever
/// sent it may have died with the request on its way.
pub const SETTLING: Duration = Duration::from_secs(3);

/// What is known of an invocation besides its arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting<'a> {
    /// The limits of its result.
    pub bounds: Bounds<'a>,
    /// Since when an earlier delivery may have run it, wholly or in part; `None`: this is the first.
    pub maybe_since: Option<Timestamp>,
    /// Whether that was [`SETTLING`] ago, or longer.
    pub is_settled: bool,
    /// How far Okta's clock is ahead of ours, as far as its answers told.
    pub okta_ahead: SignedDuration,
    /// Whether it is for show: nothing is written.
    pub is_dry_run: bool,
}

impl<'a> Setting<'a> {
    /// That of a first delivery.
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

/// One question, and what came of it.
#[derive(Debug, Clone)]
pub enum Turn {
    /// Okta said something.
    Said(Exchange),
    /// It may have been executed; no answer tells.
    Unclear {
        /// What was asked.
        request: Request,
        /// When, by our clock.
        sent: Timestamp,
    },
}

impl Turn {
    /// What was asked.
    pub fn request(&self) -> &Request {
        match self {
            Self::Said(exchange) => &exchange.request,
            Self::Unclear { request, .. } => request,
        }
    }

    /// What Okta said.
    pub fn response(&self) -> Option<&Response> {
        match self {
            Self::Said(exchange) => Some(&exchange.response),
            Self::Unclear { .. } => None,
        }
    }
}

/// What was asked and answered so far, replayed from the start.
#[derive(Debug)]
pub struct Dialogue<'a> {
    past: std::slice::Iter<'a, Turn>,
    setting: Setting<'a>,
    /// Since when a write of this invocation may have been executed, by our clock.
    doubt: Option<Timestamp>,
    /// Where each answered question of a dry run is counted.
    asked: Vec<Bucket>,
    /// The list on its way, with all that it has read.
    list: Option<Box<Pager>>,
    history_length: usize,
}

impl<'a> Dialogue<'a> {
    /// A conversation with this history.
    pub fn new(history: &'a [Turn], setting: Setting<'a>) -> Self {
        Self {
            past: history.iter(),
            setting,
            doubt: setting.maybe_since,
            asked: Vec::new(),
            list: None,
            history_length: history.len(),
        }
    }

    /// The answer to the next question; stops when it has none yet.
    ///
    /// # Panics
    /// When it is a write whose outcome may be unclear: those are asked with [`Self::attempt`].
    pub fn ask(&mut self, request: Request) -> Result<Reply<'a>, Stop> {
        Ok(self.attempt(request)?.expect("only who attempts a write hears that its outcome is unclear"))
    }

    /// The answer to a write; `None` when nobody knows whether it was executed.
    pub fn attempt(&mut self, request: Request) -> Result<Option<Reply<'a>>, Stop> {
        if self.setting.is_dry_run {
            return self.look_up(request).map(Some);
        }
        match self.past.next() {
            Some(Turn::Said(exchange)) => Ok(Some(Reply(exchange))),
            Some(Turn::Unclear { sent, .. }) => {
                self.doubt.get_or_insert(*sent);
                self.setting.is_settled = false;
                Ok(None)
            }
            None => Err(Stop::Send(Box::new(request))),
        }
    }

    /// The answer to a question of a dry run: nothing is written, so the same question has the same answer.
    fn look_up(&mut self, request: Request) -> Result<Reply<'a>, Stop> {
        let exchange = self.past.as_slice().iter().find_map(|turn| match turn {
            Turn::Said(exchange) => (exchange.request == request).then_some(exchange),
            Turn::Unclear { .. } => None,
        });
        let exchange = exchange.ok_or_else(|| Stop::Send(Box::new(request)))?;
        self.asked.push(exchange.request.bucket());
        Ok(Reply(exchange))
    }

    /// Since when a write of this invocation may have been executed, by Okta's clock and with what clocks
    /// may differ; `None`: none can have been.
    pub fn doubt(&self) -> Option<Timestamp> {
        let since = self.doubt?.saturating_add(self.setting.okta_ahead).ok()?;
        since.saturating_sub(CLOCKS_DIFFER).ok()
    }

    /// How long to wait before a look at what a write may have done.
    pub fn settling(&self) -> Duration {
        if self.setting.is_settled { Duration::ZERO } else { SETTLING }
    }

    /// Whether the next question has no answer yet.
    pub fn is_caught_up(&self) -> bool {
        self.past.as_slice().is_empty()
    }

    /// Returns how many questions were answered so far.
    fn asked_so_far(&self) -> usize {
        self.history_length - self.past.len()
    }

    /// The limits of the result.
    pub fn bounds(&self) -> Bounds<'a> {
        self.setting.bounds
    }
}

/// By how much two clocks that were compared may still differ: Okta's `Date` has whole seconds, and its
/// answer takes its way.
const CLOCKS_DIFFER: Duration = Duration::from_secs(2);

/// Okta's answer to one question: a success or a refusal. What is transient never gets here.
#[derive(Debug, Clone, Copy)]
pub struct Reply<'a>(&'a Exchange);

impl<'a> Reply<'a> {
    /// Returns what was asked, with the page size that Okta answered.
    fn request(self) -> &'a Request {
        &self.0.request
    }

    /// Whether Okta did it.
    pub fn is_success(self) -> bool {
        self.0.response.is_success()
    }

    /// The success, or a stop at Okta's refusal.
    pub fn success(self) -> Result<&'a Response, Stop> {
        if self.is_success() { Ok(&self.0.response) } else { Err(self.refused()) }
    }

    /// The success's body as JSON, byte for byte.
    pub fn json(self) -> Result<Box<serde_json::value::RawValue>, Stop> {
        self.success()?.raw().map(ToOwned::to_owned).ok_or_else(|| self.unreadable())
    }

    /// The part of the success's body that `T` knows.
    pub fn read<T: DeserializeOwned>(self) -> Result<T, Stop> {
        self.success()?.read().ok_or_else(|| self.unreadable())
    }

    /// Okta's refusal.
    pub fn error(self) -> OktaError {
        OktaError::read(&self.0.response)
    }

    /// Stops at a good status with a body that is not what the operation answers. After a write nobody
    /// knows then who answered, Okta or something in front of it.
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

/// The pause before asking Okta again for what its last answer may not show yet.
const LAG_PAUSE: Duration = Duration::from_millis(500);

/// A subtool whatever its type.
pub trait Tool: Send + Sync {
    /// The next move after this history, told from the start.
    fn next(&self, history: &[Turn], setting: Setting<'_>) -> Move;
    /// The next move after this history, for a driver that keeps what a list has read: it need not tell again
    /// what came after [`Pager::turns_before`].
    fn resume(&self, _list: &mut Option<Box<Pager>>, history: &[Turn], setting: Setting<'_>) -> Move {
        self.next(history, setting)
    }
    /// See [`Subtool::repeat`].
    fn repeat(&self) -> Repeat;
    /// See [`Subtool::also_needs`].
    fn also_needs(&self) -> Option<Kind>;
    /// See [`Subtool::mints_secret`].
    fn mints_secret(&self) -> bool;
}

impl<T: Subtool> Tool for T {
    fn next(&self, history: &[Turn], setting: Setting<'_>) -> Move {
        self.resume(&mut None, history, setting)
    }

    fn resume(&self, list: &mut Option<Box<Pager>>, history: &[Turn], mut setting: Setting<'_>) -> Move {
        if setting.is_dry_run && Subtool::repeat(self) != Repeat::Read {
            return plan::next(self, history, setting);
        }
        setting.is_dry_run = false; // a read is simply done
        let mut okta = Dialogue::new(history, setting);
        okta.list = list.take();
        let step = self.converse(&mut okta);
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

    fn repeat(&self) -> Repeat {
        Subtool::repeat(self)
    }

    fn also_needs(&self) -> Option<Kind> {
        Subtool::also_needs(self)
    }

    fn mints_secret(&self) -> bool {
        Subtool::mints_secret(self)
    }
}

/// The part of a user that decides what may be done with it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct UserState {
    id: String,
    status: String,
    /// When the status last changed; nobody knows of a user that never had another.
    #[serde(default, deserialize_with = "converge::moment")]
    status_changed: Option<Timestamp>,
    /// Where the status is about to change to.
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

/// What is true when nothing is said.
fn yes() -> bool {
    true
}

/// Reads an argument for which `null` is as good as absent. Models that must name every argument send it so
/// (function tools in strict mode).
fn or_default<'de, T: Deserialize<'de> + Default, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// The same, where nothing said means yes.
fn or_yes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_else(yes))
}
