//! Sets of numbers that come almost in order: runs that landed, transfers that ended.

use crate::error::Resource;

/// A set of numbers as sorted, disjoint, non-adjacent intervals.
///
/// Costs one interval (16 bytes) for each gap, so that sets filled almost in order stay tiny
/// whatever their size. The number of intervals is bounded; beyond it insertion fails.
#[derive(Debug)]
pub(crate) struct IdSet {
    /// `(start, end)`, end exclusive; sorted, `end < next start`.
    intervals: Vec<(u64, u64)>,
    /// Numbers in the set.
    count: u64,
    limit: usize,
}

impl IdSet {
    /// An empty set of at most `limit` intervals.
    pub(crate) fn new(limit: usize) -> Self {
        Self { intervals: Vec::new(), count: 0, limit }
    }

    /// The number of members.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// The intervals, in order, ends exclusive.
    pub(crate) fn intervals(&self) -> &[(u64, u64)] {
        &self.intervals
    }

    /// Whether `id` is a member.
    pub(crate) fn contains(&self, id: u64) -> bool {
        self.contains_range(id, 1)
    }

    /// Whether all of `first .. first + len` are members.
    pub(crate) fn contains_range(&self, first: u64, len: u64) -> bool {
        let after = self.intervals.partition_point(|&(start, _)| start <= first);
        after > 0 && self.intervals[after - 1].1 >= first.saturating_add(len)
    }

    /// Adds `first .. first + len` and says how many of them are new.
    pub(crate) fn insert(&mut self, first: u64, len: u64) -> Result<u64, Resource> {
        let end = first.saturating_add(len);
        // The intervals that overlap or touch [first, end).
        let from = self.intervals.partition_point(|&(_, stop)| stop < first);
        let to = self.intervals.partition_point(|&(start, _)| start <= end);
        let known: u64 = self.intervals[from..to]
            .iter()
            .map(|&(start, stop)| stop.min(end).saturating_sub(start.max(first)))
            .sum();
        if from == to {
            if self.intervals.len() >= self.limit || self.intervals.try_reserve(1).is_err() {
                return Err(Resource::Transfers);
            }
            self.intervals.insert(from, (first, end));
        } else {
            let merged = (self.intervals[from].0.min(first), self.intervals[to - 1].1.max(end));
            self.intervals[from] = merged;
            self.intervals.drain(from + 1..to);
        }
        let new = (end - first) - known;
        self.count += new;
        Ok(new)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_set_holds_what_a_plain_set_holds(
            ranges in proptest::collection::vec((0u64..200, 1u64..20), 0..60)
        ) {
            let mut set = IdSet::new(usize::MAX);
            let mut model = BTreeSet::new();
            for (first, len) in ranges {
                let new = (first..first + len).filter(|id| model.insert(*id)).count() as u64;
                prop_assert_eq!(set.insert(first, len), Ok(new));
                prop_assert_eq!(set.count(), model.len() as u64);
                prop_assert!(set.intervals().windows(2).all(|w| w[0].1 < w[1].0));
            }
            for id in 0..230 {
                prop_assert_eq!(set.contains(id), model.contains(&id));
                let all = (id..id + 5).all(|id| model.contains(&id));
                prop_assert_eq!(set.contains_range(id, 5), all);
            }
        }
    }

    #[test]
    fn gaps_beyond_the_limit_are_refused() {
        let mut set = IdSet::new(2);
        assert_eq!(set.insert(0, 1), Ok(1));
        assert_eq!(set.insert(2, 1), Ok(1));
        assert_eq!(set.insert(4, 1), Err(Resource::Transfers));
        assert_eq!(set.insert(1, 1), Ok(1));
        assert_eq!(set.insert(4, 1), Ok(1));
    }
}
