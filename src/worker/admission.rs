//! The checks before any request, in the contract's order.
//!
//! A message is first read as far as it can be, then judged: so a wrong argument can still be counted
//! under its subtool, and the first failing check answers whatever else is wrong.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use crate::domain::ids::{ConnectionName, Lane, excerpt};
use crate::domain::invocation;
use crate::domain::invocation::{Envelope, Fault, Options, RESULT_BYTES_USUAL};
use crate::domain::json::Fields;
use crate::domain::message::Source;
use crate::domain::result::{Effect, ErrorCode, Failure};
use crate::domain::secret::Secrets;
use crate::domain::text::is_repeatable;
use crate::policy::authorization::AllowList;
use crate::policy::sensitive::{Read, secrets, unrepeatable};
use crate::tools::catalogue::{self, Entry};
use crate::tools::hint::unknown;
use crate::tools::subject::{Subject, subject};
use crate::tools::{Bounds, Kind, Listing, Move, Repeat, Setting, Tool};

use super::connection::Connection;
use super::context::Letter;
use super::history::Docket;
use super::okta_time::{AHEAD_MAX, by_machine, by_okta};
use super::order::Access;
use super::rules::Rules;

/// A message as far as it could be read.
pub(super) struct Reading {
    /// The connection it is for, when it is one of ours.
    pub connection: Option<Arc<Connection>>,
    /// The lane it came by.
    pub lane: Option<Lane>,
    /// The body, or why it cannot be read.
    pub envelope: Result<Envelope, Failure>,
    /// The subtool it names, unless that may be a secret; it may be readable where the body is not.
    pub named: Option<String>,
    /// The row of the subtool it names.
    pub entry: Option<&'static Entry>,
    /// The subtool, or why the arguments do not fit.
    tool: Option<Result<Box<dyn Tool>, Fault>>,
    /// What of it must not be shown.
    pub secrets: Secrets,
    /// Whether the body is a JSON object, whatever is in it.
    is_object: bool,
}

/// An admitted invocation, ready to run.
pub(super) struct Job<'a> {
    /// The message outside its body.
    pub letter: &'a Letter,
    /// On which connection.
    pub connection: Arc<Connection>,
    /// For whom it is paced.
    pub lane: Lane,
    /// What to run.
    pub tool: Box<dyn Tool>,
    /// The name of it.
    pub subtool: &'static str,
    /// The OAuth scope it needs.
    pub scope: &'static str,
    /// How to answer.
    pub envelope: Envelope,
    /// When work must have begun.
    pub deadline: Option<Deadline>,
    /// What of it must not be shown.
    pub secrets: Secrets,
}

impl Job<'_> {
    /// Whether it changes nothing.
    pub fn is_read(&self) -> bool {
        self.tool.repeat() == Repeat::Read || self.envelope.options.dry_run
    }
}

/// A moment by which work must have begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Deadline {
    /// The moment, as the message says it.
    pub at: Timestamp,
    /// The same by the machine's clock.
    pub ours: Timestamp,
    /// What in the message sets it, or could have.
    pub path: &'static str,
}

impl Reading {
    /// Reads body and address.
    pub fn new(letter: &Letter, body: &[u8], rules: &Rules) -> Self {
        let (addressee, lane) = letter.addressee();
        let (name, lane) = match letter.lane() {
            Some((connection, lane)) => (connection.as_str(), Some(lane)),
            None => (addressee, lane.map_or(Some(Lane::Interactive), Lane::parse)),
        };
        let connection = rules.connections.get(name).cloned();
        let envelope = Envelope::decode(body);
        let named = match &envelope {
            Ok(envelope) => Some(envelope.subtool.clone()),
            Err(_) => invocation::named(body),
        };
        let named = named.filter(|name| is_repeatable(name));
        let entry = named.as_deref().and_then(catalogue::find);
        let tool = envelope.as_ref().ok().zip(entry).map(|(envelope, entry)| entry.read(&envelope.arguments));
        let secrets = match (&envelope, &tool) {
            (Ok(envelope), Some(Ok(_))) => secrets(&envelope.arguments, Read::Fully),
            (Ok(envelope), _) => secrets(&envelope.arguments, Read::InPart),
            (Err(_), _) => {
                invocation::raw(body).map_or_else(Secrets::default, |raw| secrets(raw, Read::InPart))
            }
        };
        let is_object = invocation::raw(body).is_some_and(|raw| raw.get().starts_with('{'));
        Self { connection, lane, envelope, named, entry, tool, secrets, is_object }
    }

