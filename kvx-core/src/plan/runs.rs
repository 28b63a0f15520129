//! From pairs of spans to runs: merge what continues, cut what is too long, append to columns.

use crate::error::Invalid;
use crate::plan::order::{no_memory, order, refused};
use crate::plan::{Plan, PlanOptions, Span};
use crate::wire::MAX_RUNS;

/// Pairs whose spans are looked up together. Lists of spans are larger than caches, and picked from
/// here and there: in a loop that does nothing else, many are on their way from memory at once.
const BATCH: usize = 64;

/// A pair of spans of equal length. Either offset plus `len` stays within 64 bits.
#[derive(Clone, Copy, Default)]
pub(super) struct Pair {
    pub(super) local: u32,
    pub(super) remote: u32,
    pub(super) local_offset: u64,
    pub(super) remote_offset: u64,
    pub(super) len: u64,
}

/// The plan of pairs `0..count` in any order: of each its `local` and its `remote` span, and a
/// `place` that orders pairs as the places of their remote spans do.
///
/// # Errors
/// Spans that do not pair; options out of range; too many runs, or no memory for them.
pub(super) fn plan(
    count: usize,
    place: impl Fn(usize) -> (u32, u64),
    local: impl Fn(usize) -> Span,
    remote: impl Fn(usize) -> Span,
    options: &PlanOptions,
) -> Result<Plan, Invalid> {
    let mut runs = Runs::new(options)?;
    // One allocation a column instead of many; what merging saves is never touched.
    runs.make_room((count as u64).min(u64::from(MAX_RUNS)))?;
    let Some(order) = order(count, place)? else {
        for i in 0..count {
            runs.push(Pair::of(local(i), remote(i), i)?)?;
        }
        return runs.finish();
    };
    let (mut ours, mut theirs) = ([Span::default(); BATCH], [Span::default(); BATCH]);
    for batch in order.chunks(BATCH) {
        ours.iter_mut().zip(batch).for_each(|(span, i)| *span = local(*i as usize));
        theirs.iter_mut().zip(batch).for_each(|(span, i)| *span = remote(*i as usize));
        for ((ours, theirs), i) in ours.iter().zip(&theirs).zip(batch) {
            runs.push(Pair::of(*ours, *theirs, *i as usize)?)?;
        }
    }
    runs.finish()
}

/// A plan that takes pairs in the order of their remote places.
pub(super) struct Runs {
    plan: Plan,
    options: PlanOptions,
    /// What has come and may yet be continued; empty at first.
    open: Pair,
}

impl Runs {
    pub(super) fn new(options: &PlanOptions) -> Result<Self, Invalid> {
        options.validate()?;
        Ok(Self { plan: Plan::default(), options: *options, open: Pair::default() })
    }

    /// Takes the next pair; an empty one changes nothing.
    #[inline]
    pub(super) fn push(&mut self, pair: Pair) -> Result<(), Invalid> {
        if self.options.merge && self.open.continues_with(&pair) {
            self.open.len += pair.len;
            return Ok(());
        }
        if pair.len == 0 {
            return Ok(());
        }
        self.close()?;
        self.open = pair;
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<Plan, Invalid> {
        self.close()?;
        Ok(self.plan)
    }

    /// Appends what is open, cut.
    #[inline]
    fn close(&mut self) -> Result<(), Invalid> {
        let mut left = self.open;
        let max_run = u64::from(self.options.max_run);
        self.make_room(if left.len <= max_run { 1 } else { left.len.div_ceil(max_run) })?;
        let plan = &mut self.plan;
        while left.len > 0 {
            let len = left.len.min(max_run);
            plan.local.push(left.local);
            plan.remote.push(left.remote);
            plan.local_offset.push(left.local_offset);
            plan.remote_offset.push(left.remote_offset);
            plan.len.push(len as u32);
            plan.bytes += len;
            left.local_offset += len;
            left.remote_offset += len;
            left.len -= len;
        }
        Ok(())
    }

    /// Sees that `more` runs may be pushed without allocating.
    #[inline]
    fn make_room(&mut self, more: u64) -> Result<(), Invalid> {
        let have = self.plan.len();
        if have as u64 + more > u64::from(MAX_RUNS) {
            return Err(refused(format!("more than {MAX_RUNS} runs")));
        }
        let more = more as usize;
        if self.plan.len.capacity() - have < more {
            // The column of lengths is the last to grow: its capacity speaks for all.
            let Plan { local, remote, local_offset, remote_offset, len, .. } = &mut self.plan;
            [local, remote]
                .into_iter()
                .try_for_each(|column| column.try_reserve(more))
                .and_then(|()| local_offset.try_reserve(more))
                .and_then(|()| remote_offset.try_reserve(more))
                .and_then(|()| len.try_reserve(more))
                .map_err(|_| no_memory(have + more))?;
        }
        Ok(())
    }
}

impl Pair {
    /// Pair `index` of a transfer.
    #[inline]
    fn of(local: Span, remote: Span, index: usize) -> Result<Self, Invalid> {
        let ends = |span: Span| span.offset.checked_add(span.len).is_some();
        if local.len != remote.len || !ends(local) || !ends(remote) {
            return Err(no_pair(local, remote, index));
        }
        Ok(Self {
            local: local.region,
            remote: remote.region,
            local_offset: local.offset,
            remote_offset: remote.offset,
            len: local.len,
        })
    }

    pub(super) fn local(&self) -> Span {
        Span { region: self.local, offset: self.local_offset, len: self.len }
    }

    pub(super) fn remote(&self) -> Span {
        Span { region: self.remote, offset: self.remote_offset, len: self.len }
    }

    fn continues_with(&self, next: &Self) -> bool {
        self.len > 0
            && self.local == next.local
            && self.remote == next.remote
            && self.local_offset + self.len == next.local_offset
            && self.remote_offset + self.len == next.remote_offset
    }
}

#[cold]
fn no_pair(local: Span, remote: Span, index: usize) -> Invalid {
    if local.len != remote.len {
        let why = format!("pair {index} has {} bytes against {}", local.len, remote.len);
        return Invalid::Field { field: "spans", why };
    }
    // Equal lengths: the later of the two is one without an end.
    let (offset, len) = (local.offset.max(remote.offset), local.len);
    Invalid::OutOfBounds { index, offset, len, region_len: u64::MAX }
}
