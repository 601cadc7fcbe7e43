//! Whether a connection works, and why it does not: a bad credential, a lost scope, an org that is not
//! reached or takes no writes.
//!
//! What fails for all of a connection is nobody's own failure: its bulk lane is left alone until a probe
//! gets through. Invariant: a pause that began ends, by a probe or by new settings.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use crate::domain::answer::ErrorCode;
use crate::domain::bucket::{RateHeaders, date};
use crate::domain::http::{NoAnswer, Request, Response};
use crate::domain::ids::{ConnectionName, Lane, UserKey};
use crate::policy::budget::window::Told;
use crate::policy::classify::{Limit, Meaning, Trouble, classify, is_unauthorized};
use crate::policy::retry::PROBE;

use super::Connection;
use super::clock::Clock;
use super::event::{Event, Observer};
use super::ports::{Ask, Patience};

/// Why a connection is paused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The credential is bad.
    Unauthorized,
    /// A scope that worked has been taken away.
    Forbidden,
    /// Okta is not reached.
    Unreachable,
    /// Okta takes no writes for a while.
    ReadOnly,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 4] = [Self::Unauthorized, Self::Forbidden, Self::Unreachable, Self::ReadOnly];

    /// The reason as it stands in labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::Unreachable => "unreachable",
            Self::ReadOnly => "read_only",
        }
    }

    /// What somebody who waits is told.
    pub(super) fn code(self) -> ErrorCode {
        match self {
            Self::Unauthorized => ErrorCode::Unauthorized,
            Self::Forbidden => ErrorCode::Forbidden,
            Self::Unreachable | Self::ReadOnly => ErrorCode::OktaUnavailable,
        }
    }

    /// The reason as people say it.
    pub fn in_words(self) -> &'static str {
        match self {
            Self::Unauthorized => "Okta refuses its credential",
            Self::Forbidden => "Okta has taken a scope from its credential",
            Self::Unreachable => "Okta is not reached",
            Self::ReadOnly => "Okta takes no writes for now",
        }
    }
}

/// A pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pause {
    pub reason: Reason,
    /// The scope whose loss it is about.
    scope: &'static str,
    /// When Okta is tried next.
    pub next_probe: Instant,
}

impl Pause {
    /// Whether it stops an invocation of a tool with this scope that only reads, or writes.
    pub fn stops(&self, scope: &str, is_read: bool) -> bool {
        match self.reason {
            Reason::Unauthorized | Reason::Unreachable => true,
            Reason::Forbidden => self.scope == scope,
            Reason::ReadOnly => !is_read,
        }
    }
}

/// The pulse of a connection. It outlives its settings.
#[derive(Debug)]
pub struct Pulse {
    pause: watch::Sender<Option<Pause>>,
    /// Whether messages of the bulk lane are wanted.
    wants_bulk: watch::Sender<bool>,
    /// Good answers so far.
    beats: AtomicU64,
    /// Scopes that have worked.
    scopes: Mutex<HashSet<&'static str>>,
}

impl Default for Pulse {
    fn default() -> Self {
        Self {
            pause: watch::Sender::new(None),
            wants_bulk: watch::Sender::new(true),
            beats: AtomicU64::new(0),
            scopes: Mutex::default(),
        }
    }
}

impl Pulse {
    /// Whether messages of the bulk lane are wanted now.
    pub(super) fn wants_bulk(&self) -> watch::Receiver<bool> {
        self.wants_bulk.subscribe()
    }

    pub(super) fn pause(&self) -> Option<Pause> {
        *self.pause.borrow()
    }

    /// Waits until a pause begins or ends, or its next probe is another one.
    pub(super) fn watch(&self) -> watch::Receiver<Option<Pause>> {
        self.pause.subscribe()
    }

    /// Okta has answered well.
    pub(super) fn beat(&self, scope: &'static str) {
        self.beats.fetch_add(1, Ordering::Relaxed);
        self.scopes.lock().unwrap_or_else(PoisonError::into_inner).insert(scope);
    }

    /// How often Okta has answered well.
    pub(super) fn beats(&self) -> u64 {
        self.beats.load(Ordering::Relaxed)
    }

