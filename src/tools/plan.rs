//! Dry runs: what a write would send and how Okta would take it, found out by reads alone.
//!
//! The subtool's own conversation is held up to its first write; then the subtool is asked what reads tell
//! of that write's end. Invariant: nothing but GETs gets past here.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::domain::answer::{Effect, ErrorCode, Failure};
use crate::domain::bucket::Bucket;
use crate::domain::http::Request;
use crate::domain::link;
use crate::domain::okta_error::OktaError;

use super::{Dialogue, Done, Move, Setting, Stop, Subtool, Turn};

/// What a write would do.
#[derive(Debug, Default)]
pub struct Plan {
    /// What it would send to change something, in order.
    pub requests: Vec<Request>,
    /// How many requests it would take in all, its reads included.
    pub calls: BTreeMap<Bucket, u32>,
    /// How it would end.
    pub predicted: Predicted,
    /// What would be gone.
    pub loses: Losses,
    /// What no read shows beforehand.
    pub not_checked: Vec<&'static str>,
}

/// How a write would end.
#[derive(Debug)]
pub enum Predicted {
    /// Well, with this effect; `unknown` where nobody knows how Okta would answer.
    Well(Effect),
    /// Okta would refuse like this.
    Refused(Box<OktaError>),
    /// It would fail like this.
    Failed(Box<Failure>),
}

impl Default for Predicted {
    fn default() -> Self {
        Self::Well(Effect::Applied)
    }
}

/// What a user or an application's users would no longer have.
#[derive(Debug, Default, Serialize)]
pub struct Losses {
    /// Memberships.
    pub groups: Vec<Lost>,
    /// Assignments.
    pub apps: Vec<Lost>,
}

/// A group or an application.
#[derive(Debug, Serialize)]
pub struct Lost {
    /// Its id.
    pub id: String,
    /// Its name, as administrators see it.
    pub name: Option<String>,
}

/// What reads tell of a write's end.
#[derive(Debug, Default)]
pub struct Forecast {
    predicted: Predicted,
    loses: Losses,
    not_checked: Vec<&'static str>,
    /// Requests that follow the write.
    after: Vec<Request>,
}

impl Forecast {
    /// Okta would do it.
    pub fn applied() -> Self {
        Self::default()
    }

    /// Okta would refuse it, and a look would find it done: the request of that look.
    pub fn unchanged(look: Request) -> Self {
        Self { predicted: Predicted::Well(Effect::Unchanged), after: vec![look], ..Self::default() }
    }

    /// Neither a success nor a failure: no recording and no document shows this.
    pub fn unknown(why: &'static str) -> Self {
        Self { predicted: Predicted::Well(Effect::Unknown), not_checked: vec![why], ..Self::default() }
    }

    /// Whether Okta would do it.
    pub fn is_applied(&self) -> bool {
        matches!(self.predicted, Predicted::Well(Effect::Applied))
    }

