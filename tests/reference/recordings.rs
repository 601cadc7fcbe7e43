//! Every recorded answer, given to the subtool that would have asked for it.

use std::collections::BTreeMap;

use http::Method;
use okta_worker::domain::expected::Expected;
use okta_worker::domain::http::{Request, Response};
use okta_worker::domain::okta_error::OktaError;
use okta_worker::policy::classify::{ConnectionFacts, FailureKind, Meaning, classify};
use okta_worker::policy::pause::PauseReason;
use okta_worker::tools::Move;
use okta_worker::tools::catalogue::names;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::openapi::Validator;
use super::{drive, reference, response, tool};

/// One line of a recording.
#[derive(Deserialize)]
struct Recorded<'a> {
    source: String,
    #[serde(deserialize_with = "subtool")]
    operation: String,
    request: RecordedRequest,
    #[serde(borrow)]
    response: RecordedAnswer<'a>,
}

/// The subtool of a recorded operation. What the eight later subtools do is recorded under other names.
fn subtool<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let operation = String::deserialize(deserializer)?;
    let name = match operation.strip_prefix("aux:") {
        Some("reset_factors") => "reset_user_factors",
        Some(name) => name,
        None => &operation,
    };
    Ok(if names().any(|known| known == name) { name.to_owned() } else { operation })
}

/// The subtools of which there is no recording.
const UNRECORDED: [&str; 1] = ["list_user_factors"];

/// The files with recorded answers, one operation after another.
fn files() -> Vec<String> {
    let Some(folder) = reference() else { return Vec::new() };
    let of_subtools = names().map(|name| format!("{name}.jsonl"));
    let there = of_subtools.filter(|file| folder.join("recordings").join(file).exists());
    there.chain(["aux.jsonl".to_owned()]).collect()
}

#[derive(Deserialize)]
struct RecordedRequest {
    method: String,
    path: String,
}

#[derive(Deserialize)]
struct RecordedAnswer<'a> {
    status: u16,
    headers: BTreeMap<String, Value>,
    /// Raw, so that bytes are compared and not numbers.
    #[serde(borrow)]
    body: &'a RawValue,
}

/// One line of `sequences.jsonl`.
#[derive(Deserialize)]
struct Sequence<'a> {
    #[serde(borrow)]
    exchanges: Vec<Recorded<'a>>,
}

impl Recorded<'_> {
    /// The body as Okta sent it: what is no JSON stands there as a string, an empty one as `""`.
    fn body(&self) -> String {
        serde_json::from_str(self.response.body.get()).unwrap_or_else(|_| self.response.body.get().to_owned())
    }

    fn response(&self) -> Response {
        let mut headers = Vec::new();
        for (name, value) in &self.response.headers {
            match value {
                Value::Array(values) => {
                    headers
                        .extend(values.iter().filter_map(Value::as_str).map(|value| (name.as_str(), value)));
                }
                other => headers.extend(other.as_str().map(|value| (name.as_str(), value))),
            }
        }
        response(self.response.status, &headers, &self.body())
    }

    /// The request as the worker would send it; `None` for one that no subtool sends.
    fn request(&self) -> Option<Request> {
        let path = self.request.path.trim_end_matches('/').strip_prefix("/api/v1/")?;
        let parts: Vec<&str> = path.split('/').collect();
        let route = match parts[..] {
            ["users" | "groups" | "apps" | "logs"] => format!("/api/v1/{path}"),
            ["users", _] => "/api/v1/users/{userId}".to_owned(),
            ["groups", _] => "/api/v1/groups/{groupId}".to_owned(),
            ["apps", _] => "/api/v1/apps/{appId}".to_owned(),
            ["groups", _, "users", _] => "/api/v1/groups/{groupId}/users/{userId}".to_owned(),
            ["apps", _, "groups", _] => "/api/v1/apps/{appId}/groups/{groupId}".to_owned(),
            ["apps", _, "users", _] => "/api/v1/apps/{appId}/users/{userId}".to_owned(),
            ["users", _, "lifecycle", step] => format!("/api/v1/users/{{userId}}/lifecycle/{step}"),
            [of @ ("users" | "groups" | "apps"), _, below] => format!("/api/v1/{of}/{{id}}/{below}"),
            _ => return None,
        };
        let method = self.request.method.parse().expect("a method");
        let key = parts.iter().skip(1).step_by(2).next_back().copied();
        let key = key.filter(|_| !route.contains("/lifecycle/"));
        // The temporary password once came from the path that now answers with the user (recorded in 2020).
        let expected = match self.body().contains("tempPassword") {
            true => Expected::Step,
            false => Expected::of(&method, &route, key),
        };
        names()
            .any(|name| name == self.operation)
            .then(|| Request::new(method, "/api/v1/users", &[]).expecting(expected))
    }

    fn is_success(&self) -> bool {
        (200..300).contains(&self.response.status)
    }
}

