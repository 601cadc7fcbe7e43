//! Dry runs of every write beside the same call done for real: docs/dry-run.md is this table.

use std::fmt::Write as _;

use okta_worker::domain::message::Properties;
use okta_worker::sandbox::{InjectedFault, Org, Trouble, UserStatus};
use okta_worker::tools::ToolKind;
use okta_worker::tools::catalogue::CATALOGUE;
use serde_json::{Value, json};

use crate::world::{SAM, Setup, World};

/// One call, and what the org is like before.
struct Row {
    subtool: &'static str,
    case: &'static str,
    /// `$user`, `$sales` and so on stand for ids.
    arguments: &'static str,
    before: Before,
    /// What a dry run cannot know, and how the real run fails for it.
    surprise: Option<(&'static str, &'static str)>,
    /// What it predicts where it cannot know that.
    predicted: &'static str,
}

/// What somebody did before.
enum Before {
    Nothing,
    /// Sam was put into a status.
    Status(UserStatus),
    /// Sam was given the application Payroll.
    Assigned,
    /// Payroll was deactivated.
    Retired,
    /// Payroll was given to Sales.
    Given,
}
use Before::{Assigned, Given, Nothing, Retired};

const fn row(subtool: &'static str, case: &'static str, arguments: &'static str, before: Before) -> Row {
    Row { subtool, case, arguments, before, surprise: None, predicted: "applied" }
}

const fn surprised(
    subtool: &'static str,
    case: &'static str,
    arguments: &'static str,
    before: Before,
    surprise: (&'static str, &'static str),
) -> Row {
    Row { subtool, case, arguments, before, surprise: Some(surprise), predicted: "applied" }
}

/// Nobody has recorded or documented what Okta does: neither a success nor a failure is predicted.
const fn unsure(
    subtool: &'static str,
    case: &'static str,
    arguments: &'static str,
    before: Before,
    surprise: (&'static str, &'static str),
) -> Row {
    Row { subtool, case, arguments, before, surprise: Some(surprise), predicted: "unknown" }
}

/// The credential's role does not cover it: only the write itself is told so.
const ROLE: (&str, &str) = ("whether the credential's role covers what is changed", "forbidden");

/// The org's schema does not know an attribute.
const SCHEMA: (&str, &str) =
    ("whether the profile has what the org's schema asks for, and nothing else", "okta_rejected");

/// Nobody knows of a step from this status; the simulated org refuses it.
const STEP: (&str, &str) = ("whether Okta takes this step from the user's status", "precondition_failed");

/// Nobody knows this of deactivated users.
const DEACTIVATED: &str = "whether Okta does this to a deactivated user";

const SAM_ID: &str = r#"{"user_id":"$sam"}"#;
const NOBODY: &str = r#"{"user_id":"00u1abCdEfGhIjKlMnOp"}"#;
const SALES_SAM: &str = r#"{"group_id":"$sales","user_id":"$sam"}"#;
const PAYROLL_SAM: &str = r#"{"app_id":"$payroll","user_id":"$sam"}"#;
const PAYROLL_SALES: &str = r#"{"app_id":"$payroll","group_id":"$sales"}"#;

const ACTIVE: Before = Before::Status(UserStatus::Active);
const PROVISIONED: Before = Before::Status(UserStatus::Provisioned);
const STAGED: Before = Before::Status(UserStatus::Staged);
const SUSPENDED: Before = Before::Status(UserStatus::Suspended);
const LOCKED: Before = Before::Status(UserStatus::LockedOut);
const GONE: Before = Before::Status(UserStatus::Deprovisioned);

