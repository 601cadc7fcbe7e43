//! The state of each lane in this worker: the order of subjects, the delayed messages, and the age of the oldest.
//!
//! The state outlives the settings of a connection. Invariant: the number of messages that this worker has delayed is
//! bounded; messages beyond the bound stay in hand, and later ones in their queue, where RabbitMQ counts them.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use uuid::Uuid;

use crate::domain::ids::{ConnectionName, Lane};
use crate::domain::message::HeaderValue;
use crate::tools::subject::Subject;

use super::order::{ExpectedReturn, Order, Place, SubjectAccess};

/// The header of a copy with its number in the order of the worker that has delayed it.
pub(super) const ORDER: &str = "okta-order";

/// All lanes from which messages came.
pub(super) struct Lanes {
    /// The random number that distinguishes this worker's order numbers from those of its replicas.
    worker: u64,
    /// The longest time for which the broker leaves a message in hand, in milliseconds, once that is known.
    hold_max_ms: AtomicU64,
    lanes: Mutex<HashMap<ConnectionName, [Arc<LaneWork>; Lane::ALL.len()]>>,
}

impl Default for Lanes {
    fn default() -> Self {
        Self {
            worker: Uuid::new_v4().as_u64_pair().0,
            hold_max_ms: AtomicU64::new(u64::MAX),
            lanes: Mutex::default(),
        }
    }
}

impl Lanes {
    /// Returns the state of a lane.
    pub fn of(&self, connection: &ConnectionName, lane: Lane) -> Arc<LaneWork> {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(of_connection) = lanes.get(connection) {
            return Arc::clone(&of_connection[lane as usize]);
        }
        let of_connection: [Arc<LaneWork>; Lane::ALL.len()] = Default::default();
        let found = Arc::clone(&of_connection[lane as usize]);
        lanes.insert(connection.clone(), of_connection);
        found
    }

    /// Notes that the broker takes back a message that is in hand for longer than this.
    pub fn hold_at_most(&self, most: Duration) {
        let most = u64::try_from(most.as_millis()).unwrap_or(u64::MAX);
        self.hold_max_ms.fetch_min(most, Ordering::Relaxed);
    }

    /// Returns the longest time for which the broker leaves a message in hand, as far as is known.
    pub fn hold_max(&self) -> Duration {
        Duration::from_millis(self.hold_max_ms.load(Ordering::Relaxed))
    }

    /// Returns the value of [`ORDER`] for a number.
    pub fn header(&self, number: u64) -> HeaderValue {
        HeaderValue::Text(format!("{:x}.{number}", self.worker))
    }

    /// Returns the number in a value of [`ORDER`], if this worker has written it.
    pub fn number(&self, header: &HeaderValue) -> Option<u64> {
        let (worker, number) = header.as_text()?.split_once('.')?;
        (u64::from_str_radix(worker, 16) == Ok(self.worker)).then(|| number.parse().ok())?
    }
}

/// The state of one lane in this worker.
#[derive(Default)]
pub(super) struct LaneWork {
    order: Arc<Order>,
    state: Mutex<LaneState>,
    /// A notification that there may be room for one more delayed message.
    freed: Notify,
}

#[derive(Default)]
struct LaneState {
    /// The number of messages in hand, by the time at which they were first sent.
    in_hand: BTreeMap<Timestamp, u32>,
    /// The times at which delayed messages were first sent, by the moment of their return.
    delayed: BTreeMap<Instant, Vec<Timestamp>>,
    /// The room reserved for messages that are about to be delayed.
    reserved: usize,
    /// The sending time of the youngest message taken from the queue.
    last_sent: Option<Timestamp>,
    /// The time at which the queue was last seen empty.
    empty_at: Option<Timestamp>,
}

/// The messages of a lane that wait outside this worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LaneBacklog {
    /// Messages that this worker has delayed and that are not back.
    pub delayed: usize,
    /// The time at which the oldest known message was first sent.
    pub oldest: Option<Timestamp>,
}

