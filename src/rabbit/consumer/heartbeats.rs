//! Heartbeats: each worker tells all other workers every two seconds which connections it serves.
//!
//! Heartbeats use the exchange of the signals, so they survive the loss of any node: the exchange is on all nodes, and
//! the queue of a worker is on the node of its connection. Nothing waits for a heartbeat.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use crate::domain::ids::ConnectionName;
use crate::policy::peers::{HEARTBEAT_EVERY, Heartbeat, Peers};

/// The AMQP `type` of a heartbeat.
pub(in crate::rabbit) const HEARTBEAT: &str = "okta.worker";

/// The time within which several requests for a heartbeat get one common answer.
const COALESCE: Duration = Duration::from_millis(100);

/// The heartbeats that one worker sends and receives.
pub(in crate::rabbit) struct Heartbeats {
    worker: u64,
    peers: Mutex<Peers>,
    /// The connections that this worker serves.
    serving: Mutex<BTreeSet<String>>,
    /// Notified when another worker has just started and asks which workers exist.
    asked: Notify,
}

impl Default for Heartbeats {
    fn default() -> Self {
        let worker = fastrand::u64(..);
        let peers = Mutex::new(Peers::new(worker));
        Self { worker, peers, serving: Mutex::default(), asked: Notify::new() }
    }
}

impl Heartbeats {
    /// Records a received heartbeat, this worker's own included.
    pub fn hear(&self, body: &[u8]) {
        let Some(heartbeat) = Heartbeat::decode(body) else { return };
        if heartbeat.asks && heartbeat.worker != self.worker {
            self.asked.notify_one();
        }
        locked(&self.peers).hear(heartbeat, Instant::now());
    }

    /// Returns the number of workers that serve a connection; `None` while this worker receives no heartbeats.
    pub fn workers(&self, connection: &ConnectionName) -> Option<u32> {
        locked(&self.peers).workers(connection.as_str(), Instant::now())
    }

    /// Adds a connection to the served ones, from the next heartbeat on.
    pub fn serve(&self, connection: &ConnectionName) {
        locked(&self.serving).insert(connection.to_string());
    }

    /// Removes a connection from the served ones.
    pub fn leave(&self, connection: &ConnectionName) {
        locked(&self.serving).remove(connection.as_str());
    }

    /// Waits until the next heartbeat is due: every two seconds, and when another worker asks.
    pub async fn due(&self) {
        let _ = timeout(HEARTBEAT_EVERY, self.asked.notified()).await;
        sleep(COALESCE).await;
    }

    /// Returns the next heartbeat.
    pub fn next(&self, asks: bool) -> Heartbeat {
        let (worker, release) = (self.worker, env!("CARGO_PKG_VERSION").to_owned());
        Heartbeat { worker, release, connections: locked(&self.serving).clone(), asks }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
