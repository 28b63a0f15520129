//! Sets of numbers that come almost in order: runs that landed, transfers that ended.

use std::collections::BTreeMap;

use crate::error::Resource;

/// A set of numbers as disjoint, non-adjacent intervals.
///
/// Costs one interval for each gap, so that sets filled almost in order stay tiny whatever their
/// size. The number of intervals is bounded; beyond it insertion fails. Insertion takes O(log n) in
/// whatever order numbers come, for a peer may choose the worst.
#[derive(Debug)]
pub(crate) struct IdSet {
    /// Ends by starts, exclusive: `start < end < next start`.
    intervals: BTreeMap<u64, u64>,
    /// Numbers in the set.
    count: u64,
    limit: usize,
}

impl IdSet {
    /// What one interval takes, the tree's own share included.
    pub(crate) const BYTES_EACH: u64 = 48;

    /// An empty set of at most `limit` intervals.
    pub(crate) fn new(limit: usize) -> Self {
        Self { intervals: BTreeMap::new(), count: 0, limit }
    }

    /// The number of members.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// The number of intervals.
    pub(crate) fn intervals(&self) -> usize {
        self.intervals.len()
    }

    /// Whether `id` is a member.
    pub(crate) fn contains(&self, id: u64) -> bool {
        self.contains_range(id, 1)
    }

    /// Whether all of `first .. first + len` are members.
    pub(crate) fn contains_range(&self, first: u64, len: u64) -> bool {
        let before = self.intervals.range(..=first).next_back();
        before.is_some_and(|(_, &end)| end >= first.saturating_add(len))
    }

    /// Adds `first .. first + len` and says how many of them are new.
    pub(crate) fn insert(&mut self, first: u64, len: u64) -> Result<u64, Resource> {
        let end = first.saturating_add(len);
        let mut merged = (first, end);
        let mut known = 0;
        let before = self.intervals.range(..first).next_back();
        if let Some((&start, &stop)) = before.filter(|(_, stop)| **stop >= first) {
            known += stop.min(end) - first;
            merged = (start, stop.max(end));
        }
        // Those that begin within or right behind: each is taken out once in its life.
        while let Some((&start, &stop)) = self.intervals.range(first..=end).next() {
            known += stop.min(end) - start;
            merged.1 = merged.1.max(stop);
            self.intervals.remove(&start);
        }
        let grows = !self.intervals.contains_key(&merged.0);
        if grows && self.intervals.len() >= self.limit {
            return Err(Resource::Transfers);
        }
        self.intervals.insert(merged.0, merged.1);
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
                let intervals: Vec<_> = set.intervals.iter().collect();
                prop_assert!(intervals.windows(2).all(|w| w[0].1 < w[1].0));
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
        assert_eq!((set.count(), set.contains(4)), (2, false), "what was refused is not there");
        assert_eq!(set.insert(1, 1), Ok(1));
        assert_eq!(set.insert(4, 1), Ok(1));
    }
}
