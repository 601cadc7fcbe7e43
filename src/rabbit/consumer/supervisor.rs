//! The supervisor of the two connections, one generation after another.
//!
//! lapin's own recovery stays off (it keeps stale deliveries and can wait for ever). On any sign of a failure the
//! supervisor closes a whole generation and begins a new one: connect, attach the publisher, declare, consume. Acks use
//! the consuming connection, because a broker short of memory stops reading the publishing connection.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use lapin::{Connection, ErrorKind};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::domain::ids::ConnectionName;
use crate::domain::topology::Topology;
use crate::event::{Event, Observer, STOPPING};
use crate::worker::ports::Inbox;

use super::consuming::{HELD_PIECE_BYTES, InFlight, Means};
use super::generation::{Generation, Wrong};
use super::governed::look_for_policies;
use super::restoring::{QueueCounts, Restoring};
use super::served::{Gossips, Served};
use super::signals::Signals;
use super::site::Site;
use crate::rabbit::BrokerSettings;
use crate::rabbit::client::blocked::Blocked;
use crate::rabbit::client::connect::{BrokerNodes, own_user};
use crate::rabbit::client::declare::{DECLARE_TIMEOUT, Undeclared};
use crate::rabbit::client::error::{SessionEnd, silent};
use crate::rabbit::client::publisher::Publisher;
use crate::rabbit::client::supervisor_end::SupervisorEnd;

/// The policy for a wrong topology, and the task of the one-time check for broker policies.
type Start<'a> = (Wrong, &'a mut Option<JoinSet<()>>);

/// The owner of both connections.
pub struct Supervisor {
    settings: BrokerSettings,
    nodes: BrokerNodes,
    shared: Topology,
    pub(in crate::rabbit) roster: Served,
    /// All connections served so far, including removed ones.
    seen: Arc<Mutex<BTreeSet<ConnectionName>>>,
    pub(in crate::rabbit) signals: Arc<Signals>,
    pub(in crate::rabbit) publisher: Arc<Publisher>,
    pub(in crate::rabbit) means: Means,
    pub(in crate::rabbit) observer: Arc<dyn Observer>,
    /// True if lapin could not parse a delivery.
    unreadable: Arc<AtomicBool>,
}

impl Supervisor {
    /// Creates a supervisor that consumes the lanes of the connections in `gossips`, as they are added and removed.
    ///
    /// # Errors
    /// If the settings cannot be used.
    pub fn new(
        settings: BrokerSettings,
        gossips: watch::Receiver<Gossips>,
        publisher: Arc<Publisher>,
        inbox: Arc<dyn Inbox>,
        observer: Arc<dyn Observer>,
    ) -> Result<Self, SupervisorEnd> {
        let pieces = usize::try_from(settings.held_bytes_max).unwrap_or(usize::MAX) / HELD_PIECE_BYTES;
        let roster = Served::new(gossips);
        let user = own_user(settings.url.expose())?;
        Ok(Self {
            nodes: BrokerNodes::new(&settings)?,
            shared: Topology::shared(settings.dead_ttl, settings.dead_max),
            signals: Arc::new(Signals::new(
                (&user, !settings.declare),
                roster.clone(),
                Arc::clone(&inbox),
                Arc::clone(&observer),
                Arc::clone(&publisher),
            )),
            roster,
            seen: Arc::default(),
            means: Means {
                inbox,
                prefetch: settings.prefetch,
                held: Arc::new(Semaphore::new(pieces.clamp(1, Semaphore::MAX_PERMITS))),
                in_flight: Arc::<InFlight>::default(),
            },
            unreadable: Arc::default(),
            settings,
            publisher,
            observer,
        })
    }

    /// Consumes until `stopping` is cancelled, then lets messages in flight finish.
    ///
    /// # Errors
    /// If the broker's queues differ from those that the worker needs, or messages had to be abandoned.
    pub async fn run(&self, stopping: CancellationToken) -> Result<(), SupervisorEnd> {
        let _broadcast = self.signals.spawn_broadcast();
        let mut policy_check = None;
        let (mut failures, mut wrong) = (0, Wrong::Ends);
        let stopped = loop {
            let mut fault = self.generation((wrong, &mut policy_check), &stopping).await;
            if self.unreadable.swap(false, Ordering::AcqRel)
                && !matches!(fault, SessionEnd::Stopping | SessionEnd::Unfinished(_))
            {
                match self.quarantine(&stopping).await {
                    Ok(()) => continue,
                    Err(ended) => fault = ended,
                }
            }
            let why = match fault {
                SessionEnd::Stopping => break Ok(()),
                SessionEnd::Unfinished(why) => break Err(SupervisorEnd::Unread(why)),
                SessionEnd::Undeclared(undeclared @ Undeclared::Wrong(_)) if wrong == Wrong::Ends => {
                    return Err(SupervisorEnd::Topology(undeclared));
                }
                SessionEnd::Undeclared(undeclared) => undeclared.to_string(),
                SessionEnd::Unreachable(why) => why,
                SessionEnd::Lost(why) => {
                    failures = 0; // the broker answered a moment ago
                    why.to_owned()
                }
            };
            failures += 1;
            wrong = Wrong::IsLeftOut;
            tokio::select! {
                () = self.nodes.wait_to_reconnect(failures, &why, &self.observer) => {}
                () = stopping.cancelled() => break Ok(()),
            }
        };
        self.observer.note(&Event::Broker { connected: false, why: STOPPING });
        match self.means.in_flight.count() {
            0 => stopped,
            left => Err(SupervisorEnd::Abandoned(left)),
        }
    }

