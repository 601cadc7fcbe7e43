//! Gossip: signals between workers about a bucket's window, by which all workers share the observations of each.
//!
//! A signal holds ages and remaining times, never the reading of a clock, because the machines' clocks may differ. It
//! may be lost, late, repeated or wrong; it only ever makes a receiver more careful.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The longest signal accepted, in bytes. The usual signal has some sixty.
pub const SIGNAL_BYTES_MAX: usize = 512;

/// The state of a bucket's window as one worker knows it.
#[derive(Debug, Clone, PartialEq)]
pub struct Signal {
    /// The worker: a random number that stays the same while the process lives.
    pub worker: u32,
    /// The ledger: the name of a bucket, or of a route split off from one.
    pub ledger: String,
    /// The window, named by the reset of its headers, in seconds since 1970.
    pub reset: i64,
    /// The limit last announced.
    pub limit: u32,
    /// The lowest remaining that an answer announced.
    pub remaining: u32,
    /// The time since the request of that answer was sent.
    pub age: Duration,
    /// The time to the latest possible end of the window.
    pub to_end: Duration,
    /// The worker's requests in flight.
    pub in_flight: u32,
    /// The worker's own rate, in requests per second.
    pub rate: f64,
    /// True if the worker has work for this bucket.
    pub at_work: bool,
}

/// The wire format: a JSON array, with whole milliseconds and thousandths of a request.
#[derive(Serialize, Deserialize)]
struct SignalWire(u32, String, i64, u32, u32, u32, u32, u32, u32, u8);

impl Signal {
    /// Serializes the signal to a message body.
    pub fn encode(&self) -> Vec<u8> {
        let millis = |time: Duration| u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
        // Rounded up, because these are bounds. A bound that is rounded down would be earlier for the receiver than for
        // the sender if the signal took less than a millisecond, and a window's end would move towards now with each
        // worker that passes it on.
        let at_least = |time: Duration| millis(time + Duration::from_nanos(999_999));
        let wire = SignalWire(
            self.worker,
            self.ledger.clone(),
            self.reset,
            self.limit,
            self.remaining,
            at_least(self.age),
            at_least(self.to_end),
            self.in_flight,
            millis(Duration::from_secs_f64(self.rate.clamp(0.0, 1e6))),
            u8::from(self.at_work),
        );
        serde_json::to_vec(&wire).expect("numbers and a name are always JSON")
    }

    /// Parses a message body; `None` if it is not a signal.
    pub fn decode(body: &[u8]) -> Option<Self> {
        if body.len() > SIGNAL_BYTES_MAX {
            return None;
        }
        let SignalWire(worker, ledger, reset, limit, remaining, age, to_end, in_flight, rate, at_work) =
            serde_json::from_slice(body).ok()?;
        let millis = |millis: u32| Duration::from_millis(u64::from(millis));
        Some(Self {
            worker,
            ledger,
            reset,
            limit,
            remaining: remaining.min(limit),
            age: millis(age),
            to_end: millis(to_end),
            in_flight,
            rate: f64::from(rate) / 1000.0,
            at_work: at_work != 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signal() -> Signal {
        Signal {
            worker: u32::MAX,
            ledger: "user_write".to_owned(),
            reset: 1_772_442_060,
            limit: 10_000,
            remaining: 9_999,
            age: Duration::from_millis(12_345),
            to_end: Duration::from_millis(47_655),
            in_flight: 28,
            rate: 166.625,
            at_work: true,
        }
    }

    #[test]
    fn a_signal_survives_its_way_and_is_small() {
        let body = signal().encode();
        assert_eq!(Signal::decode(&body), Some(signal()));
        assert!(body.len() <= 80, "{} bytes: {}", body.len(), String::from_utf8_lossy(&body));
    }

    #[test]
    fn no_end_comes_closer_on_its_way_and_no_knowledge_gets_younger() {
        let told =
            Signal { age: Duration::from_nanos(1), to_end: Duration::from_micros(14_950_001), ..signal() };
        let mut heard = told.clone();
        for _ in 0..1000 {
            heard = Signal::decode(&heard.encode()).unwrap();
            assert!(heard.to_end >= told.to_end && heard.age >= told.age, "{heard:?}");
        }
        assert_eq!((heard.age, heard.to_end), (Duration::from_millis(1), Duration::from_millis(14_951)));
    }

    #[test]
    fn what_is_not_a_signal_is_nothing() {
        for body in [&b""[..], b"{}", b"[1]", b"[-1,\"users\",0,0,0,0,0,0,0,0]", b"\xff"] {
            assert_eq!(Signal::decode(body), None);
        }
        let long = Signal { ledger: "x".repeat(SIGNAL_BYTES_MAX), ..signal() };
        assert_eq!(Signal::decode(&long.encode()), None);
    }

    #[test]
    fn more_remaining_than_the_limit_is_not_believed() {
        let lie = Signal { remaining: 600, limit: 100, ..signal() };
        assert_eq!(Signal::decode(&lie.encode()).unwrap().remaining, 100);
    }
}
