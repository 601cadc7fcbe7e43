//! The worker: processes one message, from its queue to its answer.
//!
//! [`Worker::take`] does all of it: it parses the message, checks it, executes it against Okta, answers, acknowledges.
//! Invariant (at-least-once): at every moment the invocation, a copy of it or its answer is in the broker, because
//! copy and answer are confirmed before the delivery is acknowledged.

mod admission;
pub(crate) mod respond;
pub(crate) mod delay;
mod cancel;
pub mod clock;
mod connection;
mod execution;
pub(crate) mod history;
mod recent_creations;
mod given_up;
pub mod failpoint;
mod lanes;
mod context;
mod dedup;
mod okta_time;
mod order;
mod outcome;
mod parking;
pub mod ports;
mod probe;
mod progress;
pub mod breaker;
mod rules;
mod shares;
mod turn;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::sync::{SemaphorePermit, watch};
use tokio::time::Instant;

use crate::domain::ids::{ConnectionName, Lane};
use crate::domain::message::{CANCEL, Delivery, Receipt, Source};

use crate::event::{Event, Observer, ParkReason};
use crate::worker::cancel::{Cancelled, Mark, Notice};
use crate::worker::context::MessageContext;
use crate::worker::dedup::{Dedup, DedupKey};
use crate::worker::delay::{Carried, Delay, Delayed};
use crate::worker::failpoint::{Point, reached};
use crate::worker::respond::Responder;
pub use admission::check_body;
use admission::{Invocation, Parsed};
pub use connection::Connection;
use execution::{Execution, ExecutionContext, Verdict};
use lanes::{InLane, LaneBacklog, Lanes};
use okta_time::Moment;
use outcome::{Conclusion, Disposition, InvocationFacts, a_bug, cancelled};
use parking::Parking;
use ports::{Inbox, Outbox, Ready};
use progress::Progress;
pub use rules::Rules;
use turn::leaves;

/// A worker that takes messages, executes their invocations and answers them.
pub struct Worker {
    rules: ArcSwap<Rules>,
    outbox: Arc<dyn Outbox>,
    observer: Arc<dyn Observer>,
    /// Results of recent invocations, for deduplication.
    dedup: Dedup,
    /// Cancelled invocations.
    cancelled: Cancelled,
    /// True if the worker has reported that a policy on the broker drops messages.
    is_drop_told: AtomicBool,
    /// The number of messages that each caller may still park.
    parking: Parking,
    /// The state of each lane.
    lanes: Lanes,
}

/// Random delays before a message that must run alone, because it may cause a crash loop. Messages delayed together
/// would come back together, and one that crashes the worker would cause a redelivery of the others each time.
const QUARANTINE: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(15)];

/// A message in processing.
#[derive(Clone, Copy)]
struct DeliveryContext<'a> {
    rules: &'a Rules,
    body: &'a Bytes,
    receipt: &'a dyn Receipt,
    responder: Responder<'a>,
    in_lane: Option<&'a InLane>,
}

/// A parsed delivery, with its place in the order of its lane.
struct Opened {
    rules: Arc<Rules>,
    message: MessageContext,
    body: Bytes,
    receipt: Box<dyn Receipt>,
    /// `None` if parsing has panicked, which is a bug of the worker.
    parsed: Option<(InvocationFacts, Parsed)>,
    in_lane: Option<InLane>,
    begun: Instant,
}

impl Worker {
    /// Creates a worker with these rules that answers through this outbox.
    pub fn new(rules: Rules, outbox: Arc<dyn Outbox>, observer: Arc<dyn Observer>) -> Self {
        let rules = ArcSwap::from_pointee(rules);
        let (dedup, cancelled, lanes) = (Dedup::default(), Cancelled::default(), Lanes::default());
        let (is_drop_told, parking) = (AtomicBool::new(false), Parking::default());
        Self { rules, outbox, observer, dedup, cancelled, is_drop_told, parking, lanes }
    }

    /// Sets the number of messages that `okta.dead` holds, and for how long.
    #[must_use]
    pub fn parking_in(self, dead_max: u32, dead_ttl: Duration) -> Self {
        Self { parking: Parking::in_queue(dead_max, dead_ttl), ..self }
    }

    /// Replaces the rules from now on. A message that was taken before is finished under the former rules.
    pub fn replace_rules(&self, rules: Rules) {
        self.rules.store(Arc::new(rules));
    }