    /// The caller's free text.
    pub fn reason(&self) -> Option<&str> {
        self.envelope.as_ref().ok()?.options.reason.as_deref()
    }

    /// The largest answer it wants, in bytes.
    pub fn bytes_max(&self) -> usize {
        let options = self.envelope.as_ref().ok().map(|envelope| &envelope.options);
        options.map_or(RESULT_BYTES_USUAL, |options| options.bytes_max) as usize
    }

    /// Whether it wants each page of a list for itself.
    pub fn is_paged(&self) -> bool {
        self.entry.is_some_and(|entry| entry.is_list)
            && self.envelope.as_ref().is_ok_and(|envelope| envelope.options.stream)
    }

    /// What may have been done when nobody knows whether the message was run: nothing, where it surely only reads.
    /// What this version of the worker cannot read or does not know, another one may have run.
    pub fn effect_unless_read(&self) -> Effect {
        let may_write = match self.entry {
            Some(entry) => entry.manifest.kind != Kind::Read && !self.is_dry_run(),
            None => self.is_object && !self.is_dry_run(),
        };
        if may_write { Effect::Unknown } else { Effect::None }
    }

    /// What earlier deliveries may have done when this one is refused before any request.
    pub fn effect_before(&self, docket: &Docket) -> Effect {
        match docket.effect_before() {
            Effect::Unknown => self.effect_unless_read(),
            known => known,
        }
    }

    /// Whether the caller may use the connection at all, so that something may be kept for it.
    pub fn caller_may_use(&self, letter: &Letter, rules: &Rules) -> bool {
        let caller = letter.docket.caller.as_deref();
        match &self.connection {
            Some(connection) => rules.callers.may_use(caller, &connection.name),
            None => rules.callers.is_open(),
        }
    }

    /// What it is about, and whether it may write; `None` when it names nothing or is refused anyway.
    pub fn subject(&self) -> Option<(Subject, Access)> {
        let (entry, envelope) = (self.entry?, self.envelope.as_ref().ok()?);
        let Some(Ok(tool)) = &self.tool else { return None };
        let is_write = tool.repeat() != Repeat::Read && !self.is_dry_run();
        let access = if is_write { Access::Write } else { Access::Read };
        Some((subject(entry.manifest.name, &envelope.arguments)?, access))
    }

    /// Whether its result holds what is nowhere else.
    fn mints_secret(&self) -> bool {
        matches!(&self.tool, Some(Ok(tool)) if tool.mints_secret()) && !self.is_dry_run()
    }

    /// Whether its result is never left out: a list is cut to fit, and a one-time secret would be lost.
    pub fn keeps_result(&self) -> bool {
        self.mints_secret() || (self.entry.is_some_and(|entry| entry.is_list))
    }

    /// Whether it is for show.
    fn is_dry_run(&self) -> bool {
        self.envelope.as_ref().is_ok_and(|envelope| envelope.options.dry_run)
    }

