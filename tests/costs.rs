//! What the manifests say of costs, against what the simulated org is asked.

use std::collections::{BTreeMap, BTreeSet};

use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use jiff::Timestamp;
use okta_worker::budget::pure::bucket_map::ROUTES_MAX;
use okta_worker::domain::bucket::Bucket;
use okta_worker::domain::http::{Exchange, Request, Response};
use okta_worker::sandbox::{Handled, HttpCall, Org, OrgSettings, UserStatus};
use okta_worker::tools::catalogue::{CATALOGUE, CatalogueEntry};
use okta_worker::tools::{Bounds, HistoryEntry, Move, Setting};
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value, json};

const NOW: &str = "2026-03-01T12:00:00Z";

struct World {
    org: Org,
    now: Timestamp,
}

impl World {
    fn new() -> Self {
        Self { org: Org::new(OrgSettings::default()), now: NOW.parse().expect("a time") }
    }

    fn send(&mut self, request: &Request) -> Response {
        let json = HeaderValue::from_static("application/json");
        let headers = [
            (AUTHORIZATION, HeaderValue::from_static("SSWS t")),
            (ACCEPT, json.clone()),
            (CONTENT_TYPE, json),
        ];
        let call = HttpCall {
            method: request.method.clone(),
            target: request.path_and_query(),
            headers: HeaderMap::from_iter(headers),
            body: request.body.clone().unwrap_or_default(),
        };
        let Handled::Said(response) = self.org.answer(&call, self.now) else {
            panic!("no answer to {call:?}")
        };
        response
    }

    fn made(&mut self, request: &Request) -> String {
        let made: Value = self.send(request).read().expect("an object");
        made["id"].as_str().unwrap_or_else(|| panic!("{made}")).to_owned()
    }

    /// Runs an invocation to its end: what it asked, in order.
    fn run(&mut self, entry: &CatalogueEntry, arguments: &RawValue) -> Vec<Request> {
        let tool = entry.read(arguments).unwrap_or_else(|fault| panic!("{arguments}: {fault:?}"));
        let bounds = Bounds::whole(1 << 20);
        let mut history: Vec<HistoryEntry> = Vec::new();
        loop {
            match tool.next(&history, Setting::first(bounds)) {
                Move::Send(request) => {
                    let response = self.send(&request);
                    history.push(HistoryEntry::Answered(Exchange { request: *request, response }));
                }
                Move::Done(..) => return history.iter().map(|turn| turn.request().clone()).collect(),
                other => panic!("{} {arguments}: {other:?}", entry.manifest.name),
            }
        }
    }
}

/// An org with a user, a group and an application that belong together, and the arguments of the plainest
/// example with their ids.
fn given(entry: &CatalogueEntry) -> (World, Map<String, Value>) {
    let mut world = World::new();
    let profile =
        json!({ "login": "m@example.com", "email": "m@example.com", "firstName": "M", "lastName": "M" });
    let password = json!({ "password": { "value": "correct horse battery staple" } });
    let user = world.made(
        &Request::post("/api/v1/users", &[]).json(&json!({ "profile": profile, "credentials": password })),
    );
    let group =
        world.made(&Request::post("/api/v1/groups", &[]).json(&json!({ "profile": { "name": "G" } })));
    let app = world.org.create_app("A").to_string();
    let id = world.org.user_id(&user).expect("it was made");
    world.org.import_member(world.org.group_id("G").expect("it was made"), id);
    let status = match entry.manifest.name {
        "delete_user" => UserStatus::Deprovisioned,
        "activate_user" => UserStatus::Staged,
        "reactivate_user" => UserStatus::Provisioned,
        "unsuspend_user" => UserStatus::Suspended,
        "unlock_user" => UserStatus::LockedOut,
        _ => UserStatus::Active,
    };
    world.org.set_status(id, UserStatus::Active);
    let assign = CATALOGUE.iter().find(|entry| entry.manifest.name == "assign_user_to_app");
    let assigned = to_raw_value(&json!({ "app_id": app, "user_id": user })).expect("JSON");
    world.run(assign.expect("a subtool"), &assigned);
    if entry.manifest.name == "remove_group_from_app" {
        let (app, group) = (world.org.app_id("A"), world.org.group_id("G"));
        assert!(world.org.assign_group_to_app(app.expect("it was made"), group.expect("it was made")));
    }
    world.org.set_status(id, status);
    let mut arguments: Map<String, Value> =
        serde_json::from_str(entry.manifest.examples[0]).expect("examples are JSON objects");
    for (name, id) in [("user_id", user), ("group_id", group), ("app_id", app)] {
        if let Some(argument) = arguments.get_mut(name) {
            *argument = json!(id);
        }
    }
    (world, arguments)
}

fn counted(requests: &[Request]) -> BTreeMap<Bucket, u32> {
    let mut counts = BTreeMap::new();
    for request in requests {
        let target = request.path_and_query();
        let path = target.split('?').next().unwrap_or_default();
        *counts.entry(Bucket::of(&request.method, path)).or_default() += 1;
    }
    counts
}

#[test]
fn each_subtool_costs_what_it_says() {
    for entry in &CATALOGUE {
        let (mut world, arguments) = given(entry);
        let requests = world.run(entry, &to_raw_value(&arguments).expect("JSON"));
        let said: BTreeMap<Bucket, u32> = entry.manifest.cost.calls.iter().copied().collect();
        assert_eq!(counted(&requests), said, "{} {arguments:?}", entry.manifest.name);
    }
}

/// Routes that only a second look or a refusal asks for.
const RARE_ROUTES: usize = 16;

#[test]
fn every_route_of_a_subtool_has_room_for_a_gate_of_its_own() {
    let mut routes = BTreeSet::new();
    for entry in &CATALOGUE {
        let (mut world, arguments) = given(entry);
        let requests = world.run(entry, &to_raw_value(&arguments).expect("JSON"));
        routes.extend(requests.iter().map(|request| (request.method.to_string(), request.route)));
    }
    assert!(routes.len() + RARE_ROUTES <= ROUTES_MAX, "{} routes", routes.len());
}

#[test]
fn a_login_costs_what_the_description_says() {
    for entry in &CATALOGUE {
        let (mut world, mut arguments) = given(entry);
        let Some(user) = arguments.get_mut("user_id") else { continue };
        *user = json!("m@example.com");
        let requests = world.run(entry, &to_raw_value(&arguments).expect("JSON"));
        let mut said: BTreeMap<Bucket, u32> = entry.manifest.cost.calls.iter().copied().collect();
        if entry.manifest.description().contains("1 more in `user_read` for a login") {
            *said.entry(Bucket::UserRead).or_default() += 1;
        }
        assert_eq!(counted(&requests), said, "{}", entry.manifest.name);
    }
}

#[test]
fn a_list_asks_for_pages_of_the_size_that_it_says() {
    for entry in &CATALOGUE {
        let (mut world, mut arguments) = given(entry);
        if !entry.manifest.name.starts_with("list_") {
            assert_eq!(entry.manifest.cost.page, None, "{}", entry.manifest.name);
            continue;
        }
        if entry.manifest.name != "list_user_factors" {
            arguments.insert("limit".into(), json!(100_000)); // the factors have no pages
        }
        let requests = world.run(entry, &to_raw_value(&arguments).expect("JSON"));
        let asked = requests[0].query.iter().find(|(name, _)| name == "limit").map(|(_, size)| size.clone());
        let said = entry.manifest.cost.page.map(|(items, _)| items.to_string());
        assert_eq!(asked, said, "{}", entry.manifest.name);
    }
}
