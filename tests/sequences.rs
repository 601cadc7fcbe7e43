//! Recorded stories, played again: where the simulated org and Okta disagree, the simulated org is wrong.
//!
//! The recordings are third-party data and no part of this project. They are read from the folder that
//! `OKTA_REFERENCE` names; without it these tests say that they did not run. Statuses, error codes and
//! the shapes of bodies are compared; each difference that stays is a row of `ACCEPTED` with its reason,
//! and a row that no longer occurs fails as well.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use jiff::Timestamp;
use okta_worker::domain::bucket::Bucket;
use okta_worker::domain::http::Response;
use okta_worker::sandbox::{Attribute, AttributeKind, Handled, HttpCall, Id, NewApp, Org, OrgSettings};
use serde_json::{Map, Value, json};

/// A difference between Okta and the simulated org that stays.
struct Accepted {
    /// The operations, as the recordings name them; `*` is any.
    operation: &'static [&'static str],
    /// What differs: `-` only Okta has it, `+` only the simulated org, `~` another type; `*` at its end is
    /// anything that begins so.
    what: &'static str,
    /// Why it stays.
    reason: &'static str,
    /// Where it can be seen.
    evidence: &'static str,
}

/// The answers that are an app, or a list of them.
const APPS: &[&str] = &["get_app", "list_apps"];

/// The answers that are an assignment, or a list of them.
const ASSIGNMENTS: &[&str] = &["assign_user_to_app", "list_app_users", "aux:update_app_user"];

const ACCEPTED: &[Accepted] = &[
    Accepted {
        operation: &["*"],
        what: "-$.credentials.emails",
        reason: "only some orgs show e-mail addresses among the credentials",
        evidence: "okta-sdk-python of 2020 and 2025 has them, terraform of 2023 to 2026 has not",
    },
    Accepted {
        operation: &["*"],
        what: "-$.realmId",
        reason: "only orgs with realms have it",
        evidence: "terraform of 2025 and 2026",
    },
    Accepted {
        operation: &["*"],
        what: "+$._links.resetFactors",
        reason: "classic and older orgs lack the link",
        evidence: "TestUsersResource of 2020, terraform mm-classic-2022-10-04",
    },
    Accepted {
        operation: &["*"],
        what: "+$._links.forgotPassword",
        reason: "older orgs lack the link",
        evidence: "TestApplicationsResource of 2020",
    },
    Accepted {
        operation: &["*"],
        what: "+$._links.owners",
        reason: "groups have owners since 2025",
        evidence: "terraform before and after 2025",
    },
    Accepted {
        operation: APPS,
        what: "+$.orn",
        reason: "apps have resource names since 2025",
        evidence: "terraform before and after 2025",
    },
    Accepted {
        operation: APPS,
        what: "-$.universalLogout",
        reason: "only some orgs show it",
        evidence: "TestAccDataSourceOktaPushGroup_read",
    },
    Accepted {
        operation: APPS,
        what: "-$.licensing",
        reason: "only some apps of the catalogue have it; all apps here are bookmarks",
        evidence: "TestAccOktaAppUser_crud",
    },
    Accepted {
        operation: APPS,
        what: "~$.signOnMode null here string",
        reason: "an app for provisioning alone has no sign-on; all apps here are bookmarks",
        evidence: "TestAccDataSourceOktaPushGroup_read",
    },
    Accepted {
        operation: APPS,
        what: "+$._links.*",
        reason: "classic orgs have no policies for apps",
        evidence: "terraform mm-classic-2022-10-04",
    },
    Accepted {
        operation: APPS,
        what: "-$._links.*",
        reason: "links of apps that sign on by OpenID or SAML; all apps here are bookmarks",
        evidence: "TestAccAppGroupAssignment_timeouts, TestAccAppSaml_userGroups",
    },
    Accepted {
        operation: APPS,
        what: "-$.credentials.*",
        reason: "credentials differ by sign-on mode; all apps here are bookmarks",
        evidence: "TestAccAppGroupAssignment_timeouts",
    },
    Accepted {
        operation: APPS,
        what: "-$.settings.*",
        reason: "settings differ by sign-on mode and catalogue; all apps here are bookmarks",
        evidence: "TestAccAppSaml_userGroups",
    },
    Accepted {
        operation: APPS,
        what: "+$.settings.*",
        reason: "settings differ by sign-on mode and year; all apps here are bookmarks",
        evidence: "TestAccAppGroupAssignment_timeouts",
    },
    Accepted {
        operation: APPS,
        what: "-$.visibility.appLinks.*",
        reason: "an app names its own links; bookmarks have one, `login`",
        evidence: "TestAccOktaAppUser_crud",
    },
    Accepted {
        operation: APPS,
        what: "+$.visibility.appLinks.login",
        reason: "an app names its own links; bookmarks have one, `login`",
        evidence: "TestAccOktaAppUser_crud",
    },
    Accepted {
        operation: ASSIGNMENTS,
        what: "-$.profile.*",
        reason: "OpenID apps fill profiles by mappings, which are not simulated",
        evidence: "TestAccOktaAppUser_crud",
    },
    Accepted {
        operation: &["create_user", "get_user", "list_group_members"],
        what: "~$.statusChanged null here string",
        reason: "before 2023 a staged user with a password had none",
        evidence: "TestUsersResource.test_activate_user of 2020",
    },
    Accepted {
        operation: &["get_user"],
        what: "+$.profile.customAttribute1234",
        reason: "the attribute was taken out of the org's schema in between, which was not recorded",
        evidence: "TestAccResourceOktaUser_customProfileAttributes",
    },
    Accepted {
        operation: &["list_users"],
        what: "+$ items: 3",
        reason: "Okta's index had not seen the users yet, one second after their creation",
        evidence: "TestAccDataSourceOktaUsers_read",
    },
    Accepted {
        operation: &["list_app_users"],
        what: "+$ items: 1",
        reason: "Okta hands apps to the members of a group in the background",
        evidence: "TestAccAppSaml_userGroups",
    },
    Accepted {
        operation: &["remove_user_from_group"],
        what: "status 404 E0000007 here 204 ",
        reason: "recorded in the order of the answers while the user was being deleted by another thread",
        evidence: "TestAccResourceOktaGroupMemberships_TrackAllUsersBehavior",
    },
];

