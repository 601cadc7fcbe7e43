//! Probes of a connection: the smallest request that shows if it works again, and Okta's time.
//!
//! Invariant: every pause has one task that probes until the pause is over.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::budget::pure::observation::{rate_of, told};
use crate::domain::bucket::date;
use crate::domain::http::{NoAnswer, Request, Response};
use crate::domain::ids::{ConnectionName, Lane, UserKey};
use crate::domain::okta_error::OktaError;
use crate::policy::backoff::PROBE;
use crate::policy::classify::{ConnectionFacts, FailureKind, Meaning, classify};
use crate::policy::pause::PauseReason;

use super::breaker::{Breaker, Pause};
use super::clock::Clock;
use super::connection::Connection;
use crate::budget::permit::{Ask, WhenBusy};
use crate::event::{Event, Observer};

/// Pauses a connection until a probe succeeds; does nothing if it is paused already.
pub(super) fn pause(
    connection: &Arc<Connection>,
    (reason, why): (PauseReason, &str),
    scope: &'static str,
    observer: &Arc<dyn Observer>,
) {
    let pause = Pause { reason, scope, next_probe: Instant::now() + PROBE.base };
    let breaker = &connection.breaker;
    if !breaker.begin(pause) {
        return;
    }
    breaker.record_cause(why);
    observer.note(&Event::Paused { connection: &connection.name, reason, why });
    let of_connection = (connection.name.clone(), Arc::clone(breaker), Arc::downgrade(connection));
    tokio::spawn(probe_until_resumed(of_connection, pause, Arc::clone(observer)));
}

/// Describes a failure of the whole connection for every caller, without Okta's text about a single request.
pub(super) fn cause(answer: &Result<Response, NoAnswer>) -> String {
    match answer {
        Err(no_answer) => no_answer.to_string(),
        Ok(response) if OktaError::is_in(response) => format!("Okta answered {}", response.status),
        Ok(response) => format!("no answer of Okta's, but {}", response.status),
    }
}

/// Probes with growing waits until a probe succeeds, or something else has ended the pause.
async fn probe_until_resumed(
    (name, breaker, connection): (ConnectionName, Arc<Breaker>, Weak<Connection>),
    mut pause: Pause,
    observer: Arc<dyn Observer>,
) {
    let mut watch = breaker.watch();
    let mut failures = 0;
    loop {
        let is_over = watch.wait_for(|current| *current != Some(pause));
        tokio::select! {
            _ = is_over => break,
            () = sleep_until(pause.next_probe) => {}
        }
        let has_succeeded = match connection.upgrade() {
            Some(connection) => probe(&connection, pause.reason, pause.scope, &observer).await,
            None => true, // a reload replaced the settings; if requests still fail, they pause the connection again
        };
        failures += 1;
        let wait = PROBE.wait(failures, 0.5 + fastrand::f64() / 2.0);
        let next = (!has_succeeded).then(|| Pause { next_probe: Instant::now() + wait, ..pause });
        match next {
            Some(next) if breaker.replace(pause, Some(next)) => pause = next,
            Some(_) => break, // something else has ended the pause
            None => {
                breaker.replace(pause, None);
                break;
            }
        }
    }
    observer.note(&Event::Resumed { connection: &name, reason: pause.reason });
}

/// Sends one probe; returns true if the reason of the pause is gone.
pub(super) async fn probe(
    connection: &Connection,
    reason: PauseReason,
    scope: &str,
    observer: &Arc<dyn Observer>,
) -> bool {
    let request = probe_request(reason, scope);
    let ask = Ask {
        method: &request.method,
        route: request.route,
        lane: Lane::Interactive,
        caller: None,
        not_after: None,
        leave_at: None,
        emits: false,
        when_busy: WhenBusy::Wait,
    };
    let Ok(permit) = connection.budget.admit(ask).await else { return false };
    let sent = Instant::now();
    let answer = connection.okta.send(&request).await;
    // A probe of a lost scope uses a scope that had worked.
    let known =
        ConnectionFacts { scope_has_worked: reason == PauseReason::Forbidden, ..ConnectionFacts::NOTHING };
    let meaning = classify(&request, answer.as_ref(), known);
    let rate = rate_of(&answer, meaning);
    permit.heard(told(rate, meaning));
    observer.note(&Event::Requested {
        connection: &connection.name,
        bucket: request.bucket(),
        method: &request.method,
        http_status: answer.as_ref().ok().map(|response| response.status),
        took: sent.elapsed(),
        rate,
    });
    if let (Meaning::Answered | Meaning::Refused(_), Ok(response)) = (meaning, &answer)
        && let Some(date) = date(&response.headers)
    {
        connection.okta_time.learn(date);
    }
    match meaning {
        Meaning::Answered => true,
        // Okta answers, or the state is unknown because this machine could not send the probe.
        Meaning::Limited(_) | Meaning::Failed(FailureKind::Local) => reason == PauseReason::Unreachable,
        Meaning::Refused(_) => matches!(reason, PauseReason::Unreachable | PauseReason::ReadOnly),
        Meaning::Failed(_) => false,
    }
}