/// Reads every exchange of a file and shows it.
fn each(file: &str, mut show: impl FnMut(&Recorded<'_>)) -> bool {
    let Some(folder) = reference() else { return false };
    let path = folder.join("recordings").join(file);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    for line in text.lines() {
        if file == "sequences.jsonl" {
            let sequence: Sequence<'_> = serde_json::from_str(line).expect("a sequence");
            sequence.exchanges.iter().for_each(&mut show);
        } else {
            show(&serde_json::from_str(line).expect("an exchange"));
        }
    }
    true
}

/// The arguments whose conversation this answer belongs to.
fn arguments(recorded: &Recorded<'_>) -> String {
    let body = recorded.body();
    let user = r#""user_id":"00u1abCdEfGhIjKlMnOp""#;
    let inner = match recorded.operation.as_str() {
        "create_user" => r#""profile":{}"#.to_owned(),
        "update_user" => format!(r#"{user},"profile":{{}}"#),
        "activate_user" | "reactivate_user" if body.contains("activationToken") => {
            format!(r#"{user},"send_email":false"#)
        }
        "reset_user_password" if body.contains("resetPasswordUrl") => format!(r#"{user},"send_email":false"#),
        "expire_user_password" if body.contains("tempPassword") => format!(r#"{user},"temp_password":true"#),
        "list_user_groups" | "list_user_apps" => format!(r#"{user},"limit":100000"#),
        "list_users" | "list_groups" | "list_apps" | "list_events" => r#""limit":100000"#.to_owned(),
        "list_group_members" => r#""group_id":"00g1","limit":100000"#.to_owned(),
        "list_app_users" | "list_app_groups" => r#""app_id":"0oa1","limit":100000"#.to_owned(),
        "list_group_apps" => r#""group_id":"00g1","limit":100000"#.to_owned(),
        "assign_group_to_app" | "remove_group_from_app" => r#""app_id":"0oa1","group_id":"00g1""#.to_owned(),
        "create_group" => r#""name":"x""#.to_owned(),
        "update_group" => r#""group_id":"00g1","description":"x""#.to_owned(),
        "get_group" | "delete_group" => r#""group_id":"00g1""#.to_owned(),
        "add_user_to_group" | "remove_user_from_group" => format!(r#""group_id":"00g1",{user}"#),
        "get_app" => r#""app_id":"0oa1""#.to_owned(),
        "assign_user_to_app" | "remove_user_from_app" => format!(r#""app_id":"0oa1",{user}"#),
        _ => user.to_owned(),
    };
    format!("{{{inner}}}")
}

/// Whether this is the request that the recorded answer answers; the others only look around it.
fn is_the_request(operation: &str, request: &Request) -> bool {
    match operation {
        "get_user" | "get_group" | "get_app" => true,
        _ if operation.starts_with("list_") => request.query_value("after").is_none(),
        _ => request.method != Method::GET,
    }
}

/// What the looks around a recorded answer show.
fn around(operation: &str, request: &Request, done: bool) -> Response {
    let user = |status: &str| {
        format!(
            r#"{{"id":"00u1abCdEfGhIjKlMnOp","status":"{status}","profile":{{"login":"j@example.com"}}}}"#
        )
    };
    match (request.route, operation) {
        ("/api/v1/users/{userId}", "delete_user") if done => response(404, &[], "{}"),
        ("/api/v1/users/{userId}", "delete_user") => response(200, &[], &user("DEPROVISIONED")),
        ("/api/v1/users/{userId}", "reactivate_user") => response(200, &[], &user("PROVISIONED")),
        ("/api/v1/users/{userId}", _) => response(200, &[], &user("ACTIVE")),
        ("/api/v1/groups/{groupId}", _) => {
            response(200, &[], r#"{"type":"OKTA_GROUP","profile":{"name":"x"}}"#)
        }
        ("/api/v1/apps/{appId}", _) => response(200, &[], "{}"),
        _ => response(200, &[], "[]"),
    }
}

/// The result a success must come out as.
fn expected(recorded: &Recorded<'_>) -> String {
    let body = recorded.body();
    match recorded.operation.as_str() {
        "activate_user" | "reactivate_user" | "reset_user_password" => body
            .replace("activationUrl", "activation_url")
            .replace("activationToken", "activation_token")
            .replace("resetPasswordUrl", "reset_password_url"),
        "expire_user_password" => body.replace("tempPassword", "temp_password"),
        "delete_user"
        | "deactivate_user"
        | "suspend_user"
        | "unsuspend_user"
        | "unlock_user"
        | "delete_group"
        | "add_user_to_group"
        | "remove_user_from_group"
        | "remove_user_from_app"
        | "remove_group_from_app"
        | "clear_user_sessions"
        | "reset_user_factors" => "{}".to_owned(),
        _ => body,
    }
}

/// Okta's error object as the recording has it: code and causes.
fn check_error(recorded: &Recorded<'_>) {
    let error = OktaError::read(&recorded.response());
    assert_eq!(error.status, recorded.response.status, "{}", recorded.source);
    let object: Value = serde_json::from_str(recorded.response.body.get()).expect("recorded JSON");
    let text = |name: &str| object[name].as_str().map(str::to_owned);
    assert_eq!(error.error_code, text("errorCode"), "{}", recorded.source);
    if error.error_code.is_some() {
        let causes: Vec<String> = object["errorCauses"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|cause| cause["errorSummary"].as_str().map(str::to_owned))
            .collect();
        assert_eq!(error.causes, causes, "{}", recorded.source);
        assert_eq!((error.summary, error.error_id), (text("errorSummary"), text("errorId")));
    } else {
        assert!(error.summary.is_some_and(|summary| !summary.is_empty()), "{}", recorded.source);
    }
}

/// The items of a list, raw.
#[derive(Deserialize)]
struct Items<'a> {
    #[serde(borrow)]
    items: Vec<&'a RawValue>,
    complete: bool,
}

/// Runs one recorded answer through its subtool.
fn run(recorded: &Recorded<'_>) {
    let operation = recorded.operation.as_str();
    let tool = tool(operation, &arguments(recorded));
    let mut done = false;
    let (_, end) = drive(&*tool, |request| {
        if !done && is_the_request(operation, request) {
            done = true;
            recorded.response()
        } else {
            around(operation, request, done)
        }
    });
    assert!(done, "{}: never asked", recorded.source);
    match end {
        Move::Done(end, _) if recorded.is_success() && operation.starts_with("list_") => {
            let list: Items<'_> = serde_json::from_str(end.output.get()).expect("a list");
            let items: Vec<&str> = list.items.iter().map(|item| item.get()).collect();
            let recorded_items: Vec<&RawValue> =
                serde_json::from_str(recorded.response.body.get()).expect("a recorded list");
            let recorded_items: Vec<&str> = recorded_items.iter().map(|item| item.get()).collect();
            assert_eq!(items, recorded_items, "{}", recorded.source);
            assert!(list.complete, "{}", recorded.source);
        }
        Move::Done(end, _) if recorded.is_success() => {
            assert_eq!(end.output.get(), expected(recorded), "{}", recorded.source);
        }
        // "The user is not locked out", and no assignment where user and application are: done already.
        Move::Done(end, _) => {
            let is_known =
                ["unlock_user", "remove_user_from_app", "remove_group_from_app"].contains(&operation);
            assert!(is_known, "{}", recorded.source);
            assert_eq!((end.effect.as_str(), end.output.get()), ("unchanged", "{}"), "{}", recorded.source);
        }
        Move::Refused(error) => {
            assert!(!recorded.is_success(), "{}: {error:?}", recorded.source);
            assert_eq!(*error, OktaError::read(&recorded.response()), "{}", recorded.source);
        }
        other => panic!("{}: {other:?}", recorded.source),
    }
}

#[test]
fn every_recorded_answer_comes_out_byte_for_byte_and_every_error_is_read() {
    let mut ran: BTreeMap<&str, usize> = names().map(|name| (name, 0)).collect();
    let mut errors = 0;
    for file in &files().into_iter().chain(["sequences.jsonl".to_owned()]).collect::<Vec<_>>() {
        let is_there = each(file, |recorded| {
            if let Some(count) = ran.get_mut(recorded.operation.as_str()) {
                run(recorded);
                *count += 1;
            }
            if !recorded.is_success() && recorded.response.body.get().starts_with('{') {
                check_error(recorded);
                errors += 1;
            }
        });
        if !is_there {
            return;
        }
    }
    for (operation, count) in &ran {
        eprintln!("{operation}: {count} recorded answers");
    }
    eprintln!("errors read: {errors}");
    let silent: Vec<_> = ran.iter().filter(|(_, count)| **count == 0).map(|(name, _)| *name).collect();
    assert_eq!(silent, UNRECORDED, "no recorded answer");
}

/// What is recorded and did not come from Okta's API: operation, status.
const NOT_OKTA: [(&str, u16); 2] = [
    ("create_user", 404), // {"status":404,"message":"Resource not found"}: a gateway
    ("list_users", 404),  // the sign-in page of a host that is no org
];

#[test]
fn every_recorded_answer_is_known_as_okta_s_own() {
    let (mut known, mut unknown) = (0, 0);
    for file in files().into_iter().chain(["sequences.jsonl".to_owned()]) {
        each(&file, |recorded| {
            let Some(request) = recorded.request() else { return };
            let answer = recorded.response();
            let what = format!("{} {} {}", recorded.source, recorded.operation, answer.status);
            let is_gateway =
                NOT_OKTA.contains(&(&recorded.operation, answer.status)) && !OktaError::is_in(&answer);
            let not_okta = Meaning::Failed(FailureKind::NotOkta);
            let is_unauthorized = answer.status == 401 && !OktaError::read(&answer).is("E0000015");
            let expected = match (is_gateway, is_unauthorized) {
                (true, _) => not_okta,
                (false, true) => Meaning::Refused(PauseReason::Unauthorized),
                (false, false) => Meaning::Answered,
            };
            assert_eq!(classify(&request, Ok(&answer), ConnectionFacts::NOTHING), expected, "{what}");
            *(if is_gateway { &mut unknown } else { &mut known }) += 1;
            // And never of another operation: a page that answers everything alike is none of them.
            if answer.is_success() {
                let nothing = Response::new(answer.status, answer.headers.clone(), "<html></html>");
                assert_eq!(classify(&request, Ok(&nothing), ConnectionFacts::NOTHING), not_okta, "{what}");
            }
        });
    }
    eprintln!("recorded answers known as Okta's: {known}; pages: {unknown}");
    assert!(reference().is_none() || (known > 1000 && unknown == NOT_OKTA.len()), "{known} {unknown}");
}

#[test]
fn errors_of_other_operations_are_read_too() {
    let mut errors = 0;
    for file in ["other_errors.jsonl", "aux.jsonl"] {
        let is_there = each(file, |recorded| {
            if !recorded.is_success() {
                check_error(recorded);
                errors += 1;
            }
        });
        if !is_there {
            return;
        }
    }
    eprintln!("errors of other operations read: {errors}");
    assert!(errors > 0);
}

#[test]
fn a_recorded_assignment_is_what_already_assigned_answers_with() {
    let mut read = 0;
    let is_there = each("aux.jsonl", |recorded| {
        if recorded.operation != "aux:get_app_user" || !recorded.is_success() {
            return;
        }
        let assign = tool("assign_user_to_app", r#"{"app_id":"0oa1","user_id":"00u1abCdEfGhIjKlMnOp"}"#);
        let (_, end) = drive(&*assign, |request| match request.is_read() {
            true => recorded.response(),
            false => response(409, &[], r#"{"errorCode":"E0000062","errorSummary":"s"}"#),
        });
        let Move::Done(done, _) = end else { panic!("{}: {end:?}", recorded.source) };
        assert_eq!((done.effect.as_str(), done.output.get()), ("unchanged", &*recorded.body()));
        read += 1;
    });
    assert!(!is_there || read > 0);
}

/// Where Okta's answers do not fit its own document: operation, a part of the fault, why.
const MISFITS: [(&str, &str, &str); 8] = [
    ("create_user", ": \"error", "a 404 of Okta's gateway, which is no error object"),
    ("list_users", "the body is not JSON", "the HTML page of a host that is no org"),
    ("update_user", "no such operation: PUT /api/v1/users/{id}", "recorded with PUT, which is not ours"),
    ("get_app", "/name: ", "the document knows names of templates only"),
    ("get_app", "/settings/", "settings of catalogue applications lack what templates have"),
    ("list_apps", "/name: ", "the same, item by item"),
    ("list_apps", "/settings/", "the same, and keys without what the document requires"),
    ("list_events", "/client/id: ", "a client without an id"),
];

#[test]
fn the_judge_takes_what_okta_really_answered() {
    let Some(validator) = Validator::load() else { return };
    let (mut judged, mut misfits) = (0, BTreeMap::from(MISFITS.map(|row| (row, 0))));
    for file in files() {
        each(&file, |recorded| {
            if !names().any(|name| name == recorded.operation) {
                return;
            }
            let request = &recorded.request;
            let path = request.path.trim_end_matches('/');
            let answer = recorded.response();
            let faults = validator.response(&request.method, path, answer.status, &answer.body);
            judged += 1;
            for what in faults.err().into_iter().flatten() {
                let row = MISFITS
                    .into_iter()
                    .find(|(operation, part, _)| *operation == recorded.operation && what.contains(part))
                    .unwrap_or_else(|| panic!("{}: {what}", recorded.source));
                *misfits.entry(row).or_insert(0) += 1;
            }
        });
    }
    eprintln!("recorded answers judged: {judged}");
    for ((operation, _, why), count) in &misfits {
        eprintln!("{operation}: {count} misfits, {why}");
        assert!(*count > 0, "{operation}: no misfit any more");
    }
}
