//! The answer: wrapped and published to its address, before the delivery may be acknowledged.

use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::time::Instant;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use serde_json::value::RawValue;

use crate::domain::json::{self, Object};
use crate::domain::message::{
    Address, HeaderValue, Headers, Properties, Publish, Published, RESULT, Unpublished,
};
use crate::domain::result::{Effect, Outcome, PageMark, ResultMessage, Status};
use crate::domain::secret::MASK;
use crate::domain::topology::{DEAD, RESULTS};

use crate::policy::sensitive::unrepeatable;

use super::context::{MessageContext, TRACEPARENT};
use super::cost::DeliveryCost;
use super::failpoint::{Point, reached};
use super::history::{CALLER, ID_GENERATED};
use super::okta_time::{Moment, by_okta};
use super::outcome::{Conclusion, InvocationFacts};
use super::state::Worker;
use crate::event::{Event, InvocationEnded, ParkReason};

/// The header that marks a result that could not be delivered to its `reply_to`.
const UNDELIVERABLE: &str = "okta-undeliverable";

/// The header with the reason that a message was parked.
pub(crate) const REASON: &str = "okta-reason";

/// The header with the routing key that the message was published with.
pub(crate) const ROUTING_KEY: &str = "okta-routing-key";

/// The header with the time at which the message was parked, in milliseconds since 1970.
pub(crate) const PARKED_AT: &str = "okta-parked-at";

/// The placeholder for an unknown connection or subtool.
const UNKNOWN_NAME: &str = "-";

/// The longest text that AMQP accepts as a message id, in bytes.
const SHORT_TEXT_MAX: usize = 255;

/// An upper bound of the bytes around a result: some ids and texts of bounded length.
const FRAME_BYTES_MAX: usize = 16 * 1024;

/// The members of results that are one-time secrets.
const ONE_TIME_SECRETS: [&str; 4] =
    ["activation_url", "activation_token", "reset_password_url", "temp_password"];

/// Everything that an answer needs, except the outcome.
#[derive(Clone, Copy)]
pub(super) struct Responder<'a> {
    pub worker: &'a Worker,
    pub message: &'a MessageContext,
    pub identity: &'a InvocationFacts,
    pub begun: Instant,
}

