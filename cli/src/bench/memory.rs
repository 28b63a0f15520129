//! One side's pools: filled before a round, looked at after it. The engine moves what is in them.

mod pool;

use clap::ValueEnum;
use kvx::error::Invalid;
use kvx::{Engine, Region, Rights, Span, Spans, TransferOp};

pub(super) use self::pool::Owner;

use self::pool::Pool;
use super::Problem;
use super::content::Content;
use super::shape::{Shape, Side};

/// What memory holds that nothing shall be written to.
const POISON: u8 = 0xa5;

/// Bytes that are filled or looked at together; a multiple of a word.
const CHUNK: usize = 64 << 10;

/// Which byte to change, to see that it is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Corrupt {
    /// One of a block.
    Inside,
    /// One that nobody may write.
    Outside,
}

/// The pools of one side, each a region of its own, as serving engines register theirs.
#[derive(Debug)]
pub(super) struct Memory {
    shape: Shape,
    seed: u64,
    pools: Vec<Pool>,
    regions: Vec<Region>,
    /// Pool and offset of each block that moves, in the order in which both sides pair them.
    places: Vec<(u32, u64)>,
    /// The rest of the pools: pool, offset and length.
    outside: Vec<(u32, u64, u64)>,
}

impl Memory {
    /// Allocates and registers the pools, and touches all of them.
    pub(super) fn new(
        engine: &Engine,
        owner: Owner,
        shape: Shape,
        side: Side,
        op: TransferOp,
        seed: u64,
    ) -> Result<Self, Problem> {
        let rights = match (side, op) {
            (Side::Initiator, _) => Rights::empty(),
            (Side::Peer, TransferOp::Write) => Rights::REMOTE_WRITE,
            (Side::Peer, TransferOp::Read) => Rights::REMOTE_READ,
        };
        let size = (shape.pools, shape.pool_bytes());
        let (pools, regions) = Pool::allocate(engine, owner, size, rights)?;
        let poison = [POISON; CHUNK];
        for pool in &pools {
            for offset in (0..pool.len()).step_by(CHUNK) {
                let len = (pool.len() - offset).min(CHUNK as u64) as usize;
                pool.write(offset, &poison[..len])?;
            }
        }
        let places = shape.places(side, seed);
        let outside = outside(&shape, &places);
        Ok(Self { shape, seed, pools, regions, places, outside })
    }

    pub(super) fn regions(&self) -> &[Region] {
        &self.regions
    }

    /// Puts the content of a round into the blocks.
    pub(super) fn fill(&self, round: u64) -> Result<(), Invalid> {
        let content = Content::new(self.seed, round);
        let mut bytes = self.chunk();
        self.each_chunk(|pool, offset, len, word| {
            let bytes = &mut bytes[..len];
            content.fill(word, bytes);
            pool.write(offset, bytes)?;
            Ok(None::<()>)
        })?;
        Ok(())
    }

    /// Changes a byte.
    pub(super) fn corrupt(&self, which: Corrupt) -> Result<(), Invalid> {
        let place = match which {
            Corrupt::Inside => self.places.first().copied(),
            Corrupt::Outside => self.outside.first().map(|(pool, offset, _)| (*pool, *offset)),
        };
        // Every shape has a block, and pools that are larger.
        let (pool, offset) = place.ok_or(Invalid::Empty("pool"))?;
        let pool = &self.pools[pool as usize];
        let mut byte = [0];
        pool.read(offset, &mut byte)?;
        pool.write(offset, &[!byte[0]])
    }

    /// The first place, if there is one, where a block does not hold the content of a round, or
    /// where anything else is not as it was.
    pub(super) fn difference(&self, round: u64) -> Result<Option<String>, Invalid> {
        let content = Content::new(self.seed, round);
        let mut bytes = self.chunk();
        let inside = self.each_chunk(|pool, offset, len, word| {
            let bytes = &mut bytes[..len];
            pool.read(offset, bytes)?;
            let at = content.first_difference(word, bytes);
            Ok(at.map(|at| (offset + at as u64, bytes[at])))
        })?;
        if let Some((pool, (offset, byte))) = inside {
            return Ok(Some(format!(
                "pool {pool}, offset {offset}: {byte:#04x} is not the content of round {round}"
            )));
        }
        self.difference_outside()
    }

    fn difference_outside(&self) -> Result<Option<String>, Invalid> {
        let mut bytes = vec![0; CHUNK];
        for &(index, begin, len) in &self.outside {
            let pool = &self.pools[index as usize];
            let mut done = 0;
            while done < len {
                let part = (len - done).min(CHUNK as u64);
                let bytes = &mut bytes[..part as usize];
                pool.read(begin + done, bytes)?;
                if let Some(at) = bytes.iter().position(|byte| *byte != POISON) {
                    let (offset, byte) = (begin + done + at as u64, bytes[at]);
                    return Ok(Some(format!(
                        "pool {index}, offset {offset}: {byte:#04x} was written outside of the blocks"
                    )));
                }
                done += part;
            }
        }
        Ok(None)
    }

    /// The blocks of one side as spans of its pools.
    pub(super) fn spans(shape: &Shape, side: Side, seed: u64) -> Spans {
        let len = shape.block_bytes;
        let places = shape.places(side, seed).into_iter();
        places.map(|(region, offset)| Span { region, offset, len }).collect()
    }

    /// Calls `f` with pool, offset, length and first word for each part of each block, until it
    /// finds something; gives the pool with it.
    fn each_chunk<T>(
        &self,
        mut f: impl FnMut(&Pool, u64, usize, u64) -> Result<Option<T>, Invalid>,
    ) -> Result<Option<(u32, T)>, Invalid> {
        let block = self.shape.block_bytes;
        // Blocks whose size is no multiple of a word begin with a word of their own.
        let block_words = block.div_ceil(8);
        for (index, &(of, begin)) in (0..).zip(&self.places) {
            let pool = &self.pools[of as usize];
            let mut done = 0;
            while done < block {
                let len = (block - done).min(CHUNK as u64);
                let word = index * block_words + done / 8;
                if let Some(found) = f(pool, begin + done, len as usize, word)? {
                    return Ok(Some((of, found)));
                }
                done += len;
            }
        }
        Ok(None)
    }

    fn chunk(&self) -> Vec<u8> {
        vec![0; CHUNK.min(self.shape.block_bytes as usize)]
    }
}

/// What the pools hold beside the blocks at these places: pool, offset and length.
fn outside(shape: &Shape, places: &[(u32, u64)]) -> Vec<(u32, u64, u64)> {
    let mut sorted = places.to_vec();
    sorted.sort_unstable();
    let mut outside = Vec::new();
    let mut blocks = sorted.into_iter().peekable();
    for pool in 0..shape.pools {
        let mut end = 0;
        while let Some((_, offset)) = blocks.next_if(|(of, _)| *of == pool) {
            if offset > end {
                outside.push((pool, end, offset - end));
            }
            end = offset + shape.block_bytes;
        }
        if end < shape.pool_bytes() {
            outside.push((pool, end, shape.pool_bytes() - end));
        }
    }
    outside
}

#[cfg(test)]
mod tests;
