//! What the contract names and this version does not build is refused, never ignored.

use lapin::types::AMQPValue;
use okta_worker::{config, domain::envelope};
use serde_json::{Value, json};

use super::caller::Message;
use super::child::{command, ran};
use super::world::World;

#[tokio::test]
async fn each_option_that_is_not_supported_yet_is_refused_by_its_path() {
    let world = World::new().await;
    let _worker = world.worker();
    let mut caller = world.caller().await;
    for envelope::NotYet { path, example } in envelope::NOT_YET {
        let message = Message::new("prod", "list_groups", &json!({}));
        let message = if let Some(name) = path.strip_prefix("options.") {
            message.options(json!({ name: serde_json::from_str::<Value>(example).unwrap() }))
        } else {
            let name = path.strip_prefix("properties.headers.").expect("an option or a header");
            assert_eq!(example, "true", "{path}");
            message.header(name, AMQPValue::Boolean(true))
        };
        let reply = caller.call(&message).await;
        assert_eq!(reply.error(), ("invalid_message".to_owned(), Some(path.to_owned())));
        let body = reply.body();
        assert!(body["error"]["message"].as_str().unwrap().contains("not supported yet"), "{body}");
    }
    assert_eq!(world.org.requests(), 0);
}

#[test]
fn each_setting_that_is_not_supported_yet_is_refused_with_exit_code_2() {
    const GOOD: &str = r#"
[connections.x]
domain = "acme.okta.com"
api_token = { env = "TEST_OKTA_TOKEN" }
subtools = ["read"]
[callers.x]
connections = ["x"]
subtools = ["read"]
"#;
    for envelope::NotYet { path, example } in config::NOT_YET {
        let path = path.replace('*', "x");
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.toml"), GOOD).unwrap();
        std::fs::write(dir.path().join("b.toml"), format!("{path} = {example}\n")).unwrap();
        let mut run = command();
        run.arg("run").arg("--config").arg(dir.path()).env("TEST_OKTA_TOKEN", "x");
        let (code, _, stderr) = ran(&mut run);
        assert_eq!(code, 2, "{path}: {stderr}");
        assert!(stderr.contains(&path) && stderr.contains("not supported yet"), "{path}: {stderr}");
    }
}

#[test]
fn each_command_that_is_not_supported_yet_says_so_with_exit_code_2() {
    let rows: [&[&str]; 7] = [
        &["submit", "people.csv", "--connection", "prod"],
        &["dead", "list"],
        &["mcp", "--connection", "prod"],
        &["catalog", "--format", "mcp"],
        &["catalog", "--format", "openai"],
        &["catalog", "--format", "asyncapi"],
        &["call", "list_groups", "--connection", "prod", "--dry-run"],
    ];
    for arguments in rows {
        let (code, stdout, stderr) = ran(command().args(arguments));
        assert_eq!((code, stdout.as_str()), (2, ""), "{arguments:?}: {stderr}");
        assert!(stderr.contains("not supported yet"), "{arguments:?}: {stderr}");
    }
}
