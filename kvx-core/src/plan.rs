//! Plans: the runs of a transfer, in order.
//!
//! A plan says which bytes move where, never who may move them or over which lane: it owns no
//! regions, its indices refer to lists given beside it. [`Plan::pair`] and [`Plan::select`] make
//! one from span lists, a [`BlockMap`] from two KV layouts and the block ids of a request. Of
//! millions of spans and runs none is allocated by itself.

mod blocks;
mod cells;
mod order;
mod places;
mod radix;
mod runs;
mod spans;

use std::fmt;
use std::ops::Range;

use crate::error::Invalid;
use crate::wire::MAX_FRAME_PAYLOAD;

pub use blocks::{BlockMap, spans_of};
pub use places::Places;
pub use spans::{Span, Spans};

/// How runs are made of spans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlanOptions {
    /// Whether spans that continue each other on both sides become one run. Default: true.
    pub merge: bool,
    /// Bytes of a run at most: what a lane sends, and what is sent again after a lane broke.
    /// From 1 to [`MAX_FRAME_PAYLOAD`]; default: 1 MiB.
    pub max_run: u32,
}

/// The runs of a transfer, in order: by remote region, then by the remote offset of the merged spans
/// that they are cut from. At most [`crate::wire::MAX_RUNS`].
#[derive(Default, PartialEq, Eq)]
pub struct Plan {
    // Columns of equal length, a run at each index.
    local: Vec<u32>,
    remote: Vec<u32>,
    local_offset: Vec<u64>,
    remote_offset: Vec<u64>,
    /// 1 to `PlanOptions::max_run`; added to an offset of the same run it stays within 64 bits.
    len: Vec<u32>,
    /// The sum of `len`.
    bytes: u64,
}

/// One run of a plan: `len` bytes that move together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Index into the list of local regions.
    pub local: u32,
    /// Index into the list of remote regions.
    pub remote: u32,
    /// Length in bytes; never 0.
    pub len: u32,
    /// Offset in the local region in bytes.
    pub local_offset: u64,
    /// Offset in the remote region in bytes.
    pub remote_offset: u64,
}

impl Plan {
    /// Pairs span `i` of `local` with span `i` of `remote`. Empty spans are skipped. Where remote
    /// spans overlap, it is open which of their local spans a WRITE leaves there.
    ///
    /// # Errors
    /// Lists or spans of different lengths, a span without an end, too many runs, or options out
    /// of range. Whether spans lie in their regions, [`Plan::check`] says.
    pub fn pair(local: &Spans, remote: &Spans, options: &PlanOptions) -> Result<Self, Invalid> {
        same("number of spans", local.len() as u64, remote.len() as u64)?;
        let (ours, theirs) = (|i| local.get(i), |i| remote.get(i));
        runs::plan(local.len(), |i| theirs(i).place(), ours, theirs, options)
    }

    /// Pairs span `local_indices[i]` of `local` with span `remote_indices[i]` of `remote`: lists
    /// prepared once serve many transfers. A span may be chosen more than once.
    ///
    /// # Errors
    /// As [`Plan::pair`], or an index points beyond its list.
    pub fn select(
        local: &Spans,
        local_indices: &[u32],
        remote: &Spans,
        remote_indices: &[u32],
        options: &PlanOptions,
    ) -> Result<Self, Invalid> {
        let (left, right) = (local_indices.len(), remote_indices.len());
        same("number of span indices", left as u64, right as u64)?;
        local.have("local span", local_indices)?;
        remote.have("remote span", remote_indices)?;
        let ours = |i: usize| local.get(local_indices[i] as usize);
        let theirs = |i: usize| remote.get(remote_indices[i] as usize);
        if remote.is_ascending() {
            // Their indices have the order of the places, and take no look at the list.
            let place = |i: usize| (0, u64::from(remote_indices[i]));
            return runs::plan(left, place, ours, theirs, options);
        }
        runs::plan(left, |i| theirs(i).place(), ours, theirs, options)
    }

    /// The number of runs.
    pub fn len(&self) -> usize {
        self.len.len()
    }

    /// Whether nothing moves.
    pub fn is_empty(&self) -> bool {
        self.len.is_empty()
    }

