"""Descriptor lists: `nixlXferDList`, `nixlRegDList`, `nixlRemoteDList`, and what makes them."""

from __future__ import annotations

import os
import pickle
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
from observe import Package, Seen

ROWS = [(1000, 105, 0), (2000, 30, 1), (1010, 20, 0)]
REG_ROWS = [(1000, 105, 0, b"x"), (2000, 30, 1, "yz"), (1010, 20, 0, "")]
REMOTE_ROWS = [(1000, 105, 0, "a"), (2000, 30, 1, "b")]


def printed(show: Callable[[], object]) -> bool:
    """Whether `show` prints anything on the process's stdout, be it from C."""
    with tempfile.TemporaryFile() as file:
        saved = os.dup(1)
        try:
            os.dup2(file.fileno(), 1)
            show()
            import ctypes
            import sys

            sys.stdout.flush()
            ctypes.CDLL(None).fflush(None)
        finally:
            os.dup2(saved, 1)
            os.close(saved)
        return file.seek(0, os.SEEK_END) > 0


def shapes() -> dict[str, Any]:
    table = np.array(ROWS, dtype=np.uint64)
    return {
        "uint64": table,
        "int64": table.astype(np.int64),
        "int32": table.astype(np.int32),
        "uint32": table.astype(np.uint32),
        "float": table.astype(np.float64),
        "bool": table.astype(bool),
        "object": table.astype(object),
        "big endian": table.astype(">u8"),
        "fortran": np.asfortranarray(table),
        "every other": np.repeat(table, 2, axis=0)[::2],
        "columns of more": np.hstack([table, table])[:, :3],
        "reversed": table[::-1],
        "negative": np.array([[-1, 5, 0]], dtype=np.int64),
        "two columns": table[:, :2].copy(),
        "four columns": np.hstack([table, table[:, :1]]).copy(),
        "five columns": np.hstack([table, table[:, :2]]).copy(),
        "flat": table.ravel(),
        "three dimensions": table.reshape(1, 3, 3),
        "empty": np.zeros((0, 3), dtype=np.uint64),
        "nothing": np.zeros(0, dtype=np.uint64),
        "read only": read_only(table),
    }


def read_only(table: Any) -> Any:
    copy = table.copy()
    copy.flags.writeable = False
    return copy


def case_xfer_list_from_lists(p: Package) -> Seen:
    seen, b = Seen(), p.bindings
    inputs: dict[str, Any] = {
        "rows": ROWS,
        "none": [],
        "tuple of rows": tuple(ROWS),
        "rows of lists": [[1, 2, 3]],
        "two": [(1, 2)],
        "four": [(1, 2, 3, 4)],
        "mixed": [(1, 2, 3), (1, 2)],
        "negative": [(-1, 2, 3)],
        "negative device": [(1, 2, -3)],
        "float": [(1.0, 2, 3)],
        "text": [("1", 2, 3)],
        "numpy numbers": [(np.uint64(1), np.int32(2), np.int64(3))],
        "bool": [(True, 2, 3)],
        "large": [(2**64 - 1, 2**63, 2**64 - 1)],
        "too large": [(2**64, 2, 3)],
        "negative count": -1,
        "text instead": "ab",
        "nothing": None,
        "iterator": iter(ROWS),
        "list of none": [None],
    }
    for label, value in inputs.items():
        seen(label, lambda v=value: b.nixlXferDList(b.DRAM_SEG, v))
    seen("without", lambda: b.nixlXferDList(b.DRAM_SEG))
    seen("keywords", lambda: b.nixlXferDList(type=b.VRAM_SEG, descs=ROWS))
    seen("count", lambda: b.nixlXferDList(b.DRAM_SEG, 2).descCount())
    seen("init_size", lambda: b.nixlXferDList(type=b.VRAM_SEG, init_size=1).descCount())
    seen("no type", lambda: b.nixlXferDList())
    seen("number as type", lambda: b.nixlXferDList(0, ROWS))
    seen("name as type", lambda: b.nixlXferDList("DRAM", ROWS))
    seen("three arguments", lambda: b.nixlXferDList(b.DRAM_SEG, ROWS, False))
    return seen


def case_xfer_list_from_arrays(p: Package) -> Seen:
    seen, b = Seen(), p.bindings
    for label, value in shapes().items():
        seen(label, lambda v=value: b.nixlXferDList(b.DRAM_SEG, v))
    return seen


