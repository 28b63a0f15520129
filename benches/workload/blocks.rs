//! Block lists that the benchmarks plan: requests of Qwen3-32B at tensor-parallel size 2, of which
//! a rank has 128 pools with 1 KiB a token in each. Nothing is planned or timed here.

use kvx_core::layout::{Placement, Preset};
use kvx_core::plan::{BlockMap, Plan, PlanOptions};
use kvx_core::testing::Random;

/// The blocks of one request on both sides.
pub(crate) struct Blocks {
    pub(crate) map: BlockMap,
    pub(crate) tokens: u32,
    pub(crate) source: Vec<u32>,
    pub(crate) target: Vec<u32>,
}

impl Blocks {
    /// `count` scattered blocks of `block_tokens` tokens in each pool: 64 of 16 are the workload
    /// **paged** of `kvx bench`, 512 of 1 the workload **token**.
    pub(crate) fn scattered(count: u32, block_tokens: u32) -> Self {
        let blocks = count * 4;
        let layout = Preset::Qwen3_32B.layout(2, 0, block_tokens, blocks, Placement::RegionPerPool);
        let layout = layout.expect("a layout of a preset");
        let mut random = Random::new(2);
        let mut some = || random.order(blocks as usize)[..count as usize].to_vec();
        Self {
            map: BlockMap::new(&layout, &layout).expect("a layout fits itself"),
            tokens: block_tokens * count,
            source: some(),
            target: some(),
        }
    }

    /// The plan of all layers.
    pub(crate) fn plan(&self) -> Plan {
        let Self { map, tokens, source, target } = self;
        let options = PlanOptions::default();
        map.plan(map.layers(), *tokens, source, target, &options).expect("blocks that fit")
    }
}