/// A story from a recording.
struct Sequence {
    source: String,
    exchanges: Vec<Value>,
}

fn recordings() -> Option<Vec<Sequence>> {
    let folder = PathBuf::from(std::env::var_os("OKTA_REFERENCE").filter(|name| !name.is_empty())?);
    let path = folder.join("recordings").join("sequences.jsonl");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let read = |line: &str| {
        let row: Value = serde_json::from_str(line).unwrap();
        Sequence {
            source: row["source"].as_str().unwrap().to_owned(),
            exchanges: row["exchanges"].as_array().unwrap().clone(),
        }
    };
    Some(text.lines().map(read).collect())
}

/// What became of a recorded step.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Clone)]
enum Step {
    Played,
    Applied,
    Skipped(&'static str),
}

/// One story under way.
struct Play {
    org: Org,
    now: Timestamp,
    /// Recorded ids, and what they are called here.
    ids: HashMap<String, String>,
    has_rules: bool,
    /// Attributes that users of the recorded apps had.
    app_attributes: BTreeSet<String>,
    steps: Vec<Step>,
    differences: Vec<(String, String)>,
}

impl Play {
    fn new(sequence: &Sequence) -> Self {
        let settings = OrgSettings {
            limits: Bucket::ALL.into_iter().map(|bucket| (bucket, 1_000_000)).collect(),
            user_attributes: custom_attributes(sequence, &["users", "members"], "login"),
            group_attributes: custom_attributes(sequence, &["groups"], "name"),
            born: "2015-01-01T00:00:00Z".parse().unwrap(),
            ..OrgSettings::default()
        };
        let now = settings.born;
        Self {
            org: Org::new(settings),
            now,
            ids: HashMap::new(),
            has_rules: false,
            app_attributes: app_attributes(sequence),
            steps: Vec::new(),
            differences: Vec::new(),
        }
    }

