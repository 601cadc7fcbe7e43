//! Proofs of possession (DPoP): how a service app learns that it needs them, and that each attempt has its own.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use http::{HeaderMap, HeaderValue};
use jiff::Timestamp;
use okta_worker::domain::http::{NoAnswer, Request, Response};
use okta_worker::domain::secret::Secret;
use okta_worker::okta::{AccessScheme, Credential, Endpoint, OktaClient, OktaTransport, Presented};
use okta_worker::sandbox::{InjectedFault, Org, OrgSettings, ProofDemand, Trouble};
use okta_worker::worker::clock::Clock;
use okta_worker::worker::ports::Okta as _;
use serde_json::json;

use crate::app::{OrgWire, TestApp};
use crate::world::{BEGIN, SAM, Setup, World, brief};

const TOKENS: &str = "/oauth2/v1/token";
const MINUTE: Duration = Duration::from_secs(60);

/// An app's client before an org that demands proofs.
struct Rig {
    org: Arc<Mutex<Org>>,
    wire: Arc<OrgWire>,
    client: OktaClient,
}

impl Rig {
    fn new(proof: ProofDemand) -> Self {
        Self::with(|settings| settings.proof = proof, 0)
    }

    /// A rig whose machine's clock is ahead of Okta's by so many seconds.
    fn with(change: impl FnOnce(&mut OrgSettings), ahead: i64) -> Self {
        let app = TestApp::new(&["okta.users.manage"]);
        let mut settings = app.org_with(ProofDemand::Proof);
        change(&mut settings);
        let begin = BEGIN.parse::<Timestamp>().unwrap();
        let org = Arc::new(Mutex::new(Org::new(settings)));
        let wire = OrgWire::new(&org, Clock::starting_at(begin));
        let begin = begin + jiff::SignedDuration::from_secs(ahead);
        let client = app.client(Arc::clone(&wire), Clock::starting_at(begin));
        Self { org, wire, client }
    }

    async fn get(&self, request: &Request) -> Response {
        self.client.send(request).await.unwrap()
    }

    async fn status(&self) -> u16 {
        self.get(&list()).await.status
    }

    /// Returns the numbers of token requests and of other requests since the last call.
    fn sent(&self) -> (usize, usize) {
        (self.wire.asked(), self.wire.sent())
    }

    fn fault(&self, what: Trouble, on: (&str, &str), times: u32) {
        self.org.lock().unwrap().script(InjectedFault::next(what).on(on.0, on.1).times(times, 0));
    }
}

/// A request with a query, which no proof may name.
fn list() -> Request {
    Request::get("/api/v1/users", &[]).query("search", "status eq \"ACTIVE\"").query("limit", 2)
}

#[tokio::test(start_paused = true)]
async fn a_proof_and_a_nonce_are_learnt_from_refusals_and_remembered() {
    let rig = Rig::new(ProofDemand::Proof);
    assert_eq!(rig.status().await, 200);
    assert_eq!(rig.sent(), (3, 1), "without a proof, without a nonce, with both");
    assert_eq!(rig.client.granted().await.unwrap().unwrap().scheme, AccessScheme::Dpop);
    tokio::time::sleep(55 * MINUTE).await;
    assert_eq!(rig.status().await, 200);
    assert_eq!(rig.sent(), (1, 1), "renewed at once");
}

#[tokio::test(start_paused = true)]
async fn an_app_that_needs_no_proof_sends_none() {
    let rig = Rig::new(ProofDemand::Nothing);
    assert_eq!((rig.status().await, rig.sent()), (200, (1, 1)));
    assert_eq!(rig.client.granted().await.unwrap().unwrap().scheme, AccessScheme::Bearer);
}

#[tokio::test(start_paused = true)]
async fn an_app_that_comes_to_need_proofs_gives_them_from_its_next_token_on() {
    let rig = Rig::new(ProofDemand::Nothing);
    assert_eq!((rig.status().await, rig.sent()), (200, (1, 1)));
    rig.org.lock().unwrap().demand_proof(ProofDemand::Proof);
    rig.org.lock().unwrap().revoke_tokens();
    assert_eq!((rig.status().await, rig.sent()), (200, (3, 2)));
    rig.org.lock().unwrap().demand_proof(ProofDemand::Nothing);
    rig.org.lock().unwrap().revoke_tokens();
    assert_eq!((rig.status().await, rig.sent()), (200, (1, 2)), "a bearer token is taken as such");
}

#[tokio::test(start_paused = true)]
async fn a_nonce_asked_for_by_a_call_is_sent_with_the_same_token() {
    let rig = Rig::new(ProofDemand::ProofWithNonce);
    assert_eq!((rig.status().await, rig.sent()), (200, (3, 2)));
    for _ in 0..5 {
        assert_eq!((rig.status().await, rig.sent()), (200, (0, 1)), "the nonce is remembered");
    }
}

#[tokio::test(start_paused = true)]
async fn a_nonce_that_has_ended_is_replaced() {
    let rig = Rig::new(ProofDemand::ProofWithNonce);
    assert_eq!((rig.status().await, rig.sent()), (200, (3, 2)));
    tokio::time::sleep(73 * 60 * MINUTE).await;
    assert_eq!(
        (rig.status().await, rig.sent()),
        (200, (2, 2)),
        "one challenge for the token, one for the call"
    );
}

