//! A delivery in processing, and the parts of the worker that process it.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use crate::domain::message::Receipt;
use crate::event::{Event, Observer};

use super::admission::{Invocation, Parsed};
use super::context::MessageContext;
use super::delay::Delay;
use super::execution::ExecutionContext;
use super::lanes::InLane;
use super::outcome::InvocationFacts;
use super::progress::Progress;
use super::respond::Responder;
use super::rules::Rules;
use super::state::Worker;

/// A message in processing.
#[derive(Clone, Copy)]
pub(super) struct DeliveryContext<'a> {
    pub rules: &'a Rules,
    pub body: &'a Bytes,
    pub receipt: &'a dyn Receipt,
    pub responder: Responder<'a>,
    pub in_lane: Option<&'a InLane>,
}

/// A parsed delivery, with its place in the order of its lane.
pub(super) struct Opened {
    pub rules: Arc<Rules>,
    pub message: MessageContext,
    pub body: Bytes,
    pub receipt: Box<dyn Receipt>,
    /// `None` if parsing has panicked, which is a bug of the worker.
    pub parsed: Option<(InvocationFacts, Parsed)>,
    pub in_lane: Option<InLane>,
    pub begun: Instant,
}

impl Worker {
    pub(super) fn progress<'a>(&'a self, invocation: &'a Invocation<'_>) -> Progress<'a> {
        Progress::new(
            &self.outbox,
            invocation.message,
            invocation.connection.name.as_str(),
            invocation.subtool,
        )
    }

    pub(super) fn context<'a>(
        &'a self,
        delivery: DeliveryContext<'a>,
        progress: &'a Progress<'a>,
    ) -> ExecutionContext<'a> {
        let DeliveryContext { rules, receipt, in_lane, .. } = delivery;
        let (observer, cancelled, hold_max) = (&self.observer, &self.cancelled, self.lanes.hold_max());
        ExecutionContext { rules, observer, receipt, progress, cancelled, in_lane, hold_max }
    }

    pub(super) fn delay<'a>(
        &'a self,
        invocation: &'a Invocation<'a>,
        delivery: DeliveryContext<'a>,
    ) -> Delay<'a> {
        let DeliveryContext { rules, body, receipt, in_lane, .. } = delivery;
        let place = in_lane.and_then(InLane::place);
        let order = place.map(|place| self.lanes.header(place.number()));
        Delay { invocation, body, receipt, rules, outbox: &*self.outbox, order }
    }
}

/// A message in processing, counted by the gauge of messages in flight.
pub(super) struct InFlightGuard<'a> {
    message: &'a MessageContext,
    observer: &'a dyn Observer,
}

impl<'a> InFlightGuard<'a> {
    pub fn new(message: &'a MessageContext, observer: &'a dyn Observer) -> Self {
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