    /// Judges the message; the first check that fails answers.
    pub fn judge<'a>(self, letter: &'a Letter, rules: &Rules) -> Result<Job<'a>, Failure> {
        let deadline = self.verdict(letter, rules)?;
        let Self { connection, lane, envelope, entry, tool, secrets, named: _, is_object: _ } = self;
        Ok(Job {
            letter,
            connection: connection.expect("checked: the connection is known"),
            lane: lane.expect("checked: the lane is known"),
            tool: tool.expect("checked: the subtool is known").expect("checked: the arguments fit"),
            subtool: entry.expect("checked: the subtool is known").manifest.name,
            scope: entry.expect("checked: the subtool is known").manifest.scope,
            envelope: envelope.expect("checked: the body is readable"),
            deadline,
            secrets,
        })
    }

    /// The checks in the contract's order; the deadline of an admitted message.
    fn verdict(&self, letter: &Letter, rules: &Rules) -> Result<Option<Deadline>, Failure> {
        let envelope = self.envelope.as_ref().map_err(Clone::clone)?;
        self.check_message(letter)?;
        let connection = self.connection.as_ref().ok_or_else(|| unknown_connection(letter))?;
        let entry = self.entry.ok_or_else(|| unknown_subtool(&envelope.subtool))?;
        letter.came_by_a_good_way()?;
        letter.answers_where_it_must_not().map_or(Ok(()), Err)?;
        self.check_permission(letter, entry, connection, rules)?;
        check_arguments(envelope, self.tool())?;
        self.check_deadline(letter, envelope, rules)
    }

    /// `invalid_message`, the body aside.
    fn check_message(&self, letter: &Letter) -> Result<(), Failure> {
        if self.connection.is_some() && self.lane.is_none() {
            let lane = letter.addressee().1.unwrap_or_default();
            let message = format!("unknown lane `{}`: known are `interactive` and `bulk`", excerpt(lane));
            let path = Some("properties.routing_key");
            return Err(Failure::new(ErrorCode::InvalidMessage, message).at(path));
        }
        if let Some(failure) = letter.fault() {
            return Err(failure);
        }
        if let (Some(entry), Ok(envelope)) = (self.entry, &self.envelope) {
            check_options(entry, &envelope.options)?;
        }
        if self.mints_secret() && letter.properties.reply_to.is_none() {
            let message = "the result would hold a one-time secret, so the message must name a `reply_to`";
            let path = Some("properties.reply_to");
            return Err(Failure::new(ErrorCode::InvalidMessage, message).at(path));
        }
        Ok(())
    }

    fn check_permission(
        &self,
        letter: &Letter,
        entry: &Entry,
        connection: &Connection,
        rules: &Rules,
    ) -> Result<(), Failure> {
        let refuse =
            |message: String, path: &str| Err(Failure::new(ErrorCode::NotPermitted, message).at(Some(path)));
        if !rules.callers.is_open() {
            let Some(name) = letter.docket.caller.as_deref() else {
                return refuse("the message names no caller".into(), "properties.user_id");
            };
            let who = excerpt(name);
            let Some(caller) = rules.callers.0.get(name) else {
                return refuse(format!("caller `{who}` is not known here"), "properties.user_id");
            };
            if !caller.connections.contains(&connection.name) {
                let message = format!("caller `{who}` may not use connection `{}`", connection.name);
                return refuse(message, "properties.routing_key");
            }
            if self.lane.is_some_and(|lane| !caller.lanes.contains(&lane)) {
                let message = format!("caller `{who}` may not use this lane");
                return refuse(message, "properties.routing_key");
            }
            check_list(entry, self.tool(), &caller.subtools, &format!("caller `{who}` may not use"))?;
        }
        check_enabled(entry, self.tool(), &connection.name, &connection.subtools)
    }

    /// The subtool, read or not, of a row that is known.
    fn tool(&self) -> &Result<Box<dyn Tool>, Fault> {
        self.tool.as_ref().expect("read when the subtool is known")
    }

    /// The earlier of the deadline in the body, or its default, and the message's `expiration`.
    fn check_deadline(
        &self,
        letter: &Letter,
        envelope: &Envelope,
        rules: &Rules,
    ) -> Result<Option<Deadline>, Failure> {
        let ahead = self.connection.as_ref().and_then(|connection| connection.ahead(&rules.clock));
        let ours = |ours, path| Deadline { at: by_okta(ours, ahead), ours, path };
        let path = "options.deadline";
        let asked = match envelope.options.deadline {
            Some(at) => Some(Deadline { at, ours: by_machine(at, ahead), path }),
            None => self.deadline_nobody_set(letter, rules, ahead).map(|at| ours(at, path)),
        };
        let expires = letter.docket.expires(ahead).map(|at| ours(at, "properties.expiration"));
        let deadline = asked.into_iter().chain(expires).min_by_key(|deadline| deadline.ours);
        match deadline {
            Some(passed) if passed.ours <= letter.received => {
                Err(too_late(passed).retry_at(by_okta(letter.received, ahead)))
            }
            _ => Ok(deadline),
        }
    }

    /// By when an interactive invocation without a deadline must have begun, by the machine's clock.
    fn deadline_nobody_set(
        &self,
        letter: &Letter,
        rules: &Rules,
        ahead: Option<SignedDuration>,
    ) -> Option<Timestamp> {
        match self.lane {
            Some(Lane::Interactive) => {
                letter.docket.first_sent(ahead).saturating_add(rules.interactive_deadline).ok()
            }
            Some(Lane::Bulk) | None => None,
        }
    }

    /// The connection whose Okta must be asked for its time before the message is judged: it would be too late by a
    /// deadline that nobody set, and it may be the machine's clock that is wrong.
    pub fn hangs_on_the_clock(&self, letter: &Letter, rules: &Rules) -> Option<Arc<Connection>> {
        let connection = self.connection.as_ref()?;
        let envelope = self.envelope.as_ref().ok()?;
        let is_known = connection.ahead(&rules.clock).is_some();
        if is_known || envelope.options.deadline.is_some() || !letter.docket.goes_by_the_producers_clock() {
            return None;
        }
        let late = letter.received.duration_since(self.deadline_nobody_set(letter, rules, None)?);
        (!late.is_negative() && late <= AHEAD_MAX).then(|| Arc::clone(connection))
    }
}

