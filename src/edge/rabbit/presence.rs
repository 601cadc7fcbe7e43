//! Being counted: how many workers serve a connection, this one included.
//!
//! Two sources, and the larger count holds. RabbitMQ counts the consumers of the presence queue, which every release
//! uses, and forgets one with its connection; but a classic queue is away with its node. Workers of this release also
//! tell each other by heartbeats. (A quorum queue would survive the node, but goes on counting the consumers that were
//! connected to it until it is back: measured on 3.10.8.) A source that does not answer is left out, and without any
//! the last count holds: nobody stops working over it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use lapin::options::{BasicCancelOptions, BasicConsumeOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Connection, Consumer};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::domain::ids::{ConnectionName, Lane};
use crate::domain::topology::{Topology, presence_queue, work_queue};
use crate::worker::event::{Event, Observer};
use crate::worker::ports::{Census, Inbox, Ready};

use super::connecting::{RECONNECT, explain};
use super::declare::{declare, is_gone, look};
use super::doubt::Doubt;
use super::restoring::Restoring;
use super::roster::Roster;
use super::signals::Signals;
use super::site::Site;
use super::turned;

/// How often a connection's workers are counted, on average. Some calls of less than a millisecond; a worker
/// that has just come keeps back until it was counted three times.
const COUNT_EVERY: Duration = Duration::from_secs(2);

/// By how much a wait may be shorter or longer, so that workers started together do not ask in step.
const JITTER: f64 = 0.2;

/// How long the broker may take to answer before it is doubted: as long as a confirm, because the same busy
/// broker answers both.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// How long the work may wait for the first count. In a cluster that has just been cut in two, a look at a classic
/// queue took 64 s.
pub(super) const FIRST_COUNT_MAX: Duration = Duration::from_secs(5);

/// How long telling the broker that this worker has left may take. The end of the connection tells it, too.
const LEAVE_MAX: Duration = Duration::from_secs(5);

/// How long a work queue may have no leader as seen from this node. RabbitMQ then answers that it has no consumers,
/// this worker's included, within 250 ms; an election takes 0.2 s, and 6 s where the old leader is only cut off.
const LEADERLESS_MAX: Duration = Duration::from_secs(15);

/// How often in a row a work queue may not be there: whoever consumes it declares it again.
const LOOKS_MAX: u32 = 5;

/// What the presence queue says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Count {
    /// Nothing yet.
    NotYet,
    /// It cannot be asked.
    Unknown,
    /// So many consumers.
    Workers(u32),
}

/// One worker's presence on one connection, for as long as it is kept.
pub(super) struct Presence {
    connection: ConnectionName,
    roster: Roster,
    signals: Arc<Signals>,
    /// Who is told how much waits in the queues.
    inbox: Arc<dyn Inbox>,
    amqp: Arc<Connection>,
    /// For looking at the work queues.
    work: Channel,
    restoring: Arc<Restoring>,
    counted: watch::Receiver<Count>,
    leaving: watch::Sender<bool>,
    queue: JoinSet<()>,
    /// Since when the interactive queue has no leader.
    leaderless: Option<Instant>,
}

impl Presence {
    /// Becomes one of those who are counted, and counts for the first time; what does not answer until then is not
    /// waited for.
    ///
    /// # Errors
    /// When the AMQP connection is no good.
    pub async fn announce(site: &Site, connection: &ConnectionName, until: Instant) -> Result<Self, Doubt> {
        let work = site.connection.create_channel().await.map_err(Doubt::unreachable)?;
        let (counts, mut counted) = watch::channel(Count::NotYet);
        let leaving = watch::Sender::new(false);
        let queue = PresenceQueue {
            amqp: Arc::clone(&site.connection),
            connection: connection.clone(),
            passive: site.passive,
            observer: Arc::clone(&site.observer),
            counts,
            leaving: leaving.subscribe(),
        };
        let mut keeping = JoinSet::new();
        keeping.spawn(queue.keep());
        site.signals.heartbeats.serve(connection);
        site.signals.beat(false).await;
        let _ = timeout_at(until, counted.wait_for(|count| *count != Count::NotYet)).await;
        let mut announced = Self {
            connection: connection.clone(),
            roster: site.roster.clone(),
            signals: Arc::clone(&site.signals),
            inbox: Arc::clone(&site.means.inbox),
            amqp: Arc::clone(&site.connection),
            work,
            restoring: Arc::clone(&site.restoring),
            counted,
            leaving,
            queue: keeping,
            leaderless: None,
        };
        announced.count().await.map_err(Doubt::unreachable)?;
        Ok(announced)
    }

