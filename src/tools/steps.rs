//! Steps of a user's lifecycle, recognized afterwards: by the status they lead to, by Okta's refusal to take
//! them twice, by the System Log.

use jiff::Timestamp;

use crate::domain::answer::Effect;
use crate::domain::http::Request;
use crate::domain::ids::{UserId, excerpt};
use crate::domain::okta_error::OktaError;

use super::converge::{Settled, effect, is_since, logged, look_for, settle, unknown};
use super::plan::{FROM_STATUS, Forecast};
use super::{Dialogue, LAG_PAUSE, Reply, Stop, UserState, resolve};

/// One step, as far as it must be recognized afterwards.
pub(super) struct Leading<'s> {
    /// What it does, for messages.
    pub verb: &'s str,
    /// The refusal that may mean "already so".
    pub refusal: &'s str,
    /// The statuses it can be taken from (Okta's lifecycle documentation, and recordings).
    pub from: &'s [&'s str],
    /// The statuses it leads to.
    pub to: &'s [&'s str],
    /// The statuses in which Okta is known to refuse it because it is done already.
    pub done: &'s [&'s str],
    /// The statuses in which Okta is known to refuse it otherwise. What stands in none of the lists nobody
    /// has recorded or documented.
    pub refused: &'s [&'s str],
    /// What the System Log calls it.
    pub event: &'s str,
}

/// Where a step has led.
pub(super) enum Led<'a> {
    /// Okta did it and answered.
    Did(Reply<'a>),
    /// The user as read is where the step leads, or was there and has moved on.
    There(Effect, Option<Reply<'a>>),
}

/// Takes a step that looks the same the second time.
pub(super) fn step<'a>(
    okta: &mut Dialogue<'a>,
    user: &UserId,
    write: &Request,
    leading: &Leading<'_>,
) -> Result<Led<'a>, Stop> {
    match settle(okta, write, |okta, since| look(okta, user, leading, since))? {
        Settled::Found((effect, reply)) => Ok(Led::There(effect, reply)),
        Settled::Said(reply) if reply.is_success() => Ok(Led::Did(reply)),
        Settled::Said(refused) => {
            let (effect, reply) = already(okta, user, refused, leading)?;
            Ok(Led::There(effect, Some(reply)))
        }
    }
}

/// Reads of a user whose status is changing.
const READS_MAX: usize = 4;

/// The user as soon as no step like this one is under way any more, or after some reads: Okta activates in the
/// background.
pub(super) fn settled<'a>(
    okta: &mut Dialogue<'a>,
    read: Request,
    leading: &Leading<'_>,
) -> Result<Option<(UserState, Reply<'a>)>, Stop> {
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
    /// Whether a step like this one has been taken and is not done yet.
    pub(super) fn is_on_its_way(&self, leading: &Leading<'_>) -> bool {
        let to = self.transitioning_to_status.as_deref();
        to.is_some_and(|to| leading.to.contains(&to) && !leading.to.contains(&self.status.as_str()))
    }
}

/// Whether a step that may have been taken was: the user's status, or, if that has changed since, the log.
pub(super) fn look<'a>(
    okta: &mut Dialogue<'a>,
    user: &UserId,
    leading: &Leading<'_>,
    since: Timestamp,
) -> Result<Option<(Effect, Option<Reply<'a>>)>, Stop> {
    let Some((state, reply)) = settled(okta, resolve::reading(user), leading)? else { return Ok(None) };
    if leading.to.contains(&state.status.as_str()) {
        return Ok(Some((effect(state.status_changed, Some(since)), Some(reply))));
    }
    if state.is_on_its_way(leading) {
        return Ok(Some((Effect::Applied, Some(reply))));
    }
    // It is elsewhere: never taken, or taken and left again by somebody's later step.
    let was_taken = is_since(state.status_changed, since)
        && logged(okta, leading.event, &[&state.id], since)? == Some(true);
    Ok(was_taken.then_some((Effect::Applied, None)))
}

/// How a step would end, from the user's status.
pub(super) fn foresee(
    okta: &mut Dialogue<'_>,
    user: &UserId,
    leading: &Leading<'_>,
) -> Result<Forecast, Stop> {
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

/// After a refusal: the user as read, when it is already where the step leads. Where the status is one that the
/// step starts from, the status is not why Okta refuses (a directory masters the user, say): Okta's own words are.
pub(super) fn already<'a>(
    okta: &mut Dialogue<'a>,
    user: &UserId,
    refusal: Reply<'_>,
    leading: &Leading<'_>,
) -> Result<(Effect, Reply<'a>), Stop> {
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

/// Whether a mail or a secret surely went out, surely did not, or nobody can say.
pub(super) enum Emitted {
    /// It did.
    Surely,
    /// It surely did not: the step leads elsewhere, and nothing has changed since.
    Not,
}

/// Whether a step that mails or mints something each time was taken since then.
pub(super) fn emitted(
    okta: &mut Dialogue<'_>,
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
        // There before, so that the status tells nothing; or moved on since.
        (true, false) | (false, true) => match logged(okta, leading.event, &[&state.id], since)? {
            Some(true) => Ok(Emitted::Surely),
            Some(false) => Err(lost("its status does not tell, and the System Log knows nothing yet")),
            None => Err(lost("its status does not tell, and Okta does not show the System Log")),
        },
    }
}
