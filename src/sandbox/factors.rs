//! The factors and sessions of users.
//!
//! A user of a simulation has the factors that a test enrolls, and a session after [`Org::sign_in`].

use serde_json::Value;

use super::call::RequestContext;
use super::effects::ChangeKind;
use super::factor::Factor;
use super::ids::Id;
use super::org::Org;
use super::refusal::OktaRefusal;
use super::reply::{OrgReply, Stamp};

impl Org {
    /// Enrolls a factor of this type, such as `sms`, as a user does; returns false if the user does not exist.
    pub fn enroll_factor(&mut self, user: Id, kind: &str) -> bool {
        if self.users.get(user).is_none() {
            return false;
        }
        let factor =
            Factor { id: self.ids.mint("fac"), kind: kind.to_owned(), enrolled: Stamp::seconds(self.now) };
        self.factors.entry(user).or_default().push(factor);
        true
    }

    pub(super) fn list_factors(&self, asked: &RequestContext<'_>) -> Result<OrgReply, OktaRefusal> {
        let user = self.user_at(&asked.ids[0])?.id;
        let factors = self.factors.get(&user).map(Vec::as_slice).unwrap_or_default();
        let views: Vec<Value> = factors.iter().map(|factor| factor.view(&self.settings.host, user)).collect();
        Ok(OrgReply::json(&views))
    }

    /// Removes every factor. Guess: for a user of any status; only one that is active is recorded.
    pub(super) fn reset_factors(&mut self, asked: &RequestContext<'_>) -> Result<OrgReply, OktaRefusal> {
        let user = self.user_at(&asked.ids[0])?.clone();
        if self.factors.remove(&user.id).is_some() {
            self.happened_to_user(asked.cause, ChangeKind::FactorsReset, &user);
        }
        Ok(OrgReply::done())
    }

    /// Begins a session, as a user does who signs in; returns false if the user does not exist.
    pub fn sign_in(&mut self, user: Id) -> bool {
        self.users.get(user).is_some() && {
            self.signed_in.insert(user);
            true
        }
    }

    pub(super) fn clear_sessions(&mut self, asked: &RequestContext<'_>) -> Result<OrgReply, OktaRefusal> {
        let user = self.user_at(&asked.ids[0])?.clone();
        if self.signed_in.remove(&user.id) {
            self.happened_to_user(asked.cause, ChangeKind::SessionsCleared, &user);
        }
        Ok(OrgReply::empty())
    }
}
