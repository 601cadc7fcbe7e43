//! A service app's tokens: fetched, kept, renewed and lost, and what becomes of the requests meanwhile.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use okta_worker::domain::bucket::RateHeaders;
use okta_worker::domain::http::{NoAnswer, Request, Response};
use okta_worker::domain::okta_error::OktaError;
use okta_worker::okta::OktaClient;
use okta_worker::sandbox::{InjectedFault, Org, OrgSettings, Trouble};
use okta_worker::worker::clock::Clock;
use okta_worker::worker::ports::Okta as _;
use serde_json::{Value, json};

use crate::app::{LATENCY, OrgWire, TestApp};
use crate::world::{BEGIN, SAM, Setup, World, brief};

const TOKENS: &str = "/oauth2/v1/token";

/// Beyond the moment at which any token of an hour is renewed, and before its end.
const RENEWED_BY: Duration = Duration::from_secs(55 * 60);

/// The app's client before its org.
struct Rig {
    org: Arc<Mutex<Org>>,
    wire: Arc<OrgWire>,
    client: OktaClient,
    /// By how many seconds the machine's clock is ahead of Okta's.
    set: &'static AtomicI64,
}

impl Rig {
    fn new() -> Self {
        let app = TestApp::new(&["okta.users.manage", "okta.groups.read"]);
        Self::of(&app, app.org())
    }

    fn of(app: &TestApp, settings: OrgSettings) -> Self {
        let begin = BEGIN.parse::<Timestamp>().unwrap();
        let org = Arc::new(Mutex::new(Org::new(settings)));
        let wire = OrgWire::new(&org, Clock::starting_at(begin));
        let set: &'static AtomicI64 = Box::leak(Box::default());
        let client = app.client(Arc::clone(&wire), Clock::set_by(begin, set));
        Self { org, wire, client, set }
    }

    fn fault(&self, what: Trouble, times: u32) {
        self.org.lock().unwrap().script(InjectedFault::next(what).on("POST", TOKENS).times(times, 0));
    }

    async fn send(&self) -> Result<Response, NoAnswer> {
        self.client.send(&Request::get("/api/v1/users", &[])).await
    }

    async fn status(&self) -> u16 {
        self.send().await.unwrap().status
    }

    /// What so many requests at once hear.
    async fn crowd(&self, size: usize) -> Vec<Result<u16, NoAnswer>> {
        let sends = (0..size).map(|_| async { self.send().await.map(|response| response.status) });
        futures_util::future::join_all(sends).await
    }
}

fn refused(error: &str) -> Trouble {
    Trouble::OAuth { status: 400, error: error.to_owned() }
}

#[tokio::test(start_paused = true)]
async fn a_token_is_fetched_by_one_and_used_by_all() {
    let rig = Rig::new();
    assert_eq!(rig.crowd(30).await, vec![Ok(200); 30]);
    assert_eq!((rig.wire.asked(), rig.wire.sent()), (1, 30));
    tokio::time::sleep(Duration::from_secs(47 * 60)).await;
    assert_eq!((rig.status().await, rig.wire.asked()), (200, 0));
}