    fn send(&mut self, method: &str, target: &str, body: &Value) -> Response {
        let mut headers = HeaderMap::new();
        headers.insert("authorization", HeaderValue::from_static("SSWS recorded"));
        let body = if *body == json!("") { Bytes::new() } else { Bytes::from(body.to_string()) };
        let call = HttpCall { method: method.parse().unwrap(), target: target.to_owned(), headers, body };
        match self.org.answer(&call, self.now) {
            Handled::Said(response) => response,
            Handled::Lost => panic!("no fault was ordered"),
        }
    }

    /// A text with the ids as they are called here.
    fn here(&self, text: &str) -> String {
        let mut here = text.to_owned();
        for (recorded, id) in &self.ids {
            here = here.replace(recorded.as_str(), id);
        }
        here
    }

    fn id(&self, recorded: &str) -> Option<Id> {
        Id::parse(self.ids.get(recorded)?)
    }

    fn play(&mut self, exchange: &Value) {
        let operation = exchange["operation"].as_str().unwrap();
        let (request, answer) = (&exchange["request"], &exchange["response"]);
        if let Some(date) = answer["headers"]["date"].as_str() {
            let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(date).unwrap();
            self.now = self.now.max(date);
        }
        let step = match operation.strip_prefix("aux:") {
            Some("reactivate_user" | "update_app_user" | "get_app_user") | None => {
                self.compare(operation, request, answer)
            }
            Some(other) => self.apply(other, request, answer),
        };
        self.steps.push(step);
    }

    /// Applies what happened around the 28 operations.
    fn apply(&mut self, operation: &str, request: &Value, answer: &Value) -> Step {
        if answer["status"].as_u64().unwrap() >= 400 {
            return Step::Skipped("a neighbouring operation that failed");
        }
        let path: Vec<&str> = request["path"].as_str().unwrap().split('/').collect();
        let (first, second) = (path.get(4).copied().unwrap_or(""), path.get(6).copied().unwrap_or(""));
        let done = match operation {
            "create_app" => {
                let body = &answer["body"];
                let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
                let app = self.org.create_app_from(NewApp {
                    label: text("label"),
                    name: text("name"),
                    sign_on_mode: text("signOnMode"),
                    attributes: self.app_attributes.clone(),
                });
                self.ids.insert(text("id"), app.to_string());
                true
            }
            "activate_app" => self.id(first).is_some_and(|app| self.org.activate_app(app)),
            "deactivate_app" => self.id(first).is_some_and(|app| self.org.deactivate_app(app)),
            "delete_app" => self.id(first).is_some_and(|app| self.org.delete_app(app)),
            "assign_group_to_app" | "remove_group_from_app" => match (self.id(first), self.id(second)) {
                (Some(app), Some(group)) if operation == "assign_group_to_app" => {
                    self.org.assign_group_to_app(app, group)
                }
                (Some(app), Some(group)) => self.org.unassign_group_from_app(app, group),
                _ => false,
            },
            "change_recovery_question" => {
                let target = self.here(&format!("/api/v1/users/{first}"));
                let body = json!({ "credentials": { "recovery_question": { "question": "Why?", "answer": "because" } } });
                self.send("POST", &target, &body).status == 200
            }
            "activate_group_rule" => {
                self.has_rules = true;
                return Step::Skipped("group rules are not simulated");
            }
            name if name.contains("group_rule") => return Step::Skipped("group rules are not simulated"),
            _ => return Step::Skipped("a neighbouring operation without effect here"),
        };
        if done { Step::Applied } else { Step::Skipped("names something older than the recording") }
    }

