//! Quotas of callers in `okta.dead`: one caller's messages there must not push out those of others.
//!
//! The queue drops its oldest message when it is full, regardless of the caller. So for one caller and one reason, each
//! worker parks at once at most a part of the messages that the queue holds, and as many again over the time for which
//! the queue keeps messages. Invariant: the memory for the quotas is bounded, for any number of callers.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::domain::topology::DEAD_MAX;

use crate::event::ParkReason;

/// Default for the time for which parked messages are kept.
const DEAD_TTL: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// Returns the part of the queue that one caller may fill at once, for one reason. A message that a policy on the
/// broker has dropped is not its caller's fault, and a whole backlog may be dropped.
fn part(reason: ParkReason) -> f64 {
    match reason {
        ParkReason::Unreadable | ParkReason::CrashLoop | ParkReason::Internal => 1.0 / 20.0,
        ParkReason::Dropped => 1.0 / 2.0,
    }
}

/// The most quotas of single callers and reasons; callers beyond that number share one quota per reason.
const CALLERS_MAX: usize = 1024;

/// The owner of a quota, and its reason: a caller, or `None` for all callers without a quota of their own.
type ParkingOwner = (Option<Option<String>>, ParkReason);

/// The quotas of all callers.
pub(super) struct Parking {
    dead_max: f64,
    dead_ttl: Duration,
    quotas: Mutex<HashMap<ParkingOwner, Quota>>,
}

#[derive(Debug, Clone, Copy)]
struct Quota {
    left: f64,
    at: Instant,
}

impl Default for Parking {
    fn default() -> Self {
        Self::in_queue(DEAD_MAX, DEAD_TTL)
    }
}

impl Parking {
    /// Creates the quotas for a queue that holds this many messages for this time.
    pub fn in_queue(dead_max: u32, dead_ttl: Duration) -> Self {
        Self { dead_max: dead_max.into(), dead_ttl, quotas: Mutex::default() }
    }

    /// Takes one message from the caller's quota; returns false if nothing is left.
    pub fn take(&self, caller: Option<&str>, reason: ParkReason, now: Instant) -> bool {
        let mut quotas = self.quotas.lock().unwrap_or_else(PoisonError::into_inner);
        let mut owner = (Some(caller.map(str::to_owned)), reason);
        if quotas.len() >= CALLERS_MAX && !quotas.contains_key(&owner) {
            // A full quota need not be remembered.
            quotas.retain(|(_, reason), quota| self.left(*quota, *reason, now) < self.burst(*reason));
            if quotas.len() >= CALLERS_MAX {
                owner.0 = None;
            }
        }
        let quota = quotas.entry(owner).or_insert(Quota { left: self.burst(reason), at: now });
        let left = self.left(*quota, reason, now);
        let is_left = left >= 1.0;
        *quota = Quota { left: if is_left { left - 1.0 } else { left }, at: now };
        is_left
    }

    /// Returns the number of messages that a caller may park at once.
    fn burst(&self, reason: ParkReason) -> f64 {
        (self.dead_max * part(reason)).floor().max(1.0)
    }

    fn left(&self, quota: Quota, reason: ParkReason, now: Instant) -> f64 {
        let (since, burst) = (now.saturating_duration_since(quota.at), self.burst(reason));
        let more = burst * since.as_secs_f64() / self.dead_ttl.as_secs_f64().max(1.0);
        (quota.left + more).min(burst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_caller_parks_its_part_and_no_more_until_time_has_passed() {
        let parking = Parking::in_queue(400, 20 * HOUR);
        let now = Instant::now();
        let parked = |caller: Option<&str>, reason, count: usize, now| {
            (0..count).filter(|_| parking.take(caller, reason, now)).count()
        };
        assert_eq!(parked(Some("loud"), ParkReason::Unreadable, 400, now), 20);
        for (caller, reason) in [
            (Some("quiet"), ParkReason::Unreadable),
            (None, ParkReason::Unreadable),
            (Some("loud"), ParkReason::CrashLoop),
        ] {
            assert_eq!(parked(caller, reason, 1, now), 1, "{caller:?} {reason:?}");
        }
        assert_eq!(parked(Some("loud"), ParkReason::Dropped, 400, now), 200);
        assert_eq!(parked(Some("loud"), ParkReason::Unreadable, 400, now + 2 * HOUR), 2);
        assert_eq!(parked(Some("loud"), ParkReason::Unreadable, 400, now + 200 * HOUR), 20);
    }

    #[test]
    fn a_queue_that_holds_few_has_room_for_one_of_each() {
        let (parking, now) = (Parking::in_queue(3, HOUR), Instant::now());
        assert!(parking.take(Some("a"), ParkReason::Internal, now));
        assert!(!parking.take(Some("a"), ParkReason::Internal, now));
    }

    #[test]
    fn more_callers_than_can_be_told_apart_share_one_room() {
        let (parking, now) = (Parking::in_queue(200, HOUR), Instant::now());
        let take = |name: usize| parking.take(Some(&name.to_string()), ParkReason::Unreadable, now);
        assert!((0..CALLERS_MAX).all(take));
        assert_eq!((CALLERS_MAX..2 * CALLERS_MAX).filter(|name| take(*name)).count(), 10);
        assert!(parking.quotas.lock().unwrap().len() <= CALLERS_MAX + 1);
        assert!(take(7), "those who came before keep theirs");
    }
}
