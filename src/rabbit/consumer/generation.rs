//! One generation of the consuming connection: it serves each Okta connection in the roster separately.
//!
//! A connection that joins or leaves the roster does not disturb the other ones. Any error that may concern the AMQP
//! connection ends the generation; messages delivered in it are then no longer ours.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::domain::ids::ConnectionName;
use crate::domain::message::Source;
use crate::domain::topology::Topology;

use super::presence::FIRST_COUNT_MAX;
use super::removed::answer_removed;
use super::served::Served;
use super::serving::{Serving, serve};
use super::site::Site;
use crate::rabbit::client::connect::close;
use crate::rabbit::client::declare::declare;
use crate::rabbit::client::error::SessionEnd;

/// The time for messages in flight to finish after the worker is told to stop.
pub(in crate::rabbit) const DRAIN_MAX: Duration = Duration::from_secs(25);

/// The most connections whose queues are declared at once. Each takes some thirty milliseconds, most of them waiting for
/// the broker.
const BEGINNING_MAX: usize = 16;

/// The policy for a broker that lacks what one of the connections needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::rabbit) enum Wrong {
    /// The generation ends: it is the start, and an operator is watching.
    Ends,
    /// The generation serves the other connections.
    IsLeftOut,
}

/// The result of a task: of a connection, or, without a name, of the queues that belong to none.
type TaskEnd = (Option<ConnectionName>, Result<(), SessionEnd>);

/// The service of a connection.
enum Service {
    /// It is served, or draining; holds the halt signal.
    Served(CancellationToken),
    /// It was removed, and its remaining messages are answered; holds the halt signal.
    Removed(CancellationToken),
}

impl Service {
    fn halt(&self) {
        let (Self::Served(halt) | Self::Removed(halt)) = self;
        halt.cancel();
    }
}

/// The services that run in one generation.
pub(in crate::rabbit) struct Generation {
    site: Arc<Site>,
    roster: Served,
    running: JoinSet<TaskEnd>,
    /// The service of each connection.
    served: HashMap<ConnectionName, Service>,
    /// The halt signal for the queues that belong to no connection.
    halt: CancellationToken,
    /// Listens to the other workers.
    _hearing: JoinSet<()>,
}

impl Generation {
    /// Declares the shared topology, listens to the other workers, and begins to serve everything in the roster.
    ///
    /// # Errors
    /// If the broker's queues differ from those needed, or the connection fails.
    pub async fn begin(site: Site, shared: &Topology, wrong: Wrong) -> Result<Self, SessionEnd> {
        let channel = site.connection.create_channel().await.map_err(SessionEnd::unreachable)?;
        declare(&channel, shared, site.passive).await.map_err(SessionEnd::Undeclared)?;
        let hearing = site.signals.listen(&site.connection).await;
        let mut generation = Self {
            roster: site.roster.clone(),
            site: Arc::new(site),
            running: JoinSet::new(),
            served: HashMap::new(),
            halt: CancellationToken::new(),
            _hearing: hearing,
        };
        let sources = [Source::Unrouted, Source::Undelivered];
        let unowned = Serving::consuming(&generation.site, &sources).await?;
        let names = generation.roster.names();
        let counted_by = Instant::now() + FIRST_COUNT_MAX; // of all together
        let site = &generation.site;
        let mut beginning = stream::iter(names)
            .map(async |name| (Serving::begin(site, &name, counted_by).await, name))
            .buffer_unordered(BEGINNING_MAX);
        let mut begun = Vec::new();
        while let Some((serving, name)) = beginning.next().await {
            match serving {
                Ok(serving) => begun.push((name, serving)),
                Err(SessionEnd::Undeclared(_)) if wrong == Wrong::IsLeftOut && site.is_up() => {}
                Err(fault) => return Err(fault),
            }
        }
        drop(beginning);
        let halt = generation.halt.clone();
        generation.running.spawn(async move { (None, unowned.keep(halt).await) });
        for (name, serving) in begun {
            let halt = generation.halted(&name, Service::Served);
            generation.running.spawn(async move { (Some(name), serving.keep(halt).await) });
        }
        generation.follow(); // whoever was left out
        Ok(generation)
    }

    /// Registers a service for a connection and returns its halt signal.
    fn halted(
        &mut self,
        name: &ConnectionName,
        service: fn(CancellationToken) -> Service,
    ) -> CancellationToken {
        let halt = CancellationToken::new();
        self.served.insert(name.clone(), service(halt.clone()));
        halt
    }

    /// Halts connections that have left the roster and begins to serve new ones. A connection that returns while it
    /// drains begins when it has left. The worker answers the remaining messages of one that has left.
    fn follow(&mut self) {
        let names = self.roster.names();
        for (name, service) in &self.served {
            let is_there = names.contains(name);
            match service {
                Service::Served(_) if is_there => {}
                Service::Removed(_) if !is_there => {}
                Service::Served(_) | Service::Removed(_) => service.halt(),
            }
        }
        let gone: Vec<_> = self.site.seen().iter().filter(|name| !names.contains(name)).cloned().collect();
        self.site.seen().extend(names.iter().cloned());
        for name in names {
            if !self.served.contains_key(&name) {
                let (site, halt) = (Arc::clone(&self.site), self.halted(&name, Service::Served));
                self.running.spawn(async move { (Some(name.clone()), serve(site, name, halt).await) });
            }
        }
        for name in gone {
            if !self.served.contains_key(&name) {
                let (site, halt) = (Arc::clone(&self.site), self.halted(&name, Service::Removed));
                self.running
                    .spawn(async move { (Some(name.clone()), answer_removed(site, name, halt).await) });
            }
        }
    }

    /// Serves until a task ends unexpectedly, or the worker is told to stop.
    pub async fn keep(&mut self, fault: &Notify, stopping: &CancellationToken) -> SessionEnd {
        /// The text for a task that panicked.
        const BUG: &str = "what serves the connections has a bug";
        loop {
            tokio::select! {
                Some(ended) = self.running.join_next() => match ended {
                    Ok((Some(name), Ok(()))) => {
                        if let Some(Service::Removed(_)) = self.served.remove(&name) {
                            self.site.seen().remove(&name); // nothing is left of it
                        }
                        self.follow();
                    }
                    Ok((None, Ok(()))) | Err(_) => return SessionEnd::Lost(BUG),
                    Ok((_, Err(fault))) => return fault,
                },
                () = self.roster.changed() => self.follow(),
                () = fault.notified() => return SessionEnd::Lost("the publishing connection failed"),
                () = stopping.cancelled() => return SessionEnd::Stopping,
            }
        }
    }

    /// Takes no more messages, and waits until those in hand are done and all services have ended.
    ///
    /// # Errors
    /// If draining did not end in order, or not in time.
    pub async fn drain(&mut self) -> Result<(), &'static str> {
        self.halt.cancel();
        self.served.values().for_each(Service::halt);
        let drained = async {
            let mut drained = Ok(());
            while let Some(ended) = self.running.join_next().await {
                if !matches!(ended, Ok((_, Ok(())))) {
                    drained = Err("the broker was lost meanwhile");
                }
            }
            self.site.means.in_flight.finished().await; // what an earlier generation has left
            drained
        };
        timeout(DRAIN_MAX, drained).await.unwrap_or(Err("time was up"))
    }

    /// Aborts the remaining services and closes the connection.
    pub async fn end(mut self) {
        self.running.abort_all();
        close(&self.site.connection).await;
    }
}
