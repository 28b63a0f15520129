"""The directory of an instance: which engine is which rank."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from kvx._call import c_text, check, ffi, lib, text, unsigned
from kvx.errors import Status


class Rank(NamedTuple):
    """A rank of an instance."""

    #: The instance's name, at most 255 bytes.
    instance: str = ""
    #: Data-parallel rank.
    dp: int = 0
    #: Pipeline-parallel rank.
    pp: int = 0
    #: Tensor-parallel rank.
    tp: int = 0

    @contextlib.contextmanager
    def as_c(self) -> Iterator[Any]:
        """As the library takes it, for the length of a call."""
        rank = ffi.new("kvx_rank *")
        name = c_text("instance", self.instance)
        rank.instance = name
        rank.dp = unsigned("dp", self.dp, 32)
        rank.pp = unsigned("pp", self.pp, 32)
        rank.tp = unsigned("tp", self.tp, 32)
        yield rank


class Entry(NamedTuple):
    """Where a rank is."""

    #: What to give to `Engine.connect`: "ip:port", best first, with commas between them.
    address: str
    #: The 16 bytes of its engine's id.
    engine: bytes


def found(ended: int) -> Entry | None:
    """What a question for a rank has come to."""
    engine = ffi.new("uint8_t[16]")
    length = ffi.new("size_t *", 0)
    place = ffi.cast("void *", engine)
    status = lib.kvx_operation_rank(ended, ffi.NULL, length, place)
    if status == Status.PENDING:
        return None
    if length[0] == 0:
        check(status)
    address = text(lambda *room: lib.kvx_operation_rank(ended, *room, place))
    return Entry(address, bytes(ffi.buffer(engine)))
