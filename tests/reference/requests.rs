//! Every request the subtools send, before Okta's document.

use std::collections::BTreeSet;

use okta_worker::domain::http::{Request, Response};
use okta_worker::tools::catalogue::CATALOGUE;

use super::openapi::Validator;
use super::{drive, response, tool};

/// What a subtool sends although the document does not have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Exception {
    operation: &'static str,
    what: &'static str,
    evidence: &'static str,
}

const EXCEPTIONS: &[Exception] = &[
    Exception {
        operation: "update_user",
        what: "no such operation: PUT /api/v1/users/{id}",
        evidence: "recorded in update_user.jsonl, with another user type",
    },
    Exception {
        operation: "create_group",
        what: CUSTOM_ATTRIBUTE,
        evidence: "recorded in create_group.jsonl",
    },
    Exception {
        operation: "update_group",
        what: CUSTOM_ATTRIBUTE,
        evidence: "recorded in update_group.jsonl",
    },
    Exception { operation: "list_user_groups", what: UNDECLARED_AFTER, evidence: LINKED },
    Exception { operation: "list_user_groups", what: UNDECLARED_LIMIT, evidence: LINKED },
    Exception { operation: "list_user_apps", what: UNDECLARED_AFTER, evidence: LINKED },
    Exception { operation: "list_user_apps", what: UNDECLARED_LIMIT, evidence: LINKED },
];

const CUSTOM_ATTRIBUTE: &str =
    "/profile: Unevaluated properties are not allowed ('costCenter' was unexpected)";
const UNDECLARED_AFTER: &str = "query `after` is not declared";
const UNDECLARED_LIMIT: &str = "query `limit` is not declared";

/// Our first request has neither; a later one repeats what Okta's own link said.
const LINKED: &str =
    "recorded in list_user_groups.jsonl (`limit` in the links); \"Pagination\": follow the link as it is";

