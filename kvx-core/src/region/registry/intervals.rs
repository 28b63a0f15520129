//! Intervals of addresses that may overlap, searched by what they contain. It knows nothing of
//! regions but a number.

use std::collections::TryReserveError;
use std::iter;

/// The addresses `base .. end` of one region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Interval {
    pub(super) base: u64,
    /// Above `base`.
    pub(super) end: u64,
    /// Unlike every other's; lower for older ones.
    pub(super) age: u64,
    /// Whose interval it is.
    pub(super) index: u32,
}

impl Interval {
    fn len(&self) -> u64 {
        self.end - self.base
    }

    fn order(&self) -> (u64, u64) {
        (self.base, self.age)
    }
}

/// Intervals by base, under a tree of their ends.
///
/// A prefix maximum of the ends would bound a search from the left, but one large interval over
/// thousands of small ones, which is how a pool and its pieces are registered, would make every
/// search walk all of them. The tree finds the next interval that truly reaches an address.
#[derive(Debug, Default)]
pub(super) struct Intervals {
    /// By base, then age.
    sorted: Vec<Interval>,
    /// A tree in an array: children of node `i` at `2i` and `2i + 1`, the root at 1, each node the
    /// greatest end below it; leaf `i` is the end of `sorted[i]`, or 0. There is at least one
    /// leaf more than intervals, so that a boundary behind the last has a leaf too.
    tree: Vec<u64>,
}

impl Intervals {
    /// What one interval takes at most, tree included.
    pub(super) const BYTES_EACH: usize = size_of::<Interval>() + 4 * size_of::<u64>();

    /// Makes room for one more, so that the next insertion does not allocate.
    pub(super) fn try_reserve_one(&mut self) -> Result<(), TryReserveError> {
        self.sorted.try_reserve(1)?;
        let nodes = tree_len(self.sorted.len() + 1);
        self.tree.try_reserve(nodes.saturating_sub(self.tree.len()))
    }

    /// O(n): moves what lies behind it and builds the tree anew.
    pub(super) fn insert(&mut self, interval: Interval) {
        let at = self.sorted.partition_point(|known| known.order() < interval.order());
        self.sorted.insert(at, interval);
        self.rebuild();
    }

    /// O(n), as insertion is.
    pub(super) fn remove(&mut self, base: u64, age: u64) {
        if let Ok(at) = self.sorted.binary_search_by_key(&(base, age), Interval::order) {
            self.sorted.remove(at);
            self.rebuild();
        }
    }

    /// The smallest interval that contains the addresses `first ..= last`; the oldest of equals.
    pub(super) fn smallest_containing(&self, first: u64, last: u64) -> Option<Interval> {
        let mut best: Option<Interval> = None;
        for interval in self.reaching_back(first, last) {
            // To reach `last` from here on leftward takes more than `last - base` bytes.
            if best.is_some_and(|best| last - interval.base >= best.len()) {
                break;
            }
            let rank = |interval: Interval| (interval.len(), interval.age);
            if best.is_none_or(|best| rank(interval) < rank(best)) {
                best = Some(interval);
            }
        }
        best
    }

    /// The intervals that share an address with `start .. end`, by base downward.
    pub(super) fn overlapping(&self, start: u64, end: u64) -> impl Iterator<Item = Interval> {
        // None begins at or below `end - 1` if the range is empty.
        end.checked_sub(1)
            .filter(|last| *last >= start)
            .into_iter()
            .flat_map(move |last| self.reaching_back(last, start))
    }

    /// The intervals that begin at or below `from` and contain or lie above `address`, by base
    /// downward. O(log n) each.
    fn reaching_back(&self, from: u64, address: u64) -> impl Iterator<Item = Interval> {
        let mut before = self.sorted.partition_point(|interval| interval.base <= from);
        iter::from_fn(move || {
            before = self.last_ending_above(before, address)?;
            self.sorted.get(before).copied()
        })
    }

    /// The last of the first `before` intervals whose end is above `address`.
    fn last_ending_above(&self, before: usize, address: u64) -> Option<usize> {
        let leaves = self.tree.len() / 2;
        // Climbs along the boundary until the subtree to its left holds such an end. A power of
        // two is the first node of its level: nothing lies to its left.
        let mut node = leaves + before;
        loop {
            if node <= 1 || node.is_power_of_two() {
                return None;
            }
            if node & 1 == 1 && self.reaches(node - 1, address) {
                node -= 1;
                break;
            }
            node /= 2;
        }
        // Descends to the rightmost leaf that does.
        while node < leaves {
            node = 2 * node + usize::from(self.reaches(2 * node + 1, address));
        }
        Some(node - leaves)
    }

    fn reaches(&self, node: usize, address: u64) -> bool {
        self.tree.get(node).is_some_and(|end| *end > address)
    }

    fn rebuild(&mut self) {
        let nodes = tree_len(self.sorted.len());
        let leaves = nodes / 2;
        self.tree.clear();
        self.tree.resize(nodes, 0);
        for (leaf, interval) in self.tree[leaves..].iter_mut().zip(&self.sorted) {
            *leaf = interval.end;
        }
        for node in (1..leaves).rev() {
            self.tree[node] = self.tree[2 * node].max(self.tree[2 * node + 1]);
        }
    }
}

/// Nodes of a tree over `intervals` leaves and one more.
fn tree_len(intervals: usize) -> usize {
    2 * (intervals + 1).next_power_of_two()
}
