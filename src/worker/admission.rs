//! The checks before any request, in the contract's order.
//!
//! A message is first parsed as far as possible, then checked: so a wrong argument still counts under its subtool,
//! and the first failing check decides the answer.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use crate::domain::ids::{ConnectionName, Lane, excerpt};
use crate::domain::invocation;
use crate::domain::invocation::{DecodeError, Envelope, Options, RESULT_BYTES_USUAL};
use crate::domain::json::Fields;
use crate::domain::message::Source;
use crate::domain::result::{Effect, ErrorCode, Failure};
use crate::domain::secret::Secrets;
use crate::domain::text::is_repeatable;
use crate::policy::authorization::AllowList;
use crate::policy::sensitive::{Read, secrets, unrepeatable};
use crate::tools::catalogue::{self, CatalogueEntry};
use crate::tools::hint::unknown;
use crate::tools::subject::{Subject, subject};
use crate::tools::{Bounds, Idempotency, Listing, Move, Setting, Tool, ToolKind};

use super::connection::Connection;
use super::context::MessageContext;
use super::history::History;
use super::okta_time::{AHEAD_MAX, by_machine, by_okta};
use super::order::SubjectAccess;
use super::rules::Rules;

/// A message, parsed as far as possible.
pub(super) struct Parsed {
    /// The addressed connection, if this worker has it.
    pub connection: Option<Arc<Connection>>,
    /// The lane by which the message came.
    pub lane: Option<Lane>,
    /// The body, or the failure of parsing it.
    pub envelope: Result<Envelope, Failure>,
    /// The name of the subtool, unless that may be a secret; it may be readable although the body is not.
    pub named: Option<String>,
    /// The catalogue entry of the subtool.
    pub entry: Option<&'static CatalogueEntry>,
    /// The subtool with its arguments, or the failure of decoding them.
    tool: Option<Result<Box<dyn Tool>, DecodeError>>,
    /// The secrets in the message, which must not be shown.
    pub secrets: Secrets,
    /// True if the body is a JSON object, with any members.
    is_object: bool,
}

/// An admitted invocation, ready to run.
pub(super) struct Invocation<'a> {
    /// The context of the message.
    pub message: &'a MessageContext,
    /// The connection.
    pub connection: Arc<Connection>,
    /// The lane.
    pub lane: Lane,
    /// The subtool with its arguments.
    pub tool: Box<dyn Tool>,
    /// The name of the subtool.
    pub subtool: &'static str,
    /// The OAuth scope that the subtool needs.
    pub scope: &'static str,
    /// The body, with the options of the answer.
    pub envelope: Envelope,
    /// The deadline by which work must have begun.
    pub deadline: Option<Deadline>,
    /// The secrets in the message, which must not be shown.
    pub secrets: Secrets,
}

impl Invocation<'_> {
    /// Returns true if the invocation changes nothing.
    pub fn is_read(&self) -> bool {
        self.tool.repeat() == Idempotency::Read || self.envelope.options.dry_run
    }
}

/// A moment by which work must have begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Deadline {
    /// The moment, as the message states it.
    pub at: Timestamp,
    /// The same by the machine's clock.
    pub ours: Timestamp,
    /// The path in the message that sets the deadline, or could set it.
    pub path: &'static str,
}

