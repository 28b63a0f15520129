//! Promises of layouts: what the validation lets pass has no two cells in one place, what it
//! refuses says why, and the presets are what their models' makers publish.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;
use crate::error::Invalid;

const ALL_PLACEMENTS: [Placement; 5] = [
    Placement::RegionPerPool,
    Placement::RegionPerLayer,
    Placement::RegionPerLayerInterleaved,
    Placement::OneRegion,
    Placement::OneRegionInterleaved,
];

fn small() -> Layout {
    let heads = HeadWindow { first: 2, count: 2, total: 8 };
    LayoutBuilder::key_value(3, 5, heads, 4, Dtype::Bf16).block_tokens(4).build().unwrap()
}

/// Every byte of every cell, by the formula in the docs of [`Layout`]; `None` if one comes twice.
fn bytes_of(layout: &Layout) -> Option<HashSet<(u32, u64)>> {
    let mut bytes = HashSet::new();
    for pool in &layout.pools {
        for block in 0..u64::from(layout.blocks) {
            for token in 0..u64::from(layout.block_tokens) {
                for head in 0..u64::from(layout.heads.count) {
                    let cell = pool.offset
                        + block * layout.block_stride
                        + token * layout.token_stride
                        + head * layout.head_stride;
                    for byte in cell..cell + layout.head_bytes() {
                        if !bytes.insert((pool.region, byte)) {
                            return None;
                        }
                    }
                }
            }
        }
    }
    Some(bytes)
}

fn refused_field(layout: &Layout) -> &'static str {
    match layout.validate_shape() {
        Err(Invalid::Field { field, .. }) => field,
        other => panic!("expected a field to be refused, got {other:?}"),
    }
}

#[test]
fn numbers_on_the_wire_lead_back_to_what_they_stand_for() {
    for dtype in Dtype::ALL {
        assert_eq!(Dtype::from_code(dtype.code()), Some(dtype));
    }
    for attention in Attention::ALL {
        assert_eq!(Attention::from_code(attention.code()), Some(attention));
    }
    assert_eq!((Dtype::from_code(0), Dtype::from_code(6)), (None, None));
    assert_eq!((Attention::from_code(0), Attention::from_code(3)), (None, None));
    assert_eq!(Dtype::ALL.map(Dtype::bytes), [1, 2, 2, 4, 1]);
}

#[test]
fn built_layouts_fill_their_regions_without_a_gap() {
    for placement in ALL_PLACEMENTS {
        for order in [Order::Nhd, Order::Hnd] {
            let heads = HeadWindow { first: 0, count: 2, total: 2 };
            let layout = LayoutBuilder::key_value(3, 5, heads, 4, Dtype::Fp16)
                .block_tokens(4)
                .order(order)
                .placement(placement)
                .build()
                .unwrap();
            let lens = layout.region_lens();
            layout.validate(&lens).unwrap();
            let bytes = bytes_of(&layout).expect("no byte twice");
            assert_eq!(bytes.len() as u64, lens.iter().sum::<u64>(), "{placement:?} {order:?}");
            assert_eq!(bytes.len() as u64, 6 * 5 * layout.block_bytes());
        }
    }
}

#[test]
fn placements_use_the_regions_they_say() {
    let regions = |placement| {
        let heads = HeadWindow { first: 0, count: 1, total: 1 };
        let builder = LayoutBuilder::key_value(3, 5, heads, 4, Dtype::Fp8).placement(placement);
        builder.build().unwrap().region_lens().len()
    };
    assert_eq!(ALL_PLACEMENTS.map(regions), [6, 3, 3, 1, 1]);
}

