//! Settings of a worker: its connections, who may call, and how long things may take.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::domain::ids::ConnectionName;
use crate::domain::mail::Source;
use crate::policy::permit::Callers;
use crate::policy::reply_to::ReplyPolicy;
use crate::policy::retry::RetryRules;

use super::clock::Clock;
use super::connection::Connection;

/// Settings of a worker, replaced as a whole by a reload.
pub struct Rules {
    /// The orgs by name.
    pub connections: HashMap<ConnectionName, Arc<Connection>>,
    /// Who may call.
    pub callers: Callers,
    /// Where results may go.
    pub reply_to: ReplyPolicy,
    /// The worker's own broker user, whose `okta-` headers count.
    pub own_user: Option<String>,
    /// How long an interactive invocation without a deadline may take to begin.
    pub interactive_deadline: Duration,
    /// How long a list may go on asking for pages.
    pub list_time_max: Duration,
    /// How often and after how long a failure is tried again.
    pub retry: RetryRules,
    /// Where the time of day is read.
    pub clock: Clock,
    /// Turns true when the worker is to stop: what has not begun is left to others.
    pub stopping: watch::Receiver<bool>,
}

impl Rules {
    /// The connection that a message is for, by its queue or, where that belongs to none, by its key.
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
