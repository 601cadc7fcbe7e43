//! Objects by id, in their current state and as the search index still sees them.
//!
//! A lagging index keeps the former states of an object only while the index lags behind. Without a lag it keeps none
//! and costs no more than a map.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::Duration;

use jiff::Timestamp;

use super::ids::Id;

/// A set of objects of one kind, in the order of their ids.
#[derive(Debug)]
pub(super) struct LaggingIndex<T> {
    lag: Duration,
    rows: BTreeMap<Id, IndexRow<T>>,
}

#[derive(Debug)]
struct IndexRow<T> {
    current: Option<T>,
    /// Former states, each with the time at which it ended, oldest first.
    former: Vec<(Timestamp, Option<T>)>,
}

impl<T> IndexRow<T> {
    fn seen(&self, at: Timestamp) -> Option<&T> {
        match self.former.iter().find(|(until, _)| *until > at) {
            Some((_, state)) => state.as_ref(),
            None => self.current.as_ref(),
        }
    }
}

impl<T: Clone> LaggingIndex<T> {
    pub(super) fn new(lag: Duration) -> Self {
        Self { lag, rows: BTreeMap::new() }
    }

    /// Returns the current state of an object.
    pub(super) fn get(&self, id: Id) -> Option<&T> {
        self.rows.get(&id)?.current.as_ref()
    }

    /// Returns the current state of all objects.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Id, &T)> {
        self.rows.iter().filter_map(|(id, row)| Some((*id, row.current.as_ref()?)))
    }

    /// Adds or replaces an object.
    pub(super) fn put(&mut self, id: Id, thing: T, now: Timestamp) {
        self.remember(id, now);
        self.rows.entry(id).or_insert(IndexRow { current: None, former: Vec::new() }).current = Some(thing);
    }

    /// Returns an object for modification.
    pub(super) fn edit(&mut self, id: Id, now: Timestamp) -> Option<&mut T> {
        self.get(id)?;
        self.remember(id, now);
        self.rows.get_mut(&id)?.current.as_mut()
    }

    /// Removes an object.
    pub(super) fn remove(&mut self, id: Id, now: Timestamp) -> Option<T> {
        self.get(id)?;
        self.remember(id, now);
        if self.lag.is_zero() {
            return self.rows.remove(&id)?.current;
        }
        self.rows.get_mut(&id)?.current.take()
    }

    /// Returns the objects with ids above `after`, as the index sees them.
    pub(super) fn seen(&self, after: Option<Id>, now: Timestamp) -> impl Iterator<Item = (Id, &T)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let at = self.index_time(now);
        self.rows.range((from, Bound::Unbounded)).filter_map(move |(id, row)| Some((*id, row.seen(at)?)))
    }

    /// Returns an object as the index sees it.
    pub(super) fn seen_one(&self, id: Id, now: Timestamp) -> Option<&T> {
        self.rows.get(&id)?.seen(self.index_time(now))
    }

    /// Returns the time whose state the index shows.
    fn index_time(&self, now: Timestamp) -> Timestamp {
        now.checked_sub(self.lag).unwrap_or(Timestamp::MIN)
    }

    /// Keeps the current state for the index before it changes.
    fn remember(&mut self, id: Id, now: Timestamp) {
        if self.lag.is_zero() {
            return;
        }
        let at = self.index_time(now);
        let row = self.rows.entry(id).or_insert(IndexRow { current: None, former: Vec::new() });
        row.former.retain(|(until, _)| *until > at);
        row.former.push((now, row.current.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_sees_each_state_for_its_time_only() {
        let mut index = LaggingIndex::new(Duration::from_secs(10));
        let id = super::super::ids::Ids::new(1).mint("00u");
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        let seen = |index: &LaggingIndex<&'static str>, second| {
            index.seen(None, at(second)).map(|(_, state)| *state).next()
        };
        index.put(id, "first", at(100));
        assert_eq!(seen(&index, 104), None);
        index.put(id, "second", at(105));
        assert_eq!(
            [seen(&index, 109), seen(&index, 110), seen(&index, 114)],
            [None, Some("first"), Some("first")]
        );
        index.remove(id, at(120));
        assert_eq!(index.get(id), None);
        assert_eq!(
            [seen(&index, 120), seen(&index, 129), seen(&index, 130)],
            [Some("second"), Some("second"), None]
        );
    }
}
