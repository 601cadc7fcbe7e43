//! The assembly of a worker from settings: the orgs behind their gates, and the rules.

use std::collections::HashMap;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::budget::gate::{CallerCeilings, Gate, GateSettings};
use crate::budget::gossip::Gossip;
use crate::budget::pure::window::QuotaShare;
use crate::config::{Config, ConnectionSection};
use crate::domain::ids::ConnectionName;
use crate::event::Observer;
use crate::okta::{AnswerRoom, OktaClient, SwitchableClient};
use crate::policy::authorization::{CallerPermissions, Callers};
use crate::policy::reply_to::ReplyPolicy;
use crate::rabbit::Gossips;
use crate::worker::breaker::Breaker;
use crate::worker::clock::Clock;
use crate::worker::ports::Okta;
use crate::worker::{Connection, Rules};

use super::exit::NotBegun;

/// The resources that all gates share.
pub(super) struct Shared {
    /// The limit of messages in hand per lane.
    pub prefetch: usize,
    /// The rate ceilings per minute of the callers.
    pub callers: Arc<CallerCeilings>,
    /// The memory budget for Okta's answers.
    pub answers: Arc<AnswerRoom>,
    /// The observer of events.
    pub observer: Arc<dyn Observer>,
}

impl Shared {
    /// Creates the resources from the settings.
    pub fn new(config: &Config, observer: &Arc<dyn Observer>) -> Self {
        Self {
            prefetch: usize::from(config.broker.prefetch),
            callers: CallerCeilings::new(ceilings(&config.callers)),
            answers: AnswerRoom::new(config.answer_bytes_max),
            observer: Arc::clone(observer),
        }
    }
}

/// Returns the ceilings of the callers that have one.
pub(super) fn ceilings(callers: &Callers) -> impl Iterator<Item = (String, u32)> {
    let most = |(name, caller): (&String, &CallerPermissions)| Some((name.clone(), caller.max_per_minute?));
    callers.0.iter().filter_map(most)
}

/// One org behind its gate, with the settings it was made from.
#[derive(Clone)]
pub(super) struct ServedOrg {
    settings: ConnectionSection,
    connection: Arc<Connection>,
    gate: Arc<Gate>,
    way: Arc<SwitchableClient>,
    /// The client to use from [`ServedOrg::take_effect`] on.
    okta: Arc<dyn Okta>,
}

/// The orgs by name.
pub(super) type Orgs = HashMap<ConnectionName, ServedOrg>;

/// Builds the configured orgs over HTTPS. Keeps of an unchanged org its client and the known state of its rate-limit
/// budget.
pub(super) fn orgs(config: &Config, ground: &Shared, before: &Orgs) -> Result<Orgs, NotBegun> {
    let org = |settings: &ConnectionSection| {
        let org = match before.get(&settings.name) {
            Some(org) if org.settings == *settings => org.clone(),
            Some(org) => org.changed(settings, ground)?,
            None => ServedOrg::new(settings, over_https(settings, ground)?, gate(settings, ground)),
        };
        Ok((settings.name.clone(), org))
    };
    config.connections.iter().map(org).collect()
}

impl ServedOrg {
    /// Creates an org with this client.
    pub fn new(settings: &ConnectionSection, okta: Arc<dyn Okta>, gate: Arc<Gate>) -> Self {
        let way = Arc::new(SwitchableClient::new(Arc::clone(&okta)));
        Self::with(settings, gate, (way, okta), Arc::default())
    }

    fn with(
        settings: &ConnectionSection,
        gate: Arc<Gate>,
        (way, okta): (Arc<SwitchableClient>, Arc<dyn Okta>),
        breaker: Arc<Breaker>,
    ) -> Self {
        let (name, subtools) = (settings.name.clone(), settings.subtools.clone());
        let budget = Arc::new(Arc::clone(&gate));
        let mut connection = Connection::new(name, Arc::<SwitchableClient>::clone(&way), budget, subtools);
        connection.breaker = breaker;
        Self { settings: settings.clone(), connection: Arc::new(connection), gate, way, okta }
    }

    /// Returns the same org with other settings.
    fn changed(&self, settings: &ConnectionSection, ground: &Shared) -> Result<Self, NotBegun> {
        let okta = match settings.endpoint == self.settings.endpoint {
            true => Arc::clone(&self.okta),
            false => over_https(settings, ground)?,
        };
        // Messages in hand stay with the org that they began with.
        let way = match settings.endpoint.base_url == self.settings.endpoint.base_url {
            true => Arc::clone(&self.way),
            false => Arc::new(SwitchableClient::new(Arc::clone(&okta))),
        };
        let gate = match settings.has_budget_of(&self.settings) {
            true => Arc::clone(&self.gate),
            false => {
                let gate = gate(settings, ground);
                gate.counted(self.gate.census()); // the other workers are still there
                gate
            }
        };
        Ok(Self::with(settings, gate, (way, okta), Arc::clone(&self.connection.breaker)))
    }

    /// Puts the settings into effect. Resumes a paused connection, because new settings may have fixed the cause.
    pub fn take_effect(&self, before: Option<&Self>) {
        self.way.switch_to(Arc::clone(&self.okta));
        if before.is_some_and(|before| !Arc::ptr_eq(&before.connection, &self.connection)) {
            self.connection.breaker.resume();
        }
    }
}

fn over_https(settings: &ConnectionSection, ground: &Shared) -> Result<Arc<dyn Okta>, NotBegun> {
    let okta = OktaClient::new(&settings.endpoint, &ground.answers)
        .map_err(|why| NotBegun(format!("connections.{}: {why}", settings.name)))?;
    Ok(Arc::new(okta))
}

/// Creates the gate for an org whose limits are not known yet.
pub(super) fn gate(settings: &ConnectionSection, ground: &Shared) -> Arc<Gate> {
    let share =
        QuotaShare { capacity_percent: settings.capacity_percent, length: settings.rate_limit_window };
    let terms = GateSettings {
        connection: settings.name.clone(),
        share,
        concurrent_max: settings.concurrent_max,
        prefetch: ground.prefetch,
        max_per_minute: settings.max_per_minute,
        callers: Arc::clone(&ground.callers),
    };
    Gate::new(terms, Arc::clone(&ground.observer))
}

/// Returns the gossips of the gates, by connection.
pub(super) fn gossips(orgs: &Orgs) -> Gossips {
    orgs.iter().map(|(name, org)| (name.clone(), Arc::<Gate>::clone(&org.gate) as Arc<dyn Gossip>)).collect()
}

/// Builds the rules for a worker on the real broker.
pub(super) fn rules(
    config: &Config,
    orgs: &Orgs,
    own_user: Option<String>,
    stopping: CancellationToken,
) -> Rules {
    let connections = orgs.iter().map(|(name, org)| (name.clone(), Arc::clone(&org.connection)));
    Rules {
        connections: connections.collect(),
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

/// Builds the rules for invocations by the user of the command: the caller need not be configured.
pub(super) fn own_rules(config: &Config, orgs: &Orgs, stopping: CancellationToken) -> Rules {
    Rules {
        callers: Callers::default(),
        reply_to: ReplyPolicy::default(),
        ..rules(config, orgs, None, stopping)
    }
}
