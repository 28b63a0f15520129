//! The KV caches of models that people serve, by name.

use std::fmt;
use std::str::FromStr;

use crate::error::Invalid;
use crate::layout::{Attention, Dtype, HeadWindow, Layout, LayoutBuilder, Placement};

/// A model whose KV cache is known. The figures are those of the `config.json` that its makers
/// publish on Hugging Face; [`Preset::repository`] names the place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Preset {
    /// Qwen3-32B: `num_hidden_layers` 64, `num_key_value_heads` 8, `head_dim` 128, bfloat16.
    Qwen3_32B,
    /// Llama 3.1 70B: `num_hidden_layers` 80, `num_key_value_heads` 8, `hidden_size` 8192 over
    /// `num_attention_heads` 64 makes heads of 128, bfloat16.
    Llama3_1_70B,
    /// DeepSeek-V3: `num_hidden_layers` 61, `kv_lora_rank` 512 and `qk_rope_head_dim` 64 make
    /// latent vectors of 576, bfloat16.
    DeepSeekV3,
}

impl Preset {
    /// Every preset.
    pub const ALL: [Self; 3] = [Self::Qwen3_32B, Self::Llama3_1_70B, Self::DeepSeekV3];

    /// The name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Qwen3_32B => "qwen3-32b",
            Self::Llama3_1_70B => "llama-3.1-70b",
            Self::DeepSeekV3 => "deepseek-v3",
        }
    }

    /// The model's repository on Hugging Face, where its `config.json` lies.
    pub const fn repository(self) -> &'static str {
        match self {
            Self::Qwen3_32B => "Qwen/Qwen3-32B",
            Self::Llama3_1_70B => "meta-llama/Llama-3.1-70B",
            Self::DeepSeekV3 => "deepseek-ai/DeepSeek-V3",
        }
    }

    /// The number of layers.
    pub const fn layers(self) -> u32 {
        match self {
            Self::Qwen3_32B => 64,
            Self::Llama3_1_70B => 80,
            Self::DeepSeekV3 => 61,
        }
    }

    /// What a layer holds.
    pub const fn attention(self) -> Attention {
        match self {
            Self::Qwen3_32B | Self::Llama3_1_70B => Attention::KeyValue,
            Self::DeepSeekV3 => Attention::Latent,
        }
    }

    /// KV heads of the whole model; 1 for latent.
    pub const fn heads(self) -> u32 {
        match self {
            Self::Qwen3_32B | Self::Llama3_1_70B => 8,
            Self::DeepSeekV3 => 1,
        }
    }

    /// Elements of a head, or of the latent vector.
    pub const fn head_size(self) -> u32 {
        match self {
            Self::Qwen3_32B | Self::Llama3_1_70B => 128,
            Self::DeepSeekV3 => 512 + 64,
        }
    }

    /// What an element is.
    pub const fn dtype(self) -> Dtype {
        Dtype::Bf16
    }

    /// Tokens of a block, unless one wants another number: 16 for keys and values (vLLM's default),
    /// 64 for latent vectors (what FlashMLA takes).
    pub const fn block_tokens(self) -> u32 {
        match self.attention() {
            Attention::KeyValue => 16,
            Attention::Latent => 64,
        }
    }

    /// How the cache of one tensor-parallel rank lies in memory, without gaps and with a token's
    /// heads together. A latent cache is the same on every rank.
    ///
    /// # Errors
    /// The rank is not below the size, the heads do not spread evenly over the ranks
    /// ([`HeadWindow::of_rank`]), or as [`Layout::validate_shape`].
    pub fn layout(
        self,
        tp_size: u32,
        tp_rank: u32,
        block_tokens: u32,
        blocks: u32,
        placement: Placement,
    ) -> Result<Layout, Invalid> {
        let heads = HeadWindow::of_rank(self.heads(), tp_size, tp_rank)?;
        let (layers, size, dtype) = (self.layers(), self.head_size(), self.dtype());
        match self.attention() {
            Attention::KeyValue => LayoutBuilder::key_value(layers, blocks, heads, size, dtype),
            Attention::Latent => LayoutBuilder::latent(layers, blocks, size, dtype),
        }
        .block_tokens(block_tokens)
        .placement(placement)
        .build()
    }
}

impl fmt::Display for Preset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Preset {
    type Err = Invalid;

    /// Takes the name or the repository, in upper or lower case.
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let named = |preset: &Self| {
            preset.name().eq_ignore_ascii_case(text)
                || preset.repository().eq_ignore_ascii_case(text)
        };
        Self::ALL.into_iter().find(named).ok_or_else(|| Invalid::Setting {
            name: "model",
            value: text.to_owned(),
            why: format!("expected one of: {}", Self::ALL.map(Self::name).join(", ")),
        })
    }
}
