//! Every answer the simulated org gives the subtools, before Okta's document: declared statuses by their
//! schema, the others by Okta's error object.

use std::collections::BTreeSet;

use http::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use okta_worker::domain::http::{Request, Response};
use okta_worker::sandbox::{Handled, HttpCall, Org, OrgSettings};
use okta_worker::tools::catalogue;
use serde_json::{Value, json};

use super::openapi::Validator;
use super::{drive, tool};

/// What Okta itself sends against its document: subtool, end of the fault, evidence. A row that is no longer
/// needed fails.
const MISFITS: [(&str, &str, &str); 1] = [(
    "list_events",
    "/client/id: null is not of type \"string\"",
    "recorded in list_events.jsonl: a client without an id is null",
)];

/// The org, and everything it said that does not fit.
struct Judge {
    org: Org,
    validator: Validator,
    subtools: BTreeSet<&'static str>,
    answers: usize,
    errors: usize,
    misfits: Vec<String>,
}

impl Judge {
    fn answer(&mut self, subtool: &str, request: &Request) -> Response {
        let authorization = HeaderValue::from_static("SSWS token");
        let call = HttpCall {
            method: request.method.clone(),
            target: request.path_and_query(),
            headers: HeaderMap::from_iter([(AUTHORIZATION, authorization)]),
            body: request.body.clone().unwrap_or_default(),
        };
        let now = "2026-03-01T12:00:00Z".parse().expect("a time");
        let Handled::Said(response) = self.org.answer(&call, now) else { panic!("an answer is lost") };
        let judged =
            self.validator.response(request.method.as_str(), &request.path, response.status, &response.body);
        self.answers += 1;
        self.errors += usize::from(!response.is_success());
        // A path that Okta's document does not have is judged where requests are.
        let faults = judged.err().unwrap_or_default();
        let faults = faults.into_iter().filter(|fault| !fault.starts_with("no such"));
        self.misfits.extend(faults.map(|fault| format!("{subtool}: {} {fault}", response.status)));
        response
    }

    /// Runs a subtool to its end and returns the last answer's body.
    fn run(&mut self, subtool: &str, arguments: &Value) -> Value {
        let entry = catalogue::find(subtool).expect("a subtool");
        self.subtools.insert(entry.manifest.name);
        let tool = tool(subtool, &arguments.to_string());
        let (history, _) = drive(&*tool, |request| self.answer(subtool, request));
        let last = history.last().expect("something was asked");
        serde_json::from_slice(&last.response().expect("Okta answers").body).unwrap_or_default()
    }
}

