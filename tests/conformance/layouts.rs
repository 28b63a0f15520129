//! KV pools of small models, in memory whose every byte is known.

use std::ops::Range;

use kvx::layout::{Dtype, HeadWindow, Layout, LayoutBuilder};
use kvx::{Engine, KvPool, Rights};
use kvx_core::testing::oracle::{self, Blocks};

use crate::memory::{Memory, assert_same};

/// A pool, and the memory that it lies in.
pub(crate) struct Pool {
    pub(crate) pool: KvPool,
    pub(crate) memory: Vec<Memory>,
}

impl Pool {
    /// Regions that serve grants only, as session users register them.
    pub(crate) fn new(engine: &Engine, layout: Layout) -> Self {
        let lens = layout.region_lens();
        let memory: Vec<Memory> =
            lens.iter().map(|len| Memory::new(engine, *len, Rights::empty())).collect();
        let regions: Vec<_> = memory.iter().map(|memory| &memory.region).collect();
        let pool = KvPool::new(layout, &regions).unwrap();
        Self { pool, memory }
    }

    /// Four layers, eight blocks of 16 tokens, two heads.
    pub(crate) fn small(engine: &Engine) -> Self {
        Self::new(engine, small().build().unwrap())
    }

    /// Four layers, a K and a V pool of 2 MiB each: long enough to be interrupted.
    pub(crate) fn large(engine: &Engine) -> Self {
        let heads = HeadWindow { first: 0, count: 8, total: 8 };
        let layout = LayoutBuilder::key_value(4, 2, heads, 256, Dtype::Bf16).block_tokens(256);
        Self::new(engine, layout.build().unwrap())
    }

    pub(crate) fn layout(&self) -> &Layout {
        self.pool.layout()
    }

    /// All of its memory.
    pub(crate) fn bytes(&self) -> Vec<Vec<u8>> {
        self.memory.iter().map(Memory::bytes).collect()
    }

    pub(crate) fn poison(&self) {
        self.memory.iter().for_each(Memory::poison);
    }

    #[track_caller]
    pub(crate) fn assert_poisoned(&self) {
        self.memory.iter().for_each(Memory::assert_poisoned);
    }

    /// Compares every byte of the pool, blocks that were not granted included.
    #[track_caller]
    pub(crate) fn assert_holds(&self, expected: &[Vec<u8>]) {
        for (index, (found, expected)) in self.bytes().iter().zip(expected).enumerate() {
            assert_same(found, expected, &format!("region {index} of the pool"));
        }
    }
}

pub(crate) fn small() -> LayoutBuilder {
    of_blocks(8)
}

/// Like [`small`], but of so many blocks.
pub(crate) fn of_blocks(blocks: u32) -> LayoutBuilder {
    let heads = HeadWindow { first: 0, count: 2, total: 2 };
    LayoutBuilder::key_value(4, blocks, heads, 16, Dtype::Bf16)
}

/// Copies what a session with these blocks moves into `target_memory`, naively.
pub(crate) fn copy(
    (source, source_blocks): (&Pool, &[u32]),
    (target, target_blocks): (&Pool, &[u32]),
    target_memory: &mut [Vec<u8>],
    layers: Range<u32>,
    tokens: u32,
) {
    oracle::copy_blocks(
        Blocks { layout: source.layout(), ids: source_blocks },
        &source.bytes(),
        Blocks { layout: target.layout(), ids: target_blocks },
        target_memory,
        layers,
        tokens,
    );
}
