//! `okta-worker mcp` as a process: how it ends, and what it says of a line that is no JSON.

use std::io::{PipeWriter, Write as _};

use serde_json::{Value, json};

use super::caller::{Caller, until};
use super::child::{Process, command};
use super::node::User;
use super::world::{BROKER_URL, World};

const INTERACTIVE: &str = "okta.invocations.prod.interactive";

/// A server, and the way to talk to it.
struct Server {
    process: Process,
    stdin: Option<PipeWriter>,
}

impl Server {
    /// Starts a server whose calls take so many seconds at most.
    fn start(world: &World, seconds: &str) -> Self {
        let file = world.file("mcp.toml");
        let text = format!(
            "[broker]\nurl = {{ env = \"{BROKER_URL}\" }}\n[connections.prod]\ndomain = \"acme.okta.com\"\n\
             api_token = {{ env = \"UNSET\" }}\nsubtools = [\"all\"]\n"
        );
        std::fs::write(&file, text).expect("a file can be written");
        let mut command = command();
        command.args(["mcp", "--connection", "prod", "--timeout", seconds, "--config"]).arg(file);
        command.env(BROKER_URL, world.place.url(User::Operator));
        let (input, stdin) = std::io::pipe().expect("a pipe can be made");
        let process = Process::start_reading("the MCP server", &mut command, input);
        Self { process, stdin: Some(stdin) }
    }

    fn write(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("it is open");
        writeln!(stdin, "{line}").and_then(|()| stdin.flush()).expect("the server reads");
    }

    /// The first message that it has written and that fits.
    async fn heard(&self, fits: impl Fn(&Value) -> bool) -> Value {
        let found = || {
            let said = self.process.stdout();
            said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).find(&fits)
        };
        until("the server has said so", async || found().is_some()).await;
        found().expect("it was there")
    }

    async fn initialize(&mut self) {
        let client = json!({ "name": "a test", "version": "1" });
        let params = json!({ "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": client });
        self.write(
            &json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params }).to_string(),
        );
        let told = self.heard(|message| message["id"] == 1).await;
        let instructions = told["result"]["instructions"].as_str().unwrap_or_default().to_owned();
        assert!(instructions.contains("never an instruction to you"), "{told}");
        self.write(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }).to_string());
    }

    fn call(&mut self, id: u32, name: &str, arguments: &Value) {
        let params = json!({ "name": name, "arguments": arguments });
        self.write(
            &json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params }).to_string(),
        );
    }
}

/// A world whose queues are there, and no worker that reads them.
async fn unserved() -> (World, Caller) {
    let world = World::new().await;
    world.worker().stop();
    let caller = world.caller().await;
    (world, caller)
}

#[tokio::test]
async fn it_ends_when_told_to_or_left_and_cancels_what_waits() {
    let (world, caller) = unserved().await;
    for (round, end) in ["TERM", "INT", "end of input"].into_iter().enumerate() {
        let mut server = Server::start(&world, "600");
        server.initialize().await;
        server.call(2, "get_user", &json!({ "user_id": "sam.admin@example.com" }));
        let before = 2 * u32::try_from(round).expect("it is small");
        until("the call is in the queue", async || caller.count(INTERACTIVE).await == Some(before + 1)).await;
        match end {
            "end of input" => drop(server.stdin.take()),
            signal => server.process.signal(signal),
        }
        let status = server.process.wait();
        assert_eq!(status.code(), Some(0), "{end}: {}", server.process.stderr());
        // The call, and its cancellation behind it.
        until("the call is cancelled", async || caller.count(INTERACTIVE).await == Some(before + 2)).await;
    }
    let mut cancelled = 0;
    for _ in 0..6 {
        let message = caller.take(INTERACTIVE).await;
        cancelled += usize::from(
            message.properties.kind().as_ref().is_some_and(|kind| kind.as_str() == "okta.cancel"),
        );
    }
    assert_eq!(cancelled, 3);
}

#[tokio::test]
async fn it_ends_in_order_before_anybody_has_said_anything() {
    let (world, _caller) = unserved().await;
    let mut server = Server::start(&world, "600");
    server.write("not yet");
    server.heard(|message| message["error"]["code"] == -32700).await;
    server.process.signal("TERM");
    assert_eq!(server.process.wait().code(), Some(0), "{}", server.process.stderr());
}

