"""A plugin of SGLang, by which its Mooncake and NIXL backends move the KV cache of a CPU.

SGLang calls `register` in every process of its own, before it reads its hooks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sglang.srt.plugins.hook_registry import HookRegistry, HookType


def register() -> None:
    """Sets an attribute of the Mooncake sender, and a hook before the NIXL manager."""
    from sglang.srt.disaggregation.mooncake.conn import MooncakeKVSender

    # Page numbers through numpy, not through pinned memory and a CUDA event.
    MooncakeKVSender.supports_host_tensor_indices = False
    HookRegistry.register(
        "sglang.srt.disaggregation.nixl.conn.NixlKVManager.__init__",
        with_pool_in_host_memory,
        HookType.AROUND,
    )


def with_pool_in_host_memory(
    init: Callable[..., None], manager: Any, args: Any, *others: Any, **named: Any
) -> None:
    """Tells the NIXL manager that the pool is in host memory. What is not told counts as VRAM."""
    args.kv_data_mem_kinds = ["DRAM"] * len(args.kv_data_ptrs)
    init(manager, args, *others, **named)
