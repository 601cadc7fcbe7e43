//! The queues of a connection that was removed while this worker ran: their remaining messages are answered.
//!
//! Workers load a new configuration one after another, so this worker answers nothing while any worker still serves
//! the connection, by the broker's count. Then it consumes the queues for as long as it runs, and removes their
//! bindings: a message published later finds no queue, and any worker answers it like one for an unknown connection.
//! The queues stay, because RabbitMQ cannot delete a quorum queue on condition that it is empty. Invariant: a
//! connection that is served has its bindings.

use std::sync::Arc;
use std::time::Duration;

use lapin::Channel;
use lapin::types::{FieldTable, ShortString};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::domain::ids::{ConnectionName, Lane};
use crate::domain::message::Source;
use crate::domain::topology::{Topology, source_queue};
use crate::event::Event;

use super::presence::is_served;
use super::serving::Serving;
use super::site::Site;
use crate::rabbit::client::declare::{DECLARE_TIMEOUT, declare, is_gone, look};
use crate::rabbit::client::error::{SessionEnd, silent};

/// The interval between counts of the workers that still serve the connection.
const COUNT_EVERY: Duration = Duration::from_secs(2);

/// The number of consecutive counts of zero required: a worker that restarts is absent for a moment.
const ABSENT_COUNTS: u32 = 3;

/// Answers the messages in the queues of a removed connection, until told to halt or until the queues are gone.
///
/// # Errors
/// If the AMQP connection fails.
pub(in crate::rabbit) async fn answer_removed(
    site: Arc<Site>,
    name: ConnectionName,
    halt: CancellationToken,
) -> Result<(), SessionEnd> {
    let removed = Removed { site, name };
    loop {
        if !removed.is_left_by_all(&halt).await? {
            return Ok(());
        }
        let ended = timeout(DECLARE_TIMEOUT, removed.begin()).await.map_err(|_| silent())?;
        let ended = match ended {
            Ok(Some(serving)) => removed.answer(serving, &halt).await,
            Ok(None) => return Ok(()), // its queues are deleted
            Err(fault) => Err(fault),
        };
        match ended {
            Err(fault) if !removed.site.is_up() => return Err(fault),
            // Somebody deleted the queues, or serves the connection again: that does not affect other connections.
            Ok(()) | Err(_) => {}
        }
    }
}

struct Removed {
    site: Arc<Site>,
    name: ConnectionName,
}

impl Removed {
    /// Waits until no worker serves the connection; returns false if told to halt before.
    async fn is_left_by_all(&self, halt: &CancellationToken) -> Result<bool, SessionEnd> {
        let mut absent = 0;
        while absent < ABSENT_COUNTS {
            tokio::select! {
                biased;
                () = halt.cancelled() => return Ok(false),
                () = sleep(COUNT_EVERY) => {}
            }
            absent = if self.is_served().await? { 0 } else { absent + 1 };
        }
        Ok(true)
    }

    /// Returns true if any worker serves the connection, or if no count is available.
    async fn is_served(&self) -> Result<bool, SessionEnd> {
        Ok(is_served(&self.site, &self.name).await?.unwrap_or(true))
    }

    /// Consumes the queues, if they exist, and removes their bindings.
    async fn begin(&self) -> Result<Option<Serving>, SessionEnd> {
        let topology = Topology::of_connection(&self.name);
        let mut lanes = Vec::new();
        for lane in Lane::ALL {
            let source = Source::Removed { connection: self.name.clone(), lane };
            match look(&self.channel().await?, &source_queue(&source)).await {
                Ok(_) => lanes.push(source),
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(SessionEnd::unreachable(error)),
            }
        }
        if lanes.is_empty() {
            return Ok(None);
        }
        self.site.observer.note(&Event::Removed { connection: &self.name });
        let serving = Serving::consuming(&self.site, &lanes).await?;
        if !self.site.passive {
            self.unbind(&topology).await?;
        }
        Ok(Some(serving))
    }

    /// Removes the bindings, and restores them if a worker has joined meanwhile: a worker is counted before it binds
    /// for the second time, so one of the two sees the other.
    async fn unbind(&self, topology: &Topology) -> Result<(), SessionEnd> {
        for queue in &topology.queues {
            for (exchange, key) in &queue.bindings {
                let [queue, exchange, key] = [&queue.name, exchange, key].map(|text| short(text));
                let unbound =
                    self.channel().await?.queue_unbind(queue, exchange, key, FieldTable::default()).await;
                // A deleted queue has no binding; a worker that may not unbind continues to consume.
                if unbound.is_err() && !self.site.is_up() {
                    return Err(SessionEnd::Lost("a binding cannot be removed"));
                }
            }
        }
        if self.is_served().await? {
            declare(&self.channel().await?, topology, false).await.map_err(SessionEnd::Undeclared)?;
        }
        Ok(())
    }

    /// Answers messages until told to halt, or until a worker serves the connection again.
    async fn answer(&self, serving: Serving, halt: &CancellationToken) -> Result<(), SessionEnd> {
        let over = CancellationToken::new();
        let keeping = serving.keep(over.clone());
        tokio::pin!(keeping);
        let is_over = async {
            loop {
                tokio::select! {
                    biased;
                    () = halt.cancelled() => return Ok(()),
                    () = sleep(COUNT_EVERY) => {}
                }
                if self.is_served().await? {
                    return Ok(());
                }
            }
        };
        tokio::select! {
            ended = &mut keeping => return ended,
            is_over = is_over => is_over?,
        }
        over.cancel();
        keeping.await
    }

    /// Opens a channel for one call: a refusal closes it.
    async fn channel(&self) -> Result<Channel, SessionEnd> {
        self.site.connection.create_channel().await.map_err(SessionEnd::unreachable)
    }
}

fn short(text: &str) -> ShortString {
    ShortString::try_new(text).expect("names of queues, exchanges and keys of ours are far below 255 bytes")
}