impl Responder<'_> {
    /// Publishes the answer, parks the message if necessary, and notifies the observers.
    pub async fn answer(self, conclusion: Conclusion, body: &Bytes) -> Result<(), Unpublished> {
        let Conclusion { outcome, cost, park, pages } = conclusion;
        let page = self.identity.is_paged.then_some(PageMark { index: pages, last: true });
        let outcome = match outcome {
            Outcome::Failed { effect, failure } => {
                let values = unrepeatable(body, &failure);
                Outcome::Failed { effect, failure: failure.without_values(&values) }
            }
            Outcome::Succeeded { .. } | Outcome::Planned(_) => outcome,
        };
        let answer = self.wrap(outcome, cost, page);
        self.post(&answer).await?;
        if let Some(reason) = park {
            reached(Point::Parking, Some(&self.message.id)).await;
            self.park_within_quota(reason, answer.attempts, body).await?;
        }
        self.note(&answer);
        Ok(())
    }

    /// Publishes the answer that the same invocation has got within the deduplication window.
    pub async fn answer_again(self, conclusion: Conclusion) -> Result<(), Unpublished> {
        let answer =
            ResultMessage { deduplicated: true, ..self.wrap(conclusion.outcome, conclusion.cost, None) };
        self.post(&answer).await?;
        if let Some((connection, lane)) = self.message.lane() {
            let (id, caller) = (&*self.message.id, self.message.history.caller.as_deref());
            let (subtool, status) = (self.identity.subtool, answer.status);
            let again = Event::Deduplicated { connection, lane, id, subtool, caller, status };
            self.worker.observer.note(&again);
        }
        Ok(())
    }

    /// Parks the message, unless its caller has parked too many already.
    async fn park_within_quota(
        &self,
        reason: ParkReason,
        attempts: u32,
        body: &Bytes,
    ) -> Result<(), Unpublished> {
        let caller = self.message.history.caller.as_deref();
        if self.worker.parking.take(caller, reason, Instant::now()) {
            return self.park(reason, attempts, body).await;
        }
        let connection = self.identity.connection.as_ref().map(|connection| &connection.name);
        self.worker.observer.note(&Event::NotParked { id: &self.message.id, connection, caller, reason });
        Ok(())
    }

    /// Publishes a page of a list that is not the last.
    pub async fn page(
        self,
        result: Box<RawValue>,
        cost: DeliveryCost,
        index: u32,
    ) -> Result<(), Unpublished> {
        let outcome = Outcome::Succeeded { effect: Effect::None, result };
        self.post(&self.wrap(outcome, cost, Some(PageMark { index, last: false }))).await
    }

    fn wrap(&self, outcome: Outcome, cost: DeliveryCost, page: Option<PageMark>) -> ResultMessage {
        let InvocationFacts { connection, named, secrets, .. } = self.identity;
        let history = &self.message.history;
        let (status, effect, result, error) = match outcome {
            Outcome::Succeeded { effect, result } => (Status::Succeeded, effect, Some(result), None),
            Outcome::Planned(plan) => (Status::Planned, Effect::None, Some(plan), None),
            Outcome::Failed { effect, failure } => {
                (Status::Failed, effect, None, Some(failure.masked(secrets)))
            }
        };
        let mut answer = ResultMessage {
            id: self.message.id.clone(),
            id_generated: history.id_generated,
            deduplicated: false,
            connection: connection.as_ref().map(|connection| connection.name.to_string()),
            subtool: named.as_deref().map(|named| secrets.mask(named)),
            status,
            effect,
            result,
            page,
            result_omitted: false,
            error,
            // Attempts that failed for the whole connection do not count, although Okta was asked.
            attempts: history.attempts.saturating_add(cost.attempts).max((cost.okta_calls > 0).into()),
            okta_calls: cost.okta_calls,
            waited_ms: millis(history.waited + cost.waited),
            duration_ms: millis(self.took()),
            rate_limit: cost.rate_limit,
            okta_request_ids: cost.okta_request_ids.iter().map(|id| secrets.mask(id)).collect(),
        };
        self.fit(&mut answer);
        answer
    }

    /// Shortens an answer with a result to the requested size: first by Okta's older request ids, which only help to
    /// find the invocation in the System Log.
    fn fit(&self, answer: &mut ResultMessage) {
        let InvocationFacts { bytes_max, keeps_result, .. } = *self.identity;
        let Some(result) = &answer.result else { return };
        if result.get().len() + FRAME_BYTES_MAX <= bytes_max {
            return;
        }
        let mut bytes = json::to_vec(answer).len();
        while bytes > bytes_max && answer.okta_request_ids.len() > 1 {
            bytes -= json::to_vec(&answer.okta_request_ids.remove(0)).len() + 1;
        }
        if bytes > bytes_max && !keeps_result {
            omit_result(answer);
        }
    }

    /// Returns the time from the first receipt to now: earlier deliveries only waited.
    fn took(&self) -> Duration {
        self.message.history.waited + self.begun.elapsed()
    }

    /// Publishes to `reply_to`, or to `okta.results` if there is none or it cannot be delivered there.
    async fn post(&self, answer: &ResultMessage) -> Result<(), Unpublished> {
        let mut headers = self.message.answer_headers();
        let Some(to) = &self.message.reply_to else {
            return confirmed(self.post_to(self.results(answer), headers, answer).await?);
        };
        match self.post_to(to.clone(), headers.clone(), answer).await? {
            Published::Confirmed => Ok(()),
            Published::Unroutable | Published::Refused | Published::TooLarge => {
                let connection = self.identity.connection.as_ref().map(|connection| &connection.name);
                self.worker.observer.note(&Event::Undeliverable { id: &self.message.id, connection });
                headers.insert(UNDELIVERABLE.to_owned(), HeaderValue::Bool(true));
                confirmed(self.post_to(self.results(answer), headers, &masked(answer)).await?)
            }
        }
    }

    /// Publishes an answer, without its result if that is too large for the broker.
    async fn post_to(
        &self,
        to: Address,
        headers: Headers,
        answer: &ResultMessage,
    ) -> Result<Published, Unpublished> {
        let post = |answer: &ResultMessage| Publish {
            to: to.clone(),
            properties: self.properties(headers.clone(), answer.page),
            body: Bytes::from(json::to_vec_of(answer, length(answer))),
        };
        let outbox = &self.worker.outbox;
        match outbox.post(&post(answer)).await? {
            Published::TooLarge => {
                let mut answer = answer.clone();
                omit_result(&mut answer);
                outbox.post(&post(&answer)).await
            }
            posted => Ok(posted),
        }
    }

    fn results(&self, answer: &ResultMessage) -> Address {
        let connection = answer.connection.as_deref().unwrap_or(UNKNOWN_NAME);
        let subtool = self.identity.subtool.unwrap_or(UNKNOWN_NAME);
        Address::Exchange(RESULTS, format!("{connection}.{subtool}.{}", answer.status.as_str()))
    }

    fn properties(&self, headers: Headers, page: Option<PageMark>) -> Properties {
        let message = self.message;
        Properties {
            message_id: Some(match page {
                None => result_id(&message.id, "result"),
                Some(page) => result_id(&message.id, &page.index.to_string()),
            }),
            correlation_id: message.correlation_id(),
            kind: Some(RESULT.to_owned()),
            content_type: Some("application/json".to_owned()),
            timestamp: seconds(self.now()),
            headers,
            ..Properties::default()
        }
    }

    /// Parks the message for inspection, with its history and its original body.
    async fn park(&self, reason: ParkReason, attempts: u32, body: &Bytes) -> Result<(), Unpublished> {
        let message = self.message;
        let text = |text: &str| HeaderValue::Text(text.to_owned());
        let mut headers = Headers::from([
            (REASON.to_owned(), text(reason.as_str())),
            (ROUTING_KEY.to_owned(), text(&message.routing_key)),
            (PARKED_AT.to_owned(), HeaderValue::Int(self.now().as_millisecond())),
        ]);
        headers.extend(message.history.history(attempts, &self.moment()));
        if let Some(caller) = &message.history.caller {
            headers.insert(CALLER.to_owned(), text(caller));
        }
        if message.history.id_generated {
            headers.insert(ID_GENERATED.to_owned(), HeaderValue::Bool(true));
        }
        if let Some(trace) = message.traceparent() {
            headers.insert(TRACEPARENT.to_owned(), text(trace));
        }
        let original = &message.properties;
        let post = Publish {
            to: Address::Queue(DEAD.to_owned()),
            properties: Properties {
                message_id: Some(message.id.clone()),
                correlation_id: original.correlation_id.clone(),
                reply_to: original.reply_to.clone(),
                kind: original.kind.clone(),
                content_type: original.content_type.clone(),
                content_encoding: original.content_encoding.clone(),
                timestamp: original.timestamp.or_else(|| seconds(by_okta(message.received, self.ahead()))),
                headers,
                ..Properties::default()
            },
            body: body.clone(),
        };
        confirmed(self.worker.outbox.post(&post).await?)?;
        let connection = self.identity.connection.as_ref().map(|connection| &connection.name);
        self.worker.observer.note(&Event::Parked { id: &message.id, connection, reason });
        Ok(())
    }

    /// Returns the time by which Okta's clock is ahead of the machine's, if that is known.
    fn ahead(&self) -> Option<SignedDuration> {
        self.identity.connection.as_ref()?.ahead(&self.worker.rules.load().clock)
    }

    /// Returns the current moment.
    fn moment(&self) -> Moment {
        Moment::now(&self.worker.rules.load().clock, self.ahead())
    }

    /// Returns the time of day by Okta's clock, if that is known.
    fn now(&self) -> Timestamp {
        let Moment { at, ahead, .. } = self.moment();
        by_okta(at, ahead)
    }

    fn note(&self, answer: &ResultMessage) {
        let InvocationFacts { connection, subtool, reason, secrets, .. } = self.identity;
        let reason = reason.as_deref().map(|reason| secrets.mask(reason));
        let error = answer.error.as_ref();
        let okta = error.and_then(|error| error.okta.as_ref());
        self.worker.observer.note(&Event::Answered(InvocationEnded {
            id: &answer.id,
            connection: connection.as_ref().map(|connection| &connection.name),
            lane: self.message.lane().map(|(_, lane)| lane),
            subtool: *subtool,
            caller: self.message.history.caller.as_deref(),
            reason: reason.as_deref(),
            traceparent: self.message.traceparent(),
            status: answer.status,
            effect: answer.effect,
            error: error.map(|error| error.code),
            path: error.and_then(|error| error.path.as_deref()),
            okta_error_code: okta.and_then(|okta| okta.error_code.as_deref()),
            okta_request_ids: &answer.okta_request_ids,
            attempts: answer.attempts,
            okta_calls: answer.okta_calls,
            waited: Duration::from_millis(answer.waited_ms),
            took: self.took(),
        }));
    }
}

