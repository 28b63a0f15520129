//! Layouts: what passes the validation has no overlaps, no overflows, and survives the wire.

use arbitrary::{Arbitrary, Result, Unstructured};
use kvx_core::error::Invalid;
use kvx_core::id::{GrantId, Room, SessionKey, Slot};
use kvx_core::layout::{Attention, Dtype, HeadWindow, Layout, Pool};
use kvx_core::plan::spans_of;
use kvx_core::wire::message::{Grant, Message};

/// Cells that are laid out one by one, at most.
const MAX_CELLS: u64 = 4096;

/// Any layout; mostly of small numbers, so that many make sense.
#[derive(Clone, Debug)]
pub(crate) struct Any(pub(crate) Layout);

impl<'a> Arbitrary<'a> for Any {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let attention = *u.choose(&Attention::ALL)?;
        let layers = small(u)?;
        let latent = attention == Attention::Latent && u.ratio(15, 16)?;
        let heads = match latent {
            true => HeadWindow::LATENT,
            false => HeadWindow { first: small(u)?, count: small(u)?, total: small(u)? },
        };
        let mut layout = Layout {
            first_layer: small(u)?,
            layers,
            attention,
            block_tokens: small(u)?,
            blocks: small(u)?,
            heads,
            head_size: small(u)?,
            dtype: *u.choose(&Dtype::ALL)?,
            block_stride: stride(u)?,
            token_stride: stride(u)?,
            head_stride: stride(u)?,
            pools: Vec::new(),
        };
        let pools = match u.ratio(15, 16)? {
            true => u64::from(layers.min(8)) * u64::from(attention.parts()),
            false => u.int_in_range(0..=20)?,
        };
        for _ in 0..pools {
            let (region, offset) = (small(u)?.min(9000), stride(u)?);
            layout.pools.push(Pool { region, offset });
        }
        Ok(Self(layout))
    }
}

/// Nearly always below 8.
fn small(u: &mut Unstructured<'_>) -> Result<u32> {
    Ok(match u8::arbitrary(u)? {
        255 => u32::arbitrary(u)?,
        byte => u32::from(byte % 8),
    })
}

/// Nearly always below 256.
fn stride(u: &mut Unstructured<'_>) -> Result<u64> {
    Ok(match u8::arbitrary(u)? {
        255 => u64::arbitrary(u)?,
        byte => u64::from(byte),
    })
}

/// Judges a layout, and asks whether the verdict is right.
pub fn run(bytes: &[u8]) {
    let Some(Any(layout)) = crate::structured(bytes) else { return };
    let lens = layout.region_lens();
    let verdict = layout.validate(&lens);
    if layout.validate_shape().is_err() {
        assert!(verdict.is_err());
        return;
    }
    survives_the_wire(&layout);
    covers_what_it_holds(&layout, &lens);
    if cells(&layout) > MAX_CELLS {
        return;
    }
    let overlap = first_overlap(&layout);
    // In regions as long as they must be, nothing else can be wrong.
    let pools = matches!(verdict, Err(Invalid::Field { field: "pools", .. }));
    assert!(verdict.is_ok() || pools, "{verdict:?}");
    assert_eq!(overlap.is_some(), pools, "{verdict:?}, and cells overlap at {overlap:?}");
}

fn survives_the_wire(layout: &Layout) {
    let slots = layout.pools.iter().map(|pool| pool.region + 1).max().unwrap_or(0);
    let message = Message::Grant(Box::new(Grant {
        grant: GrantId(1),
        session: SessionKey { room: Room(1), attempt: 0, sender_rank: 0, receiver_rank: 0 },
        layout: layout.clone(),
        slots: (0..slots).map(Slot).collect(),
        tokens: 1,
        total_blocks: 0,
        blocks: Vec::new(),
    }));
    let mut body = Vec::new();
    message.encode_body(&mut body).expect("a layout that makes sense can be written");
    assert_eq!(Message::decode(message.kind(), body.into()), Ok(message));
}

/// The spans of all blocks are all bytes that there are, inside the regions.
fn covers_what_it_holds(layout: &Layout, lens: &[u64]) {
    if cells(layout) > MAX_CELLS {
        return;
    }
    let blocks: Vec<u32> = (0..layout.blocks).collect();
    let spans = spans_of(layout, layout.global_layers(), &blocks).expect("blocks that it has");
    let mut sum = 0;
    for span in spans {
        assert!(span.offset + span.len <= lens[span.region as usize]);
        sum += span.len;
    }
    assert_eq!(sum, cells(layout) * layout.head_bytes());
}

/// Heads of tokens in all blocks of all pools.
pub(crate) fn cells(layout: &Layout) -> u64 {
    let each = [layout.blocks, layout.block_tokens, layout.heads.count].map(u64::from);
    each.into_iter().fold(layout.pools.len() as u64, u64::saturating_mul)
}

/// Where a cell begins within the one before it, laid out one by one.
fn first_overlap(layout: &Layout) -> Option<(u32, u64)> {
    let mut places = Vec::new();
    for pool in &layout.pools {
        for block in 0..u64::from(layout.blocks) {
            for token in 0..u64::from(layout.block_tokens) {
                for head in 0..u64::from(layout.heads.count) {
                    let offset = pool.offset
                        + block * layout.block_stride
                        + token * layout.token_stride
                        + head * layout.head_stride;
                    places.push((pool.region, offset));
                }
            }
        }
    }
    places.sort_unstable();
    let overlaps = |pair: &&[(u32, u64)]| {
        pair[0].0 == pair[1].0 && pair[0].1 + layout.head_bytes() > pair[1].1
    };
    places.windows(2).find(overlaps).map(|pair| pair[1])
}
