//! Facts that only RabbitMQ's management API reveals: which queues exist, and which policies apply to them.

use std::time::Duration;

use lapin::uri::AMQPUserInfo;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::domain::http::is_loopback;
use crate::domain::ids::{ConnectionName, Lane};
use crate::domain::topology::{INVOCATIONS, work_queue};
use crate::policy::hazards::{Governed, Hazard, hazards};

use super::connect::uri;
use crate::rabbit::BrokerSettings;

/// The timeout for the answer.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// A work queue that no connection in the configuration serves.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Orphan {
    /// The name of the queue.
    pub name: String,
    /// The number of messages that wait in it, unanswered.
    #[serde(default)]
    pub messages: u64,
}

/// Asks the management API at `base_url` for work queues without a connection, in the virtual host of the AMQP URI.
///
/// # Errors
/// If the API cannot be queried; the text holds no credential.
pub async fn orphans(
    settings: &BrokerSettings,
    base_url: &str,
    connections: &[ConnectionName],
) -> Result<Vec<Orphan>, String> {
    let queues: Vec<Orphan> = queues(settings, base_url, "name,messages").await?;
    let ours: Vec<String> = connections
        .iter()
        .flat_map(|connection| Lane::ALL.map(|lane| work_queue(connection, lane)))
        .collect();
    let work = format!("{INVOCATIONS}.");
    Ok(queues
        .into_iter()
        .filter(|queue| queue.name.starts_with(&work) && !ours.contains(&queue.name))
        .collect())
}

/// Asks the management API which policies lose or refuse messages of the worker's queues.
///
/// # Errors
/// If the API cannot be queried; the text holds no credential.
pub async fn policies(settings: &BrokerSettings, base_url: &str) -> Result<Vec<Hazard>, String> {
    const COLUMNS: &str = "name,arguments,policy,operator_policy,effective_policy_definition";
    Ok(hazards(&governed(queues(settings, base_url, COLUMNS).await?)))
}

/// A queue as the management API describes it.
#[derive(Deserialize)]
struct QueueDescription {
    name: String,
    #[serde(default)]
    arguments: Value,
    #[serde(default)]
    policy: Option<String>,
    #[serde(default)]
    operator_policy: Option<String>,
    /// An empty list if no policy applies.
    #[serde(default)]
    effective_policy_definition: Value,
}

/// Selects the worker's own queues, except those that hold no messages.
fn governed(queues: Vec<QueueDescription>) -> Vec<Governed> {
    const OWN: &str = "okta.";
    const PRESENCE: &str = "okta.presence.";
    let ours =
        queues.into_iter().filter(|queue| queue.name.starts_with(OWN) && !queue.name.starts_with(PRESENCE));
    let keys = |value: &Value| value.as_object().cloned().unwrap_or_default();
    let governed = ours.map(|queue| Governed {
        arguments: keys(&queue.arguments),
        definition: keys(&queue.effective_policy_definition),
        policies: queue
            .policy
            .into_iter()
            .chain(queue.operator_policy)
            .filter(|name| !name.is_empty())
            .collect(),
        queue: queue.name,
    });
    governed.collect()
}

/// Decodes a percent-encoded part of a URL.
fn decoded(part: &str) -> String {
    percent_encoding::percent_decode_str(part).decode_utf8_lossy().into_owned()
}

/// Queries some columns of all queues of the virtual host, as the user in the URL, or else as the user of the AMQP URI.
async fn queues<T: DeserializeOwned>(
    settings: &BrokerSettings,
    base_url: &str,
    columns: &str,
) -> Result<Vec<T>, String> {
    let uri = uri(settings.url.expose()).map_err(|ended| ended.to_string())?;
    let vhost = percent_encoding::utf8_percent_encode(&uri.vhost, percent_encoding::NON_ALPHANUMERIC);
    let parsed = reqwest::Url::parse(base_url).ok().filter(|url| ["http", "https"].contains(&url.scheme()));
    let mut url = parsed.ok_or("its address is not a URL such as `http://127.0.0.1:15672`")?;
    let user = match (url.username(), url.password()) {
        ("", None) => uri.authority.userinfo,
        (username, password) => {
            AMQPUserInfo { username: decoded(username), password: decoded(password.unwrap_or_default()) }
        }
    };
    // Credentials in the URL would appear in errors and redirects.
    let _ = (url.set_username(""), url.set_password(None));
    let path = format!("{}/api/queues/{vhost}", url.path().trim_end_matches('/'));
    url.set_path(&path);
    url.set_query(Some(&format!("columns={columns}")));
    let asked = async {
        let mut builder = reqwest::Client::builder().timeout(ANSWER_MAX);
        if url.host_str().is_some_and(is_loopback) {
            builder = builder.no_proxy();
        }
        let client = builder.build()?;
        let answer = client.get(url).basic_auth(user.username, Some(user.password)).send().await?;
        answer.error_for_status()?.bytes().await
    };
    let body = asked.await.map_err(|error| error.without_url().to_string())?;
    serde_json::from_slice(&body).map_err(|_| "the answer is not a list of queues".to_owned())
}
