//! The pending calls, counted so that the server cancels them all before it ends.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// The time that the server waits for its calls to be cancelled.
const CANCELLING_MAX: Duration = Duration::from_millis(400);

/// The pending calls of one server.
#[derive(Debug)]
pub(super) struct Calls {
    stopping: CancellationToken,
    running: watch::Sender<usize>,
}

/// A guard of a pending call.
#[derive(Debug)]
pub(super) struct PendingCall<'a>(&'a Calls);

impl Default for Calls {
    fn default() -> Self {
        Self { stopping: CancellationToken::new(), running: watch::Sender::new(0) }
    }
}

impl Calls {
    /// Counts a call until the returned guard is dropped.
    pub fn begin(&self) -> PendingCall<'_> {
        self.running.send_modify(|running| *running += 1);
        PendingCall(self)
    }

    /// Tells all calls to end, and waits until they have, but not for long.
    pub async fn stop(&self) {
        self.stopping.cancel();
        let mut running = self.running.subscribe();
        let _ = timeout(CANCELLING_MAX, running.wait_for(|running| *running == 0)).await;
    }
}

impl PendingCall<'_> {
    /// Waits until the call is told to end.
    pub async fn told_to_stop(&self) {
        self.0.stopping.cancelled().await;
    }
}

impl Drop for PendingCall<'_> {
    fn drop(&mut self) {
        self.0.running.send_modify(|running| *running -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn stopping_waits_for_the_calls_and_not_for_ever() {
        let calls = Calls::default();
        let began = tokio::time::Instant::now();
        let obedient = async {
            let call = calls.begin();
            call.told_to_stop().await;
        };
        tokio::join!(obedient, calls.stop());
        assert_eq!(began.elapsed(), Duration::ZERO);
        let _deaf = calls.begin();
        calls.stop().await;
        assert_eq!(began.elapsed(), CANCELLING_MAX);
    }
}
