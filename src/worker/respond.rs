//! The answer: wrapped, posted to whoever waits, and only then the delivery may be acknowledged.

use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::time::Instant;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use serde_json::value::RawValue;

use crate::domain::json::{self, Object};
use crate::domain::message::{Address, HeaderValue, Headers, Post, Posted, Properties, RESULT, Unposted};
use crate::domain::result::{Answer, Effect, Outcome, PageMark, Status};
use crate::domain::secret::MASK;
use crate::domain::topology::{DEAD, RESULTS};

use crate::policy::sensitive::unrepeatable;

use super::Worker;
use super::context::{Letter, TRACEPARENT};
use super::execution::Cost;
use super::failpoint::{Point, reached};
use super::history::{CALLER, ID_GENERATED};
use super::okta_time::{Moment, by_okta};
use super::outcome::{Conclusion, Identity};
use crate::event::{Ending, Event, ParkReason};

/// The header of a result that could not go where it should.
const UNDELIVERABLE: &str = "okta-undeliverable";

/// The header that says why a message was parked.
pub(crate) const REASON: &str = "okta-reason";

/// The header with the key that it was published with.
pub(crate) const ROUTING_KEY: &str = "okta-routing-key";

/// The header that says when it was parked, in milliseconds since 1970.
pub(crate) const PARKED_AT: &str = "okta-parked-at";

/// What stands for a connection or subtool that is not ours.
const NOBODY: &str = "-";

/// The longest text AMQP takes as a message id, in bytes.
const SHORT_TEXT_MAX: usize = 255;

/// What stands around a result is not larger than this, in bytes: some ids and texts of bounded length.
const FRAME_BYTES_MAX: usize = 16 * 1024;

/// What stands around the result of a success, the invocation's id aside, in bytes: names, numbers, the longest
/// connection and subtool, and one of Okta's request ids, which has 27 characters.
const FRAME_BYTES: usize = 480;

/// The members of results that hold one-time secrets.
const ONE_TIME: [&str; 4] = ["activation_url", "activation_token", "reset_password_url", "temp_password"];

/// Everything an answer is made of, but the outcome.
#[derive(Clone, Copy)]
pub(super) struct Answering<'a> {
    pub worker: &'a Worker,
    pub letter: &'a Letter,
    pub identity: &'a Identity,
    pub begun: Instant,
}