/// Judges a body by itself, without the message around it: as a worker would whose connection of this name enables
/// these subtools, or all.
///
/// # Errors
/// The first check that fails.
pub fn check_body(body: &[u8], connection: Option<(&ConnectionName, &AllowList)>) -> Result<(), Failure> {
    judge_body(body, connection).map_err(|failure| {
        let raw = invocation::raw(body);
        let secrets = raw.map_or_else(Secrets::default, |raw| secrets(raw, Read::InPart));
        let values = unrepeatable(body, &failure);
        failure.without_values(&values).masked(&secrets)
    })
}

fn judge_body(body: &[u8], connection: Option<(&ConnectionName, &AllowList)>) -> Result<(), Failure> {
    let envelope = Envelope::decode(body)?;
    let entry = catalogue::find(&envelope.subtool).ok_or_else(|| unknown_subtool(&envelope.subtool))?;
    check_options(entry, &envelope.options)?;
    let tool = entry.read(&envelope.arguments);
    if let Some((name, subtools)) = connection {
        check_enabled(entry, &tool, name, subtools)?;
    }
    check_arguments(&envelope, &tool)
}

/// Whether the options are for this subtool.
fn check_options(entry: &Entry, options: &Options) -> Result<(), Failure> {
    let for_lists = [("count_only", options.count_only), ("stream", options.stream)];
    match for_lists.into_iter().find(|(_, is_on)| *is_on) {
        Some((name, _)) if !entry.is_list => {
            let message = format!("`{name}` is for lists, and `{}` is none", entry.manifest.name);
            Err(Failure::new(ErrorCode::InvalidMessage, message).at(Some(format!("options.{name}"))))
        }
        Some(_) | None => Ok(()),
    }
}

fn check_enabled(
    entry: &Entry,
    tool: &Result<Box<dyn Tool>, Fault>,
    connection: &ConnectionName,
    list: &AllowList,
) -> Result<(), Failure> {
    check_list(entry, tool, list, &format!("connection `{connection}` does not enable"))
}

