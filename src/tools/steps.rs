//! Lifecycle steps of a user, and their reconciliation: by the resulting status, by Okta's refusal to take
//! a step twice, by the System Log.

use jiff::Timestamp;

use crate::domain::http::Request;
use crate::domain::ids::{UserId, excerpt};
use crate::domain::okta_error::OktaError;
use crate::domain::result::Effect;

use super::converge::{Converged, effect, is_since, logged, look_for, settle, unknown};
use super::history::OktaReply;
use super::plan::{FROM_STATUS, Forecast};
use super::replay::{LAG_PAUSE, Replay};
use super::resolve;
use super::run::Stop;
use super::user_state::UserState;

/// One lifecycle step, as far as reconciliation needs it.
pub(super) struct Leading<'s> {
    /// The verb for messages.
    pub verb: &'s str,
    /// The refusal that may mean "already done".
    pub refusal: &'s str,
    /// The statuses that the step starts from (Okta's lifecycle documentation, and recordings).
    pub from: &'s [&'s str],
    /// The statuses that the step leads to.
    pub to: &'s [&'s str],
    /// The statuses in which Okta is known to refuse the step because it is already done.
    pub done: &'s [&'s str],
    /// The statuses in which Okta is known to refuse the step for another reason. For a status in none of the
    /// lists there is no recording or document.
    pub refused: &'s [&'s str],
    /// The event type in the System Log.
    pub event: &'s str,
}

/// The result of a step.
pub(super) enum Led<'a> {
    /// Okta took the step and answered.
    Did(OktaReply<'a>),
    /// The user is in the resulting status, or was and has moved on.
    There(Effect, Option<OktaReply<'a>>),
}

/// Takes a step that is idempotent.
pub(super) fn step<'a>(
    okta: &mut Replay<'a>,
    user: &UserId,
    write: &Request,
    leading: &Leading<'_>,
) -> Result<Led<'a>, Stop> {
    match settle(okta, write, |okta, since| look(okta, user, leading, since))? {
        Converged::Found((effect, reply)) => Ok(Led::There(effect, reply)),
        Converged::Said(reply) if reply.is_success() => Ok(Led::Did(reply)),
        Converged::Said(refused) => {
            let (effect, reply) = already(okta, user, refused, leading)?;
            Ok(Led::There(effect, Some(reply)))
        }
    }
}

/// The most reads of a user whose status is changing.
const READS_MAX: usize = 4;

/// Reads a user until no step like this one is in progress, or after some reads: Okta activates in the
/// background.
pub(super) fn settled<'a>(
    okta: &mut Replay<'a>,
    read: Request,
    leading: &Leading<'_>,
) -> Result<Option<(UserState, OktaReply<'a>)>, Stop> {
    let Some(mut reply) = look_for(okta, read)? else { return Ok(None) };
    let mut state: UserState = reply.read()?;
    for _ in 1..READS_MAX {
        if !state.is_on_its_way(leading) {
            break;
        }
        let again = reply.0.request.clone().after(LAG_PAUSE);
        let Some(next) = look_for(okta, again)? else { return Ok(None) };
        (reply, state) = (next, next.read()?);
    }
    Ok(Some((state, reply)))
}

impl UserState {
    /// Returns true if a step like this one has been taken and is still in progress.
    pub(super) fn is_on_its_way(&self, leading: &Leading<'_>) -> bool {
        let to = self.transitioning_to_status.as_deref();
        to.is_some_and(|to| leading.to.contains(&to) && !leading.to.contains(&self.status.as_str()))
    }
}