/// A server that asks for another nonce each time: for tokens too, or for everything else alone.
struct Insatiable {
    gives_tokens: bool,
    asked: AtomicUsize,
}

impl Insatiable {
    fn headers(&self) -> HeaderMap {
        let number = self.asked.fetch_add(1, Ordering::Relaxed);
        let mut headers = HeaderMap::new();
        headers.insert("dpop-nonce", HeaderValue::from(number));
        headers.insert("www-authenticate", HeaderValue::from_static(r#"DPoP error="use_dpop_nonce""#));
        headers
    }
}

#[async_trait]
impl OktaTransport for Insatiable {
    async fn send(&self, _: &Request, _: Presented<'_>) -> Result<Response, NoAnswer> {
        Ok(Response::new(401, self.headers(), ""))
    }

    async fn post_form(&self, _: &str, _: Secret, _: Option<&HeaderValue>) -> Result<Response, NoAnswer> {
        let token = json!({ "token_type": "DPoP", "access_token": "x.y.z" });
        Ok(match self.gives_tokens {
            true => Response::new(200, HeaderMap::new(), token.to_string()),
            false => Response::new(400, self.headers(), r#"{"error":"use_dpop_nonce"}"#),
        })
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_always_asks_for_another_nonce_is_not_asked_for_ever() {
    for (gives_tokens, asked) in [(false, 5), (true, 2)] {
        let server = Arc::new(Insatiable { gives_tokens, asked: AtomicUsize::new(0) });
        let credential = Credential::ServiceApp(TestApp::new(&["okta.users.read"]).app);
        let endpoint = Endpoint { base_url: "https://acme.okta.com".to_owned(), credential };
        let client = OktaClient::over(Arc::<Insatiable>::clone(&server), &endpoint, Clock::Machine).unwrap();
        assert_eq!(client.send(&list()).await.unwrap().status, 401);
        assert_eq!(server.asked.load(Ordering::Relaxed), asked);
    }
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_off_is_put_right_for_proofs_too() {
    let rig = Rig::with(|_| {}, 2 * 3600);
    assert_eq!(rig.status().await, 200);
    let (asked, sent) = rig.sent();
    assert!(asked <= 4 && sent == 1, "{asked} {sent}");
}

#[tokio::test(start_paused = true)]
async fn every_attempt_has_a_proof_of_its_own_and_all_have_one_token() {
    let rig = Rig::new(ProofDemand::Proof);
    assert_eq!(rig.status().await, 200);
    rig.sent();
    // The org refuses a proof that it has seen, also of a request that it has not answered.
    rig.fault(Trouble::Status(503), ("GET", "/api/v1/users"), 3);
    for status in [503, 503, 503, 200] {
        assert_eq!((rig.status().await, rig.sent()), (status, (0, 1)));
    }
}

/// A whole worker whose service app must give proofs, with tokens of this lifetime.
fn open(token_lifetime: Duration) -> World {
    let app = TestApp::new(&["okta.users.manage", "okta.groups.manage"]);
    let org = OrgSettings { token_lifetime, ..app.org_with(ProofDemand::Proof) };
    Setup { org, app: Some(app), ..Setup::default() }.open()
}

fn rows(world: &mut World, number: usize) {
    for _ in 0..number {
        world.send("prod.bulk", json!({ "subtool": "get_user", "arguments": { "user_id": SAM } }));
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_that_expires_amid_a_job_is_minted_once_and_no_row_notices() {
    let rig = Rig::with(|settings| settings.token_lifetime = Duration::from_secs(600), 0);
    assert_eq!(rig.status().await, 200);
    rig.sent();
    let mut minted = 0;
    for row in 0..200 {
        if row == 100 {
            tokio::time::sleep(11 * MINUTE).await;
        }
        assert_eq!(rig.status().await, 200);
        minted += rig.wire.asked();
    }
    assert_eq!(minted, 1);

    let mut world = open(Duration::from_secs(3600));
    rows(&mut world, 100);
    world.rest().await;
    world.org().revoke_tokens();
    rows(&mut world, 100);
    world.rest().await;
    let tape = world.tape();
    assert!(!tape.contains("paused") && !tape.contains("401"), "{tape}");
    for _ in 0..200 {
        let answer = world.answer();
        assert_eq!((&answer["status"], &answer["attempts"]), (&json!("succeeded"), &json!(1)), "{answer}");
    }
    world.close();
}

#[tokio::test(start_paused = true)]
async fn an_app_that_is_refused_amid_a_job_pauses_and_resumes_with_its_proofs() {
    let mut world = open(Duration::from_secs(3600));
    rows(&mut world, 1);
    world.rest().await;
    assert_eq!(world.answers(1), ["m1 succeeded none"]);
    world.org().revoke_tokens();
    let refused = Trouble::OAuth { status: 401, error: "invalid_client".to_owned() };
    world.fault(InjectedFault::next(refused).on("POST", TOKENS).times(u32::MAX, 0));
    rows(&mut world, 5);
    world.run_for(MINUTE).await;
    assert!(world.tape().contains("prod paused: unauthorized"));
    world.org().clear_faults();
    world.rest().await;
    assert!(world.tape().contains("prod resumed: unauthorized"));
    for _ in 0..5 {
        let answer = world.answer();
        assert!(brief(&answer).ends_with(" succeeded none"), "{answer}");
    }
    world.close();
}
