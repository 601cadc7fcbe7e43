//! The number of workers that serve a connection, this one included.
//!
//! There are two sources, and the larger count applies. RabbitMQ counts the consumers of the presence queue, which
//! every release of the worker uses, and a consumer ends with its connection; but a classic queue is unavailable while
//! its node is down. Workers of this release also send each other heartbeats. (A quorum queue would survive the loss of
//! a node, but would count the consumers connected to that node until it is back: measured on 3.10.8.) A source that
//! does not answer is ignored. If none answers, the last count stays valid, so no worker stops because of it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use lapin::options::{BasicCancelOptions, BasicConsumeOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Connection, Consumer};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::budget::gossip::Census;
use crate::domain::ids::{ConnectionName, Lane};
use crate::domain::topology::{Topology, presence_queue, work_queue};
use crate::event::{Event, Observer};
use crate::worker::ports::{Inbox, Ready};

use super::restoring::Restoring;
use super::served::Served;
use super::signals::Signals;
use super::site::Site;
use crate::rabbit::client::connect::{RECONNECT, explain};
use crate::rabbit::client::declare::{declare, is_gone, look};
use crate::rabbit::client::error::SessionEnd;

/// The average interval between counts of a connection's workers. A count takes a few calls of less than a millisecond;
/// a new worker uses few slots until it has counted three times.
const COUNT_EVERY: Duration = Duration::from_secs(2);

/// The relative jitter of a wait, so that workers started together do not count at the same moments.
const JITTER: f64 = 0.2;

/// The timeout for an answer of the broker: as long as for a confirm, because the same busy broker answers both.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// The longest time for which serving waits for the first count. In a cluster just after a partition, a passive declare
/// of a classic queue took 64 s.
pub(in crate::rabbit) const FIRST_COUNT_MAX: Duration = Duration::from_secs(5);

/// The timeout for leaving the presence queue. The broker also notices the end of the connection.
const LEAVE_MAX: Duration = Duration::from_secs(5);

/// The longest time for which a work queue may have no leader, as seen from this node. Within 250 ms, RabbitMQ then
/// answers that the queue has no consumers, not even this worker; an election takes 0.2 s, or 6 s if the old leader is
/// only partitioned off.
const LEADERLESS_MAX: Duration = Duration::from_secs(15);

/// The number of consecutive failures to query a work queue after which the generation ends: until then, a consumer may
/// declare a deleted queue again.
const FAILURES_MAX: u32 = 5;

/// The count from the presence queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Count {
    /// No count yet.
    NotYet,
    /// The queue cannot be queried.
    Unknown,
    /// The number of consumers.
    Workers(u32),
}

/// One worker's presence on one connection, while it is kept.
pub(in crate::rabbit) struct Presence {
    connection: ConnectionName,
    roster: Served,
    signals: Arc<Signals>,
    /// The receiver of the numbers of waiting messages.
    inbox: Arc<dyn Inbox>,
    amqp: Arc<Connection>,
    /// The channel for querying the work queues.
    work: Channel,
    restoring: Arc<Restoring>,
    counted: watch::Receiver<Count>,
    leaving: CancellationToken,
    queue: JoinSet<()>,
    /// The time since which the interactive queue has had no leader.
    leaderless: Option<Instant>,
}

impl Presence {
    /// Joins the counted workers and counts for the first time; waits for answers no longer than `until`.
    ///
    /// # Errors
    /// If the AMQP connection fails.
    pub async fn announce(
        site: &Site,
        connection: &ConnectionName,
        until: Instant,
    ) -> Result<Self, SessionEnd> {
        let work = site.connection.create_channel().await.map_err(SessionEnd::unreachable)?;
        let (counts, mut counted) = watch::channel(Count::NotYet);
        let leaving = CancellationToken::new();
        let queue = PresenceQueue {
            amqp: Arc::clone(&site.connection),
            connection: connection.clone(),
            passive: site.passive,
            observer: Arc::clone(&site.observer),
            counts,
            leaving: leaving.clone(),
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
        announced.count().await.map_err(SessionEnd::unreachable)?;
        Ok(announced)
    }

    /// Counts repeatedly, until a work queue cannot be queried or, before `halt`, has no leader.
    pub async fn keep(&mut self, halt: &CancellationToken) -> SessionEnd {
        let mut failures = 0;
        loop {
            // A changed connection has a new gossip, which has no count yet.
            let _ = timeout(next_count_in(), self.roster.changed()).await;
            match timeout(ANSWER_MAX, self.count()).await {
                Ok(Ok(())) => failures = 0,
                Ok(Err(_)) => failures += 1,
                Err(_) => return SessionEnd::Lost("the broker does not answer"),
            }
            if failures >= FAILURES_MAX {
                return SessionEnd::Lost("a work queue cannot be queried");
            }
            let is_leaderless = self.leaderless.is_some_and(|since| since.elapsed() > LEADERLESS_MAX);
            if is_leaderless && !halt.is_cancelled() {
                return SessionEnd::Lost("a work queue has no leader that this node of the broker can reach");
            }
        }
    }

    /// Leaves the counted workers.
    pub async fn leave(mut self) {
        self.leaving.cancel();
        self.signals.heartbeats.leave(&self.connection);
        self.signals.beat(false).await;
        let _ = timeout(LEAVE_MAX, self.queue.join_next()).await;
    }

    async fn count(&mut self) -> lapin::Result<()> {
        // A connection that is no longer served here is counted by other workers only.
        let Some(gossip) = self.roster.gossip(self.connection.as_str()) else { return Ok(()) };
        let [interactive, bulk] = [self.look(Lane::Interactive).await?, self.look(Lane::Bulk).await?];
        // This worker is a consumer itself, so zero means that there is no leader.
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
            self.work = self.amqp.create_channel().await?; // the last query was refused
        }
        let queue = work_queue(&self.connection, lane);
        let queried = look(&self.work, &queue).await?;
        self.restoring.waiting.seen(queue, queried.message_count());
        Ok(queried)
    }

