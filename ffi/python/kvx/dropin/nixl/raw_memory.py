"""Memory by its address, for examples and tests: what `nixl._utils` offers."""

from __future__ import annotations

import ctypes
from typing import Any

from kvx.dropin.nixl.texts import number

_MOST = (1 << 63) - 1
_PATTERN = 0xBA


def _libc() -> Any:
    libc = ctypes.CDLL(None)
    libc.malloc.argtypes = [ctypes.c_size_t]
    libc.malloc.restype = ctypes.c_void_p
    libc.free.argtypes = [ctypes.c_void_p]
    libc.free.restype = None
    return libc


def malloc_passthru(size: int) -> int:
    """The address of so many bytes of new memory; 0 if there are not so many."""
    if isinstance(size, int) and size < 0:
        return 0
    return int(_libc().malloc(number("size", size, _MOST)) or 0)


def free_passthru(address: int) -> None:
    """Frees memory of `malloc_passthru`."""
    _libc().free(number("address", address, 2 * _MOST + 1))


def ba_buf(address: int, size: int) -> None:
    """Fills memory with the byte 0xba."""
    ctypes.memset(number("address", address, 2 * _MOST + 1), _PATTERN, number("size", size, _MOST))


def verify_transfer(first: int, second: int, size: int) -> None:
    """Compares two pieces of memory.

    Raises:
        RuntimeError: they differ.
    """
    length = number("size", size, _MOST)
    one, other = (
        ctypes.string_at(number("address", address, 2 * _MOST + 1), length)
        for address in (first, second)
    )
    if one != other:
        at = next(i for i, (a, b) in enumerate(zip(one, other)) if a != b)
        raise RuntimeError(f"the memory differs from byte {at} on")