#[test]
fn presets_have_the_sizes_of_their_models() {
    let qwen = Preset::Qwen3_32B.layout(2, 1, 16, 256, Placement::default()).unwrap();
    assert_eq!(qwen.block_bytes(), 16 << 10);
    assert_eq!(qwen.token_bytes() * 4096, 512 << 20);
    assert_eq!(qwen.heads, HeadWindow { first: 4, count: 4, total: 8 });
    assert_eq!(qwen.region_lens(), vec![256 * (16 << 10); 128]);

    let llama = Preset::Llama3_1_70B.layout(8, 7, 16, 1, Placement::default()).unwrap();
    assert_eq!((llama.layers, llama.heads.first, llama.heads.count), (80, 7, 1));
    assert_eq!(llama.token_bytes() * 8, 320 << 10);

    let deepseek = Preset::DeepSeekV3.layout(16, 9, 64, 10, Placement::default()).unwrap();
    assert_eq!(deepseek.block_bytes(), 73_728);
    assert_eq!(deepseek.pools.len(), 61);
    assert_eq!(deepseek.heads, HeadWindow::LATENT);
}

#[test]
fn presets_are_found_by_name_and_by_repository() {
    for preset in Preset::ALL {
        assert_eq!(preset.name().parse(), Ok(preset));
        assert_eq!(preset.name().to_uppercase().parse(), Ok(preset));
        assert_eq!(preset.repository().parse(), Ok(preset));
    }
    let error = "gpt-2".parse::<Preset>().unwrap_err().to_string();
    assert_eq!(error, "model=\"gpt-2\": expected one of: qwen3-32b, llama-3.1-70b, deepseek-v3");
}

#[test]
fn ranks_share_the_heads_evenly_or_replicate_them() {
    let window = |tp_size, tp_rank| {
        let window = HeadWindow::of_rank(8, tp_size, tp_rank).unwrap();
        (window.first, window.count)
    };
    assert_eq!(window(1, 0), (0, 8));
    assert_eq!([window(2, 0), window(2, 1)], [(0, 4), (4, 4)]);
    assert_eq!(window(8, 5), (5, 1));
    assert_eq!(
        [window(16, 0), window(16, 1), window(16, 2), window(16, 15)].map(|w| w.0),
        [0, 0, 1, 7]
    );
    assert!(HeadWindow::of_rank(8, 3, 0).unwrap_err().to_string().contains("8 KV heads"));
    assert!(matches!(HeadWindow::of_rank(8, 2, 2), Err(Invalid::Index { index: 2, len: 2, .. })));
    assert!(HeadWindow::of_rank(8, 0, 0).is_err());
    assert!(HeadWindow::of_rank(0, 1, 0).is_err());
}

#[test]
fn fields_out_of_range_are_refused_by_name() {
    let broken = |change: fn(&mut Layout)| {
        let mut layout = small();
        change(&mut layout);
        refused_field(&layout)
    };
    assert_eq!(broken(|l| l.layers = 0), "layers");
    assert_eq!(broken(|l| l.layers = MAX_LAYERS + 1), "layers");
    assert_eq!(broken(|l| l.block_tokens = 0), "block_tokens");
    assert_eq!(broken(|l| l.block_tokens = MAX_BLOCK_TOKENS + 1), "block_tokens");
    assert_eq!(broken(|l| l.blocks = 0), "blocks");
    assert_eq!(broken(|l| l.head_size = 0), "head_size");
    assert_eq!(broken(|l| l.heads.count = 0), "heads.count");
    assert_eq!(broken(|l| l.heads.first = 7), "heads");
    assert_eq!(broken(|l| l.heads.first = u32::MAX), "heads");
    assert_eq!(broken(|l| l.first_layer = u32::MAX), "first_layer");
    assert_eq!(broken(|l| l.attention = Attention::Latent), "heads");
    assert_eq!(broken(|l| l.token_stride = 15), "token_stride");
    assert_eq!(broken(|l| l.head_stride = 7), "head_stride");
    assert_eq!(broken(|l| l.block_stride = 63), "block_stride");
    assert_eq!(broken(|l| l.block_stride = u64::MAX), "block_stride");
    assert_eq!(broken(|l| l.pools[1].offset = u64::MAX - 10), "pools");
    let mut layout = small();
    layout.pools.pop();
    let error = layout.validate_shape();
    assert!(matches!(error, Err(Invalid::Mismatch { left: 5, right: 6, .. })), "{error:?}");
    let mut layout = small();
    layout.pools[3].region = MAX_POOLS as u32;
    assert!(matches!(layout.validate_shape(), Err(Invalid::Index { .. })));
}

