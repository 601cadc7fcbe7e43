//! A one-time check, after the worker has started, for policies on the broker that lose or refuse messages.
//!
//! It uses the management API if the configuration names one, or else a probe queue named like one of the worker's own
//! queues. Nothing waits for the check, and its only effect is a line in the log.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use crate::domain::ids::Lane;
use crate::domain::topology::work_queue;
use crate::event::{Event, Observer};
use crate::policy::hazards::Hazard;

use super::served::Served;
use crate::rabbit::BrokerSettings;
use crate::rabbit::client::management::policies;
use crate::rabbit::client::probe::probe;
use crate::rabbit::client::publisher::Publisher;

/// The time for which the probe watches its messages: nothing waits for the result.
const WATCHED: Duration = Duration::from_secs(30);

/// Starts the check. It runs until the returned set is dropped.
pub(in crate::rabbit) fn look_for_policies(
    settings: &BrokerSettings,
    mut roster: Served,
    publisher: &Arc<Publisher>,
    observer: &Arc<dyn Observer>,
) -> JoinSet<()> {
    let (settings, publisher, observer) = (settings.clone(), Arc::clone(publisher), Arc::clone(observer));
    let like = roster.names().first().map(|name| work_queue(name, Lane::Bulk));
    let mut check = JoinSet::new();
    check.spawn(async move {
        let found = match &settings.management {
            Some(url) => policies(&settings, url).await.ok(),
            None => None,
        };
        match (found, like) {
            (Some(hazards), _) => hazards.iter().for_each(|hazard| note(hazard, &*observer)),
            (None, Some(like)) if settings.declare => {
                let Some(channel) = publisher.other_channel().await else { return };
                for what in probe(&channel, &like, WATCHED).await.unwrap_or_default() {
                    let what = format!("{what}, by a policy: `okta-worker check --management` names it");
                    observer.note(&Event::Policy { queue: &like, what: &what });
                }
            }
            (None, _) => {}
        }
    });
    check
}

fn note(hazard: &Hazard, observer: &dyn Observer) {
    let Hazard { policies, what, queues } = hazard;
    let what = format!(
        "policy {}: {what} (and {} more queues)",
        policies.join(" and "),
        queues.len().saturating_sub(1)
    );
    observer.note(&Event::Policy { queue: queues.first().map_or("", |queue| queue), what: &what });
}
