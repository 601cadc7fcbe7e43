//! The headers that RabbitMQ adds to a message dead-lettered out of a delay tier.

use crate::domain::message::{HeaderValue, Headers, Properties};
use crate::policy::origin::X_DEATH;

/// The headers of the first death, which are written once: the exchange, the queue and the reason.
const FIRST: [&str; 3] = ["x-first-death-exchange", "x-first-death-queue", "x-first-death-reason"];

/// Returns the properties of a message that expired in this tier: the latest death comes first.
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
