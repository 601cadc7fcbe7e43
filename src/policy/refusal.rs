//! Translation of Okta's refusals to the contract: an error code, a message, and the path of the argument.

use crate::domain::ids::excerpt;
use crate::domain::okta_error::OktaError;
use crate::domain::result::{ErrorCode, Failure};

/// Turns a refusal into a failure; its message names `subtool`.
pub fn name(subtool: &str, error: OktaError) -> Failure {
    let code = code(&error);
    let (message, path) = match error.missing() {
        Some((id, kind)) => missing(subtool, id, kind),
        None => (format!("failed to run `{subtool}`: {}", describe(&error)), None),
    };
    Failure::new(code, message).at(path).with_okta(error)
}

/// Returns the code for a refusal.
fn code(error: &OktaError) -> ErrorCode {
    match error.status {
        // "Feature not enabled": the credential is good (75 recordings).
        401 if error.is("E0000015") => ErrorCode::Forbidden,
        401 => ErrorCode::Unauthorized,
        403 => forbidden(error),
        404 => ErrorCode::NotFound,
        412 => ErrorCode::PreconditionFailed,
        400 if is_taken(error) => ErrorCode::AlreadyExists,
        _ => ErrorCode::OktaRejected,
    }
}

/// Returns the code for a 403, which has three meanings: not with this credential, not in this status, not at all.
fn forbidden(error: &OktaError) -> ErrorCode {
    match error.error_code.as_deref() {
        None | Some("E0000005" | "E0000006" | "E0000015") => ErrorCode::Forbidden,
        // Already active; reset, unlock or step not allowed in this status; inactive user.
        Some("E0000016" | "E0000017" | "E0000032" | "E0000038" | "E0000117") => ErrorCode::PreconditionFailed,
        Some(_) => ErrorCode::OktaRejected,
    }
}

/// Returns true if a login or a group name is taken. The code alone does not show that: it may also mean a duplicate
/// employee number.
fn is_taken(error: &OktaError) -> bool {
    error.is("E0000001")
        && error.causes.iter().any(|cause| {
            (cause.starts_with("login:") || cause.starts_with("name:")) && cause.contains("already exists")
        })
}

/// Returns the message for a 404 that names what is missing, and the path of the argument that named it.
fn missing(subtool: &str, id: &str, kind: &str) -> (String, Option<&'static str>) {
    let (noun, path) = match kind {
        "User" => ("user", Some("arguments.user_id")),
        "UserGroup" if subtool == "create_user" => ("group", Some("arguments.group_ids")),
        "UserGroup" => ("group", Some("arguments.group_id")),
        "AppInstance" => ("application", Some("arguments.app_id")),
        other => (other, None),
    };
    (format!("failed to find {} `{}`", excerpt(noun), excerpt(id)), path)
}

/// Formats status, code, summary and causes in one line.
fn describe(error: &OktaError) -> String {
    let code = error.error_code.as_deref().map_or_else(String::new, |code| format!(" {code}"));
    let mut text = format!("Okta answered {}{code}", error.status);
    for part in error.summary.iter().chain(&error.causes) {
        text = format!("{text}: {part}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(status: u16, code: Option<&str>, summary: &str, causes: &[&str]) -> OktaError {
        OktaError {
            status,
            error_code: code.map(str::to_owned),
            summary: Some(summary.to_owned()),
            causes: causes.iter().map(|cause| (*cause).to_owned()).collect(),
            error_id: None,
        }
    }

    #[test]
    fn status_code_and_cause_name_the_error() {
        use ErrorCode::{AlreadyExists, Forbidden, NotFound, OktaRejected, PreconditionFailed, Unauthorized};
        let taken = "An object with this field already exists in the current organization";
        let rows = [
            (401, Some("E0000011"), "", "", Unauthorized),
            (401, None, "invalid_token", "", Unauthorized),
            (401, Some("E0000015"), "", "", Forbidden),
            (403, Some("E0000006"), "", "", Forbidden),
            (403, None, "insufficient_scope", "", Forbidden),
            (403, Some("E0000038"), "", "", PreconditionFailed),
            (403, Some("E0000017"), "", "", PreconditionFailed),
            (403, Some("E0000046"), "", "", OktaRejected),
            (404, Some("E0000007"), "", "", NotFound),
            (412, None, "", "", PreconditionFailed),
            (400, Some("E0000001"), "", &format!("login: {taken}"), AlreadyExists),
            (400, Some("E0000001"), "", &format!("name: {taken}"), AlreadyExists),
            (400, Some("E0000001"), "", &format!("employeeNumber: {taken}"), OktaRejected),
            (
                400,
                Some("E0000001"),
                "",
                "login: Username must be in the form of an email address",
                OktaRejected,
            ),
            (501, Some("E0000060"), "", "", OktaRejected),
        ];
        for (status, code, summary, cause, expected) in rows {
            let failure = name("create_user", error(status, code, summary, &[cause]));
            assert_eq!(failure.code, expected, "{status} {code:?} {summary} {cause}");
            assert_eq!(failure.okta.unwrap().status, status);
        }
    }

    #[test]
    fn a_404_points_at_the_argument() {
        let gone = |kind: &str| {
            error(404, Some("E0000007"), &format!("Not found: Resource not found: x ({kind})"), &[])
        };
        let rows = [
            ("get_user", "User", "failed to find user `x`", Some("arguments.user_id")),
            ("add_user_to_group", "UserGroup", "failed to find group `x`", Some("arguments.group_id")),
            ("create_user", "UserGroup", "failed to find group `x`", Some("arguments.group_ids")),
            ("get_app", "AppInstance", "failed to find application `x`", Some("arguments.app_id")),
            ("create_user", "Realm", "failed to find Realm `x`", None),
        ];
        for (subtool, kind, message, path) in rows {
            let failure = name(subtool, gone(kind));
            assert_eq!((failure.message.as_str(), failure.path.as_deref()), (message, path));
        }
    }

    #[test]
    fn the_message_holds_code_summary_and_causes() {
        let refused = error(400, Some("E0000001"), "Api validation failed: login", &["login: too short"]);
        assert_eq!(
            name("create_user", refused).message,
            "failed to run `create_user`: Okta answered 400 E0000001: Api validation failed: login: login: too short"
        );
    }
}
