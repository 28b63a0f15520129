//! From two KV layouts and the block ids of a request to a plan: every layer, every common head,
//! every token, whatever the sizes and orders of the blocks on either side.

use std::fmt::Debug;
use std::ops::Range;

use crate::error::Invalid;
use crate::layout::{Layout, Pool};
use crate::plan::cells::{Cell, Cells, Shape};
use crate::plan::order::{no_memory, refused};
use crate::plan::runs::{self, Pair, Runs};
use crate::plan::{Plan, PlanOptions, Span};
use crate::wire::MAX_RUNS;

/// What two layouts have in common, prepared once, so that each request's block ids become a plan
/// by appending to columns. `local` in its plans is the source, `remote` the target.
#[derive(Clone, Debug)]
pub struct BlockMap {
    /// The common layers, counted in the whole model; at least one.
    layers: Range<u32>,
    /// Pools a layer.
    parts: usize,
    /// The pools of the common layers in layer order, each part after the other. Offsets are those
    /// of the first common head.
    pools: Vec<(Pool, Pool)>,
    shape: Shape,
    /// Blocks in a pool of the source.
    source_blocks: u32,
    /// Blocks in a pool of the target.
    target_blocks: u32,
}

impl BlockMap {
    /// Prepares to move what `target` has in common with `source`: layers and heads that both hold.
    /// A latent cache has one head, the same on every rank: any source serves any target.
    ///
    /// # Errors
    /// A layout that [`Layout::validate_shape`] refuses; layouts of different models (attention,
    /// heads, head size, dtype); or nothing in common.
    pub fn new(source: &Layout, target: &Layout) -> Result<Self, Invalid> {
        source.validate_shape()?;
        target.validate_shape()?;
        if source.attention != target.attention {
            return Err(differ("attention", source.attention, target.attention));
        }
        if source.dtype != target.dtype {
            return Err(differ("dtype", source.dtype, target.dtype));
        }
        if source.heads.total != target.heads.total {
            return Err(differ("heads.total", source.heads.total, target.heads.total));
        }
        if source.head_size != target.head_size {
            return Err(differ("head_size", source.head_size, target.head_size));
        }
        let layers = common(source.global_layers(), target.global_layers());
        let heads =
            common(source.heads.first..source.heads.end(), target.heads.first..target.heads.end());
        if layers.is_empty() {
            return Err(Invalid::Empty("the intersection of the layouts' layers"));
        }
        if heads.is_empty() {
            return Err(Invalid::Empty("the intersection of the layouts' heads"));
        }
        let sources = pools_from(source, &layers, heads.start);
        let targets = pools_from(target, &layers, heads.start);
        Ok(Self {
            parts: source.attention.parts() as usize,
            pools: sources.zip(targets).collect(),
            shape: Shape::new(source, target, heads.end - heads.start),
            source_blocks: source.blocks,
            target_blocks: target.blocks,
            layers,
        })
    }

    /// The layers that both sides hold, counted in the whole model; never empty.
    pub fn layers(&self) -> Range<u32> {
        self.layers.clone()
    }

    /// Bytes that move for `tokens` tokens of one layer.
    pub fn layer_bytes(&self, tokens: u32) -> u64 {
        let token = self.shape.token_bytes() * self.parts as u64;
        token.saturating_mul(u64::from(tokens))
    }

    /// The plan that moves the first `tokens` tokens of `layers`, counted in the whole model.
    ///
    /// On either side token `t` is in slot `t % block_tokens` of block `ids[t / block_tokens]`. Not
    /// a byte beyond the last token moves, and ids beyond its block are checked but not used.
    ///
    /// # Errors
    /// No layers or no tokens; layers that are not in [`BlockMap::layers`]; too few block ids, ids
    /// that no pool has, a target block twice; too many runs, or no memory for them.
    pub fn plan(
        &self,
        layers: Range<u32>,
        tokens: u32,
        source_blocks: &[u32],
        target_blocks: &[u32],
        options: &PlanOptions,
    ) -> Result<Plan, Invalid> {
        let pools = &self.pools[window(&layers, &self.layers, self.parts)?];
        if tokens == 0 {
            return Err(Invalid::Empty("the list of tokens"));
        }
        enough("number of source blocks", source_blocks, tokens, self.shape.source_tokens())?;
        enough("number of target blocks", target_blocks, tokens, self.shape.target_tokens())?;
        below("source block", source_blocks, self.source_blocks)?;
        below("target block", target_blocks, self.target_blocks)?;
        distinct("target blocks", target_blocks)?;
        let cells = self.shape.cells(tokens, source_blocks, target_blocks, options.merge)?;
        match follow_each_other(pools, &cells) {
            true => pool_by_pool(pools, &cells, options),
            false => sorted(pools, &cells, options),
        }
    }
}

