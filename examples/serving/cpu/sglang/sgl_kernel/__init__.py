"""Stands for SGLang's package of CUDA kernels on a machine without GPU.

SGLang imports many names from it, and on a CPU without AMX computes with torch alone. So every name
is there, and says which one it was when it is called after all. Nothing of a KV transfer is here.
"""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import torch

# SGLang compares it with the oldest that it takes.
__version__ = "0.4.10"
# A package, although without files.
__path__: list[str] = []

SUBMODULES = (
    "allreduce",
    "elementwise",
    "flash_attn",
    "kvcacheio",
    "mamba",
    "quantization",
    "scalar_type",
    "speculative",
    "utils",
)


class Missing:
    """A kernel, or anything else, that is not there."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __getattr__(self, attribute: str) -> Missing:
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        return Missing(f"{self.name}.{attribute}")

    def __call__(self, *_: Any, **__: Any) -> None:
        raise NotImplementedError(f"sgl_kernel has no kernels here, but {self.name} was called")


def missing(name: str) -> Missing:
    """What `__getattr__` of a module answers."""
    if name.startswith("__"):
        raise AttributeError(name)
    return Missing(name)


__getattr__ = missing


def assign_req_to_token_pool_cpu(
    requests: torch.Tensor,
    pool: torch.Tensor,
    starts: torch.Tensor,
    ends: torch.Tensor,
    locations: torch.Tensor,
    pool_width: int,
) -> None:
    """Writes the locations of each request's new tokens, which lie one after another, to its row.

    The one kernel for which SGLang has no code of its own on a CPU.
    """
    at = 0
    for request, start, end in zip(requests.tolist(), starts.tolist(), ends.tolist()):
        tokens = locations[at : at + end - start]
        pool[request, start:end] = tokens.to(pool.dtype)
        at += end - start


def add_submodule(name: str) -> None:
    """Makes `sgl_kernel.NAME` importable."""
    module = ModuleType(f"{__name__}.{name}")
    module.__spec__ = ModuleSpec(module.__name__, None)
    module.__getattr__ = missing  # type: ignore[method-assign]
    sys.modules[module.__name__] = module
    globals()[name] = module


for submodule in SUBMODULES:
    add_submodule(submodule)
