"""A plugin of vLLM, by which its NIXL and Mooncake connectors start on a machine without GPU.

vLLM calls `register` in every process of its own.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

import torch


def register() -> None:
    """Replaces the two functions that stand in the way."""
    torch.accelerator.current_device_index = current_device_index
    os.sched_setaffinity = sched_setaffinity


def current_device_index() -> int:
    """What MooncakeConnector asks for at its start, and torch has no answer to on a CPU."""
    return 0


def sched_setaffinity(pid: int, mask: Iterable[int], /) -> None:
    """Stays where it is: NixlConnector would move all of prefill and decode to one core."""