/// Whether an allow-list gives the subtool, and what its arguments need on top.
fn check_list(
    entry: &Entry,
    tool: &Result<Box<dyn Tool>, Fault>,
    list: &AllowList,
    whose: &str,
) -> Result<(), Failure> {
    let refuse = |what: &str, path: &str| {
        Err(Failure::new(ErrorCode::NotPermitted, format!("{whose} {what}")).at(Some(path)))
    };
    if !list.allows(entry.manifest) {
        return refuse(&format!("`{}`", entry.manifest.name), "subtool");
    }
    match tool {
        Ok(tool) if tool.also_needs().is_some_and(|kind| !list.allows_kind(kind)) => {
            refuse("the kind `credentials`, which this argument needs", "arguments.credentials")
        }
        Ok(_) | Err(_) => Ok(()),
    }
}

fn check_arguments(envelope: &Envelope, tool: &Result<Box<dyn Tool>, Fault>) -> Result<(), Failure> {
    match tool {
        Err(Fault { message, path }) => {
            Err(Failure::new(ErrorCode::InvalidArguments, message.clone()).at(path.clone()))
        }
        // Some faults show only when the subtool makes its first move.
        Ok(tool) => match tool.next(&[], Setting::first(bounds(envelope, 0, false))) {
            Move::Fail(failure) => Err(*failure),
            Move::Send(_) | Move::Done(..) | Move::Planned(_) | Move::Refused(_) => Ok(()),
        },
    }
}

/// The deadline passed before work began.
pub(super) fn too_late(Deadline { at, path, .. }: Deadline) -> Failure {
    Failure::new(ErrorCode::DeadlineExceeded, format!("the deadline {at:.0} passed before work began"))
        .at(Some(path))
}

/// The limits of a result with a message of so many bytes around it.
pub(super) fn bounds(envelope: &Envelope, frame: usize, is_overdue: bool) -> Bounds<'_> {
    /// Of what is only counted nothing is kept.
    const NOTHING: &Fields = &Fields::Parts(Vec::new());
    let Options { fields, bytes_max, count_only, stream, .. } = &envelope.options;
    let (fields, listing) = match (count_only, stream) {
        (true, _) => (NOTHING, Listing::Counted),
        (false, true) => (fields, Listing::Paged),
        (false, false) => (fields, Listing::Whole),
    };
    Bounds { fields, bytes_max: *bytes_max as usize, frame, listing, is_overdue }
}

/// Suggests nothing: which other orgs there are is not for every caller to know.
fn unknown_connection(letter: &Letter) -> Failure {
    let name = match &letter.source {
        Source::Work { connection, .. } | Source::Removed { connection, .. } => connection.as_str(),
        Source::Unrouted | Source::Undelivered => letter.addressee().0,
    };
    let message = format!("unknown connection `{}`", excerpt(name));
    Failure::new(ErrorCode::UnknownConnection, message).at(Some("properties.routing_key"))
}