    /// Counts again and again, until a work queue cannot be looked at or, before `halt`, has no leader.
    pub async fn keep(&mut self, halt: &watch::Receiver<bool>) -> Doubt {
        let mut failures = 0;
        loop {
            // Another gossip knows nothing yet.
            let _ = timeout(soon(), self.roster.changed()).await;
            match timeout(ANSWER_MAX, self.count()).await {
                Ok(Ok(())) => failures = 0,
                Ok(Err(_)) => failures += 1,
                Err(_) => return Doubt::Lost("the broker does not answer"),
            }
            if failures >= LOOKS_MAX {
                return Doubt::Lost("a work queue cannot be looked at");
            }
            let is_leaderless = self.leaderless.is_some_and(|since| since.elapsed() > LEADERLESS_MAX);
            if is_leaderless && !*halt.borrow() {
                return Doubt::Lost("a work queue has no leader that this node of the broker reaches");
            }
        }
    }

    /// Is counted no more.
    pub async fn leave(mut self) {
        self.leaving.send_replace(true);
        self.signals.heartbeats.leave(&self.connection);
        self.signals.beat(false).await;
        let _ = timeout(LEAVE_MAX, self.queue.join_next()).await;
    }

    async fn count(&mut self) -> lapin::Result<()> {
        // A connection that is no longer served is counted by others alone.
        let Some(gossip) = self.roster.gossip(self.connection.as_str()) else { return Ok(()) };
        let [interactive, bulk] = [self.look(Lane::Interactive).await?, self.look(Lane::Bulk).await?];
        // This worker consumes it.
        self.leaderless = match interactive.consumer_count() {
            0 => self.leaderless.or(Some(Instant::now())),
            _ => None,
        };
        let [in_interactive, in_bulk] = [&interactive, &bulk].map(|queue| u64::from(queue.message_count()));
        self.inbox.counted(&self.connection, Ready { interactive: in_interactive, bulk: in_bulk });
        if let Some(workers) = self.workers() {
            gossip.counted(Census { workers, queued: in_bulk });
        }
        Ok(())
    }

    async fn look(&mut self, lane: Lane) -> lapin::Result<lapin::Queue> {
        if !self.work.status().connected() {
            self.work = self.amqp.create_channel().await?; // the last look was refused
        }
        let queue = work_queue(&self.connection, lane);
        let there = look(&self.work, &queue).await?;
        self.restoring.waiting.seen(queue, there.message_count());
        Ok(there)
    }

    /// The larger of the two counts; `None` when neither is known.
    fn workers(&self) -> Option<u32> {
        let consumers = match *self.counted.borrow() {
            Count::Workers(consumers) => Some(consumers),
            Count::NotYet | Count::Unknown => None,
        };
        consumers.max(self.signals.heartbeats.workers(&self.connection))
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.signals.heartbeats.leave(&self.connection);
    }
}

/// The presence queue of a connection, consumed by this worker whenever it can be. It never holds a message.
struct PresenceQueue {
    amqp: Arc<Connection>,
    connection: ConnectionName,
    passive: bool,
    observer: Arc<dyn Observer>,
    counts: watch::Sender<Count>,
    leaving: watch::Receiver<bool>,
}