    /// Returns the larger of the two counts; `None` if neither is known.
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

/// The presence queue of a connection, consumed by this worker whenever possible. It never holds a message.
struct PresenceQueue {
    amqp: Arc<Connection>,
    connection: ConnectionName,
    passive: bool,
    observer: Arc<dyn Observer>,
    counts: watch::Sender<Count>,
    leaving: CancellationToken,
}

impl PresenceQueue {
    /// Stays counted until this worker leaves; retries after a failure.
    async fn keep(mut self) {
        let (mut failures, mut is_reported) = (0, false);
        while let Err(why) = self.consume().await {
            let was_counted = matches!(*self.counts.borrow(), Count::Workers(_));
            self.counts.send_replace(Count::Unknown);
            if was_counted {
                (failures, is_reported) = (0, false);
            }
            // If the connection is gone, other code reports that.
            if !is_reported && self.amqp.status().connected() {
                self.observer.note(&Event::Uncounted { connection: &self.connection, why: &why });
                is_reported = true;
            }
            failures += 1;
            tokio::select! {
                () = sleep(RECONNECT.wait(failures, fastrand::f64())) => {}
                () = self.leaving.cancelled() => return,
            }
        }
    }

    /// Consumes the queue and counts its consumers until this worker leaves.
    ///
    /// # Errors
    /// A description of the failure.
    async fn consume(&mut self) -> Result<(), String> {
        let channel = answered(self.amqp.create_channel()).await?;
        let topology = Topology::presence(&self.connection);
        let declared = declare(&channel, &topology, self.passive);
        let declared = timeout(ANSWER_MAX, declared).await.map_err(|_| NO_ANSWER.to_owned())?;
        declared.map_err(|undeclared| undeclared.to_string())?;
        // With `no_ack`, a message that somebody publishes there is dropped on delivery.
        let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
        let (queue, tag) = (presence_queue(&self.connection), ShortString::default());
        let consuming = channel.basic_consume(queue.as_str().into(), tag, options, FieldTable::default());
        let consumer = answered(consuming).await?;
        let gone = ended(consumer.clone());
        tokio::pin!(gone);
        loop {
            let queried = answered(look(&channel, &queue)).await?;
            self.counts.send_replace(match queried.consumer_count() {
                0 => Count::Unknown, // this worker is a consumer itself
                consumers => Count::Workers(consumers),
            });
            tokio::select! {
                () = &mut gone => return Err(format!("`{queue}` was deleted, or its node is down")),
                () = sleep(next_count_in()) => {}
                () = self.leaving.cancelled() => {
                    let cancelled = channel.basic_cancel(consumer.tag(), BasicCancelOptions::default());
                    return answered(cancelled).await;
                }
            }
        }
    }
}

/// The error text for a broker that does not answer.
const NO_ANSWER: &str = "the broker does not answer";

/// Waits for an answer of the broker, and converts a failure to text.
async fn answered<T>(asked: impl Future<Output = lapin::Result<T>>) -> Result<T, String> {
    match timeout(ANSWER_MAX, asked).await {
        Ok(answer) => answer.map_err(|error| explain(&error)),
        Err(_) => Err(NO_ANSWER.to_owned()),
    }
}

/// Returns the wait before the next count.
fn next_count_in() -> Duration {
    COUNT_EVERY.mul_f64(1.0 - JITTER + 2.0 * JITTER * fastrand::f64())
}

/// Returns true if any other worker serves a connection that this one does not; `None` if neither source answers.
///
/// # Errors
/// If the AMQP connection fails.
pub(in crate::rabbit) async fn is_served(
    site: &Site,
    connection: &ConnectionName,
) -> Result<Option<bool>, SessionEnd> {
    let channel = site.connection.create_channel().await.map_err(SessionEnd::unreachable)?; // a refusal closes it
    let consumers = match answered_or_gone(look(&channel, &presence_queue(connection))).await {
        Ok(found) => Some(found.map_or(0, |queue| queue.consumer_count())),
        Err(_) => None,
    };
    // The heartbeat count includes this worker.
    let others = site.signals.heartbeats.workers(connection).map(|workers| workers.saturating_sub(1));
    Ok(consumers.max(others).map(|workers| workers > 0))
}

/// Returns the state of a queue; `None` if there is no such queue.
async fn answered_or_gone(
    looking: impl Future<Output = lapin::Result<lapin::Queue>>,
) -> Result<Option<lapin::Queue>, String> {
    match timeout(ANSWER_MAX, looking).await {
        Ok(Ok(queue)) => Ok(Some(queue)),
        Ok(Err(error)) if is_gone(&error) => Ok(None),
        Ok(Err(error)) => Err(explain(&error)),
        Err(_) => Err(NO_ANSWER.to_owned()),
    }
}

/// Waits until the consumer of a queue without messages has ended.
async fn ended(mut consumer: Consumer) {
    while let Some(Ok(_)) = consumer.next().await {}
}
