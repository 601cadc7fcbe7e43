//! The rate-limit gate before Okta: admits requests, for all lanes and buckets of one connection.
//!
//! A request waits at its bucket gate, in its lane. Only the head of a lane asks, interactive before bulk: for a slot,
//! then for room in the bucket's ledger, then at the ceilings. A request takes its slot and counts in the ledger when
//! it is admitted, so a waiting request holds nothing. Invariant: the requests that one worker admits, plus those in
//! the signals of others, never exceed the announced limit, and at most half of the prefetch waits for one bucket.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::pure::constants::CONCURRENT_MAX;
use super::pure::ledger::Backlog;
use super::pure::signal::Signal;
use super::pure::slots::Slots;
use super::pure::window::{NotUntil, Observation, Observed, QuotaShare};
use crate::domain::bucket::Bucket;
use crate::domain::ids::{ConnectionName, Lane};

use super::gossip::{Census, Gossip};
use super::permit::{Account, Ask, Budget, NotNow, Permit, Ticket, WhenBusy};
use crate::event::{Event, Observer};

pub use super::callers::CallerCeilings;

use super::bucket_gate::{Admission, BucketGate, has_moved};
use super::bucket_gates::{BucketGates, SettledAnswer};
use super::callers::{Leaving, WaitingGuard, fail_if_too_late};
use super::connection_queue::ConnectionQueue;
use super::non_idempotent::NonIdempotentSlots;

/// The longest time for which the head of a lane sleeps before it asks again without a notification.
const RECHECK_EVERY: Duration = Duration::from_secs(1);

/// Default prefetch per lane.
const PREFETCH: usize = 32;

/// The most delayed messages of a lane, as a multiple of the prefetch: enough to reach messages of other buckets behind
/// those of an exhausted bucket, and few enough that a backlog stays in its queue.
const DELAYED_PER_PREFETCH: usize = 2;

/// The longest time without gossip, even if nothing is new.
const GOSSIP_EVERY: Duration = Duration::from_secs(5);

/// Settings of one rate-limit gate.
#[derive(Clone)]
pub struct GateSettings {
    /// The connection.
    pub connection: ConnectionName,
    /// The share of each window that is used.
    pub share: QuotaShare,
    /// The most concurrent requests of all workers together.
    pub concurrent_max: u32,
    /// The prefetch per lane.
    pub prefetch: usize,
    /// The configured ceiling, if any, in requests per minute of all workers together.
    pub max_per_minute: Option<u32>,
    /// The ceilings of callers.
    pub callers: Arc<CallerCeilings>,
}

impl GateSettings {
    /// Creates the default settings.
    pub fn new(connection: ConnectionName, share: QuotaShare) -> Self {
        Self {
            connection,
            share,
            concurrent_max: CONCURRENT_MAX,
            prefetch: PREFETCH,
            max_per_minute: None,
            callers: CallerCeilings::new([]),
        }
    }
}

/// The rate-limit gate of one connection.
pub struct Gate {
    settings: GateSettings,
    gates: BucketGates,
    slots: Mutex<Slots>,
    /// A notification that a slot is free again.
    freed: Notify,
    queue: ConnectionQueue,
    /// Slots in each lane for requests that send e-mail or create one-time secrets.
    non_idempotent: [NonIdempotentSlots; Lane::ALL.len()],
    backlog: Mutex<BrokerBacklog>,
    admitted: AtomicU64,
    /// A notification that there is news for the replicas.
    news: Notify,
    observer: Arc<dyn Observer>,
}

/// The work that waits in the broker, as far as is known.
#[derive(Debug, Clone, Copy)]
struct BrokerBacklog {
    census: Census,
    at: Option<Instant>,
    /// The number of requests admitted up to that time.
    admitted: u64,
    /// The time since when so many messages are in hand that the queue may not be empty.
    full_since: Option<Instant>,
    /// Requests per invocation, as a fading mean.
    calls: f64,
}

/// The reason that the head of a lane may not go.
enum HeadBlocked {
    /// No slot is free.
    Slots(NotUntil),
    /// The bucket or a ceiling admits no request.
    Bucket(NotUntil),
    /// An interactive request waits, which goes first.
    Yields,
    /// The route has been moved to another bucket gate.
    Moved,
}

