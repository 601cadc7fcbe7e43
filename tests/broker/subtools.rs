//! Each subtool through the broker: what comes back, and what the org did.

use okta_worker::catalog::json_schema;
use okta_worker::tools::catalogue::names;
use serde_json::{Value, json};

use super::caller::{Message, Reply, text};
use super::world::World;

const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// One invocation: subtool, arguments, effect, and what the org did. `$U`, `$G` and `$A` are the user and
/// the group that the first rows make, and an app.
type Row = (&'static str, &'static str, &'static str, &'static [&'static str]);

const ROWS: [Row; 42] = [
    (
        "create_user",
        r#"{"profile":{"firstName":"Wai","lastName":"Ting","login":"wai@example.com","email":"wai@example.com"}}"#,
        "applied",
        &["user.created", "user.activated", "mail.activation"],
    ),
    ("reactivate_user", r#"{"user_id":"$U"}"#, "applied", &["user.reactivated", "mail.activation"]),
    (
        "reactivate_user",
        r#"{"user_id":"$U","send_email":false}"#,
        "applied",
        &["user.reactivated", "secret.minted"],
    ),
    (
        "create_user",
        r#"{"profile":{"firstName":"Jane","lastName":"Doe","login":"jane@example.com","email":"jane@example.com"},
            "credentials":{"password":{"value":"Hunter2-Hunter2"}}}"#,
        "applied",
        &["user.created", "user.activated"],
    ),
    ("create_group", r#"{"name":"Night shift","description":"They watch"}"#, "applied", &["group.created"]),
    ("get_user", r#"{"user_id":"jane@example.com"}"#, "none", &[]),
    ("list_users", r#"{"search":"profile.login eq \"jane@example.com\""}"#, "none", &[]),
    ("update_user", r#"{"user_id":"$U","profile":{"title":"Night Owl"}}"#, "applied", &["user.updated"]),
    ("add_user_to_group", r#"{"group_id":"$G","user_id":"$U"}"#, "applied", &["member.added"]),
    ("list_group_members", r#"{"group_id":"$G"}"#, "none", &[]),
    ("list_user_groups", r#"{"user_id":"$U"}"#, "none", &[]),
    ("remove_user_from_group", r#"{"group_id":"$G","user_id":"$U"}"#, "applied", &["member.removed"]),
    ("list_apps", r#"{"q":"Payroll"}"#, "none", &[]),
    ("get_app", r#"{"app_id":"$A"}"#, "none", &[]),
    ("assign_user_to_app", r#"{"app_id":"$A","user_id":"$U"}"#, "applied", &["app.assigned"]),
    ("list_app_users", r#"{"app_id":"$A"}"#, "none", &[]),
    ("list_user_apps", r#"{"user_id":"$U"}"#, "none", &[]),
    ("remove_user_from_app", r#"{"app_id":"$A","user_id":"$U"}"#, "applied", &["app.unassigned"]),
    ("remove_user_from_app", r#"{"app_id":"$A","user_id":"$U"}"#, "unchanged", &[]),
    ("assign_group_to_app", r#"{"app_id":"$A","group_id":"$G"}"#, "applied", &["app.group_assigned"]),
    ("list_app_groups", r#"{"app_id":"$A","q":"Night"}"#, "none", &[]),
    ("list_group_apps", r#"{"group_id":"$G"}"#, "none", &[]),
    ("remove_group_from_app", r#"{"app_id":"$A","group_id":"$G"}"#, "applied", &["app.group_unassigned"]),
    ("remove_group_from_app", r#"{"app_id":"$A","group_id":"$G"}"#, "unchanged", &[]),
    ("clear_user_sessions", r#"{"user_id":"$U"}"#, "applied", &[]),
    ("list_user_factors", r#"{"user_id":"$U"}"#, "none", &[]),
    ("reset_user_factors", r#"{"user_id":"$U"}"#, "applied", &[]),
    ("list_groups", r#"{"q":"Night"}"#, "none", &[]),
    ("get_group", r#"{"group_id":"$G"}"#, "none", &[]),
    ("update_group", r#"{"group_id":"$G","description":"They sleep"}"#, "applied", &["group.updated"]),
    ("delete_group", r#"{"group_id":"$G"}"#, "applied", &["group.deleted"]),
    ("suspend_user", r#"{"user_id":"$U"}"#, "applied", &["user.suspended"]),
    ("unsuspend_user", r#"{"user_id":"$U"}"#, "applied", &["user.unsuspended"]),
    ("unlock_user", r#"{"user_id":"$U"}"#, "unchanged", &[]),
    (
        "reset_user_password",
        r#"{"user_id":"$U","send_email":false}"#,
        "applied",
        &["user.password_reset", "secret.minted"],
    ),
    ("expire_user_password", r#"{"user_id":"$U"}"#, "applied", &["user.password_expired"]),
    (
        "expire_user_password",
        r#"{"user_id":"$U","temp_password":true}"#,
        "applied",
        &["user.password_expired", "secret.minted"],
    ),
    ("deactivate_user", r#"{"user_id":"$U"}"#, "applied", &["user.deactivated"]),
    (
        "activate_user",
        r#"{"user_id":"$U","send_email":false}"#,
        "applied",
        &["user.activated", "secret.minted"],
    ),
    ("deactivate_user", r#"{"user_id":"$U"}"#, "applied", &["user.deactivated"]),
    ("delete_user", r#"{"user_id":"$U"}"#, "applied", &["user.deleted"]),
    ("list_events", r#"{"filter":"eventType eq \"user.lifecycle.suspend\""}"#, "none", &[]),
];

/// Holds a value against a definition of the document.
fn check_schema(document: &Value, definition: &str, value: &Value, what: &str) {
    let schema = json!({ "$ref": format!("#/$defs/{definition}"), "$defs": document["$defs"] });
    let validator = jsonschema::draft202012::new(&schema).expect("the catalogue holds schemas");
    let faults: Vec<_> = validator.iter_errors(value).map(|fault| fault.to_string()).collect();
    assert!(faults.is_empty(), "{what}: {faults:?} in {value}");
}

fn check_properties(reply: &Reply, id: &str) {
    let properties = &reply.properties;
    let text = |text: &Option<lapin::types::ShortString>| text.as_ref().map(ToString::to_string);
    assert_eq!(text(properties.message_id()).as_deref(), Some(&*format!("{id}.result")));
    assert_eq!(text(properties.correlation_id()).as_deref(), Some(&*format!("for {id}")));
    assert_eq!(text(properties.kind()).as_deref(), Some("okta.result"));
    assert_eq!(text(properties.content_type()).as_deref(), Some("application/json"));
    assert_eq!(*properties.delivery_mode(), Some(2), "results are persistent");
    assert_eq!(reply.header_text("traceparent").as_deref(), Some(TRACE));
}

#[tokio::test]
async fn each_of_the_subtools_answers_as_the_catalogue_says_and_does_what_it_says() {
    let missing: Vec<_> = names().filter(|name| ROWS.iter().all(|row| row.0 != *name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    let world = World::new().await;
    let _worker = world.worker();
    let mut caller = world.caller().await;
    let schema = json_schema();
    let apps = caller.ask("prod", "list_apps", &json!({"q": "Payroll"})).await;
    let app = apps["items"][0]["id"].as_str().expect("there is a payroll").to_owned();
    let (mut user, mut group) = (String::new(), String::new());
    for (at, (subtool, arguments, effect, done)) in ROWS.iter().enumerate() {
        let arguments = arguments.replace("$U", &user).replace("$G", &group).replace("$A", &app);
        let before = world.org.effects().len();
        let id = format!("i{at}");
        let message = Message::new("prod", subtool, &serde_json::from_str(&arguments).unwrap())
            .id(&id)
            .header("traceparent", text(TRACE))
            .with(|properties| properties.with_correlation_id(format!("for {id}").into()));
        let reply = caller.call(&message).await;
        let body = reply.body();
        let what = format!("{subtool} {arguments}: {body}");
        assert_eq!((&body["status"], &body["effect"]), (&json!("succeeded"), &json!(effect)), "{what}");
        check_properties(&reply, &id);
        check_schema(&schema, "result", &body, &what);
        check_schema(&schema, &format!("{subtool}.result"), &body["result"], &what);
        assert_eq!((&body["id"], &body["subtool"]), (&json!(id), &json!(subtool)), "{what}");
        assert_eq!(body["connection"], "prod", "{what}");
        assert!(body["attempts"] == 1 && body["okta_calls"].as_u64() >= Some(1), "{what}");
        assert_eq!(world.org.effects()[before..], **done, "{what}");
        let id = || body["result"]["id"].as_str().expect("what is made has an id").to_owned();
        match *subtool {
            "create_user" => user = id(),
            "create_group" => group = id(),
            _ => {}
        }
        let wanted = match *subtool {
            "list_users" | "list_group_members" => Some((&body["result"]["items"][0]["id"], &user)),
            "get_group" => Some((&body["result"]["id"], &group)),
            "get_app" => Some((&body["result"]["id"], &app)),
            _ => None,
        };
        if let Some((found, wanted)) = wanted {
            assert_eq!(found, wanted, "{what}");
        }
    }
    let gone = caller.call(&Message::new("prod", "get_user", &json!({"user_id": user}))).await;
    assert_eq!(gone.error().0, "not_found");
}
