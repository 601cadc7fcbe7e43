//! A service app instead of a token, over HTTP: fetched, renewed, and its key replaced.

use serde_json::{Value, json};

use super::caller::{Caller, Message, until};
use super::child::{command, ran};
use super::world::{Start, World};

/// What the org is started with, so that it knows the app; its tokens soon have to be renewed.
pub const CLIENT: [&str; 4] = [
    "--client",
    concat!("0oaTheApp=", env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/test-only-ec-key.pub.pem"),
    "--token-lifetime",
    "2",
];

/// The app's private key, and another one.
pub const KEY: &str = include_str!("../fixtures/test-only-ec-key.pem");
const OTHER_KEY: &str = include_str!("../fixtures/test-only-rsa-key.pem");

/// A connection `app` that the app opens with the key in this file.
pub fn settings(world: &World) -> String {
    let (base_url, file) = (world.org.url(), world.file("key.pem"));
    std::fs::write(&file, KEY).expect("a file can be written");
    format!(
        r#"
[connections.app]
base_url = "{base_url}"
rate_limit_window = "2s"
subtools = ["read", "write"]
[connections.app.service_app]
client_id = "0oaTheApp"
private_key = {{ file = "{}" }}
scopes = ["okta.users.manage", "okta.groups.read"]
"#,
        file.display()
    )
}

fn list() -> Message {
    Message::new("app", "list_groups", &json!({"limit": 1}))
}

async fn status(caller: &mut Caller) -> Value {
    caller.call(&list()).await.body()["status"].clone()
}

#[tokio::test]
async fn a_service_app_opens_a_connection_for_longer_than_a_token_lives() {
    let world = World::with(&CLIENT).await;
    let start =
        Start { settings: &settings(&world), variables: &[("OKTA_WORKER_LOG", "debug")], ..Start::default() };
    let worker = world.worker_with(&start);
    let mut caller = world.caller().await;
    let asked = || worker.process.stderr().matches("a token was asked for").count();
    until("three tokens", async || {
        let body = caller.call(&list()).await.body();
        assert_eq!((&body["status"], &body["okta_calls"]), (&json!("succeeded"), &json!(1)), "{body}");
        asked() >= 3
    })
    .await;
    let create = Message::new("app", "create_group", &json!({"name": "Night shift"}));
    let error = caller.call(&create).await.body()["error"].clone();
    assert_eq!(error["code"], "forbidden");
    let message = error["message"].as_str().unwrap_or_default();
    assert!(message.contains("needs okta.groups.manage"), "{message}");
    assert!(
        !worker
            .metrics()
            .contains("okta_worker_connection_paused{connection=\"app\",reason=\"unauthorized\"} 1")
    );
    worker.stop();
}

#[tokio::test]
async fn a_private_key_that_is_replaced_in_its_file_is_taken_up() {
    let world = World::with(&CLIENT).await;
    let worker = world.worker_with(&Start { settings: &settings(&world), ..Start::default() });
    let mut caller = world.caller().await;
    assert_eq!(status(&mut caller).await, "succeeded");
    for (taken_up, (key, expected)) in [(OTHER_KEY, "failed"), (KEY, "succeeded")].into_iter().enumerate() {
        std::fs::write(world.file("key.pem"), key).unwrap();
        let line = "connection `app` has changed: service_app.private_key";
        until(line, async || worker.process.stderr().matches(line).count() == taken_up + 1).await;
        until(expected, async || status(&mut caller).await == expected).await;
    }
    assert!(worker.process.stderr().contains("The client_assertion signature is invalid."));
    std::fs::write(world.file("key.pem"), "no key").unwrap();
    worker.process.signal("HUP");
    let line = "connections.app.service_app.private_key: must be a private key in PEM";
    until(line, async || worker.process.stderr().contains(line)).await;
    assert_eq!(status(&mut caller).await, "succeeded", "the one in force is kept");
    worker.stop();
}

#[tokio::test]
async fn check_names_what_a_service_app_may_not_do() {
    let world = World::with(&CLIENT).await;
    let file = world.file("check.toml");
    std::fs::write(&file, settings(&world)).unwrap();
    let mut check = command();
    check.arg("check").arg("--config").arg(&file);
    let (code, stdout, stderr) = ran(&mut check);
    assert_eq!(code, 1, "{stdout}{stderr}");
    for line in [
        "ok         credential: Okta gives the service app tokens",
        "ok         okta.users.read: limit",
        "ok         okta.users.manage: granted",
        "FAILED     okta.groups.manage: the enabled subtools need it, and `service_app.scopes` does not name it",
    ] {
        assert!(stdout.contains(line), "{line} is not in:\n{stdout}");
    }
    let text = settings(&world);
    std::fs::write(&file, text.replace("0oaTheApp", "0oaAnother")).unwrap();
    let (code, stdout, _) = ran(&mut check);
    assert_eq!(code, 1);
    assert!(stdout.contains("FAILED     credential: Okta answered 401 invalid_client"), "{stdout}");
}
