"""What callers give for lists of descriptors: tuples, tables, tensors, lists of tensors."""

from __future__ import annotations

import sys
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from kvx.dropin.nixl.descriptors import nixlRegDList, nixlRemoteDList, nixlXferDList
from kvx.dropin.nixl.log import get_logger
from kvx.dropin.nixl.names import nixl_mem_t

logger = get_logger("_api")

L = TypeVar("L", nixlXferDList, nixlRegDList, nixlRemoteDList)

#: How callers call kinds of memory.
MEMORIES: dict[str, nixl_mem_t] = {
    "DRAM": nixl_mem_t.DRAM_SEG,
    "VRAM": nixl_mem_t.VRAM_SEG,
    "BLOCK": nixl_mem_t.BLK_SEG,
    "OBJ": nixl_mem_t.OBJ_SEG,
    "FILE": nixl_mem_t.FILE_SEG,
    "cpu": nixl_mem_t.DRAM_SEG,
    "cuda": nixl_mem_t.VRAM_SEG,
}


def descriptors(kind: type[L], descs: Any, mem_type: str | None) -> L | None:
    """A list of this kind. What has the wrong shape is logged, and gives `None`, as with NIXL.

    Raises:
        KeyError: memory of an unknown kind.
        IndexError: nothing.
        TypeError: what has no entries at all.
    """
    if isinstance(descs, kind):
        return descs
    if isinstance(descs, (nixlXferDList, nixlRegDList, nixlRemoteDList)):
        logger.error("%s needed, not %s", kind.__name__, type(descs).__name__)
        return None
    first = descs[0]
    if kind is not nixlRemoteDList:
        if _is_tensor(descs):
            return _of_tensors(kind, [descs])
        if _is_tensor(first):
            return _of_tensors(kind, descs)
        if isinstance(descs, np.ndarray):
            return _of_table(kind, descs, mem_type)
    width = 3 if kind is nixlXferDList else 4
    if not isinstance(first, tuple) or len(first) != width:
        logger.error("A list of %d-tuples is needed for %s", width, kind.__name__)
        return None
    memory = _memory(mem_type)
    return None if memory is None else kind(memory, descs)


def _of_table(kind: type[L], descs: NDArray[Any], mem_type: str | None) -> L | None:
    if descs.ndim != 2 or descs.shape[1] != 3:
        logger.error("A table of three columns is needed: address, length, device")
        return None
    memory = _memory(mem_type)
    return None if memory is None else kind(memory, descs)


def _of_tensors(kind: type[L], tensors: Any) -> L | None:
    rows = []
    memories = set()
    for tensor in tensors:
        device = tensor.device
        if not tensor.is_contiguous():
            logger.error("The memory of a tensor is not in one piece")
            return None
        memories.add(nixl_mem_t.VRAM_SEG if device.type == "cuda" else nixl_mem_t.DRAM_SEG)
        size = tensor.numel() * tensor.element_size()
        rows.append((tensor.data_ptr(), size, max(0, device.index or 0)))
    if len(memories) != 1:
        logger.error("Tensors of one device are needed, not of %d", len(memories))
        return None
    table = np.array(rows, dtype=np.uint64).reshape(-1, 3)
    return kind(memories.pop(), table)


def _is_tensor(value: Any) -> bool:
    """Whether it is a tensor, without importing torch: who has one, has imported it."""
    torch = sys.modules.get("torch")
    kind = getattr(torch, "Tensor", None)
    return isinstance(kind, type) and isinstance(value, kind)


def _memory(mem_type: str | None) -> nixl_mem_t | None:
    if mem_type is None:
        logger.error("Please say which kind of memory it is: mem_type")
        return None
    return MEMORIES[mem_type]