    /// Whether a scope has ever worked.
    pub(super) fn has_worked(&self, scope: &str) -> bool {
        self.scopes.lock().unwrap_or_else(PoisonError::into_inner).contains(scope)
    }

    /// Ends any pause: the settings of the connection have changed, so that it may work now, with other scopes.
    pub fn resume(&self) {
        self.scopes.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.pause.send_replace(None);
        self.wants_bulk.send_replace(true);
    }
}

/// Pauses a connection until a probe gets through; nothing when it is paused already.
pub(super) fn pause(
    connection: &Arc<Connection>,
    reason: Reason,
    scope: &'static str,
    observer: &Arc<dyn Observer>,
) {
    let pause = Pause { reason, scope, next_probe: Instant::now() + PROBE.base };
    let pulse = &connection.pulse;
    if !pulse.pause.send_if_modified(|there| there.is_none().then(|| *there = Some(pause)).is_some()) {
        return;
    }
    pulse.wants_bulk.send_replace(false);
    observer.note(&Event::Paused { connection: &connection.name, reason });
    let of_whom = (connection.name.clone(), Arc::clone(pulse), Arc::downgrade(connection));
    tokio::spawn(try_again(of_whom, pause, Arc::clone(observer)));
}

/// Probes with growing waits until one gets through, or somebody else has ended the pause.
async fn try_again(
    (name, pulse, connection): (ConnectionName, Arc<Pulse>, Weak<Connection>),
    mut pause: Pause,
    observer: Arc<dyn Observer>,
) {
    let mut watch = pulse.watch();
    let mut failures = 0;
    loop {
        let is_over = watch.wait_for(|there| *there != Some(pause));
        tokio::select! {
            _ = is_over => break,
            () = sleep_until(pause.next_probe) => {}
        }
        let is_through = match connection.upgrade() {
            Some(connection) => probe(&connection, pause.reason, pause.scope, &observer).await,
            None => true, // those settings are gone; whoever fails under others pauses anew
        };
        failures += 1;
        let wait = PROBE.wait(failures, 0.5 + fastrand::f64() / 2.0);
        let next = (!is_through).then(|| Pause { next_probe: Instant::now() + wait, ..pause });
        let is_ours = pulse.pause.send_if_modified(|there| {
            let is_ours = *there == Some(pause);
            if is_ours {
                *there = next;
            }
            is_ours
        });
        match next {
            Some(next) if is_ours => pause = next,
            Some(_) => break,
            None => {
                if is_ours {
                    pulse.wants_bulk.send_replace(true);
                }
                break;
            }
        }
    }
    observer.note(&Event::Resumed { connection: &name, reason: pause.reason });
}

/// Whether what the pause is about works again.
pub(super) async fn probe(
    connection: &Connection,
    reason: Reason,
    scope: &str,
    observer: &Arc<dyn Observer>,
) -> bool {
    let request = asking(reason, scope);
    let ask = Ask {
        method: &request.method,
        route: request.route,
        lane: Lane::Interactive,
        caller: None,
        not_after: None,
        leave_at: None,
        emits: false,
        patience: Patience::Wait,
    };
    let Ok(permit) = connection.budget.admit(ask).await else { return false };
    let sent = Instant::now();
    let answer = connection.okta.send(&request).await;
    let meaning = classify(&request, answer.as_ref());
    permit.heard(told(&answer, meaning));
    observer.note(&Event::Requested {
        connection: &connection.name,
        bucket: request.bucket(),
        method: &request.method,
        http_status: answer.as_ref().ok().map(|response| response.status),
        took: sent.elapsed(),
        rate: rate_of(&answer, meaning),
    });
    match meaning {
        Meaning::Said => {}
        // Okta answers, or nobody knows because this machine could not ask.
        Meaning::Limited(_) | Meaning::Failed(Trouble::Local) => return reason == Reason::Unreachable,
        Meaning::Failed(_) => return false,
    }
    let Ok(response) = answer else { return false };
    if let Some(date) = date(&response.headers) {
        connection.okta_time.learn(date);
    }
    match reason {
        Reason::Unauthorized => !is_unauthorized(&response),
        Reason::Forbidden => !is_unauthorized(&response) && !lacks_scope(&response),
        Reason::Unreachable | Reason::ReadOnly => true,
    }
}

