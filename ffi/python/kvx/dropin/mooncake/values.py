"""The small types of the interface: which way a transfer goes, and what goes along with it."""

from __future__ import annotations

import enum
import struct

from kvx.dropin.mooncake.arguments import raw

_PUBLIC = "mooncake.engine"

# Version 1: the name's length follows, then the name, then the message, all UTF-8.
_HEAD = struct.Struct("<5sI")
_MAGIC = b"kvxm\x01"


class TransferOpcode(enum.Enum):
    """Which way a transfer goes."""

    Read = 0
    Write = 1

    def __int__(self) -> int:
        return self.value

    def __index__(self) -> int:
        return self.value

    def __hash__(self) -> int:
        return hash(self.value)

    def __lt__(self, other: object) -> bool:
        if isinstance(other, TransferOpcode):
            return self.value < other.value
        return NotImplemented

    def __le__(self, other: object) -> bool:
        if isinstance(other, TransferOpcode):
            return self.value <= other.value
        return NotImplemented


class TransferNotify:
    """What the target's user is told once a transfer is done."""

    __slots__ = ("__weakref__", "_msg", "_name")

    def __init__(self, *args: object, **kwargs: object) -> None:
        if args or kwargs:
            self._set(*args, **kwargs)
        else:
            self._name, self._msg = b"", b""

    def _set(self, name: object, msg: object) -> None:
        self._name, self._msg = raw(name), raw(msg)

    @property
    def name(self) -> str:
        """The first of its two texts."""
        return self._name.decode()

    @name.setter
    def name(self, value: str) -> None:
        self._name = raw(value)

    @property
    def msg(self) -> str:
        """The second."""
        return self._msg.decode()

    @msg.setter
    def msg(self, value: str) -> None:
        self._msg = raw(value)

    def __reduce__(self) -> str:
        raise TypeError(f"cannot pickle {_PUBLIC + '.TransferNotify'!r} object")


for _type in (TransferOpcode, TransferNotify):
    _type.__module__ = _PUBLIC


def encode(notify: TransferNotify) -> bytes:
    """A notification of kvx that says this. Bytes that are no text become U+FFFD."""
    name, msg = (text.decode("utf-8", "replace").encode() for text in (notify._name, notify._msg))
    return _HEAD.pack(_MAGIC, len(name)) + name + msg


def decode(data: bytes) -> TransferNotify | None:
    """What such a notification says; `None` for one of another kind."""
    if len(data) < _HEAD.size:
        return None
    magic, length = _HEAD.unpack_from(data)
    end = _HEAD.size + length
    if magic != _MAGIC or end > len(data):
        return None
    return TransferNotify(data[_HEAD.size : end], data[end:])
