//! Plans of blocks between any two layouts, against the naive copy.

use arbitrary::Arbitrary;
use kvx_core::layout::Layout;
use kvx_core::plan::{BlockMap, Plan, PlanOptions};
use kvx_core::testing::oracle::{self, Blocks};

use crate::layout::{Any, cells};

/// Bytes of all regions of a layout that memory is made for, at most.
const MAX_MEMORY: u64 = 64 << 10;

/// A request for blocks of one layout to go to blocks of another.
#[derive(Arbitrary, Debug)]
struct Request {
    source: Any,
    target: Target,
    source_ids: Vec<u8>,
    target_ids: Vec<u8>,
    tokens: u8,
    first_layer: u8,
    layers: Option<u8>,
    merge: bool,
    max_run: u8,
}

/// Layouts that have nothing to do with each other rarely fit.
#[derive(Arbitrary, Debug)]
enum Target {
    Like(Change),
    Any(Any),
}

/// In what the target differs from the source.
#[derive(Arbitrary, Debug)]
struct Change {
    strides: Option<(u8, u8, u8)>,
    heads: Option<(u8, u8)>,
    first_layer: Option<u8>,
    blocks: Option<(u8, u8)>,
    /// Added to each pool's offset, as many times as the pool's place in the list.
    apart: u8,
}

impl Change {
    fn of(self, source: &Layout) -> Layout {
        let mut target = source.clone();
        if let Some((block, token, head)) = self.strides {
            (target.block_stride, target.token_stride, target.head_stride) =
                (block.into(), token.into(), head.into());
        }
        if let Some((first, count)) = self.heads {
            (target.heads.first, target.heads.count) = ((first % 8).into(), (count % 8).into());
        }
        if let Some(first) = self.first_layer {
            target.first_layer = (first % 8).into();
        }
        if let Some((blocks, tokens)) = self.blocks {
            (target.blocks, target.block_tokens) = ((blocks % 16).into(), (tokens % 8).into());
        }
        for (pool, place) in target.pools.iter_mut().zip(0..) {
            pool.offset = pool.offset.saturating_add(place * u64::from(self.apart));
        }
        target
    }
}

/// Plans, and does the same the naive way.
pub fn run(bytes: &[u8]) {
    let Some(request) = crate::structured::<Request>(bytes) else { return };
    let source = &request.source.0;
    let target = match request.target {
        Target::Any(Any(target)) => target,
        Target::Like(change) => change.of(source),
    };
    let sound = source.validate_shape().is_ok() && target.validate_shape().is_ok();
    let Ok(map) = BlockMap::new(source, &target) else {
        assert!(!sound || !have_common(source, &target), "layouts that fit were refused");
        return;
    };
    assert!(sound && have_common(source, &target));
    if cells(source).max(cells(&target)) > 4096 {
        return;
    }
    let all = map.layers();
    let layers = match request.layers {
        None => all,
        Some(count) => {
            let first = all.start.saturating_add(request.first_layer.into());
            first..first.saturating_add(count.into())
        }
    };
    let [source_ids, target_ids] = [request.source_ids, request.target_ids]
        .map(|ids| ids.into_iter().map(u32::from).collect::<Vec<_>>());
    let tokens = u32::from(request.tokens);
    let options = PlanOptions { merge: request.merge, max_run: u32::from(request.max_run) };
    let plan = map.plan(layers.clone(), tokens, &source_ids, &target_ids, &options);

    let within = layers.start >= map.layers().start && layers.end <= map.layers().end;
    let enough = |layout: &Layout, ids: &[u32]| {
        layout.blocks_for(tokens) as usize <= ids.len() && ids.iter().all(|id| *id < layout.blocks)
    };
    let honourable = within
        && !layers.is_empty()
        && tokens > 0
        && options.max_run > 0
        && enough(source, &source_ids)
        && enough(&target, &target_ids)
        && target_ids.iter().enumerate().all(|(at, id)| !target_ids[..at].contains(id));
    assert_eq!(plan.is_ok(), honourable, "{plan:?}");
    let Ok(plan) = plan else { return };
    assert_eq!(plan.bytes(), map.layer_bytes(tokens) * layers.len() as u64);
    assert!(plan.runs(0..plan.len()).all(|run| (1..=options.max_run).contains(&run.len)));
    let (from, to) =
        (Blocks { layout: source, ids: &source_ids }, Blocks { layout: &target, ids: &target_ids });
    moves_the_same(&plan, from, to, layers, tokens);
}

/// Whether the layouts are of one model and share layers and heads.
fn have_common(source: &Layout, target: &Layout) -> bool {
    let (layers, others) = (source.global_layers(), target.global_layers());
    let (heads, window) = (source.heads, target.heads);
    source.attention == target.attention
        && source.dtype == target.dtype
        && source.head_size == target.head_size
        && heads.total == window.total
        && layers.start.max(others.start) < layers.end.min(others.end)
        && heads.first.max(window.first) < heads.end().min(window.end())
}

fn moves_the_same(
    plan: &Plan,
    source: Blocks<'_>,
    target: Blocks<'_>,
    layers: std::ops::Range<u32>,
    tokens: u32,
) {
    let (from, to) = (source.layout.region_lens(), target.layout.region_lens());
    plan.check(&from, &to).expect("in regions that hold the pools");
    let small = |lens: &[u64]| lens.iter().fold(0u64, |a, b| a.saturating_add(*b)) <= MAX_MEMORY;
    // Where the target's own pools overlap, it is open which of them stays.
    if !small(&from) || !small(&to) || target.layout.validate(&to).is_err() {
        return;
    }
    let memory = |lens: &[u64], salt: u64| -> Vec<Vec<u8>> {
        let byte = |region: u64, i: u64| {
            let place = (region << 40 | i).wrapping_add(salt).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            (place ^ place >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9).to_be_bytes()[0]
        };
        let regions = lens.iter().zip(0..);
        regions.map(|(len, region)| (0..*len).map(|i| byte(region, i)).collect()).collect()
    };
    let source_memory = memory(&from, 1);
    let (mut planned, mut naive) = (memory(&to, 2), memory(&to, 2));
    oracle::write(plan, &source_memory, &mut planned);
    oracle::copy_blocks(source, &source_memory, target, &mut naive, layers, tokens);
    assert!(planned == naive, "the plan and the naive copy differ");
}