    /// Runs one generation of the two connections.
    async fn generation(&self, start: Start<'_>, stopping: &CancellationToken) -> SessionEnd {
        let connect = async { Ok((self.open("consuming").await?, self.attach().await?)) };
        let connected = tokio::select! {
            connected = connect => connected,
            () = stopping.cancelled() => Err(SessionEnd::Stopping),
        };
        let ended = match connected {
            Ok((consuming, fault)) => self.serve(consuming, start, &fault, stopping).await,
            Err(fault) => fault,
        };
        self.publisher.detach().await;
        ended
    }

    /// Serves on these connections until one of them may have failed, or until the worker has drained.
    async fn serve(
        &self,
        consuming: Connection,
        (wrong, policy_check): Start<'_>,
        fault: &Notify,
        stopping: &CancellationToken,
    ) -> SessionEnd {
        let begun = timeout(DECLARE_TIMEOUT, self.begin(consuming, wrong)).await;
        let mut generation = match begun.unwrap_or_else(|_| Err(silent())) {
            Ok(generation) => generation,
            Err(fault) => return fault,
        };
        self.observer.note(&Event::Broker { connected: true, why: "declared and consuming" });
        policy_check.get_or_insert_with(|| {
            look_for_policies(&self.settings, self.roster.clone(), &self.publisher, &self.observer)
        });
        let mut ended = generation.keep(fault, stopping).await;
        if matches!(ended, SessionEnd::Stopping) {
            ended = generation.drain().await.map_or_else(SessionEnd::Unfinished, |()| ended);
        }
        self.publisher.detach().await;
        // Messages that are not acknowledged by now return to their queue.
        generation.end().await;
        ended
    }

    async fn begin(&self, connection: Connection, wrong: Wrong) -> Result<Generation, SessionEnd> {
        Generation::begin(self.site(connection), &self.shared, wrong).await
    }

    /// Returns the resources for serving on a connection.
    pub(in crate::rabbit) fn site(&self, connection: Connection) -> Site {
        let connection = Arc::new(connection);
        let restoring = Restoring {
            connection: Arc::clone(&connection),
            shared: self.shared.clone(),
            passive: !self.settings.declare,
            observer: Arc::clone(&self.observer),
            waiting: QueueCounts::default(),
        };
        Site {
            connection,
            restoring: Arc::new(restoring),
            signals: Arc::clone(&self.signals),
            means: self.means.clone(),
            roster: self.roster.clone(),
            seen: Arc::clone(&self.seen),
            passive: !self.settings.declare,
            observer: Arc::clone(&self.observer),
        }
    }

    /// Opens one connection. Records an unreadable delivery on it, because lapin reports that to an arbitrary pending
    /// call.
    pub(in crate::rabbit) async fn open(&self, role: &str) -> Result<Connection, SessionEnd> {
        let connection = self.nodes.connect(role).await.map_err(SessionEnd::Unreachable)?;
        self.watch(&connection);
        Ok(connection)
    }

    /// Follows the events of a connection.
    fn watch(&self, connection: &Connection) -> Blocked {
        let (events, unreadable) = (connection.events_listener(), Arc::clone(&self.unreadable));
        let blocked = Blocked::new(&self.observer);
        let followed = blocked.clone();
        tokio::spawn(async move {
            let pass = |event: &lapin::Event| {
                if matches!(event, lapin::Event::Error(error) if matches!(error.kind(), ErrorKind::ParsingError(_)))
                {
                    unreadable.store(true, Ordering::Release);
                }
            };
            followed.follow(events, pass).await;
        });
        blocked
    }

    /// Opens a connection for the publisher. The returned signal fires when it fails.
    pub(in crate::rabbit) async fn attach(&self) -> Result<Arc<Notify>, SessionEnd> {
        let connection = self.nodes.connect("publishing").await.map_err(SessionEnd::Unreachable)?;
        let (blocked, fault) = (self.watch(&connection), Arc::new(Notify::new()));
        self.publisher.attach(connection, blocked, Arc::clone(&fault));
        Ok(fault)
    }
}
