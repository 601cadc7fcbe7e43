//! A set of row numbers, one bit each: the memory per row must not depend on the row's size.

/// A set of row numbers, from 1.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct RowSet {
    words: Vec<u64>,
    count: u64,
}

/// Returns the word and the bit of a row.
fn place(row: u64) -> (usize, u64) {
    (usize::try_from(row / 64).unwrap_or(usize::MAX), 1 << (row % 64))
}

impl RowSet {
    /// Creates a set of the rows in these ranges, both ends included.
    pub fn of(ranges: &[[u64; 2]]) -> Self {
        let mut rows = Self::default();
        rows.insert_all(ranges);
        rows
    }

    /// Inserts the rows of these ranges, both ends included.
    pub fn insert_all(&mut self, ranges: &[[u64; 2]]) {
        for row in ranges.iter().flat_map(|[first, last]| *first..=*last) {
            self.insert(row);
        }
    }

    /// Returns the rows in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        (0..self.words.len() as u64 * 64).filter(|row| self.contains(*row))
    }

    /// Inserts a row; returns false if it was present.
    pub fn insert(&mut self, row: u64) -> bool {
        let (word, bit) = place(row);
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        let is_new = self.words[word] & bit == 0;
        self.words[word] |= bit;
        self.count += u64::from(is_new);
        is_new
    }

    /// Removes a row; returns false if it was absent.
    pub fn remove(&mut self, row: u64) -> bool {
        let was_there = self.contains(row);
        if was_there {
            let (word, bit) = place(row);
            self.words[word] &= !bit;
            self.count -= 1;
        }
        was_there
    }

    /// Returns true if a row is in the set.
    pub fn contains(&self, row: u64) -> bool {
        let (word, bit) = place(row);
        self.words.get(word).is_some_and(|bits| bits & bit != 0)
    }

    /// Returns the number of rows.
    pub fn len(&self) -> u64 {
        self.count
    }

    /// Returns the rows that are not in the other set.
    pub fn without(&self, other: &Self) -> Self {
        let mut rest = Self::default();
        for (at, word) in self.words.iter().enumerate() {
            let word = word & !other.words.get(at).copied().unwrap_or(0);
            rest.words.push(word);
            rest.count += u64::from(word.count_ones());
        }
        rest
    }
}

/// Converts ascending rows to ranges, both ends included.
pub(super) fn ranges(rows: &[u64]) -> Vec<[u64; 2]> {
    let mut ranges: Vec<[u64; 2]> = Vec::new();
    for row in rows {
        match ranges.last_mut() {
            Some(last) if last[1] + 1 == *row => last[1] = *row,
            _ => ranges.push([*row, *row]),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_in_the_set_once() {
        let mut rows = RowSet::default();
        assert_eq!((rows.insert(64), rows.insert(64), rows.insert(1)), (true, false, true));
        assert_eq!(
            (rows.len(), rows.contains(64), rows.contains(65), rows.contains(9999)),
            (2, true, false, false)
        );
        assert_eq!((rows.remove(64), rows.remove(64), rows.len()), (true, false, 1));
    }

    #[test]
    fn what_another_set_has_is_left_out() {
        let (mut all, mut done) = (RowSet::default(), RowSet::default());
        for row in 1..=200 {
            all.insert(row);
        }
        for row in [3, 150, 900] {
            done.insert(row);
        }
        let rest = all.without(&done);
        assert_eq!((rest.len(), rest.contains(3), rest.contains(4)), (198, false, true));
    }

    #[test]
    fn rows_in_a_row_are_one_range() {
        assert_eq!(ranges(&[1, 2, 3, 7, 9, 10]), [[1, 3], [7, 7], [9, 10]]);
        assert_eq!(ranges(&[]), Vec::<[u64; 2]>::new());
    }
}
