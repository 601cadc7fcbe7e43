//! What only RabbitMQ's management API can tell: which queues there are at all.

use std::time::Duration;

use serde::Deserialize;

use crate::domain::ids::{ConnectionName, Lane};
use crate::domain::topology::{INVOCATIONS, work_queue};

use super::Settings;
use super::connecting::uri;

/// How long the answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// A queue of ours that no connection in the configuration serves.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Orphan {
    /// Its name.
    pub name: String,
    /// Messages that wait in it, unanswered.
    #[serde(default)]
    pub messages: u64,
}

/// Asks the management API at `base_url` for work queues without a connection, as the user of the AMQP
/// URI in its virtual host.
///
/// # Errors
/// When the API cannot be asked; without any credential in the text.
pub async fn orphans(
    settings: &Settings,
    base_url: &str,
    connections: &[ConnectionName],
) -> Result<Vec<Orphan>, String> {
    let uri = uri(settings.url.expose()).map_err(|ended| ended.to_string())?;
    let vhost = percent_encoding::utf8_percent_encode(&uri.vhost, percent_encoding::NON_ALPHANUMERIC);
    let url = format!("{}/api/queues/{vhost}?columns=name,messages", base_url.trim_end_matches('/'));
    let user = uri.authority.userinfo;
    let asked = async {
        let client = reqwest::Client::builder().timeout(ANSWER_MAX).build()?;
        let answer = client.get(url).basic_auth(user.username, Some(user.password)).send().await?;
        answer.error_for_status()?.bytes().await
    };
    let body = asked.await.map_err(|error| error.without_url().to_string())?;
    let queues: Vec<Orphan> =
        serde_json::from_slice(&body).map_err(|_| "the answer is not a list of queues".to_owned())?;
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
