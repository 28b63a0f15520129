"""Tables of strided runs: (address, length, device, stride, count), a row for many descriptors."""

from __future__ import annotations

import numpy as np

from kvx.dropin.nixl.descriptors import Table
from kvx.dropin.nixl.errors import failure, nixlBackendError, nixlNotFoundError

_TOP = np.uint64((1 << 64) - 1)


def expanded(runs: Table) -> Table:
    """A row of (address, length, device) for each descriptor.

    Raises:
        nixlNotFoundError: descriptors that overlap, none at all, or beyond the address space.
        nixlBackendError: more than there is memory for.
    """
    address, length, device, stride, count = (runs[:, column] for column in range(5))
    if len(runs) == 0 or bool((count == 0).any()):
        raise failure(nixlNotFoundError, "a run of no descriptors")
    if bool(((stride < length) | (stride == 0)).any()):
        raise failure(nixlNotFoundError, "a run whose stride is less than its length")
    steps = count - 1
    room = _TOP - length
    inside = address <= room
    inside &= (steps == 0) | (stride <= (room - np.minimum(address, room)) // np.maximum(steps, 1))
    if not bool(inside.all()):
        raise failure(nixlNotFoundError, "a run that reaches beyond the address space")
    total = sum(count.tolist())
    try:
        run = np.repeat(np.arange(len(runs)), count.astype(np.int64))
        before = np.cumsum(count) - count
        step = np.arange(total, dtype=np.uint64) - before[run]
        rows = np.empty((total, 3), np.uint64)
    except (MemoryError, ValueError, OverflowError):
        raise failure(nixlBackendError, f"{total} descriptors do not fit in memory") from None
    rows[:, 0] = address[run] + step * stride[run]
    rows[:, 1] = length[run]
    rows[:, 2] = device[run]
    return rows