impl PresenceQueue {
    /// Is counted until this worker leaves, and again after a while where that fails.
    async fn keep(mut self) {
        let (mut failures, mut is_said) = (0, false);
        while let Err(why) = self.consume().await {
            let was_counted = matches!(*self.counts.borrow(), Count::Workers(_));
            self.counts.send_replace(Count::Unknown);
            if was_counted {
                (failures, is_said) = (0, false);
            }
            // Where the connection is gone, that is said elsewhere.
            if !is_said && self.amqp.status().connected() {
                self.observer.note(&Event::Uncounted { connection: &self.connection, why: &why });
                is_said = true;
            }
            failures += 1;
            tokio::select! {
                () = sleep(RECONNECT.wait(failures, fastrand::f64())) => {}
                () = turned(&mut self.leaving) => return,
            }
        }
    }

    /// Consumes the queue and counts its consumers until this worker leaves.
    ///
    /// # Errors
    /// Why that is not possible.
    async fn consume(&mut self) -> Result<(), String> {
        let channel = answered(self.amqp.create_channel()).await?;
        let topology = Topology::presence(&self.connection);
        let declared = declare(&channel, &topology, self.passive);
        let declared = timeout(ANSWER_MAX, declared).await.map_err(|_| SILENT.to_owned())?;
        declared.map_err(|undeclared| undeclared.to_string())?;
        // Whatever somebody puts there is gone when it comes.
        let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
        let (queue, tag) = (presence_queue(&self.connection), ShortString::default());
        let consuming = channel.basic_consume(queue.as_str().into(), tag, options, FieldTable::default());
        let consumer = answered(consuming).await?;
        let gone = ended(consumer.clone());
        tokio::pin!(gone);
        loop {
            let there = answered(look(&channel, &queue)).await?;
            self.counts.send_replace(match there.consumer_count() {
                0 => Count::Unknown, // this worker is there
                consumers => Count::Workers(consumers),
            });
            tokio::select! {
                () = &mut gone => return Err(format!("`{queue}` was deleted, or its node is down")),
                () = sleep(soon()) => {}
                () = turned(&mut self.leaving) => {
                    let cancelled = channel.basic_cancel(consumer.tag(), BasicCancelOptions::default());
                    return answered(cancelled).await;
                }
            }
        }
    }
}

/// What is said of a broker that does not answer.
const SILENT: &str = "the broker does not answer";

/// The answer to one thing that was asked of the broker, in words where there is none.
async fn answered<T>(asked: impl Future<Output = lapin::Result<T>>) -> Result<T, String> {
    match timeout(ANSWER_MAX, asked).await {
        Ok(answer) => answer.map_err(|error| explain(&error)),
        Err(_) => Err(SILENT.to_owned()),
    }
}

/// The wait before the next count.
fn soon() -> Duration {
    COUNT_EVERY.mul_f64(1.0 - JITTER + 2.0 * JITTER * fastrand::f64())
}

/// Whether any worker serves a connection that this one does not; `None` when nobody can tell.
///
/// # Errors
/// When the AMQP connection is no good.
pub(super) async fn is_served(site: &Site, connection: &ConnectionName) -> Result<Option<bool>, Doubt> {
    let channel = site.connection.create_channel().await.map_err(Doubt::unreachable)?; // a refusal closes it
    let consumers = match answered_or_gone(look(&channel, &presence_queue(connection))).await {
        Ok(found) => Some(found.map_or(0, |queue| queue.consumer_count())),
        Err(_) => None,
    };
    // The count of heartbeats takes this worker for one of them.
    let others = site.signals.heartbeats.workers(connection).map(|workers| workers.saturating_sub(1));
    Ok(consumers.max(others).map(|workers| workers > 0))
}

/// What was found of a queue; `None`: there is no such queue.
async fn answered_or_gone(
    looking: impl Future<Output = lapin::Result<lapin::Queue>>,
) -> Result<Option<lapin::Queue>, String> {
    match timeout(ANSWER_MAX, looking).await {
        Ok(Ok(queue)) => Ok(Some(queue)),
        Ok(Err(error)) if is_gone(&error) => Ok(None),
        Ok(Err(error)) => Err(explain(&error)),
        Err(_) => Err(SILENT.to_owned()),
    }
}

/// Waits until a consumer of a queue without messages has ended.
async fn ended(mut consumer: Consumer) {
    while let Some(Ok(_)) = consumer.next().await {}
}