def case_reg_list_from_arrays(p: Package) -> Seen:
    seen, b = Seen(), p.bindings
    for label, value in shapes().items():
        seen(label, lambda v=value: b.nixlRegDList(b.DRAM_SEG, v))
    return seen


def case_reg_list_from_lists(p: Package) -> Seen:
    seen, b = Seen(), p.bindings
    inputs: dict[str, Any] = {
        "rows": REG_ROWS,
        "none": [],
        "tuple of rows": tuple(REG_ROWS),
        "three": [(1, 2, 3)],
        "five": [(1, 2, 3, "", 4)],
        "number as meta": [(1, 2, 3, 4)],
        "none as meta": [(1, 2, 3, None)],
        "bytes that are no text": [(1, 2, 3, b"\xff\x00\xfe")],
        "bytearray": [(1, 2, 3, bytearray(b"a"))],
        "unicode": [(1, 2, 3, "ä")],
        "negative": [(-1, 2, 3, "")],
        "rows of lists": [[1, 2, 3, ""]],
        "count": 2,
    }
    for label, value in inputs.items():
        seen(label, lambda v=value: b.nixlRegDList(b.DRAM_SEG, v))
    seen("trim", lambda: b.nixlRegDList(b.VRAM_SEG, REG_ROWS).trim())
    seen("trim of none", lambda: b.nixlRegDList(b.VRAM_SEG).trim())
    seen("keywords", lambda: b.nixlRegDList(type=b.VRAM_SEG, descs=REG_ROWS))
    return seen


def case_remote_list(p: Package) -> Seen:
    seen, b = Seen(), p.bindings
    seen("rows", lambda: b.nixlRemoteDList(b.DRAM_SEG, REMOTE_ROWS))
    seen("bytes as name", lambda: b.nixlRemoteDList(b.DRAM_SEG, [(1, 2, 3, b"x")]))
    seen("three", lambda: b.nixlRemoteDList(b.DRAM_SEG, ROWS))
    seen("count", lambda: b.nixlRemoteDList(b.DRAM_SEG, 2))
    seen("array", lambda: b.nixlRemoteDList(b.DRAM_SEG, np.array(ROWS, dtype=np.uint64)))
    dlist = b.nixlRemoteDList(b.DRAM_SEG, REMOTE_ROWS)
    seen("equal", lambda: dlist == b.nixlRemoteDList(b.DRAM_SEG, REMOTE_ROWS))
    seen("unequal name", lambda: dlist == b.nixlRemoteDList(b.DRAM_SEG, [REMOTE_ROWS[0]] * 2))
    seen("add", lambda: dlist.addDesc((5, 6, 7, "c")))
    seen("append", lambda: dlist.append((5, 6, 7, "d")))
    seen("remove", lambda: dlist.remDesc(0))
    seen("then", lambda: dlist)
    seen("set", lambda: dlist.__setitem__(0, (9, 9, 9, "z")))
    seen("then set", lambda: dlist[0])
    seen("has index", lambda: hasattr(dlist, "index"))
    seen("has trim", lambda: hasattr(dlist, "trim"))
    seen("pickle", lambda: pickle.loads(pickle.dumps(dlist)))
    agent = p.agent("a", backends=[])
    seen("agent's", lambda: agent.get_remote_descs(REMOTE_ROWS, "DRAM"))
    seen("agent's, as it is", lambda: agent.get_remote_descs(dlist) is dlist)
    seen("agent's, without type", lambda: agent.get_remote_descs(REMOTE_ROWS))
    seen("agent's, three", lambda: agent.get_remote_descs(ROWS, "DRAM"))
    seen("agent's, none", lambda: agent.get_remote_descs([], "DRAM"))
    seen("agent's, bad type", lambda: agent.get_remote_descs(REMOTE_ROWS, "D-RAM"))
    return seen