impl LaneWork {
    fn state(&self) -> MutexGuard<'_, LaneState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records a delivery. Must be called in the order of delivery, for invocations with a subject.
    pub fn enter(
        self: &Arc<Self>,
        first_sent: Timestamp,
        subject: Option<(Subject, SubjectAccess)>,
        came_back: Option<u64>,
    ) -> InLane {
        {
            let mut state = self.state();
            *state.in_hand.entry(first_sent).or_default() += 1;
            state.last_sent = state.last_sent.max(Some(first_sent));
        }
        let place = subject.map(|(subject, access)| self.order.enter(subject, access, came_back));
        InLane { lane: Arc::clone(self), first_sent, place, since: Instant::now() }
    }

    /// Returns true if one more message may be delayed.
    pub fn has_room(&self, most: usize) -> bool {
        self.state().is_below(most, Instant::now())
    }

    /// Reserves room for one more delayed message, if there is any.
    pub fn reserve(&self, most: usize) -> Option<Reserved<'_>> {
        let mut state = self.state();
        state.is_below(most, Instant::now()).then(|| {
            state.reserved += 1;
            Reserved(self)
        })
    }

    /// Waits for room for one more delayed message. Delayed messages come back by themselves.
    pub async fn room(&self, most: usize) -> Reserved<'_> {
        loop {
            let freed = self.freed.notified();
            if let Some(reserved) = self.reserve(most) {
                return reserved;
            }
            let next = self.state().delayed.first_key_value().map(|(at, _)| *at);
            match next {
                Some(next) => tokio::select! {
                    () = freed => {}
                    () = sleep_until(next) => {}
                },
                None => freed.await,
            }
        }
    }

    /// Returns the backlog, given this many messages in the queue at this time.
    pub fn waiting(&self, ready: u64, now: Timestamp) -> LaneBacklog {
        let mut state = self.state();
        state.forget_returned(Instant::now());
        if ready == 0 {
            state.empty_at = Some(now);
        } else if state.empty_at.is_none() && state.last_sent.is_none() {
            state.empty_at = Some(now); // the time before is unknown
        }
        // Messages in the queue were sent after all that were taken from it.
        let in_queue = state.last_sent.max(state.empty_at).filter(|_| ready > 0);
        let in_hand = state.in_hand.keys().next().copied();
        let delayed = state.delayed.values().flatten().min().copied();
        let oldest = in_queue.into_iter().chain(in_hand).chain(delayed).min();
        LaneBacklog { delayed: state.delayed_count(), oldest }
    }
}

impl LaneState {
    fn delayed_count(&self) -> usize {
        self.delayed.values().map(Vec::len).sum()
    }

    fn is_below(&mut self, most: usize, now: Instant) -> bool {
        self.forget_returned(now);
        self.delayed_count() + self.reserved < most
    }

    /// Forgets the delayed messages that are in their queue again.
    fn forget_returned(&mut self, now: Instant) {
        while let Some(entry) = self.delayed.first_entry().filter(|entry| *entry.key() <= now) {
            entry.remove();
        }
    }
}

/// Reserved room for one more delayed message, until its delay is decided.
pub(super) struct Reserved<'a>(&'a LaneWork);

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        self.0.state().reserved -= 1;
        self.0.freed.notify_waiters();
    }
}

/// A message of a lane, while it is in hand.
pub(super) struct InLane {
    pub lane: Arc<LaneWork>,
    first_sent: Timestamp,
    place: Option<Place>,
    /// The moment from which on the message is in hand.
    pub since: Instant,
}

impl InLane {
    /// Returns the message's place in the order, if it has a subject.
    pub fn place(&self) -> Option<&Place> {
        self.place.as_ref()
    }

    /// Records that a copy of the message comes back after this time, to a queue that this many workers consume.
    pub fn delayed(&self, tier: Duration, workers: u32) {
        let back = ExpectedReturn::after(tier, workers);
        if !tier.is_zero() {
            self.lane.state().delayed.entry(back.at()).or_default().push(self.first_sent);
        }
        if let Some(place) = &self.place {
            place.delayed(back);
        }
    }
}

impl Drop for InLane {
    fn drop(&mut self) {
        let mut state = self.lane.state();
        if let Some(count) = state.in_hand.get_mut(&self.first_sent) {
            *count -= 1;
            if *count == 0 {
                state.in_hand.remove(&self.first_sent);
            }
        }
    }
}
