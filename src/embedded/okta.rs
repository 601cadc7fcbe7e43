//! The simulated org behind the worker's port: no socket, the worker's own clock.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use tokio::time::sleep;

use crate::domain::http::{NoAnswer, Request, Response};
use crate::sandbox::{Handled, HttpCall, Org};
use crate::worker::clock::Clock;
use crate::worker::ports::Okta;

/// A simulated org that answers with a latency, as over a network.
pub struct SimulatedOkta {
    org: Arc<Mutex<Org>>,
    clock: Clock,
    latency: Duration,
    in_flight: AtomicUsize,
    headers: HeaderMap,
}

impl SimulatedOkta {
    /// Creates an org with this latency. `token` is sent as an API token.
    ///
    /// # Panics
    /// If the token is not valid in a header.
    pub fn new(org: Arc<Mutex<Org>>, token: &str, clock: Clock, latency: Duration) -> Self {
        let authorization = HeaderValue::from_str(&format!("SSWS {token}"))
            .expect("a token for the simulation is plain text");
        let json = HeaderValue::from_static("application/json");
        let headers = [(AUTHORIZATION, authorization), (ACCEPT, json.clone()), (CONTENT_TYPE, json)];
        let headers = HeaderMap::from_iter(headers);
        Self { org, clock, latency, in_flight: AtomicUsize::new(0), headers }
    }
}

#[async_trait]
impl Okta for SimulatedOkta {
    async fn send(&self, request: &Request) -> Result<Response, NoAnswer> {
        let call = HttpCall {
            method: request.method.clone(),
            target: request.path_and_query(),
            headers: self.headers.clone(),
            body: request.body.clone().unwrap_or_default(),
        };
        let (_flight, in_flight) = Flight::begin(&self.in_flight);
        // The org executes the request half-way through the wait, as over a network.
        sleep(self.latency / 2).await;
        let now = self.clock.now();
        let answer =
            self.org.lock().unwrap_or_else(PoisonError::into_inner).answer_with(&call, now, in_flight);
        sleep(self.latency / 2).await;
        match answer {
            Handled::Said(response) => Ok(response),
            Handled::Lost => Err(NoAnswer::MaybeSent("the connection was closed".to_owned())),
        }
    }
}

/// A guard that counts a request as in flight until it is dropped, even if its answer is no longer awaited.
struct Flight<'a>(&'a AtomicUsize);

impl<'a> Flight<'a> {
    fn begin(in_flight: &'a AtomicUsize) -> (Self, usize) {
        let now = in_flight.fetch_add(1, Ordering::AcqRel) + 1;
        (Self(in_flight), now)
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::OrgSettings;

    #[tokio::test(start_paused = true)]
    async fn a_request_that_is_given_up_is_not_in_flight_for_ever() {
        let org = Arc::new(Mutex::new(Org::new(OrgSettings { concurrency: 1, ..OrgSettings::default() })));
        let clock = Clock::starting_at("2026-03-02T09:00:00Z".parse().unwrap());
        let okta = SimulatedOkta::new(org, "token", clock, Duration::from_secs(1));
        let request = Request::get("/api/v1/groups", &[]);
        let given_up = tokio::time::timeout(Duration::from_millis(100), okta.send(&request));
        assert!(given_up.await.is_err());
        assert_eq!(okta.send(&request).await.unwrap().status, 200);
    }
}