def list_behaviour(seen: Seen, b: Any, kind: Any, rows: list[Any], other: Any) -> None:
    dlist = kind(b.DRAM_SEG, rows)
    seen("count", dlist.descCount)
    seen("type", dlist.getType)
    seen("empty", dlist.isEmpty)
    seen("first", lambda: dlist[0])
    seen("type of an item", lambda: [type(x).__name__ for x in dlist[0]])
    seen("item 1", lambda: dlist[1])
    for index in (-1, 3, 100, -4):
        seen.daring(f"item {index}", lambda i=index: dlist[i])
    seen("item by text", lambda: dlist["a"])
    seen("item by float", lambda: dlist[1.0])
    seen("item by numpy", lambda: dlist[np.int64(1)])
    seen("slice", lambda: dlist[0:1])
    seen("length", lambda: len(dlist))
    seen.daring("iterate", lambda: list(dlist))
    seen.daring("iterate tuple", lambda: tuple(dlist))
    seen.daring("contains", lambda: rows[0] in dlist)
    seen("truth", lambda: bool(kind(b.DRAM_SEG)))
    seen("hash", lambda: type(hash(dlist)).__name__)
    seen("equal", lambda: dlist == kind(b.DRAM_SEG, rows))
    seen("equal other type", lambda: dlist == kind(b.VRAM_SEG, rows))
    seen("equal other order", lambda: dlist == kind(b.DRAM_SEG, rows[::-1]))
    seen("equal something else", lambda: dlist == 3)
    seen("equal rows", lambda: dlist == rows)
    seen("equal other kind", lambda: dlist == other)
    seen("not equal", lambda: dlist != kind(b.DRAM_SEG, rows))
    seen("index", lambda: dlist.index(rows[1]))
    seen("index of what is not there", lambda: dlist.index((5, 5, 5, *rows[0][3:])))
    seen("index of less", lambda: dlist.index((5, 5)))
    seen("print", lambda: printed(dlist.print))
    seen("pickle", lambda: pickle.loads(pickle.dumps(dlist)))
    seen("pickle of none", lambda: pickle.loads(pickle.dumps(kind(b.FILE_SEG))))
    seen("add", lambda: dlist.addDesc(rows[0]))
    seen("append", lambda: dlist.append(rows[1]))
    seen("add list", lambda: dlist.addDesc(list(rows[0])))
    seen("add less", lambda: dlist.addDesc((1, 2)))
    seen("add more", lambda: dlist.addDesc((1, 2, 3, "", 5)))
    seen("add negative", lambda: dlist.addDesc((-1, *rows[0][1:])))
    seen("add none", lambda: dlist.addDesc(None))
    seen("after adding", lambda: dlist)
    seen("set", lambda: dlist.__setitem__(0, rows[2]))
    seen.daring("set beyond", lambda: dlist.__setitem__(50, rows[2]))
    seen("set less", lambda: dlist.__setitem__(0, (1, 2)))
    seen("after setting", lambda: dlist)
    seen("remove", lambda: dlist.remDesc(1))
    seen.daring("remove beyond", lambda: dlist.remDesc(50))
    seen.daring("remove negative", lambda: dlist.remDesc(-1))
    seen("after removing", lambda: dlist)
    seen("clear", dlist.clear)
    seen("then", lambda: [dlist.descCount(), dlist.isEmpty()])
    seen("add after clearing", lambda: dlist.append(rows[0]))
    seen("finally", lambda: dlist)


def case_xfer_list(p: Package) -> Seen:
    seen, b = Seen(), p.bindings
    list_behaviour(seen, b, b.nixlXferDList, ROWS, b.nixlRegDList(b.DRAM_SEG, REG_ROWS))
    return seen


def case_reg_list(p: Package) -> Seen:
    seen, b = Seen(), p.bindings
    list_behaviour(seen, b, b.nixlRegDList, REG_ROWS, b.nixlXferDList(b.DRAM_SEG, ROWS))
    return seen


def case_set_state(p: Package) -> Seen:
    seen, b = Seen(), p.bindings
    for kind in (b.nixlXferDList, b.nixlRegDList):
        name = kind.__name__
        for label, state in (("nothing", b""), ("noise", b"noise" * 9), ("text", "abc")):
            dlist = kind.__new__(kind)
            seen(f"{name} {label}", lambda d=dlist, s=state: d.__setstate__(s))
    return seen