/// The time for which a connection may be idle after a start before Okta is asked about its credential.
const IDLE_MAX: Duration = Duration::from_secs(20);

/// Asks Okta once whether it accepts the credential of a connection that has been idle since the start, and pauses the
/// connection if not: so a refused credential is detected before the first message needs it. Any other answer changes
/// nothing.
pub(super) async fn check_credential(connection: Weak<Connection>, observer: Arc<dyn Observer>) {
    let good_answers = || connection.upgrade().map(|connection| connection.breaker.good_answers());
    let before = good_answers();
    sleep(IDLE_MAX).await;
    if before != good_answers() {
        return;
    }
    if let Some(connection) = connection.upgrade().filter(|connection| connection.breaker.pause().is_none()) {
        ask_about_credential(&connection, &observer).await;
    }
}

async fn ask_about_credential(connection: &Arc<Connection>, observer: &Arc<dyn Observer>) {
    // Okta answers every valid credential: with the org, or with the refusal of a missing permission.
    let request = Request::get("/api/v1/org", &[]);
    let sent = Instant::now();
    let answer = connection.okta.send(&request).await;
    let meaning = classify(&request, answer.as_ref(), ConnectionFacts::NOTHING);
    observer.note(&Event::Requested {
        connection: &connection.name,
        bucket: request.bucket(),
        method: &request.method,
        http_status: answer.as_ref().ok().map(|response| response.status),
        took: sent.elapsed(),
        rate: rate_of(&answer, meaning),
    });
    if meaning == Meaning::Refused(PauseReason::Unauthorized) {
        let why = (PauseReason::Unauthorized, cause(&answer));
        pause(connection, (why.0, &why.1), "okta.users.read", observer);
    }
}

/// The longest wait for Okta's time.
const TIME_MAX: Duration = Duration::from_secs(10);

/// The shortest time between two requests for Okta's time: an org that has sent no `Date` will send none the next time.
const TIME_EVERY: Duration = Duration::from_secs(60);

/// Asks Okta for its time, if that is unknown.
pub(super) async fn learn_time(connection: &Connection, clock: &Clock, observer: &Arc<dyn Observer>) {
    let mut asked = connection.okta_time.asked.lock().await;
    let is_recent = asked.is_some_and(|at| at.elapsed() < TIME_EVERY);
    if connection.ahead(clock).is_none() && !is_recent {
        // The result of the probe does not matter here.
        let probing = probe(connection, PauseReason::Unreachable, "okta.users.read", observer);
        let _ = timeout(TIME_MAX, probing).await;
        *asked = Some(Instant::now());
    }
}

/// Returns the smallest request for this reason. Only a write shows whether Okta accepts writes, at all or with this
/// scope; these writes name no existing object.
fn probe_request(reason: PauseReason, scope: &str) -> Request {
    let list = |route| Request::get(route, &[]).query("limit", 1);
    let is_write = match reason {
        PauseReason::ReadOnly => true,
        PauseReason::Forbidden => scope.ends_with(".manage"),
        PauseReason::Unauthorized | PauseReason::Unreachable => false,
    };
    let no_user = UserKey::try_from("00u00000000000000000".to_owned()).expect("it is shaped like an id");
    match (scope.split('.').nth(1), is_write) {
        (Some("groups"), true) => {
            Request::delete("/api/v1/groups/{groupId}/users/{userId}", &[&no_user, &no_user])
        }
        (Some("apps"), true) => Request::delete("/api/v1/apps/{appId}/users/{userId}", &[&no_user, &no_user]),
        (_, true) => Request::post("/api/v1/users/{userId}/lifecycle/unsuspend", &[&no_user]),
        (Some("groups"), false) if reason == PauseReason::Forbidden => list("/api/v1/groups"),
        (Some("apps"), false) if reason == PauseReason::Forbidden => list("/api/v1/apps"),
        (Some("logs"), false) if reason == PauseReason::Forbidden => list("/api/v1/logs"),
        (_, false) => list("/api/v1/users"),
    }
}
