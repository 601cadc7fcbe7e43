//! One life of the consuming connection: whatever the roster names is served on it, each by itself.
//!
//! A connection that comes to the roster or leaves it disturbs no other. Any doubt ends the whole
//! generation; what was delivered in it is then no longer ours.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::domain::ids::ConnectionName;
use crate::domain::mail::Source;
use crate::domain::topology::Topology;

use super::connecting::close;
use super::declare::declare;
use super::doubt::Doubt;
use super::presence::FIRST_COUNT_MAX;
use super::removed::answer_removed;
use super::roster::Roster;
use super::serving::{Serving, serve};
use super::site::Site;
use super::turned;

/// How long work in flight may go on after the worker is told to stop.
pub(super) const DRAIN_MAX: Duration = Duration::from_secs(25);

/// What is done when the broker has not what one of the connections needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wrong {
    /// Nothing is served: it is the start, and somebody is looking.
    Ends,
    /// The others are served.
    IsLeftOut,
}

/// What ended: a connection, or, without a name, what belongs to none.
type Ended = (Option<ConnectionName>, Result<(), Doubt>);

/// What goes on for a connection.
enum Service {
    /// It is served, or on its way out; how to halt that.
    Served(watch::Sender<bool>),
    /// It was removed, and whoever still waits is answered; how to halt that.
    Removed(watch::Sender<bool>),
}

impl Service {
    fn halt(&self) {
        let (Self::Served(halt) | Self::Removed(halt)) = self;
        halt.send_replace(true);
    }
}

/// What is being served.
pub(super) struct Generation {
    site: Arc<Site>,
    roster: Roster,
    running: JoinSet<Ended>,
    /// What goes on for each connection.
    served: HashMap<ConnectionName, Service>,
    /// How to halt what belongs to no connection.
    halt: watch::Sender<bool>,
    /// Hears the other workers.
    _hearing: JoinSet<()>,
}

impl Generation {
    /// Declares what all share, hears the other workers, and begins to serve everything in the roster.
    ///
    /// # Errors
    /// When the broker has other queues than are needed, or the connection is no good.
    pub async fn begin(site: Site, shared: &Topology, wrong: Wrong) -> Result<Self, Doubt> {
        let channel = site.connection.create_channel().await.map_err(Doubt::unreachable)?;
        declare(&channel, shared, site.passive).await.map_err(Doubt::Undeclared)?;
        let hearing = site.signals.listen(&site.connection).await;
        let mut generation = Self {
            roster: site.roster.clone(),
            site: Arc::new(site),
            running: JoinSet::new(),
            served: HashMap::new(),
            halt: watch::Sender::new(false),
            _hearing: hearing,
        };
        let sources = [Source::Unrouted, Source::Undelivered];
        let unowned = Serving::consuming(&generation.site, &sources).await?;
        let names = generation.roster.names();
        let counted_by = Instant::now() + FIRST_COUNT_MAX; // of all together
        let mut begun = Vec::new();
        for name in names {
            match Serving::begin(&generation.site, &name, counted_by).await {
                Ok(serving) => begun.push((name, serving)),
                Err(Doubt::Undeclared(_)) if wrong == Wrong::IsLeftOut && generation.site.is_up() => {}
                Err(doubt) => return Err(doubt),
            }
        }
        let halt = generation.halt.subscribe();
        generation.running.spawn(async move { (None, unowned.keep(halt).await) });
        for (name, serving) in begun {
            let halt = generation.halted(&name, Service::Served);
            generation.running.spawn(async move { (Some(name), serving.keep(halt).await) });
        }
        generation.follow(); // whoever was left out
        Ok(generation)
    }

    /// How a connection will be told to halt.
    fn halted(
        &mut self,
        name: &ConnectionName,
        service: fn(watch::Sender<bool>) -> Service,
    ) -> watch::Receiver<bool> {
        let halt = watch::Sender::new(false);
        let halted = halt.subscribe();
        self.served.insert(name.clone(), service(halt));
        halted
    }

    /// Halts whoever has left the roster and begins to serve whoever has come to it. One that comes again
    /// while it is on its way out begins when it has left. Of one that has left, what remains is answered.
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

    /// Serves until something ends that should not, or the worker is told to stop.
    pub async fn keep(&mut self, doubt: &Notify, stopping: &mut watch::Receiver<bool>) -> Doubt {
        /// What is said when a task panicked.
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
                    Ok((None, Ok(()))) | Err(_) => return Doubt::Lost(BUG),
                    Ok((_, Err(doubt))) => return doubt,
                },
                () = self.roster.changed() => self.follow(),
                () = doubt.notified() => return Doubt::Lost("the publishing connection failed"),
                () = turned(stopping) => return Doubt::Stopping,
            }
        }
    }

    /// Takes no more work, and waits until what is in hand is done and everybody has left.
    ///
    /// # Errors
    /// When that did not end in order, or not in time.
    pub async fn drain(&mut self) -> Result<(), &'static str> {
        self.halt.send_replace(true);
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

    /// Ends whatever is still served, and the connection.
    pub async fn end(mut self) {
        self.running.abort_all();
        close(&self.site.connection).await;
    }
}
