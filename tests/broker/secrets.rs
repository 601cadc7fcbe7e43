//! Planted secrets appear nowhere but where they must, even with everything logged that can be.

use base64::Engine as _;
use lapin::types::FieldTable;
use okta_worker::config;
use okta_worker::domain::topology::{DEAD, UNCLAIMED};
use serde_json::{Value, json};

use super::caller::{Caller, Message, Reply, until};
use super::node::{User, ours};
use super::org::TOKEN;
use super::service_app;
use super::world::{Start, Worker, World};

const BROKER_PASSWORD: &str = "planted-broker-password";
const USER_PASSWORD: &str = "Planted-user-password-1";
const ANSWER: &str = "planted-recovery-answer";
const STRAY: &str = "hunter2-planted";

/// Everything that lets a library speak.
const LOUD: [(&str, &str); 2] = [
    (
        "OKTA_WORKER_LOG",
        "trace,lapin=trace,hyper=trace,hyper_util=trace,reqwest=trace,rustls=trace,h2=trace,tower=trace",
    ),
    ("RUST_LOG", "trace"),
];

/// The forms in which a secret may slip through.
fn forms(secret: &str) -> Vec<String> {
    let encode = |text: &str| base64::engine::general_purpose::STANDARD_NO_PAD.encode(text);
    let list = format!("{:?}", secret.as_bytes());
    let list = list.trim_matches(['[', ']']).to_owned();
    let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
    let escaped = percent_encoding::utf8_percent_encode(secret, percent_encoding::NON_ALPHANUMERIC);
    vec![secret.to_owned(), encode(secret), list, hex, escaped.to_string()]
}

/// Which of these secrets a text shows.
fn shown<'a>(text: &str, secrets: &[&'a str]) -> Vec<&'a str> {
    secrets.iter().copied().filter(|secret| forms(secret).iter().any(|form| text.contains(form))).collect()
}

fn whole(reply: &Reply) -> String {
    format!("{:?} {} {}", reply.properties, reply.key, String::from_utf8_lossy(&reply.bytes))
}

fn told(worker: &Worker) -> String {
    format!("{}\n{}\n{}", worker.process.stdout(), worker.process.stderr(), worker.metrics())
}

/// Invocations whose arguments hold secrets, where they belong and where they do not.
fn invocations() -> Vec<(&'static str, Value)> {
    let profile = |login: &str| json!({"firstName": "A", "lastName": "B", "login": login, "email": login});
    let credentials = json!({
        "password": {"value": USER_PASSWORD},
        "recovery_question": {"question": "Who?", "answer": ANSWER},
    });
    let whole = |login: &str| json!({"profile": profile(login), "credentials": credentials});
    let with = |credentials: Value| json!({"profile": profile("c@example.com"), "credentials": credentials});
    vec![
        ("create_user", whole("a@example.com")),
        ("create_user", whole("a@example.com")), // it exists already
        ("create_user", with(json!(STRAY))),
        ("create_user", with(json!([STRAY]))),
        ("create_user", with(json!({"password": STRAY}))),
        ("create_user", with(json!({"password": {"value": [STRAY]}}))),
        ("create_user", with(json!({"password": {"value": STRAY, "hash": STRAY}}))),
        ("create_user", json!({"profile": profile("d@example.com"), "next_login": STRAY, "password": STRAY})),
        ("update_user", json!({"user_id": "a@example.com", "credentials": credentials})),
        (
            "update_user",
            json!({"user_id": "a@example.com", "credentials": {"password": {"value": "x"}, "answer": STRAY}}),
        ),
        ("get_user", json!({"user_id": "a@example.com", "password": STRAY})),
        ("get_user", json!({"user_id": ["a"], "api_token": STRAY})),
        ("create_usr", json!({"credentials": STRAY})),
        (
            "reset_user_password",
            json!({"user_id": "a@example.com", "send_email": STRAY, "temp_password": STRAY}),
        ),
    ]
}

