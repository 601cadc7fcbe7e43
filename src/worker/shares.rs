//! A bounded store in which every owner has a share that new entries of other owners never evict.
//!
//! All entries are kept for the same time. If there is no room, the owner with the most loses its oldest entry.
//! Invariant: `get` never returns an entry older than that time, and an owner below its equal share loses nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;
use std::time::Duration;

use tokio::time::Instant;

/// Entries by key, each with an owner, a weight and a time.
#[derive(Debug)]
pub(super) struct Shares<O, K, V> {
    ttl: Duration,
    weight_max: usize,
    weight: usize,
    entries: HashMap<K, ShareEntry<O, V>>,
    /// Keys in the order of insertion.
    order: BTreeMap<u64, K>,
    owners: HashMap<O, OwnerShare>,
    next: u64,
}

#[derive(Debug)]
struct ShareEntry<O, V> {
    owner: O,
    value: V,
    weight: usize,
    since: Instant,
    number: u64,
}

/// The entries of one owner.
#[derive(Debug, Default)]
struct OwnerShare {
    weight: usize,
    numbers: BTreeSet<u64>,
}

impl<O: Clone + Eq + Hash, K: Clone + Eq + Hash, V> Shares<O, K, V> {
    /// Creates an empty store that keeps entries for this time, and entries of up to this weight together.
    pub fn new(ttl: Duration, weight_max: usize) -> Self {
        Self {
            ttl,
            weight_max,
            weight: 0,
            entries: HashMap::new(),
            order: BTreeMap::new(),
            owners: HashMap::new(),
            next: 0,
        }
    }

    /// Inserts a value, in place of an earlier one with this key.
    pub fn insert(&mut self, owner: O, key: K, value: V, weight: usize, now: Instant) {
        self.remove(&key);
        self.forget_old(now);
        if weight > self.weight_max {
            return;
        }
        let number = self.next;
        self.next += 1;
        let share = self.owners.entry(owner.clone()).or_default();
        share.weight += weight;
        share.numbers.insert(number);
        self.weight += weight;
        self.order.insert(number, key.clone());
        self.entries.insert(key, ShareEntry { owner, value, weight, since: now, number });
        while self.weight > self.weight_max {
            self.drop_oldest_of_heaviest();
        }
    }

    /// Returns the value with this key, if it is not too old.
    pub fn get(&self, key: &K, now: Instant) -> Option<&V> {
        let entry = self.entries.get(key)?;
        (now.saturating_duration_since(entry.since) < self.ttl).then_some(&entry.value)
    }

    /// Removes the entries that are too old.
    pub fn forget_old(&mut self, now: Instant) {
        while let Some((_, oldest)) = self.order.first_key_value() {
            let oldest = oldest.clone();
            if self.get(&oldest, now).is_some() {
                break;
            }
            self.remove(&oldest);
        }
    }

    fn remove(&mut self, key: &K) {
        let Some(entry) = self.entries.remove(key) else { return };
        self.order.remove(&entry.number);
        self.weight -= entry.weight;
        if let Some(share) = self.owners.get_mut(&entry.owner) {
            share.weight -= entry.weight;
            share.numbers.remove(&entry.number);
            if share.numbers.is_empty() {
                self.owners.remove(&entry.owner);
            }
        }
    }

    fn drop_oldest_of_heaviest(&mut self) {
        let heaviest = self.owners.values().max_by_key(|share| share.weight);
        let oldest = heaviest.and_then(|share| share.numbers.first());
        match oldest.and_then(|number| self.order.get(number)).cloned() {
            Some(key) => self.remove(&key),
            None => self.weight = 0, // nothing is left
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEPT: Duration = Duration::from_secs(60);

    fn shares(weight_max: usize) -> Shares<&'static str, u32, u32> {
        Shares::new(KEPT, weight_max)
    }

    #[test]
    fn nothing_is_found_after_its_time_whatever_came_before_or_since() {
        let (mut shares, begun) = (shares(100), Instant::now());
        let at = |seconds: u64| begun + Duration::from_secs(seconds);
        shares.insert("a", 1, 10, 1, at(0));
        shares.insert("a", 2, 20, 1, at(50));
        shares.insert("a", 1, 11, 1, at(59));
        assert_eq!(shares.get(&1, at(118)), Some(&11));
        assert_eq!((shares.get(&2, at(109)), shares.get(&2, at(110))), (Some(&20), None));
        assert_eq!(shares.get(&1, at(119)), None);
        shares.forget_old(at(110));
        assert_eq!((shares.entries.len(), shares.order.len(), shares.weight), (1, 1, 1));
        shares.forget_old(at(119));
        assert!(shares.entries.is_empty() && shares.order.is_empty() && shares.owners.is_empty());
    }

    #[test]
    fn whoever_has_most_loses_its_oldest() {
        let (mut shares, now) = (shares(10), Instant::now());
        shares.insert("quiet", 1, 0, 1, now);
        for key in 100..200 {
            shares.insert("loud", key, 0, 1, now);
        }
        assert!(shares.get(&1, now).is_some());
        assert_eq!(shares.weight, 10);
        assert_eq!((shares.get(&190, now), shares.get(&191, now)), (None, Some(&0)));
        // A second owner gets its equal share, and no more.
        for key in 200..300 {
            shares.insert("second", key, 0, 1, now);
        }
        assert!(shares.get(&1, now).is_some() && shares.owners["loud"].weight >= 4);
    }

    #[test]
    fn weight_counts_and_what_is_too_heavy_for_all_of_it_is_not_kept() {
        let (mut shares, now) = (shares(10), Instant::now());
        shares.insert("a", 1, 0, 6, now);
        shares.insert("a", 2, 0, 6, now);
        assert_eq!((shares.get(&1, now), shares.get(&2, now)), (None, Some(&0)));
        shares.insert("b", 3, 0, 11, now);
        assert_eq!((shares.get(&2, now), shares.get(&3, now), shares.weight), (Some(&0), None, 6));
    }
}