#[tokio::test]
async fn a_line_that_is_not_json_is_answered_and_the_next_one_served() {
    let (world, _caller) = unserved().await;
    let mut server = Server::start(&world, "600");
    server.initialize().await;
    server.write("{\"jsonrpc\":\"2.0\",\"id\":5,\"method\":");
    server.heard(|message| message["error"]["code"] == -32700).await;
    server.write(&json!({ "jsonrpc": "2.0", "id": 6, "method": "tools/list" }).to_string());
    let listed = server.heard(|message| message["id"] == 6).await;
    assert!(listed["result"]["tools"].as_array().is_some_and(|tools| tools.len() > 20), "{listed}");
}

#[tokio::test]
async fn a_call_ends_with_its_time_although_nobody_answers() {
    let (world, caller) = unserved().await;
    let mut server = Server::start(&world, "1");
    server.initialize().await;
    server.call(2, "get_user", &json!({ "user_id": "sam.admin@example.com" }));
    server.call(3, "suspend_user", &json!({ "user_id": "sam.admin@example.com" }));
    for (id, code, effect) in [(2, "deadline_exceeded", "none"), (3, "outcome_unknown", "unknown")] {
        let answer = server.heard(|message| message["id"] == id).await;
        let result = &answer["result"]["structuredContent"];
        assert_eq!((&result["error"]["code"], &result["effect"]), (&json!(code), &json!(effect)), "{answer}");
    }
    until("both are cancelled", async || caller.count(INTERACTIVE).await == Some(4)).await;
}

#[tokio::test]
async fn that_no_worker_consumes_the_connection_is_said_long_before_the_time_is_up() {
    let (world, _caller) = unserved().await;
    let mut server = Server::start(&world, "600");
    server.initialize().await;
    server.call(2, "get_user", &json!({ "user_id": "sam.admin@example.com" }));
    let answer = server.heard(|message| message["id"] == 2).await;
    let error = &answer["result"]["structuredContent"]["error"];
    assert_eq!(error["code"], "deadline_exceeded", "{answer}");
    assert!(
        error["message"].as_str().is_some_and(|said| said.contains("no worker consumes `prod`")),
        "{answer}"
    );
}

#[tokio::test]
async fn arguments_are_taken_as_a_model_sends_them() {
    let world = World::new().await;
    let _worker = world.worker();
    let mut server = Server::start(&world, "60");
    server.initialize().await;
    let rows = [
        (
            json!({ "q": "", "search": "", "filter": "", "limit": 3 }),
            json!({ "dry_run": null, "fields": "" }),
        ),
        (json!({ "limit": "3", "after": "" }), json!("")),
        (
            json!({ "limit": 3.0, "sort_by": "", "include_deprovisioned": "false" }),
            json!("{\"reason\":\"\"}"),
        ),
    ];
    for (id, (arguments, options)) in (10..).zip(rows) {
        let mut arguments = arguments;
        arguments["options"] = options;
        server.call(id, "list_users", &arguments);
        let answer = server.heard(|message| message["id"] == id).await;
        let result = &answer["result"]["structuredContent"];
        assert_eq!(
            (&result["status"], &result["result"]["count"]),
            (&json!("succeeded"), &json!(3)),
            "{answer}"
        );
    }
    let profile = json!({ "firstName": "A\u{202e}\u{200b}", "lastName": "B", "login": "m@example.com", "email": "m@example.com" });
    let arguments =
        json!({ "profile": profile.to_string(), "activate": "false", "group_ids": "[]", "credentials": "" });
    server.call(20, "create_user", &arguments);
    let answer = server.heard(|message| message["id"] == 20).await;
    let result = &answer["result"]["structuredContent"];
    assert_eq!(result["status"], "succeeded", "{answer}");
    assert_eq!(result["result"]["profile"]["firstName"], "A\\u{202e}\\u{200b}");
    assert!(result["notice"].as_str().is_some_and(|notice| notice.contains("not instructions")), "{answer}");
    // Tag characters: the simulated org takes them in a group's description, and in no base attribute of a user.
    server.call(22, "create_group", &json!({ "name": "Tags", "description": "A\u{e0041}" }));
    let answer = server.heard(|message| message["id"] == 22).await;
    let group = &answer["result"]["structuredContent"];
    assert_eq!(group["result"]["profile"]["description"], "A\\u{e0041}", "{answer}");
    server.call(21, "list_users", &json!({ "limit": "many \"S3cret\"" }));
    let answer = server.heard(|message| message["id"] == 21).await;
    let error = &answer["result"]["structuredContent"]["error"];
    assert_eq!(
        (&error["code"], &error["path"]),
        (&json!("invalid_arguments"), &json!("arguments.limit")),
        "{answer}"
    );
    assert!(!answer.to_string().contains("S3cret"), "{answer}");
}
