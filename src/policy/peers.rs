//! The workers of a connection, known to each other by heartbeats.
//!
//! A heartbeat names its worker, the worker's release and the connections that it serves. A worker also receives its
//! own heartbeats: while it does, silence of another worker means that it is gone; otherwise the number of workers is
//! unknown. Fields added by later releases are ignored, so releases may differ.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// The interval of heartbeats.
pub const HEARTBEAT_EVERY: Duration = Duration::from_secs(2);

/// The silence after which a worker counts as gone: three heartbeats were lost, and the fourth is late.
const SILENCE_MAX: Duration = Duration::from_secs(7);

/// The longest heartbeat accepted, in bytes: a worker with a thousand connections of the longest names.
const HEARTBEAT_BYTES_MAX: usize = 40 * 1024;

/// The most workers that are remembered.
const WORKERS_MAX: usize = 1000;

/// A worker's announcement of itself and its connections.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// The worker: a random number that stays the same while the process lives.
    pub worker: u64,
    /// The worker's release, as in `okta-worker --version`.
    pub release: String,
    /// The connections that the worker serves.
    pub connections: BTreeSet<String>,
    /// True if the worker has just started and asks the others for an immediate heartbeat.
    #[serde(default)]
    pub asks: bool,
}

impl Heartbeat {
    /// Serializes the heartbeat to a message body.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("names and numbers are always JSON")
    }

    /// Parses a message body; `None` if it is not a heartbeat.
    pub fn decode(body: &[u8]) -> Option<Self> {
        if body.len() > HEARTBEAT_BYTES_MAX {
            return None;
        }
        serde_json::from_slice(body).ok()
    }
}

/// The last heartbeat of each worker.
#[derive(Debug)]
pub struct Peers {
    own: u64,
    latest: HashMap<u64, (Heartbeat, Instant)>,
}

impl Peers {
    /// Creates an empty table. `own` is the number of this worker.
    pub fn new(own: u64) -> Self {
        Self { own, latest: HashMap::new() }
    }

    /// Remembers a heartbeat.
    pub fn hear(&mut self, heartbeat: Heartbeat, now: Instant) {
        self.latest.retain(|_, (_, at)| is_fresh(*at, now));
        if self.latest.len() < WORKERS_MAX || self.latest.contains_key(&heartbeat.worker) {
            self.latest.insert(heartbeat.worker, (heartbeat, now));
        }
    }

    /// Returns the number of workers that serve a connection, this one included; `None` while this worker does not
    /// receive its own heartbeats.
    pub fn workers(&self, connection: &str, now: Instant) -> Option<u32> {
        let (_, at) = self.latest.get(&self.own)?;
        if !is_fresh(*at, now) {
            return None;
        }
        let serves = |(heartbeat, at): &&(Heartbeat, Instant)| {
            heartbeat.worker != self.own && is_fresh(*at, now) && heartbeat.connections.contains(connection)
        };
        let others = self.latest.values().filter(serves).count();
        Some(u32::try_from(others).unwrap_or(u32::MAX).saturating_add(1))
    }
}

fn is_fresh(at: Instant, now: Instant) -> bool {
    now.saturating_duration_since(at) <= SILENCE_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heartbeat(worker: u64, connections: &[&str]) -> Heartbeat {
        let connections = connections.iter().map(|name| (*name).to_owned()).collect();
        Heartbeat { worker, release: "0.1.0".to_owned(), connections, asks: false }
    }

    #[test]
    fn the_workers_of_a_connection_are_those_that_were_heard_lately_and_this_one() {
        let now = Instant::now();
        let mut peers = Peers::new(1);
        peers.hear(heartbeat(1, &[]), now);
        peers.hear(heartbeat(2, &["prod", "other"]), now);
        peers.hear(heartbeat(3, &["prod"]), now);
        assert_eq!((peers.workers("prod", now), peers.workers("other", now)), (Some(3), Some(2)));
        // One no longer serves it; another has fallen silent.
        let later = now + SILENCE_MAX;
        peers.hear(heartbeat(1, &["prod"]), later);
        peers.hear(heartbeat(2, &["other"]), later);
        assert_eq!(peers.workers("prod", later), Some(2));
        assert_eq!(peers.workers("prod", later + Duration::from_millis(1)), Some(1));
    }

    #[test]
    fn a_worker_that_does_not_hear_itself_does_not_know_who_is_there() {
        let now = Instant::now();
        let mut peers = Peers::new(1);
        peers.hear(heartbeat(2, &["prod"]), now);
        assert_eq!(peers.workers("prod", now), None);
        peers.hear(heartbeat(1, &["prod"]), now);
        assert_eq!(peers.workers("prod", now), Some(2));
        assert_eq!(peers.workers("prod", now + SILENCE_MAX + Duration::from_millis(1)), None);
    }

    #[test]
    fn more_workers_than_there_can_be_are_not_remembered_and_this_one_always_is() {
        let now = Instant::now();
        let mut peers = Peers::new(1);
        peers.hear(heartbeat(1, &[]), now);
        for worker in 2..2 * WORKERS_MAX as u64 {
            peers.hear(heartbeat(worker, &["prod"]), now);
        }
        peers.hear(heartbeat(1, &[]), now);
        assert_eq!(peers.workers("prod", now), Some(WORKERS_MAX as u32));
    }

    #[test]
    fn a_heartbeat_of_a_later_release_is_understood_and_what_is_none_is_nothing() {
        let later =
            br#"{"worker":7,"release":"0.9.0","connections":["prod"],"asks":true,"protocol":2,"state":{"a":1}}"#;
        let read = Heartbeat::decode(later).unwrap();
        assert_eq!((read.worker, &*read.release, read.asks), (7, "0.9.0", true));
        assert_eq!(Heartbeat::decode(&heartbeat(7, &["prod"]).encode()), Some(heartbeat(7, &["prod"])));
        let long = Heartbeat { release: "x".repeat(HEARTBEAT_BYTES_MAX), ..heartbeat(7, &[]) };
        for body in [&b""[..], b"{}", b"[1,2]", b"{\"worker\":-1}", b"\xff", &long.encode()] {
            assert_eq!(Heartbeat::decode(body), None);
        }
    }
}