    /// Plays a request and compares the answers.
    fn compare(&mut self, operation: &str, request: &Value, answer: &Value) -> Step {
        let method = request["method"].as_str().unwrap();
        let status = answer["status"].as_u64().unwrap();
        let path = self.here(request["path"].as_str().unwrap());
        let is_known = path.split('/').skip(4).all(|part| {
            part.len() != 20 || !part.starts_with(['0']) || self.ids.values().any(|id| id == part)
        });
        if status < 400 && !is_known {
            return Step::Skipped("names something older than the recording");
        }
        if answer["body"].is_string() && answer["body"].as_str().unwrap().starts_with('<')
            || matches!(status, 401 | 429)
        {
            return Step::Skipped("answered by the front end");
        }
        let mut body = request["body"].clone();
        if body == json!("") && has_body(operation) {
            match rebuild(operation, &answer["body"]) {
                Some(rebuilt) => body = rebuilt,
                None => return Step::Skipped("the request body was not kept"),
            }
        }
        let body = if body.is_string() {
            body
        } else {
            serde_json::from_str(&self.here(&body.to_string())).unwrap()
        };
        let query = self.here(request["raw_query"].as_str().unwrap());
        let target = if query.is_empty() { path } else { format!("{path}?{query}") };
        let response = self.send(method, &target, &body);
        let ours: Value = serde_json::from_slice(&response.body).unwrap_or_else(|_| json!(""));
        self.learn(&answer["body"], &ours);
        let mut found = Vec::new();
        if u64::from(response.status) != status || ours["errorCode"] != answer["body"]["errorCode"] {
            let code = |body: &Value| body["errorCode"].as_str().unwrap_or_default().to_owned();
            found.push(format!(
                "status {status} {} here {} {}",
                code(&answer["body"]),
                response.status,
                code(&ours)
            ));
        } else if let (Some(theirs), Some(here)) = (answer["body"].as_array(), ours.as_array()) {
            self.compare_lists(theirs, here, is_cut(answer), &mut found);
        } else {
            shapes("$", &answer["body"], &ours, &mut found);
        }
        if let Some(links) = answer["headers"]["link"].as_array() {
            self.compare_links(links, &response, &mut found);
        }
        self.differences.extend(found.into_iter().map(|what| (operation.to_owned(), what)));
        Step::Played
    }

    /// Remembers what a new object is called here.
    fn learn(&mut self, theirs: &Value, ours: &Value) {
        if let (Some(recorded), Some(id)) = (theirs["id"].as_str(), ours["id"].as_str()) {
            self.ids.insert(recorded.to_owned(), id.to_owned());
        }
        if let (Some(recorded), Some(id)) = (theirs["type"]["id"].as_str(), ours["type"]["id"].as_str()) {
            self.ids.insert(recorded.to_owned(), id.to_owned());
        }
        for group in theirs.as_array().into_iter().flatten().filter(|group| group["type"] == "BUILT_IN") {
            if group["profile"]["name"] == "Everyone" {
                let recorded = group["id"].as_str().unwrap().to_owned();
                self.ids.insert(recorded, self.org.everyone().to_string());
            }
        }
    }

    /// Compares which items of this story are in a list, and their shapes.
    fn compare_lists(&self, theirs: &[Value], ours: &[Value], is_cut: bool, found: &mut Vec<String>) {
        let mut missing = 0;
        let mut known = BTreeSet::new();
        for item in theirs {
            let Some(id) = item["id"].as_str().and_then(|id| self.ids.get(id)) else { continue };
            known.insert(id.as_str());
            match ours.iter().find(|ours| ours["id"].as_str() == Some(id)) {
                Some(ours) => shapes("$", item, ours, found),
                None => missing += 1,
            }
        }
        if self.has_rules || is_cut {
            return;
        }
        let mapped: BTreeSet<&str> = self.ids.values().map(String::as_str).collect();
        let extra = ours
            .iter()
            .filter_map(|item| item["id"].as_str())
            .filter(|id| mapped.contains(id) && !known.contains(id))
            .count();
        if missing > 0 {
            found.push(format!("-$ items: {missing}"));
        }
        if extra > 0 {
            found.push(format!("+$ items: {extra}"));
        }
    }

