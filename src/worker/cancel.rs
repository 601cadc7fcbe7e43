//! Cancelled invocations: one that has not begun is dropped, one that has begun is finished.
//!
//! A caller cancels by a message of type [`CANCEL`] with the invocation's id, published to the same lane.
//! The worker that gets it informs its replicas, because any of them may hold the invocation. Invariant: only the
//! caller of an invocation can cancel it.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::domain::ids::ConnectionName;
use crate::domain::json;
use crate::domain::message::{Address, CANCEL, Properties, Publish};
use crate::domain::topology::SIGNALS;
use crate::policy::authorization::Callers;

use super::context::MessageContext;
use super::ports::Outbox;
use super::shares::Shares;

/// The time for which a cancellation is remembered: most delayed messages come back within minutes, all within the
/// hour.
const KEPT: Duration = Duration::from_secs(15 * 60);

/// The most cancellations remembered, of all callers together. Beyond that number, the caller with the most loses its
/// oldest one.
const KEPT_MAX: usize = 10_000;

/// The notice that the caller gets about a dropped invocation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Notice {
    /// No notice.
    #[default]
    Nothing,
    /// The answer `cancelled`, because the cancellation named a `reply_to`.
    Answer,
}

/// A cancellation, as workers send it to each other. Earlier versions send only the mark.
#[derive(Serialize, Deserialize)]
struct Cancellation {
    #[serde(flatten)]
    mark: Mark,
    #[serde(default)]
    notice: Notice,
}

/// The owner of a share of the cancellations: one caller on one connection.
type CancelOwner = (String, Option<String>);

/// The identity of an invocation: connection, caller and id.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Mark {
    connection: String,
    caller: Option<String>,
    id: String,
}

impl Mark {
    /// Returns the invocation of a message, or the one that it cancels: it has the same id.
    pub fn of(message: &MessageContext) -> Option<Self> {
        let (connection, _) = message.lane()?;
        let caller = message.history.caller.clone();
        Some(Self { connection: connection.to_string(), caller, id: message.id.clone() })
    }

    /// Returns true if the caller may use the connection; otherwise it has no invocations there to cancel.
    pub fn is_permitted(&self, callers: &Callers) -> bool {
        let connection = ConnectionName::parse(&self.connection).ok();
        connection.is_some_and(|connection| callers.may_use(self.caller.as_deref(), &connection))
    }
}

/// The recent cancellations.
pub(super) struct Cancelled {
    marks: Mutex<Shares<CancelOwner, Mark, Notice>>,
    /// A signal that changes with each cancellation.
    changed_signal: watch::Sender<()>,
}

impl Default for Cancelled {
    fn default() -> Self {
        Self { marks: Mutex::new(Shares::new(KEPT, KEPT_MAX)), changed_signal: watch::Sender::new(()) }
    }
}

impl Cancelled {
    /// Adds a caller's cancellation, and publishes it to every replica.
    pub async fn add(&self, mark: Mark, notice: Notice, outbox: &dyn Outbox, own_user: Option<&str>) {
        let cancellation = Cancellation { mark, notice };
        let post = Publish {
            to: Address::Exchange(SIGNALS, cancellation.mark.connection.clone()),
            properties: Properties {
                user_id: own_user.map(str::to_owned),
                kind: Some(CANCEL.to_owned()),
                ..Properties::default()
            },
            body: json::to_vec(&cancellation).into(),
        };
        self.keep(cancellation);
        // Best effort: if the signal is lost, the invocation runs, and its answer may find no receiver.
        let _ = outbox.post(&post).await;
    }

    /// Records another worker's signal that one of these callers has cancelled an invocation.
    pub fn hear(&self, payload: &[u8], callers: &Callers) {
        let Ok(cancellation) = serde_json::from_slice::<Cancellation>(payload) else { return };
        if cancellation.mark.is_permitted(callers) {
            self.keep(cancellation);
        }
    }

    fn keep(&self, Cancellation { mark, notice }: Cancellation) {
        {
            let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
            let owner = (mark.connection.clone(), mark.caller.clone());
            marks.insert(owner, mark, notice, 1, Instant::now());
        }
        self.changed_signal.send_replace(());
    }

    fn notice(&self, mark: &Mark) -> Option<Notice> {
        let marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        marks.get(mark, Instant::now()).copied()
    }

    /// Waits until an invocation is cancelled, and returns the notice for its caller.
    pub async fn wait(&self, message: &MessageContext) -> Notice {
        let Some(mark) = Mark::of(message) else { return std::future::pending().await };
        let mut changed_signal = self.changed_signal.subscribe();
        loop {
            if let Some(notice) = self.notice(&mark) {
                return notice;
            }
            if changed_signal.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invented_cancellations_of_one_caller_push_out_nobody_elses_and_do_not_end_anybodys_cancelling() {
        let mark = |caller: &str, id: &str| Mark {
            connection: "prod".to_owned(),
            caller: Some(caller.to_owned()),
            id: id.to_owned(),
        };
        let cancelled = Cancelled::default();
        let cancel = |caller: &str, id: &str| {
            cancelled.keep(Cancellation { mark: mark(caller, id), notice: Notice::Nothing });
        };
        cancel("before", "job");
        for invented in 0..10_500 {
            cancel("loud", &invented.to_string());
        }
        cancel("after", "job");
        let is_known = |caller, id| cancelled.notice(&mark(caller, id)).is_some();
        assert!(is_known("before", "job") && is_known("after", "job"));
        assert!(is_known("loud", "10499") && !is_known("loud", "0"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_cancellation_is_forgotten_although_none_has_come_since() {
        let mark = Mark { connection: "prod".to_owned(), caller: None, id: "job".to_owned() };
        let cancelled = Cancelled::default();
        cancelled.keep(Cancellation { mark: mark.clone(), notice: Notice::Answer });
        tokio::time::advance(KEPT / 2).await;
        assert_eq!(cancelled.notice(&mark), Some(Notice::Answer));
        tokio::time::advance(KEPT).await;
        assert_eq!(cancelled.notice(&mark), None);
    }

    #[test]
    fn workers_of_different_versions_understand_each_other() {
        let earlier = br#"{"connection":"prod","caller":null,"id":"job"}"#;
        let cancelled = Cancelled::default();
        cancelled.hear(earlier, &Callers::default());
        let mark: Mark = serde_json::from_slice(earlier).unwrap();
        assert_eq!(cancelled.notice(&mark), Some(Notice::Nothing));
        let now = json::to_vec(&Cancellation { mark: mark.clone(), notice: Notice::Answer });
        assert_eq!(serde_json::from_slice::<Mark>(&now).unwrap(), mark);
    }
}