impl Gate {
    /// Creates the gate of a connection with these settings, without any knowledge of replicas.
    pub fn new(settings: GateSettings, observer: Arc<dyn Observer>) -> Arc<Self> {
        let worker = fastrand::u32(..);
        Arc::new(Self {
            gates: BucketGates::new(settings.share, worker),
            slots: Mutex::new(Slots::new(settings.concurrent_max)),
            freed: Notify::new(),
            queue: ConnectionQueue::new(settings.prefetch, settings.max_per_minute),
            non_idempotent: Default::default(),
            backlog: Mutex::new(BrokerBacklog {
                census: Census { workers: 1, queued: 0 },
                at: None,
                admitted: 0,
                full_since: None,
                calls: 1.0,
            }),
            admitted: AtomicU64::new(0),
            news: Notify::new(),
            settings,
            observer,
        })
    }

    /// Returns the broker's last census.
    pub fn census(&self) -> Census {
        self.backlog.lock().unwrap_or_else(PoisonError::into_inner).census
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the caller's ceiling, for a non-idempotent slot if necessary, at the bucket gate, and for a slot.
    async fn acquire(&self, ask: &Ask<'_>) -> Result<Ticket, NotNow> {
        let route = self.gates.route(ask.method, ask.route);
        if let Some(caller) = ask.caller.and_then(|name| self.settings.callers.of(name)) {
            // A request that will be refused must not count against its caller's ceiling.
            let gate = self.gates.of(route);
            self.check_length(gate, ask)?;
            fail_if_too_late(Some(self.queue.not_before(gate)), ask.not_after)?;
            caller.admit(ask, self.queue.waiting_max).await?;
        }
        let non_idempotent = match ask.emits {
            true => Some(
                self.non_idempotent[ask.lane as usize].enter(ask, self.gates.of(route), &self.queue).await?,
            ),
            false => None,
        };
        while !self.pass(route, ask).await? {} // an answer may have moved the route meanwhile
        if let Some(slot) = non_idempotent {
            slot.forget(); // `settle` releases it
        }
        Ok(Ticket { route, lane: ask.lane, emits: ask.emits })
    }

    /// Returns the result of a request that has waited for as long as it may.
    fn timed_out(&self, ask: &Ask<'_>) -> NotNow {
        if ask.not_after.is_some_and(|not_after| ask.leave_at.is_none_or(|leave_at| not_after <= leave_at)) {
            return NotNow::Passed;
        }
        let gate = self.gates.of(self.gates.route(ask.method, ask.route));
        NotNow::Delay(gate.delay(ask.lane).unwrap_or_default())
    }

    /// Refuses a request, so that its message is delayed, if enough requests wait at the bucket gate.
    fn check_length(&self, gate: &BucketGate, ask: &Ask<'_>) -> Result<(), NotNow> {
        if ask.when_busy == WhenBusy::Delay
            && gate.waiting(ask.lane).load(Ordering::Relaxed) >= self.queue.waiting_max
            && let Some(wait) = gate.delay(ask.lane)
        {
            return Err(NotNow::Delay(wait));
        }
        Ok(())
    }

    /// Waits at the route's current bucket gate; returns false if the route moves to another one before its turn.
    async fn pass(&self, route: usize, ask: &Ask<'_>) -> Result<bool, NotNow> {
        let gate = self.gates.of(route);
        if !gate.is_waited_for() && self.ask(gate, route, ask.lane).is_ok() {
            return Ok(true);
        }
        self.check_length(gate, ask)?;
        self.wait(gate, route, ask).await
    }

    /// Waits for the turn in the lane and then for the budget, unless that is too late; returns false if the route
    /// has another bucket gate by now.
    async fn wait(&self, gate: &BucketGate, route: usize, ask: &Ask<'_>) -> Result<bool, NotNow> {
        let _leaving = Leaving(&gate.changed);
        let _waiting = WaitingGuard::new(gate.waiting(ask.lane));
        let _counted = (ask.lane == Lane::Bulk).then(|| WaitingGuard::new(&self.queue.bulk_waiting));
        let turn = gate.turn(ask.lane).acquire();
        tokio::pin!(turn);
        let _turn = loop {
            let exhausted = gate.exhausted.notified();
            if has_moved(self.gates.place(route), gate) {
                return Ok(false);
            }
            fail_if_too_late(Some(self.queue.not_before(gate)), ask.not_after)?;
            tokio::select! {
                biased;
                turn = &mut turn => break turn.expect("the semaphore is never closed"),
                () = exhausted => {}
            }
        };
        loop {
            let (changed, freed) = (gate.changed.notified(), self.freed.notified());
            let blocked = match self.head_asks(gate, route, ask.lane) {
                Ok(()) => return Ok(true),
                Err(HeadBlocked::Moved) => return Ok(false),
                Err(blocked) => blocked,
            };
            fail_if_too_late(Some(self.queue.not_before(gate)), ask.not_after)?;
            let (until, is_slot) = match blocked {
                HeadBlocked::Slots(until) => (until, true),
                HeadBlocked::Bucket(until) => (until, false),
                HeadBlocked::Yields | HeadBlocked::Moved => (NotUntil::NextAnswer, false),
            };
            let recheck_at = Instant::now() + RECHECK_EVERY;
            let wake_at = match until {
                NotUntil::At(until) => Instant::from_std(until).min(recheck_at),
                NotUntil::NextAnswer => recheck_at,
            };
            tokio::select! {
                () = sleep_until(wake_at) => {}
                () = changed => {}
                () = freed, if is_slot => {}
            }
        }
    }

    /// Asks on behalf of the head of a lane; bulk requests yield to waiting interactive ones.
    fn head_asks(&self, gate: &BucketGate, route: usize, lane: Lane) -> Result<(), HeadBlocked> {
        if lane == Lane::Bulk && gate.waiting(Lane::Interactive).load(Ordering::Relaxed) > 0 {
            let moved = has_moved(self.gates.place(route), gate);
            return Err(if moved { HeadBlocked::Moved } else { HeadBlocked::Yields });
        }
        self.ask(gate, route, lane)
    }

    /// Asks for a slot, the ledger and the ceilings once.
    fn ask(&self, gate: &BucketGate, route: usize, lane: Lane) -> Result<(), HeadBlocked> {
        let now = Instant::now();
        let mut slots = self.slots();
        slots.check(now.into_std(), lane).map_err(HeadBlocked::Slots)?;
        let backlog = self.backlog(gate, &slots, now);
        let mut own = self.queue.own();
        let was_full = own.as_ref().and_then(|own| own.full_until());
        let place = (route, self.gates.place(route));
        let asked = gate.ask(place, lane, backlog, own.as_deref_mut());
        let is_full = own.as_ref().and_then(|own| own.full_until());
        drop(own);
        if is_full > was_full {
            gate.exhausted.notify_waiters();
        }
        let Some((asked, turn)) = asked else { return Err(HeadBlocked::Moved) };
        if asked.is_ok() {
            slots.take(lane);
        }
        drop(slots);
        match turn {
            Admission::Unchanged => {}
            Admission::Exhausted(until) => {
                gate.exhausted.notify_waiters();
                let wait = until.saturating_duration_since(now);
                self.note(&Event::BucketExhausted {
                    connection: &self.settings.connection,
                    bucket: gate.bucket,
                    wait,
                });
            }
            Admission::Recovered => self.note_recovered(gate.bucket),
        }
        if asked.is_ok() {
            self.news.notify_one();
        }
        if asked.is_ok() && lane == Lane::Bulk {
            self.admitted.fetch_add(1, Ordering::Relaxed);
        }
        asked.map_err(HeadBlocked::Bucket)
    }

    /// Returns the bulk requests known to wait for a bucket, in all workers.
    ///
    /// While few messages are in hand, the queue is empty. While many are in hand, only the broker's count shows the
    /// length of the queue, if the count was taken since then and its messages are not used up.
    fn backlog(&self, gate: &BucketGate, slots: &Slots, now: Instant) -> Backlog {
        let mut counted = self.backlog.lock().unwrap_or_else(PoisonError::into_inner);
        let workers = u64::from(counted.census.workers);
        let waiting = gate.waiting(Lane::Bulk).load(Ordering::Relaxed) as u64 + 1;
        let here = waiting + gate.expected_back();
        let in_hand = self.queue.bulk_waiting.load(Ordering::Relaxed) + slots.busy(Lane::Bulk) as usize;
        let queued = if in_hand < self.queue.waiting_max {
            counted.full_since = None;
            0
        } else {
            let since = *counted.full_since.get_or_insert(now);
            let used = (self.admitted.load(Ordering::Relaxed) - counted.admitted) * workers;
            if counted.at.is_none_or(|at| at <= since) || used > counted.census.queued {
                return None;
            }
            counted.census.queued
        };
        // An invocation in flight will send the rest of its usual number of requests.
        let begun = (u64::from(slots.busy(Lane::Bulk)) * workers) as f64 * (counted.calls - 1.0);
        Some(((queued + here * workers) as f64 * counted.calls + begun).ceil() as u64)
    }

    fn note_recovered(&self, bucket: Bucket) {
        self.note(&Event::BucketRecovered { connection: &self.settings.connection, bucket });
    }

    fn note(&self, event: &Event<'_>) {
        self.observer.note(event);
    }
}

#[async_trait]
impl Budget for Arc<Gate> {
    async fn admit(&self, ask: Ask<'_>) -> Result<Permit, NotNow> {
        if ask.not_after.is_some_and(|at| at <= Instant::now()) {
            return Err(NotNow::Passed);
        }
        let acquire = self.acquire(&ask);
        let ticket = match ask.not_after.into_iter().chain(ask.leave_at).min() {
            None => acquire.await?,
            Some(at) => timeout_at(at, acquire).await.unwrap_or_else(|_| Err(self.timed_out(&ask)))?,
        };
        Ok(Permit::new(Arc::<Gate>::clone(self), ticket))
    }

