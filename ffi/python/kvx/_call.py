"""Calls into the library: statuses become exceptions, results values."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from typing import Any, Callable

from kvx._native import kvx as _library
from kvx.errors import Error, Status, error

ffi: Any = _library.ffi
lib: Any = _library.lib

_OK = int(Status.OK)
_PENDING = int(Status.PENDING)

# How long a thread waits in the library before it looks up.
_SLICE_S = 0.2

#: Whether this process was forked from one that had opened an engine. What the library tells in
#: memory, for looking at without a call, is then a copy that nobody writes to any more.
forked = False
_opened = False


def opened() -> None:
    """An engine was opened in this process."""
    global _opened
    _opened = True


def _fork() -> None:
    global forked
    forked = _opened


os.register_at_fork(after_in_child=_fork)


def version() -> str:
    """The library's version."""
    return str(ffi.string(lib.kvx_version()).decode("ascii"))


def failure(status: int) -> Error:
    """What this thread's last call has failed with."""
    message = ffi.string(lib.kvx_error_message()).decode("utf-8", "replace")
    return error(status, message)


def check(status: int) -> None:
    """Raises what a call has failed with."""
    if status != _OK:
        raise failure(status)


def handle(function: Callable[..., int], *arguments: Any) -> int:
    """Calls a function whose last argument is where a handle goes."""
    out = ffi.new("uint64_t *")
    check(function(*arguments, out))
    return int(out[0])


def data(function: Callable[..., int], *arguments: Any) -> bytes:
    """Calls a function that copies bytes to a buffer of a length that it is told."""
    room = 256
    while True:
        buffer = ffi.new("uint8_t[]", room)
        length = ffi.new("size_t *", room)
        status = function(*arguments, ffi.cast("void *", buffer), length)
        if status == _OK:
            return bytes(ffi.buffer(buffer, length[0]))
        if length[0] <= room:
            raise failure(status)
        room = int(length[0])


def text(function: Callable[..., int], *arguments: Any) -> str:
    """As `data`, of text."""
    return data(function, *arguments).decode("utf-8", "replace")


def c_text(name: str, value: str) -> Any:
    """Text as the library takes it."""
    try:
        encoded = value.encode()
    except UnicodeEncodeError as cause:
        raise error(Status.INVALID, f"{name}: {cause}") from None
    if b"\0" in encoded:
        raise error(Status.INVALID, f"{name}: contains a zero byte")
    return ffi.new("char[]", encoded)


def unsigned(name: str, number: int, bits: int) -> int:
    """A number as the library takes it, of so many bits."""
    if not 0 <= number < 1 << bits:
        raise error(Status.INVALID, f"{name}: {number} is not from 0 to 2^{bits} - 1")
    return number


def identity(function: Callable[..., int], of: int) -> tuple[bytes, bytes] | None:
    """Calls a function that tells an engine's id and its life; `None` while it does not know."""
    engine = ffi.new("uint8_t[16]")
    life = ffi.new("uint8_t[16]")
    status = function(of, ffi.cast("void *", engine), ffi.cast("void *", life))
    if status == _PENDING:
        return None
    check(status)
    return bytes(ffi.buffer(engine)), bytes(ffi.buffer(life))


def nanoseconds(name: str, seconds: float | None) -> int:
    """Seconds as the library takes them; 0 is its default."""
    if seconds is None:
        return 0
    nanos = seconds * 1e9
    if not 1 <= nanos < 1 << 63:
        raise _no_time(name, seconds)
    return round(nanos)


def slices(name: str, seconds: float | None) -> Iterator[int]:
    """The nanoseconds to wait at a time, until so many seconds are over; `None`: without end.

    Handlers of signals run between the calls of the library.
    """
    if seconds is None:
        seconds = math.inf
    elif math.isnan(seconds) or seconds == -math.inf:
        raise _no_time(name, seconds)
    until = time.monotonic() + seconds
    while True:
        left = until - time.monotonic()
        yield round(min(max(left, 0.0), _SLICE_S) * 1e9)
        if left <= _SLICE_S:
            return


def _no_time(name: str, seconds: float) -> Error:
    return error(Status.INVALID, f"{name}: {seconds} s is not a time to wait")
