//! The replay of a conversation: answers the questions that Okta has answered, and stops at the next one.

use std::time::Duration;

use jiff::Timestamp;

use crate::domain::bucket::Bucket;
use crate::domain::http::Request;

use super::history::{HistoryEntry, OktaReply};
use super::pager::Pager;
use super::run::Stop;
use super::setting::{Bounds, SETTLING, Setting};

/// The pause before a repeated read, for read-after-write lag.
pub(super) const LAG_PAUSE: Duration = Duration::from_millis(500);

/// The questions and answers so far, replayed from the start.
#[derive(Debug)]
pub struct Replay<'a> {
    past: std::slice::Iter<'a, HistoryEntry>,
    setting: Setting<'a>,
    /// The time since when Okta may have executed a write of this invocation, by our clock.
    doubt: Option<Timestamp>,
    /// The buckets that count the answered questions of a dry run.
    pub(super) asked: Vec<Bucket>,
    /// The list in progress, with all items read so far.
    pub(super) list: Option<Box<Pager>>,
    history_length: usize,
}

impl<'a> Replay<'a> {
    /// Starts a replay of this history.
    pub fn new(history: &'a [HistoryEntry], setting: Setting<'a>) -> Self {
        Self {
            past: history.iter(),
            setting,
            doubt: setting.maybe_since,
            asked: Vec::new(),
            list: None,
            history_length: history.len(),
        }
    }

    /// Returns the answer to the next question; stops if it has none yet.
    ///
    /// # Panics
    /// If the outcome of a write is unclear: such writes are asked with [`Self::attempt`].
    pub fn ask(&mut self, request: Request) -> Result<OktaReply<'a>, Stop> {
        Ok(self.attempt(request)?.expect("only who attempts a write hears that its outcome is unclear"))
    }

    /// Returns the answer to a write; `None` if the outcome is unclear.
    pub fn attempt(&mut self, request: Request) -> Result<Option<OktaReply<'a>>, Stop> {
        if self.setting.is_dry_run {
            return self.look_up(request).map(Some);
        }
        match self.past.next() {
            Some(HistoryEntry::Answered(exchange)) => Ok(Some(OktaReply(exchange))),
            Some(HistoryEntry::Unknown { sent, .. }) => {
                self.doubt.get_or_insert(*sent);
                self.setting.is_settled = false;
                Ok(None)
            }
            None => Err(Stop::Send(Box::new(request))),
        }
    }

    /// Returns the answer to a question of a dry run: nothing is written, so equal questions have equal answers.
    fn look_up(&mut self, request: Request) -> Result<OktaReply<'a>, Stop> {
        let exchange = self.past.as_slice().iter().find_map(|turn| match turn {
            HistoryEntry::Answered(exchange) => (exchange.request == request).then_some(exchange),
            HistoryEntry::Unknown { .. } => None,
        });
        let exchange = exchange.ok_or_else(|| Stop::Send(Box::new(request)))?;
        self.asked.push(exchange.request.bucket());
        Ok(OktaReply(exchange))
    }

    /// Returns the time since when Okta may have executed a write of this invocation, by Okta's clock less the
    /// possible clock difference; `None` if it surely executed none.
    pub fn doubt(&self) -> Option<Timestamp> {
        self.by_okta(self.doubt?)
    }

    /// Returns the time since when this invocation may have created the object that now has its natural key, by the
    /// same clock; `None` if it surely has not.
    pub fn may_have_created_since(&self) -> Option<Timestamp> {
        self.by_okta(self.doubt.or(self.setting.copied_since)?)
    }

    fn by_okta(&self, since: Timestamp) -> Option<Timestamp> {
        since.saturating_add(self.setting.okta_ahead).ok()?.saturating_sub(CLOCKS_DIFFER).ok()
    }

    /// Returns the wait before reading the outcome of a write.
    pub fn settling(&self) -> Duration {
        if self.setting.is_settled { Duration::ZERO } else { SETTLING }
    }

    /// Returns true if the next question has no answer yet.
    pub fn is_caught_up(&self) -> bool {
        self.past.as_slice().is_empty()
    }

    /// Returns the number of questions answered so far.
    pub(super) fn asked_so_far(&self) -> usize {
        self.history_length - self.past.len()
    }

    /// Returns the limits of the result.
    pub fn bounds(&self) -> Bounds<'a> {
        self.setting.bounds
    }
}

/// The remaining difference of two compared clocks: Okta's `Date` has whole seconds, and its answer takes
/// time to arrive.
const CLOCKS_DIFFER: Duration = Duration::from_secs(2);