#[test]
fn a_stride_that_is_never_taken_may_be_anything() {
    let layout = Layout { block_stride: u64::MAX, blocks: 1, ..small() };
    layout.validate_shape().unwrap();
    assert_eq!(layout.pool_bytes(), 64);
}

#[test]
fn pools_must_lie_within_their_regions() {
    let layout = small();
    let mut lens = layout.region_lens();
    layout.validate(&lens).unwrap();
    lens[4] -= 1;
    let error = layout.validate(&lens);
    assert!(matches!(error, Err(Invalid::OutOfBounds { index: 4, .. })), "{error:?}");
    let error = layout.validate(&lens[..3]);
    assert!(matches!(error, Err(Invalid::Index { index: 3, len: 3, .. })), "{error:?}");
}

/// Layouts of which a good part is valid: strides near what would fit, in any order of nesting.
fn near_valid() -> impl Strategy<Value = Layout> {
    let counts = (1..3u32, 1..4u32, 1..4u32, 1..4u32, 1..4u32);
    let strides = (0..6u64, 0..40u64, 0..80u64);
    let pools = prop::collection::vec((0..2u32, 0..120u64), 4);
    (counts, strides, any::<prop::sample::Index>(), pools).prop_map(
        |((layers, block_tokens, blocks, heads, head_size), (a, b, c), order, pools)| {
            let orders = [(a, b, c), (b, a, c), (a, c, b), (b, c, a), (c, a, b), (c, b, a)];
            let (head_stride, token_stride, block_stride) = orders[order.index(6)];
            Layout {
                first_layer: 7,
                layers,
                attention: Attention::KeyValue,
                block_tokens,
                blocks,
                heads: HeadWindow { first: 1, count: heads, total: 5 },
                head_size,
                dtype: Dtype::Fp8,
                block_stride,
                token_stride,
                head_stride,
                pools: pools
                    .into_iter()
                    .take(layers as usize * 2)
                    .map(|(region, offset)| Pool { region, offset })
                    .collect(),
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn what_passes_has_no_byte_twice_and_lies_within_its_regions(layout in near_valid()) {
        let lens = layout.region_lens();
        if layout.validate(&lens).is_ok() {
            let bytes = bytes_of(&layout);
            prop_assert!(bytes.is_some(), "a byte comes twice");
            for (region, offset) in bytes.into_iter().flatten() {
                prop_assert!(offset < lens[region as usize]);
            }
        }
    }

    #[test]
    fn pools_are_refused_only_when_they_overlap(layout in near_valid()) {
        let lens = layout.region_lens();
        let pools_refused = layout.validate_shape().is_ok() && layout.validate(&lens).is_err();
        if pools_refused {
            prop_assert!(bytes_of(&layout).is_none(), "no byte comes twice");
        }
    }

    #[test]
    fn garbage_never_panics(
        numbers in prop::array::uniform8(prop_oneof![0..70_000u32, any::<u32>()]),
        strides in prop::array::uniform3(prop_oneof![0..1000u64, any::<u64>()]),
        pools in prop::collection::vec((any::<u32>(), any::<u64>()), 0..6),
        latent in any::<bool>(),
    ) {
        let [first_layer, layers, block_tokens, blocks, first, count, total, head_size] = numbers;
        let layout = Layout {
            first_layer,
            layers: layers % 4,
            attention: if latent { Attention::Latent } else { Attention::KeyValue },
            block_tokens,
            blocks,
            heads: HeadWindow { first, count, total },
            head_size,
            dtype: Dtype::Fp32,
            block_stride: strides[0],
            token_stride: strides[1],
            head_stride: strides[2],
            pools: pools.into_iter().map(|(region, offset)| Pool { region, offset }).collect(),
        };
        let lens = layout.region_lens();
        let shape = layout.validate_shape();
        prop_assert!(shape.is_ok() || layout.validate(&lens).is_err());
        let _ = (layout.block_bytes(), layout.token_bytes(), layout.pool_bytes());
        let _ = (layout.global_layers(), layout.blocks_for(blocks));
        let _ = HeadWindow::of_rank(total, count, first);
    }
}
