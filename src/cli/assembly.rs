//! From settings to a worker: the orgs behind their gates, and the rules.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::watch;

use crate::config::{Config, Connection as Settings};
use crate::domain::ids::ConnectionName;
use crate::edge::okta::OktaClient;
use crate::edge::rabbit::Gossips;
use crate::policy::budget::window::Share;
use crate::policy::permit::{Caller, Callers};
use crate::policy::reply_to::ReplyPolicy;
use crate::worker::clock::Clock;
use crate::worker::event::Observer;
use crate::worker::gate::{CallerCeilings, Gate, Terms};
use crate::worker::ports::{Gossip, Okta};
use crate::worker::{Connection, Rules};

use super::Refusal;

/// The orgs by name.
pub(super) type Connections = HashMap<ConnectionName, Arc<Connection>>;

/// The configured orgs over HTTPS, and what their gates tell other workers and hear from them.
pub(super) fn connections(
    config: &Config,
    observer: &Arc<dyn Observer>,
) -> Result<(Connections, Gossips), Refusal> {
    let callers = caller_ceilings(&config.callers);
    let connect = |settings: &Settings| {
        let okta = OktaClient::new(&settings.endpoint)
            .map_err(|why| Refusal(format!("connections.{}: {why}", settings.name)))?;
        let prefetch = usize::from(config.broker.prefetch);
        let (connection, gate) = connection(settings, Arc::new(okta), prefetch, &callers, observer);
        let gossip: Arc<dyn Gossip> = gate;
        Ok(((settings.name.clone(), Arc::new(connection)), (settings.name.clone(), gossip)))
    };
    let both: Result<Vec<_>, Refusal> = config.connections.iter().map(connect).collect();
    Ok(both?.into_iter().unzip())
}

/// What each caller may send in a minute.
fn caller_ceilings(callers: &Callers) -> Arc<CallerCeilings> {
    let most = |(name, caller): (&String, &Caller)| Some((name.clone(), caller.max_per_minute?));
    CallerCeilings::new(callers.0.iter().filter_map(most))
}

/// One org behind its gate.
pub(super) fn connection(
    settings: &Settings,
    okta: Arc<dyn Okta>,
    prefetch: usize,
    callers: &Arc<CallerCeilings>,
    observer: &Arc<dyn Observer>,
) -> (Connection, Arc<Gate>) {
    let share = Share { capacity_percent: settings.capacity_percent, length: settings.rate_limit_window };
    let terms = Terms {
        connection: settings.name.clone(),
        share,
        concurrent_max: settings.concurrent_max,
        prefetch,
        max_per_minute: settings.max_per_minute,
        callers: Arc::clone(callers),
    };
    let gate = Gate::new(terms, Arc::clone(observer));
    let connection = Connection {
        name: settings.name.clone(),
        okta,
        budget: Arc::new(Arc::clone(&gate)),
        subtools: settings.subtools.clone(),
    };
    (connection, gate)
}

/// The rules for a worker on the real broker.
pub(super) fn rules(
    config: &Config,
    connections: Connections,
    own_user: Option<String>,
    stopping: watch::Receiver<bool>,
) -> Rules {
    Rules {
        connections,
        callers: config.callers.clone(),
        reply_to: config.reply_to.clone(),
        own_user,
        interactive_deadline: config.interactive_deadline,
        list_time_max: config.list_time_max,
        retry: config.retry,
        clock: Clock::Machine,
        stopping,
    }
}

/// The rules for invocations that come from whoever runs the command: no caller has to be known.
pub(super) fn own_rules(config: &Config, connections: Connections, stopping: watch::Receiver<bool>) -> Rules {
    Rules {
        callers: Callers::default(),
        reply_to: ReplyPolicy::default(),
        ..rules(config, connections, None, stopping)
    }
}
