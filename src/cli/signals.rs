//! The signals that a command listens for.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use super::exit::NotBegun;

/// The requests to stop so far: SIGTERM and SIGINT.
#[derive(Clone)]
pub(super) struct StopRequests(watch::Receiver<u32>);

impl StopRequests {
    /// Listens from now on. Without a listener, a signal kills the process.
    ///
    /// # Errors
    /// If the system installs no signal handler.
    pub fn listen() -> Result<Self, NotBegun> {
        let (mut terminate, mut interrupt) =
            (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
        let (count, requests) = watch::channel(0);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                count.send_modify(|count| *count += 1);
            }
        });
        Ok(Self(requests))
    }

    /// Creates requests that are counted by the returned sender.
    #[cfg(test)]
    pub fn counted_by() -> (watch::Sender<u32>, Self) {
        let (count, requests) = watch::channel(0);
        (count, Self(requests))
    }

    /// Waits until there have been this many requests.
    pub async fn reach(&mut self, number: u32) {
        if self.0.wait_for(|count| *count >= number).await.is_err() {
            std::future::pending().await
        }
    }

    /// Waits for the next request.
    pub async fn next(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending().await
        }
    }
}

/// Listens for SIGHUP.
///
/// # Errors
/// If the system installs no signal handler.
pub(super) fn hangup() -> Result<Signal, NotBegun> {
    listen(SignalKind::hangup())
}

/// Listens for a signal by its number.
///
/// # Errors
/// If the system installs no signal handler.
pub(super) fn listen(kind: SignalKind) -> Result<Signal, NotBegun> {
    signal(kind).map_err(|error| NotBegun(format!("failed to listen for signals: {error}")))
}
