"""Bytes at any address of this process, read and written by system calls: where there is no memory
they say so, and the process lives."""

from __future__ import annotations

import ctypes
import os
from typing import Any, Callable

# A call moves no more than 2^31 - 4096 bytes (read(2)), and what lies between is kept this small.
_PIECE = 1 << 20

_libc = ctypes.CDLL(None, use_errno=True)
_OFFSET = ctypes.c_int64
for _name in ("pread", "pwrite"):
    _function = getattr(_libc, _name)
    _function.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, _OFFSET)
    _function.restype = ctypes.c_ssize_t


def read(address: int, length: int) -> bytes | None:
    """`length` bytes; `None` if they are not there.

    Raises:
        OSError: the file that they go through cannot be had.
    """
    pieces: list[bytes] = []
    with _Between() as between:
        for start in range(0, length, _PIECE):
            size = min(_PIECE, length - start)
            if not between.move(_libc.pwrite, address + start, size):
                return None
            pieces.append(os.pread(between.file, size, 0))
    return b"".join(pieces)


def write(address: int, data: bytes) -> bool:
    """Whether the bytes could be put there; if not, some may be.

    Raises:
        OSError: as `read` does.
    """
    with _Between() as between:
        for start in range(0, len(data), _PIECE):
            piece = data[start : start + _PIECE]
            os.pwrite(between.file, piece, 0)
            if not between.move(_libc.pread, address + start, len(piece)):
                return False
    return True


class _Between:
    """A file in memory that bytes go through: the kernel answers EFAULT where a copy would trap."""

    def __enter__(self) -> _Between:
        self.file = os.memfd_create("kvx")
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.file)

    def move(self, call: Callable[..., Any], address: int, size: int) -> bool:
        """Moves `size` bytes between the file's begin and `address`."""
        done = 0
        while done < size:
            if address + size > 1 << 64:
                return False
            count = call(self.file, address + done, size - done, done)
            if count <= 0:
                return False
            done += count
        return True
