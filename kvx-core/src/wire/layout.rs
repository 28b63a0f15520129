//! How a KV layout stands on the wire (PROTOCOL 8.2).
//!
//! Not what makes a layout sensible: [`Layout::validate_shape`] knows, and is asked here, so that
//! no layout from outside goes on unchecked.

use crate::error::Invalid;
use crate::layout::{Attention, Dtype, HeadWindow, LAYOUT_VERSION, Layout, MAX_POOLS, Pool};
use crate::wire::WireError;
use crate::wire::codec::{Reader, Wire, Writer};

/// Bytes of one pool.
const POOL_LEN: usize = 12;

impl Wire for Layout {
    fn write(&self, writer: &mut Writer<'_>) {
        writer.u16(LAYOUT_VERSION);
        writer.u8(self.attention as u8);
        writer.u8(self.dtype as u8);
        writer.u32(self.first_layer);
        writer.u32(self.layers);
        writer.u32(self.block_tokens);
        writer.u32(self.blocks);
        writer.u32(self.heads.first);
        writer.u32(self.heads.count);
        writer.u32(self.heads.total);
        writer.u32(self.head_size);
        writer.u64(self.block_stride);
        writer.u64(self.token_stride);
        writer.u64(self.head_stride);
        writer.list("layout pools", &self.pools, MAX_POOLS, |writer, pool| {
            writer.u32(pool.region);
            writer.u64(pool.offset);
        });
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let version = reader.u16("layout version")?;
        if version != LAYOUT_VERSION {
            return Err(WireError::Unknown { what: "layout version", value: version.into() });
        }
        let layout = Self {
            attention: attention(reader.u8("attention")?)?,
            dtype: dtype(reader.u8("element type")?)?,
            first_layer: reader.u32("first layer")?,
            layers: reader.u32("layers")?,
            block_tokens: reader.u32("tokens in a block")?,
            blocks: reader.u32("blocks in a pool")?,
            heads: HeadWindow {
                first: reader.u32("first head")?,
                count: reader.u32("heads")?,
                total: reader.u32("heads of the model")?,
            },
            head_size: reader.u32("head size")?,
            block_stride: reader.u64("block stride")?,
            token_stride: reader.u64("token stride")?,
            head_stride: reader.u64("head stride")?,
            pools: reader.list("layout pools", POOL_LEN, MAX_POOLS, |reader| {
                Ok(Pool { region: reader.u32("pool region")?, offset: reader.u64("pool offset")? })
            })?,
        };
        layout
            .validate_shape()
            .map_err(|invalid| WireError::Inconsistent { what: part(&invalid) })?;
        Ok(layout)
    }
}

/// The part of a layout that makes no sense.
fn part(invalid: &Invalid) -> &'static str {
    match invalid {
        Invalid::Field { field: what, .. }
        | Invalid::Empty(what)
        | Invalid::Mismatch { what, .. }
        | Invalid::Index { what, .. } => what,
        _ => "layout",
    }
}

fn attention(code: u8) -> Result<Attention, WireError> {
    match code {
        1 => Ok(Attention::KeyValue),
        2 => Ok(Attention::Latent),
        _ => Err(WireError::Unknown { what: "attention", value: code.into() }),
    }
}

fn dtype(code: u8) -> Result<Dtype, WireError> {
    match code {
        1 => Ok(Dtype::Fp8),
        2 => Ok(Dtype::Bf16),
        3 => Ok(Dtype::Fp16),
        4 => Ok(Dtype::Fp32),
        5 => Ok(Dtype::Int8),
        _ => Err(WireError::Unknown { what: "element type", value: code.into() }),
    }
}
