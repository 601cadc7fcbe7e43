//! Probes of a connection: the least request that shows whether it works again, and what time it is there.
//!
//! Invariant: every pause has one task that probes until the pause is over.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout};

use crate::budget::pure::observation::{rate_of, told};
use crate::domain::bucket::date;
use crate::domain::http::Request;
use crate::domain::ids::{ConnectionName, Lane, UserKey};
use crate::policy::backoff::PROBE;
use crate::policy::classify::{FailureKind, Known, Meaning, classify};
use crate::policy::pause::PauseReason;

use super::breaker::{Pause, Pulse};
use super::clock::Clock;
use super::connection::Connection;
use crate::budget::permit::{Ask, Patience};
use crate::event::{Event, Observer};

/// Pauses a connection until a probe gets through; nothing when it is paused already.
pub(super) fn pause(
    connection: &Arc<Connection>,
    reason: PauseReason,
    scope: &'static str,
    observer: &Arc<dyn Observer>,
) {
    let pause = Pause { reason, scope, next_probe: Instant::now() + PROBE.base };
    let pulse = &connection.pulse;
    if !pulse.begin(pause) {
        return;
    }
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
            None => true, // a reload replaced the settings; a request that fails under the new ones pauses the connection again
        };
        failures += 1;
        let wait = PROBE.wait(failures, 0.5 + fastrand::f64() / 2.0);
        let next = (!is_through).then(|| Pause { next_probe: Instant::now() + wait, ..pause });
        match next {
            Some(next) if pulse.replace(pause, Some(next)) => pause = next,
            Some(_) => break, // somebody else has ended the pause
            None => {
                pulse.replace(pause, None);
                break;
            }
        }
    }
    observer.note(&Event::Resumed { connection: &name, reason: pause.reason });
}

/// Sends one probe; true if what the pause is about works again.
pub(super) async fn probe(
    connection: &Connection,
    reason: PauseReason,
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
    // A probe of a scope that was lost asks for one that had worked.
    let known = Known { scope_has_worked: reason == PauseReason::Forbidden, ..Known::NOTHING };
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
    if let (Meaning::Said | Meaning::Refused(_), Ok(response)) = (meaning, &answer)
        && let Some(date) = date(&response.headers)
    {
        connection.okta_time.learn(date);
    }
    match meaning {
        Meaning::Said => true,
        // Okta answers, or nobody knows because this machine could not ask.
        Meaning::Limited(_) | Meaning::Failed(FailureKind::Local) => reason == PauseReason::Unreachable,
        Meaning::Refused(_) => matches!(reason, PauseReason::Unreachable | PauseReason::ReadOnly),
        Meaning::Failed(_) => false,
    }
}

/// The longest that Okta may take to tell its time.
const TIME_MAX: Duration = Duration::from_secs(10);

/// The shortest time between two questions: an org without a `Date` will have none the next time.
const TIME_EVERY: Duration = Duration::from_secs(60);

/// Asks Okta for its time, where that is not known.
pub(super) async fn learn_time(connection: &Connection, clock: &Clock, observer: &Arc<dyn Observer>) {
    let mut asked = connection.okta_time.asked.lock().await;
    let is_recent = asked.is_some_and(|at| at.elapsed() < TIME_EVERY);
    if connection.ahead(clock).is_none() && !is_recent {
        // Whether the answer is good matters to nobody here.
        let asking = probe(connection, PauseReason::Unreachable, "okta.users.read", observer);
        let _ = timeout(TIME_MAX, asking).await;
        *asked = Some(Instant::now());
    }
}

/// The least that shows it. Only a write shows whether Okta takes writes, from anybody or with this scope; these
/// name nobody.
fn asking(reason: PauseReason, scope: &str) -> Request {
    let list = |route| Request::get(route, &[]).query("limit", 1);
    let is_write = match reason {
        PauseReason::ReadOnly => true,
        PauseReason::Forbidden => scope.ends_with(".manage"),
        PauseReason::Unauthorized | PauseReason::Unreachable => false,
    };
    let nobody = UserKey::try_from("00u00000000000000000".to_owned()).expect("it is shaped like an id");
    match (scope.split('.').nth(1), is_write) {
        (Some("groups"), true) => {
            Request::delete("/api/v1/groups/{groupId}/users/{userId}", &[&nobody, &nobody])
        }
        (Some("apps"), true) => Request::delete("/api/v1/apps/{appId}/users/{userId}", &[&nobody, &nobody]),
        (_, true) => Request::post("/api/v1/users/{userId}/lifecycle/unsuspend", &[&nobody]),
        (Some("groups"), false) if reason == PauseReason::Forbidden => list("/api/v1/groups"),
        (Some("apps"), false) if reason == PauseReason::Forbidden => list("/api/v1/apps"),
        (Some("logs"), false) if reason == PauseReason::Forbidden => list("/api/v1/logs"),
        (_, false) => list("/api/v1/users"),
    }
}