    /// Says what no read shows.
    #[must_use]
    pub fn without(mut self, not_checked: &[&'static str]) -> Self {
        self.not_checked.extend_from_slice(not_checked);
        self
    }

    /// Says what would be gone.
    #[must_use]
    pub fn losing(mut self, loses: Losses) -> Self {
        self.loses = loses;
        self
    }

    /// Says what would be asked after the write.
    #[must_use]
    pub fn then(mut self, request: Request) -> Self {
        self.after.push(request);
        self
    }
}

/// The next move of a subtool that is to write nothing.
pub(super) fn next<T: Subtool>(tool: &T, history: &[Turn], setting: Setting<'_>) -> Move {
    let mut okta = Dialogue::new(history, setting);
    let told = tool.converse(&mut okta);
    let mut plan = Plan::default();
    okta.asked.drain(..).for_each(|bucket| plan.count(bucket));
    let forecast = match told {
        Ok(Done { effect, .. }) => Ok(Forecast { predicted: Predicted::Well(effect), ..Forecast::default() }),
        Err(Stop::Send(read)) if read.is_read() => return Move::Send(read),
        Err(Stop::Send(write)) => {
            plan.count(write.bucket());
            plan.requests.push(*write);
            tool.foresee(&mut okta)
        }
        Err(stop) => Err(stop),
    };
    let forecast = match forecast {
        Ok(forecast) => forecast,
        Err(Stop::Send(read)) => return Move::Send(read),
        Err(Stop::Refused(error)) => Forecast { predicted: Predicted::Refused(error), ..Forecast::default() },
        // An argument that does not fit is no prediction.
        Err(Stop::Fail(failure)) if failure.code == ErrorCode::InvalidArguments => {
            return Move::Fail(failure);
        }
        Err(Stop::Fail(failure)) => Forecast { predicted: Predicted::Failed(failure), ..Forecast::default() },
    };
    let Forecast { predicted, loses, mut not_checked, after } = forecast;
    if matches!(predicted, Predicted::Well(Effect::Applied | Effect::Unknown)) {
        not_checked.push(ROLE);
    }
    after.iter().for_each(|request| plan.count(request.bucket()));
    Move::Planned(Box::new(Plan { predicted, loses, not_checked, ..plan }))
}

impl Plan {
    fn count(&mut self, bucket: Bucket) {
        *self.calls.entry(bucket).or_default() += 1;
    }
}

/// What no read shows of the credential.
const ROLE: &str = "whether the credential's role covers what is changed";

/// What no read shows of a profile.
pub(super) const ATTRIBUTES: &str =
    "whether the profile has what the org's schema asks for, and nothing else";

/// What no read shows of attributes other than the login.
pub(super) const UNIQUE: &str = "whether other attributes that must be unique are taken";

/// What no read shows of a password.
pub(super) const PASSWORD_POLICY: &str = "the password policy";

/// What no read shows of users that come from a directory.
pub(super) const MASTERED: &str = "whether a directory masters the user and refuses the change";

/// Said of a step from a status of which nobody knows.
pub(super) const FROM_STATUS: &str = "whether Okta takes this step from the user's status";

/// What no read shows of a user who is locked out of some devices only.
pub(super) const DEVICES: &str = "whether the user is blocked on devices that Okta does not know";

/// What reads do not ask for: Okta refuses to reset or expire a password that is kept elsewhere.
pub(super) const HAS_PASSWORD: &str = "whether the user has a password of Okta's own";

/// Said of deactivated users, about whom Okta answers in several ways.
pub(super) const DEACTIVATED: &str = "whether Okta does this to a deactivated user";

/// Said of groups of a type that no document names.
pub(super) const GROUP_TYPE: &str = "whether Okta changes who is in a group of this type";

/// The most groups or applications that are named as lost: Okta's page of them.
const LOST_MAX: usize = 200;

/// Said when more would be lost.
const MORE: &str = "more than the first 200 groups or applications that would be lost";

/// Said when Okta does not show what would be lost.
const HIDDEN: &str = "groups or applications that would be lost, which this credential may not see";

/// Reads what somebody would lose: up to a page of objects at each request, named by `name`.
pub(super) fn lost(
    okta: &mut Dialogue<'_>,
    request: Request,
    not_checked: &mut Vec<&'static str>,
) -> Result<Vec<Lost>, Stop> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Thing {
        id: String,
        app_instance_id: Option<String>,
        label: Option<String>,
        #[serde(default)]
        profile: Named,
    }
    #[derive(Default, Deserialize)]
    struct Named {
        name: Option<String>,
    }
    let reply = okta.ask(request)?;
    if !reply.is_success() {
        not_checked.push(HIDDEN);
        return Ok(Vec::new());
    }
    let things: Vec<Thing> = reply.read()?;
    if things.len() > LOST_MAX || link::next(&reply.success()?.headers).is_some() {
        not_checked.push(MORE);
    }
    let mut lost: Vec<Lost> = Vec::new();
    for Thing { id, app_instance_id, label, profile } in things.into_iter().take(LOST_MAX) {
        let id = app_instance_id.unwrap_or(id);
        // A dashboard has several links to one application.
        if lost.iter().all(|known| known.id != id) {
            lost.push(Lost { id, name: label.or(profile.name) });
        }
    }
    Ok(lost)
}