/// Every byte of the blocks `ids` in `layers` (counted in the whole model), all heads and slots, as
/// spans that do not overlap: what a grant of these blocks covers.
///
/// # Errors
/// A layout that [`Layout::validate_shape`] refuses, layers that it does not hold, ids that no pool
/// has, an id twice, or more than [`MAX_RUNS`] spans a pool.
pub fn spans_of(
    layout: &Layout,
    layers: Range<u32>,
    ids: &[u32],
) -> Result<impl Iterator<Item = Span> + use<>, Invalid> {
    layout.validate_shape()?;
    let parts = layout.attention.parts() as usize;
    let pools: Vec<Pool> = layout.pools[window(&layers, &layout.global_layers(), parts)?].to_vec();
    below("block", ids, layout.blocks)?;
    distinct("blocks", ids)?;
    let cells = Shape::new(layout, layout, layout.heads.count).whole_blocks(ids)?;
    let in_pool = cells.len();
    Ok((0..pools.len() * in_pool).map(move |i| {
        let (pool, cell) = (pools[i / in_pool], cells.get(i % in_pool));
        Span { region: pool.region, offset: pool.offset + cell.target, len: cell.len }
    }))
}

/// Whether the target cells of each pool lie behind those of the pool before.
fn follow_each_other(pools: &[(Pool, Pool)], cells: &Cells) -> bool {
    let (Some(first), Some(last)) = (cells.first(), cells.last()) else {
        return true;
    };
    pools.windows(2).all(|pair| {
        let (before, after) = (pair[0].1, pair[1].1);
        (before.region, before.offset + last.target) <= (after.region, after.offset + first.target)
    })
}

fn pool_by_pool(
    pools: &[(Pool, Pool)],
    cells: &Cells,
    options: &PlanOptions,
) -> Result<Plan, Invalid> {
    let mut runs = Runs::new(options)?;
    for &pool in pools {
        for i in 0..cells.len() {
            runs.push(in_pools(pool, cells.get(i)))?;
        }
    }
    runs.finish()
}

/// The plan where pools interleave: what lies side by side comes from different pools.
fn sorted(pools: &[(Pool, Pool)], cells: &Cells, options: &PlanOptions) -> Result<Plan, Invalid> {
    let in_pool = cells.len();
    let count = pools.len() * in_pool;
    if count as u64 > u64::from(MAX_RUNS) {
        return Err(refused(format!("more than {MAX_RUNS} pieces to sort")));
    }
    let pair = |i: usize| in_pools(pools[i / in_pool], cells.get(i % in_pool));
    let (local, remote) = (|i| pair(i).local(), |i| pair(i).remote());
    runs::plan(count, |i| remote(i).place(), local, remote, options)
}

fn in_pools((source, target): (Pool, Pool), cell: Cell) -> Pair {
    // Layouts that passed the validation have no cell beyond 64 bits.
    Pair {
        local: source.region,
        remote: target.region,
        local_offset: source.offset + cell.source,
        remote_offset: target.offset + cell.target,
        len: cell.len,
    }
}

/// The pools of `layers`, from head `first_head` of the model on; the layout holds all of them.
fn pools_from(layout: &Layout, layers: &Range<u32>, first_head: u32) -> impl Iterator<Item = Pool> {
    let parts = layout.attention.parts();
    let held =
        (layers.start - layout.first_layer) * parts..(layers.end - layout.first_layer) * parts;
    let head = u64::from(first_head - layout.heads.first) * layout.head_stride;
    layout.pools[held.start as usize..held.end as usize]
        .iter()
        .map(move |pool| Pool { region: pool.region, offset: pool.offset + head })
}

/// The pools of `layers` in a list that begins with those of `held`.
fn window(layers: &Range<u32>, held: &Range<u32>, parts: usize) -> Result<Range<usize>, Invalid> {
    if layers.is_empty() {
        return Err(Invalid::Empty("the range of layers"));
    }
    if layers.start < held.start || layers.end > held.end {
        let why = format!("{layers:?} does not lie within {held:?}");
        return Err(Invalid::Field { field: "layers", why });
    }
    let pool = |layer: u32| (layer - held.start) as usize * parts;
    Ok(pool(layers.start)..pool(layers.end))
}

fn common(left: Range<u32>, right: Range<u32>) -> Range<u32> {
    left.start.max(right.start)..left.end.min(right.end)
}

fn enough(what: &'static str, ids: &[u32], tokens: u32, block_tokens: u32) -> Result<(), Invalid> {
    let (left, right) = (ids.len() as u64, u64::from(tokens.div_ceil(block_tokens)));
    if left >= right { Ok(()) } else { Err(Invalid::Mismatch { what, left, right }) }
}

fn below(what: &'static str, ids: &[u32], blocks: u32) -> Result<(), Invalid> {
    let Some(&id) = ids.iter().find(|&&id| id >= blocks) else {
        return Ok(());
    };
    Err(Invalid::Index { what, index: u64::from(id), len: u64::from(blocks) })
}

fn distinct(field: &'static str, ids: &[u32]) -> Result<(), Invalid> {
    // Allocators mostly hand blocks out in order, up or down.
    let in_order = |order: fn(&u32, &u32) -> bool| ids.is_sorted_by(order);
    if in_order(|a, b| a < b) || in_order(|a, b| a > b) {
        return Ok(());
    }
    let mut sorted: Vec<u32> = Vec::new();
    sorted.try_reserve_exact(ids.len()).map_err(|_| no_memory(ids.len()))?;
    sorted.extend_from_slice(ids);
    sorted.sort_unstable();
    match sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => {
            Err(Invalid::Field { field, why: format!("block {} is there twice", pair[0]) })
        }
        None => Ok(()),
    }
}

fn differ(field: &'static str, source: impl Debug, target: impl Debug) -> Invalid {
    Invalid::Field { field, why: format!("the source has {source:?}, the target {target:?}") }
}

#[cfg(test)]
mod tests;
