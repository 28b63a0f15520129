//! A rank's KV pool in memory of its engine: filled and digested here, moved by the engine.

use kvx::error::{Cause, Error, Invalid, Operation, Result};
use kvx::layout::Layout;
use kvx::{Buffer, Engine, KvPool, Region, Rights};
use sha2::{Digest, Sha256};

/// What memory holds that nothing was received into.
const POISON: u8 = 0xa5;

/// The memory of one KV pool.
pub(super) struct Memory {
    layout: Layout,
    /// As long as the layout asks, in the order of its regions.
    buffers: Vec<Buffer>,
    pool: KvPool,
    /// Keeps the buffers registered.
    _regions: Vec<Region>,
}

/// Where the blocks of a prompt lie in a pool.
#[derive(Clone, Debug)]
pub(super) struct Blocks {
    /// In the prompt's order; distinct.
    pub(super) ids: Vec<u32>,
    /// The prompt's tokens; the last block may be filled in part.
    pub(super) tokens: u32,
}

impl Memory {
    /// Allocates and registers the pool. Peers get no rights but by grants.
    pub(super) fn allocate(engine: &Engine, layout: Layout) -> Result<Self> {
        let lens = layout.region_lens();
        let allocated = lens.into_iter().map(|len| engine.allocate(len, Rights::empty()));
        let (buffers, regions): (Vec<_>, Vec<_>) =
            allocated.collect::<Result<Vec<_>>>()?.into_iter().unzip();
        let pool = KvPool::new(layout.clone(), &regions.iter().collect::<Vec<_>>())?;
        Ok(Self { layout, buffers, pool, _regions: regions })
    }

    pub(super) fn pool(&self) -> &KvPool {
        &self.pool
    }

    /// Fills one layer of a prompt: `content` fills the bytes of block (pool, position).
    pub(super) fn fill_layer(
        &self,
        layer: u32,
        blocks: &Blocks,
        mut content: impl FnMut(u32, u32, &mut [u8]),
    ) -> Result<()> {
        let parts = self.layout.attention.parts();
        let mut bytes = self.block_bytes();
        for pool in layer * parts..(layer + 1) * parts {
            for (position, id) in (0..).zip(&blocks.ids) {
                let filled = &mut bytes[..self.filled(blocks, position)];
                content(pool, position, filled);
                let (buffer, offset) = self.place(pool, *id)?;
                buffer.write(offset, filled).map_err(outside)?;
            }
        }
        Ok(())
    }

    /// SHA-256 over a prompt's bytes: its blocks in the prompt's order, pool by pool.
    pub(super) fn digest(&self, blocks: &Blocks) -> Result<String> {
        let mut digest = Sha256::new();
        let mut bytes = self.block_bytes();
        for pool in self.pools() {
            for (position, id) in (0..).zip(&blocks.ids) {
                let filled = &mut bytes[..self.filled(blocks, position)];
                let (buffer, offset) = self.place(pool, *id)?;
                buffer.read(offset, filled).map_err(outside)?;
                digest.update(filled);
            }
        }
        Ok(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// Makes every byte known, so that one that is written by mistake is seen.
    pub(super) fn poison(&self) -> Result<()> {
        let mut buffers = self.buffers.iter();
        buffers.try_for_each(|buffer| buffer.fill(0, buffer.len(), POISON)).map_err(outside)
    }

    /// Counts the bytes that are no poison any more, and in none of these prompts' blocks.
    pub(super) fn count_outside(&self, prompts: &[Blocks]) -> Result<u64> {
        let block = self.block_bytes().len();
        // For each block of the pool, where the bytes that may have been written end.
        let mut written = vec![0; self.layout.blocks as usize];
        for blocks in prompts {
            for (position, id) in (0..).zip(&blocks.ids) {
                written[*id as usize] = self.filled(blocks, position);
            }
        }
        let mut bytes = self.block_bytes();
        let mut count = 0;
        for pool in self.pools() {
            for (id, begin) in (0..).zip(&written).filter(|(_, begin)| **begin < block) {
                let rest = &mut bytes[*begin..];
                let (buffer, offset) = self.place(pool, id)?;
                buffer.read(offset + *begin as u64, rest).map_err(outside)?;
                count += rest.iter().filter(|byte| **byte != POISON).count() as u64;
            }
        }
        Ok(count)
    }

    /// Changes the first byte of a block in the first pool.
    pub(super) fn corrupt(&self, id: u32) -> Result<()> {
        let (buffer, offset) = self.place(0, id)?;
        let mut byte = [0];
        buffer.read(offset, &mut byte).map_err(outside)?;
        buffer.write(offset, &[!byte[0]]).map_err(outside)
    }

    fn pools(&self) -> std::ops::Range<u32> {
        0..self.layout.layers * self.layout.attention.parts()
    }

    /// The buffer and the offset in it where a block begins.
    fn place(&self, pool: u32, id: u32) -> Result<(&Buffer, u64)> {
        let pool = self.layout.pools.get(pool as usize).copied();
        let place = pool.and_then(|pool| {
            let buffer = self.buffers.get(pool.region as usize)?;
            Some((buffer, pool.offset + u64::from(id) * self.layout.block_stride))
        });
        place.ok_or_else(|| outside(Invalid::UnknownRegion))
    }

    /// Bytes of the block at this position that the prompt's tokens fill: the demo's layouts have
    /// no gaps, and a token's heads lie together, so that they are the first ones.
    fn filled(&self, blocks: &Blocks, position: u32) -> usize {
        let before = position.saturating_mul(self.layout.block_tokens);
        let tokens = blocks.tokens.saturating_sub(before).min(self.layout.block_tokens);
        // Not above a block's bytes, which were allocated.
        (u64::from(tokens) * self.layout.token_stride) as usize
    }

    fn block_bytes(&self) -> Vec<u8> {
        vec![0; self.layout.block_bytes() as usize]
    }
}

/// A place beyond the pool's memory, which only a mistake of this program asks for.
fn outside(invalid: Invalid) -> Error {
    Error::new(Operation::Layout, Cause::Invalid(invalid))
}
