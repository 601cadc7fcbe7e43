//! A service app of a simulated org, and the way to the org that it takes.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use okta_worker::domain::http::{NoAnswer, Request, Response};
use okta_worker::domain::secret::Secret;
use okta_worker::okta::{Credential, Endpoint, OktaClient, OktaTransport, Presented, ServiceApp};
use okta_worker::sandbox::{Client, Handled, HttpCall, Org, OrgSettings, ProofDemand, PublicKey};
use okta_worker::worker::clock::Clock;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};

/// From sending to the whole answer.
pub const LATENCY: Duration = Duration::from_millis(100);

/// An app with a key of its own.
#[derive(Clone)]
pub struct TestApp {
    /// What the worker is told of it.
    pub app: ServiceApp,
    /// What the org knows of it.
    pub client: Client,
}

impl TestApp {
    /// An app that asks for these scopes, of which the org grants every one.
    pub fn new(scopes: &[&str]) -> Self {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let id = "0oaTheApp";
        let app = ServiceApp {
            client_id: id.to_owned(),
            private_key: Secret::new(&pair.serialize_pem()),
            key_id: None,
            scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
        };
        let key = PublicKey::parse(&pair.public_key_pem()).unwrap();
        Self { app, client: Client { id: id.to_owned(), key, scopes: None } }
    }

    /// An org that knows the app, and takes nothing else.
    pub fn org(&self) -> OrgSettings {
        let token = Some(Secret::new("no token of anybody's"));
        OrgSettings { clients: vec![self.client.clone()], token, ..OrgSettings::default() }
    }

    /// An org that knows the app, and demands proofs of possession of it.
    pub fn org_with(&self, proof: ProofDemand) -> OrgSettings {
        OrgSettings { proof, ..self.org() }
    }

    /// The app's client, by this clock.
    pub fn client(&self, wire: Arc<OrgWire>, clock: Clock) -> OktaClient {
        let credential = Credential::ServiceApp(self.app.clone());
        let endpoint = Endpoint { base_url: OrgSettings::default().host, credential };
        OktaClient::over(wire, &endpoint, clock).unwrap()
    }
}

/// An org that answers after a while.
pub struct OrgWire {
    org: Arc<Mutex<Org>>,
    /// Okta's.
    clock: Clock,
    /// Requests for tokens so far.
    asked: AtomicUsize,
    /// Other requests so far.
    sent: AtomicUsize,
}

impl OrgWire {
    /// The way to an org that goes by this clock.
    pub fn new(org: &Arc<Mutex<Org>>, clock: Clock) -> Arc<Self> {
        let (asked, sent) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Arc::new(Self { org: Arc::clone(org), clock, asked, sent })
    }

    /// How often a token was asked for since the last look.
    pub fn asked(&self) -> usize {
        self.asked.swap(0, Ordering::Relaxed)
    }

    /// How many other requests were sent since the last look.
    pub fn sent(&self) -> usize {
        self.sent.swap(0, Ordering::Relaxed)
    }

    async fn call(&self, call: HttpCall) -> Result<Response, NoAnswer> {
        tokio::time::sleep(LATENCY / 2).await;
        let answer = self.org.lock().unwrap().answer(&call, self.clock.now());
        tokio::time::sleep(LATENCY / 2).await;
        match answer {
            Handled::Said(response) => Ok(response),
            Handled::Lost => Err(NoAnswer::MaybeSent("the connection was closed".to_owned())),
        }
    }
}

/// These headers, and the proof if there is one.
fn headers<const N: usize>(
    headers: [(HeaderName, HeaderValue); N],
    proof: Option<&HeaderValue>,
) -> HeaderMap {
    let proof = proof.map(|proof| (HeaderName::from_static("dpop"), proof.clone()));
    headers.into_iter().chain(proof).collect()
}

#[async_trait]
impl OktaTransport for OrgWire {
    async fn send(&self, request: &Request, presented: Presented<'_>) -> Result<Response, NoAnswer> {
        self.sent.fetch_add(1, Ordering::Relaxed);
        let json = HeaderValue::from_static("application/json");
        self.call(HttpCall {
            method: request.method.clone(),
            target: request.path_and_query(),
            headers: headers(
                [(AUTHORIZATION, presented.authorization.clone()), (CONTENT_TYPE, json)],
                presented.proof,
            ),
            body: request.body.clone().unwrap_or_default(),
        })
        .await
    }

    async fn post_form(
        &self,
        path: &str,
        form: Secret,
        proof: Option<&HeaderValue>,
    ) -> Result<Response, NoAnswer> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
        self.call(HttpCall {
            method: Method::POST,
            target: path.to_owned(),
            headers: headers([(CONTENT_TYPE, kind)], proof),
            body: form.expose().to_owned().into(),
        })
        .await
    }
}
