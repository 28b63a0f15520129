//! The grant map: exactly which bytes of which slots a grant allows to be written. It does not
//! know whether the grant still stands, nor the regions behind the slots.

use std::collections::TryReserveError;

use crate::error::{Cause, Invalid};
use crate::id::Slot;

/// The bytes that a grant allows, as few intervals as they need: of two that touch or overlap,
/// one is made. Built once, then only looked up.
#[derive(Debug, Default)]
pub struct GrantMap {
    /// By slot, each once.
    groups: Vec<Group>,
    /// Where the intervals begin; within a group in order. A column of its own, for a search reads
    /// nothing else.
    starts: Vec<u64>,
    /// Where they end: `starts[i] < ends[i] < starts[i + 1]` within a group.
    ends: Vec<u64>,
}

/// The intervals of one slot: from `first` to the next group's.
#[derive(Clone, Copy, Debug)]
struct Group {
    slot: Slot,
    first: usize,
}

/// One interval on its way into the map. The field order is the sort order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Interval {
    slot: Slot,
    start: u64,
    end: u64,
}

impl GrantMap {
    /// The map of these (slot, offset, length), in any order. They may overlap; empty ones add
    /// nothing. Takes 24 bytes an interval while it builds, 16 thereafter.
    ///
    /// # Errors
    /// [`Cause::OutOfMemory`], or [`Cause::Invalid`] for a span that wraps around.
    pub fn build(spans: impl IntoIterator<Item = (Slot, u64, u64)>) -> Result<Self, Cause> {
        let merged = merge(sorted(spans)?);
        let groups = merged.chunk_by(|a, b| a.slot == b.slot);
        let mut map = Self::default();
        map.reserve(groups.clone().count(), merged.len())
            .map_err(|_| out_of_memory(size_of::<[u64; 2]>(), merged.len()))?;
        for group in groups {
            if let Some(Interval { slot, .. }) = group.first() {
                map.groups.push(Group { slot: *slot, first: map.starts.len() });
            }
            map.starts.extend(group.iter().map(|interval| interval.start));
            map.ends.extend(group.iter().map(|interval| interval.end));
        }
        Ok(map)
    }

    /// Whether every byte of the span is allowed. An empty span never is.
    pub fn covers(&self, slot: Slot, offset: u64, len: u64) -> bool {
        self.interval_end(slot, offset).is_some_and(|end| len > 0 && len <= end - offset)
    }

    /// The number of bytes allowed.
    pub fn bytes(&self) -> u64 {
        // More than 2^64 take two slots of 2^63 bytes each.
        self.starts
            .iter()
            .zip(&self.ends)
            .fold(0, |sum: u64, (start, end)| sum.saturating_add(end - start))
    }

    /// The bytes of memory that the map itself occupies.
    pub fn memory(&self) -> usize {
        size_of::<Self>()
            + self.groups.capacity() * size_of::<Group>()
            + (self.starts.capacity() + self.ends.capacity()) * size_of::<u64>()
    }

    /// The end of the interval that holds this byte.
    fn interval_end(&self, slot: Slot, offset: u64) -> Option<u64> {
        let group = self.groups.binary_search_by_key(&slot, |group| group.slot).ok()?;
        let first = self.groups.get(group)?.first;
        let beyond = self.groups.get(group + 1).map_or(self.starts.len(), |next| next.first);
        let begun = self.starts.get(first..beyond)?.partition_point(|start| *start <= offset);
        let interval = first + begun.checked_sub(1)?;
        self.ends.get(interval).copied().filter(|end| *end > offset)
    }

    fn reserve(&mut self, groups: usize, intervals: usize) -> Result<(), TryReserveError> {
        self.groups.try_reserve_exact(groups)?;
        self.starts.try_reserve_exact(intervals)?;
        self.ends.try_reserve_exact(intervals)
    }
}

/// The intervals in order. Those that follow each other as they come, as a pool's blocks often do,
/// take the room of one.
fn sorted(spans: impl IntoIterator<Item = (Slot, u64, u64)>) -> Result<Vec<Interval>, Cause> {
    let mut intervals: Vec<Interval> = Vec::new();
    for (slot, start, len) in spans {
        if len == 0 {
            continue;
        }
        let end = start.checked_add(len).ok_or_else(|| Invalid::Field {
            field: "grant",
            why: format!("{len} bytes at offset {start} of {slot} wrap around"),
        })?;
        match intervals.last_mut() {
            Some(last) if last.slot == slot && last.end == start => last.end = end,
            _ => {
                let count = intervals.len() + 1;
                intervals
                    .try_reserve(1)
                    .map_err(|_| out_of_memory(size_of::<Interval>(), count))?;
                intervals.push(Interval { slot, start, end });
            }
        }
    }
    intervals.sort_unstable();
    Ok(intervals)
}

/// One interval of those that touch or overlap, in place.
fn merge(mut intervals: Vec<Interval>) -> Vec<Interval> {
    intervals.dedup_by(|next, kept| {
        let touches = next.slot == kept.slot && next.start <= kept.end;
        if touches {
            kept.end = kept.end.max(next.end);
        }
        touches
    });
    intervals
}

fn out_of_memory(each: usize, count: usize) -> Cause {
    Cause::OutOfMemory { bytes: each.saturating_mul(count) as u64 }
}

#[cfg(test)]
mod tests;
