//! How the blocks of a row lie in the pools of both sides. Not the memory itself, nor what is in it.
//!
//! Both sides make the same lists from the same few numbers, so that only those travel.

use std::fmt;
use std::str::FromStr;

use kvx::TransferOp;

use super::workload::{Blocks, Span};
use crate::numbers::{Numbers, scattered};

/// Blocks of a row at most.
pub(super) const MAX_BLOCKS: u64 = 1 << 20;

/// Pools of a row at most; each is a region of its own.
const MAX_POOLS: u32 = 1 << 12;

/// Bytes of a side's pools at most: what an offset on this machine, and on the peer's, can name.
const MAX_BYTES: u64 = 1 << 46;

/// Blocks of a pool that do not move, at least.
const LEAST_SPARE: u32 = 4;

/// Some blocks of equal size in each of some pools of equal size.
///
/// The numbers keep within this module's bounds: they are checked where they come in, by
/// [`Shape::from_str`] from the peer and by [`Shape::check`] from the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) pools: u32,
    /// Blocks that move, of each pool.
    pub(super) blocks: u32,
    pub(super) block_bytes: u64,
    pub(super) order: Order,
}

/// How the blocks that move lie in a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// One after another, on both sides.
    Sequential,
    /// As in a pool that has served many requests before: anywhere, and elsewhere on the other side.
    Scattered,
}

/// The two ends of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// Who posts.
    Initiator,
    /// Whose memory is read or written by the other.
    Peer,
}

impl Side {
    /// Whether this side's memory is written.
    pub(super) fn is_target(self, op: TransferOp) -> bool {
        match op {
            TransferOp::Write => self == Self::Peer,
            TransferOp::Read => self == Self::Initiator,
        }
    }
}

impl Shape {
    /// Blocks that move, of all pools.
    pub(super) fn block_count(&self) -> u64 {
        u64::from(self.pools) * u64::from(self.blocks)
    }

    /// Bytes that move.
    pub(super) fn bytes(&self) -> u64 {
        self.block_count() * self.block_bytes
    }

    /// Bytes of a pool, half as many again as move.
    pub(super) fn pool_bytes(&self) -> u64 {
        u64::from(self.pool_blocks()) * self.block_bytes
    }

    /// Bytes of a side's pools.
    pub(super) fn side_bytes(&self) -> u64 {
        self.pool_bytes() * u64::from(self.pools)
    }

    fn pool_blocks(&self) -> u32 {
        self.blocks + self.spare()
    }

    fn spare(&self) -> u32 {
        (self.blocks / 2).max(LEAST_SPARE)
    }

    /// Whether the numbers keep within bounds.
    ///
    /// # Errors
    /// Says what is allowed.
    pub(super) fn check(self) -> Result<Self, String> {
        let Self { pools, blocks, block_bytes, .. } = self;
        if pools == 0 || pools > MAX_POOLS {
            return Err(format!("{pools} pools: expected 1 to {MAX_POOLS}"));
        }
        let count = u64::from(pools) * u64::from(blocks);
        if count == 0 || count > MAX_BLOCKS {
            return Err(format!("{count} blocks: expected 1 to {MAX_BLOCKS}"));
        }
        let most = MAX_BYTES / (u64::from(pools) * u64::from(self.pool_blocks()));
        if block_bytes == 0 || block_bytes > most {
            return Err(format!("blocks of {block_bytes} bytes: expected 1 to {most}"));
        }
        Ok(self)
    }

    /// Where this side's blocks begin, in the order in which both sides pair them: pool and offset
    /// in the pool.
    pub(super) fn places(&self, side: Side, seed: u64) -> Vec<(u32, u64)> {
        let mut places = Vec::new();
        for pool in 0..self.pools {
            let ids = self.ids(side, seed, pool);
            places.extend(ids.into_iter().map(|id| (pool, u64::from(id) * self.block_bytes)));
        }
        places
    }

    fn ids(&self, side: Side, seed: u64, pool: u32) -> Vec<u32> {
        match self.order {
            Order::Sequential => {
                let first = self.spare() / 2;
                (first..first + self.blocks).collect()
            }
            Order::Scattered => {
                let key = Numbers::new(seed ^ (u64::from(pool) << 1) ^ side as u64).next();
                scattered(key, self.blocks, self.pool_blocks())
            }
        }
    }