impl Answering<'_> {
    /// Posts the answer, parks what must be parked, and tells the observers.
    pub async fn answer(self, conclusion: Conclusion, body: &Bytes) -> Result<(), Unposted> {
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
            reached(Point::Parking, Some(&self.letter.id)).await;
            self.park_in_share(reason, answer.attempts, body).await?;
        }
        self.note(&answer);
        Ok(())
    }

    /// Posts what the same invocation was answered a short while ago.
    pub async fn answer_again(self, conclusion: Conclusion) -> Result<(), Unposted> {
        let answer = Answer { deduplicated: true, ..self.wrap(conclusion.outcome, conclusion.cost, None) };
        self.post(&answer).await?;
        if let Some((connection, lane)) = self.letter.lane() {
            let (id, caller) = (&*self.letter.id, self.letter.docket.caller.as_deref());
            let (subtool, status) = (self.identity.subtool, answer.status);
            let again = Event::Deduplicated { connection, lane, id, subtool, caller, status };
            self.worker.observer.note(&again);
        }
        Ok(())
    }

    /// Parks the message, unless its caller has parked too much already.
    async fn park_in_share(&self, reason: ParkReason, attempts: u32, body: &Bytes) -> Result<(), Unposted> {
        let caller = self.letter.docket.caller.as_deref();
        if self.worker.parking.take(caller, reason, Instant::now()) {
            return self.park(reason, attempts, body).await;
        }
        let connection = self.identity.connection.as_ref().map(|connection| &connection.name);
        self.worker.observer.note(&Event::NotParked { id: &self.letter.id, connection, caller, reason });
        Ok(())
    }

    /// Posts a page of a list that is not the last.
    pub async fn page(self, result: Box<RawValue>, cost: Cost, index: u32) -> Result<(), Unposted> {
        let outcome = Outcome::Succeeded { effect: Effect::None, result };
        self.post(&self.wrap(outcome, cost, Some(PageMark { index, last: false }))).await
    }

    fn wrap(&self, outcome: Outcome, cost: Cost, page: Option<PageMark>) -> Answer {
        let Identity { connection, named, secrets, .. } = self.identity;
        let docket = &self.letter.docket;
        let (status, effect, result, error) = match outcome {
            Outcome::Succeeded { effect, result } => (Status::Succeeded, effect, Some(result), None),
            Outcome::Planned(plan) => (Status::Planned, Effect::None, Some(plan), None),
            Outcome::Failed { effect, failure } => {
                (Status::Failed, effect, None, Some(failure.masked(secrets)))
            }
        };
        let mut answer = Answer {
            id: self.letter.id.clone(),
            id_generated: docket.id_generated,
            deduplicated: false,
            connection: connection.as_ref().map(|connection| connection.name.to_string()),
            subtool: named.as_deref().map(|named| secrets.mask(named)),
            status,
            effect,
            result,
            page,
            result_omitted: false,
            error,
            // Of attempts that failed for the whole connection none counts, and still Okta was asked.
            attempts: docket.attempts.saturating_add(cost.attempts).max((cost.okta_calls > 0).into()),
            okta_calls: cost.okta_calls,
            waited_ms: millis(docket.waited + cost.waited),
            duration_ms: millis(self.took()),
            rate_limit: cost.rate_limit,
            okta_request_ids: cost.okta_request_ids.iter().map(|id| secrets.mask(id)).collect(),
        };
        self.fit(&mut answer);
        answer
    }

    /// Makes an answer with a result as large as was asked for at most: what goes first is the older ones of Okta's
    /// ids, which only help to find it in the System Log.
    fn fit(&self, answer: &mut Answer) {
        let Identity { bytes_max, keeps_result, .. } = *self.identity;
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

    /// From the first receipt to now: earlier deliveries only waited.
    fn took(&self) -> Duration {
        self.letter.docket.waited + self.begun.elapsed()
    }

    /// Posts to `reply_to`, else or when nobody is there to `okta.results`.
    async fn post(&self, answer: &Answer) -> Result<(), Unposted> {
        let mut headers = self.letter.answer_headers();
        let Some(to) = &self.letter.reply_to else {
            return confirmed(self.post_to(self.results(answer), headers, answer).await?);
        };
        match self.post_to(to.clone(), headers.clone(), answer).await? {
            Posted::Confirmed => Ok(()),
            Posted::Unroutable | Posted::Refused | Posted::TooLarge => {
                let connection = self.identity.connection.as_ref().map(|connection| &connection.name);
                self.worker.observer.note(&Event::Undeliverable { id: &self.letter.id, connection });
                headers.insert(UNDELIVERABLE.to_owned(), HeaderValue::Bool(true));
                confirmed(self.post_to(self.results(answer), headers, &masked(answer)).await?)
            }
        }
    }

    /// Posts an answer, without its result where the broker takes none so large.
    async fn post_to(&self, to: Address, headers: Headers, answer: &Answer) -> Result<Posted, Unposted> {
        let post = |answer: &Answer| Post {
            to: to.clone(),
            properties: self.properties(headers.clone(), answer.page),
            body: Bytes::from(json::to_vec_of(answer, length(answer))),
        };
        let postbox = &self.worker.postbox;
        match postbox.post(&post(answer)).await? {
            Posted::TooLarge => {
                let mut answer = answer.clone();
                omit_result(&mut answer);
                postbox.post(&post(&answer)).await
            }
            posted => Ok(posted),
        }
    }

    fn results(&self, answer: &Answer) -> Address {
        let connection = answer.connection.as_deref().unwrap_or(NOBODY);
        let subtool = self.identity.subtool.unwrap_or(NOBODY);
        Address::Exchange(RESULTS, format!("{connection}.{subtool}.{}", answer.status.as_str()))
    }

    fn properties(&self, headers: Headers, page: Option<PageMark>) -> Properties {
        let letter = self.letter;
        Properties {
            message_id: Some(match page {
                None => result_id(&letter.id, "result"),
                Some(page) => result_id(&letter.id, &page.index.to_string()),
            }),
            correlation_id: letter.correlation_id(),
            kind: Some(RESULT.to_owned()),
            content_type: Some("application/json".to_owned()),
            timestamp: seconds(self.now()),
            headers,
            ..Properties::default()
        }
    }

    /// Keeps the message for people to look at, with its history and the caller's own bytes.
    async fn park(&self, reason: ParkReason, attempts: u32, body: &Bytes) -> Result<(), Unposted> {
        let letter = self.letter;
        let text = |text: &str| HeaderValue::Text(text.to_owned());
        let mut headers = Headers::from([
            (REASON.to_owned(), text(reason.as_str())),
            (ROUTING_KEY.to_owned(), text(&letter.routing_key)),
            (PARKED_AT.to_owned(), HeaderValue::Int(self.now().as_millisecond())),
        ]);
        headers.extend(letter.docket.history(attempts, &self.moment()));
        if let Some(caller) = &letter.docket.caller {
            headers.insert(CALLER.to_owned(), text(caller));
        }
        if letter.docket.id_generated {
            headers.insert(ID_GENERATED.to_owned(), HeaderValue::Bool(true));
        }
        if let Some(trace) = letter.traceparent() {
            headers.insert(TRACEPARENT.to_owned(), text(trace));
        }
        let came = &letter.properties;
        let post = Post {
            to: Address::Queue(DEAD.to_owned()),
            properties: Properties {
                message_id: Some(letter.id.clone()),
                correlation_id: came.correlation_id.clone(),
                reply_to: came.reply_to.clone(),
                kind: came.kind.clone(),
                content_type: came.content_type.clone(),
                content_encoding: came.content_encoding.clone(),
                timestamp: came.timestamp.or_else(|| seconds(by_okta(letter.received, self.ahead()))),
                headers,
                ..Properties::default()
            },
            body: body.clone(),
        };
        confirmed(self.worker.postbox.post(&post).await?)?;
        let connection = self.identity.connection.as_ref().map(|connection| &connection.name);
        self.worker.observer.note(&Event::Parked { id: &letter.id, connection, reason });
        Ok(())
    }

    /// How far Okta's clock is ahead of the machine's, as far as that is known.
    fn ahead(&self) -> Option<SignedDuration> {
        self.identity.connection.as_ref()?.ahead(&self.worker.rules.load().clock)
    }

    /// Now, as the worker tells the time of it.
    fn moment(&self) -> Moment {
        Moment::now(&self.worker.rules.load().clock, self.ahead())
    }

    /// The time of day, as everybody else has it.
    fn now(&self) -> Timestamp {
        let Moment { at, ahead, .. } = self.moment();
        by_okta(at, ahead)
    }

    fn note(&self, answer: &Answer) {
        let Identity { connection, subtool, reason, secrets, .. } = self.identity;
        let reason = reason.as_deref().map(|reason| secrets.mask(reason));
        let error = answer.error.as_ref();
        let okta = error.and_then(|error| error.okta.as_ref());
        self.worker.observer.note(&Event::Answered(Ending {
            id: &answer.id,
            connection: connection.as_ref().map(|connection| &connection.name),
            lane: self.letter.lane().map(|(_, lane)| lane),
            subtool: *subtool,
            caller: self.letter.docket.caller.as_deref(),
            reason: reason.as_deref(),
            traceparent: self.letter.traceparent(),
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

/// The most bytes around the result of this invocation.
pub(super) fn frame(id: &str) -> usize {
    FRAME_BYTES + json::to_vec(&id).len()
}

/// About how long an answer is as JSON: what stands around a result is short.
fn length(answer: &Answer) -> usize {
    /// Ids, numbers and names of the members: 400 to 600 bytes for one request to Okta.
    const FRAME_BYTES_USUAL: usize = 768;
    answer.result.as_ref().map_or(0, |result| result.get().len()) + FRAME_BYTES_USUAL
}

/// What must not be lost is in the broker, or the delivery stays as it is.
fn confirmed(posted: Posted) -> Result<(), Unposted> {
    match posted {
        Posted::Confirmed => Ok(()),
        Posted::Unroutable | Posted::Refused | Posted::TooLarge => Err(Unposted),
    }
}

/// Leaves out a result that is too large, if there is one.
fn omit_result(answer: &mut Answer) {
    answer.result_omitted = answer.result.is_some();
    answer.result = answer.result.take().map(|_| json::to_raw(&()));
}

/// The answer without its one-time secrets, for a place that is not the caller's.
fn masked(answer: &Answer) -> Answer {
    let mut answer = answer.clone();
    let object = answer.result.as_ref().and_then(|result| serde_json::from_str::<Object>(result.get()).ok());
    if let Some(mut object) = object.filter(|object| ONE_TIME.iter().any(|name| object.get(name).is_some())) {
        for name in ONE_TIME.iter().filter(|name| object.get(name).is_some()).collect::<Vec<_>>() {
            object.set(name, json::to_raw(&MASK));
        }
        answer.result = Some(json::to_raw(&object));
    }
    answer
}

/// The id of a result: the same again for the same invocation. An id too long for AMQP's short texts is
/// stood for by its digest.
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
