"""What cases hand to the interface and ask of it that JSON cannot say, by name.

Like the worker it knows nothing of kvx, and runs in the interpreter of the real package too.
"""

from __future__ import annotations

import array
import collections
import copy
import decimal
import enum
import operator
from typing import Any, Callable

import numpy as np

Number = enum.IntEnum("Number", ["ONE"])


class Index:
    """An integer by `__index__` alone."""

    def __index__(self) -> int:
        return 5


class Whole:
    """One by `__int__` alone."""

    def __int__(self) -> int:
        return 5


class Nothing:
    """None, although it has `__index__`."""

    def __index__(self) -> int:
        raise RuntimeError("no number")


class Items:
    """A sequence of one's own."""

    def __getitem__(self, at: int) -> int:
        return [7][at]

    def __len__(self) -> int:
        return 1


NUMBERS: dict[str, Callable[[], Any]] = {
    "True": lambda: True,
    "float": lambda: 1.0,
    "text": lambda: "1",
    "None": lambda: None,
    "negative": lambda: -1,
    "2^63": lambda: 1 << 63,
    "2^64-1": lambda: (1 << 64) - 1,
    "2^64": lambda: 1 << 64,
    "numpy uint64": lambda: np.uint64(5),
    "numpy int32": lambda: np.int32(5),
    "numpy float64": lambda: np.float64(5),
    "numpy float32": lambda: np.float32(5),
    "numpy array": lambda: np.array(5),
    "2^20000": lambda: 1 << 20000,
    "numpy float32, infinite": lambda: np.float32("inf"),
    "Decimal": lambda: decimal.Decimal(5),
    "Decimal, NaN": lambda: decimal.Decimal("NaN"),
    "complex": lambda: 5j,
    "list": lambda: [5],
    "IntEnum": lambda: Number.ONE,
    "__index__": Index,
    "__int__": Whole,
    "__index__ that raises": Nothing,
    "object": object,
}

TEXTS: dict[str, Callable[[], Any]] = {
    "bytes": lambda: b"127.0.0.1:1",
    "bytearray": lambda: bytearray(b"127.0.0.1:1"),
    "None": lambda: None,
    "number": lambda: 5,
    "surrogate": lambda: "\ud800",
    "memoryview": lambda: memoryview(b"a"),
    "list": lambda: ["a"],
}

LISTS: dict[str, Callable[[], Any]] = {
    "[]": list,
    "()": tuple,
    "range": lambda: range(3),
    "set": lambda: {1},
    "dict": lambda: {1: 2},
    "empty dict": dict,
    "str": lambda: "1",
    "bytes": lambda: b"a",
    "bytearray": lambda: bytearray(b"a"),
    "memoryview": lambda: memoryview(b"a"),
    "None": lambda: None,
    "number": lambda: 5,
    "iterator": lambda: iter([1]),
    "generator": lambda: (item for item in [1]),
    "keys": lambda: {1: 2}.keys(),
    "deque": lambda: collections.deque([1]),
    "of one's own": Items,
    "empty array": lambda: np.zeros(0),
    "array of integers": lambda: np.array([1, 2]),
    "array of floats": lambda: np.array([1.0]),
    "array.array": lambda: array.array("Q", [1]),
    "of a float": lambda: [1.5],
    "of a text": lambda: ["a"],
    "of None": lambda: [None],
    "of a negative": lambda: [-1],
    "of 2^64": lambda: [1 << 64],
    "of 2^20000": lambda: [1 << 20000],
    "of a Decimal": lambda: [decimal.Decimal(3)],
    "of NaN": lambda: [decimal.Decimal("NaN")],
    "of what raises": lambda: [Nothing()],
    "of True": lambda: [True],
    "of numpy": lambda: [np.uint64(3), np.int64(4)],
    "tuple": lambda: (1,),
}


def _set(thing: Any, name: str, value: Any) -> Any:
    setattr(thing, name, value)
    return getattr(thing, name)