    /// Bytes of all runs.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Run `index`.
    ///
    /// # Panics
    /// `index` is not below [`Plan::len`].
    #[inline]
    pub fn run(&self, index: usize) -> Run {
        Run {
            local: self.local[index],
            remote: self.remote[index],
            len: self.len[index],
            local_offset: self.local_offset[index],
            remote_offset: self.remote_offset[index],
        }
    }

    /// The runs of `range`, in order.
    ///
    /// # Panics
    /// The iterator does when it comes to the end of the plan before the end of the range.
    pub fn runs(&self, range: Range<usize>) -> impl ExactSizeIterator<Item = Run> + '_ {
        range.map(|index| self.run(index))
    }

    /// The local regions there must be: one more than the highest index; 0 for an empty plan.
    pub fn local_regions(&self) -> usize {
        self.local.iter().max().map_or(0, |&index| index as usize + 1)
    }

    /// The remote regions there must be: one more than the highest index; 0 for an empty plan.
    pub fn remote_regions(&self) -> usize {
        self.remote.last().map_or(0, |&index| index as usize + 1)
    }

    /// The indices of the local regions that the plan touches, ascending, each once.
    pub fn used_local(&self) -> Vec<u32> {
        distinct(&self.local)
    }

    /// The indices of the remote regions that the plan touches, ascending, each once.
    pub fn used_remote(&self) -> Vec<u32> {
        distinct(&self.remote)
    }

    /// Numbers the regions of both sides anew, so that only those count that the plan touches:
    /// region `i` is from now on the `i`th of those that [`Plan::used_local`] and
    /// [`Plan::used_remote`] said before. What is listed and not used then needs no rights, and
    /// keeps no transfer.
    pub fn drop_unused(&mut self) {
        for column in [&mut self.local, &mut self.remote] {
            let used = distinct(column);
            let is_dense = used.last().is_none_or(|&last| last as usize + 1 == used.len());
            if is_dense {
                continue;
            }
            for index in column {
                // Every index is among those used.
                *index = used.partition_point(|used| *used < *index) as u32;
            }
        }
    }

    /// Checks every run against the lengths of the regions on both sides.
    ///
    /// # Errors
    /// The first run that names a region there is not, or reaches beyond its region
    /// ([`Invalid::OutOfBounds`] counts runs).
    pub fn check(&self, local_lens: &[u64], remote_lens: &[u64]) -> Result<(), Invalid> {
        for (index, run) in self.runs(0..self.len()).enumerate() {
            let len = u64::from(run.len);
            inside("local region", local_lens, run.local, run.local_offset, len, index)?;
            inside("remote region", remote_lens, run.remote, run.remote_offset, len, index)?;
        }
        Ok(())
    }
}

/// Names the size, not the runs: there may be millions.
impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plan").field("runs", &self.len()).field("bytes", &self.bytes).finish()
    }
}

impl Default for PlanOptions {
    fn default() -> Self {
        Self { merge: true, max_run: 1 << 20 }
    }
}

impl PlanOptions {
    /// # Errors
    /// `max_run` is out of range.
    fn validate(&self) -> Result<(), Invalid> {
        if (1..=MAX_FRAME_PAYLOAD).contains(&self.max_run) {
            return Ok(());
        }
        let why = format!("{} is not in 1 to {MAX_FRAME_PAYLOAD} bytes", self.max_run);
        Err(Invalid::Field { field: "max_run", why })
    }
}

fn same(what: &'static str, left: u64, right: u64) -> Result<(), Invalid> {
    if left == right { Ok(()) } else { Err(Invalid::Mismatch { what, left, right }) }
}

#[inline]
fn inside(
    what: &'static str,
    lens: &[u64],
    region: u32,
    offset: u64,
    len: u64,
    index: usize,
) -> Result<(), Invalid> {
    let Some(&region_len) = lens.get(region as usize) else {
        return Err(Invalid::Index { what, index: u64::from(region), len: lens.len() as u64 });
    };
    match offset.checked_add(len) {
        Some(end) if end <= region_len => Ok(()),
        _ => Err(Invalid::OutOfBounds { index, offset, len, region_len }),
    }
}

fn distinct(indices: &[u32]) -> Vec<u32> {
    // Runs of a region mostly follow each other: nearly all repetitions end here.
    let mut distinct: Vec<u32> = indices.chunk_by(u32::eq).map(|equal| equal[0]).collect();
    distinct.sort_unstable();
    distinct.dedup();
    distinct
}

#[cfg(test)]
mod tests;