fn unknown_subtool(name: &str) -> Failure {
    Failure::new(ErrorCode::UnknownSubtool, unknown(name)).at(Some("subtool"))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::time::Duration;

    use bytes::Bytes;

    use super::*;
    use crate::budget::gate::{Gate, Terms};
    use crate::budget::pure::window::Share;
    use crate::domain::http::{NoAnswer, Request, Response};
    use crate::domain::ids::ConnectionName;
    use crate::domain::message::{Post, Posted, Properties, Receipt, Unposted};
    use crate::domain::result::Outcome;
    use crate::event::{Observers, ParkReason};
    use crate::policy::authorization::Callers;
    use crate::policy::backoff::RetryRules;
    use crate::policy::reply_to::ReplyPolicy;
    use crate::tools::Turn;
    use crate::worker::clock::Clock;
    use crate::worker::okta_time::Moment;
    use crate::worker::outcome::{Conclusion, Ended, Identity};
    use crate::worker::ports::{Okta, Postbox};
    use crate::worker::respond::Answering;
    use crate::worker::{Case, Worker};

    /// A subtool with a bug: it has so many sound moves, then it panics.
    struct Buggy {
        sound_moves: usize,
    }

    impl Tool for Buggy {
        fn next(&self, history: &[Turn], _: Setting<'_>) -> Move {
            assert!(history.len() < self.sound_moves, "a bug in the subtool");
            Move::Send(Box::new(Request::post("/api/v1/groups", &[])))
        }
        fn repeat(&self) -> Repeat {
            Repeat::Create
        }
        fn also_needs(&self) -> Option<Kind> {
            None
        }
        fn mints_secret(&self) -> bool {
            false
        }
    }

    /// A world in which everything succeeds and nothing is kept.
    struct Nowhere;

    #[async_trait::async_trait]
    impl Okta for Nowhere {
        async fn send(&self, _: &Request) -> Result<Response, NoAnswer> {
            Ok(Response::new(200, http::HeaderMap::new(), "{}"))
        }
    }

    #[async_trait::async_trait]
    impl Postbox for Nowhere {
        async fn post(&self, _: &Post) -> Result<Posted, Unposted> {
            Ok(Posted::Confirmed)
        }
    }

    #[async_trait::async_trait]
    impl Receipt for Nowhere {
        fn is_live(&self) -> bool {
            true
        }
        async fn ack(self: Box<Self>) -> bool {
            true
        }
    }

    async fn run(tool: Buggy) -> Conclusion {
        let prod = ConnectionName::parse("prod").unwrap();
        let observer = Arc::new(Observers(Vec::new()));
        let share = Share { capacity_percent: 100, length: Duration::from_secs(60) };
        let terms = Terms::new(prod.clone(), share);
        let gate = Gate::new(terms, observer.clone());
        let connection = Connection::new(prod.clone(), Arc::new(Nowhere), Arc::new(gate), AllowList::all());
        let connection = Arc::new(connection);
        let rules = Rules {
            connections: HashMap::from([(prod.clone(), Arc::clone(&connection))]),
            callers: Callers::default(),
            reply_to: ReplyPolicy::default(),
            own_user: None,
            interactive_deadline: Duration::from_secs(600),
            list_time_max: Duration::from_secs(600),
            retry: RetryRules::default(),
            clock: Clock::Machine,
            stopping: tokio::sync::watch::channel(false).1,
        };
        let source = Source::Work { connection: prod, lane: Lane::Interactive };
        let address = (source, "okta.invocations".to_owned(), "prod".to_owned());
        let who = (&rules.reply_to, None);
        let letter = Letter::new(address, Properties::default(), false, Moment::now(&rules.clock, None), who);
        let reading = Reading {
            connection: Some(connection),
            lane: Some(Lane::Interactive),
            envelope: Envelope::decode(br#"{"subtool":"create_group"}"#),
            named: Some("create_group".to_owned()),
            entry: catalogue::find("create_group"),
            tool: Some(Ok(Box::new(tool))),
            secrets: Secrets::default(),
            is_object: true,
        };
        let worker = Worker::new(rules, Arc::new(Nowhere), observer);
        let (identity, begun) = (Identity::of(&reading), tokio::time::Instant::now());
        let answering = Answering { worker: &worker, letter: &letter, identity: &identity, begun };
        let (rules, body) = (&worker.rules.load(), &Bytes::new());
        let case = Case { rules, body, receipt: &Nowhere, answering, in_lane: None };
        match worker.run(reading, case).await {
            Ended::Concluded(conclusion) => conclusion,
            Ended::Deduplicated(_) | Ended::PutAside | Ended::Dropped | Ended::Stale => {
                panic!("nobody stops the worker")
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_bug_in_a_subtool_is_internal_and_parked_wherever_it_strikes() {
        // While the arguments are checked; after a write that succeeded.
        for (sound_moves, expected) in [(0, Effect::None), (1, Effect::Unknown)] {
            let conclusion = run(Buggy { sound_moves }).await;
            assert_eq!(conclusion.park, Some(ParkReason::Internal));
            let Outcome::Failed { effect, failure } = conclusion.outcome else {
                panic!("a bug is no success")
            };
            assert_eq!((failure.code, effect), (ErrorCode::Internal, expected));
        }
    }
}
