//! Layouts of the forms that serving engines use, from a few words; and the heads of a
//! tensor-parallel rank.

use crate::error::Invalid;
use crate::layout::{Attention, Dtype, HeadWindow, Layout, MAX_POOLS, Pool};

/// The order of tokens and heads within a block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Order {
    /// Token, then head: a token's heads lie together (vLLM and SGLang by default).
    #[default]
    Nhd,
    /// Head, then token: a head's tokens lie together, so that a slice of heads moves in long runs.
    Hnd,
}

/// Where pools and blocks lie. Regions are numbered from 0 in the order of layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Placement {
    /// A region for each pool: K and V of a layer apart.
    #[default]
    RegionPerPool,
    /// A region for each layer: all K blocks, then all V blocks.
    RegionPerLayer,
    /// A region for each layer: K and V of block 0, K and V of block 1, and so on.
    RegionPerLayerInterleaved,
    /// One region: the pools one after the other.
    OneRegion,
    /// One region: block 0 of every pool, block 1 of every pool, and so on.
    OneRegionInterleaved,
}

/// Makes a [`Layout`] without gaps. Defaults: layers from 0, [`Order::Nhd`], a region for each
/// pool, 16 tokens a block for keys and values, 64 for latent vectors.
#[derive(Clone, Copy, Debug)]
pub struct LayoutBuilder {
    attention: Attention,
    first_layer: u32,
    layers: u32,
    block_tokens: u32,
    blocks: u32,
    heads: HeadWindow,
    head_size: u32,
    dtype: Dtype,
    order: Order,
    placement: Placement,
}

impl LayoutBuilder {
    /// Keys and values of `layers` layers, `blocks` blocks in each pool.
    pub const fn key_value(
        layers: u32,
        blocks: u32,
        heads: HeadWindow,
        head_size: u32,
        dtype: Dtype,
    ) -> Self {
        Self {
            attention: Attention::KeyValue,
            first_layer: 0,
            layers,
            block_tokens: 16,
            blocks,
            heads,
            head_size,
            dtype,
            order: Order::Nhd,
            placement: Placement::RegionPerPool,
        }
    }

    /// Latent vectors of `vector_size` elements, of `layers` layers, `blocks` blocks in each pool.
    pub const fn latent(layers: u32, blocks: u32, vector_size: u32, dtype: Dtype) -> Self {
        Self {
            attention: Attention::Latent,
            block_tokens: 64,
            ..Self::key_value(layers, blocks, HeadWindow::LATENT, vector_size, dtype)
        }
    }

    /// The first layer held, counted in the whole model.
    pub const fn first_layer(mut self, first_layer: u32) -> Self {
        self.first_layer = first_layer;
        self
    }

    /// Tokens in a block.
    pub const fn block_tokens(mut self, block_tokens: u32) -> Self {
        self.block_tokens = block_tokens;
        self
    }

    /// The order within a block.
    pub const fn order(mut self, order: Order) -> Self {
        self.order = order;
        self
    }

    /// Where pools and blocks lie.
    pub const fn placement(mut self, placement: Placement) -> Self {
        self.placement = placement;
        self
    }

    /// The layout. [`Layout::region_lens`] says how long its regions must be.
    ///
    /// # Errors
    /// As [`Layout::validate_shape`].
    pub fn build(self) -> Result<Layout, Invalid> {
        let mut layout = Layout {
            first_layer: self.first_layer,
            layers: self.layers,
            attention: self.attention,
            block_tokens: self.block_tokens,
            blocks: self.blocks,
            heads: self.heads,
            head_size: self.head_size,
            dtype: self.dtype,
            block_stride: 0,
            token_stride: 0,
            head_stride: 0,
            pools: Vec::new(),
        };
        let parts = u64::from(self.attention.parts());
        let pools = u64::from(self.layers).saturating_mul(parts);
        let row = layout.head_bytes();
        (layout.token_stride, layout.head_stride) = match self.order {
            Order::Nhd => (row.saturating_mul(u64::from(self.heads.count)), row),
            Order::Hnd => (row, row.saturating_mul(u64::from(self.block_tokens))),
        };
        let block = layout.block_bytes();
        // Blocks of that many pools lie side by side before the next block begins.
        let side_by_side = match self.placement {
            Placement::RegionPerPool | Placement::RegionPerLayer | Placement::OneRegion => 1,
            Placement::RegionPerLayerInterleaved => parts,
            Placement::OneRegionInterleaved => pools,
        };
        layout.block_stride = block.saturating_mul(side_by_side);
        let pool_stride = match side_by_side {
            1 => block.saturating_mul(u64::from(self.blocks)),
            _ => block,
        };
        let pools_a_region = match self.placement {
            Placement::RegionPerPool => 1,
            Placement::RegionPerLayer | Placement::RegionPerLayerInterleaved => parts,
            Placement::OneRegion | Placement::OneRegionInterleaved => pools.max(1),
        };
        // One pool too many is enough for the validation to refuse the number of layers.
        layout.pools = (0..pools.min(MAX_POOLS as u64 + 1))
            .map(|pool| Pool {
                region: (pool / pools_a_region) as u32,
                offset: (pool % pools_a_region).saturating_mul(pool_stride),
            })
            .collect();
        layout.validate_shape()?;
        Ok(layout)
    }
}

impl HeadWindow {
    /// The KV heads that rank `tp_rank` of `tp_size` tensor-parallel ranks holds, of `total`.
    ///
    /// With more ranks than heads, neighbouring ranks hold the same one: rank `r` holds head
    /// `r / (tp_size / total)`, as vLLM and SGLang replicate KV heads.
    ///
    /// # Errors
    /// The rank is not below the size, or neither of size and total divides the other.
    pub fn of_rank(total: u32, tp_size: u32, tp_rank: u32) -> Result<Self, Invalid> {
        if tp_rank >= tp_size {
            let (index, len) = (u64::from(tp_rank), u64::from(tp_size));
            return Err(Invalid::Index { what: "tensor-parallel rank", index, len });
        }
        if total == 0 {
            return Err(Invalid::Empty("the model's list of KV heads"));
        }
        if total.is_multiple_of(tp_size) {
            let count = total / tp_size;
            return Ok(Self { first: tp_rank * count, count, total });
        }
        if tp_size.is_multiple_of(total) {
            return Ok(Self { first: tp_rank / (tp_size / total), count: 1, total });
        }
        Err(Invalid::Field {
            field: "tensor-parallel size",
            why: format!("{total} KV heads cannot be spread evenly over {tp_size} ranks"),
        })
    }
}