    /// Checks and executes a message, and catches panics.
    async fn run(&self, parsed: Parsed, delivery: DeliveryContext<'_>) -> Disposition {
        let (rules, message) = (delivery.rules, delivery.responder.message);
        if message.source == Source::Undelivered {
            return self.give_up(message, &parsed);
        }
        if message.history.is_given_up() {
            return Disposition::crash_loop(parsed.effect_unless_read());
        }
        if message.properties.kind.as_deref() == Some(CANCEL) {
            let is_good = |mark: &Mark| message.check_origin().is_ok() && mark.is_permitted(&rules.callers);
            if let Some(mark) = Mark::of(message).filter(is_good) {
                let notice = if message.reply_to.is_some() { Notice::Answer } else { Notice::Nothing };
                self.cancelled.add(mark, notice, &*self.outbox, rules.own_user.as_deref()).await;
            }
            return Disposition::Dropped;
        }
        match &message.source {
            // The connection was removed while the message was on its way, and other workers may still serve it.
            Source::Work { connection, .. } if !rules.connections.contains_key(connection) => {
                return Disposition::Stale;
            }
            // The connection has come back: the workers that are counted on it serve its lanes.
            Source::Removed { connection, .. } if rules.connections.contains_key(connection) => {
                return Disposition::Stale;
            }
            Source::Work { .. } | Source::Removed { .. } | Source::Unrouted | Source::Undelivered => {}
        }
        if let Some(connection) = parsed.hangs_on_the_clock(message, rules) {
            probe::learn_time(&connection, &rules.clock, &self.observer).await;
        }
        // A message that cannot be parsed and names no `reply_to` is parked for inspection.
        let is_kept =
            parsed.envelope.is_err() && message.reply_to.is_none() && parsed.caller_may_use(message, rules);
        let effect = parsed.effect_before(&message.history);
        match catch_unwind(AssertUnwindSafe(|| parsed.judge(message, rules))) {
            Ok(Ok(invocation)) => match self.in_turn(&invocation, delivery).await {
                Ok(()) => self.once(&invocation, delivery).await,
                Err(ended) => ended,
            },
            Ok(Err(failure)) => {
                Disposition::refused(failure, effect, is_kept.then_some(ParkReason::Unreadable))
            }
            Err(_) => Disposition::crashed(effect),
        }
    }

    /// Executes an invocation, unless this worker has executed the same one within the deduplication window.
    async fn once(&self, invocation: &Invocation<'_>, delivery: DeliveryContext<'_>) -> Disposition {
        let Some(key) = DedupKey::of(invocation, delivery.body) else {
            return self.execute(invocation, delivery).await;
        };
        let is_same_message = invocation.message.history.may_have_run();
        let begun = tokio::select! {
            begun = self.dedup.begin(key, is_same_message) => begun,
            () = delivery.receipt.gone() => return Disposition::Stale,
        };
        match begun {
            Err(known) => Disposition::Deduplicated(known),
            Ok(running) => {
                let ended = self.execute(invocation, delivery).await;
                if let Disposition::Concluded(conclusion) = &ended {
                    running.ended(conclusion);
                }
                ended
            }
        }
    }

    /// Executes the invocation against Okta, or delays the message when too many wait for the same bucket.
    async fn execute(&self, invocation: &Invocation<'_>, delivery: DeliveryContext<'_>) -> Disposition {
        let progress = self.progress(invocation);
        let context = self.context(delivery, &progress);
        let aside = self.aside(invocation, delivery);
        let _alone = match self.alone(invocation, &aside, delivery.in_lane).await {
            Ok(alone) => alone,
            Err(ended) => return ended,
        };
        reached(Point::Judged, Some(&invocation.message.id)).await;
        let mut execution = Execution::new(invocation, context);
        let mut pages = 0;
        let (outcome, park) = loop {
            match AssertUnwindSafe(execution.run()).catch_unwind().await {
                Ok(Verdict::Outcome(outcome)) => break (outcome, None),
                Err(_) => break (execution.crashed(), Some(ParkReason::Internal)),
                Ok(Verdict::Stale) => return Disposition::Stale,
                Ok(Verdict::Cancelled(notice)) => {
                    self.note_cancelled(invocation);
                    match notice {
                        Notice::Nothing => return Disposition::Dropped,
                        Notice::Answer => break (cancelled(), None),
                    }
                }
                Ok(Verdict::Page(result)) => {
                    if delivery.responder.page(result, execution.cost(), pages).await.is_err() {
                        return Disposition::Stale;
                    }
                    pages += 1;
                }
                Ok(Verdict::HandBack) => match self.hand_back(&aside, &mut execution, delivery).await {
                    Some(ended) => return ended,
                    None => execution.stay(),
                },
                Ok(Verdict::Delay { bucket, wait }) => {
                    if let Some(ended) =
                        self.delay_for_budget(&aside, &mut execution, delivery, (bucket, wait)).await
                    {
                        return ended;
                    }
                }
            }
        };
        let cost = execution.cost();
        invocation.connection.budget.concluded(invocation.lane, cost.okta_calls);
        Disposition::Concluded(Conclusion { outcome, cost, park, pages })
    }

