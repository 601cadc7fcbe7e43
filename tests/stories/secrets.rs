//! What nobody may read: a caller's values in errors, and a credential that an answer of Okta's repeats.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{LOCATION, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue};
use okta_worker::domain::http::{NoAnswer, Request, Response};
use okta_worker::domain::message::Properties;
use okta_worker::domain::secret::Secret;
use okta_worker::okta::{Credential, Endpoint, OktaClient, OktaTransport, Presented, TokenType};
use okta_worker::tools::catalogue::CATALOGUE;
use okta_worker::worker::clock::Clock;
use okta_worker::worker::ports::Okta as _;
use serde_json::{Map, Value, json};

use crate::app::TestApp;
use crate::world::{REPLIES, SAM, Setup, World};

/// A secret as nobody would choose it: what serde, JSON, URLs and Rust escape or take for their own words.
fn random_secret(rng: &mut fastrand::Rng) -> String {
    const PARTS: [&str; 16] = [
        "\"",
        "\\",
        "`",
        "'",
        "/",
        "%41",
        "&lt;",
        " ",
        ", expected ",
        " at line 7",
        "ö",
        "\u{202e}",
        "\n",
        "Pass",
        "w0rd",
        "{\"a\":",
    ];
    let mut secret = String::from("S3");
    for _ in 0..rng.usize(3..9) {
        secret.push_str(PARTS[rng.usize(..PARTS.len())]);
        secret.push(rng.alphanumeric());
        secret.push(rng.digit(10));
    }
    secret
}

/// The forms in which a text may stand in an answer.
fn forms(secret: &str) -> Vec<String> {
    let json = |text: &str| serde_json::to_string(text).unwrap().trim_matches('"').to_owned();
    let percent =
        percent_encoding::utf8_percent_encode(secret, percent_encoding::NON_ALPHANUMERIC).to_string();
    let once = json(secret);
    let debug = format!("{secret:?}").trim_matches('"').to_owned();
    vec![json(&once), json(&debug), once, secret.to_owned(), percent, STANDARD.encode(secret)]
}

/// Bodies that are wrong in one place, which holds the secret.
fn wrong_bodies(secret: &str) -> Vec<Value> {
    let mut bodies = Vec::new();
    let values = |secret: &str| {
        let text = json!({ "password": { "value": secret } }).to_string();
        [
            json!(secret),
            json!([secret]),
            json!({ secret: secret }),
            json!({ "a": [{ secret: secret }] }),
            json!(text),
        ]
    };
    for entry in &CATALOGUE {
        let name = entry.manifest.name;
        let example: Map<String, Value> = serde_json::from_str(entry.manifest.examples[0]).unwrap();
        let schema = (entry.arguments)().to_value();
        let known = schema["properties"].as_object().into_iter().flatten().map(|(name, _)| name.as_str());
        for argument in known.chain([secret, "unknown"]) {
            for value in values(secret) {
                let mut arguments = example.clone();
                arguments.insert(argument.to_owned(), value);
                bodies.push(json!({ "subtool": name, "arguments": arguments }));
            }
        }
    }
    for value in values(secret) {
        for option in ["deadline", "dry_run", "fields", "count_only", "max_bytes", "stream", secret] {
            bodies.push(json!({ "subtool": "get_user", "arguments": { "user_id": SAM }, "options": { option: value } }));
        }
        bodies.push(json!({ "subtool": value, "arguments": {} }));
        bodies.push(json!({ "subtool": "get_user", "arguments": value }));
        bodies.push(json!({ "subtool": "get_user", "options": value }));
        bodies.push(json!({ "subtool": "get_user", secret: value }));
    }
    bodies
}

/// Publishes so many at once that no queue of the story is long.
async fn answers(world: &mut World, bodies: &[Value]) -> Vec<(Value, Value)> {
    const AT_ONCE: usize = 50;
    let mut answers = Vec::new();
    for bodies in bodies.chunks(AT_ONCE) {
        for body in bodies {
            world.send("prod.interactive", body.clone());
            world.rest().await;
            answers.push((body.clone(), world.answer()));
        }
    }
    answers
}

#[tokio::test(start_paused = true)]
async fn no_error_repeats_a_value_or_a_name_of_the_callers_whatever_is_wrong() {
    let mut world = Setup::default().open();
    let mut rng = fastrand::Rng::with_seed(15);
    let mut failed = 0;
    for _ in 0..2 {
        let secret = random_secret(&mut rng);
        for (body, answer) in answers(&mut world, &wrong_bodies(&secret)).await {
            if answer["status"] != "failed" {
                continue; // there are places where such a text may stand
            }
            failed += 1;
            let said = answer.to_string();
            let shown: Vec<_> =
                forms(&secret).into_iter().filter(|form| said.contains(form.as_str())).collect();
            assert!(shown.is_empty(), "{body}\nis answered\n{said}\nwhich shows\n{shown:?}");
        }
        let tape = world.tape();
        assert!(forms(&secret).iter().all(|form| !tape.contains(form.as_str())), "{tape}");
    }
    assert!(failed > 500, "{failed}");
    world.close();
}

