"""What the servers are asked: prompts of token ids, and the request that each serving engine takes."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any

Tokens = list[int]
Request = dict[str, Any]

# Below, at and above the size of a page (16), below and above that of vLLM's blocks (128) and of
# SGLang's chunks (512), and no multiple of any.
LENGTHS = (5, 16, 17, 100, 333, 1000, 1500)

# The tokens of the tiny model that are words.
WORDS = range(3, 1024)

# How many tokens are asked for: most are made from what arrived, the rest from what was added to it.
ANSWER = 24


@dataclass(frozen=True)
class Dialect:
    """How a serving engine is asked for tokens."""

    path: str
    request: Callable[[Tokens], Request]
    tokens: Callable[[Any], Tokens]

    def read(self, answer: IO[bytes]) -> Tokens:
        """The tokens of an answer."""
        with answer:
            return self.tokens(json.load(answer))


VLLM = Dialect(
    path="/v1/completions",
    request=lambda prompt: {
        "model": "tiny",
        "prompt": prompt,
        "temperature": 0,
        "max_tokens": ANSWER,
        "ignore_eos": True,
        "return_token_ids": True,
    },
    tokens=lambda answer: list(answer["choices"][0]["token_ids"]),
)

SGLANG = Dialect(
    path="/generate",
    request=lambda prompt: {
        "input_ids": prompt,
        "sampling_params": {"temperature": 0, "max_new_tokens": ANSWER, "ignore_eos": True},
    },
    tokens=lambda answer: list(answer["output_ids"]),
)


def prompt(length: int, series: str) -> Tokens:
    """The prompt of this length in a series; the same in every run, and no two begin alike."""
    source = random.Random(f"{series} {length}")
    return [source.choice(WORDS) for _ in range(length)]


def all_of(series: str) -> list[Tokens]:
    """A prompt of every length."""
    return [prompt(length, series) for length in LENGTHS]
