//! KV layouts: how the KV cache of one worker rank lies in its regions.
//!
//! A layout is a plain description with byte strides, not the memory itself and not a plan:
//! [`crate::plan`] makes runs from two of them. Usual forms come from a [`LayoutBuilder`], models
//! from a [`Preset`]; any other form can be written down by its fields.

mod builder;
mod preset;
mod validate;

use std::ops::Range;

pub use builder::{LayoutBuilder, Order, Placement};
pub use preset::Preset;

/// The version of the description, on the wire and in blobs.
pub const LAYOUT_VERSION: u16 = 1;
/// Layers of a layout at most.
pub const MAX_LAYERS: u32 = 4096;
/// Pools of a layout at most; region indices lie below it too.
pub const MAX_POOLS: usize = 8192;
/// Tokens of a block at most.
pub const MAX_BLOCK_TOKENS: u32 = 65_536;
/// KV heads of a model at most.
pub const MAX_HEADS: u32 = 65_536;
/// Elements of a head at most.
pub const MAX_HEAD_SIZE: u32 = 65_536;

/// How a worker rank's KV pool lies in memory.
///
/// Byte `i` of head `h` (of this rank's window), token slot `t` of block `b`, of pool `p` is at
/// `pools[p].offset + b * block_stride + t * token_stride + h * head_stride + i` in region
/// `pools[p].region` of the list of regions that accompanies the layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The first layer held here, counted in the whole model (pipeline parallelism).
    pub first_layer: u32,
    /// The number of layers held here.
    pub layers: u32,
    /// What a layer holds.
    pub attention: Attention,
    /// Tokens in a block.
    pub block_tokens: u32,
    /// Blocks in each pool.
    pub blocks: u32,
    /// The KV heads held here, in the model's own count.
    pub heads: HeadWindow,
    /// Elements of one head's K (or V) of one token; of the latent vector for [`Attention::Latent`].
    pub head_size: u32,
    /// What an element is.
    pub dtype: Dtype,
    /// Bytes from one block to the next within a pool.
    pub block_stride: u64,
    /// Bytes from one token slot to the next within a block.
    pub token_stride: u64,
    /// Bytes from one head to the next within a token slot (NHD) or a block (HND). As with the
    /// other strides, it has no meaning where there is only one to step over.
    pub head_stride: u64,
    /// Where each pool begins: for K/V two a layer (K, then V), for latent one, in layer order.
    pub pools: Vec<Pool>,
}

/// What a layer of the cache holds. The numbers are the wire's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Attention {
    /// Keys and values, a head window each.
    KeyValue = 1,
    /// One latent vector a token, the same on every tensor-parallel rank (MLA).
    Latent = 2,
}

/// KV heads `first .. first + count` of `total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HeadWindow {
    /// The first head.
    pub first: u32,
    /// The number of heads held.
    pub count: u32,
    /// The heads of the whole model; 1 for latent.
    pub total: u32,
}

/// An element. The numbers are the wire's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Dtype {
    /// 8-bit float, either kind.
    Fp8 = 1,
    /// bfloat16.
    Bf16 = 2,
    /// IEEE half.
    Fp16 = 3,
    /// IEEE single.
    Fp32 = 4,
    /// 8-bit integer.
    Int8 = 5,
}

/// Where a pool begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pool {
    /// Index into the list of regions that accompanies the layout.
    pub region: u32,
    /// Offset of block 0 in that region.
    pub offset: u64,
}

impl Layout {
    /// The layers held here, counted in the whole model.
    pub const fn global_layers(&self) -> Range<u32> {
        self.first_layer..self.first_layer.saturating_add(self.layers)
    }

    /// Bytes of one head of one token in one pool: what lies together in every layout.
    pub const fn head_bytes(&self) -> u64 {
        self.head_size as u64 * self.dtype.bytes() as u64
    }

    /// Bytes of KV cache in one block of one pool, gaps not counted.
    pub const fn block_bytes(&self) -> u64 {
        self.head_bytes()
            .saturating_mul(self.heads.count as u64)
            .saturating_mul(self.block_tokens as u64)
    }

    /// Bytes of KV cache of one token in all pools, gaps not counted.
    pub const fn token_bytes(&self) -> u64 {
        self.head_bytes()
            .saturating_mul(self.heads.count as u64)
            .saturating_mul(self.pools.len() as u64)
    }

    /// Bytes from the first to the last of a pool, gaps and other pools that lie between its blocks
    /// included. `u64::MAX` for a layout that [`Layout::validate_shape`] would refuse as too large.
    pub const fn pool_bytes(&self) -> u64 {
        let blocks = (self.blocks as u64).saturating_sub(1).saturating_mul(self.block_stride);
        let tokens = (self.block_tokens as u64).saturating_sub(1).saturating_mul(self.token_stride);
        let heads = (self.heads.count as u64).saturating_sub(1).saturating_mul(self.head_stride);
        blocks.saturating_add(tokens).saturating_add(heads).saturating_add(self.head_bytes())
    }

    /// The number of blocks that hold `tokens` tokens.
    pub const fn blocks_for(&self, tokens: u32) -> u32 {
        match self.block_tokens {
            0 => 0,
            block_tokens => tokens.div_ceil(block_tokens),
        }
    }

    /// The shortest regions that hold the pools, by region index; 0 for an index that no pool uses.
    /// Indices from [`MAX_POOLS`] on, which no valid layout has, are left out.
    pub fn region_lens(&self) -> Vec<u64> {
        let pools = || self.pools.iter().filter(|pool| (pool.region as usize) < MAX_POOLS);
        let regions = pools().map(|pool| pool.region as usize + 1).max().unwrap_or(0);
        let mut lens = vec![0; regions];
        for pool in pools() {
            let len: &mut u64 = &mut lens[pool.region as usize];
            *len = (*len).max(pool.offset.saturating_add(self.pool_bytes()));
        }
        lens
    }
}

impl Attention {
    /// Every kind, in the order of the numbers.
    pub const ALL: [Self; 2] = [Self::KeyValue, Self::Latent];

    /// The kind of this wire number.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|attention| attention.code() == code)
    }

    /// The wire number.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// Pools a layer: K and V, or the latent vectors.
    pub const fn parts(self) -> u32 {
        match self {
            Self::KeyValue => 2,
            Self::Latent => 1,
        }
    }
}

impl HeadWindow {
    /// The window of a latent cache, on every rank.
    pub const LATENT: Self = Self { first: 0, count: 1, total: 1 };

    /// The head after the window's last; saturating.
    pub const fn end(self) -> u32 {
        self.first.saturating_add(self.count)
    }
}

impl Dtype {
    /// Every type, in the order of the numbers.
    pub const ALL: [Self; 5] = [Self::Fp8, Self::Bf16, Self::Fp16, Self::Fp32, Self::Int8];

    /// The type of this wire number.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|dtype| dtype.code() == code)
    }

    /// The wire number.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// Bytes of an element.
    pub const fn bytes(self) -> u32 {
        match self {
            Self::Fp8 | Self::Int8 => 1,
            Self::Bf16 | Self::Fp16 => 2,
            Self::Fp32 => 4,
        }
    }
}

#[cfg(test)]
mod tests;
