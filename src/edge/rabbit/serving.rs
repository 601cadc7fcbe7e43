//! One connection being served: this worker is counted there, and both its lanes are consumed.
//!
//! It ends by itself when it is told to halt: consuming first, then what is in hand, presence last.
//! Invariant: whoever counts the workers counts this one as long as it may send.

use std::sync::Arc;

use futures_util::future::try_join_all;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::domain::ids::{ConnectionName, Lane};
use crate::domain::mail::Source;
use crate::domain::topology::Topology;
use crate::worker::event::Event;

use super::connecting::RECONNECT;
use super::consuming::{Consuming, Means};
use super::declare::{DECLARE_TIMEOUT, declare};
use super::doubt::{Doubt, silent};
use super::presence::{FIRST_COUNT_MAX, Presence};
use super::site::Site;
use super::turned;

/// Some queues that are served together.
pub(super) struct Serving {
    presence: Option<Presence>,
    queues: Vec<Consuming>,
    means: Means,
}

impl Serving {
    /// Begins to serve a connection: declares its queues, is counted, for which it waits until then at most, and only
    /// then consumes.
    ///
    /// # Errors
    /// When the broker has other queues than it needs, or the AMQP connection is no good.
    pub async fn begin(site: &Site, name: &ConnectionName, counted_by: Instant) -> Result<Self, Doubt> {
        // Of its own, because a refusal closes it.
        let channel = site.connection.create_channel().await.map_err(Doubt::unreachable)?;
        declare(&channel, &Topology::of_connection(name), site.passive).await.map_err(Doubt::Undeclared)?;
        let presence = Presence::announce(site, name, counted_by).await?;
        // Again, now that this worker is counted: one that has removed the connection may just have unbound it.
        declare(&channel, &Topology::of_connection(name), site.passive).await.map_err(Doubt::Undeclared)?;
        let lanes = Lane::ALL.map(|lane| Source::Work { connection: name.clone(), lane });
        Ok(Self { presence: Some(presence), ..Self::consuming(site, &lanes).await? })
    }

    /// Begins to consume queues that belong to no connection.
    ///
    /// # Errors
    /// When the AMQP connection is no good.
    pub async fn consuming(site: &Site, sources: &[Source]) -> Result<Self, Doubt> {
        let means = site.means.part();
        let mut queues = Vec::new();
        for source in sources {
            queues.push(
                Consuming::begin(&site.connection, source, &means, Some(Arc::clone(&site.restoring))).await?,
            );
        }
        Ok(Self { presence: None, queues, means })
    }

    /// Serves until told to halt, and then until everything in hand is done.
    ///
    /// # Errors
    /// When something ended although nobody said so.
    pub async fn keep(self, halt: watch::Receiver<bool>) -> Result<(), Doubt> {
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
                    doubt = presence.keep(&halt) => Err(doubt),
                };
                presence.leave().await;
                ended
            }
        }
    }
}

/// Serves a connection that came while others are being served. If the broker has not what it needs,
/// that is said, and tried again later: the others have nothing to do with it.
///
/// # Errors
/// When something ended although nobody said so.
pub(super) async fn serve(
    site: Arc<Site>,
    name: ConnectionName,
    mut halt: watch::Receiver<bool>,
) -> Result<(), Doubt> {
    let mut failures = 0;
    loop {
        let begun = Serving::begin(&site, &name, Instant::now() + FIRST_COUNT_MAX);
        let begun = timeout(DECLARE_TIMEOUT, begun).await.map_err(|_| silent())?;
        let why = match begun {
            Ok(serving) => return serving.keep(halt).await,
            Err(Doubt::Undeclared(why)) if site.is_up() => why.to_string(),
            Err(doubt) => return Err(doubt),
        };
        site.observer.note(&Event::Unserved { connection: &name, why: &why });
        failures += 1;
        tokio::select! {
            () = sleep(RECONNECT.wait(failures, 1.0)) => {}
            () = turned(&mut halt) => return Ok(()),
        }
    }
}
