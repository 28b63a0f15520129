//! What moves within one pool: the same for every pool of a layout, so it is worked out once for
//! each request. A cell is bytes that lie together on both sides.

use crate::error::Invalid;
use crate::layout::Layout;
use crate::plan::order::{no_memory, order, refused};
use crate::wire::MAX_RUNS;

/// Bytes that lie together on both sides; offsets from the first common head of block 0.
#[derive(Clone, Copy)]
pub(super) struct Cell {
    pub(super) source: u64,
    pub(super) target: u64,
    pub(super) len: u64,
}

/// Cells in the order of their targets, as columns.
#[derive(Default)]
pub(super) struct Cells {
    // Of equal length, at most MAX_RUNS.
    source: Vec<u64>,
    target: Vec<u64>,
    len: Vec<u64>,
}

/// How tokens and the common heads lie within a pool on both sides. Both layouts have passed their
/// validation: no offset of a block, token or head that exists is beyond 64 bits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    /// Bytes of one head of one token.
    row: u64,
    /// Common heads.
    heads: u32,
    source: Strides,
    target: Strides,
}

#[derive(Clone, Copy, Debug)]
struct Strides {
    block_tokens: u32,
    block: u64,
    token: u64,
    head: u64,
}

/// A dimension of a stretch of tokens: how many steps, and how far each goes on either side.
#[derive(Clone, Copy)]
struct Dimension {
    count: u32,
    source: u64,
    target: u64,
}

impl Shape {
    pub(super) fn new(source: &Layout, target: &Layout, heads: u32) -> Self {
        let (row, source, target) = (source.head_bytes(), source.into(), target.into());
        Self { row, heads, source, target }
    }

    /// Tokens in a block of the source.
    pub(super) fn source_tokens(&self) -> u32 {
        self.source.block_tokens
    }

    /// Tokens in a block of the target.
    pub(super) fn target_tokens(&self) -> u32 {
        self.target.block_tokens
    }

    /// Bytes of one token's common heads.
    pub(super) fn token_bytes(&self) -> u64 {
        self.row * u64::from(self.heads)
    }

    /// The cells of the first `tokens` tokens. The ids are enough for them, and each is below the
    /// number of its side's blocks.
    pub(super) fn cells(
        &self,
        tokens: u32,
        source_ids: &[u32],
        target_ids: &[u32],
        merge: bool,
    ) -> Result<Cells, Invalid> {
        let mut cells = Cells::default();
        let mut token = 0;
        while token < tokens {
            // As far as neither side comes to another block.
            let (source, source_left) = self.source.slot(source_ids, token);
            let (target, target_left) = self.target.slot(target_ids, token);
            let count = source_left.min(target_left).min(tokens - token);
            self.stretch(source, target, count, merge, &mut cells)?;
            token += count;
        }
        cells.in_order(merge)
    }

    /// The cells of whole blocks, moved onto themselves.
    pub(super) fn whole_blocks(&self, ids: &[u32]) -> Result<Cells, Invalid> {
        let mut cells = Cells::default();
        for &id in ids {
            let block = u64::from(id) * self.target.block;
            self.stretch(block, block, self.target.block_tokens, true, &mut cells)?;
        }
        cells.in_order(true)
    }

    /// Adds `count` tokens of one block on either side.
    fn stretch(
        &self,
        source: u64,
        target: u64,
        count: u32,
        merge: bool,
        cells: &mut Cells,
    ) -> Result<(), Invalid> {
        let tokens = Dimension { count, source: self.source.token, target: self.target.token };
        let heads =
            Dimension { count: self.heads, source: self.source.head, target: self.target.head };
        let (inner, outer) = match tokens.target < heads.target {
            true => (tokens, heads),
            false => (heads, tokens),
        };
        let (len, inner) = inner.joined(self.row);
        let (len, outer) = match inner.count {
            1 => outer.joined(len),
            _ => (len, outer),
        };
        cells.try_reserve(u64::from(outer.count) * u64::from(inner.count))?;
        for i in 0..u64::from(outer.count) {
            let (source, target) = (source + i * outer.source, target + i * outer.target);
            for k in 0..u64::from(inner.count) {
                let (source, target) = (source + k * inner.source, target + k * inner.target);
                cells.push(Cell { source, target, len }, merge);
            }
        }
        Ok(())
    }
}

impl Dimension {
    /// The length of what lies together once the steps of `len` bytes each that follow each other
    /// on both sides are one, and the steps that are left.
    fn joined(self, len: u64) -> (u64, Self) {
        if self.count == 1 || (self.source == len && self.target == len) {
            return (len * u64::from(self.count), Self { count: 1, ..self });
        }
        (len, self)
    }
}

impl Strides {
    /// Where `token` is, and how many tokens its block has from there on.
    fn slot(&self, ids: &[u32], token: u32) -> (u64, u32) {
        let (index, slot) = (token / self.block_tokens, token % self.block_tokens);
        let block = u64::from(ids[index as usize]) * self.block;
        (block + u64::from(slot) * self.token, self.block_tokens - slot)
    }
}

impl From<&Layout> for Strides {
    fn from(layout: &Layout) -> Self {
        Self {
            block_tokens: layout.block_tokens,
            block: layout.block_stride,
            token: layout.token_stride,
            head: layout.head_stride,
        }
    }
}

impl Cells {
    pub(super) fn len(&self) -> usize {
        self.len.len()
    }

    #[inline]
    pub(super) fn get(&self, index: usize) -> Cell {
        Cell { source: self.source[index], target: self.target[index], len: self.len[index] }
    }

    pub(super) fn first(&self) -> Option<Cell> {
        (self.len() > 0).then(|| self.get(0))
    }

    pub(super) fn last(&self) -> Option<Cell> {
        self.len().checked_sub(1).map(|last| self.get(last))
    }

    /// Appends a cell, or lets the last one go on with it.
    fn push(&mut self, cell: Cell, merge: bool) {
        if let Some(last) = self.last()
            && merge
            && last.source + last.len == cell.source
            && last.target + last.len == cell.target
        {
            let index = self.len() - 1;
            self.len[index] += cell.len;
            return;
        }
        self.source.push(cell.source);
        self.target.push(cell.target);
        self.len.push(cell.len);
    }

    fn in_order(self, merge: bool) -> Result<Self, Invalid> {
        let Some(order) = order(self.len(), |i| (0, self.target[i]))? else {
            return Ok(self);
        };
        let mut sorted = Self::default();
        sorted.try_reserve(self.len() as u64)?;
        for i in order {
            sorted.push(self.get(i as usize), merge);
        }
        Ok(sorted)
    }

    fn try_reserve(&mut self, more: u64) -> Result<(), Invalid> {
        if self.len() as u64 + more > u64::from(MAX_RUNS) {
            return Err(refused(format!("more than {MAX_RUNS} pieces in a pool")));
        }
        let more = more as usize;
        let have = self.len();
        [&mut self.source, &mut self.target, &mut self.len]
            .into_iter()
            .try_for_each(|column| column.try_reserve(more))
            .map_err(|_| no_memory(have + more))
    }
}
