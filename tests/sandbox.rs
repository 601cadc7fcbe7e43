//! The simulated org keeps Okta's rules: lifecycle, lists, limits, faults, log and ledger.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use jiff::{Timestamp, ToSpan};
use okta_worker::domain::bucket::{Bucket, RateHeaders};
use okta_worker::domain::http::Response;
use okta_worker::domain::link;
use okta_worker::domain::secret::Secret;
use okta_worker::sandbox::{
    Attribute, AttributeKind, ClientRequests, Handled, HttpCall, Id, InjectedFault, NewApp, Org, OrgSettings,
    PastWindow, Trouble, UserStatus,
};
use proptest::prelude::*;
use serde_json::{Value, json};

/// An org with a clock that only tests move.
struct World {
    org: Org,
    now: Timestamp,
}

impl World {
    fn new(settings: OrgSettings) -> Self {
        Self { org: Org::new(settings), now: "2026-03-01T12:00:00.250Z".parse().unwrap() }
    }

    /// An org without limits worth speaking of.
    fn wide(settings: OrgSettings) -> Self {
        let limits = Bucket::ALL.into_iter().map(|bucket| (bucket, 1_000_000)).collect();
        Self::new(OrgSettings { limits, ..settings })
    }

    fn call(&self, method: &str, target: &str, body: Option<&Value>) -> HttpCall {
        let mut headers = HeaderMap::new();
        headers.insert("authorization", HeaderValue::from_static("SSWS test"));
        let body = body.map_or_else(Bytes::new, |body| Bytes::from(body.to_string()));
        HttpCall { method: method.parse().unwrap(), target: target.to_owned(), headers, body }
    }

    fn try_send(&mut self, method: &str, target: &str, body: Option<&Value>) -> Option<Response> {
        let call = self.call(method, target, body);
        match self.org.answer(&call, self.now) {
            Handled::Said(response) => Some(response),
            Handled::Lost => None,
        }
    }

    fn send(&mut self, method: &str, target: &str, body: Option<Value>) -> Response {
        self.try_send(method, target, body.as_ref()).expect("an answer")
    }

    fn get(&mut self, target: &str) -> Response {
        self.send("GET", target, None)
    }

    fn create_user(&mut self, login: &str, query: &str, password: Option<&str>) -> String {
        let mut body = json!({ "profile": {
            "login": login, "email": login, "firstName": "Jane", "lastName": "Doe"
        } });
        if let Some(password) = password {
            body["credentials"] = json!({ "password": { "value": password } });
        }
        let response = self.send("POST", &format!("/api/v1/users{query}"), Some(body));
        assert_eq!(response.status, 200, "{}", text(&response));
        read(&response)["id"].as_str().unwrap().to_owned()
    }

    fn create_group(&mut self, name: &str) -> String {
        let response = self.send("POST", "/api/v1/groups", Some(json!({ "profile": { "name": name } })));
        assert_eq!(response.status, 200, "{}", text(&response));
        read(&response)["id"].as_str().unwrap().to_owned()
    }

    /// All items of a list, page by page.
    fn list(&mut self, target: &str) -> Vec<Vec<Value>> {
        let mut pages = Vec::new();
        let mut target = target.to_owned();
        loop {
            let response = self.get(&target);
            assert_eq!(response.status, 200, "{target}: {}", text(&response));
            pages.push(read(&response).as_array().unwrap().clone());
            let Some(next) = link::next(&response.headers) else { return pages };
            target = wire(&next);
        }
    }

    fn effects(&self) -> Vec<&'static str> {
        self.org.effects().iter().map(|effect| effect.kind).collect()
    }
}

fn wire(link: &link::Link) -> String {
    let query: Vec<String> = link
        .query
        .iter()
        .map(|(name, value)| {
            let value = percent_encoding::utf8_percent_encode(value, percent_encoding::NON_ALPHANUMERIC);
            format!("{name}={value}")
        })
        .collect();
    format!("{}?{}", link.path, query.join("&"))
}

