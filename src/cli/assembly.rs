//! From settings to a worker: the orgs behind their gates, and the rules.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use tokio::sync::watch;

use crate::config::{Config, Connection as Settings};
use crate::domain::ids::ConnectionName;
use crate::edge::okta::OktaClient;
use crate::policy::budget::window::Share;
use crate::policy::permit::{Caller, Callers};
use crate::edge::rabbit::Gossips;
use crate::policy::budget::signal::Signal;
use crate::policy::reply_to::ReplyPolicy;
use crate::worker::clock::Clock;
use crate::worker::event::Observer;
use crate::worker::gate::{CallerCeilings, Gate, Terms};
use crate::worker::ports::{Census, Gossip, Okta};
use crate::worker::{Connection, Rules};

use super::Refusal;

/// The orgs by name.
pub(super) type Connections = HashMap<ConnectionName, Arc<Connection>>;

/// The configured orgs over HTTPS.
pub(super) fn connections(config: &Config, observer: &Arc<dyn Observer>) -> Result<Connections, Refusal> {
    let callers = caller_ceilings(&config.callers);
    let connect = |settings: &Settings| {
        let okta = OktaClient::new(&settings.endpoint)
            .map_err(|why| Refusal(format!("connections.{}: {why}", settings.name)))?;
        let prefetch = usize::from(config.broker.prefetch);
        let connection = connection(settings, Arc::new(okta), prefetch, &callers, observer);
        Ok((settings.name.clone(), Arc::new(connection)))
    };
    config.connections.iter().map(connect).collect()
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
) -> Connection {
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
    Connection {
        name: settings.name.clone(),
        okta,
        budget: Arc::new(gate),
        subtools: settings.subtools.clone(),
    }
}

/// What the orgs' gates and other workers know of each other.
pub(super) fn gossips(connections: &Connections) -> Gossips {
    let alone = |name: &ConnectionName| (name.clone(), Arc::new(Alone) as Arc<dyn Gossip>);
    connections.keys().map(alone).collect()
}

/// Until the gate listens to other workers: counted and told to, it does what it did.
struct Alone;

#[async_trait]
impl Gossip for Alone {
    async fn news(&self) {
        std::future::pending().await
    }

    fn tell(&self) -> Vec<Signal> {
        Vec::new()
    }

    fn hear(&self, _: &Signal) {}

    fn counted(&self, _: Census) {}
}

/// The rules for a worker on the real broker.
pub(super) fn rules(
    config: &Config,
    connections: Connections,
    own_user: Option<String>,
    stopping: watch::Receiver<bool>,
) -> Rules {
    Rules {
        connections: ArcSwap::from_pointee(connections),
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
