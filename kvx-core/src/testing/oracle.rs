//! The naive copy: what a plan must do, said in the dumbest way, to compare with.
//!
//! No plan is made here and nothing is fast. Memory is a `Vec<u8>` for each region.

use std::ops::Range;

use crate::layout::Layout;
use crate::plan::{Plan, Spans};

/// One side of a copy of blocks: a layout, and the block ids of the request in token order.
#[derive(Clone, Copy, Debug)]
pub struct Blocks<'a> {
    /// How the pool lies in memory.
    pub layout: &'a Layout,
    /// The blocks of the request.
    pub ids: &'a [u32],
}

/// Copies the first `tokens` tokens of `layers` (counted in the whole model), as far as both sides
/// hold the layer and the head, element by element.
///
/// # Panics
/// Anything is out of bounds.
pub fn copy_blocks(
    source: Blocks<'_>,
    source_memory: &[Vec<u8>],
    target: Blocks<'_>,
    target_memory: &mut [Vec<u8>],
    layers: Range<u32>,
    tokens: u32,
) {
    let layout = source.layout;
    for layer in layers {
        for part in 0..layout.attention.parts() {
            for token in 0..tokens {
                for head in 0..layout.heads.total {
                    for byte in 0..layout.head_bytes() {
                        let from = source.place(layer, part, token, head, byte);
                        let to = target.place(layer, part, token, head, byte);
                        if let (Some(from), Some(to)) = (from, to) {
                            target_memory[to.0][to.1] = source_memory[from.0][from.1];
                        }
                    }
                }
            }
        }
    }
}

/// Copies local span `i` over remote span `i`, one after the other.
///
/// # Panics
/// Anything is out of bounds, or the spans do not pair up.
pub fn copy_spans(
    local: &Spans,
    local_memory: &[Vec<u8>],
    remote: &Spans,
    remote_memory: &mut [Vec<u8>],
) {
    assert_eq!(local.len(), remote.len(), "number of spans");
    for (local, remote) in local.iter().zip(remote.iter()) {
        assert_eq!(local.len, remote.len, "lengths of paired spans");
        for byte in 0..local.len {
            remote_memory[remote.region as usize][(remote.offset + byte) as usize] =
                local_memory[local.region as usize][(local.offset + byte) as usize];
        }
    }
}

/// Does what `plan` says for a WRITE, run by run.
///
/// # Panics
/// Anything is out of bounds.
pub fn write(plan: &Plan, local_memory: &[Vec<u8>], remote_memory: &mut [Vec<u8>]) {
    for run in plan.runs(0..plan.len()) {
        let (from, to, len) =
            (run.local_offset as usize, run.remote_offset as usize, run.len as usize);
        remote_memory[run.remote as usize][to..to + len]
            .copy_from_slice(&local_memory[run.local as usize][from..from + len]);
    }
}

/// Does what `plan` says for a READ, run by run.
///
/// # Panics
/// Anything is out of bounds.
pub fn read(plan: &Plan, local_memory: &mut [Vec<u8>], remote_memory: &[Vec<u8>]) {
    for run in plan.runs(0..plan.len()) {
        let (to, from, len) =
            (run.local_offset as usize, run.remote_offset as usize, run.len as usize);
        local_memory[run.local as usize][to..to + len]
            .copy_from_slice(&remote_memory[run.remote as usize][from..from + len]);
    }
}

impl Blocks<'_> {
    /// Where one byte of the request lies, if this side holds it, as index of the region and offset
    /// in it: the formula of [`Layout`], word by word.
    ///
    /// # Panics
    /// There is no block id for the token.
    pub fn place(
        &self,
        layer: u32,
        part: u32,
        token: u32,
        head: u32,
        byte: u64,
    ) -> Option<(usize, usize)> {
        let layout = self.layout;
        let layer = layer.checked_sub(layout.first_layer).filter(|&layer| layer < layout.layers)?;
        let heads = layout.heads;
        let head = head.checked_sub(heads.first).filter(|&head| head < heads.count)?;
        let block = self.ids[(token / layout.block_tokens) as usize];
        let slot = token % layout.block_tokens;
        let pool = layout.pools[(layer * layout.attention.parts() + part) as usize];
        let offset = pool.offset
            + u64::from(block) * layout.block_stride
            + u64::from(slot) * layout.token_stride
            + u64::from(head) * layout.head_stride
            + byte;
        Some((pool.region as usize, offset as usize))
    }
}
