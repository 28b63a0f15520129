//! What lies in the memory of worker processes: the model of the tests' KV pools, and bytes that
//! tell where they belong.

use std::sync::Mutex;

use kvx::error::Result;
use kvx::layout::{Dtype, HeadWindow, Layout, LayoutBuilder};
use kvx::{Buffer, Engine, KvPool, Region, Rights};

use crate::random::mix;

/// Layers of the model.
pub const LAYERS: u32 = 8;
/// Blocks in the pool.
pub const BLOCKS: u32 = 32;
/// Blocks of a prompt.
pub const PROMPT: u32 = 24;
/// Tokens of a block.
pub const BLOCK_TOKENS: u32 = 16;
/// What a pool holds before a transfer, and after a fence.
pub const POISON: u8 = 0xa5;

/// 16 regions, K and V of each layer, of 32 blocks of 8 KiB.
pub fn layout() -> Layout {
    let heads = HeadWindow { first: 0, count: 4, total: 4 };
    LayoutBuilder::key_value(LAYERS, BLOCKS, heads, 64, Dtype::Bf16).build().unwrap()
}

/// `len` bytes of a block: each line of 64 bytes says where it belongs, by this seed.
fn block(seed: u64, block: u32, region: u32, len: u64) -> Vec<u8> {
    let place = mix(seed ^ (u64::from(block) << 32 | u64::from(region)));
    let mut bytes = vec![0; len as usize];
    for (line, index) in bytes.chunks_mut(LINE.len()).zip(0..) {
        line.copy_from_slice(&LINE[..line.len()]);
        let tag = mix(place ^ index).to_le_bytes();
        let tagged = line.len().min(tag.len());
        line[..tagged].copy_from_slice(&tag[..tagged]);
    }
    bytes
}

/// What follows a line's tag, so that a byte that moved within its line shows too.
const LINE: [u8; 64] = {
    let mut line = [0; 64];
    let mut at = 0;
    while at < line.len() {
        line[at] = at as u8;
        at += 1;
    }
    line
};

/// A KV pool with the memory that it lies in.
#[derive(Debug)]
pub struct Pool {
    /// What sessions take.
    pub kv: KvPool,
    /// Its regions' memory, in order.
    pub buffers: Vec<Buffer>,
    /// Registered as long as they are held.
    regions: Mutex<Vec<Region>>,
}

impl Pool {
    /// A pool of an engine's, zeroed.
    pub fn allocate(engine: &Engine) -> Self {
        let layout = layout();
        let allocate = |len: &u64| engine.allocate(*len, Rights::empty()).unwrap();
        let (buffers, regions): (Vec<_>, Vec<_>) =
            layout.region_lens().iter().map(allocate).unzip();
        let kv = KvPool::new(layout, &regions.iter().collect::<Vec<_>>()).unwrap();
        Self { kv, buffers, regions: Mutex::new(regions) }
    }

    /// Deregisters every region.
    pub fn deregister(&self) -> Result<()> {
        let mut regions = self.regions.lock().unwrap();
        regions.drain(..).try_for_each(|region| region.deregister())
    }

    /// Fills all blocks with what belongs there by this seed.
    pub fn write(&self, seed: u64) {
        for (region, buffer) in (0..).zip(&self.buffers) {
            let len = buffer.len() / u64::from(BLOCKS);
            for index in 0..BLOCKS {
                buffer.write(u64::from(index) * len, &block(seed, index, region, len)).unwrap();
            }
        }
    }

    /// Fills these blocks with the poison.
    pub fn poison(&self, blocks: &[u32]) {
        for buffer in &self.buffers {
            let len = buffer.len() / u64::from(BLOCKS);
            for block in blocks {
                buffer.fill(u64::from(*block) * len, len, POISON).unwrap();
            }
        }
    }

    /// What is wrong if `blocks[i]` is to hold what belongs to block `sources[i]` by this seed,
    /// and all others the poison.
    pub fn find_wrong(&self, seed: u64, sources: &[u32], blocks: &[u32]) -> Option<String> {
        let wrong = self.find_block(|region, index, seen| {
            let at = blocks.iter().position(|block| *block == index);
            at.is_some_and(|at| seen != block(seed, sources[at], region, seen.len() as u64))
        });
        wrong.or_else(|| self.find_touched(blocks))
    }

    /// A block beside these that does not hold the poison.
    pub fn find_touched(&self, blocks: &[u32]) -> Option<String> {
        self.find_block(|_, index, seen| {
            !blocks.contains(&index) && seen != vec![POISON; seen.len()]
        })
    }

    /// The first block of which `is_wrong` (region, block, its bytes) is true.
    fn find_block(&self, is_wrong: impl Fn(u32, u32, &[u8]) -> bool) -> Option<String> {
        for (region, buffer) in (0..).zip(&self.buffers) {
            let len = buffer.len() / u64::from(BLOCKS);
            let mut seen = vec![0; len as usize];
            for index in 0..BLOCKS {
                buffer.read(u64::from(index) * len, &mut seen).unwrap();
                if is_wrong(region, index, &seen) {
                    return Some(format!("region-{region}-block-{index}"));
                }
            }
        }
        None
    }
}

/// Fills a buffer with what belongs there by this seed.
pub fn write(buffer: &Buffer, seed: u64) {
    buffer.write(0, &block(seed, 0, 0, buffer.len())).unwrap();
}

/// The first offset at which `len` bytes from `offset` on differ from the same place of a buffer
/// that was written with this seed.
pub fn find_wrong(buffer: &Buffer, seed: u64, offset: u64, len: u64) -> Option<u64> {
    let expected = block(seed, 0, 0, buffer.len());
    let expected = &expected[offset as usize..(offset + len) as usize];
    let mut seen = vec![0; len as usize];
    buffer.read(offset, &mut seen).unwrap();
    let wrong = seen.iter().zip(expected).position(|(seen, expected)| seen != expected);
    wrong.map(|at| offset + at as u64)
}

/// The first offset that holds this byte and would not if the buffer was written with this seed.
pub fn find_byte(buffer: &Buffer, seed: u64, byte: u8) -> Option<u64> {
    let expected = block(seed, 0, 0, buffer.len());
    let mut seen = vec![0; expected.len()];
    buffer.read(0, &mut seen).unwrap();
    let at = seen.iter().zip(&expected).position(|(seen, right)| *seen == byte && *right != byte);
    at.map(|at| at as u64)
}

/// A place in these buffers that does not hold this byte.
pub fn find_other(buffers: &[Buffer], byte: u8) -> Option<String> {
    // In pieces: what is looked at must not grow by the looking.
    let expected = [byte; 64 << 10];
    let mut seen = expected;
    buffers.iter().zip(0..).find_map(|(buffer, index): (_, u32)| {
        for offset in (0..buffer.len()).step_by(expected.len()) {
            let len = (buffer.len() - offset).min(expected.len() as u64) as usize;
            buffer.read(offset, &mut seen[..len]).unwrap();
            // Compared as slices first: a loop over the bytes is slow without optimisation.
            if seen[..len] != expected[..len] {
                let at = seen.iter().position(|seen| *seen != byte).unwrap_or(0);
                return Some(format!("buffer-{index}-offset-{}", offset + at as u64));
            }
        }
        None
    })
}