fn rows() -> Vec<Row> {
    vec![
        row(
            "create_user",
            "a login that is free",
            r#"{"profile":{"firstName":"Jo","lastName":"Doe","email":"jo@example.com","login":"jo@example.com"}}"#,
            Nothing,
        ),
        row(
            "create_user",
            "a login that is taken",
            r#"{"profile":{"firstName":"Jo","lastName":"Doe","email":"jo@example.com","login":"sam.admin@example.com"}}"#,
            Nothing,
        ),
        row(
            "create_user",
            "a group that does not exist",
            r#"{"profile":{"firstName":"Jo","lastName":"Doe","email":"jo@example.com","login":"jo@example.com"},"group_ids":["00g1emaKYZTWRYYRRTSK"]}"#,
            Nothing,
        ),
        row(
            "create_user",
            "with a password",
            r#"{"profile":{"firstName":"Jo","lastName":"Doe","email":"jo@example.com","login":"jo@example.com"},"credentials":{"password":{"value":"a planted password 1A"}}}"#,
            Nothing,
        ),
        surprised(
            "create_user",
            "an undefined attribute",
            r#"{"profile":{"firstName":"Jo","lastName":"Doe","email":"jo@example.com","login":"jo@example.com","shoeSize":42}}"#,
            Nothing,
            SCHEMA,
        ),
        row("update_user", "a department", r#"{"user_id":"$sam","profile":{"department":"IT"}}"#, Nothing),
        row("update_user", "a deactivated user", r#"{"user_id":"$sam","profile":{"department":"IT"}}"#, GONE),
        row(
            "update_user",
            "a login that is taken",
            r#"{"user_id":"$sam","profile":{"login":"amir.garcia.2@example.com"}}"#,
            Nothing,
        ),
        surprised(
            "update_user",
            "an undefined attribute",
            r#"{"user_id":"$sam","profile":{"shoeSize":42}}"#,
            Nothing,
            SCHEMA,
        ),
        row("delete_user", "a deactivated user", SAM_ID, GONE),
        row("delete_user", "an active user", SAM_ID, ACTIVE),
        row("delete_user", "a user who does not exist", NOBODY, Nothing),
        surprised("delete_user", "outside the credential's role", SAM_ID, GONE, ROLE),
        row("activate_user", "a staged user", SAM_ID, STAGED),
        row("activate_user", "an active user", SAM_ID, ACTIVE),
        unsure("activate_user", "a suspended user", SAM_ID, SUSPENDED, STEP),
        row("activate_user", "a PROVISIONED user", SAM_ID, PROVISIONED),
        row("activate_user", "for a link, without e-mail", r#"{"user_id":"$sam","send_email":false}"#, GONE),
        surprised("activate_user", "outside the credential's role", SAM_ID, STAGED, ROLE),
        row("deactivate_user", "an active user", SAM_ID, ACTIVE),
        row("deactivate_user", "a deactivated user", SAM_ID, GONE),
        row("deactivate_user", "a user who does not exist", NOBODY, Nothing),
        surprised("deactivate_user", "outside the credential's role", SAM_ID, ACTIVE, ROLE),
        row("suspend_user", "an active user", SAM_ID, ACTIVE),
        row("suspend_user", "a suspended user", SAM_ID, SUSPENDED),
        row("suspend_user", "a staged user", SAM_ID, STAGED),
        unsure("suspend_user", "a PROVISIONED user", SAM_ID, PROVISIONED, (STEP.0, "precondition_failed")),
        surprised("suspend_user", "outside the credential's role", SAM_ID, ACTIVE, ROLE),
        row("unsuspend_user", "a suspended user", SAM_ID, SUSPENDED),
        row("unsuspend_user", "an active user", SAM_ID, ACTIVE),
        row("unsuspend_user", "a deactivated user", SAM_ID, GONE),
        surprised("unsuspend_user", "outside the credential's role", SAM_ID, SUSPENDED, ROLE),
        row("unlock_user", "a locked-out user", SAM_ID, LOCKED),
        row("unlock_user", "an active user", SAM_ID, ACTIVE),
        unsure("unlock_user", "a staged user", SAM_ID, STAGED, STEP),
        surprised("unlock_user", "outside the credential's role", SAM_ID, LOCKED, ROLE),
        row("reset_user_password", "an active user", SAM_ID, ACTIVE),
        row("reset_user_password", "a staged user", SAM_ID, STAGED),
        unsure("reset_user_password", "a suspended user", SAM_ID, SUSPENDED, STEP),
        unsure("reset_user_password", "a PROVISIONED user", SAM_ID, PROVISIONED, STEP),
        row("reset_user_password", "by login", r#"{"user_id":"sam.admin@example.com"}"#, ACTIVE),
        row("reset_user_password", "a user who does not exist", NOBODY, Nothing),
        surprised("reset_user_password", "outside the credential's role", SAM_ID, ACTIVE, ROLE),
        row("expire_user_password", "an active user", SAM_ID, ACTIVE),
        unsure("expire_user_password", "a suspended user", SAM_ID, SUSPENDED, STEP),
        row(
            "expire_user_password",
            "with a temporary password",
            r#"{"user_id":"$sam","temp_password":true}"#,
            ACTIVE,
        ),
        surprised("expire_user_password", "outside the credential's role", SAM_ID, ACTIVE, ROLE),
        row("create_group", "a name that is free", r#"{"name":"Night shift"}"#, Nothing),
        row("create_group", "a name that is taken", r#"{"name":"Sales"}"#, Nothing),
        surprised(
            "create_group",
            "an undefined attribute",
            r#"{"name":"Night shift","profile":{"costCenter":"42"}}"#,
            Nothing,
            SCHEMA,
        ),
        row("update_group", "a description", r#"{"group_id":"$sales","description":"Who sells"}"#, Nothing),
        row("update_group", "a name that is taken", r#"{"group_id":"$sales","name":"Support"}"#, Nothing),
        row("update_group", "a built-in group", r#"{"group_id":"$everyone","name":"All"}"#, Nothing),
        surprised(
            "update_group",
            "an undefined attribute",
            r#"{"group_id":"$sales","profile":{"costCenter":"42"}}"#,
            Nothing,
            SCHEMA,
        ),
        row("delete_group", "a group with an application", r#"{"group_id":"$sales"}"#, Nothing),
        row("delete_group", "a built-in group", r#"{"group_id":"$everyone"}"#, Nothing),
        row("delete_group", "a group that does not exist", r#"{"group_id":"00g1emaKYZTWRYYRRTSK"}"#, Nothing),
        surprised("delete_group", "outside the credential's role", r#"{"group_id":"$sales"}"#, Nothing, ROLE),
        row("add_user_to_group", "by id", SALES_SAM, Nothing),
        row(
            "add_user_to_group",
            "by login",
            r#"{"group_id":"$sales","user_id":"sam.admin@example.com"}"#,
            Nothing,
        ),
        row(
            "add_user_to_group",
            "an imported group",
            r#"{"group_id":"$imported","user_id":"$sam"}"#,
            Nothing,
        ),
        unsure("add_user_to_group", "a deactivated user", SALES_SAM, GONE, (DEACTIVATED, "not_found")),
        surprised("add_user_to_group", "outside the credential's role", SALES_SAM, Nothing, ROLE),
        row("remove_user_from_group", "a user who is not a member", SALES_SAM, Nothing),
        row(
            "remove_user_from_group",
            "an imported group",
            r#"{"group_id":"$imported","user_id":"$sam"}"#,
            Nothing,
        ),
        row(
            "remove_user_from_group",
            "a user who does not exist",
            r#"{"group_id":"$sales","user_id":"00u1abCdEfGhIjKlMnOp"}"#,
            Nothing,
        ),
        surprised("remove_user_from_group", "outside the credential's role", SALES_SAM, Nothing, ROLE),
        row("assign_user_to_app", "an active application", PAYROLL_SAM, Nothing),
        unsure(
            "assign_user_to_app",
            "an inactive application",
            PAYROLL_SAM,
            Retired,
            ("whether Okta assigns an application that is not active", "not_found"),
        ),
        unsure(
            "assign_user_to_app",
            "a deactivated user",
            PAYROLL_SAM,
            GONE,
            (DEACTIVATED, "precondition_failed"),
        ),
        surprised(
            "assign_user_to_app",
            "an attribute that the application does not have",
            r#"{"app_id":"$payroll","user_id":"$sam","profile":{"shoeSize":42}}"#,
            Nothing,
            SCHEMA,
        ),
        row("remove_user_from_app", "a direct assignment", PAYROLL_SAM, Assigned),
        row("remove_user_from_app", "no assignment", PAYROLL_SAM, Nothing),
        row(
            "remove_user_from_app",
            "an application assigned through a group",
            r#"{"app_id":"$wiki","user_id":"$sam"}"#,
            Nothing,
        ),
        surprised("remove_user_from_app", "outside the credential's role", PAYROLL_SAM, Assigned, ROLE),
        row("clear_user_sessions", "an active user", SAM_ID, ACTIVE),
        row("clear_user_sessions", "a user who does not exist", NOBODY, Nothing),
        surprised("clear_user_sessions", "outside the credential's role", SAM_ID, ACTIVE, ROLE),
        row("reset_user_factors", "an active user", SAM_ID, ACTIVE),
        row("reset_user_factors", "a user who does not exist", NOBODY, Nothing),
        surprised("reset_user_factors", "outside the credential's role", SAM_ID, ACTIVE, ROLE),
        row("reactivate_user", "a staged user", SAM_ID, STAGED),
        row("reactivate_user", "a PROVISIONED user", SAM_ID, PROVISIONED),
        row("reactivate_user", "an active user", SAM_ID, ACTIVE),
        row("reactivate_user", "a deactivated user", SAM_ID, GONE),
        row("reactivate_user", "a user who does not exist", NOBODY, Nothing),
        surprised("reactivate_user", "outside the credential's role", SAM_ID, PROVISIONED, ROLE),
        row("assign_group_to_app", "an active application", PAYROLL_SALES, Nothing),
        row(
            "assign_group_to_app",
            "a group that does not exist",
            r#"{"app_id":"$payroll","group_id":"00g1emaKYZTWRYYRRTSK"}"#,
            Nothing,
        ),
        unsure(
            "assign_group_to_app",
            "an inactive application",
            PAYROLL_SALES,
            Retired,
            ("whether Okta assigns an application that is not active", "not_found"),
        ),
        surprised("assign_group_to_app", "outside the credential's role", PAYROLL_SALES, Nothing, ROLE),
        row("remove_group_from_app", "an assignment", PAYROLL_SALES, Given),
        row("remove_group_from_app", "no assignment", PAYROLL_SALES, Nothing),
        row(
            "remove_group_from_app",
            "a group that does not exist",
            r#"{"app_id":"$payroll","group_id":"00g1emaKYZTWRYYRRTSK"}"#,
            Nothing,
        ),
        surprised("remove_group_from_app", "outside the credential's role", PAYROLL_SALES, Given, ROLE),
    ]
}

fn filled(org: &mut Org, text: &str) -> Value {
    let imported = org.import_group("Directory Users");
    let ids = [
        ("$sam", org.admin()),
        ("$sales", org.group_id("Sales").unwrap()),
        ("$everyone", org.everyone()),
        ("$imported", imported),
        ("$payroll", org.app_id("Payroll").unwrap()),
        ("$wiki", org.app_id("Wiki").unwrap()),
    ];
    let text = ids.iter().fold(text.to_owned(), |text, (name, id)| text.replace(name, id.as_str()));
    serde_json::from_str(&text).unwrap()
}

async fn call(world: &mut World, subtool: &str, arguments: &Value, dry_run: bool) -> Value {
    let options = json!({ "dry_run": dry_run });
    world.send("prod.interactive", json!({ "subtool": subtool, "arguments": arguments, "options": options }));
    world.rest().await;
    drop(world.tape());
    world.answer()
}

/// An effect, or the error that stands for it.
fn brief(effect: &Value, error: &Value) -> String {
    error["code"].as_str().or(effect.as_str()).unwrap().to_owned()
}

/// One line of the table: the prediction and the real outcome.
async fn line(row: &Row) -> String {
    let mut setup = Setup::default();
    setup.org.users = 8;
    let mut world = setup.open();
    let arguments = filled(&mut world.org(), row.arguments);
    let sam = world.org().admin();
    match row.before {
        Nothing => {}
        Before::Status(status) => assert!(world.org().set_status(sam, status)),
        Retired => {
            let payroll = world.org().app_id("Payroll").unwrap();
            assert!(world.org().deactivate_app(payroll));
        }
        Given => {
            let (payroll, sales) = {
                let org = world.org();
                (org.app_id("Payroll").unwrap(), org.group_id("Sales").unwrap())
            };
            assert!(world.org().assign_group_to_app(payroll, sales));
        }
        Assigned => {
            let assigned = call(&mut world, "assign_user_to_app", &arguments, false).await;
            assert_eq!(assigned["status"], "succeeded");
        }
    }
    let before = world.effects();
    let dry = call(&mut world, row.subtool, &arguments, true).await;
    let name = format!("{} of {}", row.subtool, row.case);
    assert_eq!((&dry["status"], &dry["effect"]), (&json!("planned"), &json!("none")), "{name}: {dry}");
    assert_eq!(world.effects(), before, "{name}: a dry run has changed something");
    assert!(!dry.to_string().contains("planted"), "{name}: {dry}");
    let plan = &dry["result"];

    if let Some((_, code)) = row.surprise
        && code == "forbidden"
    {
        for method in ["POST", "PUT", "DELETE"] {
            let trouble = Trouble::Code { status: 403, code: "E0000006".to_owned() };
            world.fault(InjectedFault::next(trouble).on(method, "/api/v1/*"));
        }
    }
    let real = call(&mut world, row.subtool, &arguments, false).await;
    world.org().clear_faults();
    let predicted = brief(&plan["predicted"]["effect"], &plan["predicted"]["error"]);
    let came = brief(&real["effect"], &real["error"]);
    match row.surprise {
        None => {
            assert_eq!(predicted, came, "{name}: {dry} {real}");
            let calls = plan["calls"].as_object().unwrap().values().map(|count| count.as_u64().unwrap());
            let calls = calls.sum::<u64>();
            assert!(came != "applied" || json!(calls) == real["okta_calls"], "{name}: {plan} {real}");
        }
        Some((not_checked, code)) => {
            assert_eq!((&*predicted, &*came), (row.predicted, code), "{name}: {dry} {real}");
            let listed = plan["not_checked"].as_array().unwrap();
            assert!(listed.contains(&json!(not_checked)), "{name}: {listed:?}");
        }
    }
    world.close();
    let why = row.surprise.map_or("", |(why, _)| why);
    format!("| `{}` | {} | {predicted} | {came} | {why} |\n", row.subtool, row.case)
}

#[tokio::test(start_paused = true)]
async fn what_a_dry_run_predicts_comes_true_or_is_named_as_not_checked() {
    let rows = rows();
    for entry in CATALOGUE.iter().filter(|entry| entry.manifest.kind != ToolKind::Read) {
        let of = rows.iter().filter(|row| row.subtool == entry.manifest.name);
        let surprises = of.clone().filter(|row| row.surprise.is_some()).count();
        assert!(of.count() >= 3 && surprises >= 1, "{}", entry.manifest.name);
    }
    let mut page = String::from(
        "# Dry runs compared with real runs\n\n\
         Written by `UPDATE_DOCS=1 cargo test --features chaos --test stories plans`: a test plans each call with \
         `dry_run` and then executes it, in a simulated org of its own. No dry run changed anything there. A \
         prediction is wrong only for a reason that the plan lists in `not_checked`. It is `unknown` where neither \
         Okta's documentation nor a recording of Okta shows the outcome; there, the real outcome is the simulated \
         org's assumption. [messages.md](messages.md#plans) describes the fields of a plan.\n\n\
         | subtool | case | predicted | real outcome | not checked |\n|---|---|---|---|---|\n",
    );
    for row in &rows {
        page.write_str(&line(row).await).unwrap();
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/dry-run.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, &page).unwrap();
    }
    assert_eq!(std::fs::read_to_string(path).unwrap_or_default(), page, "docs/dry-run.md is out of date");
}

#[tokio::test(start_paused = true)]
async fn a_plan_shows_requests_losses_and_no_secret() {
    let mut setup = Setup::default();
    setup.org.users = 8;
    let mut world = setup.open();
    let arguments = json!({
        "profile": { "firstName": "Jo", "lastName": "Doe", "email": "jo@example.com", "login": "jo@example.com" },
        "credentials": { "password": { "value": "hunter2hunter2" } },
        "group_ids": [world.org().group_id("Sales").unwrap().as_str()],
    });
    let plan = call(&mut world, "create_user", &arguments, true).await["result"].clone();
    let request = &plan["requests"][0];
    assert_eq!((&request["method"], &request["path"]), (&json!("POST"), &json!("/api/v1/users")));
    assert_eq!(request["query"], json!({ "activate": "true" }));
    assert_eq!(request["body"]["credentials"]["password"]["value"], "***");
    assert_eq!(request["body"]["profile"]["login"], "jo@example.com");
    assert_eq!(plan["calls"], json!({ "users": 1 }));
    assert_eq!(plan["predicted"], json!({ "effect": "applied", "error": null }));

    let sam = world.sam_into_sales();
    assert_eq!(call(&mut world, "add_user_to_group", &sam, false).await["status"], "succeeded");
    let plan = call(&mut world, "deactivate_user", &json!({ "user_id": SAM }), true).await["result"].clone();
    let names = |of: &str| -> Vec<Value> {
        plan["loses"][of].as_array().unwrap().iter().map(|lost| lost["name"].clone()).collect()
    };
    assert_eq!(names("groups"), [Value::Null; 0], "memberships stay");
    assert_eq!(names("apps"), ["Wiki", "CRM"]);
    assert_eq!(
        call(&mut world, "deactivate_user", &json!({ "user_id": SAM }), false).await["effect"],
        "applied"
    );
    let stays = call(&mut world, "list_user_groups", &json!({ "user_id": SAM }), false).await;
    assert_eq!(stays["result"]["items"][1]["profile"]["name"], "Sales", "{stays}");
    let gone = call(&mut world, "list_user_apps", &json!({ "user_id": SAM }), false).await;
    assert_eq!(gone["result"]["count"], 0, "{gone}");
    let plan = call(&mut world, "delete_user", &json!({ "user_id": SAM }), true).await["result"].clone();
    let lost: Vec<&Value> =
        plan["loses"]["groups"].as_array().unwrap().iter().map(|lost| &lost["name"]).collect();
    assert_eq!(lost, ["Everyone", "Sales"], "a deleted user is in no group any more");
    world.close();
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_needs_permission_and_no_reply_queue_and_a_read_is_simply_done() {
    let mut world = Setup::default().open();
    let read = call(&mut world, "get_user", &json!({ "user_id": SAM }), true).await;
    assert_eq!((&read["status"], &read["effect"]), (&json!("succeeded"), &json!("none")));
    let wrong = call(&mut world, "suspend_user", &json!({ "user": SAM }), true).await;
    assert_eq!(wrong["error"]["code"], "invalid_arguments");
    let body = json!({
        "subtool": "reset_user_password",
        "arguments": { "user_id": SAM, "send_email": false },
        "options": { "dry_run": true },
    });
    world.send_raw("prod.interactive", Properties::default(), body.to_string());
    world.rest().await;
    drop(world.tape());
    assert_eq!(crate::world::body(&world.result())["status"], "planned");
    world.close();
}

#[tokio::test(start_paused = true)]
async fn a_plan_shows_numbers_as_they_would_be_sent_and_hides_secrets_alone() {
    let mut world = Setup::default().open();
    let profile =
        r#"{"z":1e3,"a":12345678901234567890123,"secretary":"Sam Lee","manager":"Sam Lee","pet":"rex 007"}"#;
    let credentials = r#"{"password":{"value":"rex 007"},"provider":{"type":"OKTA","name":"OKTA"}}"#;
    world.send_raw(
        "prod",
        Properties::default(),
        format!(
            r#"{{"subtool":"update_user","arguments":{{"user_id":"{SAM}","profile":{profile},"credentials":{credentials}}},"options":{{"dry_run":true}}}}"#
        ),
    );
    world.rest().await;
    drop(world.tape());
    let result = world.result();
    let text = std::str::from_utf8(&result.body).unwrap();
    let sent = format!(r#"{{"profile":{profile},"credentials":{credentials}}}"#).replace("rex 007", "***");
    assert!(text.contains(&sent), "{text}");
    world.close();
}