def case_get_xfer_descs(p: Package) -> Seen:
    seen, b = Seen(), p.bindings
    agent = p.agent("a", backends=[])
    table = np.array(ROWS, dtype=np.uint64)
    dlist = b.nixlXferDList(b.VRAM_SEG, ROWS)
    for mem in ("DRAM", "VRAM", "cpu", "cuda", "FILE", "BLOCK", "OBJ"):
        seen(f"rows {mem}", lambda m=mem: agent.get_xfer_descs(ROWS, m))
        seen(f"table {mem}", lambda m=mem: agent.get_xfer_descs(table, m))
    for mem in ("dram", "V-RAM", "", 3, "DRAM_SEG"):
        seen(f"rows {mem!r}", lambda m=mem: agent.get_xfer_descs(ROWS, m))
        seen(f"table {mem!r}", lambda m=mem: agent.get_xfer_descs(table, m))
    seen("rows without type", lambda: agent.get_xfer_descs(ROWS))
    seen("table without type", lambda: agent.get_xfer_descs(table))
    seen("as it is", lambda: agent.get_xfer_descs(dlist) is dlist)
    seen("as it is, another type", lambda: agent.get_xfer_descs(dlist, "DRAM"))
    seen("as it is, bad type", lambda: agent.get_xfer_descs(dlist, "V-RAM") is dlist)
    seen("of registration", lambda: agent.get_xfer_descs(b.nixlRegDList(b.DRAM_SEG, REG_ROWS)))
    seen("rows of four", lambda: agent.get_xfer_descs(REG_ROWS, "DRAM"))
    seen("rows of two", lambda: agent.get_xfer_descs([(1, 2)], "DRAM"))
    seen("second of two", lambda: agent.get_xfer_descs([(1, 2, 3), (1, 2)], "DRAM"))
    seen("rows of lists", lambda: agent.get_xfer_descs([[1, 2, 3]], "DRAM"))
    seen("rows of floats", lambda: agent.get_xfer_descs([(1.0, 2, 3)], "DRAM"))
    seen("negative", lambda: agent.get_xfer_descs([(-1, 2, 3)], "DRAM"))
    seen("tuple of rows", lambda: agent.get_xfer_descs(tuple(ROWS), "DRAM"))
    seen("one row", lambda: agent.get_xfer_descs(ROWS[0], "DRAM"))
    seen("none of them", lambda: agent.get_xfer_descs([], "DRAM"))
    seen("none of them without type", lambda: agent.get_xfer_descs([]))
    seen("none", lambda: agent.get_xfer_descs(None, "DRAM"))
    seen("text", lambda: agent.get_xfer_descs("abc", "DRAM"))
    seen("number", lambda: agent.get_xfer_descs(3, "DRAM"))
    seen("numpy rows", lambda: agent.get_xfer_descs(list(table), "DRAM"))
    seen("keywords", lambda: agent.get_xfer_descs(descs=ROWS, mem_type="DRAM"))
    for label, value in shapes().items():
        seen(f"table {label}", lambda v=value: agent.get_xfer_descs(v, "DRAM"))
    return seen


def case_get_reg_descs(p: Package) -> Seen:
    seen, b = Seen(), p.bindings
    agent = p.agent("a", backends=[])
    table = np.array(ROWS, dtype=np.uint64)
    dlist = b.nixlRegDList(b.VRAM_SEG, REG_ROWS)
    for mem in ("DRAM", "VRAM", "cpu", "cuda"):
        seen(f"rows {mem}", lambda m=mem: agent.get_reg_descs(REG_ROWS, m))
        seen(f"table {mem}", lambda m=mem: agent.get_reg_descs(table, m))
    for mem in ("dram", "V-RAM", "", 3):
        seen(f"rows {mem!r}", lambda m=mem: agent.get_reg_descs(REG_ROWS, m))
        seen(f"table {mem!r}", lambda m=mem: agent.get_reg_descs(table, m))
    seen("rows without type", lambda: agent.get_reg_descs(REG_ROWS))
    seen("table without type", lambda: agent.get_reg_descs(table))
    seen("as it is", lambda: agent.get_reg_descs(dlist) is dlist)
    seen("of transfer", lambda: agent.get_reg_descs(b.nixlXferDList(b.DRAM_SEG, ROWS)))
    seen("rows of three", lambda: agent.get_reg_descs(ROWS, "DRAM"))
    seen("rows of numbers", lambda: agent.get_reg_descs([(1, 2, 3, 4)], "DRAM"))
    seen("rows of five", lambda: agent.get_reg_descs([(1, 2, 3, "", 4)], "DRAM"))
    seen("tuple of rows", lambda: agent.get_reg_descs(tuple(REG_ROWS), "DRAM"))
    seen("none of them", lambda: agent.get_reg_descs([], "DRAM"))
    seen("none", lambda: agent.get_reg_descs(None, "DRAM"))
    for label, value in shapes().items():
        seen(f"table {label}", lambda v=value: agent.get_reg_descs(v, "DRAM"))
    return seen