/// Returns the effect if an uncertain step was taken, by the user's status or, if that has changed since, by the log.
pub(super) fn look<'a>(
    okta: &mut Replay<'a>,
    user: &UserId,
    leading: &Leading<'_>,
    since: Timestamp,
) -> Result<Option<(Effect, Option<OktaReply<'a>>)>, Stop> {
    let Some((state, reply)) = settled(okta, resolve::reading(user), leading)? else { return Ok(None) };
    if leading.to.contains(&state.status.as_str()) {
        return Ok(Some((effect(state.status_changed, Some(since)), Some(reply))));
    }
    if state.is_on_its_way(leading) {
        return Ok(Some((Effect::Applied, Some(reply))));
    }
    // In another status: never taken, or taken and left again by another client's later step.
    let was_taken = is_since(state.status_changed, since)
        && logged(okta, leading.event, &[&state.id], since)? == Some(true);
    Ok(was_taken.then_some((Effect::Applied, None)))
}

/// Predicts how a step would end, from the user's status.
pub(super) fn foresee(okta: &mut Replay<'_>, user: &UserId, leading: &Leading<'_>) -> Result<Forecast, Stop> {
    let state: UserState = resolve::read(user, okta)?.read()?;
    let is_in = |statuses: &[&str]| statuses.contains(&state.status.as_str());
    if is_in(leading.from) {
        return Ok(Forecast::applied());
    }
    if is_in(leading.done) {
        return Ok(Forecast::unchanged(resolve::reading(user)));
    }
    if is_in(leading.refused) {
        return Err(wrong_status(user, &state, leading, None));
    }
    Ok(Forecast::unknown(FROM_STATUS))
}

/// Returns the user after a refusal, if it is already in the resulting status. In a status that the step starts
/// from, the status is not why Okta refuses (a directory may master the user, say), so Okta's own error is returned.
pub(super) fn already<'a>(
    okta: &mut Replay<'a>,
    user: &UserId,
    refusal: OktaReply<'_>,
    leading: &Leading<'_>,
) -> Result<(Effect, OktaReply<'a>), Stop> {
    let error = refusal.error();
    if !error.is(leading.refusal) {
        return Err(Stop::Refused(Box::new(error)));
    }
    let reply = resolve::read(user, okta)?;
    let state: UserState = reply.read()?;
    if leading.to.contains(&state.status.as_str()) {
        return Ok((effect(state.status_changed, okta.doubt()), reply));
    }
    if leading.from.contains(&state.status.as_str()) {
        return Err(Stop::Refused(Box::new(error)));
    }
    Err(wrong_status(user, &state, leading, Some(error)))
}

fn wrong_status(user: &UserId, state: &UserState, leading: &Leading<'_>, error: Option<OktaError>) -> Stop {
    let (verb, status) = (leading.verb, excerpt(&state.status));
    let message = format!("failed to {verb} user `{}`: it is {status}", excerpt(user.as_str()));
    Stop::precondition(message, error)
}

/// The certainty that an e-mail or a secret was sent.
pub(super) enum Emitted {
    /// It surely was.
    Surely,
    /// It surely was not: the user has another status, and nothing has changed since.
    Not,
}

/// Reports if a step that sends an e-mail or creates a secret each time was taken since then.
pub(super) fn emitted(
    okta: &mut Replay<'_>,
    user: &UserId,
    leading: &Leading<'_>,
    since: Timestamp,
) -> Result<Emitted, Stop> {
    let verb = leading.verb;
    let lost =
        |what: &str| unknown(format!("nobody can say whether Okta took the step to {verb} the user: {what}"));
    let Some(reply) = look_for(okta, resolve::reading(user).after(okta.settling()))? else {
        return Ok(Emitted::Not); // Okta will say that the user is not there
    };
    let state: UserState = reply.read()?;
    let is_there = leading.to.contains(&state.status.as_str());
    let has_changed = is_since(state.status_changed, since) || is_since(state.password_changed, since);
    match (is_there, has_changed) {
        (true, true) => Ok(Emitted::Surely),
        (false, false) => Ok(Emitted::Not),
        // In that status before, so that it proves nothing; or moved on since.
        (true, false) | (false, true) => match logged(okta, leading.event, &[&state.id], since)? {
            Some(true) => Ok(Emitted::Surely),
            Some(false) => Err(lost("its status does not tell, and the System Log knows nothing yet")),
            None => Err(lost("its status does not tell, and Okta does not show the System Log")),
        },
    }
}
