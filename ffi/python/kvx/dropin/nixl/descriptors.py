"""Lists of descriptors: (address, length, device), and what goes along with each.

Columns of numbers, not objects: lists of a million are made of tables and read as tables.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kvx.dropin.nixl.errors import failure, nixlNotFoundError
from kvx.dropin.nixl.names import nixl_mem_t
from kvx.dropin.nixl.texts import octets, text

Table = NDArray[np.uint64]

_WORD = 1 << 64


class _List:
    """Rows of three numbers, of one kind of memory."""

    # `_rows` has room for more than `_count`.
    __slots__ = ("__weakref__", "_count", "_rows", "_type")

    #: The numbers of a row, and what else it has.
    _width = 3

    _rows: Table
    _count: int

    def __init__(
        self, type: nixl_mem_t, descs: object = 0, *, init_size: int | None = None
    ) -> None:
        if not isinstance(type, nixl_mem_t):
            raise TypeError(f"type: expected nixl_mem_t, not {type!r}")
        self._type = type
        self._start()
        if init_size is not None:
            descs = init_size
        if isinstance(descs, list):
            self._take_rows(descs)
        elif isinstance(descs, np.ndarray):
            self._take_table(descs)
        elif isinstance(descs, (int, np.integer)):
            if descs < 0:
                raise ValueError(f"init_size: {descs} is negative")
            self._rows = np.zeros((int(descs), 3), np.uint64)
            self._count = int(descs)
            self._fill()
        else:
            raise TypeError(f"descs: expected a list or an array, not {descs!r:.80}")

    def getType(self) -> nixl_mem_t:
        """What kind of memory it is."""
        return self._type

    def descCount(self) -> int:
        """The number of descriptors."""
        return self._count

    def isEmpty(self) -> bool:
        """Whether there are none."""
        return self._count == 0

    def table(self) -> Table:
        """The numbers: a row of address, length and device for each descriptor."""
        return self._rows[: self._count]

    def addDesc(self, desc: tuple[Any, ...]) -> None:
        """Appends a descriptor."""
        row = self._row(desc)
        if self._count == len(self._rows):
            larger = np.zeros((max(8, 2 * self._count), 3), np.uint64)
            larger[: self._count] = self._rows
            self._rows = larger
        self._rows[self._count] = row
        self._count += 1
        self._push(desc)

    def append(self, desc: tuple[Any, ...]) -> None:
        """Appends a descriptor."""
        self.addDesc(desc)

    def remDesc(self, index: int) -> None:
        """Removes a descriptor."""
        at = self._at(index)
        self._rows = np.delete(self.table(), at, axis=0)
        self._count -= 1
        self._drop(at)

    def clear(self) -> None:
        """Removes all."""
        self._start()

    def print(self) -> None:
        """Writes it to standard output."""
        print(f"{type(self).__name__} of {self._type.name}, {self._count} descriptors")
        for index in range(self._count):
            print(f"  {self[index]}")

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        row = self._rows[self._at(index)]
        return int(row[0]), int(row[1]), int(row[2])

    def __setitem__(self, index: int, desc: tuple[Any, ...]) -> None:
        row = self._row(desc)
        at = self._at(index)
        self._rows[at] = row
        self._put(at, desc)

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self) or not isinstance(other, _List):
            return False
        same = self._type is other._type and np.array_equal(self.table(), other.table())
        return bool(same) and self._extras() == other._extras()

    __hash__ = None  # type: ignore[assignment]

    def _at(self, index: object) -> int:
        if isinstance(index, (float, slice)):
            raise TypeError(f"index: {index!r} is no integer")
        at = operator.index(index)  # type: ignore[arg-type]
        if not 0 <= at < self._count:
            raise IndexError(f"index {at} of {self._count} descriptors")
        return at

    def _row(self, desc: object) -> tuple[int, int, int]:
        """The numbers of one descriptor, which may have more than it needs."""
        if not isinstance(desc, tuple):
            raise TypeError(f"descriptor: expected a tuple, not {desc!r:.80}")
        if len(desc) < self._width:
            raise IndexError(f"descriptor: {desc!r:.80} has not {self._width} entries")
        self._check(desc)
        return _numbers(desc)

    def _take_rows(self, descs: list[Any]) -> None:
        if not all(map(_is_tuple, descs)):
            raise TypeError("descs: expected a list of tuples")
        if any(len(desc) != self._width for desc in descs):
            raise ValueError(f"descs: expected tuples of {self._width}")
        for desc in descs if self._width > 3 else ():
            self._check(desc)
        rows = _quick(descs) if self._width == 3 else None
        if rows is None:
            rows = np.array([_numbers(desc) for desc in descs], np.uint64).reshape(-1, 3)
        self._rows = rows
        self._count = len(descs)
        for desc in descs if self._width > 3 else ():
            self._push(desc)

    def _take_table(self, descs: NDArray[Any]) -> None:
        self._rows = table_of(descs, 3).copy()
        self._count = len(self._rows)
        self._fill()

    def _start(self) -> None:
        self._rows = np.zeros((0, 3), np.uint64)
        self._count = 0

    # What lists of wider rows do besides.

    def _check(self, desc: tuple[Any, ...]) -> None:
        """Raises if what goes along with the numbers is wrong."""

    def _push(self, desc: tuple[Any, ...]) -> None:
        """A row of it was appended."""

    def _put(self, at: int, desc: tuple[Any, ...]) -> None:
        """A row of it was replaced."""

    def _drop(self, at: int) -> None:
        """A row of it was removed."""

    def _fill(self) -> None:
        """All rows are there, with nothing along with them."""

    def _extras(self) -> Sequence[object]:
        """What goes along with each row."""
        return ()

    def _index(self, desc: tuple[Any, ...]) -> int:
        row = np.array(self._row(desc), np.uint64)
        wanted = tuple(self._along(desc))
        for at in np.flatnonzero((self.table() == row).all(axis=1)):
            if tuple(self._extras()[int(at) : int(at) + 1]) == wanted:
                return int(at)
        raise failure(nixlNotFoundError, f"{desc} is not in the list")

    def _along(self, desc: tuple[Any, ...]) -> Sequence[object]:
        """What this descriptor has along with its numbers."""
        return ()


class nixlXferDList(_List):
    """Places of a transfer."""

    __slots__ = ()

    def index(self, desc: tuple[Any, ...]) -> int:
        """Where a descriptor is."""
        return self._index(desc)

    def __getstate__(self) -> bytes:
        return _state(self)

    def __setstate__(self, state: bytes) -> None:
        _set_state(self, state)


class nixlRegDList(_List):
    """Memory to be registered, with bytes that describe it."""

    __slots__ = ("_meta",)

    _width = 4

    @classmethod
    def of(cls, type: nixl_mem_t, table: Table, meta: list[bytes]) -> nixlRegDList:
        """The list of these rows and of what goes along with each."""
        made = cls(type, table)
        made._meta = list(meta)
        return made

    @property
    def meta(self) -> list[bytes]:
        """What goes along with each row."""
        return list(self._meta)

    def index(self, desc: tuple[Any, ...]) -> int:
        """Where a descriptor is."""
        return self._index(desc)

    def trim(self) -> nixlXferDList:
        """The same places without what describes them."""
        return nixlXferDList(self._type, np.ascontiguousarray(self.table()))

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        return (*super().__getitem__(index), self._meta[operator.index(index)])

    def __getstate__(self) -> bytes:
        return _state(self)

    def __setstate__(self, state: bytes) -> None:
        _set_state(self, state)

    def _start(self) -> None:
        super()._start()
        self._meta: list[bytes] = []

    def _check(self, desc: tuple[Any, ...]) -> None:
        _quietly(lambda: octets("meta", desc[3]))

    def _push(self, desc: tuple[Any, ...]) -> None:
        self._meta.append(octets("meta", desc[3]))

    def _put(self, at: int, desc: tuple[Any, ...]) -> None:
        self._meta[at] = octets("meta", desc[3])

    def _drop(self, at: int) -> None:
        del self._meta[at]

    def _fill(self) -> None:
        self._meta = [b""] * self._count

    def _extras(self) -> Sequence[object]:
        return self._meta

    def _along(self, desc: tuple[Any, ...]) -> Sequence[object]:
        return (octets("meta", desc[3]),)


class nixlRemoteDList(_List):
    """Places of agents, each with its agent's name."""

    __slots__ = ("_names",)

    _width = 4

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        return (*super().__getitem__(index), self._names[operator.index(index)])

    def __reduce__(self) -> str | tuple[Any, ...]:
        raise TypeError("cannot pickle a list with names of agents")

    def _start(self) -> None:
        super()._start()
        self._names: list[str] = []

    def _take_table(self, descs: NDArray[Any]) -> None:
        raise TypeError("descs: a table has no names of agents")

    def _check(self, desc: tuple[Any, ...]) -> None:
        _quietly(lambda: text("agent", desc[3]))

    def _push(self, desc: tuple[Any, ...]) -> None:
        self._names.append(text("agent", desc[3]))

    def _put(self, at: int, desc: tuple[Any, ...]) -> None:
        self._names[at] = text("agent", desc[3])

    def _drop(self, at: int) -> None:
        del self._names[at]

    def _fill(self) -> None:
        self._names = [""] * self._count

    def _extras(self) -> Sequence[object]:
        return self._names


