//! What RabbitMQ writes into a message that it dead-letters out of a delay tier.

use crate::domain::mail::{HeaderValue, Headers, Properties};
use crate::policy::provenance::X_DEATH;

/// What is written once and stays: by which exchange and from which queue it was dead-lettered first, and
/// why.
const FIRST: [&str; 3] = ["x-first-death-exchange", "x-first-death-queue", "x-first-death-reason"];

/// The properties of a message whose time in this tier has passed: the latest death comes in front.
pub(super) fn expired(mut properties: Properties, tier: &str, routing_key: &str) -> Properties {
    let text = |text: &str| HeaderValue::Text(text.to_owned());
    let death = [
        ("count", HeaderValue::Int(1)),
        ("exchange", text(tier)),
        ("queue", text(tier)),
        ("reason", text("expired")),
        ("routing-keys", HeaderValue::List(vec![text(routing_key)])),
    ];
    let death: Headers = death.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let mut deaths = vec![HeaderValue::Table(death)];
    if let Some(HeaderValue::List(earlier)) = properties.headers.remove(X_DEATH) {
        deaths.extend(earlier);
    }
    properties.headers.insert(X_DEATH.to_owned(), HeaderValue::List(deaths));
    for (name, value) in FIRST.into_iter().zip([tier, tier, "expired"]) {
        properties.headers.entry(name.to_owned()).or_insert_with(|| text(value));
    }
    properties
}
