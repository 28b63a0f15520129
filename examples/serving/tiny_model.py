"""Makes a tiny Qwen3 model with random weights of a fixed seed, and a tokenizer of whole words.

Nothing is downloaded: the model is noise, but noise in which every token of the prompt matters to
what comes next, so that a KV cache that went wrong on its way shows in the tokens.

    python tiny_model.py FOLDER
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers

VOCABULARY = 1024
HIDDEN = 256
INTERMEDIATE = 512
LAYERS = 4
HEADS = 8
# Divisible by every tensor-parallel size that is played with.
KV_HEADS = 4
HEAD = 64
POSITIONS = 4096
SEED = 20261121

PAD, END, UNKNOWN = 0, 1, 2


def main() -> None:
    """Writes the model to the folder that the command line names."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    write_tokenizer(folder)
    save_file(weights(), folder / "model.safetensors", metadata={"format": "pt"})
    write_json(folder / "generation_config.json", {"eos_token_id": END, "pad_token_id": PAD})
    # Last: a folder that has it is a whole model.
    write_json(folder / "config.json", config())


def config() -> dict[str, Any]:
    """The model's shape, as transformers reads it."""
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "vocab_size": VOCABULARY,
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": HEAD,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        "max_position_embeddings": POSITIONS,
        "tie_word_embeddings": False,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": None,
        "eos_token_id": END,
        "pad_token_id": PAD,
        "torch_dtype": "float32",
        "use_cache": True,
        "use_sliding_window": False,
        "sliding_window": None,
        "max_window_layers": LAYERS,
        "initializer_range": 0.02,
    }


def weights() -> dict[str, torch.Tensor]:
    """All weights, scaled so that attention says as much as the token itself."""
    random = torch.Generator().manual_seed(SEED)

    def noise(rows: int, columns: int, scale: float) -> torch.Tensor:
        return torch.randn(rows, columns, generator=random) * scale

    tensors = {"model.embed_tokens.weight": noise(VOCABULARY, HIDDEN, 1.0)}
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}."
        attention, mlp = prefix + "self_attn.", prefix + "mlp."
        tensors[attention + "q_proj.weight"] = noise(HEADS * HEAD, HIDDEN, HIDDEN**-0.5)
        tensors[attention + "k_proj.weight"] = noise(KV_HEADS * HEAD, HIDDEN, HIDDEN**-0.5)
        tensors[attention + "v_proj.weight"] = noise(KV_HEADS * HEAD, HIDDEN, HIDDEN**-0.5)
        tensors[attention + "o_proj.weight"] = noise(
            HIDDEN, HEADS * HEAD, 2 * (HEADS * HEAD) ** -0.5
        )
        # Above 1: attention that looks at few tokens sharply, not at all of them a little.
        tensors[attention + "q_norm.weight"] = torch.full((HEAD,), 1.5)
        tensors[attention + "k_norm.weight"] = torch.full((HEAD,), 1.5)
        tensors[mlp + "gate_proj.weight"] = noise(INTERMEDIATE, HIDDEN, HIDDEN**-0.5)
        tensors[mlp + "up_proj.weight"] = noise(INTERMEDIATE, HIDDEN, HIDDEN**-0.5)
        tensors[mlp + "down_proj.weight"] = noise(HIDDEN, INTERMEDIATE, INTERMEDIATE**-0.5)
        tensors[prefix + "input_layernorm.weight"] = torch.ones(HIDDEN)
        tensors[prefix + "post_attention_layernorm.weight"] = torch.ones(HIDDEN)
    tensors["model.norm.weight"] = torch.ones(HIDDEN)
    head = noise(VOCABULARY, HIDDEN, 3 * HIDDEN**-0.5)
    # Neither padding nor the end is ever the likeliest.
    head[[PAD, END]] = 0.0
    tensors["lm_head.weight"] = head
    return tensors


def write_tokenizer(folder: Path) -> None:
    """A tokenizer for texts such as "t17 t4 t900"."""
    words = {"<pad>": PAD, "<eos>": END, "<unk>": UNKNOWN}
    words.update({f"t{token}": token for token in range(len(words), VOCABULARY)})
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<eos>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "model_max_length": POSITIONS,
        "clean_up_tokenization_spaces": False,
        "chat_template": "{% for message in messages %}{{ message['content'] }} {% endfor %}",
    }
    write_json(folder / "tokenizer_config.json", settings)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes a JSON file."""
    path.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