def case_tensors(p: Package) -> Seen:
    seen = Seen()
    try:
        import torch
    except ImportError:
        seen.results["torch"] = {"skipped": "torch is missing"}
        return seen
    agent = p.agent("a")
    flat = torch.arange(64, dtype=torch.float32)
    wide = torch.arange(64, dtype=torch.int16).reshape(8, 8)

    def relative(dlist: Any, tensor: Any) -> Any:
        if dlist is None:
            return None
        base = tensor.data_ptr()
        return [type(dlist).__name__, str(dlist.getType())] + [
            (dlist[i][0] - base, *dlist[i][1:]) for i in range(dlist.descCount())
        ]

    for what in ("get_xfer_descs", "get_reg_descs"):
        get = getattr(agent, what)
        seen(f"{what} tensor", lambda g=get: relative(g(flat), flat))
        seen(f"{what} tensor with type", lambda g=get: relative(g(flat, "DRAM"), flat))
        seen(f"{what} tensor with another type", lambda g=get: relative(g(flat, "VRAM"), flat))
        seen(f"{what} tensor with no type", lambda g=get: relative(g(flat, "V-RAM"), flat))
        seen(f"{what} two", lambda g=get: relative(g([wide[0], wide[3]]), wide))
        seen(f"{what} rows", lambda g=get: relative(g(list(wide)), wide))
        seen(f"{what} tuple", lambda g=get: relative(g((flat, flat)), flat))
        seen(f"{what} part", lambda g=get: relative(g(flat[4:8]), flat))
        seen(f"{what} every other", lambda g=get: relative(g(flat[::2]), flat))
        seen(f"{what} turned", lambda g=get: relative(g(wide.t()), wide))
        seen(f"{what} turned of two", lambda g=get: relative(g([wide[0], wide.t()]), wide))
        seen(f"{what} empty", lambda g=get: len([g(torch.zeros(0))]))
        seen(f"{what} mixed", lambda g=get: g([flat, (1, 2, 3)], "DRAM"))
        seen(f"{what} meta", lambda g=get: g(torch.zeros(4, device="meta")) is None)
    seen("register", lambda: relative(agent.register_memory(flat), flat))
    seen("register two", lambda: relative(agent.register_memory([wide, flat]), wide)[0])
    seen("prepare", lambda: agent.prep_xfer_dlist("", flat))
    seen("deregister", lambda: agent.deregister_memory(agent.get_reg_descs(flat)))
    return seen


def case_serialized(p: Package) -> Seen:
    seen, b = Seen(), p.bindings
    agent = p.agent("a", backends=[])
    xfer = b.nixlXferDList(b.VRAM_SEG, ROWS)
    reg = b.nixlRegDList(b.DRAM_SEG, REG_ROWS)
    for label, dlist in (
        ("transfer", xfer),
        ("registration", reg),
        ("none", b.nixlXferDList(b.DRAM_SEG)),
    ):
        seen(f"{label} type", lambda d=dlist: type(agent.get_serialized_descs(d)).__name__)
        seen(
            f"{label} back", lambda d=dlist: agent.deserialize_descs(agent.get_serialized_descs(d))
        )
    there = agent.get_serialized_descs(xfer)
    seen("bytearray", lambda: agent.deserialize_descs(bytearray(there)))
    seen("nothing", lambda: agent.deserialize_descs(b""))
    seen("half", lambda: agent.deserialize_descs(there[: len(there) // 2]))
    seen("text", lambda: agent.deserialize_descs("abc"))
    seen("none", lambda: agent.deserialize_descs(None))
    seen("a pickle that runs code", lambda: agent.deserialize_descs(pickle.dumps(Runs())))
    seen("a pickle of a number", lambda: agent.deserialize_descs(pickle.dumps(3)))
    seen("rows", lambda: agent.deserialize_descs(agent.get_serialized_descs(ROWS)))
    seen("something else", lambda: agent.deserialize_descs(agent.get_serialized_descs(3)))
    return seen


class Runs:
    """Says that it was run, when unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (str, ("code was run",))
