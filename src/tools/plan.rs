//! The plan of a dry run: the requests that a write would send, Okta's likely answer, and the losses.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::domain::bucket::Bucket;
use crate::domain::http::Request;
use crate::domain::link;
use crate::domain::okta_error::OktaError;
use crate::domain::result::{Effect, Failure};

use super::replay::Replay;
use super::run::Stop;

/// The plan of a write.
#[derive(Debug, Default)]
pub struct Plan {
    /// The writes that it would send, in order.
    pub requests: Vec<Request>,
    /// The number of requests in total, including reads.
    pub calls: BTreeMap<Bucket, u32>,
    /// The predicted end.
    pub predicted: Predicted,
    /// The memberships and assignments that would be lost.
    pub loses: Losses,
    /// The conditions that no read can check beforehand.
    pub not_checked: Vec<&'static str>,
}

/// The predicted end of a write.
#[derive(Debug)]
pub enum Predicted {
    /// Success, with this effect; `unknown` if it is not known how Okta would answer.
    Well(Effect),
    /// Okta would refuse with this error.
    Refused(Box<OktaError>),
    /// The subtool would fail with this failure.
    Failed(Box<Failure>),
}

impl Default for Predicted {
    fn default() -> Self {
        Self::Well(Effect::Applied)
    }
}

/// The memberships and assignments that a user or an application's users would lose.
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
    /// The id.
    pub id: String,
    /// The name that administrators see.
    pub name: Option<String>,
}

/// The prediction of a write's end, from reads.
#[derive(Debug, Default)]
pub struct Forecast {
    pub(super) predicted: Predicted,
    pub(super) loses: Losses,
    pub(super) not_checked: Vec<&'static str>,
    /// The requests after the write.
    pub(super) after: Vec<Request>,
}

impl Forecast {
    /// Predicts that Okta would execute the write.
    pub fn applied() -> Self {
        Self::default()
    }

    /// Predicts that Okta would refuse the write and that the request `look` would find it already done.
    pub fn unchanged(look: Request) -> Self {
        Self { predicted: Predicted::Well(Effect::Unchanged), after: vec![look], ..Self::default() }
    }

    /// Predicts neither success nor failure: no recording and no document shows this case.
    pub fn unknown(why: &'static str) -> Self {
        Self { predicted: Predicted::Well(Effect::Unknown), not_checked: vec![why], ..Self::default() }
    }

    /// Returns true if Okta would execute the write.
    pub fn is_applied(&self) -> bool {
        matches!(self.predicted, Predicted::Well(Effect::Applied))
    }

    /// Adds conditions that no read can check.
    #[must_use]
    pub fn without(mut self, not_checked: &[&'static str]) -> Self {
        self.not_checked.extend_from_slice(not_checked);
        self
    }

    /// Sets the losses.
    #[must_use]
    pub fn losing(mut self, loses: Losses) -> Self {
        self.loses = loses;
        self
    }

    /// Adds a request after the write.
    #[must_use]
    pub fn then(mut self, request: Request) -> Self {
        self.after.push(request);
        self
    }
}

impl Plan {
    pub(super) fn count(&mut self, bucket: Bucket) {
        *self.calls.entry(bucket).or_default() += 1;
    }
}

/// The unchecked condition of a profile.
pub(super) const ATTRIBUTES: &str =
    "whether the profile has what the org's schema asks for, and nothing else";

/// The unchecked condition of attributes other than the login.
pub(super) const UNIQUE: &str = "whether other attributes that must be unique are taken";

/// The unchecked condition of a password.
pub(super) const PASSWORD_POLICY: &str = "the password policy";

/// The unchecked condition of users that come from a directory.
pub(super) const MASTERED: &str = "whether a directory masters the user and refuses the change";

/// The unchecked condition of a step from a status without recording or document.
pub(super) const FROM_STATUS: &str = "whether Okta takes this step from the user's status";

/// The unchecked condition of a user who is locked out of some devices only.
pub(super) const DEVICES: &str = "whether the user is blocked on devices that Okta does not know";

/// A condition that reads do not check: Okta refuses to reset or expire a password that is kept elsewhere.
pub(super) const HAS_PASSWORD: &str = "whether the user has a password of Okta's own";

/// The unchecked condition of deactivated users, for whom Okta answers in several ways.
pub(super) const DEACTIVATED: &str = "whether Okta does this to a deactivated user";

/// The unchecked condition of groups of an undocumented type.
pub(super) const GROUP_TYPE: &str = "whether Okta changes who is in a group of this type";

/// The most groups or applications that are named as lost: one page of Okta's.
const LOST_MAX: usize = 200;

/// The note if more would be lost.
const MORE: &str = "more than the first 200 groups or applications that would be lost";

/// The note if Okta does not show the losses.
const HIDDEN: &str = "groups or applications that would be lost, which this credential may not see";

/// Reads the objects that would be lost, up to one page, with their names.
pub(super) fn lost(
    okta: &mut Replay<'_>,
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