#[tokio::test(start_paused = true)]
async fn properties_and_addresses_are_not_repeated_either() {
    let mut world = Setup::default().open();
    let secret = "S3cret \"w0rd\"";
    let body = json!({ "subtool": "get_user", "arguments": { "user_id": SAM } }).to_string();
    let reply_to = Some(REPLIES.to_owned());
    let encoded = Properties {
        reply_to: reply_to.clone(),
        content_encoding: Some(secret.into()),
        ..Properties::default()
    };
    world.send_raw("prod.interactive", encoded, body.clone());
    for key in [format!("prod.{secret}"), secret.to_owned()] {
        world.send_raw(
            &key,
            Properties { reply_to: reply_to.clone(), ..Properties::default() },
            body.clone(),
        );
    }
    world.rest().await;
    for _ in 0..3 {
        let answer = world.answer();
        assert_eq!(answer["status"], "failed");
        assert!(forms(secret).iter().all(|form| !answer.to_string().contains(form.as_str())), "{answer}");
    }
    drop(world.tape());
    world.close();
}

#[tokio::test(start_paused = true)]
async fn names_that_are_plain_words_are_told_with_their_path() {
    let mut world = Setup::default().open();
    for (body, path, subtool) in [
        (
            json!({ "subtool": "get_user", "arguments": { "nonsense": 1 } }),
            "arguments.nonsense",
            json!("get_user"),
        ),
        (
            json!({ "subtool": "get_user", "arguments": { "userId": 1 } }),
            "arguments.userId",
            json!("get_user"),
        ),
        (json!({ "subtool": "get_user", "arguments": { "hunter2": 1 } }), "arguments", json!("get_user")),
        (json!({ "subtool": "get_usr" }), "subtool", json!("get_usr")),
        (json!({ "subtool": "hunter2" }), "subtool", json!(null)),
    ] {
        world.send("prod.interactive", body.clone());
        world.rest().await;
        let answer = world.answer();
        assert_eq!(
            (&answer["error"]["path"], &answer["subtool"]),
            (&json!(path), &subtool),
            "{body}: {answer}"
        );
    }
    drop(world.tape());
    world.close();
}

#[tokio::test(start_paused = true)]
async fn credentials_sent_as_text_are_taken_and_masked() {
    let mut world = Setup::default().open();
    let secret = "Pa\"ss w0rd";
    let credentials = json!({ "password": { "value": secret } }).to_string();
    let login = "text@example.com";
    let profile = json!({ "firstName": secret, "lastName": "B", "login": login, "email": login }).to_string();
    let arguments = json!({ "profile": profile, "credentials": credentials, "activate": "true" });
    let options = json!({ "dry_run": true });
    world.send(
        "prod.interactive",
        json!({ "subtool": "create_user", "arguments": arguments, "options": options }),
    );
    world.rest().await;
    let plan = world.answer();
    assert_eq!(plan["status"], "planned", "{plan}");
    let body = &plan["result"]["requests"][0]["body"];
    assert_eq!((&body["profile"]["login"], &body["profile"]["firstName"]), (&json!(login), &json!("***")));
    assert_eq!(body["credentials"]["password"]["value"], "***");
    world.ask("create_user", arguments);
    world.rest().await;
    assert_eq!(world.answer()["status"], "succeeded");
    drop(world.tape());
    world.close();
}

const TOKEN: &str = "00aBcDeFgHiJkLmNoPqRsTuVwXyZ-0123456789_ab";

/// A gateway that repeats what it was sent, in another way each time.
struct EchoingGateway {
    /// The type of the tokens that it gives.
    token_type: &'static str,
    answered: AtomicUsize,
    /// What was sent last.
    seen: std::sync::Mutex<Vec<String>>,
}

/// How many ways there are.
const WAYS: usize = 10;

