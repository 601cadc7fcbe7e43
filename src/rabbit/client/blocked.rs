//! Tracking of `connection.blocked`.
//!
//! A broker short of memory or disk notifies publishers and stops reading from them. lapin then buffers all messages,
//! without a limit. So the worker publishes nothing in that time, and the time does not count towards timeouts: a
//! message republished for lack of a confirm would only be a duplicate.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::event::{Event, Observer};
use crate::worker::ports::becomes;

/// The blocked state of one connection.
#[derive(Clone)]
pub(in crate::rabbit) struct Blocked {
    is_blocked: watch::Sender<bool>,
    observer: Arc<dyn Observer>,
}

impl Blocked {
    /// Creates the state of a connection that is not blocked.
    pub fn new(observer: &Arc<dyn Observer>) -> Self {
        Self { is_blocked: watch::Sender::new(false), observer: Arc::clone(observer) }
    }

    /// Tracks the broker's blocked notifications, and passes every event on.
    pub async fn follow(self, events: impl Stream<Item = lapin::Event>, mut pass: impl FnMut(&lapin::Event)) {
        let mut events = std::pin::pin!(events);
        while let Some(event) = events.next().await {
            pass(&event);
            match event {
                lapin::Event::ConnectionBlocked(why) => self.set(true, &why),
                lapin::Event::ConnectionUnblocked => self.set(false, "it has room again"),
                lapin::Event::Error(_) => self.set(false, "the connection is lost"),
                _ => {} // not about blocking
            }
        }
        self.set(false, "the connection is lost");
    }

    fn set(&self, blocked: bool, why: &str) {
        if self.is_blocked.send_replace(blocked) != blocked {
            self.observer.note(&Event::Blocked { blocked, why });
        }
    }

    /// Releases the waiting tasks, because the connection is given up.
    pub fn give_up(&self) {
        self.set(false, "the connection is given up");
    }

    /// Waits until the broker reads again.
    pub async fn passes(&self) {
        becomes(&mut self.is_blocked.subscribe(), false).await;
    }

    /// Waits for an action of the broker, for at most this time; time in which the connection is blocked does not
    /// count.
    pub async fn within<T>(&self, time: Duration, awaited: impl Future<Output = T>) -> Option<T> {
        let mut awaited = std::pin::pin!(awaited);
        let mut blocked = self.is_blocked.subscribe();
        loop {
            tokio::select! {
                biased;
                done = &mut awaited => return Some(done),
                () = becomes(&mut blocked, true) => {}
                () = sleep(time) => return None,
            }
            tokio::select! {
                biased;
                done = &mut awaited => return Some(done),
                () = becomes(&mut blocked, false) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::time::Instant;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    /// An observer that records the blocked notifications.
    #[derive(Default)]
    struct Said(Mutex<Vec<bool>>);

    impl Observer for Said {
        fn note(&self, event: &Event<'_>) {
            if let Event::Blocked { blocked, .. } = event {
                self.0.lock().unwrap().push(*blocked);
            }
        }
    }

    fn blocked() -> (Blocked, Arc<Said>) {
        let said = Arc::new(Said::default());
        let observer: Arc<dyn Observer> = Arc::<Said>::clone(&said);
        (Blocked::new(&observer), said)
    }

    #[tokio::test(start_paused = true)]
    async fn a_confirm_is_waited_for_as_long_as_the_broker_does_not_read() {
        let (blocked, _) = blocked();
        let begun = Instant::now();
        let waits = blocked.within(MINUTE, std::future::pending::<()>());
        let story = async {
            sleep(MINUTE / 2).await;
            blocked.set(true, "");
            sleep(100 * MINUTE).await;
            blocked.set(false, "");
        };
        let (confirmed, ()) = tokio::join!(waits, story);
        assert_eq!((confirmed, begun.elapsed()), (None, MINUTE / 2 + 101 * MINUTE));
        assert_eq!(blocked.within(MINUTE, std::future::ready(1)).await, Some(1));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_a_connection_that_is_gone_and_each_turn_is_said_once() {
        let (blocked, said) = blocked();
        let short = lapin::Event::ConnectionBlocked("low on memory".to_owned());
        let events = futures_util::stream::iter([short.clone(), short, lapin::Event::ConnectionUnblocked]);
        blocked.clone().follow(events, |_| {}).await;
        blocked.set(true, "");
        let (passed, ()) = tokio::join!(
            async {
                blocked.passes().await;
                true
            },
            blocked.clone().follow(futures_util::stream::empty(), |_| {})
        );
        assert!(passed);
        assert_eq!(*said.0.lock().unwrap(), [true, false, true, false]);
    }
}