#[tokio::test]
async fn planted_secrets_show_up_nowhere() {
    let Some(node) = ours() else { return };
    let world = World::new().await;
    let vhost = world.place.vhost.as_deref().expect("a node of ours has virtual hosts");
    let user = format!("planted-{vhost}");
    node.run("ctl", &["-q", "add_user", &user, BROKER_PASSWORD]);
    node.run("ctl", &["-q", "set_permissions", "-p", vhost, &user, ".*", ".*", ".*"]);
    let url = world.place.url(User::Worker).replace("worker:worker@", &format!("{user}:{BROKER_PASSWORD}@"));
    let variables = [LOUD[0], LOUD[1], ("TEST_AMQP_URL", &url)];
    let mut worker = world.worker_with(&Start { variables: &variables, ..Start::default() });
    let mut caller = world.caller().await;
    let secrets = [TOKEN, BROKER_PASSWORD, USER_PASSWORD, ANSWER, STRAY];

    for (subtool, arguments) in invocations() {
        // The audit trail is a place for free text, so for secrets too.
        let message = Message::new("prod", subtool, &arguments).options(json!({"reason": "SEC-1"}));
        let reply = caller.call(&message).await;
        assert_eq!(shown(&whole(&reply), &secrets), [""; 0], "{subtool} {arguments}: {}", whole(&reply));
        // Nobody to tell: the results lie where others read.
        caller.send(&message).await;
        let reply = caller.take(UNCLAIMED).await;
        assert_eq!(shown(&whole(&reply), &secrets), [""; 0], "{subtool} {arguments}: {}", whole(&reply));
    }
    assert!(!world.org.effects().is_empty(), "the secrets were sent to Okta");

    let minted = one_time_secrets(&mut caller).await;
    let unreadable = format!(r#"{{"subtool":"create_user","arguments":{{"password":"{STRAY}"}}"#);
    caller.send(&Message::of("prod", unreadable.as_str())).await;
    let parked = caller.take(DEAD).await;
    assert_eq!(String::from_utf8_lossy(&parked.bytes), unreadable, "kept whole for replay");
    assert_eq!(shown(&format!("{:?}", parked.properties), &secrets), [""; 0]);
    let reply = caller.take(UNCLAIMED).await;
    assert_eq!(shown(&whole(&reply), &secrets), [""; 0], "{}", whole(&reply));

    let mut all = secrets.to_vec();
    all.extend(minted.iter().map(String::as_str));
    let mut text = told(&worker);
    worker.process.signal("TERM");
    worker.process.wait();
    text.push_str(&worker.process.stderr());
    let lines = |secret: &str| {
        let shows = |line: &&str| forms(secret).iter().any(|form| line.contains(form));
        text.lines()
            .filter(shows)
            .take(3)
            .map(|line| line.chars().take(400).collect())
            .collect::<Vec<String>>()
    };
    let leaks: Vec<_> = shown(&text, &all).into_iter().map(|secret| (secret, lines(secret))).collect();
    assert!(leaks.is_empty(), "{leaks:#?}");
    assert!(text.contains("answered `"), "something was logged at all");
    node.run("ctl", &["-q", "delete_user", &user]);
}

#[tokio::test]
async fn what_a_service_app_proves_itself_with_shows_up_nowhere() {
    let world = World::with(&service_app::CLIENT).await;
    let settings = service_app::settings(&world);
    let mut worker = world.worker_with(&Start { settings: &settings, variables: &LOUD, ..Start::default() });
    let mut caller = world.caller().await;
    let message = Message::new("app", "list_groups", &json!({"limit": 1}));
    let mut said = whole(&caller.call(&message).await);
    for error in ["invalid_client", "invalid_scope", "access_denied"] {
        let fault = json!({"status": 400, "error": error});
        world.org.fault(&json!({"method": "POST", "route": "/oauth2/v1/token", "what": {"oauth": fault}}));
    }
    until("all three were heard", async || {
        said.push_str(&whole(&caller.call(&message).await));
        let stderr = worker.process.stderr();
        ["invalid_client", "invalid_scope", "access_denied"].iter().all(|error| stderr.contains(error))
    })
    .await;
    said.push_str(&told(&worker));
    worker.process.signal("TERM");
    worker.process.wait();
    said.push_str(&worker.process.stderr());
    assert!(said.contains("a token was asked for"), "something was logged at all");
    // Every token of the simulated org begins so, and every assertion with this header.
    let header = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(r#"{"alg":"ES256""#);
    let mut secrets = vec!["sandbox-access-token", &header[..16], "client_assertion="];
    secrets.extend(service_app::KEY.lines().filter(|line| line.len() == 64 && !line.contains(' ')));
    assert_eq!(secrets.len(), 5, "the key has two whole lines");
    assert_eq!(shown(&said, &secrets), [""; 0]);
}

/// Has every kind of one-time secret minted. Each stands in its own result, and nowhere else in it.
async fn one_time_secrets(caller: &mut Caller) -> Vec<String> {
    caller.queue("answers", FieldTable::default(), None).await;
    let profile =
        json!({"firstName": "S", "lastName": "T", "login": "s@example.com", "email": "s@example.com"});
    caller.ask("prod", "create_user", &json!({"profile": profile, "activate": false})).await;
    let mut minted = Vec::new();
    for (subtool, arguments, names) in [
        (
            "activate_user",
            json!({"user_id": "s@example.com", "send_email": false}),
            &["activation_token", "activation_url"][..],
        ),
        (
            "reset_user_password",
            json!({"user_id": "a@example.com", "send_email": false}),
            &["reset_password_url"],
        ),
        (
            "expire_user_password",
            json!({"user_id": "a@example.com", "temp_password": true}),
            &["temp_password"],
        ),
    ] {
        caller.send(&Message::new("prod", subtool, &arguments).answer_to("answers")).await;
        let reply = caller.take("answers").await;
        let mut body = reply.body();
        for name in names {
            let secret =
                body["result"][name].as_str().unwrap_or_else(|| panic!("no {name} in {body}")).to_owned();
            minted.push(secret);
        }
        body["result"] = Value::Null;
        let rest = format!("{:?} {body}", reply.properties);
        let known: Vec<_> = minted.iter().map(String::as_str).collect();
        assert_eq!(shown(&rest, &known), [""; 0], "{subtool}");
    }
    minted
}

#[test]
fn a_configuration_shows_no_secret_when_it_is_printed() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("worker.toml");
    let secret = dir.path().join("token");
    std::fs::write(&secret, TOKEN).unwrap();
    let text = format!(
        r#"
[broker]
url = {{ env = "URL" }}
[connections.a]
domain = "acme.okta.com"
api_token = {{ file = "{}" }}
subtools = ["read"]
[connections.b]
domain = "acme.okta.com"
access_token = "{STRAY}"
subtools = ["read"]
[connections.c]
domain = "acme.okta.com"
subtools = ["read"]
service_app = {{ client_id = "0oa", scopes = "okta.users.read", private_key = {{ env = "KEY" }} }}
"#,
        secret.display()
    );
    std::fs::write(&file, text).unwrap();
    let url = format!("amqp://worker:{BROKER_PASSWORD}@127.0.0.1/okta");
    let variables = [("URL".to_owned(), url), ("KEY".to_owned(), service_app::KEY.to_owned())];
    let loaded = config::load(Some(&file), variables).unwrap();
    let printed = format!("{loaded:?} {:?}", loaded.warnings);
    let key = service_app::KEY.lines().nth(2).expect("it has lines");
    assert_eq!(shown(&printed, &[TOKEN, BROKER_PASSWORD, STRAY, key]), [""; 0], "{printed}");
}

/// A returned message is logged by lapin with its body, at a level that most filters let through.
#[tokio::test]
async fn a_result_that_is_returned_is_logged_by_no_filter() {
    let world = World::new().await;
    let filters = [
        "error",
        "warn",
        "info",
        "debug",
        "trace",
        "lapin=trace",
        "lapin=error,info",
        "off,lapin=trace",
        "lapin::returned_messages=trace",
        "[x{y=1}]=trace",
        "okta_worker::x[y]=trace,lapin[z{w=1}]=trace",
    ];
    for (round, filter) in filters.into_iter().enumerate() {
        let variables = [("OKTA_WORKER_LOG", filter)];
        let worker = world.worker_with(&Start { variables: &variables, ..Start::default() });
        let caller = world.caller().await;
        let login = format!("returned{round}@example.com");
        let profile = json!({"firstName": "S", "lastName": "T", "login": login, "email": login});
        let create = json!({"profile": profile, "activate": false});
        caller.send(&Message::new("prod", "create_user", &create)).await;
        caller.take(UNCLAIMED).await;
        let mint = Message::new("prod", "activate_user", &json!({"user_id": login, "send_email": false}));
        caller.send(&mint.answer_to("gone")).await;
        let reply = caller.take(UNCLAIMED).await;
        assert_eq!(reply.body()["result"]["activation_token"], "***", "{}", whole(&reply));
        let mut process = worker.process;
        process.signal("TERM");
        process.wait();
        let stderr = process.stderr();
        // The token of the simulated org is not known here; the link around it is.
        let shows = |text: &str| stderr.contains(text);
        assert!(!shows("activation_token") && !shows("97, 99, 116, 105, 118, 97"), "{filter}: {stderr}");
        assert!(!stderr.contains("lapin"), "{filter}: {stderr}");
    }
}
