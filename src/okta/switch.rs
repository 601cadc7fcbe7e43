//! A client that can be replaced between two requests.

use std::sync::Arc;

use arc_swap::ArcSwap;
use async_trait::async_trait;

use crate::domain::http::{NoAnswer, Request, Response};
use crate::worker::ports::Okta;

/// The client of an org, whose credential can be replaced between two requests, also for messages in hand.
pub struct SwitchableClient(ArcSwap<Arc<dyn Okta>>);

impl SwitchableClient {
    /// Creates a client that sends requests by this one, until it is replaced.
    pub fn new(client: Arc<dyn Okta>) -> Self {
        Self(ArcSwap::from_pointee(client))
    }

    /// Replaces the client for every later request.
    pub fn switch_to(&self, client: Arc<dyn Okta>) {
        self.0.store(Arc::new(client));
    }
}

#[async_trait]
impl Okta for SwitchableClient {
    async fn send(&self, request: &Request) -> Result<Response, NoAnswer> {
        self.0.load_full().send(request).await
    }
}
