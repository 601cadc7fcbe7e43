//! Resolution of a caller's id, login or short name to the key of an Okta path.

use crate::domain::http::Request;
use crate::domain::ids::{PathSegment, UserId, UserKey, excerpt};
use crate::domain::result::{ErrorCode, Failure};

use super::history::OktaReply;
use super::replay::Replay;
use super::run::Stop;
use super::user_state::UserState;

/// The name of the argument that names a user, in every subtool that has one.
const USER_ID: &str = "user_id";

/// Returns the key for a path. Ids and e-mail-shaped logins are used as they are. Any other key is read
/// first: Okta also accepts a short name (`jane` for `jane@example.com`) while it is unambiguous, and a
/// subtool must not act on an arbitrary user.
pub(super) fn user(key: &UserKey, okta: &mut Replay<'_>) -> Result<UserId, Stop> {
    if key.as_str().contains('/') {
        return by_search(key, okta);
    }
    if key.is_id_shaped() || key.as_str().contains('@') {
        return Ok(UserId::given(key));
    }
    by_reading(key, okta)
}

/// Returns the user's id, read if the key may be a login: for bodies and for paths below groups and
/// applications, which accept nothing else (Okta's OpenAPI: `userId` is "ID of an existing Okta user",
/// while `/users/{id}` takes "an ID, login, or login shortname").
pub(super) fn id(key: &UserKey, okta: &mut Replay<'_>) -> Result<UserId, Stop> {
    if key.as_str().contains('/') {
        by_search(key, okta)
    } else if key.is_id_shaped() {
        Ok(UserId::given(key))
    } else {
        by_reading(key, okta)
    }
}

/// Searches for a user whose login holds a slash. Such a login cannot be part of a path in any encoding
/// (Okta answers 405, okta-sdk-nodejs issue 430).
fn found_by_search(key: &UserKey, okta: &mut Replay<'_>) -> Result<Option<UserState>, Stop> {
    let literal = serde_json::to_string(key).expect("a string serializes");
    let search = format!("profile.login eq {literal}");
    let found: Vec<UserState> =
        okta.ask(Request::get("/api/v1/users", &[]).query("search", search).query("limit", 2))?.read()?;
    Ok(found.into_iter().find(|user| is_login(user, key)))
}

fn by_search(key: &UserKey, okta: &mut Replay<'_>) -> Result<UserId, Stop> {
    match found_by_search(key, okta)? {
        Some(user) => UserId::from_okta(&user.id).map_err(|_| Stop::unreadable()),
        None => {
            let message = format!("failed to find user `{}`", excerpt(key.as_str()));
            let failure = Failure::new(ErrorCode::NotFound, message).at(Some("arguments.user_id"));
            Err(Stop::Fail(Box::new(failure)))
        }
    }
}

/// Returns the user with this login, if there is one.
pub(super) fn is_there(key: &UserKey, okta: &mut Replay<'_>) -> Result<Option<UserState>, Stop> {
    if key.as_str().contains('/') {
        return found_by_search(key, okta);
    }
    let reply = read(key, okta)?;
    if !reply.is_success() {
        let error = reply.error();
        return if error.status == 404 { Ok(None) } else { Err(Stop::Refused(Box::new(error))) };
    }
    let user: UserState = reply.read()?;
    Ok(is_login(&user, key).then_some(user))
}

fn by_reading(key: &UserKey, okta: &mut Replay<'_>) -> Result<UserId, Stop> {
    let user: UserState = read(key, okta)?.read()?;
    if user.id == key.as_str() || is_login(&user, key) {
        return UserId::from_okta(&user.id).map_err(|_| Stop::unreadable());
    }
    let message = format!("`{}` is neither an id nor a whole login", excerpt(key.as_str()));
    Err(Stop::argument(USER_ID, message))
}

/// Reads a user by a key that is valid in a path.
pub(super) fn read<'a>(key: &impl PathSegment, okta: &mut Replay<'a>) -> Result<OktaReply<'a>, Stop> {
    okta.ask(reading(key))
}

/// Returns the request that reads a user.
pub(super) fn reading(key: &impl PathSegment) -> Request {
    Request::get("/api/v1/users/{userId}", &[key])
}

/// Returns true if this is the user's login; logins are case-insensitive.
fn is_login(user: &UserState, key: &UserKey) -> bool {
    user.profile.login.to_lowercase() == key.as_str().to_lowercase()
}