fn encode(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

fn read(response: &Response) -> Value {
    serde_json::from_slice(&response.body).unwrap_or_else(|_| panic!("JSON, not {}", text(response)))
}

fn text(response: &Response) -> String {
    String::from_utf8_lossy(&response.body).into_owned()
}

/// Status and error code, or status alone.
fn verdict(response: &Response) -> String {
    match serde_json::from_slice::<Value>(&response.body)
        .ok()
        .and_then(|body| body.get("errorCode").and_then(Value::as_str).map(str::to_owned))
    {
        Some(code) => format!("{} {code}", response.status),
        None => response.status.to_string(),
    }
}

fn first_cause(response: &Response) -> String {
    read(response)["errorCauses"][0]["errorSummary"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn every_step_from_every_status_ends_as_okta_says() {
    const STEPS: [&str; 9] = [
        "activate",
        "deactivate",
        "delete",
        "suspend",
        "unsuspend",
        "unlock",
        "reset_password",
        "expire_password",
        "update",
    ];
    const VALIDATION: &str = "400 E0000001";
    const NOT_FOUND: &str = "404 E0000007";
    const ACTIVE_ALREADY: &str = "403 E0000016";
    const NO_RESET: &str = "403 E0000017";
    const NO_UNLOCK: &str = "403 E0000032";
    const WRONG: &str = "403 E0000038";
    const GONE: &str = "DEPROVISIONED";
    let rows: [(UserStatus, [&str; 9]); 8] = [
        (
            UserStatus::Staged,
            ["ACTIVE", GONE, GONE, VALIDATION, VALIDATION, NO_UNLOCK, NO_RESET, WRONG, "STAGED"],
        ),
        (
            UserStatus::Provisioned,
            [ACTIVE_ALREADY, GONE, GONE, VALIDATION, VALIDATION, NO_UNLOCK, NO_RESET, WRONG, "PROVISIONED"],
        ),
        (
            UserStatus::Active,
            [
                ACTIVE_ALREADY,
                GONE,
                GONE,
                "SUSPENDED",
                VALIDATION,
                NO_UNLOCK,
                "RECOVERY",
                "PASSWORD_EXPIRED",
                "ACTIVE",
            ],
        ),
        (
            UserStatus::Recovery,
            [
                ACTIVE_ALREADY,
                GONE,
                GONE,
                VALIDATION,
                VALIDATION,
                NO_UNLOCK,
                "RECOVERY",
                "PASSWORD_EXPIRED",
                "RECOVERY",
            ],
        ),
        (
            UserStatus::PasswordExpired,
            [
                ACTIVE_ALREADY,
                GONE,
                GONE,
                VALIDATION,
                VALIDATION,
                NO_UNLOCK,
                "RECOVERY",
                "PASSWORD_EXPIRED",
                "PASSWORD_EXPIRED",
            ],
        ),
        (
            UserStatus::LockedOut,
            [ACTIVE_ALREADY, GONE, GONE, VALIDATION, VALIDATION, "ACTIVE", "RECOVERY", WRONG, "LOCKED_OUT"],
        ),
        (
            UserStatus::Suspended,
            [ACTIVE_ALREADY, GONE, GONE, VALIDATION, "ACTIVE", NO_UNLOCK, NO_RESET, WRONG, "SUSPENDED"],
        ),
        (
            UserStatus::Deprovisioned,
            ["ACTIVE", NOT_FOUND, "gone", VALIDATION, VALIDATION, NO_UNLOCK, NO_RESET, WRONG, NOT_FOUND],
        ),
    ];
    for (status, expected) in rows {
        for (step, expected) in STEPS.into_iter().zip(expected) {
            let mut world = World::wide(OrgSettings::default());
            let id = world.create_user("jane@example.com", "?activate=true", Some("correct horse 1"));
            world.org.set_status(Id::parse(&id).unwrap(), status);
            let path = format!("/api/v1/users/{id}");
            let response = match step {
                "delete" => world.send("DELETE", &path, None),
                "update" => world.send("POST", &path, Some(json!({ "profile": { "title": "Boss" } }))),
                step => world.send("POST", &format!("{path}/lifecycle/{step}"), None),
            };
            let outcome = if response.status < 300 {
                let after = world.org.status_of(Id::parse(&id).unwrap());
                after.map_or("gone".to_owned(), |status| status.to_string())
            } else {
                let after = world.org.status_of(Id::parse(&id).unwrap());
                assert_eq!(after, Some(status), "a refused {step} changes nothing");
                verdict(&response)
            };
            assert_eq!(outcome, expected, "{status} {step}: {}", text(&response));
        }
    }
}

#[test]
fn no_step_finds_a_missing_user() {
    let mut world = World::wide(OrgSettings::default());
    for step in
        ["activate", "deactivate", "suspend", "unsuspend", "unlock", "reset_password", "expire_password"]
    {
        let response = world.send("POST", &format!("/api/v1/users/00uNobody/lifecycle/{step}"), None);
        assert_eq!(verdict(&response), "404 E0000007", "{step}");
        assert_eq!(read(&response)["errorSummary"], "Not found: Resource not found: 00uNobody (User)");
    }
    assert_eq!(world.effects(), [""; 0]);
}

#[test]
fn a_user_without_a_password_is_provisioned_first() {
    let mut world = World::wide(OrgSettings::default());
    let id = world.create_user("jane@example.com", "?activate=false", None);
    let response =
        world.send("POST", &format!("/api/v1/users/{id}/lifecycle/activate?sendEmail=false"), None);
    assert!(read(&response)["activationUrl"].as_str().unwrap().contains("/tokens/"));
    assert_eq!(world.org.status_of(Id::parse(&id).unwrap()), Some(UserStatus::Provisioned));
    assert_eq!(
        verdict(&world.send("POST", &format!("/api/v1/users/{id}/lifecycle/reactivate"), None)),
        "200"
    );
    assert_eq!(
        world.effects(),
        ["user.created", "user.activated", "secret.minted", "user.reactivated", "secret.minted"]
    );
}

#[test]
fn delete_first_deactivates_and_then_deletes() {
    let mut world = World::wide(OrgSettings::default());
    let id = world.create_user("jane@example.com", "", Some("correct horse 1"));
    let path = format!("/api/v1/users/{id}");
    assert_eq!(world.send("DELETE", &path, None).status, 204);
    assert_eq!(read(&world.get("/api/v1/users/jane@example.com"))["status"], "DEPROVISIONED");
    assert_eq!(world.send("DELETE", &path, None).status, 204);
    assert_eq!(verdict(&world.send("DELETE", &path, None)), "404 E0000007");
    assert_eq!(world.effects(), ["user.created", "user.activated", "user.deactivated", "user.deleted"]);
}

#[test]
fn create_user_refuses_what_okta_refuses() {
    let mut world = World::wide(OrgSettings::default());
    world.create_user("zoe.muller@example.com", "", None);
    let whole = |login: &str| json!({ "login": login, "email": login, "firstName": "A", "lastName": "B" });
    let long = "x".repeat(51);
    let rows = [
        (
            "",
            json!({ "profile": whole("ZOË.Müller@example.com") }),
            "400 E0000001",
            "login: An object with this field already exists in the current organization",
        ),
        (
            "",
            json!({ "profile": whole("jane.doe") }),
            "400 E0000001",
            "login: Username must be in the form of an email address",
        ),
        (
            "",
            json!({ "profile": { "login": "a@example.com" } }),
            "400 E0000001",
            "email: The field cannot be left blank",
        ),
        (
            "",
            json!({ "profile": { "login": "a@example.com", "email": "a@example.com", "firstName": long, "lastName": "B" } }),
            "400 E0000001",
            "firstName: String is too long or too short: 1 to 50 characters",
        ),
        (
            "",
            json!({ "profile": { "login": "a@example.com", "shoeSize": 1 } }),
            "400 E0000001",
            "Property name 'shoeSize' is not defined in profile",
        ),
        ("", json!({ "boop": {} }), "400 E0000003", ""),
        (
            "",
            json!({ "profile": whole("a@example.com"), "credentials": { "password": { "value": "short" } } }),
            "400 E0000001",
            "password: Password requirements were not met. Password requirements: at least 8 characters.",
        ),
        ("", json!({ "profile": whole("a@example.com"), "groupIds": ["00gNothing"] }), "404 E0000007", ""),
        (
            "",
            json!({ "profile": whole("a@example.com"), "groupIds": vec!["00gNothing"; 21] }),
            "400 E0000093",
            "",
        ),
        ("?nextLogin=changePassword", json!({ "profile": whole("a@example.com") }), "400 E0000124", ""),
        (
            "?nextLogin=changePassword&activate=false",
            json!({ "profile": whole("a@example.com") }),
            "400 E0000125",
            "",
        ),
    ];
    let before = world.effects().len();
    for (query, body, expected, cause) in rows {
        let response = world.send("POST", &format!("/api/v1/users{query}"), Some(body));
        assert_eq!((verdict(&response).as_str(), first_cause(&response).as_str()), (expected, cause));
    }
    assert_eq!(world.effects().len(), before, "a refused request has no effect");
}

#[test]
fn post_merges_a_profile_and_put_replaces_it() {
    let mut world = World::wide(OrgSettings::default());
    let id = world.create_user("jane@example.com", "", None);
    let path = format!("/api/v1/users/{id}");
    world.send("POST", &path, Some(json!({ "profile": { "title": "Boss", "city": "Oslo" } })));
    let merged = read(&world.send("POST", &path, Some(json!({ "profile": { "city": null } }))));
    assert_eq!((&merged["profile"]["title"], &merged["profile"]["city"]), (&json!("Boss"), &Value::Null));
    assert_eq!(merged["profile"]["mobilePhone"], Value::Null);
    let lacking = world.send("PUT", &path, Some(json!({ "profile": { "mobilePhone": "1" } })));
    assert_eq!(verdict(&lacking), "400 E0000001");
    let whole =
        json!({ "login": "jd@example.com", "email": "jane@example.com", "firstName": "J", "lastName": "D" });
    let replaced = read(&world.send("PUT", &path, Some(json!({ "profile": whole }))));
    assert!(replaced["profile"].get("title").is_none());
    assert_eq!(world.get("/api/v1/users/jane@example.com").status, 404);
    assert_eq!(read(&world.get("/api/v1/users/JD"))["id"], id.as_str());
}

#[test]
fn an_update_with_a_stale_etag_is_refused() {
    let mut world = World::wide(OrgSettings::default());
    let id = world.create_user("jane@example.com", "", None);
    let path = format!("/api/v1/users/{id}");
    let etag = world.get(&path).headers["etag"].clone();
    let mut call = world.call("POST", &path, Some(&json!({ "profile": { "title": "Boss" } })));
    call.headers.insert("if-match", etag);
    let statuses = [0, 1].map(|_| match world.org.answer(&call, world.now) {
        Handled::Said(response) => response.status,
        Handled::Lost => 0,
    });
    assert_eq!(statuses, [200, 412]);
}

#[test]
fn a_request_that_changes_nothing_is_no_effect() {
    let mut world = World::wide(OrgSettings::default());
    let user = world.create_user("jane@example.com", "?activate=false", None);
    let group = world.create_group("Chess");
    let app = world.org.create_app("Board");
    for _ in 0..2 {
        assert_eq!(world.send("PUT", &format!("/api/v1/groups/{group}/users/{user}"), None).status, 204);
        let body = json!({ "profile": { "title": "Boss" } });
        assert_eq!(world.send("POST", &format!("/api/v1/users/{user}"), Some(body)).status, 200);
        let body = json!({ "profile": { "name": "Chess Club" } });
        assert_eq!(world.send("PUT", &format!("/api/v1/groups/{group}"), Some(body)).status, 200);
        let body = json!({ "id": user, "credentials": { "userName": "jd" } });
        assert_eq!(world.send("POST", &format!("/api/v1/apps/{app}/users"), Some(body)).status, 200);
    }
    for _ in 0..2 {
        assert_eq!(world.send("DELETE", &format!("/api/v1/groups/{group}/users/{user}"), None).status, 204);
    }
    let expected = [
        "user.created",
        "group.created",
        "app.created",
        "member.added",
        "user.updated",
        "group.updated",
        "app.assigned",
        "member.removed",
    ];
    assert_eq!(world.effects(), expected);
    let effect = &world.org.effects()[3];
    assert_eq!((effect.subject.clone(), effect.at), (format!("{group}/{user}"), world.now));
}

#[test]
fn mails_and_secrets_are_effects() {
    let mut world = World::wide(OrgSettings::default());
    let id = world.create_user("jane@example.com", "", Some("correct horse 1"));
    let path = format!("/api/v1/users/{id}/lifecycle");
    assert_eq!(text(&world.send("POST", &format!("{path}/reset_password"), None)), "{}");
    let reset = read(&world.send("POST", &format!("{path}/reset_password?sendEmail=false"), None));
    assert!(reset["resetPasswordUrl"].as_str().unwrap().starts_with("https://sandbox.okta.example/"));
    let temporary = read(&world.send("POST", &format!("{path}/expire_password_with_temp_password"), None));
    assert!(temporary["tempPassword"].is_string());
    assert_eq!(
        world.effects()[2..],
        [
            "user.password_reset",
            "mail.password_reset",
            "user.password_reset",
            "secret.minted",
            "user.password_expired",
            "secret.minted"
        ]
    );
}

#[test]
fn only_groups_of_okta_can_be_changed() {
    let mut world = World::wide(OrgSettings::default());
    let user = world.create_user("jane@example.com", "", None);
    let imported = world.org.import_group("From AD");
    for group in [world.org.everyone(), imported] {
        for method in ["PUT", "DELETE"] {
            let response = world.send(method, &format!("/api/v1/groups/{group}/users/{user}"), None);
            assert_eq!(verdict(&response), "403 E0000006");
        }
        let body = json!({ "profile": { "name": "Mine" } });
        assert_eq!(
            verdict(&world.send("PUT", &format!("/api/v1/groups/{group}"), Some(body))),
            "403 E0000006"
        );
    }
    assert_eq!(world.send("DELETE", &format!("/api/v1/groups/{imported}"), None).status, 204);
    let everyone = world.org.everyone();
    assert_eq!(verdict(&world.send("DELETE", &format!("/api/v1/groups/{everyone}"), None)), "403 E0000006");
    let groups = read(&world.get(&format!("/api/v1/users/{user}/groups")));
    assert_eq!(groups[0]["type"], "BUILT_IN");
}

#[test]
fn group_names_are_taken_once_and_put_wipes() {
    let settings = OrgSettings {
        group_attributes: vec![Attribute { name: "costCenter".into(), kind: AttributeKind::Text }],
        ..OrgSettings::default()
    };
    let mut world = World::wide(settings);
    let body = json!({ "profile": { "name": "Chess", "description": "d", "costCenter": "7" } });
    let group = read(&world.send("POST", "/api/v1/groups", Some(body.clone())));
    let again = world.send("POST", "/api/v1/groups", Some(body));
    assert_eq!(verdict(&again), "400 E0000001");
    assert!(first_cause(&again).starts_with("name: An object with this field already exists"));
    let path = format!("/api/v1/groups/{}", group["id"].as_str().unwrap());
    let put = read(&world.send("PUT", &path, Some(json!({ "profile": { "name": "Chess" } }))));
    assert_eq!(put["profile"], json!({ "name": "Chess", "description": null }));
    let unknown = world.send("PUT", &path, Some(json!({ "profile": { "name": "Chess", "x": 1 } })));
    assert_eq!(verdict(&unknown), "400 E0000001");
    assert_eq!(verdict(&world.send("PUT", &path, Some(json!({ "boop": 1 })))), "400 E0000003");
    for key in ["00gmsef9cgB0p8vEC4x6", "Chess"] {
        let missing = world.get(&format!("/api/v1/groups/{key}"));
        assert_eq!(
            read(&missing)["errorSummary"],
            format!("Not found: Resource not found: {key} (UserGroup)")
        );
    }
}

#[test]
fn a_list_of_groups_embeds_how_large_they_are_when_asked() {
    let mut world = World::wide(OrgSettings::default());
    let group = world.create_group("Chess");
    let user = world.create_user("jane@example.com", "", None);
    let app = world.org.create_app("Board");
    world.org.assign_group_to_app(app, Id::parse(&group).unwrap());
    world.send("PUT", &format!("/api/v1/groups/{group}/users/{user}"), None);
    world.now += 60.seconds();
    let stats = |users, apps| json!({ "usersCount": users, "appsCount": apps, "groupPushMappingsCount": 0, "hasAdminPrivilege": false });
    let filter = "filter=type+eq+%22OKTA_GROUP%22&limit=100";
    let response = world.get(&format!("/api/v1/groups?{filter}&expand=stats"));
    let groups = read(&response);
    let of =
        |id: &str| groups.as_array().unwrap().iter().find(|it| it["id"] == id).unwrap()["_embedded"].clone();
    assert_eq!(of(&group), json!({ "stats": stats(1, 1) }));
    assert!(response.headers["link"].to_str().unwrap().contains("expand=stats"));
    let everyone = read(&world.get("/api/v1/groups?q=Everyone&expand=stats"));
    let everybody = read(&world.get("/api/v1/users")).as_array().unwrap().len();
    assert_eq!(everyone[0]["_embedded"]["stats"]["usersCount"], everybody);
    for plain in ["", "&expand=app"] {
        let groups = read(&world.get(&format!("/api/v1/groups?{filter}{plain}")));
        assert!(groups[0]["_embedded"].is_null(), "{plain}");
    }
}

#[test]
fn access_through_a_group_cannot_be_taken_from_one_user() {
    let mut world = World::wide(OrgSettings::default());
    let user = world.create_user("jane@example.com", "", None);
    let group = world.create_group("Chess");
    let app = world.org.create_app("Board");
    world.org.assign_group_to_app(app, Id::parse(&group).unwrap());
    world.send("PUT", &format!("/api/v1/groups/{group}/users/{user}"), None);
    let path = format!("/api/v1/apps/{app}/users/{user}");
    assert_eq!(read(&world.get(&path))["scope"], "GROUP");
    assert_eq!(verdict(&world.send("DELETE", &path, None)), "403 E0000046");
    let body = json!({ "id": user });
    assert_eq!(read(&world.send("POST", &format!("/api/v1/apps/{app}/users"), Some(body)))["scope"], "USER");
    assert_eq!(world.send("DELETE", &path, None).status, 204);
    assert_eq!(read(&world.get(&path))["scope"], "GROUP");
    world.send("DELETE", &format!("/api/v1/groups/{group}/users/{user}"), None);
    assert_eq!(verdict(&world.get(&path)), "404 E0000007");
    assert_eq!(
        read(&world.send("DELETE", &path, None))["errorSummary"],
        format!("Not found: Resource not found: {user}{app} (AppUser)")
    );
}

#[test]
fn assigning_again_updates_and_an_inactive_app_is_not_there() {
    let mut world = World::wide(OrgSettings::default());
    let user = world.create_user("jane@example.com", "", None);
    let app = world.org.create_app_from(NewApp {
        attributes: BTreeSet::from(["seat".to_owned()]),
        ..NewApp::bookmark("Board")
    });
    let path = format!("/api/v1/apps/{app}/users");
    let body = json!({ "id": user, "profile": { "seat": "A1" } });
    let first = read(&world.send("POST", &path, Some(body.clone())));
    world.now += 5.seconds();
    let second = read(&world.send("POST", &path, Some(body)));
    assert_eq!(first["created"], second["created"]);
    assert_ne!(first["lastUpdated"], second["lastUpdated"]);
    let unknown = world.send("POST", &path, Some(json!({ "id": user, "profile": { "x": 1 } })));
    assert_eq!(
        (verdict(&unknown), first_cause(&unknown)),
        ("400 E0000001".into(), "Property 'x' not found".into())
    );
    let by_login = world.send("POST", &path, Some(json!({ "id": "jane@example.com" })));
    assert_eq!(verdict(&by_login), "404 E0000007");
    world.org.deactivate_app(app);
    let inactive = world.send("POST", &path, Some(json!({ "id": user })));
    assert!(read(&inactive)["errorSummary"].as_str().unwrap().ends_with("(AppInstance)"));
}

#[test]
fn pages_hold_every_item_once() {
    let mut world = World::wide(OrgSettings { users: 500, seed: 7, ..OrgSettings::default() });
    let everyone = world.org.everyone();
    let payroll = world.org.app_id("Payroll").unwrap();
    let wiki = world.org.app_id("Wiki").unwrap();
    for target in [
        "/api/v1/users?limit=7".to_owned(),
        "/api/v1/users?limit=200&search=status+eq+%22ACTIVE%22".to_owned(),
        "/api/v1/users?limit=13&search=profile.lastName+pr&sortBy=profile.lastName".to_owned(),
        "/api/v1/groups?limit=2".to_owned(),
        "/api/v1/groups?limit=2&search=type+pr&sortBy=profile.name&sortOrder=desc".to_owned(),
        format!("/api/v1/groups/{everyone}/users?limit=50"),
        "/api/v1/apps?limit=1".to_owned(),
        format!("/api/v1/apps/{payroll}/users?limit=10"),
        format!("/api/v1/apps/{wiki}/users?limit=100"),
    ] {
        let pages = world.list(&target);
        let ids: Vec<String> =
            pages.iter().flatten().map(|item| item["id"].as_str().unwrap().to_owned()).collect();
        let distinct: BTreeSet<&String> = ids.iter().collect();
        assert_eq!(ids.len(), distinct.len(), "{target}: no item twice");
        assert!(pages.len() > 1, "{target}: {} items", ids.len());
        let (last, full) = pages.split_last().unwrap();
        assert!(full.iter().all(|page| page.len() == full[0].len()) && !last.is_empty(), "{target}");
    }
    let listed: usize = world.list("/api/v1/users").iter().map(Vec::len).sum();
    let gone: usize =
        world.list("/api/v1/users?filter=status+eq+%22DEPROVISIONED%22").iter().map(Vec::len).sum();
    assert!(gone > 0, "the seed has deactivated users");
    assert_eq!(listed + gone, 501, "the plain list omits deactivated users; the administrator is one more");
}

#[test]
fn a_page_stays_valid_when_its_last_item_is_gone() {
    let mut world = World::wide(OrgSettings::default());
    let groups: Vec<String> = (0..4).map(|at| world.create_group(&format!("Club {at}"))).collect();
    let first = world.get("/api/v1/groups?limit=2&search=profile.name+sw+%22Club%22");
    world.send("DELETE", &format!("/api/v1/groups/{}", groups[1]), None);
    let next = wire(&link::next(&first.headers).unwrap());
    let rest: Vec<Value> =
        read(&world.get(&next)).as_array().unwrap().iter().map(|g| g["id"].clone()).collect();
    assert_eq!(rest, [json!(groups[2]), json!(groups[3])]);
}

#[test]
fn links_are_two_headers_and_forget_what_okta_forgets() {
    let mut world = World::wide(OrgSettings { users: 10, ..OrgSettings::default() });
    let target = "/api/v1/users?limit=2&search=profile.lastName+pr&sortBy=profile.lastName&sortOrder=desc";
    let response = world.get(target);
    let links: Vec<&str> =
        response.headers.get_all("link").iter().map(|value| value.to_str().unwrap()).collect();
    assert_eq!(
        links[0],
        "<https://sandbox.okta.example/api/v1/users?limit=2&search=profile.lastName+pr&sortBy=profile.lastName&sortOrder=desc>; rel=\"self\""
    );
    assert!(
        links[1].starts_with("<https://sandbox.okta.example/api/v1/users?after=")
            && links[1].ends_with("; rel=\"next\"")
    );
    assert_eq!(links.len(), 2);
    let app = world.org.app_id("Payroll").unwrap();
    let response = world.get(&format!("/api/v1/apps/{app}/users?expand=user&limit=1"));
    assert!(read(&response)[0]["_embedded"]["user"]["profile"]["login"].is_string());
    assert!(!response.headers["link"].to_str().unwrap().contains("expand"));
    for target in ["/api/v1/users?q=a", "/api/v1/groups?q=S", "/api/v1/users/me/../me"] {
        assert!(world.get(target).headers.get("link").is_none(), "{target}");
    }
}

#[test]
fn searches_follow_the_language() {
    let settings = OrgSettings {
        user_attributes: vec![Attribute { name: "array123".into(), kind: AttributeKind::List }],
        ..OrgSettings::default()
    };
    let mut world = World::wide(settings);
    for (login, first) in
        [("ann@example.com", "Ann"), ("bo@example.com", "Bo \"B\""), ("cy@example.com", "Cÿ")]
    {
        let id = world.create_user(login, "", None);
        let body = json!({ "profile": { "firstName": first, "array123": ["feature", login] } });
        world.send("POST", &format!("/api/v1/users/{id}"), Some(body));
    }
    let found = |world: &mut World, name: &str, expression: &str| -> Vec<String> {
        let response = world.get(&format!("/api/v1/users?{name}={}", encode(expression)));
        assert_eq!(response.status, 200, "{expression}: {}", text(&response));
        let body = read(&response);
        let names = body.as_array().unwrap().iter().map(|user| user["profile"]["login"].as_str().unwrap());
        names
            .filter_map(|login| login.split('@').next())
            .filter(|name| *name != "sam.admin")
            .map(str::to_owned)
            .collect()
    };
    let rows: [(&str, &str, &[&str]); 10] = [
        ("search", r#"profile.firstName eq "ANN""#, &["ann"]),
        ("filter", r#"profile.firstName eq "ANN""#, &[]),
        ("search", r#"profile.firstName eq "Bo \"B\"""#, &["bo"]),
        ("search", r#"profile.firstName eq "cy""#, &[]),
        ("search", r#"profile.login sw "A" or profile.login sw "c""#, &["ann", "cy"]),
        (
            "search",
            r#"profile.array123 eq "feature" and (created gt "2021-01-01T00:00:00.000Z")"#,
            &["ann", "bo", "cy"],
        ),
        ("search", r#"profile.array123 eq "bo@example.com""#, &["bo"]),
        ("search", r#"profile.lastName co "O" AND NOT_EXISTING pr"#, &["!"]),
        ("filter", r#"status eq "PROVISIONED" and profile.login eq "cy@example.com""#, &["cy"]),
        ("filter", r#"lastUpdated lt "2021-01-01T00:00:00.000Z""#, &[]),
    ];
    for (name, expression, expected) in rows {
        if expected == ["!"] {
            let response = world.get(&format!("/api/v1/users?{name}={}", encode(expression)));
            assert_eq!(verdict(&response), "400 E0000031");
        } else {
            assert_eq!(found(&mut world, name, expression), expected, "{expression}");
        }
    }
}

#[test]
fn bad_lists_are_refused_with_their_codes() {
    let mut world = World::wide(OrgSettings::default());
    let rows = [
        ("/api/v1/users?search=", "profile.login is 3", "400 E0000031"),
        ("/api/v1/users?search=", r#"profile.login ne "x""#, "400 E0000031"),
        ("/api/v1/users?search=", r#"profile.title co "x""#, "400 E0000031"),
        ("/api/v1/users?filter=", r#"profile.title eq "x""#, "400 E0000094"),
        ("/api/v1/users?filter=", "status", "400 E0000031"),
        ("/api/v1/users?q=a&filter=", r#"status eq "ACTIVE""#, "400 E0000033"),
        ("/api/v1/users?after=", "abc", "400 E0000029"),
        ("/api/v1/groups?filter=", r#"profile.name eq "x""#, "400 E0000094"),
        ("/api/v1/apps?after=", "abc", "400 E0000029"),
        ("/api/v1/apps?expand=", "user/00u1", "400 E0000001"),
        ("/api/v1/apps?filter=", r#"status eq "ACTIVE" and name eq "x""#, "400 E0000094"),
        ("/api/v1/logs?filter=", "eventType", "400 E0000053"),
        ("/api/v1/logs?filter=", r#"published eq "x""#, "400 E0000053"),
        ("/api/v1/logs?since=", "2020-01-01T00:00:00Z", "400 E0000053"),
        ("/api/v1/logs?since=", "yesterday", "400 E0000001"),
        ("/api/v1/nothing?x=", "", "404 E0000008"),
    ];
    for (target, value, expected) in rows {
        assert_eq!(verdict(&world.get(&format!("{target}{}", encode(value)))), expected, "{target}{value}");
    }
    assert_eq!(verdict(&world.send("PATCH", "/api/v1/users", None)), "405 E0000022");
}

#[test]
fn apps_of_a_user_can_be_listed_with_the_assignment() {
    let mut world = World::wide(OrgSettings::default());
    let user = world.create_user("jane@example.com", "", None);
    let app = world.org.app_id("Payroll").unwrap();
    world.send("POST", &format!("/api/v1/apps/{app}/users"), Some(json!({ "id": user })));
    let filter = encode(&format!("user.id eq \"{user}\""));
    let apps = read(&world.get(&format!("/api/v1/apps?filter={filter}&expand=user/{user}")));
    let labels: Vec<&str> =
        apps.as_array().unwrap().iter().map(|app| app["label"].as_str().unwrap()).collect();
    assert_eq!(labels, ["Payroll", "Wiki"]);
    assert_eq!(apps[0]["_embedded"]["user"]["scope"], "USER");
    let links = world.get(&format!("/api/v1/users/{user}/appLinks"));
    assert_eq!(read(&links)[0]["appInstanceId"], json!(app));
    assert!(links.headers.get("link").is_none());
    world.send("POST", &format!("/api/v1/users/{user}/lifecycle/deactivate"), None);
    assert_eq!(read(&world.get(&format!("/api/v1/users/{user}/appLinks"))), json!([]));
}

#[test]
fn lists_lag_behind_writes_and_reads_by_id_do_not() {
    let mut world = World::wide(OrgSettings { search_lag: Duration::from_secs(2), ..OrgSettings::default() });
    world.now += 10.seconds();
    let user = world.create_user("jane@example.com", "", Some("correct horse 1"));
    let group = world.create_group("Chess");
    let search = format!("/api/v1/users?search={}", encode(r#"profile.login eq "jane@example.com""#));
    let statuses = |world: &mut World| -> Vec<Value> {
        read(&world.get(&search)).as_array().unwrap().iter().map(|user| user["status"].clone()).collect()
    };
    assert_eq!(world.get(&format!("/api/v1/users/{user}")).status, 200);
    assert_eq!(statuses(&mut world), Vec::<Value>::new());
    world.now += 2.seconds();
    assert_eq!(statuses(&mut world), ["ACTIVE"]);
    world.send("PUT", &format!("/api/v1/groups/{group}/users/{user}"), None);
    world.send("POST", &format!("/api/v1/users/{user}/lifecycle/suspend"), None);
    let members = format!("/api/v1/groups/{group}/users");
    assert_eq!(statuses(&mut world), ["ACTIVE"]);
    assert_eq!(read(&world.get(&members)), json!([]));
    world.now += 2.seconds();
    assert_eq!(statuses(&mut world), ["SUSPENDED"]);
    assert_eq!(read(&world.get(&members))[0]["id"], json!(user));
}

#[test]
fn a_window_opens_with_its_first_request_and_lasts_its_length() {
    let limits = [(Bucket::Group, 3)].into_iter().collect();
    let mut world = World::new(OrgSettings { limits, ..OrgSettings::default() });
    let opened = world.now;
    let rate = |world: &mut World| {
        let everyone = world.org.everyone();
        let response = world.get(&format!("/api/v1/groups/{everyone}"));
        (response.status, RateHeaders::read(&response.headers).unwrap())
    };
    for remaining in [2, 1, 0] {
        let (status, headers) = rate(&mut world);
        assert_eq!((status, headers.limit, headers.remaining), (200, 3, remaining));
        assert_eq!(headers.reset, opened.as_second() + 60);
        assert_eq!(headers.date.unwrap().as_second(), world.now.as_second());
        world.now += 10.seconds();
    }
    let (status, headers) = rate(&mut world);
    assert_eq!(
        (status, headers.limit, headers.remaining, headers.reset),
        (429, 3, 0, opened.as_second() + 60)
    );
    assert!(!headers.is_concurrency());
    world.now = opened + 60.seconds() - 1.milliseconds();
    assert_eq!(rate(&mut world).0, 429);
    world.now = opened + 60.seconds();
    assert_eq!(rate(&mut world).0, 200);
    let counter = world.org.counters().into_iter().find(|counter| counter.bucket == "group").unwrap();
    assert_eq!((counter.accepted, counter.refused, counter.accepted_max), (4, 2, 3));
}

#[test]
fn windows_remember_what_each_client_sent_in_them() {
    let limits = [(Bucket::UserRead, 3)].into_iter().collect();
    let mut world = World::new(OrgSettings { limits, ..OrgSettings::default() });
    let opened = world.now;
    let mut call = world.call("GET", "/api/v1/users/me", None);
    let mut send = |credential: &str, now: Timestamp, in_flight: usize| {
        call.headers.insert("authorization", credential.parse().unwrap());
        world.org.answer_with(&call, now, in_flight)
    };
    for credential in ["SSWS one", "SSWS other", "SSWS one", "SSWS one", "SSWS other"] {
        send(credential, opened, 1);
    }
    send("SSWS other", opened, 1_000);
    let next = opened + 61.seconds();
    send("SSWS other", next, 1);

    let counter = world.org.counters().into_iter().find(|counter| counter.bucket == "user_read").unwrap();
    let sent =
        |accepted, refused, refused_concurrent| ClientRequests { accepted, refused, refused_concurrent };
    let windows = [
        PastWindow { opened, limit: 3, clients: vec![sent(2, 1, 0), sent(1, 1, 1)] },
        PastWindow { opened: next, limit: 3, clients: vec![sent(0, 0, 0), sent(1, 0, 0)] },
    ];
    assert_eq!(counter.windows, windows);
    assert_eq!((counter.accepted, counter.refused, counter.refused_concurrent), (4, 2, 1));
}

#[test]
fn too_many_in_flight_are_refused_with_a_lying_reset() {
    let mut world = World::new(OrgSettings::default());
    let call = world.call("GET", "/api/v1/users/me", None);
    let Handled::Said(fine) = world.org.answer_with(&call, world.now, 37) else { panic!("an answer") };
    assert_eq!(fine.status, 200);
    let Handled::Said(refused) = world.org.answer_with(&call, world.now, 38) else { panic!("an answer") };
    let headers = RateHeaders::read(&refused.headers).unwrap();
    assert_eq!(verdict(&refused), "429 E0000047");
    assert!(headers.is_concurrency() && headers.reset > world.now.as_second() + 100);
    let counter = world.org.counters().into_iter().find(|counter| counter.bucket == "user_read").unwrap();
    assert_eq!((counter.accepted, counter.refused, counter.refused_concurrent), (1, 0, 1));
}

#[test]
fn failed_requests_count_and_the_wrong_token_is_told_so() {
    let settings = OrgSettings { token: Some(Secret::new("right")), ..OrgSettings::default() };
    let mut world = World::new(settings);
    let mut call = world.call("GET", "/api/v1/users/nobody@example.com", None);
    let mut send = |token: Option<&str>| {
        call.headers.remove("authorization");
        if let Some(token) = token {
            call.headers.insert("authorization", token.parse().unwrap());
        }
        match world.org.answer(&call, world.now) {
            Handled::Said(response) => response,
            Handled::Lost => panic!("an answer"),
        }
    };
    for token in [None, Some("SSWS wrong"), Some("Basic right")] {
        let response = send(token);
        assert_eq!(verdict(&response), "401 E0000011");
        assert_eq!(response.headers["www-authenticate"], "SSWS");
    }
    let missing = send(Some("SSWS right"));
    assert_eq!(verdict(&missing), "404 E0000007");
    assert_eq!(RateHeaders::read(&missing.headers).unwrap().remaining, 996);
    assert_eq!(missing.headers["x-okta-request-id"].len(), 32);
}

#[test]
fn faults_strike_in_order_before_or_after_the_effect() {
    let mut world = World::wide(OrgSettings::default());
    let create = "/api/v1/groups";
    world.org.script(InjectedFault::next(Trouble::Lost).on("POST", create).after_effect());
    world.org.script(InjectedFault::next(Trouble::Status(500)).on("POST", create).times(2, 1));
    world.org.script(InjectedFault::next(Trouble::Html(502)).on("GET", "/api/v1/users*"));
    world
        .org
        .script(InjectedFault::next(Trouble::InsufficientScope("okta.groups.read".into())).on("GET", create));
    world.org.script(InjectedFault::next(Trouble::ReadOnly).on("DELETE", "/api/v1/groups/{groupId}"));
    let send = |world: &mut World, at: usize| {
        world.try_send("POST", create, Some(&json!({ "profile": { "name": format!("Club {at}") } })))
    };
    assert!(send(&mut world, 0).is_none(), "the first answer is lost");
    assert_eq!(verdict(&send(&mut world, 0).unwrap()), "400 E0000001", "although the group is there");
    assert_eq!([1, 2, 3].map(|at| send(&mut world, at).unwrap().status), [500, 500, 200]);
    let page = world.get("/api/v1/users/me");
    assert_eq!(
        (page.status, page.headers["content-type"].to_str().unwrap()),
        (502, "text/html; charset=UTF-8")
    );
    let scope = world.get(create);
    assert_eq!((scope.status, scope.body.len()), (403, 0));
    assert!(scope.headers["www-authenticate"].to_str().unwrap().contains("scope=\"okta.groups.read\""));
    let everyone = world.org.everyone();
    assert_eq!(verdict(&world.send("DELETE", &format!("/api/v1/groups/{everyone}"), None)), "503 E0000010");
    assert_eq!(world.org.faults_pending(), 0);
    assert_eq!(world.effects(), ["group.created", "group.created"]);
}

#[test]
fn polling_the_log_never_ends_and_a_bounded_query_does() {
    let mut world = World::wide(OrgSettings::default());
    for at in 0..5 {
        world.create_group(&format!("Club {at}"));
        world.now += 1.second();
    }
    let poll = world.get("/api/v1/logs?limit=3");
    assert_eq!(read(&poll).as_array().unwrap().len(), 3);
    let second = world.get(&wire(&link::next(&poll.headers).unwrap()));
    assert_eq!(read(&second).as_array().unwrap().len(), 2);
    let checkpoint = wire(&link::next(&second.headers).unwrap());
    let empty = world.get(&checkpoint);
    assert_eq!(read(&empty), json!([]));
    let checkpoint = wire(&link::next(&empty.headers).expect("polling always has a next"));
    world.create_group("Late Club");
    let late = read(&world.get(&checkpoint));
    assert_eq!(late[0]["target"][0]["displayName"], "Late Club");
    assert_eq!(late[0]["eventType"], "group.lifecycle.create");

    let until = encode(&world.now.to_string());
    for query in [format!("until={until}&limit=2"), "sortOrder=DESCENDING&limit=2".to_owned()] {
        let pages = world.list(&format!("/api/v1/logs?{query}"));
        assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2, 2], "{query}");
    }
    let filter = encode(r#"eventType eq "group.lifecycle.create" and target.displayName ew "3""#);
    let found = read(&world.get(&format!("/api/v1/logs?filter={filter}")));
    assert_eq!(found.as_array().unwrap().len(), 1);
    assert_eq!(read(&world.get("/api/v1/logs?q=late+club")).as_array().unwrap().len(), 1);
    let limit = read(&world.get("/api/v1/logs?limit=0"));
    assert_eq!(limit, json!([]));
}

#[test]
fn the_same_seed_gives_the_same_org() {
    let make = || World::wide(OrgSettings { users: 50, seed: 3, ..OrgSettings::default() });
    let (mut one, mut other) = (make(), make());
    assert_eq!(one.get("/api/v1/users").body, other.get("/api/v1/users").body);
    let mut larger = World::wide(OrgSettings { users: 80, seed: 3, ..OrgSettings::default() });
    let small = read(&one.get("/api/v1/users"));
    let large = read(&larger.get("/api/v1/users"));
    assert_eq!(small.as_array().unwrap()[..40], large.as_array().unwrap()[..40]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn no_window_ever_holds_more_than_its_limit(
        limit in 1u32..8,
        window_ms in 500u64..5_000,
        gaps in proptest::collection::vec(0i64..900, 1..120),
    ) {
        let limits = [(Bucket::UserRead, limit)].into_iter().collect();
        let window = Duration::from_millis(window_ms);
        let mut world = World::new(OrgSettings { limits, window, ..OrgSettings::default() });
        let mut accepted: Vec<Timestamp> = Vec::new();
        let mut opened: Option<Timestamp> = None;
        let mut used = 0;
        for gap in gaps {
            world.now += gap.milliseconds();
            let status = world.get("/api/v1/users/me").status;
            let is_open = opened.is_some_and(|opened| {
                world.now.duration_since(opened).unsigned_abs() < window
            });
            if !is_open {
                opened = Some(world.now);
                used = 0;
            }
            prop_assert_eq!(status == 200, used < limit);
            if status == 200 {
                used += 1;
                accepted.push(world.now);
            }
        }
        let counter = world.org.counters().into_iter().find(|counter| counter.bucket == "user_read").unwrap();
        prop_assert!(counter.accepted_max <= limit);
        prop_assert_eq!(counter.accepted, accepted.len() as u64);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn any_request_is_answered(
        method in "GET|POST|PUT|DELETE|HEAD",
        collection in "users|groups|apps|logs|org|.{0,6}",
        below in "(/\\PC{0,12}){0,3}",
        name in "search|filter|q|after|limit|since|until|sortBy|expand|\\PC{0,4}",
        value in "\\PC{0,30}",
        body in "\\PC{0,20}|\\{\"profile\":\\PC{0,10}\\}|\\{\"profile\":\\{\\}\\}",
    ) {
        let mut world = World::wide(OrgSettings { users: 3, ..OrgSettings::default() });
        for value in [value.clone(), encode(&value)] {
            let mut call = world.call(&method, &format!("/api/v1/{collection}{below}?{name}={value}"), None);
            call.body = Bytes::from(body.clone());
            let Handled::Said(response) = world.org.answer(&call, world.now) else { panic!("an answer") };
            prop_assert!((200..500).contains(&response.status));
        }
    }
}

/// Okta's own description of the 28 operations, as a schema that knows `nullable`.
fn description() -> Option<Value> {
    let folder =
        std::path::PathBuf::from(std::env::var_os("OKTA_REFERENCE").filter(|name| !name.is_empty())?);
    let path = folder.join("okta-28.openapi.json");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    Some(serde_json::from_str(&text).unwrap())
}

/// A body without its nulls: the description says `nullable` in fewer places than Okta sends null.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(object) => object
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| (name.clone(), without_nulls(value)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
        Value::Array(items) => items.iter().map(without_nulls).collect(),
        other => other.clone(),
    }
}

#[test]
fn answers_fit_oktas_own_description() {
    let Some(description) = description() else {
        eprintln!("answers_fit_oktas_own_description did not run: OKTA_REFERENCE is not set");
        return;
    };
    let mut world = World::wide(OrgSettings { users: 40, ..OrgSettings::default() });
    let user = world.create_user("jane@example.com", "", Some("correct horse 1"));
    let staged = world.create_user("jo@example.com", "?activate=false", None);
    let group = world.create_group("Chess");
    let app = world.org.app_id("Payroll").unwrap();
    let rows = [
        (
            "POST",
            "/api/v1/apps/{appId}/users",
            format!("/api/v1/apps/{app}/users"),
            Some(json!({ "id": user })),
        ),
        ("GET", "/api/v1/apps", "/api/v1/apps".to_owned(), None),
        ("GET", "/api/v1/apps/{appId}", format!("/api/v1/apps/{app}"), None),
        ("GET", "/api/v1/apps/{appId}/users", format!("/api/v1/apps/{app}/users?expand=user"), None),
        ("GET", "/api/v1/groups", "/api/v1/groups".to_owned(), None),
        ("GET", "/api/v1/groups/{groupId}", format!("/api/v1/groups/{group}"), None),
        ("GET", "/api/v1/groups/{groupId}/users", format!("/api/v1/groups/{group}/users"), None),
        ("GET", "/api/v1/users", "/api/v1/users".to_owned(), None),
        ("GET", "/api/v1/users/{id}", format!("/api/v1/users/{user}"), None),
        ("GET", "/api/v1/users/{id}/appLinks", format!("/api/v1/users/{user}/appLinks"), None),
        ("GET", "/api/v1/users/{id}/groups", format!("/api/v1/users/{user}/groups"), None),
        (
            "POST",
            "/api/v1/users/{id}/lifecycle/activate",
            format!("/api/v1/users/{staged}/lifecycle/activate?sendEmail=false"),
            None,
        ),
        (
            "POST",
            "/api/v1/users/{id}/lifecycle/expire_password",
            format!("/api/v1/users/{user}/lifecycle/expire_password"),
            None,
        ),
        (
            "POST",
            "/api/v1/users/{id}/lifecycle/reset_password",
            format!("/api/v1/users/{user}/lifecycle/reset_password?sendEmail=false"),
            None,
        ),
        ("GET", "/api/v1/logs", "/api/v1/logs".to_owned(), None),
    ];
    for (method, route, target, body) in rows {
        let response = world.send(method, &target, body);
        assert_eq!(response.status, 200, "{target}: {}", text(&response));
        let operation = &description["paths"][route][method.to_lowercase()];
        let mut schema = operation["responses"]["200"]["content"]["application/json"]["schema"].clone();
        assert!(schema.is_object(), "{method} {route} is described");
        schema["components"] = description["components"].clone();
        let validator = jsonschema::draft4::new(&schema).unwrap();
        assert!(
            !validator.is_valid(&json!("anything")),
            "{method} {route}: the description forbids something"
        );
        let answer = without_nulls(&read(&response));
        let errors: Vec<String> = validator
            .iter_errors(&answer)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        assert_eq!(errors, [""; 0], "{method} {route}");
    }
}

mod over_http {
    //! The skin: what a wire adds to the org.

    use std::net::SocketAddr;
    use std::sync::{Arc, Mutex};

    use okta_worker::sandbox::serve;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// Serves an org for as long as the test's runtime lives.
    async fn open(settings: OrgSettings, latency: Duration) -> (SocketAddr, Arc<Mutex<Org>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let org = Arc::new(Mutex::new(Org::new(settings)));
        tokio::spawn(serve(listener, Arc::clone(&org), latency, std::future::pending()));
        (address, org)
    }

    /// Everything a connection says in answer to a text, until it closes.
    async fn talk(address: SocketAddr, text: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut said = Vec::new();
        let _closed_or_reset = stream.read_to_end(&mut said).await;
        String::from_utf8(said).unwrap()
    }

    fn get(path: &str, connection: &str) -> String {
        format!("GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: SSWS t\r\nconnection: {connection}\r\n\r\n")
    }

    #[tokio::test]
    async fn a_connection_serves_many_requests() {
        let (address, _) = open(OrgSettings::default(), Duration::ZERO).await;
        let both = get("/api/v1/users/me", "keep-alive") + &get("/api/v1/users/me", "close");
        let said = talk(address, &both).await;
        assert_eq!(said.matches("HTTP/1.1 200 OK").count(), 2, "{said}");
        assert_eq!(said.matches("\r\ndate: ").count(), 2, "{said}");
    }

    #[tokio::test]
    async fn a_lost_answer_closes_the_connection_without_a_word() {
        let (address, org) = open(OrgSettings::default(), Duration::ZERO).await;
        org.lock().unwrap().script(InjectedFault::next(Trouble::Lost).after_effect());
        let body = r#"{"profile":{"name":"Chess"}}"#;
        let request = format!(
            "POST /api/v1/groups HTTP/1.1\r\nhost: x\r\nauthorization: SSWS t\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        assert_eq!(talk(address, &request).await, "");
        let effects = talk(address, &get("/sandbox/effects", "close")).await;
        assert!(effects.contains("\"kind\":\"group.created\""), "{effects}");
    }

    #[tokio::test]
    async fn a_post_without_a_length_is_refused() {
        let (address, _) = open(OrgSettings::default(), Duration::ZERO).await;
        let request = "POST /api/v1/users/x/lifecycle/suspend HTTP/1.1\r\nhost: x\r\nauthorization: SSWS t\r\nconnection: close\r\n\r\n";
        assert!(talk(address, request).await.starts_with("HTTP/1.1 411"));
    }

    #[tokio::test]
    async fn faults_and_counters_are_at_the_back_door() {
        let (address, _) = open(OrgSettings::default(), Duration::ZERO).await;
        let fault = r#"{"method":"GET","route":"/api/v1/users/me","what":{"status":500}}"#;
        for (body, expected) in [(fault, "HTTP/1.1 204"), (r#"{"what":"sabotage"}"#, "HTTP/1.1 400")] {
            let order = format!(
                "POST /sandbox/faults HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            assert!(talk(address, &order).await.starts_with(expected));
        }
        for expected in ["HTTP/1.1 500", "HTTP/1.1 200"] {
            assert!(talk(address, &get("/api/v1/users/me", "close")).await.starts_with(expected));
        }
        let counters = talk(address, &get("/sandbox/counters", "close")).await;
        assert!(counters.contains(r#""bucket":"user_read","limit":1000,"accepted":2"#), "{counters}");
        let window = r#""limit":1000,"clients":[{"accepted":2,"refused":0,"refused_concurrent":0}]}"#;
        assert!(counters.contains(window), "{counters}");
    }

    #[tokio::test]
    async fn requests_in_flight_are_counted() {
        let settings = OrgSettings { concurrency: 1, ..OrgSettings::default() };
        // Long enough that the first is surely in flight: a test ends when the answers are there.
        let (address, _) = open(settings, Duration::from_millis(500)).await;
        let request = get("/api/v1/users/me", "close");
        let (one, other) = tokio::join!(talk(address, &request), talk(address, &request));
        let refused = [&one, &other].into_iter().filter(|said| said.starts_with("HTTP/1.1 429")).count();
        assert_eq!(refused, 1, "{one}\n{other}");
    }
}

#[test]
fn apps_are_created_changed_and_deleted_as_okta_does_it() {
    let mut world = World::wide(OrgSettings::default());
    let settings = json!({ "app": { "requestIntegration": false, "url": "https://a.example/b" } });
    let body = json!({ "name": "bookmark", "label": "Rota", "signOnMode": "BOOKMARK", "settings": settings });
    let made = read(&world.send("POST", "/api/v1/apps", Some(body.clone())));
    assert_eq!((&made["label"], &made["status"]), (&json!("Rota"), &json!("ACTIVE")));
    assert_eq!(made["settings"]["app"], settings["app"]);
    let app = format!("/api/v1/apps/{}", made["id"].as_str().unwrap());
    let silent = read(&world.send("POST", "/api/v1/apps?activate=false", Some(body)));
    assert_eq!(silent["status"], "INACTIVE");
    let nameless = world.send("POST", "/api/v1/apps", Some(json!({ "signOnMode": "BOOKMARK" })));
    assert_eq!((nameless.status, &read(&nameless)["errorCode"]), (400, &json!("E0000001")));

    let renamed = read(&world.send("PUT", &app, Some(json!({ "label": "New rota" }))));
    assert_eq!(renamed["label"], "New rota");
    let refused = world.send("DELETE", &app, None);
    assert_eq!((refused.status, &read(&refused)["errorCode"]), (403, &json!("E0000056")), "it is active");
    for _ in 0..2 {
        assert_eq!(text(&world.send("POST", &format!("{app}/lifecycle/deactivate"), None)), "{}");
    }
    assert_eq!(world.send("DELETE", &app, None).status, 204);
    assert_eq!(world.get(&app).status, 404);
    let effects: Vec<&str> = world.effects().into_iter().filter(|kind| kind.starts_with("app.")).collect();
    assert_eq!(effects, ["app.created", "app.created", "app.updated", "app.deactivated", "app.deleted"]);
}

#[test]
fn a_user_gets_another_type_by_put_alone_and_custom_attributes_over_http() {
    let mut world = World::wide(OrgSettings::default());
    let types = read(&world.get("/api/v1/meta/types/user"));
    let [first, second] = [&types[0]["id"], &types[1]["id"]];
    assert_eq!((&types[0]["default"], &types[1]["default"]), (&json!(true), &json!(false)));
    let id = world.create_user("jane@example.com", "?activate=false", None);
    let user = format!("/api/v1/users/{id}");
    let whole = read(&world.get(&user));
    assert_eq!(&whole["type"]["id"], first);
    let body = json!({ "type": { "id": second }, "realmId": "guo1", "profile": whole["profile"] });
    assert_eq!(world.send("POST", &user, Some(body.clone())).status, 400);
    let moved = read(&world.send("PUT", &user, Some(body)));
    assert_eq!((&moved["type"]["id"], &moved["realmId"]), (second, &json!("guo1")));
    assert_eq!(moved["profile"]["login"], "jane@example.com");
    let unknown =
        world.send("PUT", &user, Some(json!({ "type": { "id": "oty1" }, "profile": whole["profile"] })));
    assert_eq!(unknown.status, 404);

    let badge = json!({ "profile": { "badge": "B-1" } });
    assert_eq!(world.send("POST", &user, Some(badge.clone())).status, 400, "there is no such attribute");
    let schema = "/api/v1/meta/schemas/user/default";
    let add = |kind: &str| json!({ "definitions": { "custom": { "properties": { "badge": { "title": "Badge", "type": kind } } } } });
    assert_eq!(world.send("POST", schema, Some(add("colour"))).status, 400);
    assert_eq!(world.send("POST", schema, Some(add("string"))).status, 200);
    assert_eq!(read(&world.get(schema))["definitions"]["custom"]["properties"]["badge"]["type"], "string");
    assert_eq!(read(&world.send("POST", &user, Some(badge)))["profile"]["badge"], "B-1");
}

#[test]
fn the_headers_of_oktas_own_sdks_are_taken() {
    let settings = OrgSettings { token: Some(Secret::new("right")), ..OrgSettings::default() };
    let mut world = World::wide(settings);
    let admin = world.org.admin();
    for (authorization, status) in
        [("SSWS right", 200), ("SSWSright", 200), ("SSWSwrong", 401), ("right", 401), ("SSWS", 401)]
    {
        let mut call = world.call("POST", &format!("/api/v1/users/{admin}/lifecycle/reset_factors"), None);
        call.headers.insert("authorization", HeaderValue::from_static(authorization));
        call.headers.insert("content-type", HeaderValue::from_static("application/octet-stream"));
        let Handled::Said(response) = world.org.answer(&call, world.now) else { panic!("no answer") };
        assert_eq!(response.status, status, "{authorization}");
    }
    let mut call = world.call("POST", "/api/v1/groups", Some(&json!({ "profile": { "name": "A" } })));
    call.headers.insert("authorization", HeaderValue::from_static("SSWS right"));
    call.headers.insert("content-type", HeaderValue::from_static("application/octet-stream"));
    let Handled::Said(response) = world.org.answer(&call, world.now) else { panic!("no answer") };
    assert_eq!(response.status, 400, "a body must be JSON");
}