#[tokio::test(start_paused = true)]
async fn a_token_is_renewed_before_it_ends_and_nobody_waits_for_that() {
    let rig = Rig::new();
    assert_eq!(rig.status().await, 200);
    tokio::time::sleep(RENEWED_BY).await;
    let begun = tokio::time::Instant::now();
    let others = async {
        tokio::task::yield_now().await;
        (rig.crowd(10).await, begun.elapsed())
    };
    let (first, (others, took)) = tokio::join!(rig.status(), others);
    assert_eq!((first, others), (200, vec![Ok(200); 10]));
    assert_eq!((rig.wire.asked(), took), (2, LATENCY), "once at the beginning, once now");
    // The new one is good for as long again.
    tokio::time::sleep(Duration::from_secs(40 * 60)).await;
    assert_eq!((rig.status().await, rig.wire.asked()), (200, 0));
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_fails_costs_nothing_while_the_old_token_lives() {
    let rig = Rig::new();
    assert_eq!(rig.status().await, 200);
    rig.fault(Trouble::Status(503), u32::MAX);
    tokio::time::sleep(RENEWED_BY).await;
    assert_eq!((rig.status().await, rig.wire.asked()), (200, 2));
    tokio::time::sleep(Duration::from_secs(5 * 60)).await;
    assert!(matches!(rig.send().await, Err(NoAnswer::NotSent(_))), "it has ended");
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_taken_back_is_replaced_once_and_the_requests_are_sent_again() {
    let rig = Rig::new();
    assert_eq!(rig.status().await, 200);
    rig.wire.asked();
    rig.wire.sent();
    rig.org.lock().unwrap().revoke_tokens();
    assert_eq!(rig.crowd(20).await, vec![Ok(200); 20]);
    assert_eq!((rig.wire.asked(), rig.wire.sent()), (1, 40));
}

#[tokio::test(start_paused = true)]
async fn a_token_that_was_never_taken_is_tried_by_each_request_once() {
    let rig = Rig::new();
    let refused = Trouble::Code { status: 401, code: "E0000011".to_owned() };
    rig.org.lock().unwrap().script(InjectedFault::next(refused).on("GET", "/api/v1/users").times(2, 0));
    for status in [401, 401, 200] {
        assert_eq!((rig.status().await, rig.wire.asked(), rig.wire.sent()), (status, 1, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn another_refusal_costs_no_token() {
    let rig = Rig::new();
    assert_eq!(rig.status().await, 200);
    rig.wire.asked();
    for code in ["E0000015", "E0000006"] {
        let refused =
            Trouble::Code { status: if code == "E0000015" { 401 } else { 403 }, code: code.to_owned() };
        rig.org.lock().unwrap().script(InjectedFault::next(refused).on("GET", "/api/v1/users"));
        rig.status().await;
        assert_eq!(rig.status().await, 200);
    }
    assert_eq!(rig.wire.asked(), 0);
}

#[tokio::test(start_paused = true)]
async fn while_no_token_can_be_had_one_asks_and_all_hear_it() {
    for what in [Trouble::Lost, Trouble::Status(503), Trouble::Html(502)] {
        let rig = Rig::new();
        rig.fault(what, 1);
        for heard in rig.crowd(30).await {
            assert!(matches!(heard, Err(NoAnswer::NotSent(_))), "{heard:?}");
        }
        assert_eq!((rig.wire.asked(), rig.wire.sent()), (1, 0));
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(rig.status().await, 200);
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_asks_again_before_the_window_for_tokens_has_ended() {
    let rig = Rig::new();
    rig.fault(Trouble::Status(429), 1);
    assert!(rig.send().await.is_err());
    for _ in 0..58 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(rig.send().await.is_err());
    }
    assert_eq!(rig.wire.asked(), 1);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!((rig.status().await, rig.wire.asked()), (200, 1));
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_off_is_put_right_by_oktas_and_stays_so() {
    for off in [2 * 3600, -2 * 3600, 600, -600] {
        let rig = Rig::new();
        rig.set.store(off, Ordering::Relaxed);
        assert_eq!((rig.status().await, rig.wire.asked()), (200, 2), "{off}");
        tokio::time::sleep(RENEWED_BY).await;
        assert_eq!((rig.status().await, rig.wire.asked()), (200, 1), "{off}: it knows now");
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_that_okta_does_not_know_is_a_bad_credential_and_is_not_tried_at_once_again() {
    let (app, other) = (TestApp::new(&["okta.users.read"]), TestApp::new(&[]));
    let rig = Rig::of(&app, other.org());
    for heard in rig.crowd(5).await.into_iter().chain(rig.crowd(5).await) {
        assert_eq!(heard, Ok(401));
    }
    assert_eq!((rig.wire.asked(), rig.wire.sent()), (1, 0));
    let response = rig.send().await.unwrap();
    assert!(RateHeaders::read(&response.headers).is_none(), "the windows of tokens are no window of users");
    let said = OktaError::read(&response).summary.unwrap();
    assert!(said.contains("The client_assertion signature is invalid."), "{said}");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!((rig.status().await, rig.wire.asked()), (401, 1), "somebody may have mended it");
}

#[tokio::test(start_paused = true)]
async fn an_app_gets_the_scopes_that_were_granted_to_it() {
    let mut app = TestApp::new(&["okta.users.manage", "okta.groups.manage"]);
    app.client.scopes = Some(vec!["okta.users.manage".to_owned()]);
    let rig = Rig::of(&app, app.org());
    let granted = rig.client.granted().await.unwrap().unwrap();
    assert_eq!((granted.scopes, granted.lifetime.as_secs()), (vec!["okta.users.manage".to_owned()], 3600));
    assert_eq!(rig.status().await, 200);
    let groups = rig.client.send(&Request::get("/api/v1/groups", &[])).await.unwrap();
    assert!(OktaError::read(&groups).summary.unwrap().ends_with("needs okta.groups.read"));
}

/// A whole worker whose connection is opened by a service app.
fn open() -> World {
    let app = TestApp::new(&["okta.users.manage", "okta.groups.manage"]);
    Setup { org: app.org(), app: Some(app), ..Setup::default() }.open()
}

fn read() -> Value {
    json!({ "subtool": "get_user", "arguments": { "user_id": SAM } })
}

fn always(world: &World, what: Trouble) {
    world.fault(InjectedFault::next(what).on("POST", TOKENS).times(u32::MAX, 0));
}

#[tokio::test(start_paused = true)]
async fn tokens_cost_an_invocation_nothing() {
    let mut world = open();
    for _ in 0..20 {
        world.send("prod.bulk", read());
    }
    world.rest().await;
    world.org().revoke_tokens();
    world.send("prod.bulk", read());
    world.rest().await;
    let tape = world.tape();
    assert!(!tape.contains("paused") && !tape.contains("401"), "{tape}");
    for _ in 0..21 {
        let answer = world.answer();
        assert_eq!((&answer["status"], &answer["attempts"]), (&json!("succeeded"), &json!(1)), "{answer}");
        assert_eq!(answer["okta_calls"], 1, "{answer}");
    }
    world.close();
}

#[tokio::test(start_paused = true)]
async fn an_app_that_okta_refuses_pauses_its_connection_until_it_does_not() {
    let mut world = open();
    always(&world, refused("invalid_client"));
    world.send("prod.bulk", read());
    world.run_for(Duration::from_secs(60)).await;
    assert!(world.tape().contains("prod paused: unauthorized"));
    world.ask("get_user", json!({ "user_id": SAM }));
    world.run_for(Duration::from_millis(50)).await;
    let answer = world.answer();
    assert_eq!(brief(&answer), "m2 failed unauthorized none");
    assert!(answer["error"]["retry_at"].is_string(), "{answer}");
    world.org().clear_faults();
    world.rest().await;
    assert!(world.tape().contains("prod resumed: unauthorized"));
    let answer = world.answer();
    assert_eq!((brief(&answer), &answer["attempts"]), ("m1 succeeded none".to_owned(), &json!(1)));
    world.close();
}

#[tokio::test(start_paused = true)]
async fn whoever_finds_out_is_told_what_okta_said() {
    let mut world = open();
    world.fault(InjectedFault::next(refused("invalid_client")).on("POST", TOKENS));
    world.ask("get_user", json!({ "user_id": SAM }));
    world.rest().await;
    let answer = world.answer();
    assert_eq!(brief(&answer), "m1 failed unauthorized none");
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(message.starts_with("connection `prod` is paused: Okta refuses its credential: "), "{message}");
    assert!(message.ends_with("Okta answered 400 invalid_client: A scripted fault."), "{message}");
    assert_eq!(answer["error"]["okta"]["status"], 401);
    world.run_for(Duration::from_secs(10)).await;
    assert!(world.tape().contains("prod resumed: unauthorized"));
    world.close();
}

#[tokio::test(start_paused = true)]
async fn scopes_that_are_not_granted_are_named_and_pause_only_what_has_worked() {
    let mut world = open();
    always(&world, refused("invalid_scope"));
    world.ask("get_user", json!({ "user_id": SAM }));
    world.rest().await;
    let answer = world.answer();
    assert_eq!(brief(&answer), "m1 failed forbidden none");
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(message.ends_with("needs okta.users.manage okta.groups.manage"), "{message}");
    assert!(!world.tape().contains("paused"));
    world.org().clear_faults();
    world.run_for(Duration::from_secs(5)).await;
    world.send("prod.bulk", read());
    world.rest().await;
    assert_eq!(world.answers(1), ["m2 succeeded none"]);
    always(&world, refused("invalid_scope"));
    world.org().revoke_tokens();
    world.send("prod.bulk", read());
    world.run_for(Duration::from_secs(60)).await;
    assert!(world.tape().contains("prod paused: forbidden"));
    world.org().clear_faults();
    world.rest().await;
    world.tape();
    assert_eq!(world.answers(1), ["m3 succeeded none"]);
    world.close();
}

#[tokio::test(start_paused = true)]
async fn while_tokens_cannot_be_had_a_write_is_not_sent_and_not_in_doubt() {
    let mut world = open();
    always(&world, Trouble::Status(503));
    let group = json!({ "subtool": "create_group", "arguments": { "name": "Night shift" } });
    world.send("prod.bulk", group);
    world.run_for(Duration::from_secs(300)).await;
    let tape = world.tape();
    assert!(tape.contains("not_sent") && tape.contains("prod paused: unreachable"), "{tape}");
    assert!(world.effects().is_empty());
    world.org().clear_faults();
    world.rest().await;
    let tape = world.tape();
    assert_eq!(tape.matches("asked").count(), 2, "a probe and the write, which looks for nothing:\n{tape}");
    let answer = world.answer();
    assert_eq!((brief(&answer), &answer["attempts"]), ("m1 succeeded applied".to_owned(), &json!(1)));
    world.close();
}