    fn progress<'a>(&'a self, invocation: &'a Invocation<'_>) -> Progress<'a> {
        Progress::new(
            &self.outbox,
            invocation.message,
            invocation.connection.name.as_str(),
            invocation.subtool,
        )
    }

    fn context<'a>(
        &'a self,
        delivery: DeliveryContext<'a>,
        progress: &'a Progress<'a>,
    ) -> ExecutionContext<'a> {
        let DeliveryContext { rules, receipt, in_lane, .. } = delivery;
        let (observer, cancelled, hold_max) = (&self.observer, &self.cancelled, self.lanes.hold_max());
        ExecutionContext { rules, observer, receipt, progress, cancelled, in_lane, hold_max }
    }

    fn aside<'a>(&'a self, invocation: &'a Invocation<'a>, delivery: DeliveryContext<'a>) -> Delay<'a> {
        let DeliveryContext { rules, body, receipt, in_lane, .. } = delivery;
        let place = in_lane.and_then(InLane::place);
        let order = place.map(|place| self.lanes.header(place.number()));
        Delay { invocation, body, receipt, rules, outbox: &*self.outbox, order }
    }

    /// Waits until no other suspect of a crash loop runs, if this message is one. It waits in a delay queue: every
    /// message in hand when a worker dies counts one more redelivery.
    async fn alone<'a>(
        &self,
        invocation: &'a Invocation<'_>,
        aside: &Delay<'_>,
        in_lane: Option<&InLane>,
    ) -> Result<Option<SemaphorePermit<'a>>, Disposition> {
        let Invocation { connection, lane, message: MessageContext { history, id, .. }, .. } = invocation;
        if !history.is_suspect() {
            return Ok(None);
        }
        let room = &connection.quarantine[*lane as usize];
        // A message from a delay queue was not in hand while others ran, so it need not wait again.
        let alone = match room.try_acquire().ok().filter(|_| history.is_settled) {
            Some(alone) => alone,
            None => match aside.put(QUARANTINE[fastrand::usize(..2)], None, Carried::of(history)).await {
                Delayed::Scheduled(time) => {
                    leaves(invocation, in_lane, time);
                    self.observer.note(&Event::HandedBack { connection: &connection.name, lane: *lane, id });
                    return Err(Disposition::PutAside);
                }
                Delayed::Impossible => tokio::select! {
                    alone = room.acquire() => alone.expect("the room is never closed"),
                    () = aside.receipt.gone() => return Err(Disposition::Stale),
                },
                Delayed::Stale => return Err(Disposition::Stale),
            },
        };
        let redeliveries = history.redeliveries;
        self.observer.note(&Event::Suspected { connection: &connection.name, lane: *lane, id, redeliveries });
        Ok(Some(alone))
    }
}

impl Worker {
    /// Parses a delivery and gives it its place in the order of its lane.
    fn open(&self, delivery: Delivery) -> Opened {
        let begun = Instant::now();
        let Delivery { body, properties, exchange, routing_key, source, redelivered, receipt } = delivery;
        let rules = self.rules.load_full();
        let address = (source, exchange, routing_key);
        let who = (&rules.reply_to, rules.own_user.as_deref());
        let ahead = rules.connection_of(&address).and_then(|connection| connection.ahead(&rules.clock));
        let message =
            MessageContext::new(address, properties, redelivered, Moment::now(&rules.clock, ahead), who);
        let parsed = catch_unwind(AssertUnwindSafe(|| {
            let parsed = Parsed::new(&message, &body, &rules);
            (InvocationFacts::of(&parsed), parsed)
        }));
        let parsed = parsed.ok();
        let in_lane = self.enter(&message, parsed.as_ref().map(|(_, parsed)| parsed), &rules);
        Opened { rules, message, body, receipt, parsed, in_lane, begun }
    }