/// Calls beyond the manifests' examples: every argument once, users by login and by a login with a slash.
const CALLS: &[(&str, &str)] = &[
    (
        "create_user",
        r#"{"profile":{"login":"jane@example.com","custom":[1]},"activate":true,"credentials":{"password":{"value":"x"},"recovery_question":{"question":"q","answer":"a"},"provider":{"type":"OKTA","name":"OKTA"}},"group_ids":["00g1"],"next_login":"changePassword","provider":true,"type_id":"oty1","realm_id":"guo1"}"#,
    ),
    ("get_user", r#"{"user_id":"team/jane@example.com"}"#),
    ("update_user", r#"{"user_id":"team/jane@example.com","profile":{"firstName":null,"title":""}}"#),
    ("delete_user", r#"{"user_id":"jane@example.com"}"#),
    ("deactivate_user", r#"{"user_id":"00u1abCdEfGhIjKlMnOp","send_email":true}"#),
    ("suspend_user", r#"{"user_id":"jane"}"#),
    ("list_user_groups", r#"{"user_id":"00u1abCdEfGhIjKlMnOp","limit":1000}"#),
    (
        "list_groups",
        r#"{"search":"type eq \"OKTA_GROUP\"","sort_by":"profile.name","sort_order":"desc","expand":"app"}"#,
    ),
    ("list_groups", r#"{"q":"a","limit":100000}"#),
    ("list_users", r#"{"q":"a","limit":100000}"#),
    ("create_group", r#"{"name":"Sales","profile":{"costCenter":"42"}}"#),
    ("update_group", r#"{"group_id":"00g1","description":null}"#),
    ("add_user_to_group", r#"{"group_id":"00g1","user_id":"jane@example.com"}"#),
    ("remove_user_from_group", r#"{"group_id":"00g1","user_id":"jane@example.com"}"#),
    ("list_apps", r#"{"q":"a","filter":"user.id eq \"00u1\"","expand":"user/00u1","limit":100000}"#),
    ("list_app_users", r#"{"app_id":"0oa1","limit":100000}"#),
    ("list_group_members", r#"{"group_id":"00g1","limit":100000}"#),
    ("assign_user_to_app", r#"{"app_id":"0oa1","user_id":"jane@example.com","scope":"GROUP"}"#),
    ("remove_user_from_app", r#"{"app_id":"0oa1","user_id":"jane@example.com","send_email":true}"#),
    ("list_app_groups", r#"{"app_id":"0oa1","q":"a","expand":"metadata","limit":3}"#),
    ("list_app_groups", r#"{"app_id":"0oa1","limit":100000}"#),
    ("list_group_apps", r#"{"group_id":"00g1","limit":100000}"#),
    (
        "assign_group_to_app",
        r#"{"app_id":"0oa1","group_id":"00g1","priority":3,"profile":{"role":"viewer"}}"#,
    ),
    (
        "clear_user_sessions",
        r#"{"user_id":"jane@example.com","revoke_oauth_tokens":false,"forget_devices":true}"#,
    ),
    ("list_user_factors", r#"{"user_id":"jane@example.com"}"#),
    ("reset_user_factors", r#"{"user_id":"team/jane@example.com"}"#),
    ("reactivate_user", r#"{"user_id":"00u1abCdEfGhIjKlMnOp","send_email":false}"#),
    ("update_user", r#"{"user_id":"00u1abCdEfGhIjKlMnOp","type_id":"oty1","realm_id":"guo1"}"#),
    ("list_groups", r#"{"q":"a","filter":"type eq \"OKTA_GROUP\""}"#),
    ("list_events", r#"{"since":"2026-11-01T00:00:00Z","limit":100000}"#),
];

/// How an imagined Okta takes things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    /// Does what it is asked; lists have three pages.
    Agreeable,
    /// Refuses every change with this status and code, and shows a user in this status.
    Refusing(u16, &'static str, &'static str),
}

const MOODS: [Mood; 9] = [
    Mood::Agreeable,
    Mood::Refusing(404, "E0000007", "DEPROVISIONED"),
    Mood::Refusing(404, "E0000007", "ACTIVE"),
    Mood::Refusing(403, "E0000016", "ACTIVE"),
    Mood::Refusing(400, "E0000001", "SUSPENDED"),
    Mood::Refusing(403, "E0000032", "ACTIVE"),
    Mood::Refusing(403, "E0000038", "PASSWORD_EXPIRED"),
    Mood::Refusing(409, "E0000062", "ACTIVE"),
    Mood::Refusing(403, "E0000006", "ACTIVE"),
];

/// An answer in this mood. `deleted` remembers a deletion, `pages` counts pages.
fn answer(mood: Mood, name: &str, request: &Request, (deleted, pages): (&mut bool, &mut usize)) -> Response {
    let refuse = |status: u16, code: &str| {
        let body = format!(r#"{{"errorCode":"{code}","errorSummary":"s","errorCauses":[]}}"#);
        response(status, &[], &body)
    };
    let user = |status: &str, login: &str| {
        let login = serde_json::to_string(login).expect("a string serializes");
        format!(r#"{{"id":"00u1abCdEfGhIjKlMnOp","status":"{status}","profile":{{"login":{login}}}}}"#)
    };
    let status = match mood {
        _ if name == "delete_user" => "DEPROVISIONED",
        Mood::Agreeable => "ACTIVE",
        Mood::Refusing(_, _, status) => status,
    };
    match (request.is_read(), mood) {
        (false, Mood::Refusing(http, code, _)) => refuse(http, code),
        (false, Mood::Agreeable) => {
            *deleted = true;
            response(200, &[], r#"{"tempPassword":"x"}"#)
        }
        (true, _) => match request.route {
            "/api/v1/users/{userId}" if *deleted => refuse(404, "E0000007"),
            "/api/v1/users/{userId}" => {
                let login = request.path.rsplit('/').next().expect("a path has parts").replace("%40", "@");
                response(200, &[], &user(status, &login))
            }
            "/api/v1/groups/{groupId}" => response(
                200,
                &[],
                r#"{"type":"OKTA_GROUP","profile":{"name":"a","description":null,"costCenter":"c"}}"#,
            ),
            "/api/v1/users/{userId}/factors" => response(200, &[], r#"[{"id":"x"}]"#), // in one page
            "/api/v1/apps/{appId}" | "/api/v1/apps/{appId}/users/{userId}" => response(200, &[], "{}"),
            "/api/v1/users" if request.query_value("limit") == Some("2") => {
                response(200, &[], &format!("[{}]", user(status, "team/jane@example.com")))
            }
            _ => {
                *pages += 1;
                let link = format!(
                    r#"<https://acme.okta.com{}?after=c{pages}&limit=200>; rel="next""#,
                    request.path
                );
                let links: &[(&str, &str)] = if *pages < 3 { &[("link", &link)] } else { &[] };
                response(200, links, r#"[{"id":"x","uuid":"u"}]"#)
            }
        },
    }
}

#[test]
fn every_request_is_one_that_okta_documents() {
    let Some(validator) = Validator::load() else { return };
    let examples = CATALOGUE
        .iter()
        .flat_map(|entry| entry.manifest.examples.iter().map(|example| (entry.manifest.name, *example)));
    let (mut first, mut later) = (0, 0);
    let mut faults = BTreeSet::new();
    for (name, arguments) in examples.chain(CALLS.iter().copied()) {
        let tool = tool(name, arguments);
        for mood in MOODS {
            let (mut deleted, mut pages) = (false, 0);
            let (asked, _) = drive(&*tool, |request| answer(mood, name, request, (&mut deleted, &mut pages)));
            for (at, turn) in asked.iter().enumerate() {
                let request = turn.request();
                let verdict = validator.request(
                    request.method.as_str(),
                    &request.path,
                    &request.query,
                    request.body.as_deref(),
                );
                match at {
                    0 if mood == Mood::Agreeable => first += 1,
                    0 => {}
                    _ => later += 1,
                }
                for what in verdict.err().into_iter().flatten() {
                    faults.insert((name, what));
                }
            }
        }
    }
    eprintln!("requests judged: {first} first ones, {later} later ones");
    let expected: BTreeSet<(&str, String)> =
        EXCEPTIONS.iter().map(|row| (row.operation, row.what.to_owned())).collect();
    let unknown: Vec<_> = faults.difference(&expected).collect();
    let stale: Vec<_> = expected.difference(&faults).collect();
    assert!(unknown.is_empty(), "not in Okta's document: {unknown:#?}");
    assert!(stale.is_empty(), "exceptions that are not needed any more: {stale:#?}");
    assert!(EXCEPTIONS.iter().all(|row| !row.evidence.is_empty()));
}