CHECKS: dict[str, Callable[[Any], Any]] = {
    "opcode == 0": lambda m: m.TransferOpcode.Read == 0,
    "opcode == exported": lambda m: m.TransferOpcode.Read is m.Read,
    "opcode != other": lambda m: m.Read != m.Write,
    "opcode <": lambda m: m.Read < m.Write,
    "opcode >=": lambda m: m.Read >= m.Write,
    "opcode hash": lambda m: hash(m.Write) == hash(1),
    "opcode int": lambda m: [int(m.Read), int(m.Write)],
    "opcode index": lambda m: operator.index(m.Write),
    "opcode value": lambda m: [m.Read.value, m.Write.value],
    "opcode name": lambda m: m.Write.name,
    "opcode str": lambda m: str(m.Write),
    "opcode repr": lambda m: repr(m.Write),
    "opcode members": lambda m: list(m.TransferOpcode.__members__),
    "opcode is no int": lambda m: isinstance(m.Read, int),
    "opcode of a number": lambda m: m.TransferOpcode(1) == m.Write,
    "opcode of none such": lambda m: m.TransferOpcode(2) is not None,
    "opcode |": lambda m: m.Read | m.Write,
    "opcode copy": lambda m: copy.copy(m.Read) == m.Read,
    "opcode true": lambda m: bool(m.Read),
    "opcode of the class": lambda m: m.TransferEngine.TransferOpcode is m.TransferOpcode,
    "modules": lambda m: [
        kind.__module__ for kind in (m.TransferEngine, m.TransferNotify, m.TransferOpcode)
    ],
    "supports": lambda m: [[name, getattr(m, name)] for name in dir(m) if name[:8] == "SUPPORT_"],
    "engine of arguments": lambda m: m.TransferEngine(1),
    "engine attribute": lambda m: _set(m.TransferEngine(), "x", 1),
    "engine subclass": lambda m: isinstance(
        type("Sub", (m.TransferEngine,), {})(), m.TransferEngine
    ),
    "notify empty": lambda m: [m.TransferNotify().name, m.TransferNotify().msg],
    "notify of one": lambda m: m.TransferNotify("a"),
    "notify of three": lambda m: m.TransferNotify("a", "b", "c"),
    "notify of a number": lambda m: m.TransferNotify("a", 1),
    "notify of bytes": lambda m: m.TransferNotify(b"a", b"b").msg,
    "notify by name": lambda m: m.TransferNotify(msg="b", name="a").name,
    "notify of no text": lambda m: m.TransferNotify(b"\xff", "").name,
    "notify of a surrogate": lambda m: m.TransferNotify("\ud800", ""),
    "notify with a zero": lambda m: m.TransferNotify("a\0b", "").name,
    "notify ==": lambda m: m.TransferNotify("a", "b") == m.TransferNotify("a", "b"),
    "notify set": lambda m: _set(m.TransferNotify("a", "b"), "name", "c"),
    "notify set msg": lambda m: _set(m.TransferNotify("a", "b"), "msg", "c"),
    "notify set a number": lambda m: _set(m.TransferNotify("a", "b"), "name", 5),
    "notify other attribute": lambda m: _set(m.TransferNotify("a", "b"), "other", 5),
    "notify copy": lambda m: copy.copy(m.TransferNotify("a", "b")),
    "keyword of initialize": lambda m: m.TransferEngine().initialize(
        local_hostname="127.0.0.1", metadata_server="P2PHANDSHAKE", protocol="tcp", device_name=""
    ),
    "keyword of unregister": lambda m: m.TransferEngine().unregister_memory(buffer_addr=1),
    "keyword of batch_unregister": lambda m: m.TransferEngine().batch_unregister_memory(
        buffer_addresses=[]
    ),
    "keyword of check": lambda m: m.TransferEngine().transfer_check_status(batch_id=1),
    "keyword of status": lambda m: m.TransferEngine().get_batch_transfer_status(batch_ids=[]),
    "keyword of first": lambda m: m.TransferEngine().get_first_buffer_address(segment_name="x"),
    "keyword of free": lambda m: m.TransferEngine().free_managed_buffer(buffer_addr=1, length=1),
    "argument of get_rpc_port": lambda m: m.TransferEngine().get_rpc_port(1),
    "too few for initialize": lambda m: m.TransferEngine().initialize("127.0.0.1"),
    "number for initialize": lambda m: m.TransferEngine().initialize(1, 2, 3, 4),
    "public names": lambda m: [name for name in dir(m) if name[0] != "_"],
}