    /// Processes a delivery up to its settlement.
    async fn settle(&self, opened: Opened) {
        let Opened { rules, message, body, receipt, parsed, in_lane, begun } = opened;
        let _inside = InFlightGuard::new(&message, &*self.observer);
        reached(Point::Delivered, Some(&message.id)).await;
        let (identity, parsed) = match parsed {
            Some((identity, parsed)) => (identity, Some(parsed)),
            None => (InvocationFacts::default(), None),
        };
        let responder = Responder { worker: self, message: &message, identity: &identity, begun };
        let (rules, in_lane) = (&*rules, in_lane.as_ref());
        let delivery = DeliveryContext { rules, body: &body, receipt: &*receipt, responder, in_lane };
        let ended = match parsed {
            Some(parsed) => self.run(parsed, delivery).await,
            None => Disposition::crashed(message.history.effect_before()),
        };
        let is_safe = match ended {
            Disposition::Concluded(conclusion) => {
                reached(Point::Concluded, Some(&message.id)).await;
                responder.answer(conclusion, &body).await.is_ok()
            }
            Disposition::Deduplicated(conclusion) => {
                reached(Point::Concluded, Some(&message.id)).await;
                responder.answer_again(conclusion).await.is_ok()
            }
            Disposition::PutAside | Disposition::Dropped => true,
            Disposition::Stale => false,
        };
        reached(Point::Done, Some(&message.id)).await;
        if !is_safe || !receipt.ack().await {
            self.observer.note(&Event::Stale { id: &message.id });
        }
        reached(Point::Acknowledged, Some(&message.id)).await;
    }
}

impl Inbox for Worker {
    fn take(self: Arc<Self>, delivery: Delivery) -> BoxFuture<'static, ()> {
        match catch_unwind(AssertUnwindSafe(|| self.open(delivery))) {
            Ok(opened) => Box::pin(async move { self.settle(opened).await }),
            Err(_) => Box::pin(async {}), // a bug of the worker; the delivery was given back
        }
    }

    fn hold_at_most(&self, most: Duration) {
        self.lanes.hold_at_most(most);
    }

    fn counted(&self, connection: &ConnectionName, ready: Ready) {
        let now = self.rules.load().clock.now();
        for lane in Lane::ALL {
            let ready = ready.of(lane);
            let LaneBacklog { delayed, oldest } = self.lanes.of(connection, lane).waiting(ready, now);
            let oldest = oldest.map(|sent| Duration::try_from(now.duration_since(sent)).unwrap_or_default());
            self.observer.note(&Event::Backlog { connection, lane, ready, delayed, oldest });
        }
    }

    fn hear(&self, told: &[u8]) {
        self.cancelled.hear(told, &self.rules.load().callers);
    }

    /// Returns the breaker's signal for a bulk lane: while the connection is paused, bulk messages stay in their queue.
    fn wants(&self, source: &Source) -> watch::Receiver<bool> {
        let rules = self.rules.load();
        match source {
            Source::Work { connection, lane: Lane::Bulk } => match rules.connections.get(connection) {
                Some(connection) => connection.breaker.wants_bulk(),
                None => watch::channel(true).1,
            },
            Source::Work { .. } | Source::Removed { .. } | Source::Unrouted | Source::Undelivered => {
                watch::channel(true).1
            }
        }
    }
}

/// A message in processing, counted by the gauge of messages in flight.
struct InFlightGuard<'a> {
    message: &'a MessageContext,
    observer: &'a dyn Observer,
}

impl<'a> InFlightGuard<'a> {
    fn new(message: &'a MessageContext, observer: &'a dyn Observer) -> Self {
        if let Some((connection, lane)) = message.lane() {
            let redelivered = message.redelivered;
            observer.note(&Event::Received { connection, lane, redelivered });
        }
        Self { message, observer }
    }
}

impl Drop for InFlightGuard<'_> {
    fn drop(&mut self) {
        if let Some((connection, lane)) = self.message.lane() {
            self.observer.note(&Event::Left { connection, lane });
        }
    }
}