impl EchoingGateway {
    /// An answer that repeats this.
    fn repeat(&self, credential: &str) -> Result<Response, NoAnswer> {
        self.seen.lock().unwrap().push(credential.to_owned());
        let bare = credential.rsplit(' ').next().unwrap_or(credential);
        let percent =
            percent_encoding::utf8_percent_encode(credential, percent_encoding::NON_ALPHANUMERIC).to_string();
        let header = |name, text: &str| HeaderMap::from_iter([(name, HeaderValue::try_from(text).unwrap())]);
        let error = |text: &str| json!({ "errorCode": "E0000001", "errorSummary": text, "errorCauses": [{ "errorSummary": text }], "errorId": text });
        let body = |status, value: Value| Ok(Response::new(status, HeaderMap::new(), value.to_string()));
        match self.answered.fetch_add(1, Ordering::Relaxed) % WAYS {
            0 => body(400, error(credential)),
            1 => body(200, json!({ "id": "00u1", "profile": { "nickName": credential, bare: [bare] } })),
            2 => body(400, error(&STANDARD.encode(format!("a{credential}")))),
            3 => body(400, error(&percent)),
            4 => body(400, error(&bare.bytes().map(|byte| format!("{byte:02x}")).collect::<String>())),
            5 => Ok(Response::new(
                302,
                header(LOCATION, &format!("https://login.example.com/?auth={percent}")),
                Bytes::new(),
            )),
            6 => {
                let challenge = format!("Bearer error=\"invalid_token\", error_description=\"{bare}\"");
                Ok(Response::new(401, header(WWW_AUTHENTICATE, &challenge), Bytes::new()))
            }
            7 => {
                Ok(Response::new(200, header(http::HeaderName::from_static("x-okta-request-id"), bare), "{}"))
            }
            8 => Err(NoAnswer::MaybeSent(format!("bad header: {credential}"))),
            _ => Ok(Response::new(502, HeaderMap::new(), format!("<pre>authorization: {credential}</pre>"))),
        }
    }
}

#[async_trait]
impl OktaTransport for EchoingGateway {
    async fn send(&self, _: &Request, presented: Presented<'_>) -> Result<Response, NoAnswer> {
        self.repeat(presented.authorization.to_str().unwrap())
    }

    async fn post_form(&self, _: &str, form: Secret, _: Option<&HeaderValue>) -> Result<Response, NoAnswer> {
        if self.answered.load(Ordering::Relaxed).is_multiple_of(2) {
            let token =
                json!({ "token_type": self.token_type, "access_token": TOKEN, "scope": form.expose() });
            return Ok(Response::new(200, HeaderMap::new(), token.to_string()));
        }
        let assertion = form.expose().rsplit('=').next().unwrap();
        let assertion = percent_encoding::percent_decode_str(assertion).decode_utf8().unwrap().into_owned();
        self.seen.lock().unwrap().push(assertion.clone());
        self.answered.fetch_add(1, Ordering::Relaxed);
        let error =
            json!({ "error": "invalid_client", "error_description": format!("cannot read {assertion}") });
        Ok(Response::new(401, HeaderMap::new(), error.to_string()))
    }
}

/// Everything that an answer says.
fn said(answer: &Result<Response, NoAnswer>) -> String {
    match answer {
        Ok(response) => format!("{:?} {}", response.headers, String::from_utf8_lossy(&response.body)),
        Err(no_answer) => no_answer.to_string(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_credential_that_an_answer_repeats_reaches_nobody() {
    let app = TestApp::new(&["okta.users.manage"]);
    for (credential, token_type) in [
        (Credential::Token { kind: TokenType::Ssws, token: Secret::new(TOKEN) }, ""),
        (Credential::Token { kind: TokenType::Bearer, token: Secret::new(TOKEN) }, ""),
        (Credential::ServiceApp(app.app.clone()), "Bearer"),
        (Credential::ServiceApp(app.app.clone()), "DPoP"),
    ] {
        let (answered, seen) = (AtomicUsize::default(), std::sync::Mutex::default());
        let gateway = Arc::new(EchoingGateway { token_type, answered, seen });
        let base_url = "https://acme.okta.com".to_owned();
        let endpoint = Endpoint { base_url, credential };
        let client =
            OktaClient::over(Arc::<EchoingGateway>::clone(&gateway), &endpoint, Clock::Machine).unwrap();
        for _ in 0..2 * WAYS {
            let heard = said(&client.send(&Request::get("/api/v1/users", &[])).await);
            for sent in gateway.seen.lock().unwrap().iter() {
                let bare = sent.rsplit(' ').next().unwrap();
                let shown = forms(bare).into_iter().find(|form| heard.contains(form.as_str()));
                assert_eq!(shown, None, "{heard}");
                assert!(!heard.contains(&STANDARD.encode(format!("a{sent}"))[4..40]), "{heard}");
            }
            tokio::time::sleep(std::time::Duration::from_secs(5)).await;
        }
        if let Some(Ok(granted)) = client.granted().await {
            assert!(!format!("{granted:?}").contains("client_assertion=ey"), "{granted:?}");
        }
    }
}
