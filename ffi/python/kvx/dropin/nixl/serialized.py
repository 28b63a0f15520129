"""Lists of descriptors as bytes, for another process. Reading them runs nothing.

    4   magic `KVXD`
    1   version, 1
    1   kind: 1 transfer list, 2 registration list, 3 rows of numbers, text and bytes
    2   reserved, 0
    4   kind of memory (0 for rows)
    8   number of rows
    ... the rows: three u64 each; then, for registration lists, u32 length and bytes for each.
        Rows of kind 3 are u32 entries each, an entry is u8 (0 number, 1 text, 2 bytes), u32 length
        and bytes (of a number: little-endian, two's complement).
    4   CRC-32 of everything before

All numbers are little-endian.
"""

from __future__ import annotations

import struct
import zlib
from typing import Any, Union

import numpy as np

from kvx.dropin.nixl.descriptors import nixlRegDList, nixlXferDList
from kvx.dropin.nixl.names import nixl_mem_t

Rows = list[tuple[Any, ...]]
Serializable = Union[nixlXferDList, nixlRegDList, Rows]

_MAGIC = b"KVXD"
_VERSION = 1
_HEAD = struct.Struct("<4sBBHIQ")
_LENGTH = struct.Struct("<I")
_ENTRY = struct.Struct("<BI")
_XFER, _REG, _ROWS = 1, 2, 3
_NUMBER, _TEXT, _BYTES = 0, 1, 2


def encode(descs: Serializable) -> bytes:
    """As bytes.

    Raises:
        TypeError: neither a list of descriptors nor of tuples of numbers, text and bytes.
    """
    if isinstance(descs, nixlXferDList):
        kind, mem, count, parts = _XFER, int(descs.getType()), descs.descCount(), []
        parts.append(descs.table().astype("<u8").tobytes())
    elif isinstance(descs, nixlRegDList):
        kind, mem, count, parts = _REG, int(descs.getType()), descs.descCount(), []
        parts.append(descs.table().astype("<u8").tobytes())
        for meta in descs.meta:
            parts += (_LENGTH.pack(len(meta)), meta)
    elif isinstance(descs, (list, tuple)):
        kind, mem, count, parts = _ROWS, 0, len(descs), []
        for row in descs:
            parts += _encoded_row(row)
    else:
        raise TypeError(f"descs: cannot serialize {type(descs).__name__}")
    body = _HEAD.pack(_MAGIC, _VERSION, kind, 0, mem, count) + b"".join(parts)
    return body + _LENGTH.pack(zlib.crc32(body))


def decode(serialized: bytes | bytearray) -> Serializable:
    """What `encode` was given.

    Raises:
        TypeError: no bytes.
        ValueError: bytes that are something else, of another version, or damaged.
    """
    if not isinstance(serialized, (bytes, bytearray)):
        raise TypeError(f"expected bytes, not {type(serialized).__name__}")
    reader = _Reader(bytes(serialized))
    magic, version, kind, reserved, mem, count = reader.unpack(_HEAD)
    if magic != _MAGIC:
        raise ValueError("these are no serialized descriptors")
    if version != _VERSION:
        raise ValueError(f"serialized descriptors of version {version}, not {_VERSION}")
    reader.check_sum()
    if reserved or kind not in (_XFER, _REG, _ROWS):
        raise ValueError(f"serialized descriptors of kind {kind}")
    if kind == _ROWS:
        found: Serializable = [_row(reader) for _ in range(count)]
    else:
        try:
            memory = nixl_mem_t(mem)
        except ValueError:
            raise ValueError(f"serialized descriptors of memory {mem}") from None
        table = np.frombuffer(reader.take(24 * count), "<u8")
        rows = table.astype(np.uint64).reshape(-1, 3)
        if kind == _XFER:
            found = nixlXferDList(memory, rows)
        else:
            found = nixlRegDList.of(memory, rows, [reader.block() for _ in range(count)])
    reader.end()
    return found


class _Reader:
    """Reads from bytes whose last four are a checksum, and never beyond them."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self._end = len(data) - _LENGTH.size

    def check_sum(self) -> None:
        (told,) = _LENGTH.unpack(self._data[self._end :])
        if told != zlib.crc32(self._data[: self._end]):
            raise ValueError("serialized descriptors that are damaged")

    def take(self, length: int) -> bytes:
        if length > self._end - self._at:
            raise ValueError("serialized descriptors that are cut off")
        taken = self._data[self._at : self._at + length]
        self._at += length
        return taken

    def unpack(self, form: struct.Struct) -> tuple[Any, ...]:
        return form.unpack(self.take(form.size))

    def block(self) -> bytes:
        (length,) = self.unpack(_LENGTH)
        return self.take(length)

    def end(self) -> None:
        if self._at != self._end:
            raise ValueError("serialized descriptors with something after them")


def _encoded_row(row: object) -> list[bytes]:
    if not isinstance(row, tuple):
        raise TypeError(f"descs: cannot serialize a list of {type(row).__name__}")
    parts = [_LENGTH.pack(len(row))]
    for value in row:
        if isinstance(value, str):
            kind, data = _TEXT, value.encode("utf-8", "surrogateescape")
        elif isinstance(value, bytes):
            kind, data = _BYTES, value
        elif isinstance(value, (int, np.integer)):
            plain = int(value)
            kind, data = _NUMBER, plain.to_bytes(plain.bit_length() // 8 + 1, "little", signed=True)
        else:
            raise TypeError(f"descs: cannot serialize a row with {type(value).__name__}")
        parts += (_ENTRY.pack(kind, len(data)), data)
    return parts


def _row(reader: _Reader) -> tuple[Any, ...]:
    (entries,) = reader.unpack(_LENGTH)
    row: list[Any] = []
    for _ in range(entries):
        kind, length = reader.unpack(_ENTRY)
        data = reader.take(length)
        if kind == _NUMBER:
            row.append(int.from_bytes(data, "little", signed=True))
        elif kind == _TEXT:
            row.append(data.decode("utf-8", "surrogateescape"))
        elif kind == _BYTES:
            row.append(data)
        else:
            raise ValueError(f"serialized descriptors with an entry of kind {kind}")
    return tuple(row)