    /// Compares the query of the `self` links.
    fn compare_links(&self, links: &[Value], response: &Response, found: &mut Vec<String>) {
        let query = |link: &str| -> Option<BTreeSet<String>> {
            let link = link.split('<').find(|part| part.contains("rel=\"self\""))?;
            let (_, query) = link.split_once('>')?.0.split_once('?')?;
            Some(query.split('&').map(|pair| pair.replace("%20", "+")).collect())
        };
        let theirs = links.iter().find_map(|link| query(&self.here(link.as_str()?)));
        let ours = response.headers.get_all("link").iter().find_map(|link| query(link.to_str().unwrap()));
        if theirs != ours {
            found.push(format!("link {theirs:?} here {ours:?}"));
        }
    }
}

/// Whether a story has only the 28 operations in it, with every request body.
fn is_complete(sequence: &Sequence) -> bool {
    sequence.exchanges.iter().all(|exchange| {
        let operation = exchange["operation"].as_str().unwrap();
        !operation.starts_with("aux:") && (!has_body(operation) || exchange["request"]["body"] != json!(""))
    })
}

fn has_body(operation: &str) -> bool {
    matches!(
        operation,
        "create_user" | "update_user" | "create_group" | "update_group" | "assign_user_to_app"
    )
}

/// Whether a recorded page was not the whole list.
fn is_cut(answer: &Value) -> bool {
    answer["headers"]["link"].to_string().contains("next")
}

/// The body that an old recording did not keep, from what it led to.
fn rebuild(operation: &str, answer: &Value) -> Option<Value> {
    let mut profile = answer["profile"].as_object()?.clone();
    profile.retain(|_, value| !value.is_null());
    Some(match operation {
        "create_user" | "update_user" => {
            let mut body = json!({ "profile": profile });
            if operation == "create_user" && answer["credentials"].get("password").is_some() {
                body["credentials"] = json!({ "password": { "value": "correct horse 1" } });
            }
            if let Some(question) = answer["credentials"].get("recovery_question") {
                body["credentials"]["recovery_question"] = question.clone();
            }
            body
        }
        "assign_user_to_app" => json!({ "id": answer["id"], "credentials": answer["credentials"] }),
        _ => json!({ "profile": profile }),
    })
}

/// Attributes of the users of apps: those that answers show.
fn app_attributes(sequence: &Sequence) -> BTreeSet<String> {
    let bodies = sequence.exchanges.iter().map(|exchange| &exchange["response"]["body"]);
    bodies
        .flat_map(|body| std::iter::once(body).chain(body.as_array().into_iter().flatten()))
        .filter(|item| item.get("syncState").is_some())
        .filter_map(|item| item["profile"].as_object())
        .flat_map(|profile| profile.keys().cloned())
        .collect()
}

/// Attributes the recorded org had added to a profile: those that its answers show.
fn custom_attributes(sequence: &Sequence, collections: &[&str], marker: &str) -> Vec<Attribute> {
    let mut found: BTreeMap<String, AttributeKind> = BTreeMap::new();
    let mut look = |item: &Value| {
        let Some(profile) = item["profile"].as_object().filter(|profile| profile.contains_key(marker)) else {
            return;
        };
        for (name, value) in profile {
            let kind = match value {
                Value::Number(_) => AttributeKind::Number,
                Value::Array(_) => AttributeKind::List,
                Value::Bool(_) => AttributeKind::Truth,
                _ => AttributeKind::Text,
            };
            if kind != AttributeKind::Text
                || (!value.is_null() && (name.contains(char::is_numeric) || name.starts_with("custom")))
            {
                found.insert(name.clone(), kind);
            }
        }
    };
    for exchange in &sequence.exchanges {
        let path = exchange["request"]["path"].as_str().unwrap();
        if collections.iter().any(|collection| path.contains(collection)) {
            let body = &exchange["response"]["body"];
            look(body);
            body.as_array().into_iter().flatten().for_each(&mut look);
        }
    }
    found.into_iter().map(|(name, kind)| Attribute { name, kind }).collect()
}

/// Compares keys and types, all the way down.
fn shapes(path: &str, theirs: &Value, ours: &Value, found: &mut Vec<String>) {
    let kind = |value: &Value| match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    match (theirs, ours) {
        (Value::Object(theirs), Value::Object(ours)) => objects(path, theirs, ours, found),
        (Value::Array(theirs), Value::Array(ours)) => {
            for (theirs, ours) in theirs.iter().zip(ours) {
                shapes(&format!("{path}[]"), theirs, ours, found);
            }
        }
        _ if kind(theirs) == kind(ours) => {}
        _ => found.push(format!("~{path} {} here {}", kind(theirs), kind(ours))),
    }
}

fn objects(path: &str, theirs: &Map<String, Value>, ours: &Map<String, Value>, found: &mut Vec<String>) {
    for (name, value) in theirs {
        match ours.get(name) {
            Some(ours) => shapes(&format!("{path}.{name}"), value, ours, found),
            None => found.push(format!("-{path}.{name}")),
        }
    }
    for name in ours.keys().filter(|name| !theirs.contains_key(*name)) {
        found.push(format!("+{path}.{name}"));
    }
}

fn accepts(row: &Accepted, operation: &str, what: &str) -> bool {
    let operation_fits = row.operation.iter().any(|name| *name == "*" || *name == operation);
    operation_fits
        && match row.what.strip_suffix('*') {
            Some(start) => what.starts_with(start),
            None => what == row.what,
        }
}

#[test]
fn recorded_sequences_play_the_same() {
    let Some(sequences) = recordings() else {
        eprintln!("recorded_sequences_play_the_same did not run: OKTA_REFERENCE is not set");
        return;
    };
    let mut skipped: BTreeMap<Step, usize> = BTreeMap::new();
    let mut used = vec![false; ACCEPTED.len()];
    let mut news: BTreeMap<(String, String), (usize, String)> = BTreeMap::new();
    let (mut equal, mut different, mut whole, mut complete) = (0, 0, 0, 0);
    for sequence in &sequences {
        let mut play = Play::new(sequence);
        for exchange in &sequence.exchanges {
            play.play(exchange);
        }
        if play.differences.is_empty() {
            equal += 1;
        } else {
            different += 1;
        }
        if play.steps.iter().all(|step| !matches!(step, Step::Skipped(_))) {
            whole += 1;
        }
        complete += usize::from(is_complete(sequence));
        for step in play.steps {
            *skipped.entry(step).or_default() += 1;
        }
        for (operation, what) in play.differences {
            let mut is_accepted = false;
            for (row, used) in ACCEPTED.iter().zip(&mut used) {
                if accepts(row, &operation, &what) {
                    *used = true;
                    is_accepted = true;
                }
            }
            if !is_accepted {
                let new = news.entry((operation, what)).or_insert((0, sequence.source.clone()));
                new.0 += 1;
            }
        }
    }
    eprintln!(
        "{} sequences: {whole} played whole, {equal} equal, {different} with differences; {complete} hold only \
         the 28 operations and all bodies",
        sequences.len()
    );
    for (step, count) in &skipped {
        eprintln!("{count:5} steps: {step:?}");
    }
    for ((operation, what), (count, source)) in &news {
        eprintln!("new: {count:4} {operation}: {what} ({source})");
    }
    let idle: Vec<String> = ACCEPTED
        .iter()
        .zip(&used)
        .filter(|(_, used)| !**used)
        .map(|(row, _)| format!("{:?} {}: {} ({})", row.operation, row.what, row.reason, row.evidence))
        .collect();
    assert!(news.is_empty(), "{} new differences", news.len());
    assert_eq!(idle, [""; 0], "accepted differences that no longer occur");
}
