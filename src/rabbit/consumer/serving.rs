//! The service of one connection: this worker is counted there, and consumes both lanes.
//!
//! A halt ends the consumers first, then the messages in hand, then the presence. Invariant: every count of the
//! workers includes this one as long as it may send requests.

use std::sync::Arc;

use futures_util::future::try_join_all;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::domain::ids::{ConnectionName, Lane};
use crate::domain::message::Source;
use crate::domain::topology::Topology;
use crate::event::Event;

use super::consuming::{Consuming, Means};
use super::presence::{FIRST_COUNT_MAX, Presence};
use super::site::Site;
use crate::rabbit::client::connect::RECONNECT;
use crate::rabbit::client::declare::{DECLARE_TIMEOUT, declare};
use crate::rabbit::client::error::{SessionEnd, silent};

/// A set of queues that are served together.
pub(in crate::rabbit) struct Serving {
    presence: Option<Presence>,
    queues: Vec<Consuming>,
    means: Means,
}

impl Serving {
    /// Begins to serve a connection: declares its queues, joins the counted workers (waiting until `counted_by` at
    /// most), and only then consumes.
    ///
    /// # Errors
    /// If the broker's queues differ from those needed, or the AMQP connection fails.
    pub async fn begin(site: &Site, name: &ConnectionName, counted_by: Instant) -> Result<Self, SessionEnd> {
        // A separate channel, because a refusal closes it.
        let channel = site.connection.create_channel().await.map_err(SessionEnd::unreachable)?;
        declare(&channel, &Topology::of_connection(name), site.passive)
            .await
            .map_err(SessionEnd::Undeclared)?;
        let presence = Presence::announce(site, name, counted_by).await?;
        // Again, now that this worker is counted: a worker that removes the connection may just have unbound its
        // queues.
        declare(&channel, &Topology::of_connection(name), site.passive)
            .await
            .map_err(SessionEnd::Undeclared)?;
        let lanes = Lane::ALL.map(|lane| Source::Work { connection: name.clone(), lane });
        Ok(Self { presence: Some(presence), ..Self::consuming(site, &lanes).await? })
    }

    /// Begins to consume queues without joining the counted workers.
    ///
    /// # Errors
    /// If the AMQP connection fails.
    pub async fn consuming(site: &Site, sources: &[Source]) -> Result<Self, SessionEnd> {
        let means = site.means.part();
        let mut queues = Vec::new();
        for source in sources {
            queues.push(
                Consuming::begin(&site.connection, source, &means, Some(Arc::clone(&site.restoring))).await?,
            );
        }
        Ok(Self { presence: None, queues, means })
    }

    /// Serves until told to halt, and then until all messages in hand are done.
    ///
    /// # Errors
    /// If a part ends without being told to halt.
    pub async fn keep(self, halt: CancellationToken) -> Result<(), SessionEnd> {
        let Self { presence, queues, means } = self;
        let at_work = async {
            try_join_all(queues.into_iter().map(|queue| queue.run(halt.clone()))).await?;
            means.in_flight.finished().await;
            Ok(())
        };
        match presence {
            None => at_work.await,
            Some(mut presence) => {
                let ended = tokio::select! {
                    ended = at_work => ended,
                    fault = presence.keep(&halt) => Err(fault),
                };
                presence.leave().await;
                ended
            }
        }
    }
}

/// Serves a connection that is added while others are served. If the broker lacks a queue or exchange that it needs,
/// reports that and retries later, without affecting the other connections.
///
/// # Errors
/// If a part ends without being told to halt.
pub(in crate::rabbit) async fn serve(
    site: Arc<Site>,
    name: ConnectionName,
    halt: CancellationToken,
) -> Result<(), SessionEnd> {
    let mut failures = 0;
    loop {
        let begun = Serving::begin(&site, &name, Instant::now() + FIRST_COUNT_MAX);
        let begun = timeout(DECLARE_TIMEOUT, begun).await.map_err(|_| silent())?;
        let why = match begun {
            Ok(serving) => return serving.keep(halt).await,
            Err(SessionEnd::Undeclared(why)) if site.is_up() => why.to_string(),
            Err(fault) => return Err(fault),
        };
        site.observer.note(&Event::Unserved { connection: &name, why: &why });
        failures += 1;
        tokio::select! {
            () = sleep(RECONNECT.wait(failures, 1.0)) => {}
            () = halt.cancelled() => return Ok(()),
        }
    }
}
