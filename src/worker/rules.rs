//! Settings of a worker: its connections, the permitted callers, and limits on time.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::domain::ids::ConnectionName;
use crate::domain::message::Source;
use crate::policy::authorization::Callers;
use crate::policy::backoff::RetryRules;
use crate::policy::reply_to::ReplyPolicy;

use super::clock::Clock;
use super::connection::Connection;

/// Settings of a worker, replaced as a whole by a reload.
pub struct Rules {
    /// The orgs by name.
    pub connections: HashMap<ConnectionName, Arc<Connection>>,
    /// Callers, and the subtools that each may use.
    pub callers: Callers,
    /// Queues that results may go to.
    pub reply_to: ReplyPolicy,
    /// The worker's own broker user, whose `okta-` headers count.
    pub own_user: Option<String>,
    /// The default deadline of an interactive invocation: the longest time until it must have begun.
    pub interactive_deadline: Duration,
    /// The longest time for which a list may request further pages.
    pub list_time_max: Duration,
    /// Number of attempts, and the waits between them.
    pub retry: RetryRules,
    /// The clock that tells the time of day.
    pub clock: Clock,
    /// Cancelled when the worker is to stop: it leaves messages that have not begun to its replicas.
    pub stopping: CancellationToken,
}

impl Rules {
    /// Returns the connection of a message, by its queue or, if that belongs to none, by its routing key.
    pub(super) fn connection_of(
        &self,
        (source, _, key): &(Source, String, String),
    ) -> Option<&Arc<Connection>> {
        let name = match source {
            Source::Work { connection, .. } => connection.as_str(),
            Source::Removed { .. } => return None,
            Source::Unrouted | Source::Undelivered => key.split('.').next().unwrap_or_default(),
        };
        self.connections.get(name)
    }
}