def table_of(array: NDArray[Any], width: int) -> Table:
    """An array of 64-bit integers in rows, as unsigned ones; no copy.

    Raises:
        ValueError: it has another type, shape or order.
    """
    if array.dtype not in (np.uint64, np.int64) or not array.dtype.isnative:
        raise ValueError(f"table: of {array.dtype}, not of int64 or uint64")
    if array.ndim != 2 or array.shape[1] != width:
        raise ValueError(f"table: of shape {array.shape}, not (N, {width})")
    if not array.flags.c_contiguous:
        raise ValueError("table: not in C order, or not in one piece")
    return array.view(np.uint64)


def _is_tuple(desc: object) -> bool:
    return isinstance(desc, tuple)


def _quick(descs: list[tuple[Any, ...]]) -> Table | None:
    """Many rows of plain integers at once; `None` where they are to be looked at one by one."""
    if not descs:
        return np.zeros((0, 3), np.uint64)
    try:
        found = np.array(descs)
    except (ValueError, OverflowError):
        return None
    if found.ndim != 2:
        return None
    if found.dtype == np.uint64:
        return found
    if found.dtype == np.int64 and int(found.min()) >= 0:
        return found.astype(np.uint64)
    return None


def _numbers(desc: tuple[Any, ...]) -> tuple[int, int, int]:
    found = []
    for value in desc[:3]:
        if isinstance(value, (float, np.floating)):
            raise RuntimeError(f"descriptor: {value!r} is no integer")
        try:
            number = operator.index(value)
        except TypeError:
            raise RuntimeError(f"descriptor: {value!r:.80} is no integer") from None
        if not 0 <= number < _WORD:
            raise RuntimeError(f"descriptor: {number} is not from 0 to 2^64 - 1")
        found.append(number)
    return found[0], found[1], found[2]


def _quietly(convert: Any) -> None:
    """NIXL tells a wrong entry of a tuple apart from a wrong argument."""
    try:
        convert()
    except TypeError as error:
        raise RuntimeError(str(error)) from None


def _state(descs: nixlXferDList | nixlRegDList) -> bytes:
    from kvx.dropin.nixl.serialized import encode

    return encode(descs)


def _set_state(descs: nixlXferDList | nixlRegDList, state: object) -> None:
    from kvx.dropin.nixl.serialized import decode

    if not isinstance(state, bytes):
        raise TypeError(f"state: expected bytes, not {type(state).__name__}")
    found = decode(state)
    if type(found) is not type(descs):
        raise ValueError(f"state: of {type(found).__name__}, not {type(descs).__name__}")
    for slot in ("_type", "_rows", "_count", "_meta"):
        if hasattr(found, slot):
            setattr(descs, slot, getattr(found, slot))
