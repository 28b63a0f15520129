//! Promises of block maps: the same bytes as the naive copy for any two layouts, and not one more.

use proptest::prelude::*;

use super::*;
use crate::layout::{Attention, Dtype, HeadWindow, LayoutBuilder, Order, Placement};
use crate::plan::Spans;
use crate::testing::oracle::{self, Blocks};

const HEADS: u32 = 4;

fn key_value(first_head: u32, count: u32) -> LayoutBuilder {
    let heads = HeadWindow { first: first_head, count, total: HEADS };
    LayoutBuilder::key_value(3, 8, heads, 2, Dtype::Bf16).block_tokens(4)
}

fn all_heads() -> Layout {
    key_value(0, HEADS).build().unwrap()
}

fn memory(layout: &Layout, seed: u64) -> Vec<Vec<u8>> {
    // A byte's value comes from its place, well mixed: a byte from elsewhere is noticed.
    let byte = |region: u64, i: u64| {
        let place = (region << 40 | i).wrapping_add(seed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (place ^ place >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9).to_be_bytes()[0]
    };
    let regions = layout.region_lens().into_iter().zip(0..);
    regions.map(|(len, region)| (0..len).map(|i| byte(region, i)).collect()).collect()
}

/// Does `plan` and the naive copy lead to the same memory, and may the plan do what it does?
fn same_as_naive(
    source: Blocks<'_>,
    target: Blocks<'_>,
    layers: Range<u32>,
    tokens: u32,
    plan: &Plan,
) {
    let from = memory(source.layout, 1);
    let (mut planned, mut naive) = (memory(target.layout, 2), memory(target.layout, 2));
    plan.check(&source.layout.region_lens(), &target.layout.region_lens()).unwrap();
    oracle::write(plan, &from, &mut planned);
    oracle::copy_blocks(source, &from, target, &mut naive, layers, tokens);
    assert!(planned == naive, "the plan and the naive copy differ");
}

fn check(
    source: &Layout,
    source_ids: &[u32],
    target: &Layout,
    target_ids: &[u32],
    tokens: u32,
) -> Plan {
    let map = BlockMap::new(source, target).unwrap();
    let options = PlanOptions::default();
    let plan = map.plan(map.layers(), tokens, source_ids, target_ids, &options).unwrap();
    let (source, target) =
        (Blocks { layout: source, ids: source_ids }, Blocks { layout: target, ids: target_ids });
    same_as_naive(source, target, map.layers(), tokens, &plan);
    assert_eq!(plan.bytes(), map.layer_bytes(tokens) * u64::from(map.layers().len() as u32));
    plan
}

#[test]
fn blocks_of_equal_shape_move_whole_and_neighbours_merge() {
    let layout = all_heads();
    assert_eq!(check(&layout, &[0, 1, 5], &layout, &[2, 3, 7], 12).len(), 2 * 6);
    assert_eq!(check(&layout, &[0, 4, 1], &layout, &[2, 7, 3], 12).len(), 2 * 6);
    assert_eq!(check(&layout, &[4, 3, 2], &layout, &[7, 6, 5], 12).len(), 6);
    assert_eq!(check(&layout, &[0, 1], &layout, &[2, 3], 6).bytes(), 6 * layout.token_bytes());
}

#[test]
fn interleaved_pools_merge_across_keys_values_and_layers() {
    let placed = |placement| key_value(0, HEADS).placement(placement).build().unwrap();
    let layer = placed(Placement::RegionPerLayerInterleaved);
    assert_eq!(check(&layer, &[0, 4], &layer, &[2, 7], 8).len(), 2 * 3);
    let all = placed(Placement::OneRegionInterleaved);
    assert_eq!(check(&all, &[0, 4], &all, &[2, 7], 8).len(), 2);
    assert_eq!(check(&all, &[0, 4], &layer, &[2, 7], 8).len(), 2 * 3);
}

#[test]
fn head_slices_of_hnd_blocks_move_in_one_run_a_block() {
    let whole = key_value(0, HEADS).order(Order::Hnd).build().unwrap();
    let half = key_value(2, 2).order(Order::Hnd).build().unwrap();
    assert_eq!(check(&half, &[1, 3], &whole, &[0, 6], 8).len(), 2 * 6);
    assert_eq!(check(&whole, &[1, 3], &half, &[0, 6], 8).len(), 2 * 6);
    let half = key_value(2, 2).build().unwrap();
    assert_eq!(check(&half, &[1, 3], &all_heads(), &[0, 6], 8).len(), 8 * 6);
}

#[test]
fn blocks_of_other_sizes_move_as_far_as_both_sides_lie_together() {
    let small = key_value(0, HEADS).block_tokens(2).build().unwrap();
    assert_eq!(check(&all_heads(), &[0, 5], &small, &[1, 2, 7, 4], 8).len(), 4 * 6 - 6);
    assert_eq!(check(&small, &[1, 2, 7, 4], &all_heads(), &[0, 5], 8).len(), 4 * 6 - 6);
    assert_eq!(check(&small, &[1, 3, 7, 4], &all_heads(), &[0, 5], 7).len(), 4 * 6);
}

#[test]
fn a_latent_cache_goes_from_any_rank_to_any_rank() {
    let latent = |layers| LayoutBuilder::latent(layers, 4, 6, Dtype::Bf16).block_tokens(4);
    let (source, target) = (latent(5).build().unwrap(), latent(2).first_layer(3).build().unwrap());
    let map = BlockMap::new(&source, &target).unwrap();
    assert_eq!(map.layers(), 3..5);
    assert_eq!(check(&source, &[3, 1], &target, &[0, 2], 5).bytes(), 2 * 5 * 12);
}

#[test]
fn layouts_that_do_not_fit_are_refused_with_the_reason() {
    let refused = |target: &Layout| match BlockMap::new(&all_heads(), target).unwrap_err() {
        Invalid::Field { field, .. } => field,
        Invalid::Empty(what) => what,
        other => panic!("{other}"),
    };
    let broken = |change: fn(&mut Layout)| {
        let mut layout = all_heads();
        change(&mut layout);
        refused(&layout)
    };
    assert_eq!(broken(|l| l.dtype = Dtype::Fp16), "dtype");
    assert_eq!(broken(|l| l.head_size = 1), "head_size");
    assert_eq!(broken(|l| l.heads.total = 8), "heads.total");
    assert_eq!(broken(|l| l.first_layer = 3), "the intersection of the layouts' layers");
    assert_eq!(broken(|l| l.blocks = 0), "blocks");
    assert_eq!(refused(&LayoutBuilder::latent(3, 8, 2, Dtype::Bf16).build().unwrap()), "attention");
    let (low, high) = (key_value(0, 2).build().unwrap(), key_value(2, 2).build().unwrap());
    let error = BlockMap::new(&low, &high).unwrap_err();
    assert_eq!(error, Invalid::Empty("the intersection of the layouts' heads"));
}

#[test]
fn block_ids_and_ranges_out_of_bounds_are_refused() {
    let layout = all_heads();
    let map = BlockMap::new(&layout, &layout).unwrap();
    let plan = |layers, tokens, source: &[u32], target: &[u32]| {
        map.plan(layers, tokens, source, target, &PlanOptions::default()).map(|plan| plan.len())
    };
    assert!(plan(0..3, 8, &[0, 1], &[0, 1]).is_ok());
    assert!(plan(0..3, 8, &[1, 1], &[0, 1]).is_ok(), "a source block may be sent twice");
    let error = plan(0..3, 8, &[0, 1], &[1, 1]).unwrap_err();
    assert_eq!(error.to_string(), "target blocks: block 1 is there twice");
    let error = plan(0..3, 9, &[0, 1], &[0, 1, 2]).unwrap_err();
    assert_eq!(error.to_string(), "number of source blocks: 2 against 3");
    let error = plan(0..3, 9, &[0, 1, 2], &[0, 1]).unwrap_err();
    assert_eq!(error.to_string(), "number of target blocks: 2 against 3");
    assert!(matches!(
        plan(0..3, 8, &[0, 8], &[0, 1]),
        Err(Invalid::Index { index: 8, len: 8, .. })
    ));
    assert!(matches!(
        plan(0..3, 8, &[0, 1], &[0, 8]),
        Err(Invalid::Index { index: 8, len: 8, .. })
    ));
    assert!(matches!(plan(0..3, 0, &[0], &[0]), Err(Invalid::Empty(_))));
    assert!(matches!(plan(1..1, 4, &[0], &[0]), Err(Invalid::Empty(_))));
    assert!(matches!(plan(2..4, 4, &[0], &[0]), Err(Invalid::Field { field: "layers", .. })));
    assert!(plan(0..3, u32::MAX, &[0], &[0]).is_err());
}

#[test]
fn spans_of_dense_blocks_are_one_a_block_and_pool() {
    let layout = all_heads();
    let block = layout.block_bytes();
    let spans: Vec<_> = spans_of(&layout, 1..2, &[3, 6, 2]).unwrap().collect();
    let expected = [2, 3].into_iter().flat_map(|region| {
        [(2 * block, 2 * block), (6 * block, block)].map(|(offset, len)| Span {
            region,
            offset,
            len,
        })
    });
    assert_eq!(spans, expected.collect::<Vec<_>>());
    assert_eq!(spans_of(&layout, 0..3, &[]).unwrap().count(), 0);
    assert!(spans_of(&layout, 0..3, &[2, 2]).is_err());
    assert!(spans_of(&layout, 0..3, &[8]).is_err());
    assert!(spans_of(&layout, 0..4, &[2]).is_err());
}

/// A valid layout of some form: nesting by the order of `strides`, with gaps of `gaps` bytes.
fn layout(total: u32, head_size: u32, attention: Attention) -> impl Strategy<Value = Layout> {
    let heads = (0..total).prop_flat_map(move |first| (Just(first), 1..=total - first));
    let counts = (0..3u32, 1..4u32, 1..6u32, 6..10u32);
    let nesting = prop_oneof![Just([0, 1, 2]), Just([1, 0, 2]), Just([0, 2, 1]), Just([1, 2, 0])];
    let gaps = prop::array::uniform3(prop_oneof![3 => Just(0u64), 1 => 1..4u64]);
    (heads, counts, nesting, gaps, 0..4u8, any::<bool>()).prop_map(
        move |(
            (first, count),
            (first_layer, layers, block_tokens, blocks),
            nesting,
            gaps,
            form,
            flip,
        )| {
            let heads = HeadWindow { first, count, total };
            let parts = u64::from(attention.parts());
            let row = u64::from(head_size);
            let steps = [count, block_tokens, blocks].map(u64::from);
            // Interleaved: one dimension has room for every pool between two of its steps.
            let interleaved = if form == 3 { parts * u64::from(layers) } else { 1 };
            let (mut extent, mut distance, mut strides) = (row, 0, [0; 3]);
            for (level, dimension) in nesting.into_iter().enumerate() {
                let mut within = extent;
                if level == 1 + usize::from(flip) {
                    (distance, within) = (extent, extent * interleaved);
                }
                strides[dimension] = within + gaps[level];
                extent = strides[dimension] * (steps[dimension] - 1) + within;
            }
            let layout = Layout {
                first_layer,
                layers,
                attention,
                block_tokens,
                blocks,
                heads,
                head_size,
                dtype: Dtype::Fp8,
                block_stride: strides[2],
                token_stride: strides[1],
                head_stride: strides[0],
                pools: Vec::new(),
            };
            let pool = |i: u64| match form {
                0 => (i, 3),
                1 => (i / parts, i % parts * (extent + 5)),
                2 => (0, (parts * u64::from(layers) - 1 - i) * extent),
                _ => (0, i * distance),
            };
            let pools = (0..parts * u64::from(layers)).map(pool);
            let pools = pools.map(|(region, offset)| Pool { region: region as u32, offset });
            Layout { pools: pools.collect(), ..layout }
        },
    )
}

/// Every (layer, part, token, head).
fn rows(layout: &Layout, layers: Range<u32>, tokens: u32) -> Vec<(u32, u32, u32, u32)> {
    let (parts, heads) = (layout.attention.parts(), layout.heads.total);
    layers
        .flat_map(|layer| (0..parts).map(move |part| (layer, part)))
        .flat_map(|(layer, part)| (0..tokens).map(move |token| (layer, part, token)))
        .flat_map(|(layer, part, token)| (0..heads).map(move |head| (layer, part, token, head)))
        .collect()
}

/// Two layouts of one model, block ids for both, tokens, and what to plan.
#[derive(Debug)]
struct Case {
    source: Layout,
    target: Layout,
    source_ids: Vec<u32>,
    target_ids: Vec<u32>,
    tokens: u32,
    layers: Range<u32>,
    options: PlanOptions,
}

fn case() -> impl Strategy<Value = Case> {
    let latent = prop::bool::weighted(0.2);
    let model = (latent, 1..5u32, 1..4u32).prop_map(|(latent, total, head_size)| match latent {
        true => (1, head_size, Attention::Latent),
        false => (total, head_size, Attention::KeyValue),
    });
    let layouts = model.prop_flat_map(|(total, size, attention)| {
        (layout(total, size, attention), layout(total, size, attention))
    });
    let options = (any::<bool>(), prop_oneof![Just(1u32 << 20), 1..50u32]);
    let ids = |layout: &Layout| {
        let all: Vec<u32> = (0..layout.blocks).collect();
        // As allocators do it: any order, upwards, downwards.
        (Just(all).prop_shuffle(), 0..3u8).prop_map(|(mut ids, order)| {
            match order {
                0 => ids.sort_unstable(),
                1 => ids.sort_unstable_by(|a, b| b.cmp(a)),
                _ => {}
            }
            ids
        })
    };
    layouts
        .prop_filter("nothing in common", |(a, b)| BlockMap::new(a, b).is_ok())
        .prop_flat_map(move |(a, b)| (ids(&a), ids(&b), Just((a, b))))
        .prop_flat_map(move |(source_ids, target_ids, (source, target))| {
            let most =
                (source.block_tokens * source.blocks).min(target.block_tokens * target.blocks);
            let map = BlockMap::new(&source, &target).unwrap();
            let held = map.layers();
            let layers = (held.clone(), held).prop_map(|(a, b)| a.min(b)..a.max(b) + 1);
            (Just((source, target, source_ids, target_ids)), 1..=most, layers, options.clone())
        })
        .prop_map(|((source, target, source_ids, target_ids), tokens, layers, (merge, max_run))| {
            Case {
                source,
                target,
                source_ids,
                target_ids,
                tokens,
                layers,
                options: PlanOptions { merge, max_run },
            }
        })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1500,
        max_global_rejects: 100_000,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_two_layouts_move_the_same_bytes_as_the_naive_copy(case in case()) {
        let Case { source, target, source_ids, target_ids, tokens, layers, options } = case;
        source.validate(&source.region_lens()).expect("a valid source");
        target.validate(&target.region_lens()).expect("a valid target");
        let map = BlockMap::new(&source, &target).unwrap();
        let plan = map.plan(layers.clone(), tokens, &source_ids, &target_ids, &options).unwrap();
        let (source, target) = (
            Blocks { layout: &source, ids: &source_ids },
            Blocks { layout: &target, ids: &target_ids },
        );
        same_as_naive(source, target, layers.clone(), tokens, &plan);
        prop_assert_eq!(plan.bytes(), map.layer_bytes(tokens) * layers.len() as u64);
        prop_assert!(plan.runs(0..plan.len()).all(|run| run.len <= options.max_run));
        let place = |i| { let run = plan.run(i); (run.remote, run.remote_offset) };
        prop_assert!((1..plan.len()).all(|i| place(i - 1) < place(i)), "not in order");
        if options.merge {
            let (mut local, mut remote) = (Spans::new(), Spans::new());
            for row in rows(source.layout, layers, tokens) {
                let place = |side: Blocks<'_>| side.place(row.0, row.1, row.2, row.3, 0);
                if let (Some(from), Some(to)) = (place(source), place(target)) {
                    let len = source.layout.head_bytes();
                    let span = |(region, offset)| {
                        Span { region: region as u32, offset: offset as u64, len }
                    };
                    local.push(span(from));
                    remote.push(span(to));
                }
            }
            let rows = Plan::pair(&local, &remote, &options).unwrap();
            prop_assert!(plan == rows, "not what row by row would be merged to");
        }
    }

    #[test]
    fn a_grant_covers_its_blocks_and_nothing_else(
        layout in layout(3, 2, Attention::KeyValue),
        ids in prop::sample::subsequence(vec![5u32, 0, 4, 1, 3, 2], 0..6),
    ) {
        let mut covered: Vec<Vec<u8>> =
            layout.region_lens().into_iter().map(|len| vec![0; len as usize]).collect();
        let mut expected = covered.clone();
        for span in spans_of(&layout, layout.global_layers(), &ids).unwrap() {
            let (from, to) = (span.offset as usize, (span.offset + span.len) as usize);
            covered[span.region as usize][from..to].iter_mut().for_each(|byte| *byte += 1);
        }
        let blocks = Blocks { layout: &layout, ids: &ids };
        for row in rows(&layout, layout.global_layers(), ids.len() as u32 * layout.block_tokens) {
            let Some((region, at)) = blocks.place(row.0, row.1, row.2, row.3, 0) else { continue };
            let end = at + layout.head_bytes() as usize;
            expected[region][at..end].iter_mut().for_each(|byte| *byte += 1);
        }
        prop_assert_eq!(covered, expected);
    }

    #[test]
    fn garbage_block_ids_never_panic(
        source in layout(2, 2, Attention::KeyValue),
        target in layout(2, 2, Attention::KeyValue),
        ids in prop::collection::vec(0..12u32, 0..12),
        layers in (0..6u32, 0..6u32),
        tokens in prop_oneof![0..60u32, any::<u32>()],
    ) {
        if let Ok(map) = BlockMap::new(&source, &target) {
            let (left, right) = ids.split_at(ids.len() / 2);
            let _ = map.plan(layers.0..layers.1, tokens, left, right, &PlanOptions::default());
            let _ = map.layer_bytes(tokens);
        }
        let _ = spans_of(&source, layers.0..layers.1, &ids).map(|spans| spans.count());
    }
}
