//! What is due when: of any number of deadlines the earliest, without looking at the others.

use std::collections::BTreeSet;

use crate::time::Time;

/// Things named by `K` that are due at some time. Every call takes O(log n).
///
/// A deadline that moves later may stay where it is: its owner, once told that it is due, puts it
/// back. So what moves with every byte that arrives costs nothing here.
#[derive(Clone, Debug)]
pub struct Deadlines<K> {
    queue: BTreeSet<(Time, K)>,
}

impl<K: Ord> Deadlines<K> {
    /// Nothing is due.
    pub const fn new() -> Self {
        Self { queue: BTreeSet::new() }
    }

    /// `key` is due at `time`.
    pub fn insert(&mut self, time: Time, key: K) {
        self.queue.insert((time, key));
    }

    /// Takes out what [`Self::insert`] put in with these arguments, if it is still there.
    pub fn remove(&mut self, time: Time, key: K) {
        self.queue.remove(&(time, key));
    }

    /// When the next is due; [`Time::NEVER`] if none ever is.
    pub fn next(&self) -> Time {
        self.queue.first().map_or(Time::NEVER, |(time, _)| *time)
    }

    /// Takes out the earliest, if it is due at `now`.
    pub fn pop(&mut self, now: Time) -> Option<K> {
        if now < self.next() {
            return None;
        }
        self.queue.pop_first().map(|(_, key)| key)
    }

    /// Takes everything out.
    pub fn clear(&mut self) {
        self.queue.clear();
    }
}

impl<K: Ord> Default for Deadlines<K> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(nanos: u64) -> Time {
        Time::from_nanos(nanos)
    }

    #[test]
    fn the_earliest_is_told_first_and_each_once() {
        let mut deadlines = Deadlines::new();
        assert_eq!((deadlines.next(), deadlines.pop(at(u64::MAX - 1))), (Time::NEVER, None));
        for (time, key) in [(30, 'c'), (10, 'a'), (20, 'b'), (10, 'd')] {
            deadlines.insert(at(time), key);
        }
        deadlines.remove(at(20), 'b');
        assert_eq!((deadlines.next(), deadlines.pop(at(9))), (at(10), None));
        let due: Vec<char> = std::iter::from_fn(|| deadlines.pop(at(30))).collect();
        assert_eq!(due, ['a', 'd', 'c']);
    }
}
