//! Quarantine: each queue is consumed over a connection of its own, one message at a time.
//!
//! A message whose properties are not UTF-8 breaks lapin's connection on every delivery, and all messages delivered
//! with it return to their queues, each one delivery closer to their limit. In quarantine, it breaks only its own
//! queue's connection until the broker dead-letters it.

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::domain::ids::Lane;
use crate::domain::message::Source;
use crate::event::Event;

use super::consuming::{Consuming, Means};
use super::generation::DRAIN_MAX;
use super::presence::{FIRST_COUNT_MAX, Presence};
use super::supervisor::Supervisor;
use crate::rabbit::client::connect::{RECONNECT_MIN, close};
use crate::rabbit::client::declare::DECLARE_TIMEOUT;
use crate::rabbit::client::error::{SessionEnd, silent};

/// The time for which the quarantine lasts after the last unreadable message.
const QUARANTINE: Duration = Duration::from_secs(30);

/// The text for a presence task that panicked.
const BUG: &str = "the task that keeps this worker counted has a bug";

impl Supervisor {
    /// Consumes in quarantine until half a minute has passed without another unreadable message, or until the set of
    /// served connections changes.
    ///
    /// # Errors
    /// If the quarantine ends for another reason.
    pub(in crate::rabbit) async fn quarantine(&self, stopping: &CancellationToken) -> Result<(), SessionEnd> {
        self.observer
            .note(&Event::Broker { connected: true, why: "a message cannot be read: consuming one by one" });
        let mut roster = self.roster.clone();
        let names = roster.names();
        let lanes = names.iter().flat_map(|connection| {
            Lane::ALL.map(|lane| Source::Work { connection: connection.clone(), lane })
        });
        let sources: Vec<_> = lanes.chain([Source::Unrouted, Source::Undelivered]).collect();

        let site = self.site(self.open("presence").await?);
        let fault = self.attach().await?;
        let _listening = self.signals.listen(&site.connection).await;
        let halt = CancellationToken::new();
        let mut presences = JoinSet::new();
        let join = async {
            let counted_by = Instant::now() + FIRST_COUNT_MAX;
            for name in &names {
                let (mut announced, halt) =
                    (Presence::announce(&site, name, counted_by).await?, halt.clone());
                presences.spawn(async move { announced.keep(&halt).await });
            }
            Ok(())
        };
        timeout(DECLARE_TIMEOUT, join).await.map_err(|_| silent())??;

        let broken = Notify::new();
        let mut consumers: FuturesUnordered<_> =
            sources.iter().map(|source| self.keep_apart(source, &halt, &broken)).collect();
        let quiet = async { while timeout(QUARANTINE, broken.notified()).await.is_ok() {} };
        let ended = tokio::select! {
            _ = consumers.next() => Ok(()),
            () = quiet => Ok(()),
            () = roster.changed() => Ok(()),
            () = fault.notified() => Err(SessionEnd::Lost("the publishing connection failed")),
            Some(left) = presences.join_next() => Err(left.unwrap_or(SessionEnd::Lost(BUG))),
            () = stopping.cancelled() => Err(SessionEnd::Stopping),
        };
        halt.cancel();
        let finished = async {
            while consumers.next().await.is_some() {}
            self.means.in_flight.finished().await;
        };
        let is_finished = timeout(DRAIN_MAX, finished).await.is_ok();
        self.publisher.detach().await;
        drop(presences);
        close(&site.connection).await;
        match ended {
            Err(SessionEnd::Stopping) if !is_finished => Err(SessionEnd::Unfinished("time was up")),
            ended => ended,
        }
    }

    /// Consumes one queue over one connection after the other.
    async fn keep_apart(&self, source: &Source, halt: &CancellationToken, broken: &Notify) {
        while !halt.is_cancelled() {
            let means = Means { prefetch: 1, ..self.means.part() };
            let consumed = async {
                let connection = self.open("consuming apart").await?;
                let begun =
                    timeout(DECLARE_TIMEOUT, Consuming::begin(&connection, source, &means, None)).await;
                let consuming = begun.map_err(|_| silent())??;
                consuming.run(halt.clone()).await?;
                means.in_flight.finished().await; // and acknowledged, as long as the connection is up
                Result::<_, SessionEnd>::Ok(connection)
            };
            if consumed.await.is_err() {
                broken.notify_one();
                sleep(RECONNECT_MIN).await;
            }
        }
    }
}