/// Returns the approximate length of an answer as JSON.
fn length(answer: &ResultMessage) -> usize {
    /// The usual bytes around a result, for ids, numbers and names of the members: 400 to 600 for one request to Okta.
    const FRAME_BYTES_USUAL: usize = 768;
    answer.result.as_ref().map_or(0, |result| result.get().len()) + FRAME_BYTES_USUAL
}

/// Checks that the broker has the message; otherwise the delivery must not be acknowledged.
fn confirmed(posted: Published) -> Result<(), Unpublished> {
    match posted {
        Published::Confirmed => Ok(()),
        Published::Unroutable | Published::Refused | Published::TooLarge => Err(Unpublished),
    }
}

/// Leaves out a result that is too large, if any.
fn omit_result(answer: &mut ResultMessage) {
    answer.result_omitted = answer.result.is_some();
    answer.result = answer.result.take().map(|_| json::to_raw(&()));
}

/// Returns the answer without its one-time secrets, for a queue that is not the caller's.
fn masked(answer: &ResultMessage) -> ResultMessage {
    let mut answer = answer.clone();
    let object = answer.result.as_ref().and_then(|result| serde_json::from_str::<Object>(result.get()).ok());
    if let Some(mut object) =
        object.filter(|object| ONE_TIME_SECRETS.iter().any(|name| object.get(name).is_some()))
    {
        for name in ONE_TIME_SECRETS.iter().filter(|name| object.get(name).is_some()).collect::<Vec<_>>() {
            object.set(name, json::to_raw(&MASK));
        }
        answer.result = Some(json::to_raw(&object));
    }
    answer
}

/// Returns the message id of a result, which is the same each time for the same invocation. A digest replaces an id
/// that is too long for AMQP's short strings.
fn result_id(id: &str, which: &str) -> String {
    let result = format!("{id}.{which}");
    if result.len() <= SHORT_TEXT_MAX {
        return result;
    }
    let digest = Sha256::digest(id.as_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).chain([format!(".{which}")]).collect()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn seconds(at: Timestamp) -> Option<u64> {
    u64::try_from(at.as_second()).ok()
}
