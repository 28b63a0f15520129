//! The named workloads, with the shapes of real models, and what a workload's blocks look like to
//! the bare loops. How the blocks are laid out is in [`super::shape`].

use clap::ValueEnum;

use super::shape::{Order, Shape};

/// The blocks of one workload as both sides lie in memory: offsets into one allocation a side.
///
/// Source span `i` goes with target span `i`, which is as long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Blocks {
    pub(crate) source: Vec<Span>,
    pub(crate) target: Vec<Span>,
    /// Bytes of the source's allocation.
    pub(crate) source_len: usize,
    /// Bytes of the target's allocation.
    pub(crate) target_len: usize,
}

/// Some bytes of an allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) offset: usize,
    pub(crate) len: usize,
}

/// A workload by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Workload {
    /// 256 blocks of 1 MiB, in order
    Large,
    /// Qwen3-32B at TP 2: 64 scattered blocks of 16 KiB in each of 128 pools
    Paged,
    /// DeepSeek-V3: 64 scattered blocks of 73,728 bytes in each of 61 pools
    Mla,
    /// 512 scattered blocks of 1 KiB in each of 128 pools
    Token,
    /// One block of 4 KiB, there and back
    Ping,
}

impl Workload {
    /// Every one, in the order in which they run.
    pub(super) const ALL: [Self; 5] =
        [Self::Large, Self::Paged, Self::Mla, Self::Token, Self::Ping];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Large => "large",
            Self::Paged => "paged",
            Self::Mla => "mla",
            Self::Token => "token",
            Self::Ping => "ping",
        }
    }

    /// Its blocks. The models' block sizes are those of 16 tokens (64 for latent vectors) in
    /// bfloat16: 4 KV heads of 128 elements at TP 2, and 576 elements of latent vector.
    pub(super) fn shape(self) -> Shape {
        let (pools, blocks, block_bytes, order) = match self {
            Self::Large => (1, 256, 1 << 20, Order::Sequential),
            Self::Paged => (128, 64, 16 * 4 * 128 * 2, Order::Scattered),
            Self::Mla => (61, 64, 64 * 576 * 2, Order::Scattered),
            Self::Token => (128, 512, 1 << 10, Order::Scattered),
            Self::Ping => (1, 1, 4 << 10, Order::Scattered),
        };
        Shape { pools, blocks, block_bytes, order }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workloads_are_those_of_the_models() {
        let sizes = Workload::ALL.map(|workload| {
            let shape = workload.shape();
            (shape.block_count(), shape.block_bytes, shape.bytes())
        });
        assert_eq!(
            sizes,
            [
                (256, 1 << 20, 256 << 20),
                (8_192, 16_384, 128 << 20),
                (3_904, 73_728, 3_904 * 73_728),
                (65_536, 1_024, 64 << 20),
                (1, 4_096, 4_096),
            ]
        );
    }
}