    /// The same lists as spans of one allocation a side, in which the pools lie one after another.
    pub(super) fn flat(&self, op: TransferOp, seed: u64) -> Blocks {
        let spans = |side| {
            let places = self.places(side, seed).into_iter();
            let flat = places.map(|(pool, offset)| Span {
                offset: (u64::from(pool) * self.pool_bytes() + offset) as usize,
                len: self.block_bytes as usize,
            });
            flat.collect::<Vec<_>>()
        };
        let (source, target) = match op {
            TransferOp::Write => (Side::Initiator, Side::Peer),
            TransferOp::Read => (Side::Peer, Side::Initiator),
        };
        let len = self.side_bytes() as usize;
        Blocks { source: spans(source), target: spans(target), source_len: len, target_len: len }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pools, blocks, block_bytes, order } = self;
        let order = match order {
            Order::Sequential => "sequential",
            Order::Scattered => "scattered",
        };
        write!(f, "{pools}x{blocks}x{block_bytes}x{order}")
    }
}

impl FromStr for Shape {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let not_one = || format!("{text:?} is no shape of a workload");
        let parts: Vec<&str> = text.split('x').collect();
        let [pools, blocks, block_bytes, order] = parts[..] else { return Err(not_one()) };
        let order = match order {
            "sequential" => Order::Sequential,
            "scattered" => Order::Scattered,
            _ => return Err(not_one()),
        };
        let pools = pools.parse().map_err(|_| not_one())?;
        let blocks = blocks.parse().map_err(|_| not_one())?;
        let block_bytes = block_bytes.parse().map_err(|_| not_one())?;
        Self { pools, blocks, block_bytes, order }.check()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape { pools: 3, blocks: 64, block_bytes: 1024, order: Order::Scattered };

    #[test]
    fn what_one_side_says_the_other_understands() {
        for shape in [SHAPE, Shape { order: Order::Sequential, ..SHAPE }] {
            assert_eq!(shape.to_string().parse(), Ok(shape));
        }
    }

    #[test]
    fn shapes_beyond_all_bounds_are_refused() {
        for text in [
            "",
            "1x1x1",
            "1x1x1xupwards",
            "0x1x1xscattered",
            "1x0x1xscattered",
            "1x1x0xscattered",
            "4294967295x4294967295x1xscattered",
            "1x4294967295x1xscattered",
            "1x1048576x18446744073709551615xscattered",
            "1x1x18446744073709551615xscattered",
            "-1x1x1xscattered",
        ] {
            assert!(text.parse::<Shape>().is_err(), "{text}");
        }
    }

    #[test]
    fn scattered_blocks_lie_differently_on_both_sides_and_inside_their_pools() {
        let [here, there] = [Side::Initiator, Side::Peer].map(|side| SHAPE.places(side, 7));
        assert_eq!((here.len(), there.len()), (3 * 64, 3 * 64));
        assert_ne!(here, there);
        assert_ne!(here, SHAPE.places(Side::Initiator, 8));
        for places in [here, there] {
            let inside = |(_, offset): &(u32, u64)| offset + 1024 <= SHAPE.pool_bytes();
            assert!(places.iter().all(inside));
            let mut distinct = places.clone();
            distinct.sort_unstable();
            distinct.dedup();
            assert_eq!(distinct.len(), places.len());
            assert_ne!(distinct, places);
        }
        assert!(SHAPE.pool_bytes() > 64 * 1024);
    }

    #[test]
    fn the_flat_lists_are_those_of_the_pools() {
        let blocks = SHAPE.flat(TransferOp::Read, 7);
        let target = SHAPE.places(Side::Initiator, 7);
        let flat =
            |(pool, offset): (u32, u64)| (u64::from(pool) * SHAPE.pool_bytes() + offset) as usize;
        assert!(blocks.target.iter().map(|span| span.offset).eq(target.into_iter().map(flat)));
        assert_eq!(blocks.source_len as u64, SHAPE.side_bytes());
        assert!(blocks.source.iter().all(|span| span.offset + span.len <= blocks.source_len));
    }
}