impl Parsed {
    /// Parses body and address.
    pub fn new(message: &MessageContext, body: &[u8], rules: &Rules) -> Self {
        let (addressee, lane) = message.addressee();
        let (name, lane) = match message.lane() {
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

    /// Returns the caller's free text.
    pub fn reason(&self) -> Option<&str> {
        self.envelope.as_ref().ok()?.options.reason.as_deref()
    }

    /// Returns the requested size limit of the answer, in bytes.
    pub fn bytes_max(&self) -> usize {
        let options = self.envelope.as_ref().ok().map(|envelope| &envelope.options);
        options.map_or(RESULT_BYTES_USUAL, |options| options.bytes_max) as usize
    }

    /// Returns true if each page of a list is to be answered separately.
    pub fn is_paged(&self) -> bool {
        self.entry.is_some_and(|entry| entry.is_list)
            && self.envelope.as_ref().is_ok_and(|envelope| envelope.options.stream)
    }

    /// Returns the effect of a message that may have run: none if it certainly only reads.
    /// Another version of the worker may have run a message that this version cannot parse or does not know.
    pub fn effect_unless_read(&self) -> Effect {
        let may_write = match self.entry {
            Some(entry) => entry.manifest.kind != ToolKind::Read && !self.is_dry_run(),
            None => self.is_object && !self.is_dry_run(),
        };
        if may_write { Effect::Unknown } else { Effect::None }
    }

    /// Returns the effect that earlier deliveries may have had, if this one is refused before any request.
    pub fn effect_before(&self, history: &History) -> Effect {
        match history.effect_before() {
            Effect::Unknown => self.effect_unless_read(),
            known => known,
        }
    }

    /// Returns true if the caller may use the connection, so that its message may be parked.
    pub fn caller_may_use(&self, message: &MessageContext, rules: &Rules) -> bool {
        let caller = message.history.caller.as_deref();
        match &self.connection {
            Some(connection) => rules.callers.may_use(caller, &connection.name),
            None => rules.callers.is_open(),
        }
    }

    /// Returns the subject and the access to it; `None` if the message has no subject or will be refused.
    pub fn subject(&self) -> Option<(Subject, SubjectAccess)> {
        let (entry, envelope) = (self.entry?, self.envelope.as_ref().ok()?);
        let Some(Ok(tool)) = &self.tool else { return None };
        let is_write = tool.repeat() != Idempotency::Read && !self.is_dry_run();
        let access = if is_write { SubjectAccess::Write } else { SubjectAccess::Read };
        Some((subject(entry.manifest.name, &envelope.arguments)?, access))
    }

    /// Returns true if the result will hold a one-time secret.
    fn mints_secret(&self) -> bool {
        matches!(&self.tool, Some(Ok(tool)) if tool.mints_secret()) && !self.is_dry_run()
    }

    /// Returns true if the result is never left out of the answer: a list is cut to fit instead, and a one-time secret
    /// would be lost.
    pub fn keeps_result(&self) -> bool {
        self.mints_secret() || (self.entry.is_some_and(|entry| entry.is_list))
    }

    /// Returns true if this is a dry run.
    fn is_dry_run(&self) -> bool {
        self.envelope.as_ref().is_ok_and(|envelope| envelope.options.dry_run)
    }

    /// Checks the message; the first check that fails decides the answer.
    pub fn judge<'a>(self, message: &'a MessageContext, rules: &Rules) -> Result<Invocation<'a>, Failure> {
        let deadline = self.run_checks(message, rules)?;
        let Self { connection, lane, envelope, entry, tool, secrets, named: _, is_object: _ } = self;
        Ok(Invocation {
            message,
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

    /// Runs the checks in the contract's order; returns the deadline of an admitted message.
    fn run_checks(&self, message: &MessageContext, rules: &Rules) -> Result<Option<Deadline>, Failure> {
        let envelope = self.envelope.as_ref().map_err(Clone::clone)?;
        self.check_message(message)?;
        let connection = self.connection.as_ref().ok_or_else(|| unknown_connection(message))?;
        let entry = self.entry.ok_or_else(|| unknown_subtool(&envelope.subtool))?;
        message.check_origin()?;
        message.check_reply_to().map_or(Ok(()), Err)?;
        self.check_permission(message, entry, connection, rules)?;
        check_arguments(envelope, self.tool())?;
        self.check_deadline(message, envelope, rules)
    }

    /// Checks for `invalid_message`, apart from the body.
    fn check_message(&self, message: &MessageContext) -> Result<(), Failure> {
        if self.connection.is_some() && self.lane.is_none() {
            let lane = message.addressee().1.unwrap_or_default();
            let message = format!("unknown lane `{}`: known are `interactive` and `bulk`", excerpt(lane));
            let path = Some("properties.routing_key");
            return Err(Failure::new(ErrorCode::InvalidMessage, message).at(path));
        }
        if let Some(failure) = message.fault() {
            return Err(failure);
        }
        if let (Some(entry), Ok(envelope)) = (self.entry, &self.envelope) {
            check_options(entry, &envelope.options)?;
        }
        if self.mints_secret() && message.properties.reply_to.is_none() {
            let message = "the result would hold a one-time secret, so the message must name a `reply_to`";
            let path = Some("properties.reply_to");
            return Err(Failure::new(ErrorCode::InvalidMessage, message).at(path));
        }
        Ok(())
    }

    fn check_permission(
        &self,
        message: &MessageContext,
        entry: &CatalogueEntry,
        connection: &Connection,
        rules: &Rules,
    ) -> Result<(), Failure> {
        let refuse =
            |message: String, path: &str| Err(Failure::new(ErrorCode::NotPermitted, message).at(Some(path)));
        if !rules.callers.is_open() {
            let Some(name) = message.history.caller.as_deref() else {
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

    /// Returns the subtool of a known catalogue entry, decoded or failed.
    fn tool(&self) -> &Result<Box<dyn Tool>, DecodeError> {
        self.tool.as_ref().expect("read when the subtool is known")
    }

    /// Returns the earlier of the deadline in the body, or its default, and the message's `expiration`.
    fn check_deadline(
        &self,
        message: &MessageContext,
        envelope: &Envelope,
        rules: &Rules,
    ) -> Result<Option<Deadline>, Failure> {
        let ahead = self.connection.as_ref().and_then(|connection| connection.ahead(&rules.clock));
        let ours = |ours, path| Deadline { at: by_okta(ours, ahead), ours, path };
        let path = "options.deadline";
        let asked = match envelope.options.deadline {
            Some(at) => Some(Deadline { at, ours: by_machine(at, ahead), path }),
            None => self.default_deadline(message, rules, ahead).map(|at| ours(at, path)),
        };
        let expires = message.history.expires(ahead).map(|at| ours(at, "properties.expiration"));
        let deadline = asked.into_iter().chain(expires).min_by_key(|deadline| deadline.ours);
        match deadline {
            Some(passed) if passed.ours <= message.received => {
                Err(too_late(passed).retry_at(by_okta(message.received, ahead)))
            }
            _ => Ok(deadline),
        }
    }

    /// Returns the default deadline of an interactive invocation, by the machine's clock.
    fn default_deadline(
        &self,
        message: &MessageContext,
        rules: &Rules,
        ahead: Option<SignedDuration>,
    ) -> Option<Timestamp> {
        match self.lane {
            Some(Lane::Interactive) => {
                message.history.first_sent(ahead).saturating_add(rules.interactive_deadline).ok()
            }
            Some(Lane::Bulk) | None => None,
        }
    }

    /// Returns the connection to ask for Okta's time before the message is checked: the message would be too late by a
    /// default deadline, but the machine's clock may be wrong.
    pub fn depends_on_clock(&self, message: &MessageContext, rules: &Rules) -> Option<Arc<Connection>> {
        let connection = self.connection.as_ref()?;
        let envelope = self.envelope.as_ref().ok()?;
        let is_known = connection.ahead(&rules.clock).is_some();
        if is_known || envelope.options.deadline.is_some() || !message.history.goes_by_the_producers_clock() {
            return None;
        }
        let late = message.received.duration_since(self.default_deadline(message, rules, None)?);
        (!late.is_negative() && late <= AHEAD_MAX).then(|| Arc::clone(connection))
    }
}

/// Checks a body without its message, like a worker whose connection of this name enables these subtools; without a
/// connection, all subtools are enabled.
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

/// Checks that the options apply to this subtool.
fn check_options(entry: &CatalogueEntry, options: &Options) -> Result<(), Failure> {
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
    entry: &CatalogueEntry,
    tool: &Result<Box<dyn Tool>, DecodeError>,
    connection: &ConnectionName,
    list: &AllowList,
) -> Result<(), Failure> {
    check_list(entry, tool, list, &format!("connection `{connection}` does not enable"))
}

/// Checks that an allow-list has the subtool, and the kind that its arguments need in addition.
fn check_list(
    entry: &CatalogueEntry,
    tool: &Result<Box<dyn Tool>, DecodeError>,
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

fn check_arguments(envelope: &Envelope, tool: &Result<Box<dyn Tool>, DecodeError>) -> Result<(), Failure> {
    match tool {
        Err(DecodeError { message, path }) => {
            Err(Failure::new(ErrorCode::InvalidArguments, message.clone()).at(path.clone()))
        }
        // Some faults show only at the subtool's first move.
        Ok(tool) => match tool.next(&[], Setting::first(bounds(envelope, 0, false))) {
            Move::Fail(failure) => Err(*failure),
            Move::Send(_) | Move::Done(..) | Move::Planned(_) | Move::Refused(_) => Ok(()),
        },
    }
}

/// Returns the failure of a deadline that passed before work began.
pub(super) fn too_late(Deadline { at, path, .. }: Deadline) -> Failure {
    Failure::new(ErrorCode::DeadlineExceeded, format!("the deadline {at:.0} passed before work began"))
        .at(Some(path))
}

/// Returns the limits of a result with this many bytes around it.
pub(super) fn bounds(envelope: &Envelope, frame: usize, is_overdue: bool) -> Bounds<'_> {
    /// The fields kept of objects that are only counted: none.
    const NOTHING: &Fields = &Fields::Parts(Vec::new());
    let Options { fields, bytes_max, count_only, stream, .. } = &envelope.options;
    let (fields, listing) = match (count_only, stream) {
        (true, _) => (NOTHING, Listing::Counted),
        (false, true) => (fields, Listing::Paged),
        (false, false) => (fields, Listing::Whole),
    };
    Bounds { fields, bytes_max: *bytes_max as usize, frame, listing, is_overdue }
}

/// Returns the failure of an unknown connection, without a hint: not every caller may know the names of other orgs.
fn unknown_connection(message: &MessageContext) -> Failure {
    let name = match &message.source {
        Source::Work { connection, .. } | Source::Removed { connection, .. } => connection.as_str(),
        Source::Unrouted | Source::Undelivered => message.addressee().0,
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
    use crate::budget::gate::{Gate, GateSettings};
    use crate::budget::pure::window::QuotaShare;
    use crate::domain::http::{NoAnswer, Request, Response};
    use crate::domain::ids::ConnectionName;
    use crate::domain::message::{Properties, Publish, Published, Receipt, Unpublished};
    use crate::domain::result::Outcome;
    use crate::event::{Observers, ParkReason};
    use crate::policy::authorization::Callers;
    use crate::policy::backoff::RetryRules;
    use crate::policy::reply_to::ReplyPolicy;
    use crate::tools::HistoryEntry;
    use crate::worker::clock::Clock;
    use crate::worker::delivery::DeliveryContext;
    use crate::worker::okta_time::Moment;
    use crate::worker::outcome::{Conclusion, Disposition, InvocationFacts};
    use crate::worker::ports::{Okta, Outbox};
    use crate::worker::respond::Responder;
    use crate::worker::state::Worker;

    /// A subtool with a bug: it panics after this many sound moves.
    struct Buggy {
        sound_moves: usize,
    }

    impl Tool for Buggy {
        fn next(&self, history: &[HistoryEntry], _: Setting<'_>) -> Move {
            assert!(history.len() < self.sound_moves, "a bug in the subtool");
            Move::Send(Box::new(Request::post("/api/v1/groups", &[])))
        }
        fn repeat(&self) -> Idempotency {
            Idempotency::Create
        }
        fn also_needs(&self) -> Option<ToolKind> {
            None
        }
        fn mints_secret(&self) -> bool {
            false
        }
    }

    /// An environment in which everything succeeds and nothing is kept.
    struct Nowhere;

    #[async_trait::async_trait]
    impl Okta for Nowhere {
        async fn send(&self, _: &Request) -> Result<Response, NoAnswer> {
            Ok(Response::new(200, http::HeaderMap::new(), "{}"))
        }
    }

    #[async_trait::async_trait]
    impl Outbox for Nowhere {
        async fn post(&self, _: &Publish) -> Result<Published, Unpublished> {
            Ok(Published::Confirmed)
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
        let share = QuotaShare { capacity_percent: 100, length: Duration::from_secs(60) };
        let terms = GateSettings::new(prod.clone(), share);
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
            stopping: Default::default(),
        };
        let source = Source::Work { connection: prod, lane: Lane::Interactive };
        let address = (source, "okta.invocations".to_owned(), "prod".to_owned());
        let who = (&rules.reply_to, None);
        let message =
            MessageContext::new(address, Properties::default(), false, Moment::now(&rules.clock, None), who);
        let parsed = Parsed {
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
        let (identity, begun) = (InvocationFacts::of(&parsed), tokio::time::Instant::now());
        let responder = Responder { worker: &worker, message: &message, identity: &identity, begun };
        let (rules, body) = (&worker.rules.load(), &Bytes::new());
        let delivery = DeliveryContext { rules, body, receipt: &Nowhere, responder, in_lane: None };
        match worker.run(parsed, delivery).await {
            Disposition::Concluded(conclusion) => conclusion,
            Disposition::Deduplicated(_)
            | Disposition::Republished
            | Disposition::Dropped
            | Disposition::Stale => {
                panic!("nobody stops the worker")
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_bug_in_a_subtool_is_internal_and_parked_wherever_it_strikes() {
        // It panics while the arguments are checked, or after a write that succeeded.
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