/// How long Okta may take to tell its time.
const TIME_MAX: Duration = Duration::from_secs(10);

/// How often it is asked at most: an org without a `Date` will have none the next time.
const TIME_EVERY: Duration = Duration::from_secs(60);

/// Asks Okta for its time, where that is not known.
pub(super) async fn learn_time(connection: &Connection, clock: &Clock, observer: &Arc<dyn Observer>) {
    let mut asked = connection.okta_time.asked.lock().await;
    let is_recent = asked.is_some_and(|at| at.elapsed() < TIME_EVERY);
    if connection.ahead(clock).is_none() && !is_recent {
        // Whether the answer is good matters to nobody here.
        let asking = probe(connection, Reason::Unreachable, "okta.users.read", observer);
        let _ = timeout(TIME_MAX, asking).await;
        *asked = Some(Instant::now());
    }
}

/// The least that shows it. Only a write shows whether Okta takes writes, from anybody or with this scope; these
/// name nobody.
fn asking(reason: Reason, scope: &str) -> Request {
    let list = |route| Request::get(route, &[]).query("limit", 1);
    let is_write = match reason {
        Reason::ReadOnly => true,
        Reason::Forbidden => scope.ends_with(".manage"),
        Reason::Unauthorized | Reason::Unreachable => false,
    };
    let nobody = UserKey::try_from("00u00000000000000000".to_owned()).expect("it is shaped like an id");
    match (scope.split('.').nth(1), is_write) {
        (Some("groups"), true) => {
            Request::delete("/api/v1/groups/{groupId}/users/{userId}", &[&nobody, &nobody])
        }
        (Some("apps"), true) => Request::delete("/api/v1/apps/{appId}/users/{userId}", &[&nobody, &nobody]),
        (_, true) => Request::post("/api/v1/users/{userId}/lifecycle/unsuspend", &[&nobody]),
        (Some("groups"), false) if reason == Reason::Forbidden => list("/api/v1/groups"),
        (Some("apps"), false) if reason == Reason::Forbidden => list("/api/v1/apps"),
        (Some("logs"), false) if reason == Reason::Forbidden => list("/api/v1/logs"),
        (_, false) => list("/api/v1/users"),
    }
}

/// Whether Okta says that the credential lacks a scope (`WWW-Authenticate`, "insufficient_scope").
pub(super) fn lacks_scope(response: &Response) -> bool {
    let said =
        |value: &http::HeaderValue| value.to_str().is_ok_and(|text| text.contains("insufficient_scope"));
    response.status == 403 && response.headers.get(http::header::WWW_AUTHENTICATE).is_some_and(said)
}

/// What the budget learns of an answer: its meaning, and its headers where they speak of the window.
pub(super) fn told(answer: &Result<Response, NoAnswer>, meaning: Meaning) -> Told {
    let window = rate_of(answer, meaning).filter(|rate| !rate.is_concurrency());
    match (meaning, window) {
        (Meaning::Limited(Limit::Window), window) => Told::Spent(window),
        (Meaning::Limited(Limit::Concurrency), _) => Told::Crowded,
        (Meaning::Failed(Trouble::NotSent | Trouble::Local), _) => Told::Uncounted,
        (_, Some(window)) => Told::Rate(window),
        (Meaning::Said, None) => Told::Nothing,
        // A page of something in front of Okta says nothing of how Okta's own answers are.
        (Meaning::Failed(_), None) => Told::Lost,
    }
}

/// The rate-limit headers of an answer; those of one that is not Okta's mean nothing.
pub(super) fn rate_of(answer: &Result<Response, NoAnswer>, meaning: Meaning) -> Option<RateHeaders> {
    match meaning {
        Meaning::Failed(Trouble::NotOkta) => None,
        Meaning::Said | Meaning::Limited(_) | Meaning::Failed(_) => {
            RateHeaders::read(&answer.as_ref().ok()?.headers)
        }
    }
}