    fn workers(&self) -> u32 {
        self.census().workers
    }

    fn delayed_max(&self) -> usize {
        self.settings.prefetch.saturating_mul(DELAYED_PER_PREFETCH)
    }

    fn concluded(&self, lane: Lane, requests: u32) {
        /// The number of invocations over which the mean fades.
        const MEMORY: f64 = 32.0;
        if lane == Lane::Bulk && requests > 0 {
            let mut counted = self.backlog.lock().unwrap_or_else(PoisonError::into_inner);
            counted.calls += (f64::from(requests) - counted.calls) / MEMORY;
        }
    }
}

impl Account for Gate {
    fn settle(&self, ticket: Ticket, heard: Observed) {
        let SettledAnswer { bucket, lowered, gone } = self.gates.settle(ticket.route, heard);
        {
            let mut slots = self.slots();
            slots.release(ticket.lane);
            if heard.told == Observation::Crowded {
                slots.shrink(heard.at, fastrand::f64());
            }
        }
        if ticket.emits {
            self.non_idempotent[ticket.lane as usize].leave();
        }
        self.freed.notify_waiters();
        self.news.notify_one();
        if let Some(gone) = gone {
            self.note_recovered(gone);
        }
        if let Some(lowered) = lowered {
            let connection = &self.settings.connection;
            let (from, to) = (lowered.from, lowered.to);
            self.note(&Event::LimitLowered { connection, bucket, from, to });
        }
    }
}

#[async_trait]
impl Gossip for Gate {
    async fn news(&self) {
        tokio::select! {
            () = self.news.notified() => {}
            () = sleep(GOSSIP_EVERY) => {}
        }
    }

    fn tell(&self) -> Vec<Signal> {
        self.gates.in_use().filter_map(BucketGate::tell).collect()
    }

    fn hear(&self, signal: &Signal) {
        if let Some(gate) = self.gates.in_use().find(|gate| gate.name() == signal.ledger) {
            gate.hear(signal);
        }
    }

    fn counted(&self, census: Census) {
        let census = Census { workers: census.workers.max(1), ..census };
        {
            let mut counted = self.backlog.lock().unwrap_or_else(PoisonError::into_inner);
            counted.census = census;
            counted.at = Some(Instant::now());
            counted.admitted = self.admitted.load(Ordering::Relaxed);
        }
        let workers = census.workers;
        self.slots().count(workers);
        self.settings.callers.count(workers);
        self.gates.count(workers);
        if let Some(mut own) = self.queue.own() {
            own.count(workers);
        }
    }
}
