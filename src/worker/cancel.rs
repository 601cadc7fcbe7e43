//! Invocations that nobody wants any more: what has not begun is dropped, what has begun is finished.
//!
//! A caller cancels by a message of type [`CANCEL`] with the invocation's id, by the way the invocation went.
//! Whichever worker gets it tells the others, because any of them may hold the invocation. Invariant: only who
//! asked can cancel.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::domain::ids::ConnectionName;
use crate::domain::json;
use crate::domain::message::{Address, CANCEL, Post, Properties};
use crate::domain::topology::SIGNALS;
use crate::policy::authorization::Callers;

use super::context::Letter;
use super::ports::Postbox;
use super::shares::Shares;

/// How long it is remembered: what lies aside comes back within the hour, most of it within minutes.
const KEPT: Duration = Duration::from_secs(15 * 60);

/// The most that are remembered, of all callers together. Beyond it the caller with most of them loses its oldest.
const KEPT_MAX: usize = 10_000;

/// What the caller hears of an invocation that is dropped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Notice {
    /// Nothing.
    #[default]
    Nothing,
    /// The answer `cancelled`, because the cancellation named a `reply_to`.
    Answer,
}

/// A cancellation, as workers tell it to each other. Earlier versions say only whose it is.
#[derive(Serialize, Deserialize)]
struct Cancellation {
    #[serde(flatten)]
    mark: Mark,
    #[serde(default)]
    notice: Notice,
}

/// Whose cancellations share their room: those of one caller on one connection.
type Owner = (String, Option<String>);

/// Whose invocation it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Mark {
    connection: String,
    caller: Option<String>,
    id: String,
}

impl Mark {
    /// The invocation of a letter, or the one that it cancels: it has the same id.
    pub fn of(letter: &Letter) -> Option<Self> {
        let (connection, _) = letter.lane()?;
        let caller = letter.docket.caller.clone();
        Some(Self { connection: connection.to_string(), caller, id: letter.id.clone() })
    }

    /// Whether the caller may use the connection at all; who may not has nothing there to cancel.
    pub fn is_permitted(&self, callers: &Callers) -> bool {
        let connection = ConnectionName::parse(&self.connection).ok();
        connection.is_some_and(|connection| callers.may_use(self.caller.as_deref(), &connection))
    }
}

/// What was cancelled lately.
pub(super) struct Cancelled {
    marks: Mutex<Shares<Owner, Mark, Notice>>,
    /// Changes with each.
    news: watch::Sender<()>,
}

impl Default for Cancelled {
    fn default() -> Self {
        Self { marks: Mutex::new(Shares::new(KEPT, KEPT_MAX)), news: watch::Sender::new(()) }
    }
}

impl Cancelled {
    /// A caller has cancelled: every worker is to know.
    pub async fn add(&self, mark: Mark, notice: Notice, postbox: &dyn Postbox, own_user: Option<&str>) {
        let cancellation = Cancellation { mark, notice };
        let post = Post {
            to: Address::Exchange(SIGNALS, cancellation.mark.connection.clone()),
            properties: Properties {
                user_id: own_user.map(str::to_owned),
                kind: Some(CANCEL.to_owned()),
                ..Properties::default()
            },
            body: json::to_vec(&cancellation).into(),
        };
        self.keep(cancellation);
        // A courtesy: where it gets lost the invocation is run, and its answer finds nobody.
        let _ = postbox.post(&post).await;
    }

    /// Another worker has told what one of these callers has cancelled.
    pub fn hear(&self, told: &[u8], callers: &Callers) {
        let Ok(cancellation) = serde_json::from_slice::<Cancellation>(told) else { return };
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
        self.news.send_replace(());
    }

    fn notice(&self, mark: &Mark) -> Option<Notice> {
        let marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        marks.get(mark, Instant::now()).copied()
    }

    /// Waits until an invocation is cancelled; what its caller is to hear.
    pub async fn wait(&self, letter: &Letter) -> Notice {
        let Some(mark) = Mark::of(letter) else { return std::future::pending().await };
        let mut news = self.news.subscribe();
        loop {
            if let Some(notice) = self.notice(&mark) {
                return notice;
            }
            if news.changed().await.is_err() {
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