#[test]
fn the_simulated_org_answers_the_28_as_okta_says() {
    let Some(validator) = Validator::load() else { return };
    let settings = OrgSettings {
        users: 30,
        limits: okta_worker::domain::bucket::Bucket::ALL.map(|bucket| (bucket, 10_000)).into(),
        ..OrgSettings::default()
    };
    let mut judge = Judge {
        org: Org::new(settings),
        validator,
        subtools: BTreeSet::new(),
        answers: 0,
        errors: 0,
        misfits: Vec::new(),
    };
    let app = judge.org.app_id("Payroll").expect("a seeded application").to_string();
    let profile =
        json!({"firstName": "J", "lastName": "D", "email": "j@example.com", "login": "j@example.com"});
    let password = json!({"password": {"value": "correct horse 1"}});
    let created = judge.run("create_user", &json!({"profile": profile, "credentials": password}));
    let user = created["id"].as_str().expect("an id").to_owned();
    judge.run("create_user", &json!({"profile": profile})); // the login is taken
    let waits =
        json!({"firstName": "W", "lastName": "D", "email": "w@example.com", "login": "w@example.com"});
    let created = judge.run("create_user", &json!({"profile": waits}));
    let waiting = created["id"].as_str().expect("an id").to_owned();
    let enrolled = judge.org.user_id(&user).expect("it was made");
    assert!(judge.org.enroll_factor(enrolled, "sms"));
    judge.run("create_user", &json!({"profile": {"login": "x"}})); // fields are missing
    let created = judge.run("create_group", &json!({"name": "Chess", "description": "On Mondays"}));
    let group = created["id"].as_str().expect("an id").to_owned();
    judge.run("create_group", &json!({"name": "Chess"}));
    let everyone = judge.org.everyone().to_string();

    let of_user = json!({"user_id": user});
    let nobody = json!({"user_id": "00u00000000000000000"});
    let steps = [
        ("get_user", of_user.clone()),
        ("get_user", nobody.clone()),
        ("list_users", json!({})),
        ("list_users", json!({"search": "status eq \"ACTIVE\"", "limit": 3})),
        ("list_users", json!({"filter": "not an expression"})),
        ("update_user", json!({"user_id": user, "profile": {"department": "Play"}})),
        ("update_user", json!({"user_id": user, "profile": {"noSuchThing": 1}})),
        ("add_user_to_group", json!({"group_id": group, "user_id": user})),
        ("add_user_to_group", json!({"group_id": everyone, "user_id": user})),
        ("list_user_groups", of_user.clone()),
        ("list_group_members", json!({"group_id": group})),
        ("assign_user_to_app", json!({"app_id": app, "user_id": user})),
        ("list_app_users", json!({"app_id": app, "expand": "user"})),
        ("list_user_apps", of_user.clone()),
        ("list_apps", json!({})),
        ("get_app", json!({"app_id": app})),
        ("get_app", json!({"app_id": "0oa00000000000000000"})),
        ("list_groups", json!({"expand": "stats"})),
        ("get_group", json!({"group_id": group})),
        ("update_group", json!({"group_id": group, "name": "Chess club"})),
        ("suspend_user", of_user.clone()),
        ("suspend_user", of_user.clone()),
        ("unsuspend_user", of_user.clone()),
        ("unlock_user", of_user.clone()),
        ("expire_user_password", of_user.clone()),
        ("expire_user_password", json!({"user_id": user, "temp_password": true})),
        ("reset_user_password", json!({"user_id": user, "send_email": false})),
        ("list_events", json!({})),
        ("remove_user_from_app", json!({"app_id": app, "user_id": user})),
        ("remove_user_from_app", json!({"app_id": app, "user_id": user})),
        ("remove_user_from_group", json!({"group_id": group, "user_id": user})),
        ("assign_group_to_app", json!({"app_id": app, "group_id": group})),
        ("assign_group_to_app", json!({"app_id": app, "group_id": group, "priority": 3})),
        ("assign_group_to_app", json!({"app_id": "0oa00000000000000000", "group_id": group})),
        ("list_app_groups", json!({"app_id": app, "expand": "group"})),
        ("list_group_apps", json!({"group_id": group})),
        ("remove_group_from_app", json!({"app_id": app, "group_id": group})),
        ("remove_group_from_app", json!({"app_id": app, "group_id": group})),
        ("clear_user_sessions", of_user.clone()),
        ("clear_user_sessions", nobody.clone()),
        ("list_user_factors", of_user.clone()),
        ("reset_user_factors", of_user.clone()),
        ("list_user_factors", of_user.clone()),
        ("reactivate_user", of_user.clone()),
        ("reactivate_user", json!({"user_id": waiting})),
        ("reactivate_user", json!({"user_id": waiting, "send_email": false})),
        ("delete_user", of_user.clone()),
        ("deactivate_user", of_user.clone()),
        ("deactivate_user", of_user.clone()),
        ("activate_user", json!({"user_id": user, "send_email": false})),
        ("deactivate_user", of_user.clone()),
        ("delete_user", of_user),
        ("deactivate_user", nobody),
        ("delete_group", json!({"group_id": group})),
        ("delete_group", json!({"group_id": group})),
    ];
    for (subtool, arguments) in steps {
        judge.run(subtool, &arguments);
    }
    assert_eq!(judge.subtools.len(), catalogue::CATALOGUE.len(), "all were asked");
    eprintln!("answers judged: {}, {} of them refusals", judge.answers, judge.errors);
    for (subtool, fault, evidence) in MISFITS {
        let before = judge.misfits.len();
        judge.misfits.retain(|misfit| !(misfit.starts_with(subtool) && misfit.ends_with(fault)));
        assert!(judge.misfits.len() < before, "no longer needed: {subtool} {fault} ({evidence})");
    }
    assert!(judge.misfits.is_empty(), "{:#?}", judge.misfits);
}
