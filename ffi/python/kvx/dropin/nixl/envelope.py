"""What an agent's metadata looks like: the engine's, and what NIXL's agents know of each other.

    4   magic `KVXN`
    2   version, 1
    2   flags: 1 says how to connect, 2 lists all that is registered
    4   length of the agent's name, and the name in UTF-8
    4   number of regions; for each u8 kind of memory, then for each u64 device
    4   length of the engine's metadata, and that (PROTOCOL 9)
    4   CRC-32 of everything before

All numbers are little-endian. Whoever holds it may connect to the agent and use these regions.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from typing import NamedTuple

from kvx.dropin.nixl.errors import failure, nixlMismatchError
from kvx.dropin.nixl.names import nixl_mem_t

_MAGIC = b"KVXN"
_VERSION = 1
_CONNECTS, _COMPLETE = 1, 2
_HEAD = struct.Struct("<4sHH")
_LENGTH = struct.Struct("<I")
# Where the engine's metadata has its id and its life.
_IDENTITY = slice(8, 40)
# Of a region in the engine's metadata.
_MOST_REGIONS = 65_536


class Kind(NamedTuple):
    """What NIXL knows of a region, beside its place."""

    memory: nixl_mem_t
    device: int


class Envelope(NamedTuple):
    """Metadata of an agent."""

    agent: str
    #: Whether it says how to connect; else it is for those who know the agent.
    connects: bool
    #: Whether all regions are listed.
    complete: bool
    #: In the order of the engine's metadata.
    kinds: Sequence[Kind]
    #: The engine's own metadata.
    engine: bytes

    @property
    def identity(self) -> bytes:
        """The engine's id and its life."""
        return self.engine[_IDENTITY]

    @property
    def engine_id(self) -> bytes:
        """The engine's id."""
        return self.identity[:16]

    def encode(self) -> bytes:
        """As bytes."""
        flags = _CONNECTS * self.connects | _COMPLETE * self.complete
        name = self.agent.encode("utf-8", "surrogateescape")
        count = len(self.kinds)
        body = b"".join(
            (
                _HEAD.pack(_MAGIC, _VERSION, flags),
                _LENGTH.pack(len(name)),
                name,
                _LENGTH.pack(count),
                bytes(int(kind.memory) for kind in self.kinds),
                struct.pack(f"<{count}Q", *(kind.device for kind in self.kinds)),
                _LENGTH.pack(len(self.engine)),
                self.engine,
            )
        )
        return body + _LENGTH.pack(zlib.crc32(body))

    @classmethod
    def decode(cls, metadata: bytes) -> Envelope:
        """From bytes of anybody.

        Raises:
            nixlMismatchError: they are no metadata, of another version, or damaged.
        """
        reader = _Reader(metadata)
        magic, version, flags = _HEAD.unpack(reader.take(_HEAD.size))
        if magic != _MAGIC:
            raise _mismatch("these bytes are not from an agent of kvx")
        if version != _VERSION:
            raise _mismatch(f"version {version}; this is version {_VERSION}")
        reader.check_sum()
        name = reader.block()
        count = reader.length()
        if count > _MOST_REGIONS:
            raise _mismatch(f"{count} regions")
        memories = reader.take(count)
        devices = struct.unpack(f"<{count}Q", reader.take(8 * count))
        engine = reader.block()
        reader.end()
        if not name or flags & ~(_CONNECTS | _COMPLETE) or len(engine) < _IDENTITY.stop:
            raise _mismatch("it makes no sense")
        try:
            kinds = [Kind(nixl_mem_t(m), device) for m, device in zip(memories, devices)]
        except ValueError:
            raise _mismatch("memory of an unknown kind") from None
        agent = name.decode("utf-8", "surrogateescape")
        return cls(agent, bool(flags & _CONNECTS), bool(flags & _COMPLETE), kinds, engine)


class _Reader:
    """Reads from bytes whose last four are a checksum, and never beyond them."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self._end = max(0, len(data) - _LENGTH.size)

    def check_sum(self) -> None:
        (told,) = _LENGTH.unpack(self._data[self._end :])
        if told != zlib.crc32(self._data[: self._end]):
            raise _mismatch("it is damaged")

    def take(self, length: int) -> bytes:
        if length > self._end - self._at:
            raise _mismatch("it is cut off")
        taken = self._data[self._at : self._at + length]
        self._at += length
        return taken

    def length(self) -> int:
        (found,) = _LENGTH.unpack(self.take(_LENGTH.size))
        assert isinstance(found, int)
        return found

    def block(self) -> bytes:
        return self.take(self.length())

    def end(self) -> None:
        if self._at != self._end:
            raise _mismatch("something comes after it")


def _mismatch(why: str) -> Exception:
    return failure(nixlMismatchError, f"metadata: {why}")
